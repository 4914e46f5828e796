"""Reconciled forecasts add up, and each method gives what its formula says."""

import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, monthly, tiny_forecaster
from sktime.forecasting.base import ForecastingHorizon
from sktime.forecasting.compose import ForecastByLevel
from sktime.forecasting.reconcile import ReconcilerForecaster
from sktime.transformations.hierarchical.aggregate import Aggregator

STEPS = [1, 2, 5]
LEAVES = [("north", "a"), ("north", "b"), ("south", "c"), ("south", "d")]

pytestmark = [
    ignores_remember_data,
    # sktime's reconcilers sum up once more what they have summed up themselves, and say so.
    pytest.mark.filterwarnings("ignore:Found elements in the index of X named '__total':UserWarning"),
]


def hierarchy():
    wide = monthly(columns=4)
    parts = {key: wide[[key[1]]].set_axis(["load"], axis=1) for key in LEAVES}
    return pd.concat(parts, names=["region", "station", "month"])


def local():
    """Return a network per series, whatever the forecaster itself makes of a panel."""
    return ForecastByLevel(tiny_forecaster(), groupby="local")


@pytest.fixture(scope="module")
def whole():
    return Aggregator().fit_transform(hierarchy())


@pytest.fixture(scope="module")
def base(whole):
    """Forecast every node of the hierarchy by itself."""
    return pd.concat(
        {key: tiny_forecaster().fit(whole.loc[key]).predict(fh=STEPS) for key in whole.index.droplevel(-1).unique()},
        names=whole.index.names,
    )


def assert_coherent(forecast):
    leaves = forecast.loc[[index for index in forecast.index if index[1] != "__total"]]
    sums = Aggregator().fit_transform(leaves)
    np.testing.assert_allclose(forecast.reindex(sums.index), sums, rtol=1e-8)


def summing_matrix(nodes):
    rows = [
        [region in (key[0], "__total") and station in (key[1], "__total") for key in LEAVES]
        for region, station in nodes
    ]
    return np.array(rows, dtype=float)


def as_matrix(forecast):
    """Return nodes by steps."""
    return forecast["load"].unstack(-1).to_numpy()


METHODS = [name for name in ReconcilerForecaster.METHOD_LIST if ":nonneg" not in name]


@pytest.mark.parametrize("method", METHODS)
def test_reconciled_forecasts_add_up(method):
    model = ReconcilerForecaster(local(), method=method).fit(hierarchy())

    forecast = model.predict(fh=STEPS)

    assert len(forecast) == 7 * len(STEPS)
    assert_coherent(forecast)
    pd.testing.assert_frame_equal(
        ReconcilerForecaster(local(), method=method, return_totals=False).fit(hierarchy()).predict(fh=STEPS),
        forecast.loc[[index for index in forecast.index if index[1] != "__total"]],
    )


@pytest.mark.parametrize("method", ["ols:nonneg", "wls_str:nonneg"])
def test_reconciled_forecasts_without_negative_values_add_up(method):
    pytest.importorskip("cvxpy")
    assert_coherent(ReconcilerForecaster(local(), method=method).fit(hierarchy()).predict(fh=STEPS))


def test_bottom_up_sums_the_forecasts_of_the_leaves(base):
    forecast = ReconcilerForecaster(local(), method="bu").fit(hierarchy()).predict(fh=STEPS)

    leaves = base.loc[[index for index in base.index if index[:2] in LEAVES]]
    np.testing.assert_allclose(forecast.reindex(leaves.index), leaves, rtol=1e-12)
    total = forecast.loc[("__total", "__total"), "load"].to_numpy()
    np.testing.assert_allclose(total, leaves["load"].groupby(level=-1).sum(), rtol=1e-12)


def test_top_down_splits_the_forecast_of_the_total(base):
    forecast = ReconcilerForecaster(local(), method="td_fcst").fit(hierarchy()).predict(fh=STEPS)

    top = base.loc[("__total", "__total"), "load"].to_numpy()
    np.testing.assert_allclose(forecast.loc[("__total", "__total"), "load"], top, rtol=1e-12)
    assert_coherent(forecast)


@pytest.mark.parametrize("method", ["ols", "wls_str", "wls_var"])
def test_least_squares_projects_on_what_adds_up(method, base, whole):
    model = ReconcilerForecaster(local(), method=method).fit(hierarchy())

    nodes = base.index.droplevel(-1).unique()
    matrix = summing_matrix(nodes)
    if method == "wls_var":  # the variances of the residuals in the sample
        residuals = whole - in_sample(whole)
        weights = 1 / residuals["load"].unstack(-1).reindex(nodes).var(axis=1).to_numpy()
    else:
        weights = 1 / matrix.sum(axis=1) if method == "wls_str" else np.ones(len(nodes))
    root = np.sqrt(weights)[:, None]
    leaves = np.linalg.lstsq(root * matrix, root * as_matrix(base), rcond=None)[0]

    np.testing.assert_allclose(as_matrix(model.predict(fh=STEPS)), matrix @ leaves, rtol=1e-6)


def in_sample(whole):
    times = ForecastingHorizon(whole.index.get_level_values(-1).unique(), is_relative=False)
    return pd.concat(
        {key: tiny_forecaster().fit(whole.loc[key]).predict(fh=times) for key in whole.index.droplevel(-1).unique()},
        names=whole.index.names,
    )


def test_minimum_trace_weighs_by_the_covariance_of_the_residuals(base, whole):
    model = ReconcilerForecaster(local(), method="mint_shrink").fit(hierarchy())

    nodes = base.index.droplevel(-1).unique()
    matrix = summing_matrix(nodes)
    precision = np.linalg.inv(model.error_cov_matrix_.loc[nodes, nodes].to_numpy())
    leaves = np.linalg.solve(matrix.T @ precision @ matrix, matrix.T @ precision @ as_matrix(base))

    np.testing.assert_allclose(as_matrix(model.predict(fh=STEPS)), matrix @ leaves, rtol=1e-6)
    variances = (whole - in_sample(whole))["load"].unstack(-1).reindex(nodes).var(axis=1)
    np.testing.assert_allclose(np.diag(model.error_cov_matrix_.loc[nodes, nodes]), variances, rtol=1e-6)
