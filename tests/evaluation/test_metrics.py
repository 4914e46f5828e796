import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss

from xlstm_ts.evaluation.metrics import (
    bias,
    coverage,
    crps,
    interval_width,
    mae,
    mase,
    naive_scale,
    pinball_loss,
    pit,
    probability_below,
    quantile_coverage,
    rmse,
    rmsse,
    smape,
    wape,
    weighted_quantile_loss,
    winkler_score,
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


# Agreement with other packages


@pytest.fixture
def draws():
    rng = np.random.default_rng(3)
    levels = (np.arange(20) + 0.5) / 20
    actual = rng.normal(10, 3, size=200)
    quantiles = np.sort(rng.normal(10, 2, size=(200, 20)), axis=-1)
    return actual, quantiles, levels


def test_point_metrics_equal_those_of_sktime():
    from sktime.performance_metrics import forecasting

    rng = np.random.default_rng(4)
    train, actual, forecast = rng.normal(5, 1, 90), rng.normal(5, 1, 30), rng.normal(5, 1, 30)

    assert rmsse(actual, forecast, naive_scale(train, 7, power=2)) == pytest.approx(
        forecasting.mean_squared_scaled_error(actual, forecast, y_train=train, sp=7, square_root=True)
    )
    assert smape(actual, forecast) == pytest.approx(
        forecasting.mean_absolute_percentage_error(actual, forecast, symmetric=True)
    )
    assert wape(actual, forecast) == pytest.approx(np.abs(actual - forecast).sum() / np.abs(actual).sum())
    assert bias([1.0, 2.0, np.nan], [2.0, 4.0, 9.0]) == 1.5


def test_interval_and_quantile_metrics_equal_those_of_sktime(draws):
    import pandas as pd
    from sktime.performance_metrics.forecasting import probabilistic

    actual, quantiles, _ = draws
    truth = pd.DataFrame({"y": actual})
    lower, upper = quantiles[:, 1], quantiles[:, 18]
    columns = pd.MultiIndex.from_tuples([("y", 0.8, "lower"), ("y", 0.8, "upper")])
    intervals = pd.DataFrame(np.stack([lower, upper], axis=1), columns=columns)
    levels = [0.1, 0.5, 0.9]
    frame = pd.DataFrame(quantiles[:, [2, 10, 17]], columns=pd.MultiIndex.from_product([["y"], levels]))

    assert coverage(actual, lower, upper) == pytest.approx(probabilistic.EmpiricalCoverage()(truth, intervals))
    assert interval_width(lower, upper) == pytest.approx(probabilistic.IntervalWidth()(truth, intervals))
    assert pinball_loss(actual, quantiles[:, [2, 10, 17]], levels) == pytest.approx(
        probabilistic.PinballLoss()(truth, frame)
    )


def test_crps_and_winkler_score_equal_those_of_scoringrules(draws):
    import scoringrules

    actual, quantiles, levels = draws

    assert crps(actual, quantiles, levels) == pytest.approx(
        scoringrules.crps_quantile(actual, quantiles, levels, backend="numpy").mean()
    )
    assert crps(actual, quantiles, levels) == pytest.approx(
        scoringrules.crps_ensemble(actual, quantiles, estimator="nrg", backend="numpy").mean()
    )
    assert winkler_score(actual, quantiles[:, 1], quantiles[:, 18], 0.8) == pytest.approx(
        scoringrules.interval_score(actual, quantiles[:, 1], quantiles[:, 18], 0.2, backend="numpy").mean()
    )


def test_crps_of_many_uneven_levels_approaches_that_of_the_distribution():
    import scoringrules
    from scipy.stats import norm

    levels = norm.cdf(np.linspace(-3.5, 3.5, 400))
    actual = np.array([-1.0, 0.3, 2.0])
    quantiles = np.tile(norm.ppf(levels), (3, 1))

    expected = scoringrules.crps_normal(actual, 0.0, 1.0, backend="numpy").mean()
    assert crps(actual, quantiles, levels) == pytest.approx(expected, rel=1e-3)


# Winkler, weighted quantile loss, probabilities


def test_winkler_score_equals_the_hand_computed_value():
    # Inside: width 2. Below by 1 at 80 %: 2 + 2 / 0.2 * 1 = 12. The missing one does not count.
    assert winkler_score([1.0, -1.0, np.nan], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], 0.8) == pytest.approx((2 + 12) / 2)


def test_weighted_quantile_loss_of_the_median_is_the_weighted_absolute_error():
    assert weighted_quantile_loss(ACTUAL, FORECAST[:, np.newaxis], [0.5]) == pytest.approx(wape(ACTUAL, FORECAST))
    assert wape(ACTUAL, FORECAST) == pytest.approx(4 / 7)
    assert np.isnan(wape([0.0], [1.0]))


def test_probability_below_runs_through_the_quantiles_and_has_normal_tails():
    from scipy.stats import norm

    levels = [0.1, 0.5, 0.9]
    quantiles = norm.ppf(levels, loc=3, scale=2)

    np.testing.assert_allclose(probability_below(quantiles, np.tile(quantiles, (3, 1)), levels), levels)
    for threshold in (-2.0, 2.5, 9.0):
        assert probability_below(threshold, quantiles, levels) == pytest.approx(norm.cdf(threshold, 3, 2))


def test_probability_below_of_equal_quantiles_is_a_jump():
    flat = [5.0, 5.0, 5.0]

    np.testing.assert_allclose(probability_below([4.9, 5.0, 5.1], [flat] * 3, [0.1, 0.5, 0.9]), [0, 0.9, 1])
    assert np.isnan(probability_below(np.nan, flat, [0.1, 0.5, 0.9]))
    assert np.isnan(probability_below(1.0, [0.0, np.nan, 2.0], [0.1, 0.5, 0.9]))


def test_pit_of_a_calibrated_forecast_is_uniform():
    from scipy.stats import kstest, norm

    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    actual = np.random.default_rng(5).normal(2, 3, 4000)

    values = pit(actual, np.tile(norm.ppf(levels, 2, 3), (4000, 1)), levels)

    assert kstest(values, "uniform").pvalue > 0.01
    assert np.isnan(pit([np.nan], [[0.0, 1.0]], [0.1, 0.9])).all()


def test_smape_is_zero_where_both_are_zero():
    assert smape([0.0, 1.0], [0.0, 3.0]) == pytest.approx((0 + 2 * 2 / 4) / 2)
