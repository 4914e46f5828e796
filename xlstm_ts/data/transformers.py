"""Windows as scikit-learn and notebooks want them: lag columns beside every row, or arrays of windows.

A row's window is its past and itself, never a later row. At the start of the rows the past is missing, unless the
rows directly continue those of the fit: then the remembered end of these, the tail, stands before them. Dimensions:
N rows, C columns, T context steps, L horizon steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from xlstm_ts.checks import is_whole, require
from xlstm_ts.data.series import check_values, to_array
from xlstm_ts.data.time_axis import check_order, make_axis
from xlstm_ts.data.time_axis import is_whole as is_integer_index
from xlstm_ts.errors import DataError, DataTypeError

PADDINGS = ("nan", "edge")


class WindowArrays(NamedTuple):
    """Windows of a series: contexts (n, T, C), targets (n, L, K), and the index values of the last context rows."""

    contexts: np.ndarray
    targets: np.ndarray
    origins: pd.Index


def make_windows(series, context_length, horizon, stride=1, X=None) -> WindowArrays:
    """Cut a series into contexts and the targets that follow them.

    Parameters
    ----------
    series : pd.Series, pd.DataFrame or array of shape (N,) or (N, K)
        Rows in time order, taken as equally far apart. Missing values are NaN.
    context_length, horizon : int
        Rows of a context, and rows of a target.
    stride : int, default=1
        Rows from one window to the next.
    X : pd.Series, pd.DataFrame or array of shape (N,) or (N, M), optional
        Covariates of the same rows, put beside the series in the contexts, not in the targets.

    Returns
    -------
    contexts : array of shape (n, T, C), float64
        C is K, or K + M with covariates. A read-only view: windows share their memory.
    targets : array of shape (n, L, K), float64
        What follows each context; likewise a view.
    origins : pd.Index of length n
        The index value of the last row of each context; for arrays its position.

    Raises
    ------
    DataError
        The series is too short for one window, is not in time order, or has other rows than `X`.
    ParameterError
        A length is not a whole number above 0.

    Notes
    -----
    Targets of neighbouring windows overlap. In cross-validation leave ``gap=horizon - 1`` windows between training
    and test, or the last training targets lie in the test period.

    Examples
    --------
    >>> contexts, targets, origins = make_windows([10.0, 11.0, 12.0, 13.0, 14.0], context_length=2, horizon=1)
    >>> contexts[..., 0].tolist(), targets[..., 0].tolist(), origins.tolist()
    ([[10.0, 11.0], [11.0, 12.0], [12.0, 13.0]], [[12.0], [13.0], [14.0]], [1, 2, 3])
    """
    for name, value in (("context_length", context_length), ("horizon", horizon), ("stride", stride)):
        require(is_whole(value), name, value, "a whole number, 1 or above")
    frame = _as_frame(series, "make_windows: series")
    values = inputs = to_array(frame)
    if X is not None:
        beside = _as_frame(X, "make_windows: X")
        both_named = all(isinstance(part, pd.Series | pd.DataFrame) for part in (series, X))
        if len(beside) != len(frame) or (both_named and not beside.index.equals(frame.index)):
            raise DataError(
                f"make_windows: X has {len(beside)} rows and the series {len(frame)}, or their indexes differ. Give "
                "the same rows, for instance X.loc[series.index]."
            )
        inputs = np.hstack([values, to_array(beside)])
    rows, needed = len(values), context_length + horizon
    if rows < needed:
        raise DataError(
            f"make_windows: the series has {rows} rows; context_length={context_length} and horizon={horizon} need "
            f"{needed} for one window. Give a longer series, or shorter windows."
        )
    contexts = sliding_window_view(inputs, context_length, axis=0)[: rows - needed + 1 : stride]
    targets = sliding_window_view(values, horizon, axis=0)[context_length::stride]
    origins = frame.index[context_length - 1 : rows - horizon : stride]
    return WindowArrays(contexts.swapaxes(1, 2), targets.swapaxes(1, 2), origins)


class WindowTransformer(TransformerMixin, BaseEstimator):
    """Put the last rows beside every row, as lag columns: n rows in, n rows out, and no later row is read.

    Row t of the output holds, for each column, its values at the rows t, t-1, ..., t-context_length+1.

    Parameters
    ----------
    context_length : int, default=24
        Rows that a window holds, its own included.
    padding : {"nan", "edge"}, default="nan"
        What stands for rows before the first: NaN, or the first row again.

    Attributes
    ----------
    n_features_in_ : int
        Columns seen in fit.
    feature_names_in_ : array of str
        Their names, where fit got a DataFrame whose names are all strings.

    Raises
    ------
    DataError
        The rows cannot be used as they are: not numbers, infinite, not in time order, several series in one frame.
    ParameterError
        A parameter is impossible.

    Notes
    -----
    The last ``context_length - 1`` rows of the fit are remembered. They stand before the rows of `transform` if these
    directly continue them, which is read off the index of a DataFrame: its first label is the one that follows the
    last fitted label (the next period, integer, regular time or trading session). The first test rows then see their
    true history. The rows of the fit itself do not follow themselves, so they are padded. An array has no index: it is
    always padded, and so is a DataFrame after a pipeline step that returns arrays (``set_output(transform="pandas")``
    keeps the index).

    Examples
    --------
    >>> import pandas as pd
    >>> from xlstm_ts import WindowTransformer
    >>> X = pd.DataFrame({"load": [1.0, 2.0, 3.0, 4.0]})
    >>> lags = WindowTransformer(context_length=3).set_output(transform="pandas").fit(X[:3])
    >>> lags.transform(X[3:]).to_dict("records")
    [{'load_lag0': 4.0, 'load_lag1': 3.0, 'load_lag2': 2.0}]
    """

    def __init__(self, context_length=24, *, padding="nan"):
        self.context_length = context_length
        self.padding = padding

    def fit(self, X, y=None):
        """Learn the columns and remember the last rows.

        Parameters
        ----------
        X : DataFrame or array of shape (N, C)
            Rows in time order; missing values are NaN.
        y : None
            Not used.

        Returns
        -------
        self
        """
        where = f"{type(self).__name__}.fit"
        require(is_whole(self.context_length), "context_length", self.context_length, "a whole number, 1 or above")
        require(self.padding in PADDINGS, "padding", self.padding, f"one of {PADDINGS}")
        values = validated(self, X, where=where, reset=True)
        self._tail = Tail.of(X, values, self.context_length - 1)
        return self

    def transform(self, X):
        """Return the lag columns.

        Parameters
        ----------
        X : DataFrame or array of shape (N, C)
            Rows in time order.

        Returns
        -------
        array of shape (N, C * context_length), float64, or what `set_output` asks for
            Column by column, the lags from 0 on.
        """
        check_is_fitted(self)
        values = validated(self, X, where=f"{type(self).__name__}.transform", reset=False)
        joined = np.concatenate([self._tail.before(X), values])
        before = ((self.context_length - 1, 0), (0, 0))
        if self.padding == "edge":
            joined = np.pad(joined, before, mode="edge")
        else:
            joined = np.pad(joined, before, constant_values=np.nan)
        lags = sliding_window_view(joined, self.context_length, axis=0)[-len(values) :, :, ::-1]  # [N, C, T]
        return lags.reshape(len(values), -1)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the lag columns, ``{name}_lag{k}``.

        Parameters
        ----------
        input_features : sequence of str, optional
            Names of the columns. Default: those of the fit, or x0, x1, ...

        Returns
        -------
        array of str
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        return np.array([f"{name}_lag{k}" for name in names for k in range(self.context_length)], dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


@dataclass(frozen=True)
class Tail:
    """The last rows of a fit, and the index label that would follow them (None where no label would)."""

    values: np.ndarray  # [<= length, C]
    next_label: Any

    @classmethod
    def of(cls, X, values: np.ndarray, length: int) -> Tail:
        """Remember the last `length` rows of `values`; `X` is what the user gave, with its index."""
        index = _index_of(X)
        return cls(values[max(0, len(values) - length) :].copy(), None if index is None else _label_after(index))

    def before(self, X) -> np.ndarray:
        """Return the rows that stand before those of `X`: the tail if `X` directly continues it, else none."""
        index = _index_of(X)
        follows = index is not None and self.next_label is not None and bool(index[0] == self.next_label)
        return self.values if follows else self.values[:0]


def validated(estimator, X, y="no_validation", *, where: str, reset: bool, **options):
    """Return what scikit-learn's `validate_data` does, X as float64 with NaN allowed, with errors of our own."""
    _check_no_times(X, where)
    try:
        checked = validate_data(
            estimator, X, y, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan", **options
        )
    except (TypeError, ValueError) as error:
        kind = DataTypeError if isinstance(error, TypeError) else DataError
        raise kind(f"{where}: {error}{_remedy(str(error))}") from error
    _check_rows(X, where)
    return checked


def _remedy(message: str) -> str:
    """Return what scikit-learn's message leaves out: what to do."""
    if not message.startswith("Input y contains NaN"):
        return ""
    return (
        " Leave out the rows without a target where they are the first or the last, as after y.shift(-6); where they "
        "lie between others, give those windows of X that have a target, as an array (window, time, column)."
    )


def _check_no_times(X, where: str) -> None:
    """Raise if a column holds times, which numpy would silently count in nanoseconds."""
    columns = X.dtypes.items() if isinstance(X, pd.DataFrame) else [("X", getattr(X, "dtype", None))]
    for name, dtype in columns:
        if getattr(dtype, "kind", "?") in "mM":
            raise DataTypeError(
                f"{where}: column {name!r} is of type {dtype}; expected real numbers. Put times in the index, or drop "
                "the column."
            )


def _check_rows(X, where: str) -> None:
    """Raise unless the rows are those of one series, in time order where the index holds times."""
    index = _index_of(X)
    if isinstance(index, pd.MultiIndex):
        raise DataError(
            f"{where}: X has an index of {index.nlevels} levels; expected the rows of one series. Do it per series, "
            "for instance with X.groupby(level=0)."
        )
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex | pd.TimedeltaIndex):
        check_order(index, where)


def _index_of(X) -> pd.Index | None:
    return X.index if isinstance(X, pd.DataFrame | pd.Series) else None


def _label_after(index: pd.Index) -> Any:
    """Return the label that follows the last one, None where the index has no rule that says so."""
    if len(index) < 2:
        return None
    if isinstance(index, pd.DatetimeIndex):
        try:
            return make_axis(index, calendar=None, where="").future(1)[0]
        except DataError:
            return None
    if isinstance(index, pd.PeriodIndex):
        return index[-1] + 1 if (np.diff(index.asi8) == 1).all() else None
    if is_integer_index(index):
        steps = np.diff(index.to_numpy())
        return index[-1] + steps[0] if steps[0] > 0 and (steps == steps[0]).all() else None
    return None


def _as_frame(series, where: str) -> pd.DataFrame:
    """Return a frame of real, finite or missing numbers in time order."""
    if isinstance(series, pd.Series):
        frame = series.to_frame()
    elif isinstance(series, pd.DataFrame):
        frame = series
    else:
        array = np.asarray(series)
        if array.ndim not in (1, 2):
            raise DataError(f"{where} has {array.ndim} dimensions; expected rows, or rows and columns.")
        frame = pd.DataFrame(array)
    _check_rows(frame, where)
    check_values(frame, where)
    return frame
