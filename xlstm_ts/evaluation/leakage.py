"""Two questions to put to any pipeline before its scores are believed.

`check_leakage` changes the future and looks at the past: an output that moves has used a value that came after it.
`random_walk_canary` gives a pipeline series that nobody can foresee: one that claims to know their direction is wrong
about itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import DataError, ParameterError, XLSTMError
from xlstm_ts.evaluation.backtest import backtest
from xlstm_ts.evaluation.series import read_covariates, read_series

_HORIZON = 3  # steps asked of a forecaster
_LEVELS = (0.1, 0.5, 0.9)
# How the future is changed: other values of the same size, and values far out of any range seen.
CHANGES = ("shuffled", "far away")


class LeakageError(XLSTMError, AssertionError):
    """An output moved when only later values changed."""


# Perturbing the future


@dataclass(frozen=True, eq=False)
class LeakageReport:
    """What `check_leakage` found.

    Attributes
    ----------
    moved : DataFrame
        One row per output that moved: "cut" (last time that was left as it was), "change" (how the later values were
        changed), "time" and "output" (which value moved), "before" and "after". Empty if nothing leaks.
    compared : int
        Number of outputs that were compared.
    """

    moved: pd.DataFrame
    compared: int

    @property
    def leaks(self) -> bool:
        """Whether an output moved."""
        return len(self.moved) > 0

    def raise_if_leaking(self) -> None:
        """Raise a LeakageError that names the first output that moved."""
        if self.leaks:
            raise LeakageError(str(self))

    def __str__(self) -> str:
        if not self.leaks:
            return f"No leak: none of {self.compared:,} outputs moved when later values changed."
        first = self.moved.iloc[0]
        return (
            f"Leak: {len(self.moved):,} of {self.compared:,} outputs moved when only later values changed. The first: "
            f"{first['output']!r} at {first['time']} went from {first['before']:.6g} to {first['after']:.6g} when the "
            f"values after {first['cut']} were changed."
        )


def check_leakage(
    subject: Any,
    y: Any,
    X: Any = None,
    *,
    cuts: int = 4,
    fit_on: str = "before",
    tolerance: float = 0.0,
    random_state: int | np.random.Generator | None = 0,
) -> LeakageReport:
    """Change everything after a time, and report every output up to it that moved.

    Parameters
    ----------
    subject : object or callable
        What is examined, by what it can do:

        * an sktime forecaster, or a pipeline that ends in one: it is fitted on the first half and forecasts from later
          origins, by ``predict_origins`` if it has that and by ``update`` otherwise; forecasts from an origin must not
          move when later values of `y` change, nor when covariates beyond the last step do;
        * a transformer of sktime or scikit-learn: it is fitted (see `fit_on`) and transforms all of `y`;
        * a scikit-learn regressor, or a pipeline that ends in one: it is fitted on the first half of `X` and `y` and
          predicts from the rest of `X`;
        * any function ``f(y)``, or ``f(y, X)`` if `X` is given, that returns one row per row of `y`, or values with
          the times that they are for as index. This is the form for a whole chain of steps.
    y : Series or DataFrame
        A series, or several columns, with increasing times; for a regressor its targets. 40 rows or more.
    X : DataFrame, optional
        Covariates, or the inputs of a regressor.
    cuts : int
        Times after which everything is changed, spread over the later half.
    fit_on : {"before", "all"}
        What a transformer is fitted on: the first half, as a backtest would; or everything, as when a whole series is
        prepared at once. With "all" even a standard scaler leaks.
    tolerance : float
        How far an output may move. 0 asks for the same bits, which honest code gives unless it computes through a
        Fourier transform of everything.
    random_state : int, Generator or None
        For the changes.

    Returns
    -------
    LeakageReport
        Its ``leaks`` says yes or no, ``moved`` lists the outputs, ``raise_if_leaking()`` is for tests.

    Raises
    ------
    DataError
        `y` or `X` cannot be used, or a result cannot be placed in time.
    ParameterError
        `subject` is none of these, or an option is impossible.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from xlstm_ts import check_leakage
    >>> y = pd.Series(np.random.default_rng(0).normal(size=60).cumsum())
    >>> check_leakage(lambda y: y.rolling(5).mean(), y).leaks
    False
    >>> check_leakage(lambda y: y.rolling(5, center=True).mean(), y).leaks
    True
    """
    if fit_on not in ("before", "all"):
        raise ParameterError(f'check_leakage: fit_on={fit_on!r}; "before" or "all" is needed.')
    if cuts < 1 or tolerance < 0:
        raise ParameterError(f"check_leakage: cuts={cuts}, tolerance={tolerance}; at least 1 cut and 0 are needed.")
    series = read_series(y, "check_leakage")
    if series.is_panel:
        raise DataError("check_leakage: y is a panel. Give one of its series.")
    if len(series.times) < 40:
        raise DataError(f"check_leakage: y has {len(series.times)} rows; at least 40 are needed.")
    covariates = read_covariates(X, series, "check_leakage")
    rng = np.random.default_rng(random_state)
    rows = len(series.times)
    half = rows // 2
    places = np.unique(np.linspace(half, rows - _HORIZON - 2, cuts).round().astype(int))
    run, ahead = _way_to_run(subject, half, fit_on, places, covariates is not None)
    whole = run(series.given, covariates)
    moved: list[pd.DataFrame] = []
    compared = 0
    for cut in places:
        known = whole.index.get_level_values("known") <= series.times[cut]
        for change in CHANGES:
            changed = run(
                _changed(series.given, cut + 1, change, rng),
                None if covariates is None else _changed(covariates, cut + 1 + ahead, change, rng),
            )
            before, after = _aligned(whole[known], changed)
            compared += before.size
            moved.append(_differences(before, after, series.times[cut], change, tolerance))
    table = pd.concat(moved, ignore_index=True)
    return LeakageReport(table, compared)


def _way_to_run(
    subject: Any, half: int, fit_on: str, places: NDArray, has_covariates: bool
) -> tuple[Callable[[Any, Any], pd.DataFrame], int]:
    """Return a function from (y, X) to outputs indexed by (known, time), and how far covariates may be known ahead."""
    if isinstance(subject, type):
        raise ParameterError(f"check_leakage: {subject.__name__} is a class; give an object of it.")
    if hasattr(subject, "predict_origins") or (hasattr(subject, "update") and hasattr(subject, "predict")):
        return (lambda y, X: _forecasts(subject, y, X, half, places)), _HORIZON
    if hasattr(subject, "fit") and hasattr(subject, "predict"):
        if not has_covariates:
            raise ParameterError("check_leakage: a regressor is examined by its inputs; give them as X.")
        return (lambda y, X: _predictions(subject, y, X, half)), 0
    if hasattr(subject, "fit") and hasattr(subject, "transform"):
        return (lambda y, X: _transformed(subject, y, half if fit_on == "before" else len(y))), 0
    if callable(subject):
        return (lambda y, X: _rows_in_time(subject(y) if X is None else subject(y, X), y.index)), 0
    raise ParameterError(
        f"check_leakage: {subject!r} is no forecaster, transformer, regressor or function. Wrap the whole chain in a "
        "function of y that returns one row per row of y."
    )


def _forecasts(forecaster: Any, y: Any, X: Any, half: int, places: NDArray) -> pd.DataFrame:
    """Forecasts of one fit on the first half, from origins around every cut."""
    origins = np.unique(np.concatenate([[half - 1], places - 1, places]))
    origins = origins[origins < len(y) - _HORIZON]
    result = backtest(
        forecaster.clone(),
        y,
        X,
        horizon=_HORIZON,
        origins=y.index[origins],
        quantile_levels=_LEVELS,
        baselines=False,
    )
    frame = result.frame
    index = pd.MultiIndex.from_arrays([frame["origin"], frame["time"]], names=["known", "time"])
    outputs = frame[["point", *_LEVELS]].set_axis(["point", *map(str, _LEVELS)], axis=1).set_axis(index)
    if frame["variable"].nunique() > 1:
        outputs["variable"] = frame["variable"].to_numpy()
        outputs = outputs.set_index("variable", append=True).unstack("variable")
        outputs.columns = [f"{variable}, {name}" for name, variable in outputs.columns]
    return outputs


def _predictions(regressor: Any, y: Any, X: Any, half: int) -> pd.DataFrame:
    fitted = _copied(regressor).fit(X.iloc[:half], y.iloc[:half])
    return _rows_in_time(fitted.predict(X.iloc[half:]), X.index[half:])


def _transformed(transformer: Any, y: Any, rows: int) -> pd.DataFrame:
    fitted = _copied(transformer)
    of_sklearn = not hasattr(fitted, "get_tag")
    data = pd.DataFrame(y) if of_sklearn else y
    fitted = fitted.fit(data.iloc[:rows])
    return _rows_in_time(fitted.transform(data), y.index)


def _copied(estimator: Any) -> Any:
    if hasattr(estimator, "clone"):
        return estimator.clone()
    from sklearn.base import clone

    return clone(estimator)


def _rows_in_time(output: Any, index: pd.Index) -> pd.DataFrame:
    """Return an output with the time of each row: its own index, or that of the input where it has as many rows."""
    if isinstance(output, pd.Series | pd.DataFrame):
        frame = pd.DataFrame(output)
        frame.columns = [str(column) for column in frame.columns]
        times = frame.index
    else:
        values = np.asarray(output)
        values = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
        if len(values) != len(index):
            raise DataError(
                f"check_leakage: the output has {len(values)} rows, the input {len(index)}. Return one row per row, or "
                "a Series or DataFrame with the time of each."
            )
        frame, times = pd.DataFrame(values), index
        frame.columns = [f"column {number}" for number in range(values.shape[1])]
    if isinstance(times, pd.MultiIndex) or not times.isin(index).all():
        raise DataError("check_leakage: the output has times that the input has not; it cannot be placed in time.")
    return frame.astype(float).set_axis(pd.MultiIndex.from_arrays([times, times], names=["known", "time"]))


def _changed(frame: Any, start: int, change: str, rng: np.random.Generator) -> Any:
    """Return the frame with all values from a row on changed."""
    changed = frame.copy()
    later = pd.DataFrame(frame).iloc[start:].to_numpy(dtype=float)
    if not later.size:
        return changed
    everything = pd.DataFrame(frame).to_numpy(dtype=float)
    spread = np.nanstd(everything) or 1.0
    mixed = rng.permutation(later, axis=0)
    far = change == "far away"
    if np.nanmin(everything) > 0:  # prices and the like stay positive, so that their logarithms exist
        factor = rng.choice([0.01, 100.0]) if far else 1.0
        new = mixed * factor * np.exp(rng.normal(0, 0.1, later.shape))
    else:
        new = mixed + 100 * spread * far * rng.choice([-1.0, 1.0]) + rng.normal(0, 0.1 * spread, later.shape)
    if isinstance(changed, pd.Series):
        changed.iloc[start:] = new[:, 0]
    else:
        for column in range(new.shape[1]):
            changed.isetitem(column, np.concatenate([frame.iloc[:start, column].to_numpy(dtype=float), new[:, column]]))
    return changed


def _aligned(before: pd.DataFrame, changed: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    if list(before.columns) != list(changed.columns) or not before.index.isin(changed.index).all():
        lost = before.index[~before.index.isin(changed.index)]
        raise LeakageError(
            "check_leakage: with other later values the output has other columns or times"
            + (f"; {lost[0][-1]} is gone." if len(lost) else ".")
        )
    return before, changed.loc[before.index] if before.index.is_unique else changed.iloc[: len(before)]


def _differences(before: pd.DataFrame, after: pd.DataFrame, cut: Any, change: str, tolerance: float) -> pd.DataFrame:
    old, new = before.to_numpy(dtype=float), after.to_numpy(dtype=float)
    same = (old == new) | (np.isnan(old) & np.isnan(new)) | (np.abs(old - new) <= tolerance)
    rows, columns = np.nonzero(~same)
    return pd.DataFrame(
        {
            "cut": [cut] * len(rows),
            "change": change,
            "time": before.index.get_level_values("time")[rows],
            "output": before.columns[columns],
            "before": old[rows, columns],
            "after": new[rows, columns],
        }
    )


# Random walks


@dataclass(frozen=True, eq=False)
class CanaryResult:
    """Directional accuracy that a pipeline reached, or claims, on random walks.

    Attributes
    ----------
    accuracies : ndarray
        One per walk.
    standard_error : float
        Of their mean, if directions are coin flips.
    sigmas : float
        How many standard errors may lie between the mean and one half.
    """

    accuracies: NDArray
    standard_error: float
    sigmas: float

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(self.accuracies.mean())

    @property
    def caught(self) -> bool:
        """Whether the pipeline claims to foresee what cannot be foreseen."""
        return self.mean > 0.5 + self.sigmas * self.standard_error

    def raise_if_caught(self) -> None:
        """Raise a LeakageError if the pipeline is better than luck."""
        if self.caught:
            raise LeakageError(str(self))

    def __str__(self) -> str:
        verdict = "Caught: no honest pipeline foresees a random walk" if self.caught else "Not caught"
        return (
            f"{verdict}. {100 * self.mean:.1f} % of directions right on {len(self.accuracies)} random walks, where "
            f"luck gives 50 % ± {100 * self.sigmas * self.standard_error:.1f}."
        )


def random_walks(
    count: int = 40, length: int = 400, *, random_state: int | np.random.Generator | None = 0
) -> Iterator[pd.Series]:
    """Yield walks of independent normal steps, as positive prices on business days.

    Parameters
    ----------
    count, length : int
        Number of walks, and rows of each.
    random_state : int, Generator or None
        Seed, or a generator to draw from.
    """
    rng = np.random.default_rng(random_state)
    index = pd.bdate_range("2010-01-04", periods=length, name="time")
    for _ in range(count):
        yield pd.Series(100 * np.exp(0.01 * rng.normal(size=length).cumsum()), index=index, name="walk")


def random_walk_canary(
    pipeline: Any,
    *,
    walks: int = 40,
    length: int = 400,
    sigmas: float = 3.0,
    random_state: int | np.random.Generator | None = 0,
) -> CanaryResult:
    """Let a pipeline foresee the direction of random walks, which nobody can.

    Parameters
    ----------
    pipeline : sktime forecaster or callable
        A forecaster is backtested one step ahead over the later half of each walk. A function gets a walk as a Series
        and returns either its forecast changes, as a Series whose index is the time at which each change is complete
        (they are scored against the true changes), or the directional accuracy that it claims, as a number: this is
        how a pipeline that scores itself on prepared data is caught.
    walks, length : int
        Number of walks, and rows of each.
    sigmas : float
        How many standard errors above one half are still luck.
    random_state : int, Generator or None
        For the walks.

    Returns
    -------
    CanaryResult
        Its ``caught`` says whether the mean accuracy is too good to be true.

    Raises
    ------
    DataError
        The function returned times that the walk has not, or nothing that can be scored.
    ParameterError
        The numbers are impossible.
    """
    if walks < 2 or length < 40 or sigmas <= 0:
        raise ParameterError(
            f"random_walk_canary: walks={walks}, length={length}, sigmas={sigmas}; at least 2 walks of 40 rows and a "
            "positive number are needed."
        )
    accuracies, trials = [], 0
    for walk in random_walks(walks, length, random_state=random_state):
        right = _right(pipeline, walk)
        accuracies.append(float(np.mean(right)))
        trials += np.size(right) if np.ndim(right) else 0
    reached = np.array(accuracies)
    # Known trials are coin flips; of a claimed accuracy only the spread between walks is known.
    error = 0.5 / math.sqrt(trials) if trials else float(reached.std(ddof=1) / math.sqrt(walks))
    return CanaryResult(reached, error, sigmas)


def _right(pipeline: Any, walk: pd.Series) -> Any:
    """1, 0 or 1/2 for each change that was foreseen; or the accuracy that is claimed."""
    if hasattr(pipeline, "fit") and (hasattr(pipeline, "predict_origins") or hasattr(pipeline, "predict")):
        half = len(walk) // 2
        result = backtest(pipeline, walk, horizon=1, initial=half, quantile_levels=(), baselines=False)
        frame = result.frame
        change = pd.Series(frame["point"].to_numpy() - walk[frame["origin"]].to_numpy(), index=frame["time"])
    else:
        change = pipeline(walk)
    if np.ndim(change) == 0:
        if not 0 <= float(change) <= 1:
            raise DataError(f"random_walk_canary: the pipeline claims an accuracy of {change}; 0 to 1 is possible.")
        return float(change)
    if not isinstance(change, pd.Series) or not change.index.isin(walk.index).all():
        raise DataError(
            "random_walk_canary: the pipeline must return a Series of changes on times of the walk, or a number."
        )
    truth = walk.diff()[change.index].to_numpy()
    known = ~np.isnan(truth) & change.notna().to_numpy()
    if not known.any():
        raise DataError("random_walk_canary: none of the forecast changes can be scored.")
    return (np.sign(truth[known]) * np.sign(change.to_numpy()[known]) + 1) / 2
