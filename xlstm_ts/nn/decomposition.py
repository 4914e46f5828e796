"""Trend and remainder, each read by a backbone of its own.

The trend is the mean of the last steps, as xLSTMTime (Alharthi and Mahmood 2024, arXiv 2407.10240) takes it, but
trailing instead of centred: it then is the same whether a series comes in one piece or in many.

Dimensions: B batch, T steps, C channels, W steps of the moving average.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_ts.nn.backbones import Backbone


class DecompositionState(NamedTuple):
    """State of both backbones, and the last W - 1 steps, (B, W - 1, C)."""

    trend: Any
    remainder: Any
    values: Tensor
    observed: Tensor


class Decomposed(nn.Module):
    """A backbone that reads the trend beside one that reads the remainder; their features side by side.

    Parameters
    ----------
    trend, remainder : Backbone
        Of one kind.
    window : int
        W, steps of the moving average.
    """

    def __init__(self, trend: Backbone, remainder: Backbone, window: int):
        super().__init__()
        self.trend, self.remainder, self.window = trend, remainder, window
        self.groups, self.width = trend.groups, trend.width + remainder.width

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        state: DecompositionState | None = None,
        covariates: Tensor | None = None,
    ) -> tuple[Tensor, DecompositionState]:
        """Read a piece of context; see `Backbone`."""
        past, seen, average, any_seen, rest = self._views(values, observed, state)
        before: Any = (None, None) if state is None else (state.trend, state.remainder)
        trend, after_trend = self.trend(average, any_seen, before[0], covariates)
        remainder, after_remainder = self.remainder(rest, observed, before[1], covariates)
        tail = past.shape[1] - (self.window - 1)
        state = DecompositionState(after_trend, after_remainder, past[:, tail:], seen[:, tail:])
        return torch.cat([trend, remainder], dim=-1), state

    def features(self, values: Tensor, observed: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return the features alone; see `Backbone`."""
        _, _, average, any_seen, rest = self._views(values, observed, None)
        trend = self.trend.features(average, any_seen, covariates)
        return torch.cat([trend, self.remainder.features(rest, observed, covariates)], dim=-1)

    def _views(self, values: Tensor, observed: Tensor, state: DecompositionState | None) -> tuple[Tensor, ...]:
        """Return what the average reaches and its flags, the trend and its flags, and the remainder."""
        if state is None:
            pad = (0, 0, self.window - 1, 0)
            past, seen = nn.functional.pad(values, pad), nn.functional.pad(observed, pad)
        else:
            past = torch.cat([state.values, values], dim=1)
            seen = torch.cat([state.observed, observed], dim=1)
        average, any_seen = moving_average(past, seen, self.window)
        rest = torch.where(observed, values - average, 0.0)
        return past, seen, average, any_seen, rest


def moving_average(values: Tensor, observed: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Return the mean of what was observed in each run of `window` steps, and whether anything was.

    Parameters
    ----------
    values : Tensor of shape (B, T + W - 1, C)
        0 where not observed.
    observed : Tensor of shape (B, T + W - 1, C), bool
        Which values were seen.
    window : int
        W.

    Returns
    -------
    average : Tensor of shape (B, T, C)
        0 where nothing was observed.
    seen : Tensor of shape (B, T, C), bool
        Whether something was.
    """
    mean, share = (
        nn.functional.avg_pool1d(x.transpose(1, 2), window, stride=1).transpose(1, 2)
        for x in (values, observed.to(values.dtype))
    )
    seen = share > 0.5 / window
    return torch.where(seen, mean / torch.where(seen, share, 1.0), 0.0), seen
