"""The norm of the cells' output. Dimensions: B batch, T steps, H heads, V head width."""

import torch
from torch import Tensor, nn

from xlstm_ts.kernels.parts import head_norm


class HeadNorm(nn.Module):
    """Normalise each head of each step by itself, then join the heads: (B, T, H, V) to (B, T, H * V).

    Parameters
    ----------
    num_heads, width : int
        H and V.
    """

    def __init__(self, num_heads: int, width: int):
        super().__init__()
        self.norm_weight = nn.Parameter(torch.ones(num_heads * width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised heads side by side."""
        return head_norm(x, self.norm_weight)
