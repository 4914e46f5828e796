"""The norm of the cells' output. Dimensions: B batch, T steps, H heads, V head width."""

import torch
from torch import Tensor, nn


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
        return nn.functional.layer_norm(x, x.shape[-1:]).flatten(-2) * self.norm_weight
