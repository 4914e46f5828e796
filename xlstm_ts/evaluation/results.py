"""What a backtest found: forecasts beside actual values, and every view of them.

Dimension key: ``O`` origins · ``M`` models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation import metrics as score
from xlstm_ts.evaluation.baselines import REFERENCE, each_series
from xlstm_ts.evaluation.report import Section
from xlstm_ts.evaluation.scores import (
    Rows,
    check_metrics,
    combine,
    default_metrics,
    group_sums,
    intervals_of,
    score_groups,
    terms_of,
)
from xlstm_ts.evaluation.significance import NO_TEST, block_bootstrap, diebold_mariano, wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SEASONS = np.array(["DJF", "MAM", "JJA", "SON"])


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """Forecasts of a backtest beside the actual values.

    Attributes
    ----------
    frame : DataFrame
        One row per model, origin, series, step and variable. Columns: model, series ("" for a single series, else its
        label, or a tuple of labels), origin, step, time, variable, y (actual, NaN if missing), point, and one column
        per quantile level, labelled by the level as a float (NaN for a model without quantiles).
    y : DataFrame
        The whole series, one column per variable.
    train_scale, train_rms_scale : Series
        Mean absolute, and root mean squared, error of the seasonal naive forecast on the first training part by
        (series, variable): the units of MASE and RMSSE.
    horizon : int
        The farthest step ahead.
    seasonal_period : int
        Rows per season.
    seconds : DataFrame
        Wall time of "fit" and "predict" by model.
    overlap : int
        How many neighbouring origins have forecasts of the same value: the farthest step, counted in the distance
        between origins.
    failures : DataFrame
        Origins left out because a model failed there (only with ``error_score=nan``): model, origin, error.
    metrics : tuple of str
        Scores that `summary` shows.
    functions : dict of str to callable
        Scores of the user's own.
    settings : dict of str to Any
        How the backtest was made.
    """

    frame: pd.DataFrame
    y: pd.DataFrame
    train_scale: pd.Series
    horizon: int
    seasonal_period: int
    seconds: pd.DataFrame
    train_rms_scale: pd.Series
    overlap: int = 1
    failures: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["model", "origin", "error"]))
    metrics: tuple[str, ...] = ()
    functions: Mapping[str, Callable[[NDArray, NDArray], float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> list[Any]:
        """Names of the models, the baselines last."""
        return list(self.seconds.index)

    @property
    def quantile_levels(self) -> list[float]:
        """Quantile levels of the forecasts."""
        return [column for column in self.frame.columns if isinstance(column, float)]

    @property
    def origins(self) -> pd.Index:
        """Origins, increasing."""
        return pd.Index(self.frame["origin"].unique()).sort_values()

    # Tables

    def summary(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """Score each model over all origins, steps, series and variables.

        Parameters
        ----------
        metrics : sequence of str, optional
            Scores to show; see `xlstm_ts.evaluation.scores.known_metrics`. Default: those of the backtest.

        Returns
        -------
        DataFrame
            One row per model. MAE, RMSE, bias, CRPS and pinball (the mean over the quantile levels) are in the units
            of the series, pooled over variables and series; MASE and RMSSE in units of the seasonal naive forecast's
            training error (NaN for a series that was constant in training); coverage and mean width of the central
            intervals, where their levels were asked for. Then, where a seasonal naive baseline is there, "skill" (1 -
            MAE / its MAE: above 0 is better than it) and "DM_p", the two-sided p-value of the Diebold-Mariano test of
            equal MAE, and the same for CRPS (see `compare`). Then the number of origins, of those left out by
            failures if there are any, of scored values, and the seconds to fit and to predict. Missing actual values
            are left out; a missing forecast makes the scores NaN.
        """
        table = self._scores(["model"], metrics)
        scored = table.pop("scored")
        if REFERENCE in self.models:
            for loss, prefix in (("MAE", ""), ("CRPS", "CRPS_")):
                if loss == "MAE" or self.quantile_levels:
                    against = self.compare(REFERENCE, loss=loss)
                    table[f"{prefix}skill"] = against["skill"]
                    table[f"{prefix}DM_p"] = against["p_value"]
        table["origins"] = self.frame.groupby("model")["origin"].nunique().reindex(table.index, fill_value=0)
        if len(self.failures):
            left_out = self.failures.groupby("model").size()
            table["failed"] = left_out.reindex(table.index, fill_value=0)
        table["scored"] = scored
        return table.join(self.seconds.add_suffix("_seconds")).loc[self.models]

    def by_step(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the scores of `summary` for each model and step ahead."""
        return self._scores(["model", "step"], metrics)

    def by_origin(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the scores of `summary` for each model and origin."""
        return self._scores(["model", "origin"], metrics)

    def by_series(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the scores of `summary` for each model and series."""
        return self._scores(["model", "series"], metrics)

    def by_variable(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the scores of `summary` for each model and variable."""
        return self._scores(["model", "variable"], metrics)

    def by_time(self, unit: str, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the scores of `summary`, and the skill, by a part of the target time.

        Parameters
        ----------
        unit : {"hour", "weekday", "month", "season", "year"}
            Seasons are DJF (December to February), MAM, JJA and SON; weekdays are numbers from Monday = 0.

        Returns
        -------
        DataFrame
            One row per model and part, with the column "skill" where a seasonal naive baseline is there.
        """
        times = pd.Index(self.frame["time"])
        if not isinstance(times, pd.DatetimeIndex | pd.PeriodIndex):
            raise DataError(
                f"BacktestResult.by_time: the times are {times.dtype}; dates are needed to find the {unit}."
            )
        if unit not in ("hour", "weekday", "month", "season", "year"):
            raise ParameterError(
                f"BacktestResult.by_time: unit={unit!r}; 'hour', 'weekday', 'month', 'season' or 'year' is needed."
            )
        part = np.asarray(times.month) % 12 // 3 if unit == "season" else np.asarray(getattr(times, unit))
        labels = _SEASONS[part] if unit == "season" else part
        table = self._scores(["model", unit], metrics, extra={unit: labels})
        if REFERENCE in self.models:
            error = table["MAE"] if "MAE" in table else self._scores(["model", unit], ["MAE"], {unit: labels})["MAE"]
            reference = error.loc[REFERENCE].reindex(error.index.get_level_values(unit)).to_numpy()
            table.insert(0, "skill", 1 - error / np.where(reference > 0, reference, np.nan))
        return table

    def coverage(self, confidence: float = 0.95, *, random_state: int | np.random.Generator | None = 0) -> pd.DataFrame:
        """Return how many values each central interval held, with confidence limits.

        Parameters
        ----------
        confidence : float
            Of the limits.
        random_state : int, Generator or None
            For the bootstrap.

        Returns
        -------
        DataFrame
            One row per model and nominal coverage: the share that was held, Wilson limits (as if all values were
            independent trials: too narrow where forecasts overlap), limits by the block bootstrap over origins (see
            `confidence`), mean width and Winkler score. Empty without symmetric levels.
        """
        table = []
        for share in intervals_of(self.quantile_levels):
            names = [f"{kind}_{share}" for kind in ("coverage", "width", "winkler")]
            limits = self.confidence(names[:1], confidence=confidence, random_state=random_state)
            for model, row in self._scores(["model"], names).iterrows():
                low, high = wilson_interval(row[names[0]] * row["scored"], row["scored"], confidence)
                block = limits.loc[(model, names[0])]
                values = [row[names[0]], low, high, block["low"], block["high"], row[names[1]], row[names[2]]]
                table.append((model, float(share) / 100, *map(float, values)))
        columns = ["coverage", "wilson_low", "wilson_high", "block_low", "block_high", "width", "winkler"]
        return pd.DataFrame(table, columns=["model", "nominal", *columns]).set_index(["model", "nominal"])

    def confidence(
        self,
        metrics: Sequence[str] | None = None,
        *,
        confidence: float = 0.95,
        resamples: int = 1000,
        random_state: int | np.random.Generator | None = 0,
    ) -> pd.DataFrame:
        """Return scores with confidence limits by the circular block bootstrap over origins.

        Forecasts from neighbouring origins overlap, and errors cluster in time, so whole blocks of origins are drawn:
        as long as `overlap`, or the cube root of the number of origins if that is more.

        Parameters
        ----------
        metrics : sequence of str, optional
            Default: those of the backtest.
        confidence : float
            Probability between the limits.
        resamples : int
            Number of resamples.
        random_state : int, Generator or None
            Seed, or a generator to draw from.

        Returns
        -------
        DataFrame
            One row per model and score: value, low, high.
        """
        names = self._names(metrics, "confidence")
        rng = np.random.default_rng(random_state)
        rows: dict[tuple[Any, str], tuple[float, float, float]] = {}
        for model in self.models:
            sums, origins = self._sums_by_origin(model, terms_of(names))
            terms = np.stack(list(sums.values()), axis=-1)
            value = combine({term: column.sum() for term, column in sums.items()}, names)
            if not len(origins):
                continue

            def resampled(means: NDArray, keys: Sequence[str] = tuple(sums)) -> NDArray:
                scores = combine({term: means[..., k] for k, term in enumerate(keys)}, names)
                return np.stack(list(scores.values()), axis=-1)

            low, high = block_bootstrap(
                terms,
                resampled,
                block_length=self._block_length(len(origins)),
                resamples=resamples,
                confidence=confidence,
                random_state=rng,
            )
            rows |= {(model, name): (float(value[name]), low[k], high[k]) for k, name in enumerate(names)}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
        table.index = pd.MultiIndex.from_tuples(list(rows), names=["model", "metric"])
        return table

    def compare(
        self,
        reference: Any = REFERENCE,
        *,
        loss: str = "MAE",
        confidence: float = 0.95,
        random_state: int | np.random.Generator | None = 0,
    ) -> pd.DataFrame:
        """Compare every model with one of them, on the origins that both have.

        Parameters
        ----------
        reference : optional
            Name of the model to compare with.
        loss : str
            A score that is a mean over rows: "MAE", "MASE", "pinball", "CRPS", ...
        confidence : float
            Of the limits of the skill.
        random_state : int, Generator or None
            For the bootstrap.

        Returns
        -------
        DataFrame
            One row per model: "skill", 1 - loss / loss of the reference, with the limits "low" and "high" by the
            block bootstrap; "statistic" and two-sided "p_value" of the Diebold-Mariano test on the mean loss per
            origin, with as many lags as origins overlap (see `xlstm_ts.evaluation.significance.diebold_mariano`);
            and the number of origins.
        """
        self._check_choice("compare", "reference", reference, self.models)
        (name,) = self._names([loss], "compare")
        needed = terms_of([name])
        other, other_origins = self._sums_by_origin(reference, needed)
        rng = np.random.default_rng(random_state)
        rows = {}
        for model in self.models:
            sums, origins = self._sums_by_origin(model, needed)
            common = origins.intersection(other_origins)
            own = {term: values[origins.get_indexer(common)] for term, values in sums.items()}
            its = {term: values[other_origins.get_indexer(common)] for term, values in other.items()}
            rows[model] = self._compared(own, its, name, model == reference, confidence, rng)
        columns = ["skill", "low", "high", "statistic", "p_value", "origins"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model")

    def _compared(self, own, its, name: str, is_reference: bool, confidence: float, rng) -> tuple[float, ...]:
        count = len(own["count"])
        if is_reference or not count:
            return (0.0 if is_reference else np.nan, np.nan, np.nan, np.nan, np.nan, count)
        keys = list(own)

        def skill(means: NDArray) -> NDArray:
            ours = combine({term: means[..., 0, k] for k, term in enumerate(keys)}, [name])[name]
            theirs = combine({term: means[..., 1, k] for k, term in enumerate(keys)}, [name])[name]
            return 1 - ours / np.where(theirs > 0, theirs, np.nan)

        terms = np.stack([np.stack(list(side.values()), axis=-1) for side in (own, its)], axis=1)  # [O, 2, K]
        low, high = block_bootstrap(
            terms, skill, block_length=self._block_length(count), confidence=confidence, random_state=rng
        )
        losses = [combine(side, [name])[name] for side in (own, its)]
        known = np.isfinite(losses[0]) & np.isfinite(losses[1])
        test = diebold_mariano(losses[0][known], losses[1][known], horizon=self.overlap) if known.any() else NO_TEST
        return (float(skill(terms.mean(axis=0))), float(low), float(high), test.statistic, test.p_value, count)

    def pit(self, model: Any = None) -> pd.Series:
        """Return the probability integral transform of every actual value, indexed by the rows of `frame`.

        See `xlstm_ts.evaluation.metrics.pit`. NaN where the actual value is missing.
        """
        model = self.models[0] if model is None else model
        self._check_choice("pit", "model", model, self.models)
        if len(self.quantile_levels) < 2:
            raise ParameterError("BacktestResult.pit: at least two quantile levels are needed; none were asked for.")
        part = self.frame[self.frame["model"] == model]
        values = score.pit(part["y"], part[self.quantile_levels], self.quantile_levels)
        return pd.Series(values, index=part.index, name="pit")

    # Pages and pictures

    def plot(
        self, model: Any = None, *, variable: Any = None, series: Any = None, origins: int | Sequence[Any] = 3
    ) -> Figure:
        """Draw fans from a few origins, error by step, calibration, coverage over time and residuals.

        Parameters
        ----------
        model : optional
            Model whose forecasts are drawn. Default: the first.
        variable, series : optional
            Variable and series that all panels show. Default: the first.
        origins : int or sequence of index values
            Number of origins, spread over those of the backtest; or which.

        Returns
        -------
        Figure
            A matplotlib figure that belongs to no window: a notebook shows it as the value of a cell, a
            script saves it with ``savefig``.
        """
        from xlstm_ts.evaluation.result_plots import plot_result

        return plot_result(self, model, variable=variable, series=series, origins=origins)

    def describe(self, model: Any = None) -> list[str]:
        """Say in sentences how good a model is, beside every other one, and whether its intervals are honest.

        A difference is called more than luck if the Diebold-Mariano test gives p < 0.05 and the bootstrap limits of
        the skill exclude 0; an interval is called honest if the bootstrap limits of its coverage enclose its share.

        Parameters
        ----------
        model : optional
            Default: the first.
        """
        from xlstm_ts.evaluation.findings import describe

        model = self.models[0] if model is None else model
        self._check_choice("describe", "model", model, self.models)
        return describe(self, model)

    def to_html(
        self, path: str | Path, *, title: str | None = None, notes: Sequence[str] = (), sections: Sequence[Section] = ()
    ) -> Path:
        """Write one self-contained HTML page: scores, tests, coverage, figures and how they were made.

        Parameters
        ----------
        path : str or Path
            File to write; an existing one is replaced.
        title : str, optional
            Title of the page.
        notes : sequence of str
            Paragraphs of your own, put first: what the series is, what the numbers mean.
        sections : sequence of Section
            Sections of your own, put after the pictures (see `xlstm_ts.evaluation.report`).

        Returns
        -------
        Path
            The file.
        """
        from xlstm_ts.evaluation.result_page import write_page

        return write_page(self, path, title=title, notes=notes, sections=sections)

    # Other forms

    def to_sktime(self, model: Any = None, *, scoring: Any = None) -> pd.DataFrame:
        """Return the forecasts of one model as sktime's ``evaluate`` would, one row per origin.

        Parameters
        ----------
        model : optional
            Default: the first.
        scoring : sktime metric or list of them, optional
            Metrics of points, quantiles or intervals, computed on each fold. Default: the mean absolute error.

        Returns
        -------
        DataFrame
            Columns as of ``evaluate(..., return_data=True)``: test_<metric>, cutoff, y_test, y_pred, and
            y_pred_quantiles where there are any; values as Series or DataFrame, of a panel with its MultiIndex. The
            times of the whole backtest, which is not timed by fold, are in `seconds`.
        """
        from xlstm_ts.evaluation.sktime_form import as_evaluated

        model = self.models[0] if model is None else model
        self._check_choice("to_sktime", "model", model, self.models)
        return as_evaluated(self, model, scoring)

    def select(self, rows: pd.Series | NDArray) -> BacktestResult:
        """Return the result with only those rows of `frame` for which the mask `rows` is true."""
        part = self.frame[np.asarray(rows, dtype=bool)].reset_index(drop=True)
        return replace(self, frame=part)

    def series_values(self, key: Any) -> pd.DataFrame:
        """Return the observed values of one series, indexed by time."""
        return next(frame for name, frame in each_series(self.y) if name == key)

    # Inside

    def _scores(
        self, keys: list[str], names: Sequence[str] | None = None, extra: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        functions = self.functions if names is None else {}
        names = self._names(names, "summary")
        numbered = [_numbers((extra or {}).get(key, self.frame.get(key))) for key in keys]
        flat = np.ravel_multi_index([codes for codes, _ in numbered], [len(labels) for _, labels in numbered])
        present, groups = np.unique(flat, return_inverse=True)
        table = score_groups(self._rows(slice(None)), groups, len(present), names)
        for name, function in functions.items():
            table.insert(len(table.columns) - 1, name, self._own(function, groups, len(present)))
        where = np.unravel_index(present, [len(labels) for _, labels in numbered])
        columns = [[labels[row] for row in rows] for (_, labels), rows in zip(numbered, where, strict=True)]
        table.index = self._index(keys, columns)
        return table.loc[[model for model in self.models if model in set(columns[0])]]

    def _index(self, keys: list[str], columns: list[list[Any]]) -> pd.Index:
        """Index of a table; the key of a series in a hierarchy takes one level for each of its labels."""
        if len(keys) == 1:
            return pd.Index(columns[0], name=keys[0])
        names = list(keys)
        if keys[1] == "series" and isinstance(columns[1][0], tuple):
            names = [keys[0], *(name or f"level_{k}" for k, name in enumerate(self.y.index.names[:-1]))]
        return pd.MultiIndex.from_tuples([(a, *_as_tuple(b)) for a, b in zip(*columns, strict=True)], names=names)

    def _own(self, function: Callable[[NDArray, NDArray], float], groups: NDArray, count: int) -> list[float]:
        actual, point = (self.frame[name].to_numpy(dtype=float) for name in ("y", "point"))
        known = ~np.isnan(actual)
        order = np.argsort(groups, kind="stable")
        edges = np.searchsorted(groups[order], np.arange(count + 1))
        parts = [order[first:stop] for first, stop in pairwise(edges)]
        return [float(function(actual[rows[known[rows]]], point[rows[known[rows]]])) for rows in parts]

    def _rows(self, picked: Any) -> Rows:
        part = self.frame.loc[picked]
        levels = self.quantile_levels
        known = self.train_scale.index.droplevel(-1) if len(self.train_scale) else pd.Index([])
        series = {key: number for number, key in enumerate(dict.fromkeys(known))}
        variables = {name: number for number, name in enumerate(self.y.columns)}
        cell = _renumbered(part["series"], series) * len(variables) + _renumbered(part["variable"], variables)
        return Rows(
            actual=part["y"].to_numpy(dtype=float),
            point=part["point"].to_numpy(dtype=float),
            quantiles=part[levels].to_numpy(dtype=float),
            levels=levels,
            scale=self.train_scale.to_numpy()[cell],
            rms_scale=self.train_rms_scale.to_numpy()[cell],
        )

    def _sums_by_origin(self, model: Any, terms: list[str]) -> tuple[dict[str, NDArray], pd.Index]:
        picked = self.frame["model"] == model
        groups, origins = pd.factorize(self.frame.loc[picked, "origin"], sort=True)
        rows = self._rows(picked)
        sums = {term: group_sums(rows.term(term), groups, len(origins)) for term in dict.fromkeys([*terms, "count"])}
        return sums, pd.Index(origins)

    def _block_length(self, origins: int) -> int:
        return max(self.overlap, round(origins ** (1 / 3)))

    def _names(self, names: Sequence[str] | None, method: str) -> list[str]:
        chosen = (self.metrics or default_metrics(self.quantile_levels)) if names is None else names
        return check_metrics(chosen, self.quantile_levels, f"BacktestResult.{method}")

    def _check_choice(self, method: str, parameter: str, choice: Any, known: list[Any]) -> None:
        if choice not in known:
            raise ParameterError(f"BacktestResult.{method}: {parameter}={choice!r} is not one of {known}.")


def _numbers(values: Any) -> tuple[NDArray, list[Any]]:
    """Give a number to each distinct value: text by first appearance, times and numbers in their order."""
    if isinstance(values, pd.Series) and (values.dtype == object or pd.api.types.is_string_dtype(values)):
        codes, labels = pd.factorize(values.to_numpy(dtype=object))
    else:
        codes, labels = pd.factorize(values, sort=True)
    return codes, list(labels)


def _renumbered(values: pd.Series, numbers: Mapping[Any, int]) -> NDArray:
    """Return the number of each value, given the number of each distinct one."""
    codes, labels = _numbers(values)
    return np.array([numbers[label] for label in labels], dtype=int)[codes]


def _as_tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)
