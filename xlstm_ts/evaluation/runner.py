"""One model, one fit, all forecasts from its origins: what a backtest repeats for every model and fold.

A forecaster that offers ``predict_origins`` is asked for a batch of origins at once. Any other sktime forecaster
walks from origin to origin by ``update(update_params=False)``; where the times have no rhythm it receives positions
instead of times, and its forecasts are put back on the times.

Dimension key: ``R`` forecast rows · ``C`` variables · ``Q`` levels · ``O`` origins · ``S`` series.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import DataError, ParameterError, XLSTMError
from xlstm_ts.evaluation.baselines import repeated
from xlstm_ts.evaluation.folds import Fold
from xlstm_ts.evaluation.series import SeriesSet, sktime_index


@dataclass(frozen=True, eq=False)
class Task:
    """What every model is asked: the series, the covariates, the steps and the levels."""

    y: SeriesSet
    X: pd.DataFrame | None
    steps: list[int]
    levels: list[float]


@dataclass(frozen=True, eq=False)
class Job:
    """One model and one fold: the batches of origins that it is still asked for, by their number."""

    name: Any
    model: Any
    fold: Fold
    batches: dict[int, NDArray]
    fitted: bool = False  # the model is evaluated as it is


@dataclass(frozen=True, eq=False)
class Answer:
    """Forecasts of one batch of origins, in the order of `Grid`.

    Attributes
    ----------
    points, quantiles : ndarray of shape (R, C) and (R, C, Q)
        NaN in the rows of an origin that failed.
    failed : dict of int to str
        Position of an origin that failed, and why.
    fit_seconds, predict_seconds : float
        The seconds of a fit are counted with its first batch.
    """

    points: NDArray
    quantiles: NDArray
    failed: dict[int, str] = field(default_factory=dict)
    fit_seconds: float = 0.0
    predict_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Grid:
    """The rows of forecasts from a batch of origins: by origin, then series, then step.

    A series has no rows for an origin that is not one of its times, nor for steps beyond its end.
    """

    task: Task
    origins: NDArray

    @cached_property
    def origin_rows(self) -> NDArray:
        """Row of `y` that is each origin of each series, -1 if none: [O, S]."""
        return self.task.y.rows_at(self.origins)

    @cached_property
    def lengths(self) -> NDArray:
        """Number of steps of each origin and series: [O, S]."""
        rows = self.origin_rows
        left = np.where(rows >= 0, self.task.y.offsets[1:] - 1 - rows, 0)
        return np.searchsorted(self.task.steps, left, side="right")

    @cached_property
    def starts(self) -> NDArray:
        """First row of the grid for each origin and series: [O, S]."""
        flat = self.lengths.ravel()
        return (np.cumsum(flat) - flat).reshape(self.lengths.shape)

    @cached_property
    def _cells(self) -> NDArray:
        return np.repeat(np.arange(self.lengths.size), self.lengths.ravel())

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self.lengths.sum())

    @cached_property
    def step_numbers(self) -> NDArray:
        """Number of the step of each row, from 0."""
        return np.arange(self.size) - self.starts.ravel()[self._cells]

    @cached_property
    def origin_numbers(self) -> NDArray:
        """Number of the origin of each row within the batch."""
        return self._cells // self.lengths.shape[1]

    @cached_property
    def series_numbers(self) -> NDArray:
        """Number of the series of each row."""
        return self._cells % self.lengths.shape[1]

    @cached_property
    def targets(self) -> NDArray:
        """Row of `y` that each row forecasts."""
        return self.origin_rows.ravel()[self._cells] + np.asarray(self.task.steps)[self.step_numbers]

    def empty(self) -> tuple[NDArray, NDArray]:
        """Points [R, C] and quantiles [R, C, Q] to fill, all NaN."""
        shape = (self.size, len(self.task.y.variables))
        return np.full(shape, np.nan), np.full((*shape, len(self.task.levels)), np.nan)

    def frame(self, answer: Answer, name: Any) -> pd.DataFrame:
        """Write forecasts as a tidy frame, with the actual values beside them."""
        y = self.task.y
        count = len(y.variables)
        columns: dict[Any, Any] = {
            "model": name,
            "series": repeated_keys(y.keys, np.repeat(self.series_numbers, count)),
            "origin": y.times.take(self.origins[self.origin_numbers]).repeat(count),
            "step": np.repeat(np.asarray(self.task.steps)[self.step_numbers], count),
            "time": y.row_times.take(self.targets).repeat(count),
            "variable": y.variables.take(np.tile(np.arange(count), self.size)),
            "y": y.values[self.targets].ravel(),
            "point": answer.points.ravel(),
        }
        flat = answer.quantiles.reshape(self.size * count, -1)
        frame = pd.DataFrame(columns | {level: flat[:, k] for k, level in enumerate(self.task.levels)})
        if not answer.failed:
            return frame
        kept = ~np.isin(self.origins[self.origin_numbers], list(answer.failed))
        return frame[np.repeat(kept, count)]


def repeated_keys(keys: list[Any], numbers: NDArray) -> Any:
    """Return the key of each row as a column."""
    if len(keys) == 1:
        return keys[0] if not isinstance(keys[0], tuple) else repeated(keys[0], len(numbers))
    table = np.empty(len(keys), dtype=object)
    table[:] = keys
    return table[numbers]


def run_job(job: Job, meta: dict[str, Any]) -> list[tuple[int, Answer]]:
    """Fit a clone for one fold and forecast from its origins.

    `meta` holds the task, ``keep_going`` (whether a failure is noted instead of raised), ``done`` (called with the
    job, the number of a batch and its answer when that is ready) and ``advance`` (called with a number of origins).
    """
    task: Task = meta["task"]
    keep_going, done, advance = meta["keep_going"], meta["done"], meta["advance"]
    runner = _Runner(job, task)
    started = perf_counter()
    answers: list[tuple[int, Answer]] = []
    try:
        runner.fit()
        why = None
    except XLSTMError as error:
        if not keep_going:
            raise
        why = str(error)
    fit_seconds = perf_counter() - started
    for number, origins in job.batches.items():
        started = perf_counter()
        grid = Grid(task, origins)
        if why is None:
            points, quantiles, failed = runner.forecast(grid, keep_going, advance)
        else:
            (points, quantiles), failed = grid.empty(), dict.fromkeys(origins.tolist(), why)
            advance(len(origins))
        answer = Answer(points, quantiles, failed, fit_seconds, perf_counter() - started)
        fit_seconds = 0.0
        done(job, number, answer)
        answers.append((number, answer))
    return answers


class _Runner:
    """A model on one fold: it is fitted once, and then only moved forward."""

    def __init__(self, job: Job, task: Task):
        self.name, self.fold, self.task = job.name, job.fold, task
        self.at_once = callable(getattr(job.model, "predict_origins", None))
        self.model = job.model
        self.as_it_is = job.fitted
        y = task.y
        # An index without a rhythm is of no use to other forecasters, unless they were fitted on it already.
        positions = not (self.at_once or self.as_it_is or y.has_rhythm)
        self.y, self.X = (_on_positions(frame, y) if positions else _with_freq(frame, y) for frame in (y.given, task.X))
        self.seen = job.fold.train_stop

    def fit(self) -> None:
        """Fit a clone on the training part; a model that is evaluated as it is, is only copied if it will move."""
        if self.as_it_is:
            self.seen = _rows_seen(self.name, self.model, self.task.y)
            self.model = self.model if self.at_once else deepcopy(self.model)
            return
        start, stop = self.fold.train_start, self.fold.train_stop
        self.model = self.model.clone()
        extra = {} if self.X is None else {"X": self._rows(self.X, start, stop)}
        try:
            self.model.fit(self._rows(self.y, start, stop), fh=self.task.steps, **extra)
        except Exception as error:
            times = self.task.y.times
            raise XLSTMError(
                f"backtest: {self.name!r} failed to fit on the {stop - start} rows up to {times[stop - 1]}, for the "
                f"first origin {times[self.fold.origins[0]]}: {error}"
            ) from error

    def forecast(
        self, grid: Grid, keep_going: bool, advance: Callable[[int], Any]
    ) -> tuple[NDArray, NDArray, dict[int, str]]:
        """Return points, quantiles and what failed."""
        if self.at_once:
            try:
                points, quantiles = self._ask(grid)
            except XLSTMError:
                if not keep_going:
                    raise
                # Asked again below, one origin at a time, to find those that fail.
            else:
                advance(len(grid.origins))
                return points, quantiles, {}
        points, quantiles = grid.empty()
        failed: dict[int, str] = {}
        for number, position in enumerate(grid.origins):
            single = Grid(self.task, grid.origins[number : number + 1])
            rows = slice(int(grid.starts[number, 0]), int(grid.starts[number, 0]) + single.size)
            try:
                points[rows], quantiles[rows] = self._ask(single) if self.at_once else self._step(single)
            except XLSTMError as error:
                if not keep_going:
                    raise
                failed[int(position)] = str(error)
            advance(1)
        return points, quantiles, failed

    def _rows(self, frame: Any, start: int, stop: int) -> Any:
        return self.task.y.between(frame, start, stop)

    # Forecasters that answer all origins at once

    def _ask(self, grid: Grid) -> tuple[NDArray, NDArray]:
        """Forecast from all origins in one call of ``predict_origins``."""
        task, last = self.task, int(grid.origins[-1])
        known = self._rows(self.y, self.fold.train_start, last + 1)
        extra = {} if self.X is None else {"X": self._rows(self.X, self.fold.train_start, last + task.steps[-1] + 1)}
        origins = task.y.times[grid.origins]
        try:
            frame = self.model.predict_origins(
                known, origins=origins, fh=task.steps, quantile_levels=task.levels or None, **extra
            )
        except Exception as error:
            raise XLSTMError(
                f"backtest: {self.name!r} failed to forecast from the {len(origins)} origins {origins[0]} to "
                f"{origins[-1]}: {error}"
            ) from error
        order, kept = _row_order(self.name, frame, grid)
        points, quantiles = grid.empty()
        points.ravel()[order] = frame["point"].to_numpy(dtype=float)[kept]
        quantiles.reshape(points.size, len(task.levels))[order] = frame[task.levels].to_numpy(dtype=float)[kept]
        return points, quantiles

    # Forecasters that walk

    def _step(self, grid: Grid) -> tuple[NDArray, NDArray]:
        """Move on to the one origin of the grid, and forecast."""
        task, position = self.task, int(grid.origins[0])
        ahead = {} if self.X is None else {"X": self._rows(self.X, position + 1, position + task.steps[-1] + 1)}
        asks_quantiles = bool(task.levels) and self.model.get_tag("capability:pred_int", False)
        try:
            if position + 1 > self.seen:
                new = {} if self.X is None else {"X": self._rows(self.X, self.seen, position + 1)}
                self.model.update(self._rows(self.y, self.seen, position + 1), update_params=False, **new)
                self.seen = position + 1
            point = self.model.predict(fh=task.steps, **ahead)
            spread = self.model.predict_quantiles(fh=task.steps, alpha=task.levels, **ahead) if asks_quantiles else None
        except Exception as error:
            raise XLSTMError(
                f"backtest: {self.name!r} failed at the origin {task.y.times[position]}: {error}"
            ) from error
        points, quantiles = grid.empty()
        points[:] = self._point_array(pd.DataFrame(point), grid)
        if spread is not None:
            quantiles[:] = self._quantile_array(spread, grid)
        return points, quantiles

    def _point_array(self, frame: pd.DataFrame, grid: Grid) -> NDArray:
        rows = self._forecast_rows("predict", frame.index, grid)
        variables = self.task.y.variables
        if len(variables) > 1 and not frame.columns.equals(variables):
            raise DataError(
                f"backtest: predict of {self.name!r} returned the columns {list(frame.columns)}; "
                f"{list(variables)} were asked for."
            )
        return frame.to_numpy(dtype=float)[rows]

    def _quantile_array(self, spread: pd.DataFrame, grid: Grid) -> NDArray:
        rows = self._forecast_rows("predict_quantiles", spread.index, grid)
        levels, variables = self.task.levels, self.task.y.variables
        found = [float(level) for level in spread.columns.get_level_values(-1)]
        if found != levels * len(variables):
            raise DataError(
                f"backtest: predict_quantiles of {self.name!r} returned the levels {found}; "
                f"{levels} were asked for, for each of {list(variables)}."
            )
        return spread.to_numpy(dtype=float)[rows].reshape(grid.size, len(variables), len(levels))

    def _forecast_rows(self, method: str, index: pd.Index, grid: Grid) -> NDArray:
        """Row of the forecast for each row of the grid; an error if its index is not the one asked for."""
        wanted = self.y.index[grid.targets]
        if self.task.y.is_panel:
            rows = index.get_indexer(wanted) if isinstance(index, pd.MultiIndex) else np.full(len(wanted), -1)
            right = bool((rows >= 0).all())
        else:
            rows = np.arange(len(wanted))
            right = len(index) == len(wanted) and bool(np.all(index == wanted))
        if not right:
            raise DataError(
                f"backtest: {method} of {self.name!r} at the origin {self.task.y.times[grid.origins[0]]} returned "
                f"{len(index)} forecasts for {index[:1].tolist()} to {index[-1:].tolist()}; {len(wanted)} were asked "
                f"for, for {wanted[0]} to {wanted[-1]}."
            )
        return rows


def _row_order(name: Any, frame: pd.DataFrame, grid: Grid) -> tuple[NDArray, NDArray]:
    """Cell of each row of an answer, and which rows have one; an error if they are not those asked for."""
    task = grid.task
    y, variables, steps = task.y, task.y.variables, np.asarray(task.steps)
    wanted = ["origin", "step", "time", "variable", "point", *task.levels]
    wanted = ["series", *wanted] if y.is_panel else wanted
    absent = [column for column in wanted if column not in getattr(frame, "columns", ())]
    if absent:
        raise DataError(f"backtest: predict_origins of {name!r} returned no columns {absent}; it must give {wanted}.")
    if len(variables) == 1:
        # The name of a single variable says nothing: sktime calls an unnamed series 0.
        column = np.zeros(len(frame), dtype=int)
    else:
        column = variables.get_indexer(frame["variable"])
    origin = y.times[grid.origins].get_indexer(pd.Index(frame["origin"]))
    step = np.searchsorted(steps, frame["step"].to_numpy())
    step = np.where(np.append(steps, -1)[step] == frame["step"].to_numpy(), step, -1)
    series = np.zeros(len(frame), dtype=int)
    if y.is_panel:
        numbers = {key: number for number, key in enumerate(y.keys)}
        series = np.array([numbers.get(key, -1) for key in frame["series"]], dtype=int)
    known = (np.stack([origin, step, column, series]) >= 0).all(axis=0)
    # A panel may end earlier than the forecast: such rows have nothing to be scored against.
    inside = np.zeros(len(frame), dtype=bool)
    inside[known] = step[known] < grid.lengths[origin[known], series[known]]
    kept = np.asarray(inside if y.is_panel else known)
    order = (grid.starts[origin[kept], series[kept]] + step[kept]) * len(variables) + column[kept]
    expected = grid.size * len(variables)
    if not known.all() or len(order) != expected or len(np.unique(order)) != len(order):
        raise DataError(
            f"backtest: predict_origins of {name!r} returned {len(frame)} rows that are not the {expected} asked "
            f"for: each of {len(grid.origins)} origins, steps {steps[0]} to {steps[-1]} and variables "
            f"{list(variables)} once."
        )
    _check_times(name, frame[kept], grid, order // len(variables))
    return order, kept


def _check_times(name: Any, frame: pd.DataFrame, grid: Grid, rows: NDArray) -> None:
    """Compare the times of the forecasts, where the times have a rhythm from which they can be known."""
    if not grid.task.y.has_rhythm:
        return
    expected, times = grid.task.y.row_times.take(grid.targets[rows]), pd.Index(frame["time"])
    wrong = np.flatnonzero(np.asarray(times != expected))
    if wrong.size:
        row = wrong[0]
        raise DataError(
            f"backtest: predict_origins of {name!r} dates step {frame['step'].iloc[row]} after "
            f"{frame['origin'].iloc[row]} at {times[row]}; {expected[row]} was asked for."
        )


def _rows_seen(name: Any, model: Any, y: SeriesSet) -> int:
    """Return how many times lie up to the end of a fitted model's training data; an error if it cannot be told."""
    try:
        cutoff = model.cutoff
        cutoff = cutoff[-1] if isinstance(cutoff, pd.Index | np.ndarray | list) else cutoff
        if pd.isna(cutoff):
            raise ValueError(f"cutoff is {cutoff}")
        return int(y.times.searchsorted(cutoff, side="right"))
    except Exception as error:
        raise ParameterError(
            f"backtest: refit=None evaluates {name!r} as it is, but the end of its training data cannot be told from "
            f"its cutoff ({error}). Fit it on times like those of y, or choose refit=False."
        ) from error


def check_fitted(name: Any, model: Any, y: SeriesSet, first_origin: int) -> None:
    """Raise unless a model is fitted and its training data end at the first origin or before."""
    if not getattr(model, "is_fitted", True):
        raise ParameterError(
            f"backtest: refit=None evaluates {name!r} as it is, but it is not fitted. Fit it on data up to the first "
            f"origin {y.times[first_origin]}, or choose refit=False."
        )
    seen = _rows_seen(name, model, y)
    if seen > first_origin + 1:
        raise ParameterError(
            f"backtest: the training data of {name!r} end at {y.times[seen - 1]}, after the first origin "
            f"{y.times[first_origin]}: it has seen values that it would be scored on. Choose later origins, or "
            "refit=False."
        )


def _on_positions(frame: Any, y: SeriesSet) -> Any:
    """Replace times by their positions."""
    if frame is None:
        return None
    if not y.is_panel:
        return frame.set_axis(pd.RangeIndex(len(frame)))
    index = frame.index
    levels = [index.get_level_values(level) for level in range(index.nlevels - 1)]
    return frame.set_axis(pd.MultiIndex.from_arrays([*levels, y.places], names=index.names))


def _with_freq(frame: Any, y: SeriesSet) -> Any:
    """Give a single series the frequency that its times have."""
    if frame is None or y.is_panel or not y.has_rhythm:
        return frame
    return frame.set_axis(sktime_index(y.times))
