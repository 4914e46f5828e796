"""From frames to arrays: what a series must be, and its level and scale, removed before anything is float32.

Dimensions: N times, C channels.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from xlstm_ts.data.time_axis import TimeAxis, check_order, make_axis
from xlstm_ts.errors import DataError, DataTypeError

MIN_OBSERVED = 2


@dataclass(frozen=True)
class SeriesArray:
    """A series as the rest of the package sees it.

    Parameters
    ----------
    values : array of shape (N, C), float64, contiguous
        Missing values are NaN.
    axis : TimeAxis
        Its N times and their continuation.
    columns : pd.Index
        Its C names.
    """

    values: np.ndarray
    axis: TimeAxis
    columns: pd.Index

    def updated(self, y: pd.DataFrame, where: str) -> "SeriesArray":
        """Return the series known after `y` was seen: it ends where `y` ends, and `y` wins where both have a value."""
        check_values(y, where)
        check_order(y.index, where)
        try:
            axis = self.axis.joined(y.index)
        except DataError as error:
            raise DataError(f"{where}: {error} Give the next times of the same series.") from error
        values = np.full((len(axis), len(self.columns)), np.nan)
        old = axis.index.get_indexer(self.axis.index)
        values[old[old >= 0]] = self.values[old >= 0]
        values[axis.index.get_indexer(y.index)] = to_array(y)
        return SeriesArray(values, axis, self.columns)


def make_series(y: pd.DataFrame, *, calendar=None, where: str) -> SeriesArray:
    """Check a frame and turn it into arrays.

    Parameters
    ----------
    y : pd.DataFrame
        One series, a column per channel.
    calendar : offset, str, DatetimeIndex or None
        What continues the index; None to find out.
    where : str
        Object and method, for the messages.

    Raises
    ------
    DataError
        The index or the values cannot be used as they are; the message names the place and the remedy.
    """
    check_values(y, where)
    check_order(y.index, where)
    few = y.columns[(y.notna().sum() < MIN_OBSERVED).to_numpy()]
    if len(few):
        raise DataError(
            f"{where}: observed values in series {few[0]!r}: {int(y[few[0]].notna().sum())}; at least {MIN_OBSERVED} "
            "are needed to learn one step. Give a longer series, or drop this one."
        )
    return SeriesArray(to_array(y), make_axis(y.index, calendar=calendar, where=where), y.columns)


def check_values(y: pd.DataFrame, where: str) -> None:
    """Raise unless every column is real, numeric and nowhere infinite (NaN is fine: it means missing)."""
    if len(y) == 0 or y.shape[1] == 0:
        raise DataError(f"{where}: the series is empty ({len(y)} rows, {y.shape[1]} columns). Give at least 2 rows.")
    if y.columns.has_duplicates:
        raise DataError(f"{where}: the column {y.columns[y.columns.duplicated()][0]!r} stands twice. Rename one.")
    for column, dtype in y.dtypes.items():
        numeric = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)
        if not numeric or pd.api.types.is_complex_dtype(dtype):
            raise DataTypeError(
                f"{where}: series {column!r} is of type {dtype}; expected real numbers. Forecasters do not support "
                "text, dates or categorical features in y: convert the column with pd.to_numeric, or drop it."
            )
    values = to_array(y)
    if np.isinf(values).any():
        row, column = (int(k[0]) for k in np.nonzero(np.isinf(values)))
        raise DataError(
            f"{where}: series {y.columns[column]!r} is infinite at {y.index[row]}. Replace it, for instance by NaN, "
            "which means missing."
        )


def to_array(y: pd.DataFrame) -> np.ndarray:
    """Return the values as a contiguous float64 array of its own; missing values become NaN."""
    return np.ascontiguousarray(y.to_numpy(dtype=np.float64, na_value=np.nan, copy=True))


@dataclass(frozen=True)
class SeriesScaler:
    """Level and scale of each channel of the training series, in float64.

    A channel whose training values are all the same has that value as level and 0 as output scale: its forecast
    is exactly that value.

    Parameters
    ----------
    level, scale : arrays of shape (C,)
        Mean and standard deviation; `scale` is 0 for a constant channel.
    """

    level: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> "SeriesScaler":
        """Measure the observed values of (N, C)."""
        level, scale = np.empty(values.shape[1]), np.empty(values.shape[1])
        for j, column in enumerate(values.T):
            level[j], scale[j] = _level_and_scale(column[~np.isnan(column)])
        return cls(level, scale)

    @classmethod
    def fit_before(cls, values: np.ndarray, stop: int) -> "SeriesScaler":
        """Measure the rows before `stop`, or all rows where these hold nothing or a single value.

        `values` is (N, C), or (N, T, C) for windows; a channel without any observed value gets level and scale 0.
        """
        parts = [part.reshape(-1, values.shape[-1]) for part in (values[:stop], values)]
        inner, whole = (cls.fit(np.where((~np.isnan(part)).any(0), part, 0.0)) for part in parts)
        use = inner.scale > 0
        return cls(np.where(use, inner.level, whole.level), np.where(use, inner.scale, whole.scale))

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Remove level and scale along the last axis."""
        unit = np.where(self.scale > 0, self.scale, 1.0)
        return 2 * ((values / 2 - self.level / 2) / unit)  # in halves: the difference may exceed the largest float

    def backward(self, scaled: np.ndarray) -> np.ndarray:
        """Put scale and level back along the last axis; what lies beyond the largest float becomes that."""
        limit = np.finfo(np.float64).max
        with np.errstate(over="ignore"):
            return np.clip(self.level + self.scale * scaled, -limit, limit)


def _level_and_scale(observed: np.ndarray) -> tuple[float, float]:
    low, high = observed.min(), observed.max()
    # Relative to one value and in units of the range, a level of 1e9 keeps the digits of moves of 1. All in halves:
    # the range may exceed the largest float.
    unit = high / 2 - low / 2
    if unit == 0:
        return float(low), 0.0
    relative = (observed / 2 - low / 2) / unit
    return float(2 * (low / 2 + unit * relative.mean())), float(unit * (2 * relative.std()))
