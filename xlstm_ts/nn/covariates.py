"""What covariates say of the horizon: a shift of the forecast, and a factor on its width.

A linear part, which the start of training sets by regression, works in units of the training series, so that an
effect is the same in calm and in moving windows. A small network over the step's covariates and the features of the
backbone adds what is not linear, in units of the window. All start at zero: no shift, and a factor of 1.

Dimensions: B batch, G groups of channels, D width, L horizon steps, C channels, F features known ahead.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

WIDEST = 3.0  # of the logarithm of the factor on the width


class Effect(NamedTuple):
    """What covariates do to a forecast."""

    linear: Tensor  # [B, L, C], in units of the training series
    shift: Tensor  # [B, L, C], in units of the window
    log_width: Tensor  # [B, L, C]


class CovariateEffect(nn.Module):
    """Features of the horizon, and of the last step before it, to an `Effect`.

    Parameters
    ----------
    known : int
        F.
    width : int
        D.
    horizon, channels, groups : int
        L, C and G.
    """

    def __init__(self, known: int, width: int, horizon: int, channels: int, groups: int):
        super().__init__()
        self.channels, self.groups = channels, groups
        self.covariate_weight = nn.Parameter(torch.empty(horizon, channels, 2 * known))
        self.from_future = nn.Linear(known, width)
        self.from_features = nn.Linear(width, width, bias=False)
        self.head_weight = nn.Parameter(torch.empty(2 * channels // groups, width))

    def forward(self, future: Tensor, last: Tensor, features: Tensor) -> Effect:
        """Return the effect of features (B, L, F) of the horizon and (B, 1, F) of the last step of the context."""
        hidden = self.from_future(future)[:, None] + self.from_features(features)[:, :, None]  # [B, G, L, D]
        raw = nn.functional.linear(nn.functional.gelu(hidden), self.head_weight)
        raw = raw.unflatten(-1, (self.channels // self.groups, 2)).transpose(1, 2).flatten(2, 3)  # [B, L, C, 2]
        return Effect(self.linear(future, last), raw[..., 0], WIDEST * torch.tanh(raw[..., 1] / WIDEST))

    def linear(self, future: Tensor, last: Tensor) -> Tensor:
        """Return the linear part, (B, L, C)."""
        both = torch.cat([future, last.expand_as(future)], dim=-1)
        return torch.einsum("blf,lcf->blc", both, self.covariate_weight)
