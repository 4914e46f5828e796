"""Covariates through sktime's composites: the same as handing them over by hand."""

import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, monthly, tiny_forecaster
from sklearn.preprocessing import StandardScaler
from sktime.forecasting.compose import EnsembleForecaster, ForecastingPipeline, ForecastX
from sktime.forecasting.conformal import ConformalIntervals
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.model_selection import ForecastingGridSearchCV
from sktime.forecasting.stream import UpdateRefitsEvery
from sktime.performance_metrics.forecasting import MeanAbsoluteError
from sktime.split import ExpandingWindowSplitter
from sktime.transformations.adapt import TabularToSeriesAdaptor
from sktime.transformations.boxcox import LogTransformer

from xlstm_ts.data.causal import OutlierLimiter

STEPS = [1, 2, 5]

pytestmark = ignores_remember_data


@pytest.fixture(scope="module")
def X():
    return monthly(columns=3)[["b", "c"]]


@pytest.fixture(scope="module")
def y(X):
    return monthly()["a"] + 0.8 * (X["b"] - 20)


def test_covariates_go_through_a_pipeline_to_the_forecaster(y, X):
    pipeline = ForecastingPipeline([("scale", TabularToSeriesAdaptor(StandardScaler())), ("net", tiny_forecaster())])

    forecast = pipeline.fit(y[:40], X=X[:40]).predict(fh=STEPS, X=X[40:45])

    scaler = StandardScaler().set_output(transform="pandas").fit(X[:40])
    by_hand = tiny_forecaster().fit(y[:40], X=scaler.transform(X[:40]))
    expected = by_hand.predict(fh=STEPS, X=scaler.transform(X[40:45]))
    pd.testing.assert_series_equal(forecast, expected)
    assert (forecast - tiny_forecaster().fit(y[:40]).predict(fh=STEPS)).abs().min() > 1e-6  # they are read


def test_covariates_are_cleaned_from_where_the_past_ended(y, X):
    spiked = X.copy()
    spiked.iloc[41, 0] = 500.0
    pipeline = OutlierLimiter(window_length=25) ** tiny_forecaster()

    forecast = pipeline.fit(y[:40], X=spiked[:40]).predict(fh=STEPS, X=spiked[40:45])

    cleaned = OutlierLimiter(window_length=25).fit_transform(spiked)
    assert cleaned.iloc[41, 0] < 100
    expected = tiny_forecaster().fit(y[:40], X=cleaned[:40]).predict(fh=STEPS, X=cleaned[40:45])
    pd.testing.assert_series_equal(forecast, expected)


def test_target_and_covariates_are_transformed_together(y, X):
    pipeline = LogTransformer() ** (LogTransformer() * tiny_forecaster())

    forecast = pipeline.fit(y[:40], X=X[:40]).predict(fh=STEPS, X=X[40:45])

    by_hand = tiny_forecaster().fit(np.log(y[:40]), X=np.log(X[:40]))
    pd.testing.assert_series_equal(forecast, np.exp(by_hand.predict(fh=STEPS, X=np.log(X[40:45]))))


def test_covariates_may_be_forecast_first(y, X):
    both = ForecastX(tiny_forecaster(), tiny_forecaster(backbone="stacked"))

    forecast = both.fit(y[:40], X=X[:40], fh=[1, 2, 3]).predict(fh=[1, 2, 3])

    future = tiny_forecaster(backbone="stacked").fit(X[:40]).predict(fh=[1, 2, 3])
    expected = tiny_forecaster().fit(y[:40], X=X[:40]).predict(fh=[1, 2, 3], X=future)
    pd.testing.assert_series_equal(forecast, expected)


def test_members_of_an_ensemble_get_the_covariates(y, X):
    members = [tiny_forecaster(random_state=seed) for seed in (0, 1)]
    ensemble = EnsembleForecaster([(str(j), member) for j, member in enumerate(members)])

    forecast = ensemble.fit(y[:40], X=X[:40]).predict(fh=STEPS, X=X[40:45])

    alone = [member.clone().fit(y[:40], X=X[:40]).predict(fh=STEPS, X=X[40:45]) for member in members]
    pd.testing.assert_series_equal(forecast, sum(alone) / 2, check_names=False)


def test_folds_get_their_covariates(y, X):
    folds = ExpandingWindowSplitter(fh=[1, 2, 3], initial_window=36, step_length=4)

    table = evaluate(tiny_forecaster(), folds, y, X, return_data=True, error_score="raise")

    for row, (train, test) in zip(table.itertuples(), folds.split(y), strict=True):
        model = tiny_forecaster().fit(y.iloc[train], X=X.iloc[train])
        pd.testing.assert_series_equal(row.y_pred, model.predict(fh=[1, 2, 3], X=X.iloc[test]))


def test_a_search_chooses_what_covariates_to_believe(y, X):
    folds = ExpandingWindowSplitter(fh=[1, 2, 3], initial_window=36, step_length=4)
    choices = {"past_covariates": [None, ["b"]], "context_length": [4, 8]}
    search = ForecastingGridSearchCV(
        tiny_forecaster(), folds, choices, scoring=MeanAbsoluteError(), backend=None, error_score="raise"
    ).fit(y[:45], X=X[:45])

    for row in search.cv_results_.itertuples():
        errors = []
        for train, test in folds.split(y[:45]):
            model = tiny_forecaster(**row.params).fit(y.iloc[train], X=X.iloc[train])
            errors.append(np.abs(model.predict(fh=[1, 2, 3], X=X.iloc[test]) - y.iloc[test]).mean())
        assert row.mean_test_MeanAbsoluteError == pytest.approx(np.mean(errors), rel=1e-9)
    expected = tiny_forecaster(**search.best_params_).fit(y[:45], X=X[:45]).predict(fh=[1, 2], X=X[45:])
    pd.testing.assert_series_equal(search.predict(fh=[1, 2], X=X[45:]), expected)


def test_updates_bring_their_covariates(y, X):
    stream = UpdateRefitsEvery(tiny_forecaster(), refit_interval=6).fit(y[:30], X=X[:30])

    stream.update(y[30:33], X=X[30:33])
    updated = tiny_forecaster().fit(y[:30], X=X[:30]).update(y[30:33], X=X[30:33])
    future = {"fh": [1, 2], "X": X[33:35]}
    pd.testing.assert_series_equal(stream.predict(**future), updated.predict(**future))

    stream.update(y[33:36], X=X[33:36])
    again = tiny_forecaster().fit(y[:36], X=X[:36])
    future = {"fh": [1, 2], "X": X[36:38]}
    pd.testing.assert_series_equal(stream.predict(**future), again.predict(**future), check_names=False)


def test_update_predict_reads_the_covariates_of_each_step(y, X):
    model = tiny_forecaster().fit(y[:30], X=X[:30])
    folds = ExpandingWindowSplitter(fh=[1], initial_window=2, step_length=5)

    forecast = model.update_predict(y[30:], cv=folds, X=X[30:], update_params=False)

    for rows, (next_row,) in folds.split(y[30:]):
        loop = tiny_forecaster().fit(y[:30], X=X[:30])
        loop.update(y[30:].iloc[rows], X=X[30:].iloc[rows], update_params=False)
        expected = loop.predict(fh=[1], X=X[30:].iloc[[next_row]])
        assert forecast.loc[expected.index[0]] == pytest.approx(expected.iloc[0], rel=1e-6)


def test_conformal_intervals_pass_the_covariates_on(y, X):
    model = ConformalIntervals(tiny_forecaster(), initial_window=36).fit(y[:40], X=X[:40], fh=[1, 2])

    forecast = model.predict(X=X[40:42])

    pd.testing.assert_series_equal(forecast, tiny_forecaster().fit(y[:40], X=X[:40]).predict(fh=[1, 2], X=X[40:42]))
