"""What a backtest reads: one series or a panel, checked, as frames for forecasters and as arrays for the rest.

A panel is a frame whose last index level is time; the levels above it name the series. Everything is placed on one
axis, the sorted union of all times, so that an origin is the same moment for all series.

Dimension key: ``N`` rows of all series · ``S`` series · ``C`` variables · ``T`` times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import DataError, ParameterError

SINGLE = ""  # the key of a series that stands alone


@dataclass(frozen=True, eq=False)
class SeriesSet:
    """One series or several, in the form given and as arrays.

    Attributes
    ----------
    given : Series or DataFrame
        The values as float64, in the form in which forecasters receive them.
    frame : DataFrame
        The same with one column per variable.
    keys : list
        Name of each series: "" for a single one, its label, or a tuple of labels.
    offsets : ndarray of shape (S + 1,)
        Row at which each series begins; the last is N.
    times : Index of length T
        All times, increasing.
    places : ndarray of shape (N,)
        Position of each row in `times`.
    """

    given: pd.Series | pd.DataFrame
    frame: pd.DataFrame
    keys: list[Any]
    offsets: NDArray
    times: pd.Index
    places: NDArray

    @property
    def is_panel(self) -> bool:
        """Whether the index names series."""
        return isinstance(self.frame.index, pd.MultiIndex)

    @property
    def variables(self) -> pd.Index:
        """Names of the variables."""
        return self.frame.columns

    @cached_property
    def has_rhythm(self) -> bool:
        """Whether the next time follows from the times, so that any sktime forecaster can date its forecasts."""
        return has_rhythm(self.times)

    @cached_property
    def values(self) -> NDArray:
        """All values, float64: [N, C]."""
        return self.frame.to_numpy(dtype=float)

    @cached_property
    def row_times(self) -> pd.Index:
        """Time of each row: length N."""
        return self.times.take(self.places) if self.is_panel else self.times

    def rows_at(self, positions: NDArray) -> NDArray:
        """Row of each series at each position of `times`, -1 where it has none: [P, S]."""
        if not self.is_panel:
            return positions[:, np.newaxis].copy()
        rows = np.full((len(positions), len(self.keys)), -1)
        for number in range(len(self.keys)):
            first, stop = self.offsets[number : number + 2]
            places = self.places[first:stop]
            found = np.searchsorted(places, positions)
            inside = found < len(places)
            hit = np.flatnonzero(inside)[places[found[inside]] == positions[inside]]
            rows[hit, number] = first + found[hit]
        return rows

    def between(self, frame: Any, start: int, stop: int) -> Any:
        """Rows of a frame with this index whose time lies at positions `start` to `stop`, excluded."""
        if not self.is_panel:
            return frame.iloc[start:stop]
        return frame[(self.places >= start) & (self.places < stop)]

    def one(self, key: Any) -> pd.DataFrame:
        """Values of one series, indexed by time."""
        number = self.keys.index(key)
        rows = slice(*self.offsets[number : number + 2])
        return pd.DataFrame(self.values[rows], index=self.row_times[rows], columns=self.variables)


def read_series(y: Any, where: str) -> SeriesSet:
    """Check `y` and place it on one axis of times.

    Raises
    ------
    DataError
        It is no Series or DataFrame of real numbers with sorted, unique times.
    """
    if not isinstance(y, pd.Series | pd.DataFrame):
        raise DataError(
            f"{where}: y is a {type(y).__name__}; a pandas Series or DataFrame with one row per time is needed, or a "
            "DataFrame of several series whose last index level is time."
        )
    frame = check_values(pd.DataFrame(y).set_axis(variable_names(y), axis=1), where)
    if not isinstance(frame.index, pd.MultiIndex):
        check_index(frame.index, where)
        given = frame if isinstance(y, pd.DataFrame) else frame.iloc[:, 0]
        rows = np.arange(len(frame))
        return SeriesSet(given, frame, [SINGLE], np.array([0, len(frame)]), frame.index, rows)
    return _read_panel(frame, where)


def _read_panel(frame: pd.DataFrame, where: str) -> SeriesSet:
    if not len(frame):
        raise DataError(f"{where}: y has 0 rows; a panel of at least one series is needed.")
    index = frame.index
    above = index.droplevel(-1)
    codes, labels = pd.factorize(above)
    if (np.diff(codes) < 0).any():
        raise DataError(f"{where}: the series of y are not each in one piece. Sort it with y.sort_index().")
    keys = list(labels)
    row_times = index.get_level_values(-1)
    offsets = np.append(np.flatnonzero(np.diff(codes, prepend=-1)), len(frame))
    for key, first, stop in zip(keys, offsets[:-1], offsets[1:], strict=True):
        check_index(row_times[first:stop], f"{where}, series {key!r}")
    times = row_times.unique().sort_values()
    # The regular step of the union, which an index level cannot carry.
    times = sktime_index(times) if isinstance(times, pd.DatetimeIndex) and has_rhythm(times) else times
    return SeriesSet(frame, frame, keys, offsets, times, times.get_indexer(row_times))


def read_covariates(X: Any, y: SeriesSet, where: str) -> pd.DataFrame | None:
    """Return the rows of `X` at the rows of `y`; a DataError where some are missing."""
    if X is None:
        return None
    if not isinstance(X, pd.Series | pd.DataFrame):
        raise DataError(f"{where}: X is a {type(X).__name__}; a pandas DataFrame on the times of y is needed.")
    frame = pd.DataFrame(X)
    if not frame.index.is_unique:
        raise DataError(f"{where}: the index of X repeats {frame.index[frame.index.duplicated()][0]}. Keep one row.")
    if isinstance(frame.index, pd.MultiIndex) != y.is_panel:
        raise DataError(
            f"{where}: one of y and X is a panel and the other is not; both must name the same series. Repeat X for "
            "every series of y."
        )
    rows = frame.index.get_indexer(y.frame.index)
    if (rows < 0).any():
        raise DataError(
            f"{where}: X has no row at {y.frame.index[rows < 0][0]} and {int((rows < 0).sum()) - 1} other times of y. "
            "Covariates must cover y, the forecast times included."
        )
    return frame.iloc[rows].set_axis(y.frame.index)


def read_levels(quantile_levels: Any, where: str) -> list[float]:
    """Return quantile levels as floats; a ParameterError unless they increase between 0 and 1."""
    levels = [float(level) for level in quantile_levels]
    if not all(0 < level < 1 for level in levels) or sorted(set(levels)) != levels:
        raise ParameterError(
            f"{where}: quantile_levels={levels}; increasing levels between 0 and 1, both excluded, are needed."
        )
    return levels


def variable_names(y: pd.Series | pd.DataFrame) -> pd.Index:
    """Column labels of a frame; the name of a series, or "y" if it has none."""
    if isinstance(y, pd.DataFrame):
        return y.columns
    return pd.Index(["y" if y.name is None else y.name])


def check_values(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the frame as float64, or say which column cannot be used."""
    if not frame.columns.is_unique or not len(frame.columns):
        raise DataError(f"{where}: the columns of y are {list(frame.columns)}; different names are needed.")
    for name, column in frame.items():
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            times = isinstance(column.dtype, pd.PeriodDtype) or column.dtype.kind in "mM"
            how = "Convert it with pandas.to_numeric, or put times and names of series in the index: y.set_index(...)."
            raise DataError(
                f"{where}: {name!r} in y has the dtype {column.dtype}; numbers are needed. "
                f"{'Put times in the index: y.set_index(...).' if times else how}"
            )
    frame = frame.astype(float)
    infinite = np.isinf(frame.to_numpy()).any(axis=0)
    if infinite.any():
        raise DataError(
            f"{where}: {list(frame.columns[infinite])} in y contain infinite values. Replace them by NaN, "
            "which counts as missing."
        )
    return frame


def check_index(index: pd.Index, where: str) -> None:
    """Raise a DataError unless the index holds sorted, unique times or integers."""
    known = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) or pd.api.types.is_integer_dtype(index)
    if not known:
        raise DataError(
            f"{where}: y has a {type(index).__name__} of {index.dtype}; times (DatetimeIndex, PeriodIndex) or "
            "integers are needed. Convert it, for example with pandas.to_datetime."
        )
    if index.hasnans:
        raise DataError(f"{where}: the index of y contains missing times. Drop these rows.")
    if not index.is_unique:
        raise DataError(
            f"{where}: the index of y repeats {index[index.duplicated()][0]} "
            f"({int(index.duplicated().sum())} repeated rows). Keep one row per time."
        )
    if not index.is_monotonic_increasing:
        raise DataError(f"{where}: the index of y is not sorted. Sort it with y.sort_index().")


def has_rhythm(index: pd.Index) -> bool:
    """Whether the next time follows from the index, so that any sktime forecaster can date its forecasts."""
    return isinstance(index, pd.RangeIndex) or not isinstance(sktime_index(index), pd.RangeIndex)


def sktime_index(index: pd.Index) -> pd.Index:
    """Return the index with its frequency; positions if it has none, since sktime cannot forecast then."""
    if isinstance(index, pd.PeriodIndex):
        regular = index.equals(pd.period_range(index[0], periods=len(index), freq=index.freq))
    elif isinstance(index, pd.DatetimeIndex):
        freq = index.freq or (pd.infer_freq(index) if len(index) > 2 else None)
        if freq is not None:
            return pd.DatetimeIndex(index, freq=freq)
        regular = False
    else:
        regular = bool((np.diff(index.to_numpy()) == 1).all())
    return index if regular else pd.RangeIndex(len(index))
