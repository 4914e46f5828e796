"""xLSTM blocks over patches of time, each channel by itself with the same weights.

Patches are cut from the start of the series. Whole patches move the state; the patch that is still unfinished at
the end is read with its missing part marked as unobserved, and only what it says of the present is used: the
state keeps its values until it is whole.

Dimensions: B batch, T steps, C channels, P patch length, N patches, D width, E features of covariates.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from xlstm_ts.nn.blocks import BlockStack, BlockState


class PatchState(NamedTuple):
    """State of a patch backbone."""

    blocks: tuple[BlockState, ...]
    features: Tensor  # [B * C, 1, D], after the last whole patch
    values: Tensor  # [B, < P, C], the unfinished patch
    observed: Tensor
    covariates: Tensor | None  # [B, < P, E]


class PatchBackbone(nn.Module):
    """A patch of values and observed flags is mapped to a token; the last token after the blocks is the feature.

    The map is a linear one plus a small network, as is usual for patches.

    Parameters
    ----------
    channels : int
        C.
    stack : BlockStack
        The blocks.
    width, patch_length : int
        D and P.
    covariates : int
        E, features of covariates, which are read with the patch of every channel.
    """

    def __init__(self, channels: int, stack: BlockStack, width: int, patch_length: int, covariates: int = 0):
        super().__init__()
        self.groups, self.width = channels, width
        self.patch_length = patch_length
        self.embed = nn.Linear(2 * patch_length, width)
        self.embed_inner = nn.Linear(2 * patch_length, width)
        self.embed_outer = nn.Linear(width, width, bias=False)
        self.embed_covariates = nn.Linear(covariates * patch_length, width, bias=False) if covariates else None
        self.stack = stack

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        state: PatchState | None = None,
        covariates: Tensor | None = None,
    ) -> tuple[Tensor, PatchState]:
        """Read a piece of context; see `Backbone`."""
        batch, _, channels = values.shape
        blocks, features = None, None
        if state is not None:
            values = torch.cat([state.values, values], dim=1)
            observed = torch.cat([state.observed, observed], dim=1)
            if covariates is not None and state.covariates is not None:
                covariates = torch.cat([state.covariates, covariates], dim=1)
            blocks, features = state.blocks, state.features
        whole = values.shape[1] - values.shape[1] % self.patch_length
        if whole:
            beside = None if covariates is None else covariates[:, :whole]
            tokens, blocks = self.stack(self._tokens(values[:, :whole], observed[:, :whole], beside), blocks)
            features = tokens[:, -1:]
        if blocks is None or features is None:
            blocks = self.stack.initial_state(batch * channels)
            features = values.new_zeros(batch * channels, 1, self.embed.out_features)
        beside = None if covariates is None else covariates[:, whole:]
        state = PatchState(blocks, features, values[:, whole:], observed[:, whole:], beside)
        if values.shape[1] > whole:
            missing = (0, 0, 0, self.patch_length - (values.shape[1] - whole))
            beside = None if beside is None else nn.functional.pad(beside, missing)
            rest = [nn.functional.pad(part, missing) for part in (state.values, state.observed)]
            unfinished = self._tokens(rest[0], rest[1], beside)
            features, _ = self.stack(unfinished, blocks)
        return features.unflatten(0, (batch, channels)).flatten(1, 2), state

    def features(self, values: Tensor, observed: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return the features alone; see `Backbone`."""
        if values.shape[1] % self.patch_length:
            return self(values, observed, None, covariates)[0]
        return self.stack.last(self._tokens(values, observed, covariates)).unflatten(0, (len(values), -1)).flatten(1, 2)

    def _tokens(self, values: Tensor, observed: Tensor, covariates: Tensor | None) -> Tensor:
        """Cut (B, N * P, C) into tokens (B * C, N, D)."""
        pair = torch.stack([values, observed.to(values.dtype)], dim=-1)  # [B, N * P, C, 2]
        patches = pair.transpose(1, 2).flatten(0, 1).unflatten(1, (-1, self.patch_length)).flatten(2)
        tokens = self.embed(patches) + self.embed_outer(torch.relu(self.embed_inner(patches)))
        if self.embed_covariates is None or covariates is None:
            return tokens
        beside = self.embed_covariates(covariates.unflatten(1, (-1, self.patch_length)).flatten(2))  # [B, N, D]
        return tokens + beside.repeat_interleave(self.groups, dim=0)
