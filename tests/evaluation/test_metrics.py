import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss

from xlstm_ts.evaluation.metrics import (
    coverage,
    interval_width,
    mae,
    mase,
    naive_scale,
    pinball_loss,
    quantile_coverage,
    rmse,
)

ACTUAL = np.array([1.0, 2.0, np.nan, 4.0])
FORECAST = np.array([2.0, 2.0, 100.0, 1.0])


def test_point_errors_equal_hand_computed_values_and_skip_missing_actuals():
    assert mae(ACTUAL, FORECAST) == pytest.approx((1 + 0 + 3) / 3)
    assert rmse(ACTUAL, FORECAST) == pytest.approx(np.sqrt((1 + 0 + 9) / 3))
    assert mase(ACTUAL, FORECAST, 2.0) == pytest.approx((1 + 0 + 3) / 3 / 2)
    assert mae(ACTUAL, FORECAST, observed=[True, False, True, False]) == 1.0


@pytest.mark.parametrize("metric", [mae, rmse, lambda a, f: mase(a, f, 1.0), lambda a, f: coverage(a, f, f)])
def test_a_missing_forecast_is_never_skipped(metric):
    assert np.isnan(metric([1.0, 2.0], [1.0, np.nan]))
    assert np.isfinite(metric([1.0, np.nan], [1.0, np.nan]))


@pytest.mark.parametrize("metric", [mae, rmse, lambda a, f: mase(a, f, 1.0), lambda a, f: coverage(a, f, f)])
def test_without_an_actual_value_the_score_is_nan(metric):
    assert np.isnan(metric([np.nan], [1.0]))
    assert np.isnan(metric([], []))


def test_mase_uses_the_scale_of_each_cell():
    assert mase([[1.0, 10.0]], [[2.0, 30.0]], [[1.0, 10.0]]) == pytest.approx((1 + 2) / 2)


@pytest.mark.parametrize("scale", [0.0, np.nan, [1.0, 0.0]])
def test_mase_of_a_constant_training_series_is_nan_even_for_a_perfect_forecast(scale):
    assert np.isnan(mase([1.0, 2.0], [1.0, 2.0], scale))


def test_naive_scale_is_the_training_error_of_the_seasonal_naive_forecast():
    assert naive_scale([1.0, 5.0, 2.0, 9.0], 2) == pytest.approx((1 + 4) / 2)
    assert naive_scale([1.0, np.nan, 2.0, 5.0], 1) == pytest.approx(3.0)
    assert naive_scale([1.0, 5.0], 2) == pytest.approx(4.0), "a series of one season falls back to the last value"
    assert naive_scale([3.0, 3.0, 3.0]) == 0.0
    assert np.isnan(naive_scale([3.0]))


def test_mase_and_scale_equal_those_of_sktime():
    from sktime.performance_metrics.forecasting import mean_absolute_scaled_error

    rng = np.random.default_rng(0)
    train, actual, forecast = rng.normal(size=60), rng.normal(size=12), rng.normal(size=12)

    ours = mase(actual, forecast, naive_scale(train, 12))

    assert ours == pytest.approx(mean_absolute_scaled_error(actual, forecast, y_train=train, sp=12))


def test_pinball_loss_equals_the_hand_computed_value():
    # Below the forecast: (1 - 0.9) * 2; above it: 0.9 * 1.
    assert pinball_loss([1.0, 4.0], [[3.0], [3.0]], [0.9]) == pytest.approx((0.1 * 2 + 0.9 * 1) / 2)


def test_pinball_loss_equals_the_mean_of_scikit_learn_over_levels_and_skips_missing_actuals():
    rng = np.random.default_rng(1)
    levels = [0.05, 0.5, 0.9]
    actual, quantiles = rng.normal(size=(7, 3)), rng.normal(size=(7, 3, 3))
    expected = np.mean(
        [mean_pinball_loss(actual.ravel(), quantiles[..., k].ravel(), alpha=a) for k, a in enumerate(levels)]
    )

    assert pinball_loss(actual, quantiles, levels) == pytest.approx(expected)
    with_gap = np.concatenate([actual, np.full((1, 3), np.nan)])
    assert pinball_loss(with_gap, np.concatenate([quantiles, quantiles[:1]]), levels) == pytest.approx(expected)


def test_coverage_counts_closed_bounds():
    assert coverage([1.0, 2.0, 3.0, np.nan], [1.0, 2.5, 0.0, 0.0], [1.0, 3.0, 3.0, 9.0]) == pytest.approx(2 / 3)


def test_interval_width_is_averaged_over_the_observed_cells():
    assert interval_width([0.0, 0.0], [1.0, 3.0]) == 2.0
    assert interval_width([0.0, 0.0], [1.0, 3.0], observed=[True, False]) == 1.0


def test_quantile_coverage_of_a_calibrated_forecast_equals_the_levels():
    levels = np.array([0.1, 0.5, 0.9])
    actual = np.arange(1, 101, dtype=float)
    quantiles = np.tile(100 * levels, (100, 1))

    np.testing.assert_allclose(quantile_coverage(actual, quantiles), levels)
    quantiles[3, 1] = np.nan
    assert np.isnan(quantile_coverage(actual, quantiles)).tolist() == [False, True, False]
