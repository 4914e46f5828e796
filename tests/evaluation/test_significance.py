import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from xlstm_ts.errors import ParameterError
from xlstm_ts.evaluation.significance import block_bootstrap, diebold_mariano, pesaran_timmermann, wilson_interval

# Diebold-Mariano


def test_diebold_mariano_without_overlap_equals_the_case_worked_by_hand():
    # d = -1, 0, -2, -1: mean -1, variance (0 + 1 + 1 + 0) / 4 = 1/2; DM = -1 / sqrt(1/8) = -2.8284.
    # Correction for h = 1: sqrt((4 + 1 - 2 + 0) / 4) = sqrt(3) / 2.
    result = diebold_mariano([1, 2, 1, 3], [2, 2, 3, 4])

    assert result.statistic == pytest.approx(-np.sqrt(8) * np.sqrt(3) / 2)
    assert result.p_value == pytest.approx(2 * t(3).cdf(result.statistic))


def test_diebold_mariano_with_overlap_equals_the_case_worked_by_hand():
    # d = 3, 1, 0, 2, 4, 2: mean 2; centred 1, -1, -2, 0, 2, 0. Autocovariances: 10/6 at lag 0,
    # (-1 + 2 + 0 + 0 + 0)/6 = 1/6 at lag 1. v = 10/6 + 2/6 = 2; DM = 2 / sqrt(2/6).
    # Correction for h = 2, n = 6: (6 + 1 - 4 + 2/6) / 6 = 5/9.
    d = np.array([3.0, 1, 0, 2, 4, 2])

    result = diebold_mariano(d, np.zeros(6), horizon=2)

    assert result.statistic == pytest.approx(2 / np.sqrt(1 / 3) * np.sqrt(5 / 9))
    assert diebold_mariano(d, np.zeros(6), horizon=2, alternative="greater").p_value == pytest.approx(
        t(5).sf(result.statistic)
    )
    less = diebold_mariano(d, np.zeros(6), horizon=2, alternative="less")
    assert less.p_value == pytest.approx(t(5).cdf(result.statistic))


def test_diebold_mariano_leaves_out_missing_pairs_and_is_antisymmetric():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 40))

    full = diebold_mariano(a, b, horizon=3)
    gapped = diebold_mariano(np.insert(a, 5, np.nan), np.insert(b, 5, 1.0), horizon=3)
    swapped = diebold_mariano(b, a, horizon=3)

    assert gapped == full
    assert (swapped.statistic, swapped.p_value) == (pytest.approx(-full.statistic), pytest.approx(full.p_value))


def test_diebold_mariano_keeps_its_variance_positive():
    # Alternating differences: the plain sum of autocovariances is negative.
    d = np.array([1.0, -1, 1, -1, 1, -1, 1, -1.5])

    assert np.isfinite(diebold_mariano(d, np.zeros(8), horizon=2).statistic)


@pytest.mark.parametrize(
    ("loss", "horizon"), [([], 1), ([1.0], 1), ([1.0, 1.0, 1.0], 1), ([1.0, 2.0, 4.0], 3), ([1.0, 2.0], 9)]
)
def test_diebold_mariano_without_enough_data_is_nan(loss, horizon):
    assert np.isnan(diebold_mariano(loss, np.zeros(len(loss)), horizon=horizon).p_value)


def test_diebold_mariano_rejects_equal_forecasts_as_often_as_it_promises():
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(400):
        # Sums of four neighbours: differences that depend on each other as those of a 4-step forecast do.
        noise = rng.normal(size=103)
        d = np.convolve(noise, np.ones(4), "valid")
        p_values.append(diebold_mariano(d, np.zeros(100), horizon=4).p_value)

    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.10


# Pesaran-Timmermann


def test_pesaran_timmermann_equals_the_case_worked_by_hand():
    # 10 days, 6 rises; forecast 5 rises, of which 4 came. Agreement: 4 + 3 of 10.
    actual = [1, 1, 1, 1, 1, 1, -1, -1, -1, -1]
    forecast = [1, 1, 1, 1, -1, -1, 1, -1, -1, -1]
    expected = 0.6 * 0.5 + 0.4 * 0.5  # 0.5
    variance = 0.5 * 0.5 / 10
    variance_expected = 0.2**2 * 0.25 / 10 + 0.0 + 4 * 0.6 * 0.5 * 0.4 * 0.5 / 100
    statistic = (0.7 - expected) / np.sqrt(variance - variance_expected)

    result = pesaran_timmermann(actual, forecast)

    assert result.statistic == pytest.approx(statistic)
    assert result.p_value == pytest.approx(norm.sf(statistic))
    assert pesaran_timmermann([*actual, np.nan], [*forecast, 1.0]) == result


def test_pesaran_timmermann_gives_nothing_for_always_saying_up():
    assert np.isnan(pesaran_timmermann([1, 1, 1, -1], [1, 1, 1, 1]).p_value)
    assert np.isnan(pesaran_timmermann([], []).p_value)


def test_pesaran_timmermann_of_independent_signs_is_standard_normal():
    rng = np.random.default_rng(2)
    draws = [pesaran_timmermann(rng.normal(0.2, 1, 200), rng.normal(0.3, 1, 200)).statistic for _ in range(500)]

    assert abs(np.mean(draws)) < 0.15
    assert np.std(draws) == pytest.approx(1, abs=0.1)


# Wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (8, 10), (10, 10), (437, 1000)])
def test_wilson_limits_equal_those_of_scipy(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.9, method="wilson")

    low, high = wilson_interval(successes, trials, 0.9)

    assert (low, high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))


def test_wilson_limits_without_trials_are_nan():
    low, high = wilson_interval([1, 0], [2, 0])

    assert np.isfinite([low[0], high[0]]).all()
    assert np.isnan([low[1], high[1]]).all()


# Block bootstrap


def test_bootstrap_limits_of_independent_rows_are_those_of_the_mean():
    x = np.random.default_rng(3).normal(size=400)

    low, high = block_bootstrap(x, lambda mean: mean, block_length=1, resamples=4000)

    half = 1.96 * x.std() / np.sqrt(400)
    assert (low, high) == (pytest.approx(x.mean() - half, abs=0.01), pytest.approx(x.mean() + half, abs=0.01))


def test_blocks_widen_the_limits_of_dependent_rows():
    noise = np.random.default_rng(4).normal(size=409)
    x = np.convolve(noise, np.ones(10) / 10, "valid")

    alone = np.ptp(block_bootstrap(x, lambda mean: mean, block_length=1))
    together = np.ptp(block_bootstrap(x, lambda mean: mean, block_length=20))

    assert together > 2 * alone


def test_bootstrap_of_a_ratio_uses_the_same_rows_above_and_below():
    x = np.random.default_rng(5).random(50)

    low, high = block_bootstrap(np.stack([3 * x, x], axis=1), lambda mean: mean[:, 0] / mean[:, 1], block_length=5)

    assert (low, high) == (pytest.approx(3), pytest.approx(3))


def test_bootstrap_draws_from_the_generator_that_is_passed():
    x = np.random.default_rng(6).random(30)

    def limits(random_state):
        return block_bootstrap(x, lambda mean: mean, block_length=3, resamples=50, random_state=random_state)

    assert limits(7) == limits(np.random.default_rng(7))
    assert limits(7) != limits(8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diebold_mariano([1, 2], [1]), "shapes"),
        (lambda: diebold_mariano([1, 2], [1, 3], horizon=0), "horizon=0"),
        (lambda: diebold_mariano([1, 2], [1, 3], alternative="both"), "alternative='both'"),
        (lambda: pesaran_timmermann([1, 2], [1]), "shapes"),
        (lambda: block_bootstrap([], np.mean, block_length=1), "0 rows"),
        (lambda: block_bootstrap([1.0], np.mean, block_length=0), "block_length=0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ParameterError, match=message):
        call()
