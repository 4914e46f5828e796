"""From features to forecasts: quantiles that never cross, a Student t distribution, or a point.

All start at zero weights: an untrained head says 0, or a distribution around it of scale 1, whatever it reads.

Dimensions: B batch, G groups of channels (1 if the features speak for all channels, C if each has its own),
D width, L horizon steps, C channels, Q quantile levels.
"""

import itertools
import math
from statistics import NormalDist

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from xlstm_ts.kernels.parts import project

SMALLEST_STEP = 1e-3  # of a starting quantile to the next: equal quantiles would leave softplus without a gradient


LEAST_FREEDOM = 2.0
"""Degrees of freedom stay above this: below it a Student t has no variance."""


START_FREEDOM = 5.0


class Head(nn.Module):
    """What heads whose outputs are all values of the series have in common."""

    def move(self, forecast: Tensor, by: Tensor, times: Tensor | float = 1.0) -> Tensor:
        """Return the forecast of `times` * series + `by`; both broadcast against (B, L, C, 1)."""
        return forecast * times + by

    def widen(self, forecast: Tensor, factor: Tensor) -> Tensor:
        """Return the forecast with its spread times a factor (B, L, C, 1): a point has none."""
        return forecast

    def quantiles(self, forecast: Tensor) -> Tensor:
        """Return what the forecast says about quantiles, (B, L, C, Q): the values themselves."""
        return forecast


class QuantileHead(Head):
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
        (raw,) = project((features, self.head_weight, self.head_bias))
        # One softplus over all of it, the level in the middle too: over slices it takes ten times as long.
        steps = _per_step(nn.functional.softplus(raw), self.horizon, self.channels, self.count)
        raw = _per_step(raw, self.horizon, self.channels, self.count)
        gaps = torch.tensor(self.gaps, dtype=raw.dtype, device=raw.device)
        middle = raw[..., self.centre : self.centre + 1] + self.start
        above = (steps[..., self.centre + 1 :] * gaps[self.centre :]).cumsum(-1)
        below = (steps[..., : self.centre] * gaps[: self.centre]).flip(-1).cumsum(-1).flip(-1)
        return torch.cat([middle - below, middle, middle + above], dim=-1)

    def widen(self, forecast: Tensor, factor: Tensor) -> Tensor:
        """Return the forecast with its spread around the middle level times a factor (B, L, C, 1)."""
        middle = forecast[..., self.centre : self.centre + 1]
        return middle + (forecast - middle) * factor

    @torch.no_grad()
    def start_from(self, quantiles: Tensor) -> None:
        """Set the bias so that the untrained head says `quantiles`, (L, C / G, Q)."""
        middle = quantiles[..., self.centre : self.centre + 1] - self.start
        gaps = torch.tensor(self.gaps, dtype=quantiles.dtype, device=quantiles.device)
        steps = (quantiles.diff(dim=-1) / gaps).clamp_min(SMALLEST_STEP)
        raw = _inverse_softplus(steps)
        bias = torch.cat([raw[..., : self.centre], middle, raw[..., self.centre :]], dim=-1)
        self.head_bias.copy_(bias.flatten())


class StudentTHead(nn.Module):
    """Features (B, G, D) to location, scale and degrees of freedom of a Student t, (B, L, C, 3).

    Parameters as in `QuantileHead`; `levels` are those at which `quantiles` are taken.
    """

    def __init__(self, width: int, horizon: int, channels: int, levels: tuple[float, ...]):
        super().__init__()
        self.horizon, self.channels, self.levels = horizon, channels, levels
        self.head_weight = nn.Parameter(torch.empty(horizon * channels * 3, width))
        self.head_bias = nn.Parameter(torch.empty(horizon * channels * 3))

    def forward(self, features: Tensor) -> Tensor:
        """Return the parameters, (B, L, C, 3)."""
        (raw,) = project((features, self.head_weight, self.head_bias))
        raw = _per_step(raw, self.horizon, self.channels, 3)
        one = nn.functional.softplus(raw[..., 1:]) / math.log(2)  # 1 at the start
        scale, freedom = one[..., :1] + SMALLEST_STEP, LEAST_FREEDOM + (START_FREEDOM - LEAST_FREEDOM) * one[..., 1:]
        return torch.cat([raw[..., :1], scale, freedom], dim=-1)

    def move(self, forecast: Tensor, by: Tensor, times: Tensor | float = 1.0) -> Tensor:
        """Return the forecast of `times` * series + `by`; both broadcast against (B, L, C, 1)."""
        location, scale, freedom = forecast.split(1, dim=-1)
        return torch.cat([location * times + by, scale * times, freedom], dim=-1)

    def widen(self, forecast: Tensor, factor: Tensor) -> Tensor:
        """Return the forecast with its spread times a factor (B, L, C, 1)."""
        location, scale, freedom = forecast.split(1, dim=-1)
        return torch.cat([location, scale * factor, freedom], dim=-1)

    def quantiles(self, forecast: Tensor) -> Tensor:
        """Return the quantiles at the levels, (B, L, C, Q), without gradients."""
        location, scale, freedom = forecast.detach().double().cpu().split(1, dim=-1)
        standard = torch.from_numpy(stdtrit(freedom.numpy(), np.array(self.levels)))
        return (location + scale * standard).to(forecast)

    @torch.no_grad()
    def start_from(self, quantiles: Tensor) -> None:
        """Set the bias so that the untrained head has the middle and the spread of `quantiles`, (L, C / G, Q)."""
        middle, low, high = (
            min(range(len(self.levels)), key=lambda j: abs(self.levels[j] - x)) for x in (0.5, 0.1, 0.9)
        )
        standard = stdtrit(START_FREEDOM, np.array(self.levels))
        location, scale = quantiles[..., middle], torch.ones_like(quantiles[..., 0])
        if high > low:
            scale = (quantiles[..., high] - quantiles[..., low]) / (standard[high] - standard[low])
        raw = _inverse_softplus((scale - SMALLEST_STEP).clamp_min(SMALLEST_STEP) * math.log(2))
        self.head_bias.copy_(torch.stack([location, raw, torch.zeros_like(raw)], dim=-1).flatten())


class PointHead(Head):
    """Features (B, G, D) to one value per step and channel, (B, L, C, 1). Parameters as in `QuantileHead`."""

    def __init__(self, width: int, horizon: int, channels: int):
        super().__init__()
        self.horizon, self.channels = horizon, channels
        self.head_weight = nn.Parameter(torch.empty(horizon * channels, width))
        self.head_bias = nn.Parameter(torch.empty(horizon * channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return the point forecast, (B, L, C, 1)."""
        (raw,) = project((features, self.head_weight, self.head_bias))
        return _per_step(raw, self.horizon, self.channels, 1)


def _inverse_softplus(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))  # without overflow


def _per_step(raw: Tensor, horizon: int, channels: int, count: int) -> Tensor:
    """Reshape (B, G, L * C/G * Q) to (B, L, C, Q)."""
    return raw.unflatten(-1, (horizon, channels, count)).transpose(1, 2).flatten(2, 3)
