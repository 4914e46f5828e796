import pytest
import torch
from helpers import normal

from xlstm_ts.nn.losses import absolute, make_loss, mean_over, pinball, squared

LEVELS = (0.1, 0.5, 0.8)


def everything(target):
    return torch.ones_like(target, dtype=torch.bool)


def test_pinball_by_hand():
    prediction = torch.tensor([1.0, 2.0, 5.0]).view(1, 1, 1, 3)
    target = torch.tensor([3.0]).view(1, 1, 1)
    # 0.1 * (3 - 1) = 0.2;  0.5 * (3 - 2) = 0.5;  (1 - 0.8) * (5 - 3) = 0.4;  twice their mean.
    expected = 2 * (0.2 + 0.5 + 0.4) / 3

    assert pinball(prediction, target, everything(target), LEVELS).item() == pytest.approx(expected)


def test_pinball_of_the_median_is_the_absolute_error():
    prediction, target = normal(3, 4, 2, 1), normal(3, 4, 2, seed=1)

    got = pinball(prediction, target, everything(target), (0.5,))

    torch.testing.assert_close(got, absolute(prediction, target, everything(target)))


@pytest.mark.parametrize("level", LEVELS)
def test_pinball_is_smallest_at_the_quantile_of_the_targets(level):
    target = torch.arange(1.0, 1001.0).view(-1, 1, 1)
    candidates = torch.arange(0.5, 1001.5, 1.0)

    losses = [pinball(c.expand(1000, 1, 1, 1), target, everything(target), (level,)).item() for c in candidates]

    assert abs(candidates[int(torch.tensor(losses).argmin())] / 1000 - level) <= 0.001


def test_mae_and_mse_by_hand_over_observed_targets():
    prediction = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    target = torch.tensor([2.0, -2.0, 100.0]).view(1, 3, 1)
    observed = torch.tensor([True, True, False]).view(1, 3, 1)

    assert absolute(prediction, target, observed).item() == pytest.approx((1 + 4) / 2)
    assert squared(prediction, target, observed).item() == pytest.approx((1 + 16) / 2)


@pytest.mark.parametrize("name", ["quantile", "mae", "mse"])
def test_unobserved_targets_carry_no_value_and_no_gradient(name):
    count = len(LEVELS) if name == "quantile" else 1
    loss_of = make_loss(name, LEVELS)
    target = normal(2, 5, 3, seed=1)
    observed = torch.rand(target.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    values, gradients = [], []
    for junk in (0.0, 1e9):
        prediction = normal(2, 5, 3, count).requires_grad_()
        loss = loss_of(prediction, torch.where(observed, target, junk), observed)
        loss.backward()
        values.append(loss.detach())
        gradients.append(prediction.grad)

    assert torch.equal(values[0], values[1])
    assert torch.equal(gradients[0], gradients[1])
    assert (gradients[0][~observed] == 0).all()
    assert (gradients[0][observed] != 0).all()


@pytest.mark.parametrize("name", ["quantile", "mae", "mse"])
def test_the_loss_of_nothing_observed_is_0_with_a_gradient_of_0(name):
    prediction = normal(2, 5, 3, len(LEVELS) if name == "quantile" else 1).requires_grad_()
    target = normal(2, 5, 3, seed=1)

    loss = make_loss(name, LEVELS)(prediction, target, torch.zeros_like(target, dtype=torch.bool))
    loss.backward()

    assert loss.item() == 0.0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@pytest.mark.parametrize(("name", "function"), [("mae", absolute), ("mse", squared)])
def test_a_name_gives_its_point_loss(name, function):
    assert make_loss(name, LEVELS) is function


def test_the_mean_counts_observed_targets_only():
    error = torch.tensor([[2.0, 4.0, 7.0]])

    assert mean_over(error, torch.tensor([[True, True, False]])).item() == 3.0
