"""Scores of a tidy frame of forecasts, by group: every score is a ratio of means of terms of its rows.

`metrics` holds the same scores as functions of plain arrays, which say what each of them is; here they are computed
for thousands of groups at once, and resampled by the bootstrap, from the same terms.

Dimension key: ``R`` rows · ``K`` terms · ``G`` groups.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation import metrics

# Names that do not depend on the quantile levels; every symmetric pair of levels adds coverage_80, width_80 and
# winkler_80, named by the per cent that it should hold.
POINT_METRICS = ("MAE", "RMSE", "MASE", "RMSSE", "sMAPE", "WAPE", "bias")
QUANTILE_METRICS = ("pinball", "WQL", "CRPS")
LOWER_IS_BETTER = ("MAE", "RMSE", "MASE", "RMSSE", "sMAPE", "WAPE", "pinball", "WQL", "CRPS")
_INTERVAL = re.compile(r"(coverage|width|winkler)_(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class _Recipe:
    """A score as numerator over denominator, both means of terms; then a root, if it is one."""

    numerator: str
    denominator: str = "count"
    root: bool = False


_RECIPES = {
    "MAE": _Recipe("absolute"),
    "RMSE": _Recipe("squared", root=True),
    "MASE": _Recipe("scaled"),
    "RMSSE": _Recipe("scaled squared", root=True),
    "sMAPE": _Recipe("symmetric"),
    "WAPE": _Recipe("absolute", "size"),
    "bias": _Recipe("error"),
    "pinball": _Recipe("pinball"),
    "WQL": _Recipe("double pinball", "size"),
    "CRPS": _Recipe("crps"),
}


@dataclass(frozen=True, eq=False)
class Rows:
    """The columns that scores are made of: [R], and [R, Q] for the quantiles.

    Attributes
    ----------
    actual, point : ndarray of shape (R,)
    quantiles : ndarray of shape (R, Q)
    levels : list of float
    scale, rms_scale : ndarray of shape (R,)
        Training errors of the seasonal naive forecast of the row's series and variable.
    """

    actual: NDArray
    point: NDArray
    quantiles: NDArray
    levels: list[float]
    scale: NDArray
    rms_scale: NDArray

    def term(self, name: str) -> NDArray:
        """Return one term of every row; 0 where the actual value is missing, NaN where the forecast is."""
        counted = ~np.isnan(self.actual)
        return np.where(counted, self._term(name), 0.0)

    def _term(self, name: str) -> NDArray:
        actual, error = self.actual, self.point - self.actual
        if name in ("pinball", "double pinball", "crps"):
            if not self.levels:
                return np.full(len(actual), np.nan)
            loss = metrics.pinball_terms(actual, self.quantiles, self.levels)
            if name == "crps":
                return 2 * (loss @ metrics.level_masses(self.levels))
            return loss.mean(axis=-1) * (2 if name == "double pinball" else 1)
        if (interval := _INTERVAL.fullmatch(name)) is not None:
            low, high, share = self._interval(name)
            if interval[1] == "width":
                return high - low
            if interval[1] == "winkler":
                return metrics.winkler_terms(actual, low, high, share)
            return np.where(np.isnan(low) | np.isnan(high), np.nan, (low <= actual) & (actual <= high))
        if name == "count":
            return np.ones(len(actual))
        if name == "absolute":
            return np.abs(error)
        if name == "squared":
            return np.square(error)
        if name == "scaled":
            return np.abs(error) / np.where(self.scale > 0, self.scale, np.nan)
        if name == "scaled squared":
            return np.square(error / np.where(self.rms_scale > 0, self.rms_scale, np.nan))
        if name == "symmetric":
            return metrics.symmetric_error(actual, self.point)
        return np.abs(actual) if name == "size" else error

    def _interval(self, name: str) -> tuple[NDArray, NDArray, float]:
        low, high = intervals_of(self.levels)[name.partition("_")[2]]
        columns = [self.quantiles[:, self.levels.index(level)] for level in (low, high)]
        return columns[0], columns[1], high - low


def intervals_of(levels: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Return the central intervals among quantile levels: the per cent that each should hold, and its two levels."""
    found = {}
    for low in levels:
        high = next((level for level in levels if level > low and abs(low + level - 1) < 1e-9), None)
        if high is not None:
            found[f"{100 * (high - low):.4g}"] = (low, high)
    return dict(sorted(found.items(), key=lambda item: float(item[0])))


def known_metrics(levels: Sequence[float]) -> list[str]:
    """Return the names of all scores that exist for these quantile levels."""
    intervals = [f"{kind}_{share}" for share in intervals_of(levels) for kind in ("coverage", "width", "winkler")]
    return [*POINT_METRICS, *QUANTILE_METRICS, *intervals]


def default_metrics(levels: Sequence[float]) -> list[str]:
    """Return what a summary shows if nothing else is asked for: the 80 % and 90 % intervals, or else all."""
    shares = list(intervals_of(levels))
    shown = [share for share in shares if share in ("80", "90")] or shares
    intervals = [f"{kind}_{share}" for share in shown for kind in ("coverage", "width")]
    return ["MAE", "RMSE", "MASE", "bias", "pinball", "CRPS", *intervals]


def check_metrics(names: Sequence[str], levels: Sequence[float], where: str) -> list[str]:
    """Return the names; a ParameterError names the first that is unknown."""
    known = known_metrics(levels)
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ParameterError(f"{where}: no metric is called {unknown[0]!r} for these quantile levels. Known: {known}.")
    return names


def terms_of(names: Sequence[str]) -> list[str]:
    """Return the terms that these scores need."""
    needed: dict[str, None] = {}
    for name in names:
        recipe = _recipe(name)
        needed |= dict.fromkeys((recipe.numerator, recipe.denominator))
    return list(needed)


def combine(means: dict[str, NDArray], names: Sequence[str]) -> dict[str, NDArray]:
    """Make scores from means (or sums) of terms, which are arrays of one shape."""
    scores = {}
    for name in names:
        recipe = _recipe(name)
        below = np.where(means[recipe.denominator] > 0, means[recipe.denominator], np.nan)
        ratio = means[recipe.numerator] / below
        scores[name] = np.sqrt(ratio) if recipe.root else ratio
    return scores


def score_groups(rows: Rows, groups: NDArray, count: int, names: Sequence[str]) -> pd.DataFrame:
    """Return the scores of each group, and how many values were scored.

    Parameters
    ----------
    rows : Rows
    groups : ndarray of int of shape (R,)
        Group of each row, from 0.
    count : int
        Number of groups, G.
    names : sequence of str
        Scores.

    Returns
    -------
    DataFrame
        One row per group; the scores and "scored".
    """
    sums = {term: group_sums(rows.term(term), groups, count) for term in terms_of([*names, "MAE"])}
    table = pd.DataFrame(combine(sums, names), columns=list(names))
    table["scored"] = sums["count"].astype(int)
    return table


def group_sums(values: NDArray, groups: NDArray, count: int) -> NDArray:
    """Sum the values of each group: [G]."""
    return np.bincount(groups, weights=values, minlength=count)


def _recipe(name: str) -> _Recipe:
    return _RECIPES.get(name) or _Recipe(name)
