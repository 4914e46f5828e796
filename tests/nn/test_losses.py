import pytest
import torch
from helpers import normal
from scipy import stats

from xlstm_ts.nn.losses import HUBER_BOUND, absolute, huber, make_loss, mean_over, pinball, squared, student_t

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


def test_pinball_and_its_gradient_are_those_of_its_definition():
    def by_definition(prediction, target, observed):
        alpha, error = torch.tensor(LEVELS, dtype=target.dtype), target[..., None] - prediction
        return mean_over(torch.maximum(alpha * error, (alpha - 1) * error).mean(-1), observed) * 2

    target, observed = normal(5, 4, 2, seed=1), normal(5, 4, 2, seed=2) > -0.5
    target[~observed] = 1e30
    losses, gradients = [], []
    for loss in (by_definition, lambda *arguments: pinball(*arguments, LEVELS)):
        prediction = normal(5, 4, 2, 3).requires_grad_()
        losses.append(loss(prediction, target, observed))
        (3 * losses[-1]).backward()
        gradients.append(prediction.grad)

    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    nothing = torch.zeros_like(observed)
    assert pinball(normal(5, 4, 2, 3), target, nothing, LEVELS).item() == 0.0


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


def test_huber_is_square_near_0_and_straight_beyond_its_bound():
    target = torch.tensor([0.2, -3.0]).view(1, 2, 1)
    # In units of the bound: 0.2² / (2 · 0.5) = 0.04;  3 - 0.5 / 2 = 2.75.
    expected = (0.2**2 / (2 * HUBER_BOUND) + 3.0 - HUBER_BOUND / 2) / 2

    assert huber(torch.zeros(1, 2, 1, 1), target, everything(target)).item() == pytest.approx(expected)


def test_the_loss_of_a_student_t_is_its_negative_log_likelihood():
    location, target = normal(2, 3, 1), normal(2, 3, 1, seed=1)
    scale, freedom = normal(2, 3, 1, seed=2).exp(), 2 + normal(2, 3, 1, seed=3).exp()

    got = student_t(torch.stack([location, scale, freedom], -1), target, everything(target))

    expected = -stats.t.logpdf(target.numpy(), freedom.numpy(), location.numpy(), scale.numpy()).mean()
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_the_loss_of_a_student_t_stays_finite_where_squares_would_not():
    prediction = torch.tensor([0.0, 1e-5, 3.0]).view(1, 1, 1, 3).requires_grad_()
    target = torch.full((1, 1, 1), 1e15)

    loss = student_t(prediction, target, everything(target))
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("name", ["quantile", "student_t", "mae", "mse", "huber"])
def test_unobserved_targets_carry_no_value_and_no_gradient(name):
    count = {"quantile": len(LEVELS), "student_t": 3}.get(name, 1)
    loss_of = make_loss(name, LEVELS)
    target = normal(2, 5, 3, seed=1)
    observed = torch.rand(target.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    values, gradients = [], []
    for junk in (0.0, 1e9):
        prediction = normal(2, 5, 3, count).abs().requires_grad_()
        loss = loss_of(prediction, torch.where(observed, target, junk), observed)
        loss.backward()
        values.append(loss.detach())
        gradients.append(prediction.grad)

    assert torch.equal(values[0], values[1])
    assert torch.equal(gradients[0], gradients[1])
    assert (gradients[0][~observed] == 0).all()
    assert (gradients[0][observed] != 0).all()


@pytest.mark.parametrize("name", ["quantile", "student_t", "mae", "mse", "huber"])
def test_the_loss_of_nothing_observed_is_0_with_a_gradient_of_0(name):
    count = {"quantile": len(LEVELS), "student_t": 3}.get(name, 1)
    prediction = normal(2, 5, 3, count).abs().requires_grad_()
    target = normal(2, 5, 3, seed=1)

    loss = make_loss(name, LEVELS)(prediction, target, torch.zeros_like(target, dtype=torch.bool))
    loss.backward()

    assert loss.item() == 0.0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@pytest.mark.parametrize(("name", "function"), [("mae", absolute), ("mse", squared), ("huber", huber)])
def test_a_name_gives_its_point_loss(name, function):
    assert make_loss(name, LEVELS) is function


def test_the_mean_counts_observed_targets_only():
    error = torch.tensor([[2.0, 4.0, 7.0]])

    assert mean_over(error, torch.tensor([[True, True, False]])).item() == 3.0
