"""Backtests: forecasts from many past origins, made with nothing that was not known there.

An origin is the last observed time. A fresh clone of each forecaster is fitted once, on the data up to
and including the first origin. A forecaster that offers ``predict_origins`` is then asked for all origins
at once; any other sktime forecaster walks from origin to origin by ``update(update_params=False)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from xlstm_ts.errors import DataError, ParameterError, XLSTMError
from xlstm_ts.evaluation import metrics, plots
from xlstm_ts.evaluation.baselines import forecast_frame, naive_baselines, variable_names
from xlstm_ts.evaluation.baselines import seasonal_period as period_of_index

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_QUANTILE_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
# Spread origins lie in the last fifth of the rows, unless more of them are wanted than fit there.
_TEST_SHARE = 0.2
# With two horizons and this many rows, the baselines have a spread of errors at every step.
_SPARE_TRAINING_ROWS = 8
# Central intervals that the summary reports: name and its two levels.
_INTERVALS = {"80": (0.1, 0.9), "90": (0.05, 0.95)}


def backtest(
    forecaster: Any,
    y: pd.Series | pd.DataFrame,
    *,
    horizon: int,
    origins: int | Sequence[Any] | pd.Index = 50,
    quantile_levels: Sequence[float] = DEFAULT_QUANTILE_LEVELS,
    seasonal_period: int | str = "auto",
    baselines: bool = True,
    verbose: bool = False,
) -> BacktestResult:
    """Forecast `horizon` steps from many past origins, and keep forecasts and actual values.

    Parameters
    ----------
    forecaster : sktime forecaster, or dict of name to sktime forecaster
        Cloned, fitted once on the data up to and including the first origin, then only moved forward; the
        objects passed in are not changed. An object with
        ``predict_origins(y, X=None, *, origins, fh, quantile_levels=None)`` is asked for all origins at
        once; it is given `y` up to the last origin.
    y : Series or DataFrame
        One series, or several variables as columns, with increasing times; NaN is a missing value. An
        index without frequency, such as trading days with holidays, is served too: steps are then rows,
        and forecasters that need a frequency receive positions instead of times.
    horizon : int
        Steps ahead to forecast and score.
    origins : int or index values
        Last observed times to forecast from. A number asks for at most that many, spread evenly over the
        last fifth of the rows, or over as much of the last half as they need to be different from each
        other; the last one leaves exactly `horizon` rows to score, and at least ``2 * horizon + 8`` rows
        precede the first.
    quantile_levels : sequence of float
        Increasing levels in (0, 1), asked of every forecaster with the tag ``capability:pred_int``.
    seasonal_period : int or "auto"
        Rows per season of the seasonal naive forecast, which is a baseline and the unit of MASE. "auto"
        reads it from the index (see `xlstm_ts.evaluation.baselines.seasonal_period`).
    baselines : bool
        Whether "last_value" and "seasonal_naive" are scored beside the forecasters.
    verbose : bool
        Whether to show a progress bar.

    Returns
    -------
    BacktestResult
        Forecasts and actual values, with summaries and a figure.

    Raises
    ------
    DataError
        `y` cannot be used, is too short, or a forecaster returned other times than asked for.
    ParameterError
        A parameter has an impossible value.
    XLSTMError
        A forecaster failed; the message names it and the origin, the cause is attached.
    """
    models = _check_forecasters(forecaster, baselines)
    values = _check_series(y)
    levels = _check_levels(quantile_levels)
    positions = _origin_positions(values.index, horizon, origins)
    period = _check_period(seasonal_period, values.index)
    if baselines:
        models = {**models, **naive_baselines(period)}
    task = _Task(values if isinstance(y, pd.DataFrame) else values.iloc[:, 0], values, positions, horizon, levels)
    frames, seconds = [], {}
    with tqdm(total=len(positions) * len(models), disable=not verbose, unit="origin") as progress:
        for name, model in models.items():
            progress.set_description(str(name))
            forecasts, seconds[name] = _run(name, model, task, progress.update)
            frames.append(task.with_actuals(forecasts, name))
    return BacktestResult(
        frame=pd.concat(frames, ignore_index=True),
        y=values,
        train_scale=_train_scale(values.iloc[: positions[0] + 1], period),
        horizon=horizon,
        seasonal_period=period,
        seconds=pd.DataFrame.from_dict(seconds, orient="index", columns=["fit", "predict"]),
    )


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """Forecasts of a backtest beside the actual values.

    Attributes
    ----------
    frame : DataFrame
        One row per model, origin, step and variable. Columns: model, series ("" for a single series),
        origin, step, time, variable, y (actual, NaN if missing), point, and one column per quantile level,
        labelled by the level as a float (NaN for a model without quantiles).
    y : DataFrame
        The whole series, one column per variable.
    train_scale : Series
        Training error of the seasonal naive forecast by (series, variable), the unit of MASE.
    horizon, seasonal_period : int
        Steps ahead, and rows per season.
    seconds : DataFrame
        Wall time of "fit" and "predict" by model.
    """

    frame: pd.DataFrame
    y: pd.DataFrame
    train_scale: pd.Series
    horizon: int
    seasonal_period: int
    seconds: pd.DataFrame

    @property
    def models(self) -> list[Any]:
        """Names of the models, the baselines last."""
        return list(self.seconds.index)

    @property
    def quantile_levels(self) -> list[float]:
        """Quantile levels of the forecasts."""
        return [column for column in self.frame.columns if isinstance(column, float)]

    def summary(self) -> pd.DataFrame:
        """Score each model over all origins, steps and variables.

        Returns
        -------
        DataFrame
            One row per model. MAE and RMSE are in the units of the series (of several variables: pooled;
            see `by_variable`), MASE in units of the seasonal naive forecast's training error (NaN for a
            series that was constant in training), pinball is the mean over the quantile levels;
            coverage and mean width of the central 80 % and 90 % intervals, where their levels were asked
            for; then the number of origins and of scored values, and the seconds to fit and to predict.
            Missing actual values are left out; a missing forecast makes the scores NaN.
        """
        table = self._scores(["model"])
        table.insert(len(table.columns) - 1, "origins", self.frame["origin"].nunique())
        return table.join(self.seconds.add_suffix("_seconds")).loc[self.models]

    def by_step(self) -> pd.DataFrame:
        """Return the scores of `summary` for each model and step ahead."""
        return self._scores(["model", "step"])

    def by_variable(self) -> pd.DataFrame:
        """Return the scores of `summary` for each model and variable."""
        return self._scores(["model", "variable"])

    def plot(self, model: Any = None, *, variable: Any = None, origins: int = 3) -> Figure:
        """Draw forecasts from a few origins, the error by step and the calibration.

        Parameters
        ----------
        model : optional
            Model whose forecasts are drawn. Default: the first.
        variable : optional
            Variable that all panels show. Default: the first.
        origins : int
            Number of origins, spread over those of the backtest.

        Returns
        -------
        Figure
            A matplotlib figure that belongs to no window: a notebook shows it as the value of a cell, a
            script saves it with ``savefig``.
        """
        model = self.models[0] if model is None else model
        variable = self.y.columns[0] if variable is None else variable
        self._check_choice("model", model, self.models)
        self._check_choice("variable", variable, list(self.y.columns))
        if origins < 1:
            raise ParameterError(f"BacktestResult.plot: origins={origins}; at least 1 is needed.")
        part = self.frame[self.frame["variable"] == variable]
        chosen = _spread(part["origin"].drop_duplicates().reset_index(drop=True), origins)
        figure = plots.new_figure(4 * max(len(chosen), 2.6), 7.2)
        halves: Any = figure.subfigures(2, 1, hspace=0.04)
        top, bottom = halves
        self._plot_fans(top, part[part["model"] == model], chosen)
        left, right = bottom.subplots(1, 2, width_ratios=(1.35, 1))
        self._plot_scores(left, right, part)
        title = f"{model}: {variable}" if len(self.y.columns) > 1 else str(model)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=plots.HISTORY_COLOUR)
        return figure

    def _plot_fans(self, figure: Any, part: pd.DataFrame, origins: pd.Series) -> None:
        """Draw one panel per origin, each with its own range of values."""
        axes = figure.subplots(1, len(origins), squeeze=False)[0]
        for ax, origin in zip(axes, origins, strict=True):
            rows = part[part["origin"] == origin]
            values = self.y[rows["variable"].iloc[0]]
            past = values[values.index <= origin].tail(max(2 * self.horizon, 30))
            times = pd.Index(rows["time"])
            fan = plots.fan_of_quantiles(
                times, self._levels_of(rows), rows[self._levels_of(rows)].to_numpy(), rows["point"].to_numpy()
            )
            plots.draw_fan(ax, past, fan, pd.Series(rows["y"].to_numpy(), index=times))
            ax.set_title(f"from {plots.time_label(origin)}", loc="left", fontsize=9, color=plots.QUIET_COLOUR)
        plots.add_legend(figure, axes[0])

    def _plot_scores(self, left: Any, right: Any, part: pd.DataFrame) -> None:
        """Draw the error by step and the calibration of all models, for the rows of one variable."""
        errors, shares = {}, {}
        for model in self.models:
            rows = part[part["model"] == model]
            errors[model] = {
                step: metrics.mae(of_step["y"], of_step["point"]) for step, of_step in rows.groupby("step")
            }
            shares[model] = metrics.quantile_coverage(rows["y"], rows[self.quantile_levels])
        plots.draw_error_by_step(left, pd.DataFrame(errors), "mean absolute error")
        plots.draw_calibration(right, pd.DataFrame(shares, index=self.quantile_levels))
        plots.add_legend(left.figure, left)

    def _levels_of(self, rows: pd.DataFrame) -> list[float]:
        """Quantile levels that these rows have values for."""
        return [level for level in self.quantile_levels if rows[level].notna().any()]

    def _scores(self, keys: list[str]) -> pd.DataFrame:
        # Scores come from the metric functions, not from pandas' means, which would skip a NaN forecast.
        scale = self.train_scale.loc[pd.MultiIndex.from_frame(self.frame[["series", "variable"]])].to_numpy()
        columns = {name: self.frame[name].to_numpy() for name in ("y", "point", *self.quantile_levels)}
        groups = self.frame.groupby(keys, sort=False, observed=True).indices
        rows = {
            key: _score_rows({name: values[picked] for name, values in columns.items()}, scale[picked])
            for key, picked in groups.items()
        }
        table = pd.DataFrame.from_dict(rows, orient="index")
        if len(keys) > 1:
            table.index = pd.MultiIndex.from_tuples(table.index)
        table.index.names = keys
        return table.loc[self.models]

    @staticmethod
    def _check_choice(parameter: str, choice: Any, known: list[Any]) -> None:
        if choice not in known:
            raise ParameterError(f"BacktestResult.plot: {parameter}={choice!r} is not one of {known}.")


def _score_rows(columns: dict[Any, NDArray], scale: NDArray) -> dict[str, float]:
    """Score the rows of one group; the columns are y, point and the quantile levels."""
    actual, point = columns["y"], columns["point"]
    levels = [name for name in columns if isinstance(name, float)]
    quantiles = np.stack([columns[level] for level in levels], axis=-1) if levels else np.empty((len(actual), 0))
    observed = ~np.isnan(actual)
    scores = {
        "MAE": metrics.mae(actual, point),
        "RMSE": metrics.rmse(actual, point),
        "MASE": metrics.mase(actual, point, scale),
        "pinball": metrics.pinball_loss(actual, quantiles, levels),
    }
    for name, (low, high) in _INTERVALS.items():
        if low in columns and high in columns:
            scores[f"coverage_{name}"] = metrics.coverage(actual, columns[low], columns[high])
            scores[f"width_{name}"] = metrics.interval_width(columns[low], columns[high], observed=observed)
    scores["scored"] = int(observed.sum())
    return scores


@dataclass(frozen=True)
class _Task:
    """What every model is asked: the series in both forms, the origins, the steps and the levels."""

    y: pd.Series | pd.DataFrame
    values: pd.DataFrame
    positions: NDArray
    horizon: int
    levels: list[float]

    @property
    def steps(self) -> list[int]:
        return list(range(1, self.horizon + 1))

    @property
    def origins(self) -> pd.Index:
        return self.values.index[self.positions]

    @property
    def targets(self) -> NDArray:
        """Positions of the forecast rows: [O, L]."""
        return self.positions[:, np.newaxis] + np.arange(1, self.horizon + 1)

    def empty(self) -> tuple[NDArray, NDArray]:
        """Points and quantiles to fill: [O, L, C] and [O, L, C, Q], all NaN."""
        shape = (len(self.positions), self.horizon, self.values.shape[1])
        return np.full(shape, np.nan), np.full((*shape, len(self.levels)), np.nan)

    def with_actuals(self, forecasts: tuple[NDArray, NDArray], name: Any) -> pd.DataFrame:
        """Write the forecasts as a tidy frame, with the actual values beside them."""
        frame = forecast_frame(
            *forecasts,
            origins=self.origins,
            steps=self.steps,
            times=self.values.index.take(self.targets.ravel()),
            variables=self.values.columns,
            quantile_levels=self.levels,
        )
        frame.insert(5, "y", self.values.to_numpy()[self.targets].ravel())
        frame.insert(0, "model", name)
        return frame


def _run(
    name: Any, forecaster: Any, task: _Task, advance: Callable[[int], Any]
) -> tuple[tuple[NDArray, NDArray], tuple[float, float]]:
    """Fit a clone up to the first origin and forecast from all; return forecasts and seconds."""
    at_once = callable(getattr(forecaster, "predict_origins", None))
    y = task.y if at_once else task.y.set_axis(_sktime_index(task.values.index))
    started = perf_counter()
    clone = forecaster.clone()
    try:
        clone.fit(y.iloc[: task.positions[0] + 1], fh=task.steps)
    except Exception as error:
        raise XLSTMError(
            f"backtest: {name!r} failed to fit on the {task.positions[0] + 1} rows up to the first origin "
            f"{task.origins[0]}: {error}"
        ) from error
    fitted = perf_counter()
    forecasts = (_ask_at_once if at_once else _walk)(name, clone, y, task, advance)
    return forecasts, (fitted - started, perf_counter() - fitted)


def _ask_at_once(name: Any, fitted: Any, y: Any, task: _Task, advance: Callable[[int], Any]) -> tuple[NDArray, NDArray]:
    """Forecast from all origins in one call of ``predict_origins``."""
    known = y.iloc[: task.positions[-1] + 1]
    try:
        frame = fitted.predict_origins(known, origins=task.origins, fh=task.steps, quantile_levels=task.levels)
    except Exception as error:
        raise XLSTMError(
            f"backtest: {name!r} failed to forecast from the {len(task.origins)} origins "
            f"{task.origins[0]} to {task.origins[-1]}: {error}"
        ) from error
    order = _row_order(name, frame, task)
    points, quantiles = task.empty()
    points.ravel()[order] = frame["point"].to_numpy(dtype=float)
    quantiles.reshape(points.size, len(task.levels))[order] = frame[task.levels].to_numpy(dtype=float)
    advance(len(task.origins))
    return points, quantiles


def _row_order(name: Any, frame: pd.DataFrame, task: _Task) -> NDArray:
    """Position of each row among the (origin, step, variable) asked for; an error if they differ."""
    wanted = ["origin", "step", "time", "variable", "point", *task.levels]
    absent = [column for column in wanted if column not in getattr(frame, "columns", ())]
    if absent:
        raise DataError(f"backtest: predict_origins of {name!r} returned no columns {absent}; it must give {wanted}.")
    variables = task.values.columns
    if len(variables) == 1:
        # The name of a single variable says nothing: sktime calls an unnamed series 0.
        column = np.zeros(len(frame), dtype=int)
    else:
        column = variables.get_indexer(frame["variable"])
    row = task.origins.get_indexer(pd.Index(frame["origin"]))
    step = frame["step"].to_numpy() - 1
    order = (row * task.horizon + step) * len(variables) + column
    expected = len(task.origins) * task.horizon * len(variables)
    if (
        min(row.min(initial=0), step.min(initial=0), column.min(initial=0)) < 0
        or step.max(initial=0) >= task.horizon
        or len(np.unique(order)) != len(frame)
        or len(frame) != expected
    ):
        raise DataError(
            f"backtest: predict_origins of {name!r} returned {len(frame)} rows that are not the {expected} asked "
            f"for: each of {len(task.origins)} origins, steps 1 to {task.horizon} and variables "
            f"{list(variables)} once."
        )
    _check_times(name, frame, task.values.index, task.positions[row] + step + 1)
    return order


def _check_times(name: Any, frame: pd.DataFrame, index: pd.Index, targets: NDArray) -> None:
    """Compare the times of the forecasts, where the index has a rhythm from which they can be known."""
    if isinstance(_sktime_index(index), pd.RangeIndex) and not isinstance(index, pd.RangeIndex):
        return
    expected, times = index.take(targets), pd.Index(frame["time"])
    wrong = np.flatnonzero(np.asarray(times != expected))
    if wrong.size:
        row = wrong[0]
        raise DataError(
            f"backtest: predict_origins of {name!r} dates step {frame['step'].iloc[row]} after "
            f"{frame['origin'].iloc[row]} at {times[row]}; {expected[row]} was asked for."
        )


def _walk(name: Any, fitted: Any, y: Any, task: _Task, advance: Callable[[int], Any]) -> tuple[NDArray, NDArray]:
    """Move a fitted forecaster from origin to origin, forecasting at each."""
    points, quantiles = task.empty()
    asks_quantiles = bool(task.levels) and fitted.get_tag("capability:pred_int", False)
    seen = task.positions[0] + 1
    for row, position in enumerate(task.positions):
        try:
            if position + 1 > seen:
                fitted.update(y.iloc[seen : position + 1], update_params=False)
                seen = position + 1
            point = fitted.predict(fh=task.steps)
            spread = fitted.predict_quantiles(fh=task.steps, alpha=task.levels) if asks_quantiles else None
        except Exception as error:
            raise XLSTMError(f"backtest: {name!r} failed at the origin {task.origins[row]}: {error}") from error
        wanted = y.index[position + 1 : position + 1 + task.horizon]
        points[row] = _point_array(name, point, wanted, task, row)
        if spread is not None:
            quantiles[row] = _quantile_array(name, spread, wanted, task, row)
        advance(1)
    return points, quantiles


def _point_array(name: Any, point: Any, wanted: pd.Index, task: _Task, row: int) -> NDArray:
    frame = pd.DataFrame(point)
    _check_forecast_index(name, "predict", frame.index, wanted, task.origins[row])
    variables = task.values.columns
    if len(variables) > 1 and not frame.columns.equals(variables):
        raise DataError(
            f"backtest: predict of {name!r} returned the columns {list(frame.columns)}; "
            f"{list(variables)} were asked for."
        )
    return frame.to_numpy(dtype=float)


def _quantile_array(name: Any, spread: pd.DataFrame, wanted: pd.Index, task: _Task, row: int) -> NDArray:
    _check_forecast_index(name, "predict_quantiles", spread.index, wanted, task.origins[row])
    levels = [float(level) for level in spread.columns.get_level_values(-1)]
    if levels != task.levels * len(task.values.columns):
        raise DataError(
            f"backtest: predict_quantiles of {name!r} returned the levels {levels}; "
            f"{task.levels} were asked for, for each of {list(task.values.columns)}."
        )
    return spread.to_numpy(dtype=float).reshape(len(wanted), -1, len(task.levels))


def _check_forecast_index(name: Any, method: str, index: pd.Index, wanted: pd.Index, origin: Any) -> None:
    if len(index) != len(wanted) or not bool(np.all(index == wanted)):
        raise DataError(
            f"backtest: {method} of {name!r} at the origin {origin} returned {len(index)} forecasts for "
            f"{index[:1].tolist()} to {index[-1:].tolist()}; {len(wanted)} were asked for, "
            f"for {wanted[0]} to {wanted[-1]}."
        )


def _sktime_index(index: pd.Index) -> pd.Index:
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


def _train_scale(train: pd.DataFrame, period: int) -> pd.Series:
    scales = [metrics.naive_scale(train.iloc[:, column], period) for column in range(train.shape[1])]
    names = pd.MultiIndex.from_arrays([[""] * train.shape[1], train.columns], names=["series", "variable"])
    return pd.Series(scales, index=names, name="train_scale")


def _spread(values: Any, count: int) -> Any:
    """At most `count` of the values, evenly spread from the last back to the first; one is the last."""
    return values[np.unique(np.linspace(len(values) - 1, 0, min(count, len(values))).round().astype(int))]


def _check_forecasters(forecaster: Any, baselines: bool) -> dict[Any, Any]:
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
    taken = sorted(set(models) & set(naive_baselines(1)), key=str) if baselines else []
    if taken:
        raise ParameterError(
            f"backtest: the names {taken} belong to the naive baselines. Rename these forecasters, "
            "or leave the baselines out with baselines=False."
        )
    return models


def _check_series(y: Any) -> pd.DataFrame:
    """Return the series as a frame of float64 columns, or say why it cannot be used."""
    if not isinstance(y, pd.Series | pd.DataFrame) or isinstance(y.index, pd.MultiIndex):
        kind = "a panel" if isinstance(getattr(y, "index", None), pd.MultiIndex) else f"a {type(y).__name__}"
        raise DataError(
            f"backtest: y is {kind}; a pandas Series, or a DataFrame with one row per time, is needed. "
            "Of a panel, pass one series at a time."
        )
    frame = pd.DataFrame(y).set_axis(variable_names(y), axis=1)
    if not frame.columns.is_unique or not len(frame.columns):
        raise DataError(f"backtest: the columns of y are {list(frame.columns)}; different names are needed.")
    for name, column in frame.items():
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            raise DataError(
                f"backtest: {name!r} in y has the dtype {column.dtype}; numbers are needed. "
                "Convert it with pandas.to_numeric."
            )
    frame = frame.astype(float)
    infinite = np.isinf(frame.to_numpy()).any(axis=0)
    if infinite.any():
        raise DataError(
            f"backtest: {list(frame.columns[infinite])} in y contain infinite values. Replace them by NaN, "
            "which counts as missing."
        )
    _check_index(frame.index)
    return frame


def _check_index(index: pd.Index) -> None:
    known = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) or pd.api.types.is_integer_dtype(index)
    if not known:
        raise DataError(
            f"backtest: y has a {type(index).__name__} of {index.dtype}; times (DatetimeIndex, PeriodIndex) or "
            "integers are needed. Convert it, for example with pandas.to_datetime."
        )
    if index.hasnans:
        raise DataError("backtest: the index of y contains missing times. Drop these rows.")
    if not index.is_unique:
        raise DataError(
            f"backtest: the index of y repeats {index[index.duplicated()][0]} "
            f"({int(index.duplicated().sum())} repeated rows). Keep one row per time."
        )
    if not index.is_monotonic_increasing:
        raise DataError("backtest: the index of y is not sorted. Sort it with y.sort_index().")


def _check_levels(quantile_levels: Sequence[float]) -> list[float]:
    levels = [float(level) for level in quantile_levels]
    if not all(0 < level < 1 for level in levels) or sorted(set(levels)) != levels:
        raise ParameterError(
            f"backtest: quantile_levels={levels}; increasing levels between 0 and 1, both excluded, are needed."
        )
    return levels


def _check_period(seasonal_period: int | str, index: pd.Index) -> int:
    if isinstance(seasonal_period, str) and seasonal_period == "auto":
        return period_of_index(index)
    if not _is_integer(seasonal_period) or int(seasonal_period) < 1:
        raise ParameterError(f'backtest: seasonal_period={seasonal_period!r}; "auto" or an integer from 1 is needed.')
    return int(seasonal_period)


def _origin_positions(index: pd.Index, horizon: int, origins: Any) -> NDArray:
    """Row numbers of the origins; all errors about too little room are raised here."""
    if not _is_integer(horizon) or horizon < 1:
        raise ParameterError(f"backtest: horizon={horizon!r}; an integer from 1 is needed.")
    if _is_integer(origins):
        return _spread_origins(len(index), int(horizon), int(origins))
    if isinstance(origins, bool | float | str):
        raise ParameterError(f"backtest: origins={origins!r}; a number of origins, or a list of index values.")
    return _given_origins(index, int(horizon), origins)


def _spread_origins(rows: int, horizon: int, count: int) -> NDArray:
    if count < 1:
        raise ParameterError(f"backtest: origins={count}; at least 1 origin is needed.")
    least = 2 * horizon + _SPARE_TRAINING_ROWS
    if rows < least + horizon:
        raise DataError(
            f"backtest: y has {rows} rows; horizon={horizon} needs at least {least + horizon}: {least} to learn "
            f"from and {horizon} to score. Give a longer series or a shorter horizon."
        )
    test_rows = max(math.ceil(_TEST_SHARE * rows), count + horizon - 1)
    train_rows = max(rows - test_rows, math.ceil(rows / 2), least)
    return _spread(np.arange(train_rows - 1, rows - horizon), count)


def _given_origins(index: pd.Index, horizon: int, origins: Any) -> NDArray:
    try:
        wanted = pd.Index(origins)
        if isinstance(index, pd.PeriodIndex):
            wanted = pd.PeriodIndex(wanted, freq=index.freq)
        elif isinstance(index, pd.DatetimeIndex):
            wanted = pd.DatetimeIndex(wanted, tz=None if isinstance(wanted, pd.DatetimeIndex) else index.tz)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"backtest: origins are no values of the index of y ({index.dtype}): {error}") from error
    if not len(wanted) or not wanted.is_monotonic_increasing or not wanted.is_unique:
        raise ParameterError(
            f"backtest: origins are {len(wanted)} index values; at least 1 is needed, increasing and without "
            "repetition."
        )
    positions = index.get_indexer(wanted)
    if (positions < 0).any():
        raise ParameterError(
            f"backtest: {int((positions < 0).sum())} of {len(wanted)} origins are not in the index of y, the first "
            f"is {wanted[positions < 0][0]}. An origin is the time of a row of y."
        )
    # Two errors of the naive forecasts at the farthest step are the least that has a spread.
    least = horizon + 2
    if positions[0] + 1 < least or positions[-1] + horizon >= len(index):
        raise DataError(
            f"backtest: {positions[0] + 1} rows of y lie up to the first origin and "
            f"{len(index) - 1 - positions[-1]} after the last; horizon={horizon} needs at least {least} and "
            f"{horizon}. Choose later first or earlier last origins, or a shorter horizon."
        )
    return positions


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
