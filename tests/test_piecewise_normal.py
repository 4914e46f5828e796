"""The closed forms against a normal, numerical integration, large samples, and what must hold of any distribution."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from xlstm_ts.piecewise_normal import PiecewiseNormal
from xlstm_ts.quantiles import interpolate_levels

LEVELS = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
SKEWED = np.array([-3.0, -2.5, -2.3, -1.0, -0.9, -0.2, 0.0, 0.1, 0.4, 2.0, 2.1, 4.0, 9.0])
STEPPED = np.array([-3.0, -2.5, -2.5, -2.5, -0.9, -0.2, 0.0, 0.0, 0.0, 0.0, 2.1, 4.0, 4.0])  # an atom at its end too
WANTED = np.concatenate([[1e-9, 1e-4], np.linspace(0.003, 0.997, 97), LEVELS, [1 - 1e-4, 1 - 1e-9]])

increasing_levels = st.lists(st.integers(1, 99), min_size=2, max_size=9, unique=True).map(
    lambda hundredths: np.array(sorted(hundredths)) / 100
)


@st.composite
def quantiles_and_levels(draw, ties=True):
    levels = draw(increasing_levels)
    lengths = st.floats(0 if ties else 1e-3, 1e3).map(lambda x: 0.0 if x < 1e-3 else x)
    steps = draw(st.lists(lengths, min_size=len(levels), max_size=len(levels)))
    return draw(st.floats(-1e3, 1e3)) + np.cumsum(steps), levels


def dense(quantiles, levels=LEVELS, count=400_000):
    """Return the quantiles at the middles of many equal shares of probability, from the rule itself."""
    return interpolate_levels(quantiles, levels, (np.arange(count) + 0.5) / count)


# A normal


@pytest.mark.parametrize("levels", [LEVELS, np.array([0.3, 0.6])], ids=["13 levels", "2 levels"])
def test_the_quantiles_of_a_normal_give_that_normal(levels):
    mean, spread = np.array([-20.0, 1e9]), np.array([3.0, 0.5])
    one = PiecewiseNormal(norm.ppf(levels, mean[:, None], spread[:, None]), levels)
    x = mean + spread * np.array([-7.5, 1.3])
    p = np.array([0.001, 0.77])
    score = (x - mean) / spread

    close = {"rtol": 1e-6}  # of 1e9 the quantiles themselves are rounded to 1e-7
    np.testing.assert_allclose(one.mean(), mean, rtol=1e-12)
    np.testing.assert_allclose(one.variance(), spread**2, **close)
    np.testing.assert_allclose(one.ppf(p[:, None])[:, 0], norm.ppf(p, mean, spread), rtol=1e-12)
    np.testing.assert_allclose(one.cdf(x), norm.cdf(score), **close)
    np.testing.assert_allclose(one.pdf(x), norm.pdf(score) / spread, **close)
    np.testing.assert_allclose(one.log_pdf(x), norm.logpdf(score) - np.log(spread), **close)
    np.testing.assert_allclose(one.pdf_power(2), 1 / (2 * spread * np.sqrt(np.pi)), **close)
    np.testing.assert_allclose(one.distance_of_two(), 2 * spread / np.sqrt(np.pi), **close)
    np.testing.assert_allclose(
        one.distance_to(x), spread * (score * (2 * norm.cdf(score) - 1) + 2 * norm.pdf(score)), **close
    )


# Numerical integration and large samples


@pytest.mark.parametrize("quantiles", [SKEWED, STEPPED, 1e9 + SKEWED, -1e-12 * SKEWED[::-1]], ids=range(4))
def test_moments_and_distances_are_those_of_very_many_quantiles(quantiles):
    one, many = PiecewiseNormal(quantiles, LEVELS), dense(quantiles)
    unit = np.ptp(quantiles)
    rank = np.arange(len(many))

    assert (one.mean() - many.mean()) / unit == pytest.approx(0, abs=1e-6)
    assert one.variance() / unit**2 == pytest.approx(many.var() / unit**2, abs=1e-5)
    between = 2 * ((2 * rank + 1 - len(many)) * (many - many.mean())).sum() / len(many) ** 2
    assert one.distance_of_two() / unit == pytest.approx(between / unit, abs=1e-6)
    for x in [*quantiles, many[0] - 5 * unit, many.mean(), many[-1] + 5 * unit]:
        assert one.distance_to(np.array(x)) / unit == pytest.approx(np.abs(many - x).mean() / unit, abs=1e-6)


def test_the_density_integrates_to_the_distribution_function_the_moments_and_the_norm():
    one = PiecewiseNormal(SKEWED, LEVELS)
    edges = [*(SKEWED[0] + 8 * np.array([-3, -2, -1, -0.5])), *SKEWED, *(SKEWED[-1] + 8 * np.array([1, 2, 4, 7]))]

    def integral(function):
        return np.cumsum([quad(function, low, high, epsabs=1e-12)[0] for low, high in itertools.pairwise(edges)])

    def pdf(x):
        return float(one.pdf(np.array(x)))

    np.testing.assert_allclose(integral(pdf), [one.cdf(np.array(x)) for x in edges[1:]], atol=1e-9)
    assert integral(lambda x: x * pdf(x))[-1] == pytest.approx(float(one.mean()), abs=1e-9)
    assert integral(lambda x: x * x * pdf(x))[-1] == pytest.approx(float(one.variance() + one.mean() ** 2), rel=1e-9)
    for a in (0.5, 2, 3):
        assert integral(lambda x, a=a: pdf(x) ** a)[-1] == pytest.approx(float(one.pdf_power(a)), rel=1e-6)
    assert one.pdf_power(1) == pytest.approx(1)
    twice = integral(lambda x: 2 * one.cdf(np.array(x)) * (1 - one.cdf(np.array(x))))[-1]
    assert one.distance_of_two() == pytest.approx(twice, rel=1e-9)


def test_the_crps_of_many_levels_nears_the_exact_one():
    one = PiecewiseNormal(SKEWED, LEVELS)
    levels = (np.arange(20_000) + 0.5) / 20_000
    quantiles = one.ppf(levels)

    for x in (-4.0, -0.5, 0.0, 3.0, 20.0):
        pinball = np.where(x >= quantiles, levels * (x - quantiles), (1 - levels) * (quantiles - x))
        exact = one.distance_to(np.array(x)) - one.distance_of_two() / 2
        assert exact == pytest.approx(2 * pinball.mean(), rel=1e-4)


# What must hold of any distribution


@given(quantiles_and_levels())
def test_its_quantiles_are_those_of_the_rule_to_the_bit(drawn):
    quantiles, levels = drawn

    got = PiecewiseNormal(quantiles, levels).ppf(WANTED)

    np.testing.assert_array_equal(got, interpolate_levels(quantiles, levels, WANTED))


@given(quantiles_and_levels(ties=False))
def test_level_to_quantile_and_back(drawn):
    quantiles, levels = drawn
    one = PiecewiseNormal(np.broadcast_to(quantiles, (len(WANTED), len(levels))), levels)

    back = one.cdf(one.ppf(WANTED[:, None])[:, 0])

    np.testing.assert_allclose(back, WANTED, rtol=1e-6, atol=1e-7)


@given(quantiles_and_levels(), st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=30))
def test_the_distribution_function_rises_from_0_to_1_and_jumps_where_quantiles_coincide(drawn, more):
    quantiles, levels = drawn
    near = 1e-12 * (1 + np.abs(quantiles))
    x = np.sort(np.concatenate([more, quantiles - near, quantiles, quantiles + near]))
    one = PiecewiseNormal(np.broadcast_to(quantiles, (len(x), len(levels))), levels)

    cdf = one.cdf(x)

    assert (np.diff(cdf) >= 0).all()
    assert cdf.min() >= 0
    assert cdf.max() <= 1
    # P(X <= x) is at least the level of every quantile that is not above x, and at most that of those above; what a
    # float64 of the largest quantile cannot tell apart counts as not above.
    resolved = 4 * np.finfo(np.float64).eps * np.abs(quantiles).max()
    assert (cdf >= np.where(quantiles <= x[:, None], levels, 0).max(axis=1) - 1e-9).all()
    assert (cdf <= np.where(quantiles > x[:, None] + resolved, levels, 1).min(axis=1) + 1e-9).all()


@given(quantiles_and_levels(), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_every_number_is_finite_and_the_distances_are_a_metrics(drawn, points):
    quantiles, levels = drawn
    x = np.concatenate([points, quantiles])
    one = PiecewiseNormal(np.broadcast_to(quantiles, (len(x), len(levels))), levels)
    between, to = one.distance_of_two(), one.distance_to(x)

    assert np.isfinite(one.log_pdf(x)).all()
    assert np.isfinite(one.pdf(x)).all()
    assert (one.pdf_power(2) > 0).all()
    assert (one.variance() >= 0).all()
    assert (between >= 0).all()
    slack = 1e-9 * (1 + np.abs(x) + np.abs(quantiles).max())
    assert (to >= np.abs(one.mean() - x) - slack).all()  # Jensen
    assert (to >= between / 2 - slack).all()  # the CRPS is not below 0
    assert (between <= 2 * to + slack).all()


@given(quantiles_and_levels(ties=False), st.floats(0.01, 100), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_all_follows_a_shift_and_a_scale(drawn, scale, shift, x):
    quantiles, levels = drawn
    one, other = PiecewiseNormal(quantiles, levels), PiecewiseNormal(scale * quantiles + shift, levels)
    x = np.array(x)
    moved = scale * x + shift
    close = {"rtol": 1e-6, "atol": 1e-6 * scale}

    np.testing.assert_allclose(other.mean(), scale * one.mean() + shift, **close)
    np.testing.assert_allclose(other.variance(), scale**2 * one.variance(), rtol=1e-6)
    np.testing.assert_allclose(other.distance_of_two(), scale * one.distance_of_two(), **close)
    np.testing.assert_allclose(other.distance_to(moved), scale * one.distance_to(x), **close)
    np.testing.assert_allclose(other.cdf(moved), one.cdf(x), atol=1e-5)


def test_rows_do_not_know_each_other():
    rows = np.stack([SKEWED, STEPPED, SKEWED * 1e6, np.full(13, 4.0)])
    x = np.array([0.3, 0.0, -7e5, 4.0])
    together = PiecewiseNormal(rows, LEVELS)

    for j, row in enumerate(rows):
        alone = PiecewiseNormal(row, LEVELS)
        for name in ("mean", "variance", "distance_of_two", "pdf_power"):
            assert getattr(together, name)()[j] == getattr(alone, name)()
        for name in ("cdf", "pdf", "log_pdf", "distance_to"):
            assert getattr(together, name)(x)[j] == getattr(alone, name)(x[j])


# The ends


def test_coinciding_quantiles_have_a_probability_of_their_own():
    one = PiecewiseNormal(STEPPED, LEVELS)

    assert one.cdf(np.array(0.0)) == pytest.approx(0.8)
    assert one.cdf(np.array(-1e-12)) == pytest.approx(0.5)
    assert one.cdf(np.array(4.0)) == 1.0
    assert one.cdf(np.nextafter(np.array(4.0), 0)) == pytest.approx(0.95)


@pytest.mark.parametrize("value", [0.1, -7e8, 0.0])
def test_a_certain_forecast_is_exact_but_for_its_density(value):
    one = PiecewiseNormal(np.full(13, value), LEVELS)

    assert one.ppf(np.array([0.01, 0.5, 0.999])).tolist() == [value] * 3
    assert (one.mean(), one.variance(), one.distance_of_two()) == (value, 0.0, 0.0)
    assert one.distance_to(np.array(value)) == 0.0
    assert one.distance_to(np.array(value + 3.0)) == 3.0
    assert one.cdf(np.array(value)) == 1.0
    assert one.cdf(np.nextafter(np.array(value), -np.inf)) == 0.0
    # As narrow as float64 can resolve: certain to be very good or very bad, and never NaN.
    spread = np.finfo(np.float64).eps * (2.0 ** np.floor(np.log2(abs(value))) if value else 1.0)
    assert one.log_pdf(np.array(value)) == pytest.approx(norm.logpdf(0) - np.log(spread))
    assert one.pdf_power(2) == pytest.approx(1 / (2 * spread * np.sqrt(np.pi)))
    missed = one.log_pdf(np.array(value * 1.001 + (value == 0)))
    assert np.isfinite(missed)
    assert missed < -1e20


def test_a_missing_value_is_scored_as_missing():
    one = PiecewiseNormal(SKEWED, LEVELS)
    nan = np.array(np.nan)

    assert np.isnan([one.cdf(nan), one.pdf(nan), one.log_pdf(nan), one.distance_to(nan), one.ppf(nan[None])[0]]).all()


def test_the_outermost_levels_and_impossible_ones():
    got = PiecewiseNormal(SKEWED, LEVELS).ppf(np.array([0.0, 1.0, -0.1, 1.1]))

    np.testing.assert_array_equal(got, [-np.inf, np.inf, np.nan, np.nan])


@pytest.mark.parametrize("unit", [1.6e307, 1e-300])
def test_the_largest_and_smallest_floats_neither_overflow_nor_vanish(unit):
    one, plain = PiecewiseNormal(SKEWED * unit, LEVELS), PiecewiseNormal(SKEWED, LEVELS)
    x = np.array(1.5)

    np.testing.assert_allclose(one.mean() / unit, plain.mean(), rtol=1e-9)
    np.testing.assert_allclose(one.distance_of_two() / unit, plain.distance_of_two(), rtol=1e-9)
    np.testing.assert_allclose(one.distance_to(x * unit) / unit, plain.distance_to(x), rtol=1e-9)
    np.testing.assert_allclose(one.cdf(x * unit), plain.cdf(x), rtol=1e-9)
    np.testing.assert_allclose(one.log_pdf(x * unit), plain.log_pdf(x) - np.log(unit), rtol=1e-9)
    for far in (-1.7e308, 1.7e308):
        numbers = [one.cdf(np.array(far)), one.log_pdf(np.array(far)), one.distance_to(np.array(far)), one.variance()]
        assert np.isfinite(numbers).all()
