"""The HTML page of a backtest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xlstm_ts.evaluation import plots
from xlstm_ts.evaluation.baselines import REFERENCE
from xlstm_ts.evaluation.findings import describe, p_text
from xlstm_ts.evaluation.report import ReportFigure, Section, write_report
from xlstm_ts.evaluation.scores import LOWER_IS_BETTER

# More steps or groups than this are shown in steps, so that a table stays on a page.
_LONGEST_TABLE = 12


def write_page(
    result: Any,
    path: str | Path,
    *,
    title: str | None = None,
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """Write a `BacktestResult` as one page; see its method `to_html`."""
    parts = [
        Section("In words", describe(result)),
        _scores(result),
        _significance(result),
        _coverage(result),
        _picture(result),
        *sections,
        _by_step(result),
        _failures(result),
        _method(result),
    ]
    title = f"Backtest of {', '.join(map(str, result.models[:1]))}" if title is None else title
    return write_report(path, title, [section for section in parts if section is not None], introduction=notes)


def _scores(result: Any) -> Section:
    summary = result.summary()
    columns = [name for name in summary.columns if not name.endswith(("_p", "_seconds")) and "skill" not in name]
    table = summary[columns].copy()
    held = [name for name in columns if name.startswith("coverage_")]
    table[held] = (100 * table[held]).round(1)
    table = table.rename(columns=lambda name: name.replace("coverage_", "held by ").replace("width_", "width "))
    seconds = summary[["fit_seconds", "predict_seconds"]].round(1)
    return Section(
        "Scores",
        [
            "MAE, RMSE, bias, pinball and CRPS are in the unit of the series; MASE is the MAE in units of the error "
            "that the seasonal naive forecast made, one season ahead, on the training data. Bias is forecast less "
            "actual value. Pinball and CRPS judge the whole distribution. Of all but bias, lower is better, and the "
            "lowest is bold. "
            "'Held by 80' is the share of values, in per cent, inside the interval that should hold 80 %.",
        ],
        table.join(seconds.rename(columns=lambda name: name.replace("_seconds", ", s"))).rename_axis("model"),
        lower_is_better=LOWER_IS_BETTER,
    )


def _significance(result: Any) -> Section | None:
    if REFERENCE not in result.models:
        return None
    parts = []
    for loss in ("MAE", "CRPS") if result.quantile_levels else ("MAE",):
        table = result.compare(REFERENCE, loss=loss).drop(index=REFERENCE)
        columns = {"skill": f"skill in {loss}, %", "low": "from", "high": "to", "p_value": "p"}
        table = table.rename(columns=columns)[[*columns.values()]]
        table.iloc[:, :3] = (100 * table.iloc[:, :3]).round(1)
        parts.append(table.assign(p=table["p"].map(p_text)).add_suffix("" if loss == "MAE" else " "))
    return Section(
        "Is it more than luck?",
        [
            "Skill is how much smaller the loss is than that of the seasonal naive forecast, in per cent, with limits "
            "that hold the true skill with 95 % confidence, by a bootstrap that draws blocks of neighbouring origins. "
            "p is the probability of so large a difference if both were equally good, by the test of Diebold and "
            f"Mariano with the small-sample correction. {_overlap(result)}",
        ],
        pd.concat(parts, axis=1),
        lower_is_better=(),
    )


def _overlap(result: Any) -> str:
    if result.overlap == 1:
        return "No two origins forecast the same value."
    return f"Up to {result.overlap} neighbouring origins forecast the same value, and are not counted as independent."


def _coverage(result: Any) -> Section | None:
    table = result.coverage()
    if table.empty:
        return None
    table = table.copy()
    shares = ["coverage", "block_low", "block_high"]
    table[shares] = (100 * table[shares]).round(1)
    table = table.rename(columns={"coverage": "held, %", "block_low": "from", "block_high": "to"})
    table.index = table.index.set_levels([f"{100 * level:.4g} %" for level in table.index.levels[1]], level=1)
    return Section(
        "Do intervals hold what they promise?",
        [
            "The share of values inside each central interval, with 95 % limits by the same bootstrap. An interval is "
            "honest where the limits enclose its nominal share. The Winkler score adds to the width a penalty for "
            "every value outside: of two honest intervals the narrower is better.",
        ],
        table[["held, %", "from", "to", "width", "winkler"]],
        lower_is_better=(),
    )


def _picture(result: Any) -> Section:
    figure = result.plot()
    return Section(
        "Pictures",
        figures=[
            ReportFigure(
                plots.figure_png(figure, dpi=100),
                "Top: forecasts from a few origins. Middle, left: how the error grows with the steps ahead; right: the "
                "share of values at or below each quantile, on the dotted line where they are honest. Bottom, left: "
                "the share of values inside the interval, from the first origin to the last; right: the errors of the "
                "first and of the last step.",
                "Figure of the backtest",
            )
        ],
    )


def _by_step(result: Any) -> Section | None:
    table = result.by_step(["MAE", "CRPS"] if result.quantile_levels else ["MAE"]).drop(columns="scored")
    steps = list(table.index.unique("step"))
    if len(steps) == 1:
        return None
    shown = [step for step in steps if step in _some(steps)]
    wide = table.unstack("model").loc[shown]
    wide.columns = [f"{model}, {name}" for name, model in wide.columns]
    return Section("By step ahead", table=wide, lower_is_better=())


def _some(values: list[Any]) -> list[Any]:
    """At most so many of the values, from the first to the last, as evenly as possible."""
    if len(values) <= _LONGEST_TABLE:
        return values
    places = {round(k * (len(values) - 1) / (_LONGEST_TABLE - 1)) for k in range(_LONGEST_TABLE)}
    return [value for place, value in enumerate(values) if place in places]


def _failures(result: Any) -> Section | None:
    if not len(result.failures):
        return None
    table = result.failures.assign(origin=[plots.time_label(origin) for origin in result.failures["origin"]])
    return Section(
        "Origins left out",
        ["A model failed at these origins. They are not in its scores; comparisons use the origins that both have."],
        table.head(50).set_index("model"),
    )


def _method(result: Any) -> Section:
    how = result.settings
    first, last, end = (plots.time_label(how[key]) for key in ("first_origin", "last_origin", "train_end"))
    refit = {0: "were evaluated as they had been fitted before"}.get(
        0 if how["refit"] is None else how["folds"], f"were fitted {how['folds']} times, in {how['window']} windows"
    )
    if how["folds"] == 1 and how["refit"] is not None:
        refit = "were fitted once"
    gap = f" A gap of {how['gap']} rows lies between training data and first origin." if how["gap"] else ""
    return Section(
        "How it was made",
        [
            f"{how['origins']} origins from {first} to {last}, up to {result.horizon} steps ahead. The models {refit}; "
            f"the first training part has {how['train_rows']:,} rows and ends at {end}.{gap} From every origin a model "
            "read only what was known there. Scales and intervals of the baselines come from the training part. A "
            "season has "
            f"{result.seasonal_period} rows.",
        ],
    )
