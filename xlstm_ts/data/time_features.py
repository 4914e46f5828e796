"""What the clock says of a time: sine and cosine of its place in the day, the week or the year, and holidays.

These are covariates that are known for ever. They are read off the local clock where times have a zone, since
people and the sun go by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xlstm_ts.checks import require
from xlstm_ts.errors import DataError, ParameterError

DAY = 86_400.0
PERIODS = {"hour": DAY / 24, "day": DAY, "week": 7 * DAY, "year": 365.25 * DAY}  # seconds
HARMONICS = {"hour": 1, "day": 2, "week": 3, "year": 2}
"""Sines and cosines per cycle: three tell the seven days of a week apart, two bend a day or a year."""

STEPS_PER_CYCLE = {"hour": 4, "day": 2, "week": 4, "year": 3}
"""Steps that a cycle must hold at least: a step longer than half a cycle cannot show it. The week needs days (four
hold it, so that five sessions do), the year quarters (three, since some are longer)."""

CYCLES_SEEN = 2
"""How often a series must have gone through a cycle before it may be learned."""


@dataclass(frozen=True)
class TimeFeatures:
    """Features of times.

    Parameters
    ----------
    cycles : tuple of str
        Of "hour", "day", "week" and "year".
    holidays : str or None
        Country, or country and region, whose public holidays are marked by a 1: "DE", "US-CA".
    """

    cycles: tuple[str, ...] = ()
    holidays: str | None = None

    @property
    def width(self) -> int:
        """E: how many features there are."""
        return sum(2 * HARMONICS[cycle] for cycle in self.cycles) + (self.holidays is not None)

    def of(self, index: pd.Index) -> np.ndarray:
        """Return the features (n, E), float32, of some times; DataError if the index holds none."""
        if self.width == 0:
            return np.zeros((len(index), 0), dtype=np.float32)
        if not _has_clock(index):
            raise DataError(
                f"the forecaster was fitted on times and reads its calendar features off them, but this index is of "
                f"{index.dtype}. Give a DatetimeIndex or a PeriodIndex."
            )
        times = _wall_clock(index)
        columns = []
        for cycle in self.cycles:
            angle = 2 * np.pi * _phase(times, cycle)
            for k in range(1, HARMONICS[cycle] + 1):
                columns += [np.sin(k * angle), np.cos(k * angle)]
        if self.holidays is not None:
            columns.append(_holidays(times, self.holidays))
        return np.stack(columns, axis=1).astype(np.float32)


def choose_time_features(
    indices: Sequence[pd.Index], cycles: str | Sequence[str] | None, holidays: str | None, where: str
) -> TimeFeatures:
    """Return the features of a parameter.

    Parameters
    ----------
    indices : sequence of pd.Index
        Times of each series.
    cycles : "auto", sequence of str, or None
        "auto" takes each cycle that the step can show and that the longest series has gone through twice.
    holidays : str or None
        A country, "DE", or a country and region, "US-CA".

    Raises
    ------
    ParameterError
        A name is unknown.
    DataError
        The index has no clock.
    """
    if cycles is None and holidays is None:
        return TimeFeatures()
    if holidays is not None:
        _check_holidays(holidays, where)
    longest = max(indices, key=len)
    has_clock = _has_clock(longest)
    if cycles == "auto":
        chosen = _possible(longest) if has_clock else ()
    else:
        several = cycles is None or (not isinstance(cycles, str) and all(cycle in PERIODS for cycle in cycles))
        require(several, "calendar_features", cycles, f'"auto", None, or some of {tuple(PERIODS)}')
        chosen = tuple(cycles or ())
    if (chosen or holidays) and not has_clock:
        raise DataError(
            f"{where}: calendar_features={cycles!r} and holidays={holidays!r} need times, but the index is of "
            f"{longest.dtype}. Give a DatetimeIndex or a PeriodIndex, or leave them out."
        )
    return TimeFeatures(chosen, holidays)


def _has_clock(index: pd.Index) -> bool:
    return isinstance(index, pd.DatetimeIndex | pd.PeriodIndex)


def _possible(index: pd.Index) -> tuple[str, ...]:
    if len(index) < 2:
        return ()
    seconds = _wall_clock(index).astype("datetime64[s]").astype(np.int64).to_numpy()
    step, span = float(np.median(np.diff(seconds))), float(seconds[-1] - seconds[0])
    return tuple(
        cycle
        for cycle, period in PERIODS.items()
        if step > 0 and period >= STEPS_PER_CYCLE[cycle] * step and span >= CYCLES_SEEN * period
    )


def _wall_clock(index: pd.Index) -> pd.DatetimeIndex:
    times = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else pd.DatetimeIndex(index)
    return times.tz_localize(None) if times.tz is not None else times


def _phase(times: pd.DatetimeIndex, cycle: str) -> np.ndarray:
    """Return where in a cycle each time lies, from 0 to 1."""
    seconds = (times - times.normalize()).total_seconds().to_numpy()
    if cycle in ("hour", "day"):
        return (seconds % PERIODS[cycle]) / PERIODS[cycle]
    if cycle == "week":
        return (times.dayofweek.to_numpy() + seconds / DAY) / 7
    length = np.where(times.is_leap_year, 366.0, 365.0)
    return (times.dayofyear.to_numpy() - 1 + seconds / DAY) / length


def _holidays(times: pd.DatetimeIndex, place: str) -> np.ndarray:
    country, _, region = place.partition("-")
    days = times.normalize().unique()
    years = range(int(days.year.min()), int(days.year.max()) + 1)
    known = _package().country_holidays(country, subdiv=region or None, years=years)
    marked = pd.DatetimeIndex(sorted(known)) if len(known) else pd.DatetimeIndex([])
    return times.normalize().isin(marked).astype(np.float64)


def _check_holidays(place: str, where: str) -> None:
    require(isinstance(place, str) and bool(place), "holidays", place, 'a country, "DE", or with its region, "US-CA"')
    country, _, region = place.partition("-")
    try:
        _package().country_holidays(country, subdiv=region or None, years=2024)
    except NotImplementedError as error:
        raise ParameterError(f"{where}: holidays={place!r} is not a place whose holidays are known: {error}") from error


def _package():
    try:
        import holidays
    except ImportError as error:
        raise ImportError(
            "holidays= needs the package of that name, which the extra `calendar` installs: "
            "pip install 'xlstm-ts[calendar]'."
        ) from error
    return holidays
