"""Heads: what they say untrained, where they start when told to, and that quantiles never cross."""

from statistics import NormalDist

import pytest
import torch
from helpers import generator, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xlstm_ts.nn.heads import START_FREEDOM, PointHead, QuantileHead, StudentTHead
from xlstm_ts.nn.init import initialise

LEVELS = [(0.1, 0.5, 0.9), (0.01, 0.05, 0.1, 0.4, 0.5, 0.7, 0.95), (0.5,), (0.2, 0.3), (0.6, 0.9), (0.05, 0.1)]
B, D, L, C = 3, 5, 4, 2


def make_head(levels, weights=1.0, seed=0, dtype=torch.float64):
    head = QuantileHead(D, L, C, levels).to(dtype)
    draw = generator(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * weights)
    return head


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_an_untrained_quantile_head_says_a_standard_normal_whatever_it_reads(levels):
    head = QuantileHead(D, L, C, levels).double()
    initialise(head)

    quantiles = head(normal(B, 1, D))

    expected = torch.tensor([NormalDist().inv_cdf(level) for level in levels], dtype=torch.float64)
    torch.testing.assert_close(quantiles, expected.expand(B, L, C, len(levels)), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    levels=st.lists(st.integers(1, 999), min_size=1, max_size=9, unique=True).map(
        lambda thousandths: tuple(level / 1000 for level in sorted(thousandths))
    ),
    weights=st.sampled_from([0.1, 1.0, 100.0, 1e4]),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_quantiles_never_cross(levels, weights, seed, dtype):
    head = make_head(levels, weights, seed, dtype)

    quantiles = head(normal(B, 1, D, seed=seed, dtype=dtype))

    assert torch.isfinite(quantiles).all()
    assert (quantiles.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_quantiles_rise_strictly_for_moderate_features(levels):
    quantiles = make_head(levels)(normal(B, 1, D))

    assert (quantiles.diff(dim=-1) > 0).all()


@pytest.mark.parametrize("levels", LEVELS, ids=str)
@pytest.mark.parametrize("spread", [0.1, 1.0, 1e3, 1e6], ids=str)
def test_a_head_starts_at_the_quantiles_that_it_is_told(levels, spread):
    head = QuantileHead(D, L, C, levels).double()
    initialise(head)
    wanted = (normal(L, C, len(levels)) * spread).sort(dim=-1).values
    wanted += torch.arange(len(levels)) * spread * 0.1  # gaps above the smallest step that a head can start at

    head.start_from(wanted)

    torch.testing.assert_close(head(normal(B, 1, D)), wanted.expand(B, L, C, -1), rtol=1e-7, atol=1e-7 * spread)


def test_equal_quantiles_start_a_little_apart_so_that_they_can_still_learn():
    head = QuantileHead(D, L, C, (0.1, 0.5, 0.9)).double()
    initialise(head)

    head.start_from(torch.full((L, C, 3), 7.0, dtype=torch.float64))
    quantiles = head(normal(B, 1, D))
    quantiles.diff(dim=-1).sum().backward()

    torch.testing.assert_close(quantiles, torch.full_like(quantiles, 7.0), rtol=0, atol=3e-3)
    assert (quantiles.diff(dim=-1) > 0).all()
    assert head.head_bias.grad.abs().view(L, C, 3)[..., [0, 2]].min() > 1e-4


@pytest.mark.parametrize("groups", [1, 3])
def test_outputs_are_laid_out_as_steps_channels_levels(groups):
    """Each group of channels reads its own features; one feature vector speaks for C / G channels."""
    levels = (0.1, 0.5, 0.9)
    head, features = make_head(levels), normal(B, groups, D)

    quantiles = head(features)

    assert quantiles.shape == (B, L, groups * C, 3)
    middle = features @ head.head_weight.view(L, C, 3, D)[2, 1, 1] + head.head_bias.view(L, C, 3)[2, 1, 1]
    torch.testing.assert_close(quantiles[:, 2, 1::C, 1], middle)


def test_a_group_reads_its_own_features_only():
    head, features = make_head((0.1, 0.9)), normal(B, 3, D)
    changed = features.clone()
    changed[:, 1] += 1

    before, after = head(features), head(changed)

    assert torch.equal(after[:, :, [0, 1, 4, 5]], before[:, :, [0, 1, 4, 5]])
    assert not torch.equal(after[:, :, 2:4], before[:, :, 2:4])


def test_a_point_head_is_linear_and_starts_at_zero():
    head, features = PointHead(D, L, C).double(), normal(B, 2, D)
    initialise(head)
    assert torch.equal(head(features), torch.zeros(B, L, 2 * C, 1, dtype=torch.float64))

    with torch.no_grad():
        head.head_weight.copy_(normal(L * C, D, seed=1))
        head.head_bias.copy_(normal(L * C, seed=2))

    expected = torch.einsum("bgd,lcd->blgc", features, head.head_weight.view(L, C, D)).flatten(2)
    expected += head.head_bias.view(L, C).repeat(1, 2)
    torch.testing.assert_close(head(features)[..., 0], expected)


def make_student_t(levels=(0.1, 0.5, 0.9), seed=0):
    head = StudentTHead(D, L, C, levels).double()
    with torch.no_grad():
        head.head_weight.copy_(normal(L * C * 3, D, seed=seed))
        head.head_bias.copy_(normal(L * C * 3, seed=seed + 1))
    return head


def test_the_quantiles_of_a_student_t_are_those_of_scipy():
    levels = (0.05, 0.5, 0.6, 0.99)
    head = make_student_t(levels)
    parameters = head(normal(B, 1, D))

    quantiles = head.quantiles(parameters)

    location, scale, freedom = (p[..., None].detach().numpy() for p in parameters.unbind(-1))
    expected = stats.t.ppf(levels, freedom, location, scale)
    torch.testing.assert_close(quantiles, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)
    assert (freedom > 2).all()


def test_an_untrained_student_t_has_location_0_scale_1_and_few_degrees_of_freedom():
    head = StudentTHead(D, L, C, (0.1, 0.5, 0.9)).double()
    initialise(head)

    parameters = head(normal(B, 1, D))

    expected = torch.tensor([0.0, 1.001, START_FREEDOM], dtype=torch.float64)
    torch.testing.assert_close(parameters, expected.expand(B, L, C, 3))


@pytest.mark.parametrize("spread", [0.1, 1.0, 1e4], ids=str)
def test_a_student_t_starts_at_the_middle_and_the_spread_that_it_is_told(spread):
    levels = (0.01, 0.1, 0.5, 0.9, 0.99)
    head = StudentTHead(D, L, C, levels).double()
    initialise(head)
    wanted = normal(L, C, 1) + torch.from_numpy(stats.t.ppf(levels, START_FREEDOM)) * spread

    head.start_from(wanted)

    quantiles = head.quantiles(head(normal(B, 1, D)))
    torch.testing.assert_close(quantiles, wanted.expand(B, L, C, -1), rtol=1e-7, atol=1e-7 * spread)
