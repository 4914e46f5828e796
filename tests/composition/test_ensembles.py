"""Several forecasters as one: the whole equals what its members say."""

import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, monthly, tiny_forecaster
from sktime.forecasting.compose import (
    ColumnEnsembleForecaster,
    EnsembleForecaster,
    ForecastByLevel,
    MultiplexForecaster,
    StackingForecaster,
)
from sktime.forecasting.compose._bagging import BaggingForecaster
from sktime.forecasting.naive import NaiveForecaster
from sktime.transformations.bootstrap import MovingBlockBootstrapTransformer

STEPS = [1, 3, 4]

pytestmark = ignores_remember_data


@pytest.fixture(scope="module")
def y():
    return monthly()["a"]


@pytest.mark.parametrize(("aggregate", "weights"), [("mean", None), ("mean", [1, 3, 2]), ("median", None)])
def test_an_ensemble_is_the_aggregate_of_its_members(aggregate, weights, y):
    members = [tiny_forecaster(random_state=0), tiny_forecaster(random_state=1), NaiveForecaster()]
    ensemble = EnsembleForecaster(
        [(str(j), member) for j, member in enumerate(members)], aggfunc=aggregate, weights=weights
    )

    forecast = ensemble.fit(y, fh=STEPS).predict()

    alone = np.column_stack([member.clone().fit(y, fh=STEPS).predict() for member in members])
    expected = np.median(alone, axis=1) if aggregate == "median" else np.average(alone, axis=1, weights=weights)
    np.testing.assert_allclose(forecast, expected, rtol=1e-12)
    assert np.ptp(alone, axis=1).min() > 0


def test_an_ensemble_updates_its_members(y):
    members = [tiny_forecaster(random_state=seed) for seed in (0, 1)]
    ensemble = EnsembleForecaster([(str(j), member) for j, member in enumerate(members)]).fit(y[:40])

    forecast = ensemble.update(y[40:], update_params=True).predict(fh=STEPS)

    alone = [member.clone().fit(y[:40]).update(y[40:], update_params=True).predict(fh=STEPS) for member in members]
    pd.testing.assert_series_equal(forecast, sum(alone) / 2, check_names=False)


def test_stacking_regresses_on_the_members(y):
    from sklearn.linear_model import LinearRegression

    members = [tiny_forecaster(random_state=seed) for seed in (0, 1)]
    steps = range(1, 7)  # the regression is fitted on the forecasts of the last six rows
    stack = StackingForecaster([(str(j), member) for j, member in enumerate(members)], LinearRegression())

    forecast = stack.fit(y, fh=steps).predict()

    before = np.column_stack([member.clone().fit(y[:-6]).predict(fh=steps) for member in members])
    after = np.column_stack([member.clone().fit(y).predict(fh=steps) for member in members])
    np.testing.assert_allclose(forecast, LinearRegression().fit(before, y[-6:]).predict(after), rtol=1e-8)


@pytest.mark.parametrize("selected", ["network", "naive"])
def test_a_multiplexer_is_the_one_that_is_selected(selected, y):
    choices = {"network": tiny_forecaster(), "naive": NaiveForecaster()}
    multiplexer = MultiplexForecaster(list(choices.items()), selected_forecaster=selected)

    forecast = multiplexer.fit(y).predict(fh=STEPS)

    pd.testing.assert_series_equal(forecast, choices[selected].clone().fit(y).predict(fh=STEPS))


def test_a_column_ensemble_forecasts_columns_apart():
    y = monthly(columns=3)
    ensemble = ColumnEnsembleForecaster(
        [("two", tiny_forecaster(backbone="stacked"), ["c", "a"]), ("last", NaiveForecaster(), ["b"])]
    )

    forecast = ensemble.fit(y).predict(fh=STEPS)

    together = tiny_forecaster(backbone="stacked").fit(y[["c", "a"]]).predict(fh=STEPS)
    pd.testing.assert_frame_equal(forecast[["c", "a"]], together)
    assert (forecast["b"] == y["b"].iloc[-1]).all()


def test_a_column_ensemble_passes_quantiles_on():
    y = monthly(columns=2)
    members = {"a": tiny_forecaster(), "b": tiny_forecaster(loss="mse")}
    ensemble = ColumnEnsembleForecaster([(name, member, name) for name, member in members.items()])

    bands = ensemble.fit(y).predict_quantiles(fh=STEPS, alpha=[0.1, 0.6])

    for name, member in members.items():
        alone = member.clone().fit(y[[name]]).predict_quantiles(fh=STEPS, alpha=[0.1, 0.6])
        pd.testing.assert_frame_equal(bands[[name]], alone)


def test_bagging_is_the_mean_over_resampled_series(y):
    resample = MovingBlockBootstrapTransformer(n_series=3, block_length=12, random_state=0)
    bag = BaggingForecaster(resample, tiny_forecaster(), random_state=0)

    forecast = bag.fit(y, fh=STEPS).predict()
    bands = bag.predict_quantiles(fh=STEPS, alpha=[0.25, 0.5])

    series = resample.clone().fit_transform(y)
    samples = tiny_forecaster().fit(series).predict(fh=STEPS)["a"].unstack(0)
    np.testing.assert_allclose(forecast, samples.mean(axis=1), rtol=1e-12)
    expected = np.quantile(samples, [0.25, 0.5], axis=1, method="inverted_cdf").T
    np.testing.assert_allclose(bands, expected, rtol=1e-12)
    assert samples.shape == (3, 4)  # the series itself, too


def test_forecasts_by_level_are_those_of_each_series():
    wide = monthly(columns=3)
    panel = wide.melt(var_name="station", value_name="load", ignore_index=False).set_index("station", append=True)
    panel = panel.swaplevel().sort_index()
    panel.index.names = ["station", "month"]

    forecast = ForecastByLevel(tiny_forecaster(), groupby="local").fit(panel, fh=STEPS).predict()

    for station in wide:
        alone = tiny_forecaster().fit(wide[[station]]).predict(fh=STEPS)
        np.testing.assert_allclose(forecast.loc[station], alone, rtol=1e-12)
