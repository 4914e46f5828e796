"""Windows by index arithmetic: an origin is the row of the first target, the context ends just before it.

                      origin
    ... [ context_length | horizon ] ...

Rows before the series or after `stop` count as missing, so that short histories and short futures need no special
case. Dimensions: B windows, T context steps, L horizon steps, C channels, N rows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST = 1e15
"""Values further than this many spreads from the level of their series count as that far: the network squares
differences, and a float32 ends at 3e38."""


ENOUGH_WHOLE = 8
"""Windows with whole targets below which partial ones are used as well."""


class Batch(NamedTuple):
    """Some windows; what was not observed is 0 with a False beside it."""

    context: Tensor  # [B, T, C]
    context_observed: Tensor
    target: Tensor  # [B, L, C]
    target_observed: Tensor


@dataclass(frozen=True)
class Windows:
    """All windows of one scaled series.

    Parameters
    ----------
    values : Tensor of shape (N, C), float32
        Scaled values, 0 where missing.
    observed : Tensor of shape (N, C), bool
        Which values were seen.
    context_length, horizon : int
        T and L.
    """

    values: Tensor
    observed: Tensor
    context_length: int
    horizon: int

    @classmethod
    def of(cls, scaled: np.ndarray, context_length: int, horizon: int, device: torch.device) -> "Windows":
        """Take a scaled float64 array with NaN for missing."""
        observed = ~np.isnan(scaled)
        scaled = np.clip(scaled, -LARGEST, LARGEST)
        values = torch.from_numpy(np.where(observed, scaled, 0.0)).to(device, torch.float32)
        return cls(values, torch.from_numpy(observed).to(device), context_length, horizon)

    def contexts(self, origins: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return values and observed flags of the contexts, (B, T, C) each."""
        return self._gather(origins, -self.context_length, self.context_length, len(self.values))

    def batch(self, origins: np.ndarray, stop: int) -> Batch:
        """Return windows whose targets count as missing from row `stop` on."""
        return Batch(*self.contexts(origins), *self._gather(origins, 0, self.horizon, stop))

    def usable(self, origins: np.ndarray, stop: int) -> np.ndarray:
        """Keep the origins that have an observed value in the context and one in the targets."""
        seen = torch.cumsum(self.observed.any(1).to(torch.int64), 0).cpu().numpy()
        seen = np.concatenate([[0], seen])
        before = seen[origins] - seen[np.maximum(origins - self.context_length, 0)]
        after = seen[np.minimum(origins + self.horizon, stop)] - seen[np.minimum(origins, stop)]
        return origins[(before > 0) & (after > 0)]

    def _gather(self, origins: np.ndarray, offset: int, length: int, stop: int) -> tuple[Tensor, Tensor]:
        device = self.values.device
        rows = torch.as_tensor(origins, device=device)[:, None] + torch.arange(offset, offset + length, device=device)
        inside = (rows >= 0) & (rows < stop)
        rows = rows.clamp(0, len(self.values) - 1)
        observed = self.observed[rows] & inside[..., None]
        return torch.where(observed, self.values[rows], 0.0), observed


class Split(NamedTuple):
    """Rows at which the training period is cut: targets of training end before `train`, those that decide when to
    stop lie in [train, stop), those that calibrate intervals in [stop, end).
    """

    train: int
    stop: int
    end: int


def split_by_target_time(rows: int, horizon: int, fraction: float) -> Split:
    """Cut the end of the training period off for validation, by target time.

    Its earlier half decides when to stop, its later half calibrates. Where a half would not hold one whole
    horizon, nothing is cut off.
    """
    half = int(rows * fraction) // 2
    if half < horizon:
        return Split(rows, rows, rows)
    return Split(rows - 2 * half, rows - half, rows)


def training_origins(stop: int, horizon: int) -> np.ndarray:
    """Return the origins of training windows: whole targets before `stop`, or, in a short series, partial ones."""
    whole = stop - horizon
    return np.arange(1, whole + 1) if whole >= ENOUGH_WHOLE else np.arange(1, stop)


def held_out_origins(start: int, stop: int, horizon: int) -> np.ndarray:
    """Return the origins whose whole targets lie in [start, stop)."""
    return np.arange(start, stop - horizon + 1)
