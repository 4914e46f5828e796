r"""The regression network: a window of inputs to the targets of its last step.

    window -> backbone -> head --+--> targets
          \---- linear skip -----/

It is the forecasting network without what belongs to forecasting: no window is scaled by itself, since a level may
be what the target depends on, and targets are other variables than inputs.

Dimensions: B batch, T context steps, C inputs, K targets.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_ts.checks import is_between, is_whole, require
from xlstm_ts.nn.backbones import StackedBackbone
from xlstm_ts.nn.blocks import BlockStack, parse_layout
from xlstm_ts.nn.heads import PointHead
from xlstm_ts.nn.init import initialise
from xlstm_ts.nn.layers import head_width

LOSSES = ("mse", "mae")


@dataclass(frozen=True)
class RegressionConfig:
    """All that fixes the shape of a regression network.

    Parameters
    ----------
    inputs, targets : int
        C and K.
    context_length : int
        T.
    layout, num_blocks, hidden_size, num_heads, conv_width, dropout, linear_skip
        As in `xlstm_ts.nn.network.NetworkConfig`.
    loss : {"mse", "mae"}
        What is minimised.

    Raises
    ------
    ParameterError
        A value is impossible; the message names it and what is expected.
    """

    inputs: int
    targets: int
    context_length: int
    layout: str
    num_blocks: int | None
    hidden_size: int
    num_heads: int
    conv_width: int
    dropout: float
    linear_skip: bool
    loss: str

    def __post_init__(self):
        for name in ("inputs", "targets", "context_length", "hidden_size", "num_heads"):
            require(is_whole(getattr(self, name)), name, getattr(self, name), "a whole number, 1 or above")
        require(self.loss in LOSSES, "loss", self.loss, f"one of {LOSSES}")
        require(is_between(self.dropout, 0, 1), "dropout", self.dropout, "a number from 0 to below 1")
        require(is_whole(self.conv_width, 0), "conv_width", self.conv_width, "a whole number, or 0 for no convolution")
        require(isinstance(self.layout, str), "layout", self.layout, "letters s, m and l, or a ratio such as '7:1'")
        some = self.num_blocks is None or is_whole(self.num_blocks)
        require(some, "num_blocks", self.num_blocks, "a whole number, 1 or above, or None for the layout's own")
        parse_layout(self.layout, self.num_blocks)
        width = head_width("hidden_size", self.hidden_size, self.num_heads)
        require(width >= 2, "hidden_size", self.hidden_size, f"at least 2 units per head, num_heads={self.num_heads}")

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """No levels: the head says a point."""
        return ()


class RegressionNetwork(nn.Module):
    """The targets that go with the last step of a window.

    Parameters
    ----------
    config : RegressionConfig
        Its shape.
    """

    def __init__(self, config: RegressionConfig):
        super().__init__()
        self.config = config
        stack = BlockStack(
            config.layout,
            config.num_blocks,
            width=config.hidden_size,
            num_heads=config.num_heads,
            conv_width=config.conv_width,
            dropout=config.dropout,
        )
        self.backbone = StackedBackbone(config.inputs, stack, config.hidden_size)
        self.head = PointHead(config.hidden_size, 1, config.targets)
        if config.linear_skip:
            self.skip_weight = nn.Parameter(torch.empty(config.targets, config.context_length * config.inputs))

    @classmethod
    def create(
        cls, config: RegressionConfig, *, generator: torch.Generator, device: torch.device
    ) -> "RegressionNetwork":
        """Make a network whose weights come from `generator` alone: no global seed is read or moved."""
        with torch.device("meta"):
            network = cls(config)
        network = network.to_empty(device="cpu")
        initialise(network, generator)
        return network.to(device)

    def forward(self, values: Tensor, observed: Tensor, *, carry: bool = True) -> tuple[Tensor, Any]:
        """Read windows.

        Parameters
        ----------
        values : Tensor of shape (B, T, C)
            Scaled inputs, 0 where not observed.
        observed : Tensor of shape (B, T, C), bool
            Which values were seen.
        carry : bool
            Whether the state is wanted; without it the last block computes its last step alone.

        Returns
        -------
        prediction : Tensor of shape (B, 1, K, 1)
            Scaled targets, in the shape of a forecast of one step.
        state
            Of the backbone, after the window; None if it is not wanted.
        """
        if carry:
            features, state = self.backbone(values, observed)
        else:
            features, state = self.backbone.features(values, observed), None
        prediction = self.head(features)
        if self.config.linear_skip:
            linear = nn.functional.linear(values.flatten(1), self.skip_weight)  # [B, K]
            prediction = prediction + linear[:, None, :, None]
        return prediction, state

    @torch.no_grad()
    def start_from(self, weights: Tensor, intercept: Tensor) -> None:
        """Start at a linear model: `weights` (K, T * C) and `intercept` (K,)."""
        self.skip_weight.copy_(weights)
        self.head.head_bias.copy_(intercept)
