"""The forecasts of a backtest in the form of sktime's ``evaluate``."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xlstm_ts.evaluation.scores import intervals_of


def as_evaluated(result: Any, model: Any, scoring: Any) -> pd.DataFrame:
    """Return one row per origin of a `BacktestResult`; see its method `to_sktime`."""
    scorers = _scorers(scoring)
    part = result.frame[result.frame["model"] == model]
    levels = [level for level in result.quantile_levels if part[level].notna().any()]
    rows = []
    for origin, fold in part.groupby("origin", sort=True):
        actual, point = (_wide(fold, [column], result.y) for column in ("y", "point"))
        quantiles = _wide(fold, levels, result.y) if levels else None
        row: dict[str, Any] = {
            f"test_{_name(scorer)}": _score(scorer, actual, point, quantiles, result) for scorer in scorers
        }
        row |= {"cutoff": origin, "y_test": actual, "y_pred": point}
        rows.append(row if quantiles is None else row | {"y_pred_quantiles": quantiles})
    return pd.DataFrame(rows)


def _scorers(scoring: Any) -> list[Any]:
    if scoring is None:
        from sktime.performance_metrics.forecasting import MeanAbsoluteError

        return [MeanAbsoluteError()]
    return list(scoring) if isinstance(scoring, list | tuple) else [scoring]


def _name(scorer: Any) -> str:
    return str(getattr(scorer, "name", None) or getattr(scorer, "__name__", type(scorer).__name__))


def _wide(fold: pd.DataFrame, columns: list[Any], y: pd.DataFrame) -> pd.DataFrame:
    """One row per (series and) time, one column per variable, or per variable and level."""
    is_panel = isinstance(y.index, pd.MultiIndex)
    keys = [key if isinstance(key, tuple) else (key,) for key in fold["series"]] if is_panel else [()] * len(fold)
    if is_panel:
        index = pd.MultiIndex.from_tuples(
            [(*key, time) for key, time in zip(keys, fold["time"], strict=True)], names=y.index.names
        )
    else:
        index = pd.Index(fold["time"]).rename(y.index.name)
    pieces = {}
    for variable in y.columns:
        of_variable = (fold["variable"] == variable).to_numpy()
        for column in columns:
            name = variable if columns in (["y"], ["point"]) else (variable, column)
            pieces[name] = fold.loc[of_variable, column].set_axis(index[of_variable])
    table = pd.concat(pieces, axis=1)
    if columns in (["y"], ["point"]):
        table.columns = y.columns
    return table


def _score(scorer: Any, actual: pd.DataFrame, point: pd.DataFrame, quantiles: Any, result: Any) -> float:
    """Give each metric the kind of forecast that its tag asks for."""
    kind = scorer.get_tag("scitype:y_pred", "pred") if hasattr(scorer, "get_tag") else "pred"
    if kind == "pred":
        keep = actual.notna().all(axis=1)
        extra = {}
        if hasattr(scorer, "get_tag") and scorer.get_tag("requires-y-train", False):
            extra = {"y_train": _training_part(result)}
        return float(scorer(actual[keep], point[keep], **extra))
    forecast = quantiles if kind == "pred_quantiles" else _intervals(quantiles)
    return float(scorer(actual, forecast))


def _training_part(result: Any) -> pd.DataFrame:
    """Rows of the first training part, from which scales are taken."""
    return result.y[result.y.index.get_level_values(-1) <= result.settings["train_end"]].dropna()


def _intervals(quantiles: pd.DataFrame) -> pd.DataFrame:
    """Pair quantiles to central intervals, in sktime's three column levels."""
    levels = [float(level) for level in quantiles.columns.unique(level=-1)]
    pieces = {}
    for variable in quantiles.columns.unique(level=0):
        for low, high in intervals_of(levels).values():
            share = round(high - low, 10)
            pieces[(variable, share, "lower")] = quantiles[(variable, low)]
            pieces[(variable, share, "upper")] = quantiles[(variable, high)]
    return pd.concat(pieces, axis=1)
