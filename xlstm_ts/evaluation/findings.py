"""What a backtest says, in sentences: no more than the limits allow, and whatever it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from xlstm_ts.evaluation.baselines import BASELINE_WORDS
from xlstm_ts.evaluation.metrics import quantile_coverage
from xlstm_ts.evaluation.scores import intervals_of

# Below this a difference is called beyond luck; the limits of the skill must exclude 0 as well.
_SIGNIFICANT = 0.05
# Origins that do not overlap: fewer are no basis for a verdict.
_FEW = 8
# A median is said to lean to one side if so much more than half of the values lie on the other, in per cent.
_MEDIAN_SLACK = 5


def describe(result: Any, model: Any = None) -> list[str]:
    """Say in sentences what a `BacktestResult` says about one model; see its method `describe`."""
    model = result.models[0] if model is None else model
    origins = len(result.origins)
    mae = result.summary(["MAE"]).loc[model, "MAE"]
    steps = "1 step" if result.horizon == 1 else f"up to {result.horizon} steps"
    sentences = [f"From {origins:,} origins and {steps} ahead, {model} is off by {_number(mae)} on average."]
    if origins / result.overlap < _FEW:
        sentences.append(
            f"These forecasts overlap so much that they are worth fewer than {_FEW} independent ones: too few for a "
            "verdict."
        )
    for loss, words in (("MAE", "error"), ("CRPS", "CRPS, which judges the whole distribution,")):
        if loss == "MAE" or result.quantile_levels:
            sentences += [_comparison(result, model, other, loss, words) for other in result.models if other != model]
    return [*sentences, *_intervals(result, model), *_median(result, model)]


def _comparison(result: Any, model: Any, other: Any, loss: str, words: str) -> str:
    row = result.compare(other, loss=loss).loc[model]
    label = BASELINE_WORDS.get(other, str(other))
    skill, low, high, p = (float(row[name]) for name in ("skill", "low", "high", "p_value"))
    if not np.isfinite(skill):
        return f"Against {label} the {words} cannot be compared."
    size = f"{100 * abs(skill):.1f} % {'smaller' if skill > 0 else 'larger'}"
    limits = f"95 % limits of the gain: {100 * low:.1f} to {100 * high:.1f} %"
    if not np.isfinite(p):
        return f"Against {label} the {words} is {size} ({limits}); there are too few origins to test it."
    beyond = p < _SIGNIFICANT and (low > 0 or high < 0)
    verdict = "more than luck" if beyond else "which may be luck"
    return f"Against {label} the {words} is {size} ({limits}; p {p_text(p)}), {verdict}."


def _intervals(result: Any, model: Any) -> list[str]:
    shares = [share for share in ("80", "90") if share in intervals_of(result.quantile_levels)]
    if not shares or result.frame.loc[result.frame["model"] == model, result.quantile_levels].isna().all(axis=None):
        return []
    table, sentences = result.coverage(), []
    for share in shares:
        row = table.loc[(model, float(share) / 100)]
        nominal = float(share) / 100
        verdict = "as promised"
        if row["block_high"] < nominal:
            verdict = "too few: it is too narrow"
        elif row["block_low"] > nominal:
            verdict = "more than promised: it is wider than need be"
        limits = f"limits {100 * row['block_low']:.1f} to {100 * row['block_high']:.1f} %"
        sentences.append(
            f"Its {share} % interval held {100 * row['coverage']:.1f} % of the values ({limits}), {verdict}."
        )
    return sentences


def _median(result: Any, model: Any) -> list[str]:
    if 0.5 not in result.quantile_levels:
        return []
    own = result.frame[result.frame["model"] == model]
    below = 100 * quantile_coverage(own["y"], own[[0.5]])[0]
    if not abs(below - 50) > _MEDIAN_SLACK:
        return []
    return [f"{below:.0f} % of the values lay below its median: it forecast too {'high' if below > 50 else 'low'}."]


def _number(value: float) -> str:
    return f"{value:,.4g}"


def p_text(p: float) -> str:
    """Write a p-value, with no more digits than it deserves."""
    if np.isnan(p):
        return "\u2013"
    return "below 0.0001" if p < 1e-4 else f"{p:.2g}"
