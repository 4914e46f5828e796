"""Rows with targets of their own, as the training loop reads them: beside each row its window and its target.

Dimensions: B rows of a batch, N rows, T context steps, C columns of inputs, K targets.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xlstm_ts.data.windows import Batch, Windows


@dataclass(frozen=True)
class RowWindows:
    """The windows that end in given rows of a series, and what is to be learned from each.

    Parameters
    ----------
    inputs : Windows
        The series that is read; never the targets.
    ends : array of shape (N,), int
        The row after the last one of each window.
    values : Tensor of shape (N, K), float32
        Scaled targets.
    """

    inputs: Windows
    ends: np.ndarray
    values: Tensor

    @classmethod
    def of(cls, inputs: Windows, ends: np.ndarray, scaled: np.ndarray) -> "RowWindows":
        """Take scaled float64 targets."""
        values = torch.from_numpy(scaled).to(inputs.values.device, torch.float32)
        return cls(inputs, ends, values)

    def batch(self, rows: np.ndarray, stop: int) -> Batch:
        """Return windows and targets of some rows; targets count as missing from row `stop` on."""
        target = self.values[torch.as_tensor(rows, device=self.values.device)][:, None]  # [B, 1, K]
        seen = torch.as_tensor(rows < stop, device=self.values.device)[:, None, None].expand_as(target)
        return Batch(*self.inputs.contexts(self.ends[rows]), target, seen)
