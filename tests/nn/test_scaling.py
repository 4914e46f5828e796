import pytest
import torch
from helpers import normal

from xlstm_ts.nn.scaling import SCALE_FLOOR, LocScale, apply_scale, instance_scale


def test_each_channel_of_each_window_is_measured_by_itself_over_what_was_observed():
    values = torch.tensor([[[1.0, 7.0], [3.0, 9.0], [5.0, 99.0]]]).repeat(1, 4, 1)
    observed = torch.tensor([[[True, True], [True, True], [True, False]]]).repeat(1, 4, 1)

    loc, scale = instance_scale(values, observed)

    torch.testing.assert_close(loc, torch.tensor([[[3.0, 8.0]]]))
    torch.testing.assert_close(scale, torch.tensor([[[(8 / 3) ** 0.5, 1.0]]]))


def test_scaled_windows_have_mean_0_and_spread_1():
    values = normal(4, 50, 3) * 7 + 100
    observed = torch.ones_like(values, dtype=torch.bool)

    scaled = apply_scale(values, observed, instance_scale(values, observed))

    torch.testing.assert_close(scaled.mean(1), torch.zeros(4, 3, dtype=torch.float64))
    torch.testing.assert_close(scaled.std(1, correction=0), torch.ones(4, 3, dtype=torch.float64))


def test_a_channel_with_nothing_observed_gets_the_training_level_and_spread():
    values = normal(2, 5, 2)
    observed = torch.zeros_like(values, dtype=torch.bool)
    observed[0] = True

    loc, scale = instance_scale(values, observed)

    assert torch.equal(loc[1], torch.zeros(1, 2, dtype=torch.float64))
    assert torch.equal(scale[1], torch.ones(1, 2, dtype=torch.float64))


@pytest.mark.parametrize("move", [0.0, 1e-6])
def test_a_flat_window_keeps_a_floor_of_its_scale(move):
    values = torch.tensor([[[4.0], [4.0 + move]]], dtype=torch.float64).repeat(1, 4, 1)

    _, scale = instance_scale(values, torch.ones_like(values, dtype=torch.bool))

    assert scale.item() == SCALE_FLOOR


def test_few_values_borrow_from_the_spread_of_the_training_series():
    values = torch.tensor([[[4.0], [6.0], [99.0]]], dtype=torch.float64)

    for count, spread in [(1, (2 / 3) ** 0.5), (2, ((1 + 1 + 2) / 4) ** 0.5)]:
        observed = torch.arange(3)[None, :, None] < count
        assert instance_scale(values, observed).scale.item() == pytest.approx(spread)


@pytest.mark.parametrize("junk", [0.0, -5.0, 3e38])
def test_unobserved_values_are_never_read_and_come_out_as_zero(junk):
    values = normal(2, 6, 2, dtype=torch.float32)
    observed = torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    expected_scale = instance_scale(values, observed)
    expected = apply_scale(values, observed, expected_scale)
    changed = torch.where(observed, values, junk)

    scale = instance_scale(changed, observed)
    scaled = apply_scale(changed, observed, scale)

    assert torch.equal(scale.loc, expected_scale.loc)
    assert torch.equal(scale.scale, expected_scale.scale)
    assert torch.equal(scaled, expected)
    assert (scaled[~observed] == 0).all()


def test_apply_scale_subtracts_and_divides():
    by = LocScale(torch.tensor([[[10.0]]]), torch.tensor([[[4.0]]]))
    values = torch.tensor([[[12.0], [2.0]]])

    scaled = apply_scale(values, torch.tensor([[[True], [False]]]), by)

    assert scaled.flatten().tolist() == [0.5, 0.0]
