"""Backtests: forecasts from many past origins, made with nothing that was not known there.

An origin is the last observed time. A fresh clone of each forecaster is fitted on data up to the first origin, or
again for every fold of origins. A forecaster that offers ``predict_origins`` is then asked for many origins at once;
any other sktime forecaster walks from origin to origin by ``update(update_params=False)``. Baselines always stand
beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation import metrics as score
from xlstm_ts.evaluation.baselines import NAIVE, each_series, make_baseline
from xlstm_ts.evaluation.baselines import seasonal_period as period_of_index
from xlstm_ts.evaluation.folds import Fold, is_integer, plan_folds, plan_origins, read_steps
from xlstm_ts.evaluation.results import BacktestResult
from xlstm_ts.evaluation.runner import Answer, Grid, Job, Task, check_fitted, run_job
from xlstm_ts.evaluation.scores import check_metrics
from xlstm_ts.evaluation.series import SeriesSet, read_covariates, read_levels, read_series
from xlstm_ts.evaluation.store import Store, fingerprint

__all__ = ["BacktestResult", "backtest"]

DEFAULT_QUANTILE_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
BACKENDS = ("loky", "threading", "dask", "ray")


def backtest(
    forecaster: Any,
    y: pd.Series | pd.DataFrame,
    X: pd.DataFrame | None = None,
    *,
    horizon: int | Sequence[int],
    origins: int | Sequence[Any] | pd.Index | None = None,
    initial: int | None = None,
    stride: int | None = None,
    window: str = "expanding",
    refit: bool | int | None = False,
    gap: int = 0,
    quantile_levels: Sequence[float] = DEFAULT_QUANTILE_LEVELS,
    seasonal_period: int | str = "auto",
    baselines: bool | Sequence[str] = True,
    metrics: Sequence[str] | Mapping[str, Callable[[NDArray, NDArray], float]] | None = None,
    batch_size: int = 2048,
    error_score: str | float = "raise",
    backend: str | None = None,
    backend_params: Mapping[str, Any] | None = None,
    store: str | Path | None = None,
    verbose: bool = False,
) -> BacktestResult:
    """Forecast from many past origins, and keep forecasts and actual values.

    Parameters
    ----------
    forecaster : sktime forecaster, or dict of name to sktime forecaster
        Cloned and fitted on data up to the first origin (see `refit`), then only moved forward; the objects passed in
        are not changed. An object with ``predict_origins(y, X=None, *, origins, fh, quantile_levels=None)`` is asked
        for many origins at once; it is given `y` up to the last of them.
    y : Series or DataFrame
        One series, or several variables as columns, with increasing times; NaN is a missing value. Or a panel: a frame
        whose last index level is time. An index without frequency, such as trading days with holidays, is served too:
        steps are then rows, and forecasters that need a frequency receive positions instead of times.
    X : DataFrame, optional
        Covariates at the times of `y`. Forecasters get them for the forecast times too: give only what was known in
        advance, or was shifted so that it was.
    horizon : int or sequence of int
        Steps ahead to forecast and score: 1 to this one, or these.
    origins : int or index values, optional
        Last observed times to forecast from. A number asks for at most that many, spread evenly over the
        last fifth of the rows, or over as much of the last half as they need to be different from each
        other; the last one leaves exactly `horizon` rows to score, and at least ``2 * horizon + 8`` rows
        precede the first. Default: 50, unless `initial` or `stride` is given. Of a panel, an origin is the same
        moment for all series; a series that has no row there is left out at this origin.
    initial, stride : int, optional
        Instead of `origins`: rows of the first training part, and rows from one origin to the next (default 1), up to
        the last origin that leaves `horizon` rows.
    window : {"expanding", "sliding"}
        Whether later training parts begin at the first row too, or keep the length of the first one.
    refit : bool, int or None
        False: one fit. True: a fit for every origin. A number: a fit for every so many origins. None: the forecasters
        are fitted already and are evaluated as they are; their training data must not reach beyond the first origin.
    gap : int
        Rows between the last training row and the first origin of a fold. The rows of the gap are no training targets,
        but a forecast may read them.
    quantile_levels : sequence of float
        Increasing levels in (0, 1), asked of every forecaster with the tag ``capability:pred_int``.
    seasonal_period : int or "auto"
        Rows per season of the seasonal naive forecast, which is a baseline and the unit of MASE. "auto"
        reads it from the index (see `xlstm_ts.evaluation.baselines.seasonal_period`).
    baselines : bool or sequence of str
        What is scored beside the forecasters: "last_value" and "seasonal_naive" (True), none (False), or a choice of
        these, "drift" and "climatology".
    metrics : sequence of str, or dict of name to function, optional
        Scores of the summary, by name (see `xlstm_ts.evaluation.scores.known_metrics`); or functions of actual values
        and point forecasts, shown beside the default ones.
    batch_size : int
        Origins per call of ``predict_origins``, and per piece of the store. It bounds the memory that is needed beside
        the result.
    error_score : "raise" or nan
        What happens where a forecaster fails: the error is raised; or the origin is left out for this model, counted
        in the summary and named in ``result.failures``.
    backend : {"loky", "threading", "dask", "ray"}, optional
        Where models and folds run side by side, through sktime. Default: one after the other.
    backend_params : dict, optional
        Passed to the backend, for instance ``{"n_jobs": 2}``.
    store : str or Path, optional
        File ending in ".csv" or ".parquet". Results are written while they come; the same call goes on where an
        interrupted one stopped. Forecasters should have a fixed `random_state`, since the fold in work is fitted again.
    verbose : bool
        Whether to show a progress bar.

    Returns
    -------
    BacktestResult
        Forecasts and actual values, with summaries, figures and a report.

    Raises
    ------
    DataError
        `y` or `X` cannot be used, is too short, or a forecaster returned other times than asked for.
    ParameterError
        A parameter has an impossible value, or parameters contradict each other.
    XLSTMError
        A forecaster failed; the message names it and the origin, the cause is attached.

    Examples
    --------
    >>> from xlstm_ts import XLSTMForecaster, backtest, load_dataset
    >>> y = load_dataset("airline")["passengers"]
    >>> model = XLSTMForecaster(horizon=12, context_length=24, max_epochs=1, validation_fraction=0, random_state=0)
    >>> result = backtest(model, y, horizon=12, initial=96, stride=6, metrics=["MAE", "MASE"])
    >>> result.summary()["origins"].to_dict()
    {'XLSTMForecaster': 7, 'last_value': 7, 'seasonal_naive': 7}
    """
    models = _check_forecasters(forecaster)
    series = read_series(y, "backtest")
    levels = read_levels(quantile_levels, "backtest")
    steps = read_steps(horizon)
    positions = plan_origins(series.times, steps[-1], origins=origins, initial=initial, stride=stride, gap=gap)
    folds = plan_folds(positions, refit=refit, window=window, gap=gap)
    period = _check_period(seasonal_period, series.times)
    beside = _make_baselines(baselines, period, models)
    names, functions = _check_scores(metrics, levels)
    _check_choices(batch_size, error_score, backend)
    covariates = read_covariates(X, series, "backtest")
    if refit is None:
        for name, model in models.items():
            check_fitted(name, model, series, int(positions[0]))
    task = Task(series, covariates, steps, levels)
    settings = _settings(series, folds, refit, window, gap)
    everyone = {**models, **beside}
    collected = _collect(
        _jobs(everyone, models if refit is None else (), folds, batch_size),
        task,
        keep_going=error_score != "raise",
        backend=backend,
        backend_params=backend_params,
        store=None if store is None else (store, fingerprint(task, everyone, {**settings, "batch_size": batch_size})),
        verbose=verbose,
    )
    train = series.between(series.frame, folds[0].train_start, folds[0].train_stop)
    return BacktestResult(
        frame=collected.frame,
        y=series.frame,
        train_scale=_train_scale(train, series, period, power=1),
        train_rms_scale=_train_scale(train, series, period, power=2),
        horizon=steps[-1],
        seasonal_period=period,
        seconds=collected.seconds,
        overlap=_overlap(positions, steps[-1]),
        failures=collected.failures,
        metrics=names,
        functions=functions,
        settings=settings,
    )


@dataclass(frozen=True)
class _Collected:
    """All answers as one frame, with the times and the failures by model."""

    frame: pd.DataFrame
    seconds: pd.DataFrame
    failures: pd.DataFrame


def _collect(
    jobs: list[Job],
    task: Task,
    *,
    keep_going: bool,
    backend: str | None,
    backend_params: Mapping[str, Any] | None,
    store: tuple[str | Path, str] | None,
    verbose: bool,
) -> _Collected:
    """Run what the store does not hold yet, and put everything together in the order of the jobs."""
    batches = {(job.name, number): origins for job in jobs for number, origins in job.batches.items()}
    kept = None if store is None else Store(*store, batches, task)
    answers = {} if kept is None else kept.open()
    open_jobs = [
        replace(job, batches={n: origins for n, origins in job.batches.items() if (job.name, n) not in answers})
        for job in jobs
    ]
    open_jobs = [job for job in open_jobs if job.batches]
    done = _forget if kept is None else partial(_write, kept)
    with tqdm(total=sum(map(len, batches.values())), disable=not verbose, unit="origin") as progress:
        progress.update(sum(len(batches[key]) for key in answers))
        meta = {"task": task, "keep_going": keep_going, "done": done, "advance": progress.update}
        if backend is None:
            for job in open_jobs:
                progress.set_description(str(job.name))
                answers |= _keyed(job, run_job(job, meta))
        elif open_jobs:
            from sktime.utils.parallel import parallelize

            answered = parallelize(run_job, open_jobs, meta | {"advance": _ignore}, backend, dict(backend_params or {}))
            for job, parts in zip(open_jobs, answered, strict=True):
                answers |= _keyed(job, parts)
                progress.update(sum(map(len, job.batches.values())))
    ordered = {key: answers[key] for key in batches}
    frame = pd.concat(
        [Grid(task, batches[key]).frame(answer, key[0]) for key, answer in ordered.items()], ignore_index=True
    )
    if kept is not None:
        kept.finish(frame, ordered)
    return _Collected(frame, _seconds(ordered), _failures(ordered, task))


def _keyed(job: Job, parts: Iterable[tuple[int, Answer]]) -> dict[tuple[Any, int], Answer]:
    return {(job.name, number): answer for number, answer in parts}


def _forget(job: Job, number: int, answer: Answer) -> None:
    """Keep no batch."""


def _write(store: Store, job: Job, number: int, answer: Answer) -> None:
    store.write((job.name, number), answer)


def _ignore(origins: int) -> None:
    """Show no progress: the process that does is another one."""


def _seconds(answers: Mapping[tuple[Any, int], Answer]) -> pd.DataFrame:
    seconds: dict[Any, list[float]] = {}
    for (name, _), answer in answers.items():
        of_model = seconds.setdefault(name, [0.0, 0.0])
        of_model[0] += answer.fit_seconds
        of_model[1] += answer.predict_seconds
    return pd.DataFrame.from_dict(seconds, orient="index", columns=["fit", "predict"])


def _failures(answers: Mapping[tuple[Any, int], Answer], task: Task) -> pd.DataFrame:
    rows = [
        (name, task.y.times[position], why)
        for (name, _), answer in answers.items()
        for position, why in answer.failed.items()
    ]
    return pd.DataFrame(rows, columns=["model", "origin", "error"])


def _jobs(models: Mapping[Any, Any], fitted: Iterable[Any], folds: list[Fold], batch_size: int) -> list[Job]:
    """One job per model and fold; the batches of a model are numbered through all its folds."""
    jobs = []
    for name, model in models.items():
        number = 0
        for fold in folds:
            pieces = np.array_split(fold.origins, -(-len(fold.origins) // batch_size))
            jobs.append(Job(name, model, fold, dict(enumerate(pieces, start=number)), name in fitted))
            number += len(pieces)
    return jobs


def _train_scale(train: pd.DataFrame, series: SeriesSet, period: int, power: int) -> pd.Series:
    """Scale of every series and variable, from the training part alone; NaN for a series that is not in it."""
    known = dict(each_series(train))
    scales = {}
    for key in series.keys:
        labels = key if isinstance(key, tuple) else (key,)
        for variable in series.variables:
            values = known[key][variable] if key in known else []
            scales[(*labels, variable)] = score.naive_scale(values, period, power=power)
    names = list(series.frame.index.names[:-1]) if series.is_panel else ["series"]
    index = pd.MultiIndex.from_tuples(list(scales), names=[*names, "variable"])
    return pd.Series(list(scales.values()), index=index, name="train_scale")


def _overlap(positions: NDArray, last_step: int) -> int:
    return math.ceil(last_step / np.diff(positions).min()) if len(positions) > 1 else 1


def _settings(series: SeriesSet, folds: list[Fold], refit: Any, window: str, gap: int) -> dict[str, Any]:
    first = folds[0]
    return {
        "first_origin": series.times[first.origins[0]],
        "last_origin": series.times[folds[-1].origins[-1]],
        "origins": sum(len(fold.origins) for fold in folds),
        "train_rows": first.train_stop - first.train_start,
        "train_end": series.times[first.train_stop - 1],
        "refit": refit,
        "folds": len(folds),
        "window": window,
        "gap": gap,
    }


def _check_forecasters(forecaster: Any) -> dict[Any, Any]:
    models = dict(forecaster) if isinstance(forecaster, Mapping) else {type(forecaster).__name__: forecaster}
    if not models:
        raise ParameterError("backtest: forecaster is an empty dict; at least 1 forecaster is needed.")
    for name, model in models.items():
        absent = [method for method in ("clone", "fit") if not callable(getattr(model, method, None))]
        if absent or isinstance(model, type):
            raise ParameterError(
                f"backtest: {name!r} is {model!r}, which is no sktime forecaster instance. "
                "Give an object with the sktime forecasting interface, or a dict of name to such objects."
            )
    return models


def _make_baselines(baselines: bool | Sequence[str], period: int, models: Mapping[Any, Any]) -> dict[str, Any]:
    chosen = [] if baselines is False else list(NAIVE) if baselines is True else list(baselines)
    made = {name: make_baseline(name, period) for name in chosen}
    taken = sorted(set(models) & set(made), key=str)
    if taken:
        raise ParameterError(
            f"backtest: the names {taken} belong to the naive baselines. Rename these forecasters, "
            "or leave the baselines out with baselines=False."
        )
    return made


def _check_scores(chosen: Any, levels: list[float]) -> tuple[tuple[str, ...], dict[str, Any]]:
    if chosen is None:
        return (), {}
    if isinstance(chosen, Mapping):
        return (), dict(chosen)
    return tuple(check_metrics(chosen, levels, "backtest")), {}


def _check_choices(batch_size: Any, error_score: Any, backend: Any) -> None:
    if not is_integer(batch_size) or batch_size < 1:
        raise ParameterError(f"backtest: batch_size={batch_size!r}; a number of origins from 1 is needed.")
    missing = isinstance(error_score, float) and math.isnan(error_score)
    if not missing and error_score != "raise":
        raise ParameterError(f'backtest: error_score={error_score!r}; "raise" or nan is needed.')
    if backend is not None and backend not in BACKENDS:
        raise ParameterError(f"backtest: backend={backend!r}; None or one of {list(BACKENDS)} is needed.")


def _check_period(seasonal_period: int | str, index: pd.Index) -> int:
    if isinstance(seasonal_period, str) and seasonal_period == "auto":
        return period_of_index(index)
    if not is_integer(seasonal_period) or int(seasonal_period) < 1:
        raise ParameterError(f'backtest: seasonal_period={seasonal_period!r}; "auto" or an integer from 1 is needed.')
    return int(seasonal_period)
