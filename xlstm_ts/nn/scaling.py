"""Instance scaling: each window is brought to mean 0 and spread 1 by what is observed in it.

What comes in has already had the level and scale of its whole series removed (in float64, in `xlstm_ts.data`), so
1 is the spread of the training series. Dimensions: B batch, T context steps, C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SCALE_FLOOR = 0.01
"""Smallest scale of a window, as a fraction of the spread of its training series: a flat window inside a moving
series keeps it, so that its intervals do not collapse."""


FEW = 8
"""Observed values below which a window's spread is mixed with that of its training series: one value has none."""

PRIOR = 2.0
"""How many observed values the spread of the training series then counts for."""


class LocScale(NamedTuple):
    """Affine map of a window: loc and scale, both (B, 1, C)."""

    loc: Tensor
    scale: Tensor


def instance_scale(values: Tensor, observed: Tensor) -> LocScale:
    """Return mean and standard deviation of the observed values of each window and channel.

    Parameters
    ----------
    values : Tensor of shape (B, T, C)
        Anything finite where not observed.
    observed : Tensor of shape (B, T, C), bool
        Which values were seen. A channel without any gets the training level and spread: 0 and 1.
    """
    values = torch.where(observed, values, 0.0)
    count = observed.sum(1, keepdim=True)
    loc = values.sum(1, keepdim=True) / count.clamp_min(1)
    deviations = torch.where(observed, values - loc, 0.0)
    squares = deviations.square().sum(1, keepdim=True)
    spread = (squares / count.clamp_min(1)).sqrt().clamp_min(SCALE_FLOOR)
    mixed = ((squares + PRIOR) / (count + PRIOR)).sqrt()  # 1 where nothing was seen
    return LocScale(loc, torch.where(count >= FEW, spread, mixed))


def apply_scale(values: Tensor, observed: Tensor, by: LocScale) -> Tensor:
    """Scale a window; what was not observed becomes 0."""
    return torch.where(observed, (values - by.loc) / by.scale, 0.0)
