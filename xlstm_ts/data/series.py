"""From frames to arrays: what a single series must be. Dimensions: N times, C channels, K columns of covariates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xlstm_ts.data.covariates import MOST_COLUMNS, Column, check_static, to_matrix
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
    x : array of shape (N, K), float64
        Its covariates, as `xlstm_ts.data.covariates.to_matrix` has them.
    """

    values: np.ndarray
    axis: TimeAxis
    columns: pd.Index
    x: np.ndarray

    def updated(
        self, y: pd.DataFrame, where: str, *, X: pd.DataFrame | None = None, plan: Sequence[Column] = ()
    ) -> "SeriesArray":
        """Return the series known after `y` was seen: it ends where `y` ends, and `y` wins where both have a value."""
        check_values(y, where)
        check_order(y.index, where)
        try:
            axis = self.axis.joined(y.index)
        except DataError as error:
            raise DataError(f"{where}: {error} Give the next times of the same series.") from error
        values = np.full((len(axis), len(self.columns)), np.nan)
        x = np.full((len(axis), len(plan)), np.nan)
        old, new = axis.index.get_indexer(self.axis.index), axis.index.get_indexer(y.index)
        values[old[old >= 0]], x[old[old >= 0]] = self.values[old >= 0], self.x[old >= 0]
        values[new], x[new] = to_array(y), covariate_rows(X, y.index, plan, where)
        if X is not None:
            # Times that y left out: X may know them.
            holes = np.setdiff1d(np.arange(len(axis)), np.concatenate([old, new]))
            rows = X.index.get_indexer(axis.index[holes])
            x[holes[rows >= 0]] = to_matrix(X.iloc[rows[rows >= 0]], plan, where)
        check_static(x, plan, "the series", where)
        fill_static(x, plan)
        return SeriesArray(values, axis, self.columns, x)

    def static_row(self, plan: Sequence[Column]) -> np.ndarray:
        """Return the value of each static column, (K,), and NaN for the others."""
        row = np.full(len(plan), np.nan)
        for j, column in enumerate(plan):
            seen = self.x[~np.isnan(self.x[:, j]), j]
            if column.kind == "static" and len(seen):
                row[j] = seen[-1]
        return row


def make_series(
    y: pd.DataFrame,
    *,
    calendar=None,
    where: str,
    X: pd.DataFrame | None = None,
    plan: Sequence[Column] = (),
    axis: TimeAxis | None = None,
    name: str = "",
) -> SeriesArray:
    """Check a frame and turn it into arrays.

    Parameters
    ----------
    y : pd.DataFrame
        One series, a column per channel.
    calendar : offset, str, DatetimeIndex or None
        What continues the index; None to find out.
    where : str
        Object and method, for the messages.
    X : pd.DataFrame, optional
        Covariates at the times of `y`, and perhaps at others.
    plan : sequence of Column
        What the columns of X are.
    axis : TimeAxis, optional
        That of a series with the same index, if there is one.
    name : str
        Of the series in a panel, quoted, for the messages.

    Raises
    ------
    DataError
        The index or the values cannot be used as they are; the message names the place and the remedy.
    """
    where_in = f"{where}: series {name}" if name else where
    check_values(y, where_in)
    if axis is None:
        check_order(y.index, where_in)
        axis = make_axis(y.index, calendar=calendar, where=where_in)
    values = to_array(y)
    seen = (~np.isnan(values)).sum(axis=0)
    if (seen < MIN_OBSERVED).any():
        few = int(np.argmax(seen < MIN_OBSERVED))
        raise DataError(
            f"{where}: observed values in series {name or repr(y.columns[few])}: {seen[few]}; at least "
            f"{MIN_OBSERVED} are needed to learn one step. Give a longer series, or drop this one."
        )
    x = covariate_rows(X, y.index, plan, where_in)
    check_static(x, plan, f"series {name}" if name else "the series", where)
    fill_static(x, plan)
    return SeriesArray(values, axis, y.columns, x)


def covariate_rows(X: pd.DataFrame | None, times: pd.Index, plan: Sequence[Column], where: str) -> np.ndarray:
    """Return the covariates (n, K) at some times, all of which X must have, with all its columns."""
    if X is None:
        if plan:
            raise DataError(
                f"{where}: no X was given, but the forecaster was fitted with the columns "
                f"{[column.name for column in plan]}. Give X at the times of y."
            )
        return np.zeros((len(times), 0))
    check_order(X.index, f"{where}: X")
    if absent := [column.name for column in plan if column.name not in X.columns]:
        raise DataError(f"{where}: X lacks the columns {absent}; it has {list(X.columns)}. Give all of them.")
    rows = X.index.get_indexer(times) if X.index.dtype == times.dtype else np.full(len(times), -1)
    if (rows < 0).any():
        raise DataError(
            f"{where}: X covers {X.index[0]} to {X.index[-1]}, but lacks {int((rows < 0).sum())} of the {len(times)} "
            f"times of y, the first being {times[rows < 0][0]}. Give a row of X for each time of y (NaN where a value "
            "is missing)."
        )
    return to_matrix(X.iloc[rows], plan, where)


def fill_static(x: np.ndarray, plan: Sequence[Column]) -> None:
    """Give every row (in place) the one value of each static column."""
    for j, column in enumerate(plan):
        if column.kind == "static":
            seen = x[~np.isnan(x[:, j]), j]
            x[:, j] = seen[-1] if len(seen) else np.nan


def check_values(y: pd.DataFrame, where: str) -> None:
    """Raise unless every column is real, numeric and nowhere infinite (NaN is fine: it means missing)."""
    if len(y) == 0 or y.shape[1] == 0:
        raise DataError(f"{where}: the series is empty ({len(y)} rows, {y.shape[1]} columns). Give at least 2 rows.")
    if y.shape[1] > MOST_COLUMNS:
        raise DataError(
            f"{where}: y has {y.shape[1]} columns; at most {MOST_COLUMNS} are forecast together. Choose among them, or "
            "give many series as a panel: one column, with their names as a level of the index."
        )
    if y.columns.nlevels > 1:
        raise DataError(
            f"{where}: y has column names of {y.columns.nlevels} levels. Join them first, for instance "
            'y.columns = ["_".join(map(str, name)) for name in y.columns].'
        )
    if y.columns.has_duplicates:
        raise DataError(f"{where}: the column {y.columns[y.columns.duplicated()][0]!r} stands twice. Rename one.")
    for column, dtype in y.dtypes.items():
        check_dtype(dtype, f"series {column!r}", where)
    values = to_array(y)
    if np.isinf(values).any():
        row, column = (int(k[0]) for k in np.nonzero(np.isinf(values)))
        raise DataError(
            f"{where}: series {y.columns[column]!r} is infinite at {y.index[row]}. Replace it, for instance by NaN, "
            "which means missing."
        )


def check_dtype(dtype, name: str, where: str) -> None:
    """Raise unless a dtype is one of real numbers; the message says how to come by these."""
    if pd.api.types.is_numeric_dtype(dtype) and dtype.kind in "iuf":
        return
    if dtype.kind in "Mm" or isinstance(dtype, pd.PeriodDtype):
        how = "take its .dt.total_seconds()" if dtype.kind == "m" else 'put times in the index, y.set_index("...")'
    elif dtype.kind == "c":
        how = "take its .real part or its magnitude"
    elif dtype.kind == "b" or isinstance(dtype, pd.CategoricalDtype):
        how = "convert it with .astype(float)"
    else:
        how = "convert it with pd.to_numeric, put times or names of series in the index"
    raise DataTypeError(
        f"{where}: {name} is of type {dtype}; expected real numbers. Forecasters do not support text, dates or "
        f"categorical features in y: {how}, or drop it."
    )


def to_array(y: pd.DataFrame) -> np.ndarray:
    """Return the values as a contiguous float64 array of its own; missing values become NaN."""
    return np.ascontiguousarray(y.to_numpy(dtype=np.float64, na_value=np.nan, copy=True))


def check_columns(found: pd.Index, fitted: pd.Index, where: str) -> None:
    """Raise unless a frame has the columns of the fitted one (the name of a single column says nothing)."""
    if len(found) != len(fitted) or (len(found) > 1 and list(found) != list(fitted)):
        raise DataError(
            f"{where}: y has the columns {list(found)}; the forecaster was fitted on {list(fitted)}. Give the same "
            "columns in the same order."
        )
