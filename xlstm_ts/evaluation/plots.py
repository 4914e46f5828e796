"""Figures of forecasts and of backtests.

`plot_forecast` draws the end of a series and a forecast of it, as a fan of nested intervals. The pieces
below it draw on given axes and are shared with the figure of a backtest. Colours and fonts are set on the
axes drawn on; matplotlib's global settings are neither changed nor needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation.baselines import BASELINE_WORDS
from xlstm_ts.evaluation.series import variable_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HISTORY_COLOUR = "#3d4653"
ACTUAL_COLOUR = "#c2571a"
_MODEL_COLOURS = ("#1f6f8b", "#b4532a", "#5b7f3a", "#7a5195", "#c49a1a", "#2f4b7c")
_BASELINE_COLOURS = ("#9aa3ad", "#6f7882", "#b59f86", "#8f7ea8")
_BASELINE_DASHES = ((4, 2), (1, 1.5), (6, 2, 1, 2), (8, 2))  # quiet colours alone do not tell them apart
QUIET_COLOUR = "#6b7480"
_GRID = "#e6e9ed"


@dataclass(frozen=True)
class Fan:
    """A forecast as it is drawn: a middle line and bands around it, the widest first.

    Attributes
    ----------
    times : Index
        Times of the forecast.
    centre : ndarray or None
        Median or point forecast, if there is one.
    centre_label : str
        Its name in the legend.
    bands : tuple of (label, lower, upper)
        Intervals.
    """

    times: pd.Index
    centre: NDArray | None
    centre_label: str
    bands: tuple[tuple[str, NDArray, NDArray], ...]


def plot_forecast(
    y: pd.Series | pd.DataFrame,
    forecast: pd.Series | pd.DataFrame,
    *,
    actual: pd.Series | pd.DataFrame | None = None,
    history: int | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    title: str | None = None,
) -> Any:
    """Draw the end of a series and the forecast of it, with one panel per variable.

    Parameters
    ----------
    y : Series or DataFrame
        Observed values. If they reach into the forecast period, the part from its first time on is drawn
        as the actual values.
    forecast : Series or DataFrame
        What ``predict``, ``predict_quantiles`` or ``predict_interval`` of an sktime forecaster returned.
        The median is drawn as a line; levels are paired from the outside in, to nested bands.
    actual : Series or DataFrame, optional
        True values of the forecast period, to be drawn over the forecast.
    history : int, optional
        Rows of `y` to show before the forecast. Default: three times the length of the forecast, at
        least 30.
    ax : Axes or sequence of Axes, optional
        Where to draw; one for each variable. Default: a new pyplot figure, as pandas makes it.
    title : str, optional
        Title of the figure (or of the one panel).

    Returns
    -------
    Axes or ndarray of Axes
        One for a single variable, else an array of one per variable.

    Raises
    ------
    DataError
        `forecast` has none of these forms, its variables are not those of `y`, or its index is of
        another kind.
    ParameterError
        `history` is below 1, or there is not one `ax` per variable.
    """
    fans = read_forecast(forecast)
    past = _as_frame(y, fans)
    first_time = next(iter(fans.values())).times[0]
    _check_same_kind(past.index, next(iter(fans.values())).times)
    truth = past[past.index >= first_time] if actual is None else _as_frame(actual, fans)
    past = past[past.index < first_time].tail(_history_rows(history, len(forecast)))
    panels, figure = _panels(ax, len(fans))
    for panel, (variable, fan) in zip(panels, fans.items(), strict=True):
        draw_fan(panel, past[variable], fan, truth[variable])
        if len(fans) > 1:
            panel.set_ylabel(str(variable), color=QUIET_COLOUR)
    add_legend(panels[0], panels[0])
    if title is not None:
        _set_title(panels[0], title)
    if figure is not None:
        figure.align_ylabels()
    return panels[0] if len(panels) == 1 and not isinstance(ax, Sequence | np.ndarray) else np.array(panels)


def read_forecast(forecast: pd.Series | pd.DataFrame) -> dict[Any, Fan]:
    """Recognise what ``predict``, ``predict_quantiles`` or ``predict_interval`` returned, by variable."""
    if not isinstance(forecast, pd.Series | pd.DataFrame) or isinstance(forecast.index, pd.MultiIndex):
        raise DataError(
            f"plot_forecast: forecast is a {type(forecast).__name__} that is not the forecast of one series. "
            "Give the Series or DataFrame of predict, predict_quantiles or predict_interval; of a panel, "
            "one series at a time."
        )
    if not len(forecast):
        raise DataError("plot_forecast: forecast has no rows; at least 1 step is needed.")
    if isinstance(forecast, pd.Series):
        forecast = forecast.to_frame("y" if forecast.name is None else forecast.name)
    readers = {1: _read_points, 2: _read_quantiles, 3: _read_intervals}
    if forecast.columns.nlevels not in readers:
        raise DataError(
            f"plot_forecast: forecast has {forecast.columns.nlevels} column levels; 1 (predict), "
            "2 (predict_quantiles) or 3 (predict_interval) are understood."
        )
    return readers[forecast.columns.nlevels](forecast)


def _read_points(forecast: pd.DataFrame) -> dict[Any, Fan]:
    return {
        variable: Fan(forecast.index, forecast[variable].to_numpy(dtype=float), "forecast", ())
        for variable in forecast.columns
    }


def _read_quantiles(forecast: pd.DataFrame) -> dict[Any, Fan]:
    fans = {}
    for variable in forecast.columns.unique(level=0):
        part = forecast[variable]
        levels = [float(level) for level in part.columns]
        fans[variable] = fan_of_quantiles(forecast.index, levels, part.to_numpy(dtype=float))
    return fans


def _read_intervals(forecast: pd.DataFrame) -> dict[Any, Fan]:
    fans = {}
    for variable in forecast.columns.unique(level=0):
        part = forecast[variable]
        masses = sorted(part.columns.unique(level=0), reverse=True)
        bands = [
            (_percent(mass), *(part[mass][side].to_numpy(dtype=float) for side in ("lower", "upper")))
            for mass in masses
        ]
        fans[variable] = Fan(forecast.index, None, "", tuple(bands))
    return fans


def fan_of_quantiles(times: pd.Index, levels: Sequence[float], quantiles: NDArray, point: NDArray | None = None) -> Fan:
    """Pair quantile levels from the outside in; the middle one, if the number is odd, is the line.

    Parameters
    ----------
    times : Index of length L
    levels : sequence of float of length Q
    quantiles : ndarray of shape (L, Q)
    point : ndarray of shape (L,), optional
        Point forecast, drawn as the line where there is no median.
    """
    order = np.argsort(levels)
    ranked = [levels[column] for column in order]
    bands = []
    for outer in range(len(order) // 2):
        low, high = ranked[outer], ranked[-1 - outer]
        symmetric = abs(low + high - 1) < 1e-9
        label = _percent(high - low) if symmetric else f"{low:.3g} to {high:.3g} quantile"
        bands.append((label, quantiles[:, order[outer]], quantiles[:, order[-1 - outer]]))
    middle = ranked[len(order) // 2] if len(order) % 2 else None
    if middle is not None and (middle == 0.5 or point is None):
        label = "median" if middle == 0.5 else f"{middle:.3g} quantile"
        return Fan(times, quantiles[:, order[len(order) // 2]], label, tuple(bands))
    return Fan(times, point, "forecast", tuple(bands))


def draw_fan(
    ax: Axes, past: pd.Series, fan: Fan, truth: pd.Series | None = None, *, colour: str = _MODEL_COLOURS[0]
) -> None:
    """Draw a history, a fan that starts at its last value, and the actual values, on one axes.

    The dotted line is the last time of the history, also where its value is missing.
    """
    start = past.dropna().tail(1)
    times = plot_times(start.index.append(fan.times))
    ax.plot(plot_times(past.index), past.to_numpy(dtype=float), color=HISTORY_COLOUR, lw=1.1, label="observed")
    shades = np.linspace(0.16, 0.5, max(len(fan.bands), 2))
    for shade, (label, lower, upper) in zip(shades, fan.bands, strict=False):
        low, high = (np.concatenate([start.to_numpy(dtype=float), bound]) for bound in (lower, upper))
        ax.fill_between(times, low, high, color=_lighten(colour, shade), lw=0, label=label)
    if fan.centre is not None:
        centre = np.concatenate([start.to_numpy(dtype=float), fan.centre])
        ax.plot(times, centre, color=colour, lw=1.8, label=fan.centre_label)
    if truth is not None and truth.notna().any():
        # Joined to the history, so that the first true step can be seen too.
        during = (truth.index >= fan.times[0]) & (truth.index <= fan.times[-1])
        joined = pd.concat([start, truth[during]])
        values = joined.to_numpy(dtype=float)
        ax.plot(plot_times(joined.index), values, color=ACTUAL_COLOUR, lw=1.1, label="actual")
    ax.axvline(plot_times(past.index[-1:] if len(past) else fan.times)[0], color=QUIET_COLOUR, lw=0.8, ls=(0, (2, 3)))
    clean_axes(ax)
    format_time_axis(ax, fan.times)


def draw_error_by_step(ax: Axes, errors: pd.DataFrame, label: str) -> None:
    """Draw one line per model (column) over the step ahead (index)."""
    from matplotlib.ticker import MaxNLocator

    styles = model_styles(errors.columns)
    for model in errors.columns:
        marker = "o" if len(errors) <= 12 else None
        ax.plot(errors.index, errors[model], label=str(model), marker=marker, ms=3.5, **styles[model])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("step ahead", color=QUIET_COLOUR)
    ax.set_ylabel(label, color=QUIET_COLOUR)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    clean_axes(ax)


def draw_calibration(ax: Axes, shares: pd.DataFrame) -> None:
    """Draw, per model (column), the share of values at or below each quantile level (index)."""
    ax.plot([0, 1], [0, 1], color=QUIET_COLOUR, lw=0.8, ls=(0, (2, 3)), label="calibrated")
    styles = model_styles(shares.columns)
    for model in shares.columns:
        if shares[model].notna().any():
            ax.plot(shares.index, shares[model], label=str(model), marker="o", ms=3.5, **styles[model])
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_xlabel("quantile level", color=QUIET_COLOUR)
    ax.set_ylabel("share of values at or below", color=QUIET_COLOUR)
    clean_axes(ax)


def model_styles(models: Sequence[Any] | pd.Index) -> dict[Any, dict[str, Any]]:
    """Colour and line of each model: own colours for models, dashed quiet ones for the baselines."""
    naive = dict(zip(BASELINE_WORDS, zip(_BASELINE_COLOURS, _BASELINE_DASHES, strict=True), strict=True))
    styles: dict[Any, dict[str, Any]] = {}
    for model in models:
        if model in naive:
            colour, dashes = naive[model]
            styles[model] = {"color": colour, "lw": 1.2, "ls": (0, dashes), "zorder": 1.5}
        else:
            own = sum(name not in naive for name in styles)
            styles[model] = {"color": _MODEL_COLOURS[own % len(_MODEL_COLOURS)], "lw": 1.9}
    return styles


def new_figure(width: float, height: float) -> Figure:
    """Return a figure outside pyplot: nothing global to close, no display needed, shown by notebooks.

    Notebooks know how to show a bare Figure only once pyplot has been started there; ``_repr_png_`` makes
    the figure show itself without.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure._repr_png_ = partial(figure_png, figure)  # type: ignore[attr-defined]
    return figure


def figure_png(figure: Figure, *, dpi: int = 110) -> bytes:
    """Return the figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def plot_times(index: pd.Index) -> NDArray:
    """Index values as numbers of the time axis: matplotlib's dates, or the integers themselves."""
    from matplotlib.dates import date2num

    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp(how="start")
    if isinstance(index, pd.DatetimeIndex):
        return date2num((index if index.tz is None else index.tz_convert(None)).to_numpy())
    return index.to_numpy(dtype=float)


def format_time_axis(ax: Axes, index: pd.Index) -> None:
    """Give dates concise labels, in the time zone of the index."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if isinstance(index, pd.PeriodIndex | pd.DatetimeIndex):
        zone = getattr(index, "tz", None)
        locator = AutoDateLocator(tz=zone, minticks=3, maxticks=7)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))


def clean_axes(ax: Axes) -> None:
    """Leave two light spines and a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#b8bfc7")
    ax.tick_params(colors=QUIET_COLOUR, labelsize=9, length=3)
    ax.grid(axis="y", color=_GRID, lw=0.8)
    ax.set_axisbelow(True)
    ax.margins(x=0.01)


def add_legend(place: Any, ax: Axes) -> None:
    """Put the legend of an axes in a row above it (place=ax), or above a whole (sub)figure."""
    handles, labels = ax.get_legend_handles_labels()
    above_axes = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
    place.legend(
        handles,
        labels,
        **(above_axes if place is ax else {"loc": "outside upper left"}),
        ncols=len(labels),
        frameon=False,
        fontsize=9,
        labelcolor=QUIET_COLOUR,
        handlelength=1.4,
        columnspacing=1.4,
    )


def time_label(value: Any) -> str:
    """Write a time for a title: a timestamp to the minute, at midnight as its date alone."""
    if not isinstance(value, pd.Timestamp):
        return str(value)
    return f"{value:%Y-%m-%d}" if value == value.normalize() else f"{value:%Y-%m-%d %H:%M}"


def _set_title(ax: Axes, title: str) -> None:
    # Above the legend, which stands directly on the axes.
    ax.set_title(title, loc="left", fontsize=12, color=HISTORY_COLOUR, pad=24)


def _panels(ax: Any, count: int) -> tuple[list[Axes], Figure | None]:
    if ax is not None:
        panels = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(panels) != count:
            raise ParameterError(
                f"plot_forecast: ax has {len(panels)} axes, the forecast has {count} variables. "
                "Give one axes per variable, or leave ax out."
            )
        return panels, None
    import matplotlib.pyplot as plt

    height = 3.4 if count == 1 else 0.6 + 2.1 * count
    figure, axes = plt.subplots(count, 1, figsize=(9, height), sharex=True, squeeze=False, layout="constrained")
    return list(axes[:, 0]), figure


def _as_frame(y: Any, fans: dict[Any, Fan]) -> pd.DataFrame:
    """Return the observed values with the forecast's variables as columns."""
    if not isinstance(y, pd.Series | pd.DataFrame) or isinstance(y.index, pd.MultiIndex):
        raise DataError(
            f"plot_forecast: y is a {type(y).__name__} that is not one series. Give a Series or a DataFrame "
            "with one row per time."
        )
    if isinstance(y, pd.DataFrame) and y.columns.nlevels > 1:
        raise DataError(
            f"plot_forecast: y has columns of {y.columns.nlevels} levels, as quantiles and intervals have. Give the "
            "observed series first and the forecast second."
        )
    frame = pd.DataFrame(y).set_axis(variable_names(y), axis=1)
    if frame.shape[1] == len(fans) == 1:
        # The name of a single variable says nothing: sktime calls an unnamed series 0.
        return frame.set_axis(list(fans), axis=1)
    absent = [variable for variable in fans if variable not in frame.columns]
    if absent:
        raise DataError(
            f"plot_forecast: the forecast has the variables {absent}, which are not among the columns "
            f"{list(frame.columns)} of y. Give the y that the forecaster was fitted on."
        )
    return frame


def _check_same_kind(past: pd.Index, future: pd.Index) -> None:
    kinds = [
        next((kind for kind in (pd.PeriodIndex, pd.DatetimeIndex) if isinstance(index, kind)), pd.Index)
        for index in (past, future)
    ]
    zones = [getattr(index, "tz", None) is None for index in (past, future)]
    if kinds[0] is not kinds[1] or zones[0] != zones[1]:
        raise DataError(
            f"plot_forecast: y has a {type(past).__name__} ({past.dtype}), the forecast a "
            f"{type(future).__name__} ({future.dtype}); they cannot share an axis. Give both on the same index."
        )


def _history_rows(history: int | None, steps: int) -> int:
    if history is None:
        return max(3 * steps, 30)
    if history < 1:
        raise ParameterError(f"plot_forecast: history={history}; at least 1 row is needed.")
    return history


def _percent(mass: float) -> str:
    return f"{100 * mass:.4g} % interval"


def _lighten(colour: str, strength: float) -> tuple[float, ...]:
    """Mix a colour with white: 1 keeps it, 0 gives white. Opaque, so that nested bands do not add up."""
    from matplotlib.colors import to_rgb

    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))
