"""What covariates say of the horizon: a shift of the forecast, and a factor on its width.

A linear part, which the start of training sets by regression, works in units of the training series, so that an
effect is the same in calm and in moving windows. A small network over the same covariates and the features of the
backbone adds what is not linear, in units of the window. All start at zero: no shift, and a factor of 1.

Dimensions: B batch, G groups of channels, D width of the backbone, U units, L horizon steps, C channels, E features of
covariates, F of them known ahead.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

WIDEST = 3.0  # of the logarithm of the factor on the width
UNITS = 16  # U; there is one per window, channel and step, so wide ones cost more than all the rest of the network


class Effect(NamedTuple):
    """What covariates do to a forecast."""

    linear: Tensor  # [B, L, C], in units of the training series
    shift: Tensor  # [B, L, C], in units of the window
    log_width: Tensor  # [B, L, C]


class CovariateEffect(nn.Module):
    """Features of the last step of the context, and those of the horizon that are known ahead, to an `Effect`.

    Parameters
    ----------
    known : tuple of bool
        For each of the E features, whether it is known ahead.
    width : int
        D.
    horizon, channels, groups : int
        L, C and G.
    """

    def __init__(self, known: tuple[bool, ...], width: int, horizon: int, channels: int, groups: int):
        super().__init__()
        self.channels, self.groups = channels, groups
        self.covariate_weight = nn.Parameter(torch.empty(horizon, channels, sum(known) + len(known)))
        self.from_covariates = nn.Linear(sum(known) + len(known), UNITS)
        self.from_features = nn.Linear(width, UNITS, bias=False)
        self.head_weight = nn.Parameter(torch.empty(2 * channels // groups, UNITS))

    def forward(self, covariates: Tensor, future: Tensor, features: Tensor) -> Effect:
        """Return the effect of covariates (B, T, E) and (B, L, F), beside the features (B, G, D) of the backbone."""
        read = horizon_features(covariates, future)
        hidden = self.from_covariates(read)[:, None] + self.from_features(features)[:, :, None]  # [B, G, L, U]
        raw = nn.functional.linear(nn.functional.gelu(hidden), self.head_weight)
        raw = raw.unflatten(-1, (self.channels // self.groups, 2)).transpose(1, 2).flatten(2, 3)  # [B, L, C, 2]
        return Effect(self.linear(covariates, future), raw[..., 0], WIDEST * torch.tanh(raw[..., 1] / WIDEST))

    def linear(self, covariates: Tensor, future: Tensor) -> Tensor:
        """Return the linear part, (B, L, C)."""
        return torch.einsum("blz,lcz->blc", horizon_features(covariates, future), self.covariate_weight)


def horizon_features(covariates: Tensor, future: Tensor) -> Tensor:
    """Return what is known of each step: its own features and those of the last step before, (B, L, F + E)."""
    return torch.cat([future, covariates[:, -1:].expand(-1, future.shape[1], -1)], dim=-1)
