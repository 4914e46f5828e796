"""Naive forecasts that stand beside every model in a backtest.

A baseline answers all origins at once, behind the contract that `backtest` also uses for the package's
own forecaster: ``predict_origins(y, X=None, *, origins, fh, quantile_levels=None)`` returns a tidy frame
with the columns series, origin, step, time, variable, point, and one column per quantile level, labelled
by the level itself. `forecast_frame` writes that frame from arrays.

Dimension key: ``O`` origins · ``L`` steps · ``C`` variables · ``Q`` quantile levels.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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


def naive_baselines(period: int) -> dict[str, "SeasonalNaive"]:
    """Return the baselines of every backtest: "last_value" and "seasonal_naive" with this period."""
    return {"last_value": SeasonalNaive(1), "seasonal_naive": SeasonalNaive(period)}


class SeasonalNaive:
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

    def fit(self, y: pd.Series | pd.DataFrame, X: Any = None, fh: Any = None) -> Self:
        """Keep the training part, from which the errors are taken; `X` and `fh` are ignored."""
        self._train = pd.DataFrame(y).to_numpy(dtype=float)
        self._period = self.seasonal_period if len(self._train) >= self.seasonal_period else 1
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
            Observed values, at least up to the last origin.
        X : ignored
        origins : index values
            Last observed times.
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
        frame = pd.DataFrame(y)
        levels = list(quantile_levels or [])
        positions = frame.index.get_indexer(pd.Index(origins))
        memory = _SeasonalMemory(frame.to_numpy(dtype=float), self._period)
        points = np.stack([memory.forecast(positions, step) for step in fh], axis=1)  # [O, L, C]
        errors = self._error_quantiles(fh, levels)  # [L, C, Q]
        calendar = frame.index.append(future_index(frame.index, max(fh)))
        return forecast_frame(
            points,
            points[..., np.newaxis] + errors,
            origins=frame.index[positions],
            steps=fh,
            times=calendar.take((positions[:, np.newaxis] + np.asarray(fh)).ravel()),
            variables=variable_names(y),
            quantile_levels=levels,
        )

    def _error_quantiles(self, fh: Sequence[int], levels: list[float]) -> NDArray:
        memory = _SeasonalMemory(self._train, self._period)
        quantiles = np.full((len(fh), self._train.shape[1], len(levels)), np.nan)
        if not levels:
            return quantiles
        for row, step in enumerate(fh):
            errors = memory.training_errors(step)
            for column, error in enumerate(errors.T):
                known = error[~np.isnan(error)]
                if known.size:
                    quantiles[row, column] = np.quantile(known, levels)
        return quantiles


class _SeasonalMemory:
    """Seasonal and last values of a series as known at each of its rows."""

    def __init__(self, values: NDArray, period: int):
        self._values = values
        self._period = period
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
        return -step % self._period


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


def variable_names(y: pd.Series | pd.DataFrame) -> pd.Index:
    """Column labels of a frame; the name of a series, or "y" if it has none."""
    if isinstance(y, pd.DataFrame):
        return y.columns
    return pd.Index(["y" if y.name is None else y.name])


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
