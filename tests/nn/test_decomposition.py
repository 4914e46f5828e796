"""Trend and remainder: the moving average by hand, and that nothing is lost between them."""

from dataclasses import replace

import pytest
import torch
from helpers import SMALL_NETWORK, generator, normal

from xlstm_ts.nn.decomposition import Decomposed, moving_average
from xlstm_ts.nn.network import make_backbone


def column(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1)


def test_the_moving_average_by_hand_over_observed_values():
    values = column(0, 0, 3, 5, 0, 0, 0, 8)
    observed = column(0, 0, 1, 1, 0, 0, 0, 1).bool()

    average, seen = moving_average(values, observed, 3)

    assert average.flatten().tolist() == pytest.approx([3, 4, 4, 5, 0, 8])
    assert seen.flatten().tolist() == [True, True, True, True, False, True]


class Recorder(torch.nn.Module):
    """A backbone that keeps what it reads."""

    groups, width = 1, 1

    def forward(self, values, observed, state=None, covariates=None):
        self.values, self.observed = values, observed
        return values[:, -1:, :1], state


def test_trend_and_remainder_add_up_to_what_was_observed():
    parts = Recorder(), Recorder()
    observed = torch.rand(2, 9, 3, generator=generator(1)) < 0.7
    values = torch.where(observed, normal(2, 9, 3), 0.0)

    Decomposed(*parts, 4)(values, observed)

    trend, remainder = parts
    torch.testing.assert_close(torch.where(observed, trend.values + remainder.values, 0.0), values)
    assert torch.equal(remainder.observed, observed)
    assert trend.observed[observed].all()


@pytest.mark.parametrize("backbone", ["patch", "stacked", "mixer"])
def test_a_decomposed_backbone_is_two_of_its_kind(backbone):
    config = replace(SMALL_NETWORK, backbone=backbone, channels=2, decomposition=3)
    single = make_backbone(replace(config, decomposition=None))

    double = make_backbone(config)

    assert double.width == 2 * single.width
    assert double.groups == single.groups
    assert sum(p.numel() for p in double.parameters()) == 2 * sum(p.numel() for p in single.parameters())
