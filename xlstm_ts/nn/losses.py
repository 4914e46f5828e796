"""Losses over observed targets only. Predictions are (B, L, C, Q), targets and `observed` (B, L, C)."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def make_loss(name: str, levels: tuple[float, ...]) -> Loss:
    """Return the loss of a name: "quantile" (pinball, averaged over the levels), "mae" or "mse"."""
    if name == "quantile":
        return lambda prediction, target, observed: pinball(prediction, target, observed, levels)
    return {"mae": absolute, "mse": squared}[name]


def pinball(prediction: Tensor, target: Tensor, observed: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Return twice the mean pinball loss, which at level one half is the absolute error."""
    alpha = torch.tensor(levels, dtype=prediction.dtype, device=prediction.device)
    error = target[..., None] - prediction
    return mean_over(torch.maximum(alpha * error, (alpha - 1) * error).mean(-1), observed) * 2


def absolute(prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
    """Return the mean absolute error of a point forecast."""
    return mean_over((prediction[..., 0] - target).abs(), observed)


def squared(prediction: Tensor, target: Tensor, observed: Tensor) -> Tensor:
    """Return the mean squared error of a point forecast."""
    return mean_over((prediction[..., 0] - target).square(), observed)


def mean_over(error: Tensor, observed: Tensor) -> Tensor:
    """Return the mean over observed targets; 0 if there are none."""
    return torch.where(observed, error, 0.0).sum() / observed.sum().clamp_min(1)
