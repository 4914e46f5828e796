"""Searches over parameters choose what their scores say, and the scores are those of own fits."""

import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, monthly, tiny_forecaster
from sktime.forecasting.compose import MultiplexForecaster, TransformedTargetForecaster
from sktime.forecasting.model_selection import (
    ForecastingGridSearchCV,
    ForecastingOptunaSearchCV,
    ForecastingRandomizedSearchCV,
)
from sktime.forecasting.naive import NaiveForecaster
from sktime.performance_metrics.forecasting import MeanAbsoluteError
from sktime.split import ExpandingWindowSplitter
from sktime.transformations.boxcox import LogTransformer

FOLDS = ExpandingWindowSplitter(fh=[1, 2, 3], initial_window=36, step_length=4)
CHOICES = {"context_length": [4, 12], "loss": ["quantile", "mse"]}

pytestmark = [
    ignores_remember_data,
    pytest.mark.filterwarnings("ignore:ForecastingOptunaSearchCV is experimental:UserWarning"),  # sktime's own notice
]


@pytest.fixture(scope="module")
def y():
    return monthly()["a"]


def mean_error(y, **changes):
    """Return the mean absolute error over the folds, from fits of its own."""
    errors = []
    for train, test in FOLDS.split(y):
        forecast = tiny_forecaster(**changes).fit(y.iloc[train]).predict(fh=[1, 2, 3])
        errors.append(np.abs(forecast - y.iloc[test]).mean())
    return np.mean(errors)


def test_a_grid_search_scores_and_chooses_as_own_fits_do(y):
    search = ForecastingGridSearchCV(
        tiny_forecaster(), cv=FOLDS, param_grid=CHOICES, scoring=MeanAbsoluteError(), backend=None, error_score="raise"
    )

    search.fit(y)

    table = search.cv_results_
    assert len(table) == 4
    for row in table.itertuples():
        assert row.mean_test_MeanAbsoluteError == pytest.approx(mean_error(y, **row.params), rel=1e-10)
    best = table.loc[table["mean_test_MeanAbsoluteError"].idxmin(), "params"]
    assert search.best_params_ == best
    expected = tiny_forecaster(**best).fit(y)
    pd.testing.assert_series_equal(search.predict(fh=[1, 5]), expected.predict(fh=[1, 5]))
    pd.testing.assert_frame_equal(
        search.predict_interval(fh=[1, 5], coverage=0.8), expected.predict_interval(fh=[1, 5], coverage=0.8)
    )


@pytest.mark.parametrize("strategy", ["update", "no-update_params"])
def test_a_grid_search_can_go_on_with_what_it_has(strategy, y):
    search = ForecastingGridSearchCV(
        tiny_forecaster(),
        cv=FOLDS,
        param_grid={"context_length": [4, 12]},
        scoring=MeanAbsoluteError(),
        strategy=strategy,
        backend=None,
        error_score="raise",
    ).fit(y)

    for row in search.cv_results_.itertuples():
        model, errors = None, []
        for train, test in FOLDS.split(y):
            known = y.iloc[train]
            if model is None:
                model = tiny_forecaster(**row.params).fit(known)
            else:
                model.update(known, update_params=strategy == "update")
            errors.append(np.abs(model.predict(fh=[1, 2, 3]) - y.iloc[test]).mean())
        assert row.mean_test_MeanAbsoluteError == pytest.approx(np.mean(errors), rel=1e-10)


def test_a_random_search_tries_some_of_the_grid(y):
    search = ForecastingRandomizedSearchCV(
        tiny_forecaster(),
        cv=FOLDS,
        param_distributions=CHOICES,
        n_iter=2,
        scoring=MeanAbsoluteError(),
        random_state=0,
        backend=None,
        error_score="raise",
    ).fit(y)

    tried = {
        str(params): score for params, score in search.cv_results_[["params", "mean_test_MeanAbsoluteError"]].values
    }
    assert len(tried) == 2
    assert search.best_score_ == pytest.approx(mean_error(y, **search.best_params_), rel=1e-10)
    assert search.best_score_ == min(tried.values())


def test_optuna_scores_and_chooses_as_own_fits_do(y):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = ForecastingOptunaSearchCV(
        tiny_forecaster(),
        cv=FOLDS,
        param_grid={
            "context_length": optuna.distributions.IntDistribution(4, 16, step=4),
            "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
        },
        scoring=MeanAbsoluteError(),
        n_evals=4,
        sampler=optuna.samplers.RandomSampler(seed=0),
        error_score="raise",
    ).fit(y)

    assert search.best_score_ == pytest.approx(mean_error(y, **search.best_params_), rel=1e-10)
    assert 4 <= search.best_params_["context_length"] <= 16
    expected = tiny_forecaster(**search.best_params_).fit(y)
    pd.testing.assert_series_equal(search.predict(fh=[2, 6]), expected.predict(fh=[2, 6]))


def test_parameters_inside_a_pipeline_are_tuned_by_their_names(y):
    pipeline = TransformedTargetForecaster([("log", LogTransformer()), ("net", tiny_forecaster())])
    search = ForecastingGridSearchCV(
        pipeline, cv=FOLDS, param_grid={"net__context_length": [4, 12]}, backend=None, error_score="raise"
    ).fit(y)

    best = search.best_params_["net__context_length"]
    expected = tiny_forecaster(context_length=best).fit(np.log(y)).predict(fh=[1, 4])
    pd.testing.assert_series_equal(search.predict(fh=[1, 4]), np.exp(expected))


def test_a_search_over_a_multiplexer_chooses_between_models():
    rng = np.random.default_rng(0)
    y = pd.Series(np.tile([0.0, 10.0], 30) + 0.01 * rng.normal(size=60))  # no value repeats itself
    network = tiny_forecaster(validation_fraction=0.3, calibrate=False)
    choices = MultiplexForecaster([("naive", NaiveForecaster()), ("network", network)])

    search = ForecastingGridSearchCV(
        choices,
        cv=FOLDS,
        param_grid={"selected_forecaster": ["naive", "network"]},
        scoring=MeanAbsoluteError(),
        backend=None,
        error_score="raise",
    ).fit(y)

    assert search.best_params_ == {"selected_forecaster": "network"}
    pd.testing.assert_series_equal(search.predict(fh=[1, 2]), network.clone().fit(y).predict(fh=[1, 2]))


def test_a_search_that_fails_says_why(y):
    search = ForecastingGridSearchCV(
        tiny_forecaster(), cv=FOLDS, param_grid={"hidden_size": [7]}, backend=None, error_score="raise"
    )
    search.set_params(forecaster__num_heads=2)

    with pytest.raises(ValueError, match="num_heads"):
        search.fit(y)
