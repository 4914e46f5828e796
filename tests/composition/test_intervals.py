"""Intervals of sktime's own around our forecasts, and our intervals in sktime's figures."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import ignores_remember_data, monthly, tiny_forecaster
from sktime.forecasting.conformal import ConformalIntervals
from sktime.forecasting.naive import NaiveVariance
from sktime.utils.plotting import plot_calibration, plot_series

STEPS = [1, 2, 3]

pytestmark = ignores_remember_data


@pytest.fixture(scope="module")
def y():
    return monthly(40)["a"]


def residuals(y, initial_window):
    """Return what forecasts from every row on have missed, one row per origin."""
    times = y.index[initial_window:]
    table = pd.DataFrame(np.nan, index=times, columns=times)
    for row in range(initial_window, len(y)):
        forecast = tiny_forecaster().fit(y[:row]).predict(fh=range(1, len(y) - row + 1))
        table.loc[y.index[row], y.index[row:]] = y[row:] - forecast
    return table


@pytest.mark.parametrize("method", ["empirical", "empirical_residual", "conformal", "conformal_bonferroni"])
def test_conformal_intervals_come_from_residuals_of_own_fits(method, y):
    model = ConformalIntervals(tiny_forecaster(), method=method, initial_window=30).fit(y, fh=STEPS)

    interval = model.predict_interval(coverage=0.8)["a"][0.8].astype(float)

    point = tiny_forecaster().fit(y).predict(fh=STEPS)
    pd.testing.assert_series_equal(model.predict(), point)
    missed = residuals(y, 30)
    np.testing.assert_allclose(model.residuals_matrix_.astype(float), missed, rtol=1e-8)
    for step in STEPS:
        seen = pd.Series(np.diagonal(missed, offset=step)).dropna()  # sktime reads one step farther than it forecasts
        low, high = {
            "empirical": lambda seen: seen.quantile([0.1, 0.9]),
            "empirical_residual": lambda seen: seen.abs().quantile(0.1) * np.array([-1, 1]),
            "conformal": lambda seen: seen.abs().quantile(0.8) * np.array([-1, 1]),
            "conformal_bonferroni": lambda seen: seen.abs().quantile(1 - 0.2 / 3) * np.array([-1, 1]),
        }[method](seen)
        np.testing.assert_allclose(interval.iloc[step - 1], point.iloc[step - 1] + np.array([low, high]), rtol=1e-8)


def test_variances_of_past_residuals_replace_ours(y):
    model = NaiveVariance(tiny_forecaster(), initial_window=30).fit(y, fh=STEPS)

    variance = model.predict_var(fh=STEPS)

    missed = residuals(y, 30).to_numpy()
    for step in STEPS:
        seen = np.diagonal(missed, offset=step)  # as above
        assert variance.iloc[step - 1, 0] == pytest.approx(np.mean(seen**2), rel=1e-6)


def test_our_intervals_stand_in_sktimes_figure(y):
    model = tiny_forecaster().fit(y)
    forecast, interval = model.predict(fh=STEPS), model.predict_interval(fh=STEPS, coverage=0.8)

    figure, axes = plot_series(y, forecast, labels=["observed", "forecast"], pred_interval=interval)

    points, band = axes.collections
    np.testing.assert_allclose(points.get_offsets()[-3:, 1], forecast)
    band = band.get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(interval.to_numpy().min())
    assert band.max() == pytest.approx(interval.to_numpy().max())
    plt.close(figure)


def test_our_quantiles_stand_in_sktimes_calibration_figure(y):
    bands = tiny_forecaster().fit(y[:-10]).predict_quantiles(fh=range(1, 11), alpha=[0.1, 0.5, 0.9])

    figure, axes = plot_calibration(y_true=y[-10:], y_pred=bands)

    shares = [(y[-10:].to_numpy() < bands["a"][level]).mean() for level in (0.1, 0.5, 0.9)]
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata()[1:4], np.column_stack([[0.1, 0.5, 0.9], shares]))
    plt.close(figure)
