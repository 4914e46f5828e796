"""The time axis of a series: which time every step is, before and after the last observed one.

Four kinds: periods, integers, timestamps at a regular step, and trading sessions (daily timestamps with holidays
between them and so without a freq). A step is counted from the last observed time, the cutoff: 1 is the next time,
0 the cutoff itself, negative numbers lie in the sample.
"""

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.data.calendar import LONGEST_HOLE, as_calendar, looks_like_sessions
from xlstm_ts.errors import DataError

MOST_STEPS = 1_000_000
"""Steps ahead that are served at most; beyond them lies a slip, not a forecast."""


@dataclass(frozen=True)
class TimeAxis:
    """The observed times and the rule that continues them.

    Parameters
    ----------
    index : pd.Index
        Observed times, complete: every step from the first to the last.
    step : offset, int or calendar
        What continues them: a pandas offset, the integer step, or an object with `sessions_after`.
    """

    index: pd.Index
    step: Any

    @property
    def calendar(self) -> Any | None:
        """The trading calendar, or None on a regular axis."""
        return self.step if hasattr(self.step, "sessions_after") else None

    def __len__(self) -> int:
        return len(self.index)

    def future(self, count: int) -> pd.Index:
        """Return the next `count` times after the cutoff."""
        last = self.index[-1]
        if count < 1:
            return self.index[:0]
        if self.calendar is not None:
            return self.calendar.sessions_after(last, count)
        if isinstance(self.index, pd.PeriodIndex):
            return pd.period_range(last + 1, periods=count, freq=self.index.freq)
        if isinstance(self.index, pd.DatetimeIndex):
            times = pd.date_range(last, periods=count + 1, freq=self.step, unit=self.index.unit)
            return times[times > last][:count]
        return pd.Index(last + self.step * np.arange(1, count + 1), dtype=self.index.dtype)

    def at(self, steps: np.ndarray) -> pd.Index:
        """Return the times of steps counted from the cutoff."""
        positions = np.asarray(steps) + len(self.index) - 1
        if positions.min() < 0:
            raise DataError(
                f"step {int(np.min(steps))} lies before the first observation; the series has {len(self.index)} "
                f"times, so the earliest step is {1 - len(self.index)}."
            )
        ahead = int(positions.max()) - len(self.index) + 1
        times = self.index.append(self.future(ahead)) if ahead > 0 else self.index
        return times[positions]

    def steps_of(self, times: pd.Index) -> np.ndarray:
        """Return the steps of times, counted from the cutoff; DataError for a time that is not on the axis."""
        if len(times):
            if getattr(times, "tz", None) is not None and getattr(self.index, "tz", None) is not None:
                times = times.tz_convert(self.index.tz)
            self._check_kind(times, "the forecasting horizon")
        known, count = self.index, 0
        while len(times) and times.max() > known[-1]:
            count = max(64, 2 * count)
            if count > 2 * MOST_STEPS:
                raise DataError(
                    f"the forecasting horizon asks for {times.max()}, more than {MOST_STEPS} steps ahead. Resample the "
                    "series to a longer step."
                )
            known = self.index.append(self.future(count))
        positions = known.get_indexer(times)
        if (positions < 0).any():
            kind = "a trading session of calendar_" if self.calendar is not None else "a step of the series' own index"
            raise DataError(
                f"the forecasting horizon asks for {times[positions < 0][0]}, which is not {kind}. Ask for times "
                "that are, or for relative steps."
            )
        return positions - (len(self.index) - 1)

    def joined(self, index: pd.Index) -> "TimeAxis":
        """Return the axis that ends where `index` ends: the union of both times up to there, without holes."""
        self._check_kind(index, "the new data")
        last = index[-1]
        earlier = self.index[self.index < index[0]]
        if self.calendar is not None:
            self._check_clock(index)
            known = self.index[(self.index >= index[0]) & (self.index <= last)].union(index)
            if len(earlier) == len(self.index) and (index[0] - earlier[-1]).days > LONGEST_HOLE:
                # No market closes for so long: these sessions were held, and nobody reported them.
                passed = self.calendar.sessions_between(earlier[-1], index[0])
                earlier = earlier.append(passed[(passed > earlier[-1]) & (passed < index[0])])
            return TimeAxis(earlier.append(known), self.step)
        known = self if self.index[0] <= index[0] else TimeAxis(index[:1], self.step)
        full = known.index
        while full[-1] < last:
            full = known.index.append(known.future(max(64, 2 * (len(full) - len(known)))))
        full = full[full <= last]
        both = self.index[self.index <= last].append(index)
        if (full.get_indexer(both) < 0).any():
            off = both[full.get_indexer(both) < 0][0]
            raise DataError(f"the time {off} of the new data is not a step of the fitted series ({self}).")
        return TimeAxis(full, self.step)

    def _check_kind(self, times: pd.Index, what: str) -> None:
        """Raise unless these times can be compared with those of the series."""
        kinds = [index.dtype if isinstance(index, pd.PeriodIndex) else type(index) for index in (times, self.index)]
        if kinds[0] != kinds[1] and not (is_whole(times) and is_whole(self.index)):
            raise DataError(f"{what} has times of {times.dtype}, the fitted series of {self.index.dtype}.")
        zones = [getattr(index, "tz", None) for index in (times, self.index)]
        if str(zones[0]) != str(zones[1]):
            raise DataError(f"{what} has the time zone {zones[0]}, the fitted series {zones[1]}.")

    def _check_clock(self, index: pd.DatetimeIndex) -> None:
        """Raise unless new sessions stand at the time of day of the known ones."""
        clock = (self.index[-1:] - self.index[-1:].normalize())[0]
        off = (index - index.normalize()) != clock
        if off.any():
            raise DataError(f"the session {index[off][0]} of the new data stands at another time of day than {clock}.")

    def __str__(self) -> str:
        return "a trading calendar" if self.calendar is not None else f"step {self.step}"


def make_axis(index: pd.Index, *, calendar: Any | None, where: str) -> TimeAxis:
    """Return the time axis of an observed index.

    Parameters
    ----------
    index : pd.Index
        Observed times.
    calendar : offset, str, DatetimeIndex or None
        What continues them, where the user says so; None to find out.
    where : str
        Object, method and series for the messages.

    Raises
    ------
    DataError
        Times are missing, duplicated, unsorted, irregular, or of a kind that cannot be continued; the message
        names the first bad one and the remedy.
    """
    check_order(index, where)
    if calendar is not None:
        if not isinstance(index, pd.DatetimeIndex):
            raise DataError(f"{where}: calendar={calendar!r} needs a DatetimeIndex, got {type(index).__name__}.")
        return TimeAxis(index, as_calendar(calendar, index))
    if isinstance(index, pd.PeriodIndex):
        _check_holes(index, np.diff(index.asi8), index.freq.n, where)
        return TimeAxis(index, index.freq)
    if isinstance(index, pd.DatetimeIndex):
        return _datetime_axis(index, where)
    steps = np.diff(index.to_numpy())  # `check_order` has refused whatever else is not whole
    step = int(steps.min()) if len(steps) else 1
    _check_holes(index, steps, step, where)
    return TimeAxis(index, step)


def is_whole(index: pd.Index) -> bool:
    """Return whether an index holds integers."""
    return pd.api.types.is_integer_dtype(index)


def check_order(index: pd.Index, where: str) -> None:
    """Raise unless times are of a kind that has a next one, present, sorted and unique."""
    _check_has_next(index, where)
    if index.hasnans:
        raise DataError(f"{where}: row {int(np.argmax(index.isna()))} has no time (NaT). Drop such rows.")
    if not index.is_unique:
        raise DataError(
            f"{where}: the time {index[index.duplicated()][0]} stands twice in the index. Keep one of them, for "
            "instance y[~y.index.duplicated()]."
        )
    if not index.is_monotonic_increasing:
        values = pd.Series(index)
        bad = values[values < values.cummax()].iloc[0]
        raise DataError(f"{where}: the time {bad} comes after a later one. Sort the series with y.sort_index().")


def _check_has_next(index: pd.Index, where: str) -> None:
    """Raise unless an index holds times, periods or whole numbers."""
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) or is_whole(index):
        return
    how = ""
    if isinstance(index[0], pd.Timestamp | datetime.date | str) and not isinstance(index, pd.CategoricalIndex):
        zones = {getattr(time, "tzinfo", None) for time in index}
        how = f" Convert it with pd.to_datetime(y.index{', utc=True' if len(zones) > 1 else ''}) if it holds dates."
    raise DataError(
        f"{where}: an index of {index.dtype} has no next time. Use a DatetimeIndex, a PeriodIndex, or integers.{how}"
    )


def _datetime_axis(index: pd.DatetimeIndex, where: str) -> TimeAxis:
    freq = index.freq
    if freq is None and len(index) >= 3:
        alias = pd.infer_freq(index)
        freq = pd.tseries.frequencies.to_offset(alias) if alias else None
    if freq is None and len(index) == 2:
        freq = pd.tseries.frequencies.to_offset(index[1] - index[0])
    if freq is None and looks_like_sessions(index):
        return TimeAxis(index, as_calendar(None, index))
    if freq is None and len(index) == 1:
        freq = pd.offsets.Day()
    if freq is None:
        steps = pd.Series(index[1:] - index[:-1])
        usual = steps.mode().iloc[0]
        if (steps == usual).all():  # regular in absolute time, shown in a zone whose clock changes
            return TimeAxis(index, pd.tseries.frequencies.to_offset(usual))
        bad = int(np.argmax((steps != usual).to_numpy()))
        raise DataError(
            f"{where}: the index has no regular step: it is mostly {usual}, but {index[bad]} is followed by "
            f"{index[bad + 1]}. Fill the holes with missing values, for instance y.asfreq("
            f"{pd.tseries.frequencies.to_offset(usual).freqstr!r}) or on_gap='mask', bring the times to a grid with "
            "resample=, or pass calendar= if these are trading sessions."
        )
    return TimeAxis(index, freq)


def _check_holes(index: pd.Index, steps: np.ndarray, step: int, where: str) -> None:
    if (steps != step).any():
        bad = int(np.argmax(steps != step))
        raise DataError(
            f"{where}: the index has a hole: {index[bad]} is followed by {index[bad + 1]}, and its step is "
            f"{step if is_whole(index) else index.freqstr}. "
            "Fill it with missing values, for instance y.reindex(...), or "
            "pass on_gap='mask'."
        )
