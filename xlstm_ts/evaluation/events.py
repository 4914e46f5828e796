"""Forecasts of weather and sensors, judged by events: a threshold that is passed, a reading that cannot be right.

Probabilities come from the quantiles of a backtest, by the distribution function that runs through them (see
`xlstm_ts.evaluation.metrics.probability_below`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation import plots
from xlstm_ts.evaluation.metrics import probability_below
from xlstm_ts.evaluation.results import BacktestResult
from xlstm_ts.evaluation.scores import intervals_of
from xlstm_ts.evaluation.significance import wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def brier_score(event: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared difference between a forecast probability and what came, 1 or 0 (Brier 1950).

    Parameters
    ----------
    event : array_like of shape (n,)
        Whether it happened; NaN where that is not known, which does not count.
    probability : array_like of shape (n,)
        Forecast probability of the event, in [0, 1].

    Returns
    -------
    float
        0 is perfect; always saying the share of events gives that share times one less it. NaN without a known event,
        or if a probability is missing where the event is known.
    """
    truth, said = np.asarray(event, dtype=float), np.asarray(probability, dtype=float)
    known = ~np.isnan(truth)
    return float(np.square(said - truth)[known].mean()) if known.any() else float("nan")


def reliability(event: ArrayLike, probability: ArrayLike, *, bins: int = 10, confidence: float = 0.95) -> pd.DataFrame:
    """Return how often an event came, by how probable it was said to be.

    Parameters
    ----------
    event, probability : array_like of shape (n,)
        As for `brier_score`.
    bins : int
        Bins of equal width from 0 to 1.
    confidence : float
        Of the Wilson limits, which count all forecasts as independent.

    Returns
    -------
    DataFrame
        One row per bin that holds forecasts: "forecast" (mean probability), "observed" (share of events), "low",
        "high" and "count".
    """
    if bins < 1:
        raise ParameterError(f"reliability: bins={bins}; at least 1 is needed.")
    truth, said = np.asarray(event, dtype=float), np.asarray(probability, dtype=float)
    known = ~np.isnan(truth) & ~np.isnan(said)
    bin_of = np.minimum((said[known] * bins).astype(int), bins - 1)
    counts, told, came = (np.bincount(bin_of, weights, bins) for weights in (None, said[known], truth[known]))
    filled = counts > 0
    low, high = wilson_interval(came[filled], counts[filled], confidence)
    columns = {
        "forecast": told[filled] / counts[filled],
        "observed": came[filled] / counts[filled],
        "low": low,
        "high": high,
        "count": counts[filled].astype(int),
    }
    return pd.DataFrame(columns, index=pd.Index(np.flatnonzero(filled), name="bin"))


@dataclass(frozen=True, eq=False)
class ExceedanceResult:
    """Forecast probabilities of an event beside what came.

    Attributes
    ----------
    threshold : float
        In the units of the series.
    above : bool
        Whether the event is a value above the threshold, or one at or below it.
    frame : DataFrame
        Columns model, series, origin, step, time, variable, probability, event (1, 0, or NaN where the value is
        missing).
    """

    threshold: float
    above: bool
    frame: pd.DataFrame

    def summary(self) -> pd.DataFrame:
        """Score the probabilities of each model.

        Returns
        -------
        DataFrame
            One row per model: "brier"; "skill" against always saying the share of events (which no forecast knows in
            advance); the share of events "base_rate", the mean probability "forecast_rate", and the number "scored".
        """
        rows = {}
        for model, part in self.frame.groupby("model", sort=False):
            known = part[part["event"].notna()]
            rate = known["event"].mean()
            score, uncertain = brier_score(known["event"], known["probability"]), rate * (1 - rate)
            skill = 1 - score / uncertain if uncertain > 0 else np.nan
            rows[model] = (score, skill, rate, known["probability"].mean(skipna=False), len(known))
        columns = ["brier", "skill", "base_rate", "forecast_rate", "scored"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model")

    def reliability(self, model: Any = None, *, bins: int = 10) -> pd.DataFrame:
        """Return how often the event came, by its forecast probability; see the function `reliability`."""
        part = self.frame[self.frame["model"] == self._model(model)]
        return reliability(part["event"], part["probability"], bins=bins)

    def plot(self, *, bins: int = 10) -> Figure:
        """Draw the reliability diagram, with Wilson limits, and how often each probability was said."""
        figure = plots.new_figure(6, 6.4)
        ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        models = list(dict.fromkeys(self.frame["model"]))
        styles = plots.model_styles(models)
        ax.plot([0, 1], [0, 1], color=plots.QUIET_COLOUR, lw=0.8, ls=(0, (2, 3)), label="reliable")
        for model in models:
            table = self.reliability(model, bins=bins)
            ax.plot(table["forecast"], table["observed"], marker="o", ms=3.5, label=str(model), **styles[model])
            ax.vlines(table["forecast"], table["low"], table["high"], color=styles[model]["color"], lw=0.8)
            below.plot((table.index + 0.5) / bins, table["count"], marker="o", ms=3.5, **styles[model])
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.set_ylabel("share of events", color=plots.QUIET_COLOUR)
        below.set_yscale("log")
        below.set_ylabel("forecasts", color=plots.QUIET_COLOUR)
        below.set_xlabel("forecast probability", color=plots.QUIET_COLOUR)
        for axes in (ax, below):
            plots.clean_axes(axes)
        plots.add_legend(figure, ax)
        return figure

    def _model(self, model: Any) -> Any:
        known = list(dict.fromkeys(self.frame["model"]))
        model = known[0] if model is None else model
        if model not in known:
            raise ParameterError(f"ExceedanceResult: model={model!r} is not one of {known}.")
        return model


def exceedance(result: BacktestResult, threshold: float, *, above: bool = True) -> ExceedanceResult:
    """Turn the quantiles of a backtest into probabilities of passing a threshold.

    Parameters
    ----------
    result : BacktestResult
        With at least two quantile levels. Levels near 0 and 1 matter for rare events: beyond the outermost the
        distribution is continued as a normal tail.
    threshold : float
        In the units of the series: 0 for frost, a limit of a machine.
    above : bool
        Whether the event is a value above it, or one at or below it.

    Returns
    -------
    ExceedanceResult
        Of the models that have quantiles.

    Raises
    ------
    ParameterError
        The threshold is not finite, or there are no two quantile levels.
    """
    levels = result.quantile_levels
    if not np.isfinite(threshold) or len(levels) < 2:
        raise ParameterError(
            f"exceedance: threshold={threshold}, {len(levels)} quantile levels; a finite threshold and at least 2 "
            "levels are needed."
        )
    frame = result.frame[result.frame[levels].notna().any(axis=1)]
    below = probability_below(threshold, frame[levels].to_numpy(dtype=float), levels)
    actual = frame["y"].to_numpy(dtype=float)
    passed = actual > threshold if above else actual <= threshold
    kept = frame[["model", "series", "origin", "step", "time", "variable"]].reset_index(drop=True)
    kept["probability"] = 1 - below if above else below
    kept["event"] = np.where(np.isnan(actual), np.nan, passed)
    return ExceedanceResult(float(threshold), above, kept)


def flag_outside(
    result: BacktestResult, model: Any = None, *, step: int = 1, coverage: float | None = None
) -> pd.DataFrame:
    """Flag the readings that the forecast of so many steps before did not think possible.

    Parameters
    ----------
    result : BacktestResult
        With a symmetric pair of quantile levels.
    model : optional
        Default: the first.
    step : int
        Steps between the origin and the reading.
    coverage : float, optional
        Of the interval, such as 0.98 for the levels 0.01 and 0.99. Default: the widest. An honest one flags
        ``1 - coverage`` of all readings although nothing is wrong with them.

    Returns
    -------
    DataFrame
        One row per reading, in time order: series, variable, time, y, lower, upper, outside (0 inside, 1 above, -1
        below, NaN for a missing reading) and "distance", how far outside in units of the width of the interval.

    Raises
    ------
    ParameterError
        There is no such model, step or interval.
    """
    model = result.models[0] if model is None else model
    shares = intervals_of(result.quantile_levels)
    wanted = list(shares)[-1:] if coverage is None else [f"{100 * coverage:.4g}"]
    steps = sorted(set(result.frame["step"]))
    if model not in result.models or step not in steps or not wanted or wanted[0] not in shares:
        raise ParameterError(
            f"flag_outside: model={model!r}, step={step}, coverage={coverage}; known are the models {result.models}, "
            f"the steps {steps} and the intervals of {[float(share) / 100 for share in shares]}."
        )
    low, high = shares[wanted[0]]
    part = result.frame[(result.frame["model"] == model) & (result.frame["step"] == step)]
    flags = part[["series", "variable", "time", "y"]].assign(lower=part[low], upper=part[high])
    flags["outside"] = _side(*(flags[name].to_numpy(dtype=float) for name in ("y", "lower", "upper")))
    width = (flags["upper"] - flags["lower"]).to_numpy()
    beyond = np.maximum(flags["lower"] - flags["y"], flags["y"] - flags["upper"]).clip(lower=0)
    flags["distance"] = beyond / np.where(width > 0, width, np.nan)
    return flags.sort_values("time", kind="stable").reset_index(drop=True)


def _side(actual: NDArray, lower: NDArray, upper: NDArray) -> NDArray:
    unknown = np.isnan(actual) | np.isnan(lower) | np.isnan(upper)
    return np.where(unknown, np.nan, (actual > upper) * 1.0 - (actual < lower))
