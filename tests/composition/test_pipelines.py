"""Pipelines, and what every estimator goes through: copies, files, configuration. Each compared with work by hand."""

import copy
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, monthly, tiny_forecaster
from sklearn.base import clone
from sktime.forecasting.compose import (
    FhPlexForecaster,
    ForecastX,
    TransformedTargetForecaster,
)
from sktime.transformations.boxcox import LogTransformer
from sktime.transformations.difference import Differencer

STEPS = [1, 2, 5]

pytestmark = ignores_remember_data


@pytest.fixture(scope="module")
def y():
    return monthly()["a"]


def test_a_transformed_target_is_the_forecast_of_the_transformed_series_transformed_back(y):
    pipeline = TransformedTargetForecaster([("log", LogTransformer()), ("forecaster", tiny_forecaster())])

    pipeline.fit(y[:40])
    by_hand = tiny_forecaster().fit(np.log(y[:40]))

    pd.testing.assert_series_equal(pipeline.predict(fh=STEPS), np.exp(by_hand.predict(fh=STEPS)))
    # Quantiles survive a map that increases.
    levels = [0.1, 0.5, 0.8]
    pd.testing.assert_frame_equal(
        pipeline.predict_quantiles(fh=STEPS, alpha=levels), np.exp(by_hand.predict_quantiles(fh=STEPS, alpha=levels))
    )
    pd.testing.assert_frame_equal(
        pipeline.predict_interval(fh=STEPS, coverage=0.8), np.exp(by_hand.predict_interval(fh=STEPS, coverage=0.8))
    )


def test_a_transformed_target_has_a_transformed_distribution(y):
    model = (LogTransformer() * tiny_forecaster()).fit(y)
    bands = model.predict_quantiles(fh=STEPS, alpha=[0.1, 0.77])

    distribution = model.predict_proba(fh=STEPS)

    logarithm = tiny_forecaster().fit(np.log(y)).predict_proba(fh=STEPS)
    for level in (0.1, 0.77):
        values = bands.xs(level, axis=1, level=1)
        np.testing.assert_allclose(distribution.ppf(level), values)
        np.testing.assert_allclose(distribution.cdf(values), level)
        np.testing.assert_allclose(np.exp(logarithm.ppf(level)), values)


def test_a_differenced_target_is_summed_up_again(y):
    pipeline = Differencer(na_handling="drop_na") * tiny_forecaster()

    forecast = pipeline.fit(y[:40]).predict(fh=[1, 2, 3, 4, 5])
    steps = tiny_forecaster().fit(y[:40].diff().dropna()).predict(fh=[1, 2, 3, 4, 5])

    np.testing.assert_allclose(forecast, y.iloc[39] + steps.cumsum(), rtol=1e-12)


def test_an_update_goes_through_the_transformers_to_the_forecaster(y):
    pipeline = LogTransformer() * tiny_forecaster()
    by_hand = tiny_forecaster().fit(np.log(y[:36]))
    pipeline.fit(y[:36])

    for update_params, new in ((False, y[36:40]), (True, y[40:44])):
        pipeline.update(new, update_params=update_params)
        by_hand.update(np.log(new), update_params=update_params)

        pd.testing.assert_series_equal(pipeline.predict(fh=STEPS), np.exp(by_hand.predict(fh=STEPS)))


def test_a_pipeline_takes_all_columns_of_a_series():
    y = monthly(columns=2)
    pipeline = (LogTransformer() * tiny_forecaster(backbone="stacked")).fit(y)
    by_hand = tiny_forecaster(backbone="stacked").fit(np.log(y))

    pd.testing.assert_frame_equal(pipeline.predict(fh=STEPS), np.exp(by_hand.predict(fh=STEPS)))


def test_one_forecaster_per_step_equals_each_by_itself(y):
    each = FhPlexForecaster(tiny_forecaster(), fh_params={1: {"horizon": 1}, 4: {"horizon": 4}})

    forecast = each.fit(y, fh=[1, 4]).predict()

    for row, horizon in enumerate((1, 4)):
        alone = tiny_forecaster(horizon=horizon).fit(y).predict(fh=[horizon])
        assert forecast.iloc[row] == pytest.approx(alone.iloc[0], rel=1e-12)
        assert forecast.index[row] == alone.index[0]


# Covariates that are themselves forecast


def test_forecast_x_by_this_forecaster_feeds_another_one(y):
    from sklearn.linear_model import LinearRegression
    from sktime.forecasting.compose import YfromX

    X = monthly(columns=3)[["b", "c"]]
    both = ForecastX(YfromX(LinearRegression()), tiny_forecaster(backbone="stacked"))

    forecast = both.fit(y[:40], X=X[:40], fh=[1, 2, 3]).predict(fh=[1, 2, 3])

    future = tiny_forecaster(backbone="stacked").fit(X[:40]).predict(fh=[1, 2, 3])
    line = LinearRegression().fit(X[:40], y[:40])
    np.testing.assert_allclose(forecast, line.predict(future), rtol=1e-10)
    assert forecast.index.equals(y.index[40:43])


# What every estimator goes through


@pytest.fixture(scope="module")
def fitted(y):
    return tiny_forecaster(layout="m").fit(y[:40])


def test_a_clone_has_the_parameters_and_no_fit(fitted, y):
    for copied in (clone(fitted), fitted.clone()):
        assert copied.get_params() == fitted.get_params()
        assert not copied.is_fitted
        pd.testing.assert_series_equal(copied.fit(y[:40]).predict(fh=STEPS), fitted.predict(fh=STEPS))


def test_pickle_joblib_and_deep_copies_keep_forecast_and_future(fitted, y):
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    copies = [pickle.loads(pickle.dumps(fitted)), joblib.load(file), copy.deepcopy(fitted)]
    expected = fitted.predict_quantiles(fh=STEPS, alpha=[0.2, 0.7])
    updated = copy.deepcopy(fitted).update(y[40:], update_params=True).predict(fh=STEPS)

    for copied in copies:
        pd.testing.assert_frame_equal(copied.predict_quantiles(fh=STEPS, alpha=[0.2, 0.7]), expected)
        pd.testing.assert_series_equal(copied.update(y[40:], update_params=True).predict(fh=STEPS), updated)


def test_threads_of_joblib_forecast_as_one_does(fitted):
    requests = [[1], [2, 3], [7], [-3, 4]] * 3

    together = joblib.Parallel(n_jobs=3, prefer="threads")(
        joblib.delayed(lambda steps: fitted.predict(fh=steps))(steps) for steps in requests
    )

    for steps, got in zip(requests, together, strict=True):
        pd.testing.assert_series_equal(got, fitted.predict(fh=steps))


def test_parameters_are_set_through_a_pipeline_by_name(y):
    pipeline = TransformedTargetForecaster([("log", LogTransformer()), ("net", tiny_forecaster())])

    pipeline.set_params(net__context_length=16, net__loss="mse").fit(y)

    expected = tiny_forecaster(context_length=16, loss="mse").fit(np.log(y))
    pd.testing.assert_series_equal(pipeline.predict(fh=STEPS), np.exp(expected.predict(fh=STEPS)))


@pytest.mark.parametrize(
    "config",
    [{"display": "text"}, {"print_changed_only": False}, {"warnings": "off"}, {"remember_data": True}],
    ids=str,
)
def test_configuration_does_not_change_the_forecast(config, y, fitted):
    model = tiny_forecaster(layout="m").set_config(**config)

    assert model.get_config()[next(iter(config))] == next(iter(config.values()))
    pd.testing.assert_series_equal(model.fit(y[:40]).predict(fh=STEPS), fitted.predict(fh=STEPS))
    assert model.clone().get_config()[next(iter(config))] == next(iter(config.values()))


def test_the_print_out_names_what_differs_from_the_defaults():
    assert "horizon=3" in repr(tiny_forecaster())
    assert "gradient_clip" not in repr(tiny_forecaster())
