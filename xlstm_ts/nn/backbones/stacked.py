"""xLSTM blocks over time steps: each step of all channels is one token.

Dimensions: B batch, T steps, C channels, D width.
"""

import torch
from torch import Tensor, nn

from xlstm_ts.nn.blocks import BlockStack, BlockState


class StackedBackbone(nn.Module):
    """Values and observed flags of a step are mapped to a token; the last token after the blocks is the feature.

    Parameters
    ----------
    channels : int
        C.
    stack : BlockStack
        The blocks.
    width : int
        D.
    covariates : int
        E, features of covariates, which are read with the step.
    """

    def __init__(self, channels: int, stack: BlockStack, width: int, covariates: int = 0):
        super().__init__()
        self.groups, self.width = 1, width
        self.embed = nn.Linear(2 * channels, width)
        self.embed_covariates = nn.Linear(covariates, width, bias=False) if covariates else None
        self.stack = stack

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        state: tuple[BlockState, ...] | None = None,
        covariates: Tensor | None = None,
    ) -> tuple[Tensor, tuple[BlockState, ...]]:
        """Read a piece of context; see `Backbone`."""
        tokens, state = self.stack(self._tokens(values, observed, covariates), state)
        return tokens[:, -1:], state

    def features(self, values: Tensor, observed: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return the features alone; see `Backbone`."""
        return self.stack.last(self._tokens(values, observed, covariates))

    def _tokens(self, values: Tensor, observed: Tensor, covariates: Tensor | None) -> Tensor:
        tokens = self.embed(torch.cat([values, observed.to(values.dtype)], dim=-1))
        if self.embed_covariates is None or covariates is None:
            return tokens
        return tokens + self.embed_covariates(covariates)
