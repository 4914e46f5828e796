"""The figure of a backtest: fans, error by step, calibration, coverage over time, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation import metrics, plots
from xlstm_ts.evaluation.folds import spread
from xlstm_ts.evaluation.scores import intervals_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Points of a line over time: more of them would be noise.
_TIME_BINS = 24


def plot_result(
    result: Any, model: Any = None, *, variable: Any = None, series: Any = None, origins: int | Sequence[Any] = 3
) -> Figure:
    """Draw a `BacktestResult`; see its method `plot`."""
    model = result.models[0] if model is None else model
    variable = result.y.columns[0] if variable is None else variable
    keys = list(dict.fromkeys(result.frame["series"]))
    series = keys[0] if series is None else series
    _check_choice("model", model, result.models)
    _check_choice("variable", variable, list(result.y.columns))
    _check_choice("series", series, keys)
    frame = result.frame
    part = frame[(frame["variable"] == variable) & np.array([key == series for key in frame["series"]])]
    own = part[part["model"] == model]
    chosen = _chosen_origins(own, origins)
    past = result.series_values(series)[variable]
    levels = [level for level in result.quantile_levels if own[level].notna().any()]

    figure = plots.new_figure(4 * max(len(chosen), 2.6), 10.4)
    halves: Any = figure.subfigures(2, 1, hspace=0.04, height_ratios=(1, 1.9))
    top, bottom = halves
    _draw_fans(top, own, past, chosen, levels, result.horizon)
    left, right = bottom.subplots(2, 2, width_ratios=(1.35, 1))
    _draw_error_by_step(left[0], part, result.models)
    _draw_calibration(left[1], part, result.models, result.quantile_levels)
    _draw_coverage_over_time(right[0], part, result.models, result.quantile_levels)
    _draw_residuals(right[1], own)
    plots.add_legend(bottom, left[0])
    names = [str(name) for name, many in ((series, len(keys) > 1), (variable, len(result.y.columns) > 1)) if many]
    figure.suptitle(": ".join([str(model), *names]), x=0.01, ha="left", fontsize=13, color=plots.HISTORY_COLOUR)
    return figure


def _check_choice(parameter: str, choice: Any, known: list[Any]) -> None:
    if choice not in known:
        raise ParameterError(f"BacktestResult.plot: {parameter}={choice!r} is not one of {known}.")


def _chosen_origins(part: pd.DataFrame, origins: int | Sequence[Any]) -> pd.Series:
    known = part["origin"].drop_duplicates().reset_index(drop=True)
    if isinstance(origins, int | np.integer):
        if origins < 1:
            raise ParameterError(f"BacktestResult.plot: origins={origins}; at least 1 is needed.")
        return spread(known, int(origins))
    wanted = pd.Index(origins)
    if isinstance(known.dtype, pd.PeriodDtype):
        wanted = pd.PeriodIndex(wanted, freq=known.dtype.freq)
    elif isinstance(known.iloc[0], pd.Timestamp):
        wanted = pd.DatetimeIndex(wanted)
    rows = pd.Index(known).get_indexer(wanted)
    if not len(wanted) or (rows < 0).any():
        raise ParameterError(
            f"BacktestResult.plot: origins={list(origins)} are not all origins of this backtest, which lie between "
            f"{known.iloc[0]} and {known.iloc[-1]}."
        )
    return known.iloc[rows]


def _draw_fans(
    figure: Any, part: pd.DataFrame, values: pd.Series, origins: pd.Series, levels: list[float], horizon: int
) -> None:
    """Draw one panel per origin, each with its own range of values."""
    axes = figure.subplots(1, len(origins), squeeze=False)[0]
    for ax, origin in zip(axes, origins, strict=True):
        rows = part[part["origin"] == origin]
        past = values[values.index <= origin].tail(max(2 * horizon, 30))
        times = pd.Index(rows["time"])
        fan = plots.fan_of_quantiles(times, levels, rows[levels].to_numpy(), rows["point"].to_numpy())
        plots.draw_fan(ax, past, fan, pd.Series(rows["y"].to_numpy(), index=times))
        ax.set_title(f"from {plots.time_label(origin)}", loc="left", fontsize=9, color=plots.QUIET_COLOUR)
    plots.add_legend(figure, axes[0])


def _draw_error_by_step(ax: Axes, part: pd.DataFrame, models: list[Any]) -> None:
    errors = {
        model: {step: metrics.mae(rows["y"], rows["point"]) for step, rows in of_model.groupby("step")}
        for model in models
        if len(of_model := part[part["model"] == model])
    }
    plots.draw_error_by_step(ax, pd.DataFrame(errors), "mean absolute error")


def _draw_calibration(ax: Axes, part: pd.DataFrame, models: list[Any], levels: list[float]) -> None:
    shares = {
        model: metrics.quantile_coverage(rows["y"], rows[levels])
        for model in models
        if len(rows := part[part["model"] == model])
    }
    plots.draw_calibration(ax, pd.DataFrame(shares, index=levels))


def _draw_coverage_over_time(ax: Axes, part: pd.DataFrame, models: list[Any], levels: list[float]) -> None:
    """Draw the share inside the interval nearest to 80 %, in stretches of neighbouring origins."""
    plots.clean_axes(ax)
    shares = intervals_of(levels)
    if not shares:
        ax.text(0.5, 0.5, "no interval was asked for", ha="center", transform=ax.transAxes, color=plots.QUIET_COLOUR)
        return
    share = min(shares, key=lambda text: abs(float(text) - 80))
    low, high = shares[share]
    origins = pd.Index(part["origin"].unique()).sort_values()
    bins = np.array_split(np.arange(len(origins)), min(_TIME_BINS, len(origins)))
    stretch = np.repeat(np.arange(len(bins)), [len(rows) for rows in bins])
    middles = plots.plot_times(origins[[rows[len(rows) // 2] for rows in bins]])
    styles = plots.model_styles(models)
    for model in models:
        rows = part[part["model"] == model]
        if rows[low].notna().any():
            inside = np.where(rows["y"].isna(), np.nan, (rows[low] <= rows["y"]) & (rows["y"] <= rows[high]))
            held = pd.Series(inside).groupby(stretch[origins.get_indexer(rows["origin"])]).mean()
            ax.plot(middles[held.index], held, marker="o" if len(bins) <= 12 else None, ms=3.5, **styles[model])
    ax.axhline(float(share) / 100, color=plots.QUIET_COLOUR, lw=0.8, ls=(0, (2, 3)))
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("origin", color=plots.QUIET_COLOUR)
    ax.set_ylabel(f"share inside the {share} % interval", color=plots.QUIET_COLOUR)
    plots.format_time_axis(ax, origins)


def _draw_residuals(ax: Axes, own: pd.DataFrame) -> None:
    """Draw the errors of one model at its first and last step, at the time that was forecast."""
    first, last = own["step"].min(), own["step"].max()
    shown = (
        ((last, "#c6d3da", 9), (first, plots.ACTUAL_COLOUR, 7)) if last > first else ((first, plots.ACTUAL_COLOUR, 7),)
    )
    for step, colour, size in shown:
        rows = own[own["step"] == step]
        times = plots.plot_times(pd.Index(rows["time"]))
        ax.scatter(times, rows["y"] - rows["point"], s=size, color=colour, lw=0, label=f"step {step}")
    ax.axhline(0, color=plots.QUIET_COLOUR, lw=0.8, ls=(0, (2, 3)))
    plots.clean_axes(ax)
    ax.set_xlabel("time", color=plots.QUIET_COLOUR)
    ax.set_ylabel("actual less forecast", color=plots.QUIET_COLOUR)
    plots.format_time_axis(ax, pd.Index(own["time"]))
    plots.add_legend(ax, ax)
