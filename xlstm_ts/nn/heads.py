"""From features to forecasts: quantiles that never cross, or a point.

Both start at zero weights: an untrained head says 0, or the quantiles of a standard normal, whatever it reads.

Dimensions: B batch, G groups of channels (1 if the features speak for all channels, C if each has its own),
D width, L horizon steps, C channels, Q quantile levels.
"""

import itertools
import math
from statistics import NormalDist

import torch
from torch import Tensor, nn

SMALLEST_STEP = 1e-3  # of a starting quantile to the next: equal quantiles would leave softplus without a gradient


class QuantileHead(nn.Module):
    """Features (B, G, D) to quantiles (B, L, C, Q), increasing along Q by construction.

    The level nearest to one half is a free number; each level above it adds, each below it subtracts, a positive
    step: softplus of what the features say, in units of the gap between these levels of a standard normal.

    Parameters
    ----------
    width : int
        D.
    horizon, channels : int
        L, and the channels that one feature vector speaks for, C / G.
    levels : tuple of float
        Increasing quantile levels.
    """

    def __init__(self, width: int, horizon: int, channels: int, levels: tuple[float, ...]):
        super().__init__()
        self.horizon, self.channels, self.count = horizon, channels, len(levels)
        self.centre = min(range(len(levels)), key=lambda j: abs(levels[j] - 0.5))
        normal = [NormalDist().inv_cdf(level) for level in levels]
        self.start = normal[self.centre]
        self.gaps = [(b - a) / math.log(2) for a, b in itertools.pairwise(normal)]  # softplus(0) = log 2
        self.head_weight = nn.Parameter(torch.empty(horizon * channels * self.count, width))
        self.head_bias = nn.Parameter(torch.empty(horizon * channels * self.count))

    def forward(self, features: Tensor) -> Tensor:
        """Return the quantiles, (B, L, C, Q)."""
        raw = nn.functional.linear(features, self.head_weight, self.head_bias)
        raw = _per_step(raw, self.horizon, self.channels, self.count)
        gaps = torch.tensor(self.gaps, dtype=raw.dtype, device=raw.device)
        middle = raw[..., self.centre : self.centre + 1] + self.start
        above = (nn.functional.softplus(raw[..., self.centre + 1 :]) * gaps[self.centre :]).cumsum(-1)
        below = (nn.functional.softplus(raw[..., : self.centre]) * gaps[: self.centre]).flip(-1).cumsum(-1).flip(-1)
        return torch.cat([middle - below, middle, middle + above], dim=-1)

    @torch.no_grad()
    def start_from(self, quantiles: Tensor) -> None:
        """Set the bias so that the untrained head says `quantiles`, (L, C / G, Q)."""
        middle = quantiles[..., self.centre : self.centre + 1] - self.start
        gaps = torch.tensor(self.gaps, dtype=quantiles.dtype, device=quantiles.device)
        steps = (quantiles.diff(dim=-1) / gaps).clamp_min(SMALLEST_STEP)
        raw = steps + torch.log(-torch.expm1(-steps))  # the inverse of softplus, without overflow
        bias = torch.cat([raw[..., : self.centre], middle, raw[..., self.centre :]], dim=-1)
        self.head_bias.copy_(bias.flatten())


class PointHead(nn.Module):
    """Features (B, G, D) to one value per step and channel, (B, L, C, 1). Parameters as in `QuantileHead`."""

    def __init__(self, width: int, horizon: int, channels: int):
        super().__init__()
        self.horizon, self.channels = horizon, channels
        self.head_weight = nn.Parameter(torch.empty(horizon * channels, width))
        self.head_bias = nn.Parameter(torch.empty(horizon * channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return the point forecast, (B, L, C, 1)."""
        raw = nn.functional.linear(features, self.head_weight, self.head_bias)
        return _per_step(raw, self.horizon, self.channels, 1)


def _per_step(raw: Tensor, horizon: int, channels: int, count: int) -> Tensor:
    """Reshape (B, G, L * C/G * Q) to (B, L, C, Q)."""
    return raw.unflatten(-1, (horizon, channels, count)).transpose(1, 2).flatten(2, 3)
