"""Losses over observed targets only. Predictions are (B, L, C, Q), targets and `observed` (B, L, C)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

HUBER_BOUND = 0.5
"""Where the Huber loss turns straight, in spreads of the training series."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def make_loss(name: str, levels: tuple[float, ...]) -> Loss:
    """Return the loss of a name: "quantile" (pinball over the levels), "student_t", "mae", "mse" or "huber"."""
    if name == "quantile":
        return lambda prediction, target, observed: pinball(prediction, target, observed, levels)
    return {"student_t": student_t, "mae": absolute, "mse": squared, "huber": huber}[name]


def pinball(prediction: Tensor, target: Tensor, observed: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Return twice the mean pinball loss, which at level one half is the absolute error."""
    return _Pinball.apply(prediction, target, observed, levels)


class _Pinball(torch.autograd.Function):
    """max(a e, (a - 1) e) of e = target - prediction is -e ([e < 0] - a), and the bracket is its slope.

    Predictions are the largest tensors of a training step: autograd would hold and walk through many of this size.
    """

    @staticmethod
    def forward(ctx, prediction, target, observed, levels):
        alpha = torch.tensor(levels, dtype=prediction.dtype, device=prediction.device)
        error = (target[..., None] - prediction).masked_fill_(~observed[..., None], 0.0)
        slope = (error < 0).to(error.dtype).sub_(alpha)
        share = 2 / (len(levels) * observed.sum().clamp_min(1)).to(error.dtype)
        loss = -(error.mul_(slope).sum() * share)
        ctx.save_for_backward(slope.mul_(observed[..., None]).mul_(share))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (slope,) = ctx.saved_tensors
        return slope * gradient, None, None, None


def absolute(prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
    """Return the mean absolute error of a point forecast."""
    return mean_over((prediction[..., 0] - target).abs(), observed)


def squared(prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
    """Return the mean squared error of a point forecast."""
    return mean_over((prediction[..., 0] - target).square(), observed)


def huber(prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
    """Return the mean Huber loss of a point forecast: square within HUBER_BOUND, straight beyond it."""
    error = nn.functional.huber_loss(prediction[..., 0], target, reduction="none", delta=HUBER_BOUND)
    return mean_over(error / HUBER_BOUND, observed)


def student_t(prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
    """Return the mean negative log likelihood of Student t distributions: location, scale, degrees of freedom."""
    location, scale, freedom = prediction.unbind(-1)
    # log(1 + u^2) as 2 log hypot(1, u): u^2 may exceed the largest float.
    u = (torch.where(observed, target, location.detach()) - location) / (scale * freedom.sqrt())
    tail = (freedom + 1) * torch.hypot(torch.ones_like(u), u).log()
    constant = torch.lgamma(freedom / 2) - torch.lgamma((freedom + 1) / 2) + (math.pi * freedom).log() / 2
    return mean_over(constant + scale.log() + tail, observed)


def mean_over(error: Tensor, observed: Tensor) -> Tensor:
    """Return the mean over observed targets; 0 if there are none."""
    return torch.where(observed, error, 0.0).sum() / observed.sum().clamp_min(1)
