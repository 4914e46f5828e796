"""Quantile arithmetic against the normal distribution and weighted samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from xlstm_ts.errors import ParameterError
from xlstm_ts.quantiles import check_levels, interpolate_levels, level_masses, pool_paths

LEVELS = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
MANY = np.array([1e-6, 0.001, 0.01, 0.03, 0.1, 0.25, 0.5, 0.77, 0.99, 0.9995, 1 - 1e-6])

increasing_levels = st.lists(st.integers(1, 999), min_size=2, max_size=9, unique=True).map(
    lambda thousandths: np.array(sorted(thousandths)) / 1000
)


def draw_quantiles(*shape, seed=0):
    return np.sort(np.random.default_rng(seed).normal(size=shape), axis=-1)


def test_learned_levels_are_returned_exactly():
    quantiles = draw_quantiles(5, 4, len(LEVELS)) * 1e5

    np.testing.assert_array_equal(interpolate_levels(quantiles, LEVELS, LEVELS), quantiles)
    np.testing.assert_array_equal(interpolate_levels(quantiles, LEVELS, LEVELS[[7, 0, 12]]), quantiles[..., [7, 0, 12]])


def test_a_normal_keeps_its_quantiles_at_any_level_beyond_the_outermost_too():
    quantiles = norm.ppf(LEVELS, loc=-20, scale=3)

    np.testing.assert_allclose(
        interpolate_levels(quantiles, LEVELS, MANY), norm.ppf(MANY, loc=-20, scale=3), rtol=1e-12
    )


@given(increasing_levels, st.integers(0, 100))
def test_interpolated_quantiles_rise_with_the_level(levels, seed):
    quantiles = draw_quantiles(3, len(levels), seed=seed)

    dense = interpolate_levels(quantiles, levels, np.linspace(0.001, 0.999, 97))

    assert (np.diff(dense) >= -1e-9 * (1 + np.abs(dense[:, 1:]))).all()


def test_equal_quantiles_give_exactly_their_value_at_every_level():
    assert interpolate_levels(np.full(13, 0.1), LEVELS, MANY).tolist() == [0.1] * len(MANY)


def test_a_single_level_serves_for_itself_alone():
    quantiles, level = np.array([[4.0], [5.0]]), np.array([0.5])

    assert interpolate_levels(quantiles, level, np.array([0.5, 0.5])).tolist() == [[4.0, 4.0], [5.0, 5.0]]
    with pytest.raises(ParameterError, match=r"only quantile level is 0\.5.*at least three"):
        interpolate_levels(quantiles, level, MANY)


@given(st.integers(0, 100))
def test_rows_may_have_levels_of_their_own(seed):
    quantiles = draw_quantiles(6, 5, len(LEVELS), seed=seed)
    wanted = np.random.default_rng(seed).uniform(0.001, 0.999, (6, 5, 3))

    got = interpolate_levels(quantiles, LEVELS, wanted)

    for i, j in np.ndindex(6, 5):
        np.testing.assert_array_equal(got[i, j], interpolate_levels(quantiles[i, j], LEVELS, wanted[i, j]))


@given(increasing_levels)
def test_level_masses_are_positive_and_sum_to_1(levels):
    masses = level_masses(levels)

    assert masses.sum() == pytest.approx(1.0, abs=1e-12)
    assert (masses > 0).all()


def test_level_masses_by_hand():
    np.testing.assert_allclose(level_masses(np.array([0.1, 0.5, 0.9])), [0.3, 0.4, 0.3])
    np.testing.assert_allclose(level_masses(np.array([0.5])), [1.0])


def test_pooling_identical_paths_changes_nothing():
    quantiles = draw_quantiles(4, 2, len(LEVELS))

    pooled = pool_paths(np.broadcast_to(quantiles, (len(LEVELS), *quantiles.shape)), LEVELS)

    np.testing.assert_allclose(pooled, quantiles, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 500), increasing_levels)
def test_pooled_quantiles_lie_among_those_of_the_weighted_sample(seed, levels):
    draw = np.random.default_rng(seed)
    paths = np.sort(draw.normal(draw.normal(0, 3, (len(levels), 1)), 1, (len(levels), len(levels))), axis=-1)
    masses = level_masses(levels)
    weights = np.outer(masses, masses).ravel()
    slack = weights.max()  # an interpolated quantile may stand one point off the step function's

    pooled = pool_paths(paths, levels)

    for value, level in zip(pooled, levels, strict=True):
        if not slack < level < 1 - slack:
            continue  # continued beyond the outermost point
        low, high = (
            np.quantile(paths.ravel(), at, weights=weights, method="inverted_cdf")
            for at in (level - slack, level + slack)
        )
        assert low <= value <= high


def test_two_far_clusters_stay_two_clusters():
    levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    masses = level_masses(levels)
    centres = np.array([0.0, 0.0, 0.0, 100.0, 100.0])  # the upper paths carry 0.2 + 0.2 of the probability
    paths = centres[:, None] + np.linspace(-1, 1, 5)

    pooled = pool_paths(paths, levels)

    assert masses[3:].sum() == pytest.approx(0.4)
    assert (np.abs(pooled[:3]) <= 1).all()
    assert (np.abs(pooled[3:] - 100) <= 1).all()


@pytest.mark.parametrize("steps", [1.0, 0.5, 2.0])
def test_the_spread_of_a_gaussian_random_walk_grows_as_the_root_of_time(steps):
    z = norm.ppf(LEVELS)
    paths = z[:, None] + steps * z  # one block with spread 1, then one with spread `steps`

    pooled = pool_paths(paths, LEVELS)

    expected = np.sqrt(1 + steps**2)
    growth = pooled[7:] / z[7:]
    assert growth[1:] == pytest.approx(np.full(5, expected), rel=0.06)
    assert growth[0] == pytest.approx(expected, rel=0.1)  # level 0.6: many paths meet in the middle
    np.testing.assert_allclose(pooled, -pooled[::-1], atol=1e-9)


def test_four_blocks_of_a_random_walk_double_the_first_spread():
    z = norm.ppf(LEVELS)
    pooled = z
    for _ in range(3):
        pooled = pool_paths(pooled[:, None] + z, LEVELS)

    assert (pooled[10] - pooled[2]) / (z[10] - z[2]) == pytest.approx(2.0, rel=0.08)


@given(st.integers(0, 500), increasing_levels)
def test_pooled_quantiles_never_cross_and_follow_an_affine_map(seed, levels):
    draw = np.random.default_rng(seed)
    paths = np.sort(draw.normal(size=(len(levels), 3, len(levels))), axis=-1)

    pooled = pool_paths(paths, levels)

    assert pooled.shape == (3, len(levels))
    assert (np.diff(pooled) >= 0).all()
    np.testing.assert_allclose(pool_paths(7 * paths - 3, levels), 7 * pooled - 3, rtol=1e-9, atol=1e-9)


def test_rows_are_pooled_one_by_one():
    paths = draw_quantiles(len(LEVELS), 4, 2, len(LEVELS))

    pooled = pool_paths(paths, LEVELS)

    for j in range(4):
        np.testing.assert_array_equal(pooled[j, 1], pool_paths(paths[:, j, 1], LEVELS))


def test_a_single_level_pools_to_its_only_path():
    assert pool_paths(np.array([[[3.0], [4.0]]]), np.array([0.5])).tolist() == [[3.0], [4.0]]


def test_levels_become_an_array():
    assert check_levels(0.5, "predict").tolist() == [0.5]
    assert check_levels([0.9, 0.1], "predict").tolist() == [0.9, 0.1]


@pytest.mark.parametrize("levels", [0.0, 1.0, [0.5, -0.1], [0.5, 1.5], [], [float("nan")]], ids=str)
def test_impossible_levels_are_refused(levels):
    with pytest.raises(
        ParameterError, match=r"^predict: quantile levels \[.*\] are impossible; expected 0 < level < 1"
    ):
        check_levels(levels, "predict")
