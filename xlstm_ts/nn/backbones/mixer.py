"""xLSTM blocks over variates: each channel's linear forecast is one token, and the blocks go from channel to channel.

After xLSTM-Mixer (Kraus et al. 2024, arXiv 2410.16928): learned tokens come before the channels, and the same blocks
read a second view, in which every token is flipped along its width. Reading a forecast of the window instead of the
window itself is what keeps it from learning the training part by heart. Nothing moves along time here, so what is
carried from piece to piece is the window.

Features of covariates are tokens too: they come before the channels, which so read them.

Dimensions: B batch, T steps of the window, L horizon steps, C channels, D width, E features of covariates.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from xlstm_ts.nn.blocks import BlockStack
from xlstm_ts.nn.linear import linear_forecast

INITIAL_TOKENS = 1


class MixerState(NamedTuple):
    """State of a mixer: the window."""

    values: Tensor  # [B, T, C]
    observed: Tensor
    covariates: Tensor | None  # [B, T, E]


class MixerBackbone(nn.Module):
    """A channel's linear forecast is mapped to a token; its features are what the blocks make of both views of it.

    Parameters
    ----------
    channels : int
        C.
    stack : BlockStack
        The blocks.
    width, context_length, horizon : int
        D, T and L.
    covariates : int
        E.
    """

    def __init__(
        self, channels: int, stack: BlockStack, width: int, context_length: int, horizon: int, covariates: int = 0
    ):
        super().__init__()
        self.groups, self.width, self.context_length = channels, 2 * width, context_length
        self.forecast_weight = nn.Parameter(torch.empty(horizon, context_length))
        self.embed = nn.Linear(horizon, width)
        self.embed_missing = nn.Linear(context_length, width, bias=False)
        self.embed_covariates = nn.Linear(context_length, width) if covariates else None
        self.initial_tokens = nn.Parameter(torch.empty(INITIAL_TOKENS, width))
        self.stack = stack

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        state: MixerState | None = None,
        covariates: Tensor | None = None,
    ) -> tuple[Tensor, MixerState]:
        """Read a piece of context; see `Backbone`."""
        if state is not None:
            values = torch.cat([state.values, values], dim=1)
            observed = torch.cat([state.observed, observed], dim=1)
            if covariates is not None and state.covariates is not None:
                covariates = torch.cat([state.covariates, covariates], dim=1)
        pad = (0, 0, self.context_length - values.shape[1], 0)  # a negative number cuts
        beside = None if covariates is None else nn.functional.pad(covariates, pad)
        state = MixerState(nn.functional.pad(values, pad), nn.functional.pad(observed, pad), beside)
        missing = (~state.observed).to(values.dtype)
        forecast = linear_forecast(state.values, state.observed, self.forecast_weight)
        tokens = self.embed(forecast.transpose(1, 2)) + self.embed_missing(missing.transpose(1, 2))  # [B, C, D]
        before = [self.initial_tokens.expand(len(tokens), -1, -1)]
        if self.embed_covariates is not None and state.covariates is not None:
            before.append(self.embed_covariates(state.covariates.transpose(1, 2)))  # [B, E, D]
        tokens = torch.cat([*before, tokens], dim=1)
        views, _ = self.stack(torch.cat([tokens, tokens.flip(-1)]))
        return torch.cat(views[:, -self.groups :].chunk(2), dim=-1), state

    def features(self, values: Tensor, observed: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return the features alone; see `Backbone`."""
        return self(values, observed, None, covariates)[0]
