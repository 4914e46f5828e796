"""Evaluation, splitters, scores, updating and streams: every number equals that of own fits."""

import copy

import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, monthly, tiny_forecaster
from sktime import split  # its TestPlusTrainSplitter by that name alone looks like a test
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.stream import DontUpdate, UpdateEvery, UpdateRefitsEvery
from sktime.performance_metrics import forecasting as metrics
from sktime.performance_metrics.forecasting import probabilistic
from sktime.split import (
    CutoffFhSplitter,
    CutoffSplitter,
    ExpandingCutoffSplitter,
    ExpandingGreedySplitter,
    ExpandingSlidingWindowSplitter,
    ExpandingWindowSplitter,
    ForecastingHorizonSplitter,
    SameLocSplitter,
    SingleWindowSplitter,
    SlidingGreedySplitter,
    SlidingWindowSplitter,
    TemporalTrainTestSplitter,
    temporal_train_test_split,
)
from sktime.split.compose import Repeat, SyncToLongest

STEPS = [1, 2, 4]
FOLDS = ExpandingWindowSplitter(fh=STEPS, initial_window=30, step_length=5)

pytestmark = ignores_remember_data


@pytest.fixture(scope="module")
def y():
    return monthly()["a"]


# evaluate


@pytest.mark.parametrize("strategy", ["refit", "update", "no-update_params"])
def test_evaluate_scores_every_fold_as_own_fits_do(strategy, y):
    table = evaluate(
        tiny_forecaster(), FOLDS, y, strategy=strategy, scoring=metrics.MeanAbsoluteError(), return_data=True,
        error_score="raise",
    )  # fmt: skip

    model = None
    for row, (train, test) in zip(table.itertuples(), FOLDS.split(y), strict=True):
        if model is None or strategy == "refit":
            model = tiny_forecaster().fit(y.iloc[train])
        else:
            model.update(y.iloc[train], update_params=strategy == "update")
        expected = model.predict(fh=STEPS)
        pd.testing.assert_series_equal(row.y_pred, expected)
        assert row.test_MeanAbsoluteError == pytest.approx(np.abs(expected - y.iloc[test]).mean())
        assert row.cutoff == y.index[train[-1]]
        assert row.len_train_window == len(train)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_parallel_evaluation_equals_that_in_turn(backend, y):
    folds = ExpandingWindowSplitter(fh=STEPS, initial_window=40, step_length=4)
    in_turn = evaluate(tiny_forecaster(), folds, y, error_score="raise")

    together = evaluate(tiny_forecaster(), folds, y, backend=backend, backend_params={"n_jobs": 2}, error_score="raise")

    values = [name for name in in_turn if "time" not in name]
    assert len(in_turn) == 2
    pd.testing.assert_frame_equal(together[values], in_turn[values])


# Scores


def scores(module):
    """Return the metrics of a module that compare a forecast with what came, and need nothing else."""
    for name in module.__all__:
        kind = getattr(module, name)
        if isinstance(kind, type) and not name.startswith("_"):
            metric = kind.create_test_instance()
            if not metric.get_tag("requires-y-pred-benchmark", False, raise_error=False):
                yield metric


POINT_SCORES = list(scores(metrics))
QUANTILE_SCORES = list(scores(probabilistic))


@pytest.mark.parametrize("metric", POINT_SCORES, ids=lambda metric: type(metric).__name__)
def test_every_metric_scores_the_point_forecast(metric, y):
    folds = SingleWindowSplitter(fh=[1, 2, 3, 4])

    table = evaluate(tiny_forecaster(), folds, y, scoring=metric, error_score="raise")

    forecast = tiny_forecaster().fit(y[:44]).predict(fh=[1, 2, 3, 4])
    expected = metric.clone()(y[44:], forecast, y_train=y[:44])
    assert np.isfinite(expected)
    assert table[f"test_{metric.name}"].iloc[0] == pytest.approx(expected)


@pytest.mark.parametrize("metric", QUANTILE_SCORES, ids=lambda metric: type(metric).__name__)
def test_every_metric_scores_quantiles_intervals_and_distributions(metric, y):
    folds = SingleWindowSplitter(fh=[1, 2, 3, 4])

    table = evaluate(tiny_forecaster(), folds, y, scoring=metric, error_score="raise")

    model, steps = tiny_forecaster().fit(y[:44]), [1, 2, 3, 4]
    kind = metric.get_tag("scitype:y_pred")
    asked = {name: metric.get_params().get(name) for name in ("alpha", "coverage")}
    asked = {name: value for name, value in asked.items() if value is not None}
    expected = metric.clone()(y[44:], getattr(model, kind.replace("pred", "predict"))(fh=steps, **asked))
    assert np.isfinite(expected)
    assert table[f"test_{metric.name}"].iloc[0] == pytest.approx(expected)


@pytest.mark.parametrize("metric", QUANTILE_SCORES, ids=lambda metric: type(metric).__name__)
def test_every_metric_scores_the_quantiles_of_a_panel_with_a_constant_series(metric):
    series = {"far": monthly(40, seed=1) * 1e6, "near": monthly(48), "still": monthly(48) * 0 + 5}
    panel = pd.concat(series, names=["station", "month"])

    table = evaluate(tiny_forecaster(), SingleWindowSplitter(fh=[1, 2, 4]), panel, scoring=metric, error_score="raise")

    assert np.isfinite(table[f"test_{metric.name}"].iloc[0])


def test_most_metrics_are_tried():
    assert len(POINT_SCORES) >= 25
    assert len(QUANTILE_SCORES) == 8


# Splitters


SPLITTERS = [
    CutoffSplitter(cutoffs=np.array([30, 40]), fh=STEPS, window_length=20),
    CutoffFhSplitter(cutoff=pd.PeriodIndex(["2020-10", "2021-02"], freq="M"), fh=STEPS),
    ExpandingCutoffSplitter(cutoff=pd.Period("2020-10", "M"), fh=STEPS, step_length=6),
    ExpandingGreedySplitter(test_size=4, folds=3),
    ExpandingSlidingWindowSplitter(fh=STEPS, initial_window=20, step_length=8, max_expanding_window_length=30),
    ExpandingWindowSplitter(fh=STEPS, initial_window=30, step_length=7),
    ForecastingHorizonSplitter(fh=STEPS),
    Repeat(ExpandingWindowSplitter(fh=[1], initial_window=30, step_length=7), times=2),  # it states no other horizon
    SameLocSplitter(ExpandingWindowSplitter(fh=STEPS, initial_window=30, step_length=7)),
    SingleWindowSplitter(fh=STEPS, window_length=25),
    SlidingGreedySplitter(train_size=20, test_size=4, folds=3),
    SlidingWindowSplitter(fh=STEPS, window_length=24, step_length=9),
    SyncToLongest(SlidingWindowSplitter(fh=STEPS, window_length=24, step_length=9)),
]


@pytest.mark.parametrize("splitter", SPLITTERS, ids=lambda splitter: type(splitter).__name__)
def test_evaluate_follows_the_splitter(splitter, y):
    table = evaluate(tiny_forecaster(), splitter, y, return_data=True, error_score="raise")

    folds = list(splitter.split(y))
    assert len(table) == len(folds) >= 1
    for row, (train, test) in zip(table.itertuples(), folds, strict=True):
        forecast = tiny_forecaster().fit(y.iloc[train]).predict(fh=test - train[-1])
        pd.testing.assert_series_equal(row.y_pred, forecast)
        pd.testing.assert_series_equal(row.y_test, y.iloc[test])


# sktime's `evaluate` cannot use these two: they state another horizon than that of their test parts.


def test_a_test_part_that_holds_the_training_part_is_forecast_in_the_sample_too(y):
    splitter = split.TestPlusTrainSplitter(SingleWindowSplitter(fh=STEPS, window_length=25))
    ((train, test),) = splitter.split(y)
    model = tiny_forecaster().fit(y.iloc[train])

    forecast = model.predict(fh=y.index[test])

    assert len(forecast) == 28
    pd.testing.assert_series_equal(forecast, model.predict(fh=[*range(-24, 1), *STEPS]))


def test_a_share_of_the_rows_is_kept_for_the_test(y):
    ((train, test),) = TemporalTrainTestSplitter(test_size=0.125).split(y)

    forecast = tiny_forecaster().fit(y.iloc[train]).predict(fh=y.index[test])

    pd.testing.assert_series_equal(forecast, tiny_forecaster().fit(y[:42]).predict(fh=range(1, 7)))


def test_the_usual_split_in_two(y):
    known, later = temporal_train_test_split(y, test_size=6)

    forecast = tiny_forecaster().fit(known).predict(fh=later.index)

    assert forecast.index.equals(later.index)
    pd.testing.assert_series_equal(forecast, tiny_forecaster().fit(y[:42]).predict(fh=range(1, 7)))


# Updating


@pytest.mark.parametrize("update_params", [False, True])
def test_update_predict_is_a_loop_of_update_and_predict(update_params, y):
    model = tiny_forecaster().fit(y[:30])
    folds = ExpandingWindowSplitter(fh=[1], initial_window=2, step_length=3)

    forecast = model.update_predict(y[30:], cv=folds, update_params=update_params)

    loop = copy.deepcopy(model)
    expected = [
        loop.update(y[30:].iloc[rows], update_params=update_params).predict(fh=[1]) for rows, _ in folds.split(y[30:])
    ]
    pd.testing.assert_series_equal(forecast, pd.concat(expected), check_freq=False)
    assert model.cutoff[0] == y.index[29]  # the forecaster itself has not moved


def test_update_predict_over_several_steps_has_a_column_per_cutoff(y):
    model = tiny_forecaster().fit(y[:30])
    folds = SlidingWindowSplitter(fh=[1, 2], window_length=4, step_length=6)

    table = model.update_predict(y[30:], cv=folds, update_params=False)

    loop = copy.deepcopy(model)
    for j, (rows, _) in enumerate(folds.split(y[30:])):
        expected = loop.update(y[30:].iloc[rows], update_params=False).predict(fh=[1, 2])
        np.testing.assert_allclose(table.iloc[:, j].dropna(), expected)


def test_without_reset_the_forecaster_moves_along(y):
    model = tiny_forecaster().fit(y[:30])

    model.update_predict(y[30:], reset_forecaster=False, update_params=False)

    assert model.cutoff[0] > y.index[40]


# Streams


def parts(y):
    return y[30:34], y[34:38], y[38:44]


def test_refits_every_so_many_steps(y):
    stream = UpdateRefitsEvery(tiny_forecaster(), refit_interval=8).fit(y[:30])

    stream.update(y[30:34])
    updated = tiny_forecaster().fit(y[:30]).update(y[30:34], update_params=True)
    pd.testing.assert_series_equal(stream.predict(fh=STEPS), updated.predict(fh=STEPS))

    stream.update(y[34:38])  # eight steps since the fit
    pd.testing.assert_series_equal(stream.predict(fh=STEPS), tiny_forecaster().fit(y[:38]).predict(fh=STEPS))


def test_refits_on_a_window(y):
    stream = UpdateRefitsEvery(tiny_forecaster(), refit_interval=4, refit_window_size=20).fit(y[:30])

    forecast = stream.update(y[30:34]).predict(fh=STEPS)

    pd.testing.assert_series_equal(forecast, tiny_forecaster().fit(y[14:34]).predict(fh=STEPS), check_names=False)


def test_learns_only_every_so_many_steps(y):
    stream = UpdateEvery(tiny_forecaster(), update_interval=8).fit(y[:30])
    model = tiny_forecaster().fit(y[:30])

    for new, learns in zip(parts(y), (False, True, False), strict=True):
        stream.update(new)
        model.update(new, update_params=learns)
        pd.testing.assert_series_equal(stream.predict(fh=STEPS), model.predict(fh=STEPS))


def test_never_learns_but_moves_on(y):
    stream = DontUpdate(tiny_forecaster()).fit(y[:30])

    forecast = stream.update(y[30:34], update_params=True).predict(fh=STEPS)

    expected = tiny_forecaster().fit(y[:30]).update(y[30:34], update_params=False).predict(fh=STEPS)
    pd.testing.assert_series_equal(forecast, expected)
