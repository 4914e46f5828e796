"""The linear forecast: a window, as seen from its last observed value, times one matrix for all channels.

Dimensions: B batch, T steps of the window, L horizon steps, C channels.
"""

import torch
from torch import Tensor


def linear_forecast(window: Tensor, seen: Tensor, weight: Tensor) -> Tensor:
    """Map windows (B, T, C) by a weight (L, T) to the horizon, (B, L, C)."""
    relative, anchor = from_last_value(window, seen)
    return anchor + torch.einsum("btc,lt->blc", relative, weight)


def from_last_value(window: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return a window (B, T, C) relative to its last observed value, 0 where unseen, and that value (B, 1, C)."""
    steps = torch.arange(1, window.shape[1] + 1, device=window.device)[:, None]
    last = (seen * steps).amax(1, keepdim=True)  # 0 where nothing was seen
    anchor = torch.where(last > 0, window.gather(1, (last - 1).clamp_min(0)), 0.0)
    return torch.where(seen, window - anchor, 0.0), anchor
