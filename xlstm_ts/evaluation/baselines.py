"""Naive forecasts that stand beside every model in a backtest.

A baseline answers all origins at once, behind the contract that `backtest` also uses for the package's
own forecaster: ``predict_origins(y, X=None, *, origins, fh, quantile_levels=None)`` returns a tidy frame
with the columns series, origin, step, time, variable, point, and one column per quantile level, labelled
by the level itself. `forecast_frame` writes that frame from arrays.

Dimension key: ``O`` origins · ``L`` steps · ``C`` variables · ``Q`` quantile levels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation.series import variable_names

# Seconds between two rows -> rows per season.
_INTRADAY_PERIODS = {3600: 24, 1800: 48, 900: 96, 600: 144, 300: 288}
_DAY = 86_400
# Days between two rows, from and to -> rows per season: weeks, months and quarters are uneven in days.
_CALENDAR_PERIODS = ((6.9, 7.1, 52), (27.9, 31.1, 12), (89.9, 92.1, 4))


def seasonal_period(index: pd.Index) -> int:
    """Rows per season that the distance between rows suggests.

    Parameters
    ----------
    index : Index
        DatetimeIndex (with or without freq, gaps allowed: the median distance counts), PeriodIndex, or
        an index of integers.

    Returns
    -------
    int
        24 for hourly rows, 48, 96, 144 and 288 for 30, 15, 10 and 5 minutes; 7 for daily rows that
        include weekends, 5 for those that do not (trading sessions); 52 for weeks, 12 for months, 4 for
        quarters; else 1, also for integers. Seasons are counted in rows, not in calendar time.
    """
    freq = getattr(index, "freqstr", None)
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp(how="start")
    if not isinstance(index, pd.DatetimeIndex) or len(index) < 2:
        return 1
    # As microseconds since the epoch, so that neither the resolution nor a clock change matters.
    moments = index.tz_localize(None) if index.tz is None else index.tz_convert(None)
    seconds = float(np.median(np.diff(moments.to_numpy().astype("datetime64[us]").astype(np.int64)))) / 1e6
    if seconds == _DAY:
        return 7 if freq == "D" or (index.dayofweek >= 5).any() else 5
    for first, last, period in _CALENDAR_PERIODS:
        if first <= seconds / _DAY <= last:
            return period
    return _INTRADAY_PERIODS.get(round(seconds), 1)


REFERENCE = "seasonal_naive"  # what skill is measured against
NAIVE = ("last_value", REFERENCE)
BASELINE_WORDS = {
    "last_value": "the last value",
    "seasonal_naive": "the seasonal naive forecast",
    "drift": "the drift",
    "climatology": "the climatology",
}


def make_baseline(name: str, period: int) -> Baseline:
    """Return a baseline by its name; a ParameterError names the known ones."""
    known = {
        "last_value": lambda: SeasonalNaive(1),
        "seasonal_naive": lambda: SeasonalNaive(period),
        "drift": Drift,
        "climatology": Climatology,
    }
    if name not in known:
        raise ParameterError(f"backtest: no baseline is called {name!r}. Known names: {list(known)}.")
    return known[name]()


def naive_baselines(period: int) -> dict[str, Baseline]:
    """Return the baselines of every backtest: "last_value" and "seasonal_naive" with this period."""
    return {name: make_baseline(name, period) for name in NAIVE}


class Baseline(ABC):
    """What all baselines share: each series of `y` is learned and forecast by itself."""

    def clone(self) -> Self:
        """Return an unfitted copy."""
        return type(self)()

    def fit(self, y: pd.Series | pd.DataFrame, X: Any = None, fh: Any = None) -> Self:
        """Learn from the training part of each series; `X` and `fh` are ignored."""
        self._learned = {key: self._learn(frame) for key, frame in each_series(y)}
        return self

    def predict_origins(
        self,
        y: pd.Series | pd.DataFrame,
        X: Any = None,
        *,
        origins: Sequence[Any] | pd.Index,
        fh: Sequence[int],
        quantile_levels: Sequence[float] | None = None,
    ) -> pd.DataFrame:
        """Forecast from every origin, reading nothing after it.

        Parameters
        ----------
        y : Series or DataFrame
            Observed values, at least up to the last origin; of a panel, the last index level is time.
        X : ignored
        origins : index values
            Last observed times. A series that lacks one has no rows for it.
        fh : sequence of int
            Steps ahead, from 1.
        quantile_levels : sequence of float, optional
            Levels in (0, 1).

        Returns
        -------
        DataFrame
            The tidy frame described at the top of this module. Steps beyond the end of `y` are dated
            by the frequency of its index, or by the median distance of its rows.
        """
        levels = list(quantile_levels or [])
        frames = []
        for key, frame in each_series(y):
            positions = frame.index.get_indexer(pd.Index(origins))
            positions = positions[positions >= 0]
            if not len(positions):
                continue
            # A series that was not there in training is learned from what is known at its first origin.
            learned = self._learned[key] if key in self._learned else self._learn(frame.iloc[: positions[0] + 1])
            times = frame.index.append(future_index(frame.index, max(fh)))
            times = times.take((positions[:, np.newaxis] + np.asarray(fh)).ravel())
            points, quantiles = self._forecast(learned, frame, positions, list(fh), times, levels)
            part = forecast_frame(
                points,
                quantiles,
                origins=frame.index[positions],
                steps=fh,
                times=times,
                variables=variable_names(y),
                quantile_levels=levels,
            )
            part["series"] = repeated(key, len(part))
            frames.append(part)
        return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)

    @abstractmethod
    def _learn(self, frame: pd.DataFrame) -> Any:
        """Return what is kept of a training part."""

    @abstractmethod
    def _forecast(
        self,
        learned: Any,
        frame: pd.DataFrame,
        positions: NDArray,
        fh: list[int],
        times: pd.Index,
        levels: list[float],
    ) -> tuple[NDArray, NDArray]:
        """Return points [O, L, C] and quantiles [O, L, C, Q] of one series."""


class SeasonalNaive(Baseline):
    """The last observed value of the same season, for every step; with a period of 1 the last value.

    Quantiles are the point forecast plus the empirical quantiles of the errors that the same forecast
    made at the same step within the training part. A missing value is replaced by the last observed
    value of its season; a season never observed, by the last observed value of the series. A training
    part shorter than one season is forecast by the last value.

    Parameters
    ----------
    seasonal_period : int
        Rows per season.
    """

    def __init__(self, seasonal_period: int = 1):
        self.seasonal_period = seasonal_period

    def clone(self) -> Self:
        """Return an unfitted copy."""
        return type(self)(self.seasonal_period)

    def _learn(self, frame: pd.DataFrame) -> _SeasonalMemory:
        values = frame.to_numpy(dtype=float)
        return _SeasonalMemory(values, self.seasonal_period if len(values) >= self.seasonal_period else 1)

    def _forecast(self, learned, frame, positions, fh, times, levels):
        memory = _SeasonalMemory(frame.to_numpy(dtype=float), learned.period)
        points = np.stack([memory.forecast(positions, step) for step in fh], axis=1)
        errors = [_quantiles_by_column(learned.training_errors(step), levels) for step in fh]
        return points, points[..., np.newaxis] + np.stack(errors)


class Drift(Baseline):
    """The last observed value, moved on by the mean step of the training part; quantiles from its errors there."""

    def _learn(self, frame: pd.DataFrame) -> tuple[NDArray, NDArray]:
        values = _carry_forward(frame.to_numpy(dtype=float), 1)
        known = ~np.isnan(values)
        first = np.argmax(known, axis=0)
        run = len(values) - 1 - first
        start = values[first, np.arange(values.shape[1])]
        return frame.to_numpy(dtype=float), (values[-1] - start) / np.where(run > 0, run, 1)

    def _forecast(self, learned, frame, positions, fh, times, levels):
        train, slope = learned
        last, before = (_carry_forward(values, 1) for values in (frame.to_numpy(dtype=float), train))
        points = last[positions][:, np.newaxis] + np.asarray(fh)[:, np.newaxis] * slope
        errors = [
            _quantiles_by_column(train[step:] - before[: len(train) - step] - step * slope, levels) for step in fh
        ]
        return points, points[..., np.newaxis] + np.stack(errors)


class Climatology(Baseline):
    """The distribution of the training values at the same time of day and of the year, whatever happened lately.

    The point is their median. Values count if they lie within `window` days of the same day of the year; a training
    part of less than a year has no seasons to tell apart and counts by time of day alone, and an index without dates
    counts as a whole.

    Parameters
    ----------
    window : int
        Days before and after.
    """

    def __init__(self, window: int = 15):
        self.window = window

    def clone(self) -> Self:
        """Return an unfitted copy."""
        return type(self)(self.window)

    def _learn(self, frame: pd.DataFrame) -> tuple[NDArray, NDArray, NDArray, bool]:
        day, clock = _day_and_clock(frame.index)
        whole_year = isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex) and _days_covered(frame.index) >= 365
        return frame.to_numpy(dtype=float), day, clock, whole_year

    def _forecast(self, learned, frame, positions, fh, times, levels):
        values, day, clock, whole_year = learned
        keys = np.stack(_day_and_clock(times), axis=1)
        if not whole_year:
            keys[:, 0] = 0
        distinct, which = np.unique(keys, axis=0, return_inverse=True)
        table = np.empty((len(distinct), values.shape[1], len(levels) + 1))
        by_clock = {moment: np.flatnonzero(clock == moment) for moment in np.unique(distinct[:, 1])}
        for row, (wanted_day, moment) in enumerate(distinct):
            alike = by_clock[moment]
            if whole_year:
                apart = np.abs(day[alike] - wanted_day)
                alike = alike[np.minimum(apart, 366 - apart) <= self.window]
            table[row] = _quantiles_by_column(values[alike], [0.5, *levels])
        picked = table[which.ravel()].reshape(len(positions), len(fh), values.shape[1], -1)
        return picked[..., 0], picked[..., 1:]


def _quantiles_by_column(values: NDArray, levels: list[float]) -> NDArray:
    """Quantiles of the known values of each column, NaN where there are none: [C, Q]."""
    quantiles = np.full((values.shape[1], len(levels)), np.nan)
    for column, of_column in enumerate(values.T):
        known = of_column[~np.isnan(of_column)]
        if known.size and levels:
            quantiles[column] = np.quantile(known, levels)
    return quantiles


def _day_and_clock(index: pd.Index) -> tuple[NDArray, NDArray]:
    """Day of the year and second of the day of each time; zeros for integers."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp(how="start")
    if not isinstance(index, pd.DatetimeIndex):
        return np.zeros(len(index), dtype=int), np.zeros(len(index), dtype=int)
    clock = index.hour * 3600 + index.minute * 60 + index.second
    return np.asarray(index.dayofyear, dtype=int), np.asarray(clock, dtype=int)


def _days_covered(index: Any) -> float:
    ends = index.to_timestamp(how="start") if isinstance(index, pd.PeriodIndex) else index
    return (ends[-1] - ends[0]) / pd.Timedelta(days=1)


def each_series(y: pd.Series | pd.DataFrame) -> list[tuple[Any, pd.DataFrame]]:
    """Return the key of each series of `y` ("" for a single one) and its frame, indexed by time."""
    frame = pd.DataFrame(y)
    if not isinstance(frame.index, pd.MultiIndex):
        return [("", frame)]
    above = list(range(frame.index.nlevels - 1))
    groups = frame.groupby(level=above if len(above) > 1 else above[0], sort=False)
    return [(key, part.droplevel(above)) for key, part in groups]


def repeated(key: Any, count: int) -> NDArray:
    """Repeat a key as a column of objects: a tuple must stay one value."""
    column = np.empty(count, dtype=object)
    column[:] = [key] * count
    return column


class _SeasonalMemory:
    """Seasonal and last values of a series as known at each of its rows."""

    def __init__(self, values: NDArray, period: int):
        self._values = values
        self.period = period
        self._by_season = _carry_forward(values, period)
        self._last = _carry_forward(values, 1)

    def forecast(self, positions: NDArray, step: int) -> NDArray:
        """Forecast `step` rows after each position: [O, C]."""
        source = positions - self._lag(step)
        seasonal = self._by_season[np.maximum(source, 0)]
        known = (source >= 0)[:, np.newaxis] & ~np.isnan(seasonal)
        return np.where(known, seasonal, self._last[positions])

    def training_errors(self, step: int) -> NDArray:
        """Errors at this step from every position with a season behind it (from all, if none has)."""
        last = len(self._values) - step
        first = self._lag(step) if self._lag(step) < last else 0
        positions = np.arange(first, last)
        return self._values[positions + step] - self.forecast(positions, step)

    def _lag(self, step: int) -> int:
        """Rows from an origin back to the row that is in season with `step`."""
        return -step % self.period


def _carry_forward(values: NDArray, period: int) -> NDArray:
    """Replace NaN by the last known value whole periods before; what has none stays NaN."""
    rows = np.arange(len(values))
    # Each season becomes one column: padded at the end to whole periods, dropped again below.
    padding = -len(values) % period
    known = np.where(np.isnan(values), -1, rows[:, np.newaxis])
    known = np.pad(known, ((0, padding), (0, 0)), constant_values=-1)
    latest = np.maximum.accumulate(known.reshape(-1, period, values.shape[1]), axis=0)
    latest = latest.reshape(known.shape)[: len(values)]
    return np.where(latest >= 0, np.take_along_axis(values, np.maximum(latest, 0), axis=0), np.nan)


def future_index(index: pd.Index, length: int) -> pd.Index:
    """Return the `length` index values after `index`, by its frequency or its median distance."""
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[-1], periods=length + 1, freq=index.freq)[1:]
    if isinstance(index, pd.DatetimeIndex):
        freq = index.freq or (pd.infer_freq(index) if len(index) > 2 else None)
        if freq is not None:
            return pd.date_range(index[-1], periods=length + 1, freq=freq)[1:]
    distance = index.to_series().diff().median() if len(index) > 1 else 1
    return pd.Index([index[-1] + step * distance for step in range(1, length + 1)]).astype(index.dtype)


def forecast_frame(
    points: NDArray,
    quantiles: NDArray,
    *,
    origins: pd.Index,
    steps: Sequence[int],
    times: pd.Index,
    variables: pd.Index,
    quantile_levels: Sequence[float],
) -> pd.DataFrame:
    """Write forecasts as a tidy frame: one row per origin, step and variable, in this order.

    Parameters
    ----------
    points : ndarray of shape (O, L, C)
    quantiles : ndarray of shape (O, L, C, Q)
    origins : Index of length O
    steps : sequence of int of length L
    times : Index of length O * L
        Time of each forecast, origins first.
    variables : Index of length C
    quantile_levels : sequence of float of length Q

    Returns
    -------
    DataFrame
        Columns series (""), origin, step, time, variable, point, and the float levels.
    """
    origin_count, step_count, variable_count = points.shape
    frame = pd.DataFrame(
        {
            "series": "",
            "origin": origins.repeat(step_count * variable_count),
            "step": np.tile(np.repeat(np.asarray(steps), variable_count), origin_count),
            "time": times.repeat(variable_count),
            "variable": variables.take(np.tile(np.arange(variable_count), origin_count * step_count)),
            "point": points.ravel(),
        }
    )
    flat = quantiles.reshape(points.size, len(quantile_levels))
    frame[list(quantile_levels)] = flat
    return frame
