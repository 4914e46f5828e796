"""Columns of X: what each is, whether its future is known, and the features that a network reads of it.

A column is known ahead (a holiday, a price that was announced), past-only (a measurement), or static (it tells one
series from another and never changes). Numbers become a scaled value and a flag that says whether it was observed;
categories become one feature each, which is 1 for the category at hand. The first layer of a network maps these
linearly, which is an embedding.

Dimensions: n rows, K columns of X, E features.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.time_features import TimeFeatures
from xlstm_ts.data.windows import LARGEST
from xlstm_ts.errors import DataError, DataTypeError, ParameterError

MOST_CATEGORIES = 200
MOST_COLUMNS = 10_000


class Column(NamedTuple):
    """One column of X."""

    name: Hashable
    kind: str  # "known", "past" or "static"
    categories: tuple | None  # in order; None for numbers


@dataclass(frozen=True)
class CovariatePlan:
    """How the columns of X, and the clock, become features.

    Parameters
    ----------
    columns : tuple of Column
        In the order of the fitted X.
    clock : TimeFeatures
        What is read off the times.
    scaler : SeriesScaler
        Level and scale of each column, measured in training; a column of categories has 0 and 1.
    """

    columns: tuple[Column, ...]
    clock: TimeFeatures
    scaler: SeriesScaler

    @classmethod
    def unscaled(cls, columns: Sequence[Column], clock: TimeFeatures) -> "CovariatePlan":
        """Return a plan whose scaler is still to be measured."""
        return cls(tuple(columns), clock, SeriesScaler(np.zeros(len(columns)), np.ones(len(columns))))

    @property
    def known(self) -> np.ndarray:
        """Which of the E features are known ahead, (E,)."""
        parts = [[column.kind != "past"] * _width(column) for column in self.columns]
        return np.array([flag for part in parts for flag in part] + [True] * self.clock.width, dtype=bool)

    def encode(self, x: np.ndarray, times: pd.Index) -> np.ndarray:
        """Return the features (n, E), float32, of rows (n, K) of `to_matrix` and of their times."""
        features = np.zeros((len(x), sum(_width(column) for column in self.columns)), dtype=np.float32)
        scaled = np.clip(self.scaler.forward(x), -LARGEST, LARGEST)
        place = 0
        for j, column in enumerate(self.columns):
            observed = ~np.isnan(x[:, j])
            if column.categories is None:
                # A column that never moved in training says nothing.
                features[observed, place] = scaled[observed, j] if self.scaler.scale[j] > 0 else 0.0
                features[observed, place + 1] = 1.0
            else:
                features[np.flatnonzero(observed), place + x[observed, j].astype(np.int64)] = 1.0
            place += _width(column)
        return np.concatenate([features, self.clock.of(times)], axis=1)


def _width(column: Column) -> int:
    return 2 if column.categories is None else len(column.categories)


def plan_columns(
    X: pd.DataFrame | None, past: Sequence[Hashable], static: Sequence[Hashable], where: str
) -> tuple[Column, ...]:
    """Return what the columns of a training X are.

    Raises
    ------
    DataError
        A column cannot be used; or one that is named as past-only or static is not there.
    """
    if X is None:
        if len(past) or len(static):
            raise DataError(
                f"{where}: past_covariates={list(past)} and static_covariates={list(static)} name columns of X, but "
                "no X was given. Give it, or leave them out."
            )
        return ()
    check_x(X, where)
    for name, given in (("past_covariates", past), ("static_covariates", static)):
        if absent := [column for column in given if column not in X.columns]:
            raise DataError(f"{where}: {name} names {absent}, but the columns of X are {list(X.columns)}.")
    if both := [column for column in past if column in static]:
        raise ParameterError(f"{where}: {both} stand in past_covariates and in static_covariates. Choose one.")
    kinds = dict.fromkeys(past, "past") | dict.fromkeys(static, "static")
    return tuple(Column(name, kinds.get(name, "known"), _categories(X[name], where)) for name in X.columns)


def _categories(column: pd.Series, where: str) -> tuple | None:
    if is_number(column.dtype):
        return None
    values = sorted(column.dropna().unique(), key=lambda value: (type(value).__name__, value))
    if len(values) > MOST_CATEGORIES:
        raise DataError(
            f"{where}: the column {column.name!r} of X has {len(values)} different values of {column.dtype}; at most "
            f"{MOST_CATEGORIES} categories are learned. Group them, turn them into numbers with pd.to_numeric, or drop "
            "the column."
        )
    return tuple(values)


def is_number(dtype) -> bool:
    """Return whether a dtype holds numbers (truth values count as 0 and 1)."""
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)


def check_x(X: pd.DataFrame, where: str) -> None:
    """Raise unless every column of X holds finite numbers, or categories; NaN is fine and means missing."""
    if X.shape[1] > MOST_COLUMNS:
        raise DataError(f"{where}: X has {X.shape[1]} columns; at most {MOST_COLUMNS} are read. Choose among them.")
    if X.columns.has_duplicates:
        raise DataError(f"{where}: X has the column {X.columns[X.columns.duplicated()][0]!r} twice. Rename one.")
    for name, dtype in X.dtypes.items():
        if is_number(dtype):
            if X[name].dtype.kind == "f" and np.isinf(X[name].to_numpy()).any():
                row = X.index[np.isinf(X[name].to_numpy())][0]
                raise DataError(
                    f"{where}: the column {name!r} of X is infinite at {row}. Replace it, for instance by NaN, which "
                    "means missing."
                )
        elif not (isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_object_dtype(dtype) or _is_text(dtype)):
            raise DataTypeError(
                f"{where}: the column {name!r} of X is of type {dtype}; expected numbers, or text and categories. "
                "Convert it, for instance with pd.to_numeric, or drop it; calendar_features= reads dates off the index."
            )


def with_categories(X):
    """Return X with columns of text turned into categories, which sktime takes; anything but a frame as it is."""
    if not isinstance(X, pd.DataFrame):
        return X
    text = [name for name, dtype in X.dtypes.items() if pd.api.types.is_object_dtype(dtype) or _is_text(dtype)]
    return X.astype(dict.fromkeys(text, "category")) if text else X


def _is_text(dtype) -> bool:
    return pd.api.types.is_string_dtype(dtype)


def check_names(X: pd.DataFrame, columns: Sequence[Column], where: str) -> None:
    """Raise if X has columns that the fitted X had not."""
    fitted = [column.name for column in columns]
    if extra := [name for name in X.columns if name not in fitted]:
        raise DataError(
            f"{where}: X has the columns {extra}, which the fitted X had not; it had {fitted}. Leave them out, or fit "
            "again."
        )


def to_matrix(X: pd.DataFrame, columns: Sequence[Column], where: str) -> np.ndarray:
    """Return X (n, K) as float64: numbers as they are, categories by their number, NaN where missing.

    Columns are found by name; what is not named is an error, and so is a category that was not seen in training.
    """
    check_names(X, columns, where)
    check_x(X, where)
    matrix = np.full((len(X), len(columns)), np.nan)
    for j, column in enumerate(columns):
        if column.name not in X.columns:
            continue  # whoever calls knows whether it may be absent
        values = X[column.name]
        if column.categories is None:
            if not is_number(values.dtype):
                raise DataTypeError(
                    f"{where}: the column {column.name!r} of X is of type {values.dtype}; it held numbers when the "
                    "forecaster was fitted. Convert it with pd.to_numeric."
                )
            matrix[:, j] = values.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            codes = pd.Index(column.categories, dtype=object).get_indexer(values.astype(object))
            unknown = (codes < 0) & values.notna().to_numpy()
            if unknown.any():
                raise DataError(
                    f"{where}: the column {column.name!r} of X holds {values[unknown].iloc[0]!r} at "
                    f"{X.index[unknown][0]}, which was not there in training; known are "
                    f"{_some(column.categories)}. Use one of these, or NaN, which means missing."
                )
            matrix[:, j] = np.where(codes >= 0, codes, np.nan)
    return matrix


def check_static(x: np.ndarray, columns: Sequence[Column], name: str, where: str) -> None:
    """Raise unless the static columns of one series' rows (n, K) hold a single value each."""
    for j, column in enumerate(columns):
        if column.kind == "static":
            values = np.unique(x[~np.isnan(x[:, j]), j])
            if len(values) > 1:
                shown = values if column.categories is None else [column.categories[int(code)] for code in values]
                raise DataError(
                    f"{where}: the column {column.name!r} of X is named in static_covariates, but changes within "
                    f"{name}: {_some(list(shown))}. A static column has one value per series."
                )


def _some(values: Sequence) -> str:
    shown = ", ".join(repr(value.item() if hasattr(value, "item") else value) for value in values[:8])
    return shown + (f" and {len(values) - 8} more" if len(values) > 8 else "")
