r"""The whole forecasting network: instance scaling, a backbone, a head, and a linear skip around both.

    context -> scale -> backbone -> head --+--> unscale -> quantiles
                  \------- linear skip ----/
                  \------ covariates ------/

The skip maps the context, as seen from its last observed value, linearly to the horizon. Its weights and the head's
start at zero, so an untrained network repeats the last value, and what the backbone adds is what a linear model
cannot say.

Covariates are read beside the context by the backbone; those that are known ahead move the forecast of each step.

Dimensions: B batch, T context steps, L horizon steps, C channels, Q quantile levels, E features of covariates, F of
them known ahead.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xlstm_ts.checks import is_between, is_whole, require
from xlstm_ts.nn.backbones import Backbone, MixerBackbone, PatchBackbone, StackedBackbone
from xlstm_ts.nn.blocks import BlockStack, parse_layout
from xlstm_ts.nn.covariates import CovariateEffect
from xlstm_ts.nn.decomposition import Decomposed
from xlstm_ts.nn.heads import PointHead, QuantileHead, StudentTHead
from xlstm_ts.nn.init import initialise
from xlstm_ts.nn.layers import head_width
from xlstm_ts.nn.linear import linear_forecast
from xlstm_ts.nn.scaling import LocScale, apply_scale, instance_scale

BACKBONES = ("patch", "stacked", "mixer")
POINT_LOSSES = ("mae", "mse", "huber")
LOSSES = ("quantile", "student_t", *POINT_LOSSES)
LINEAR_WEIGHTS = ("skip_weight", "forecast_weight")


@dataclass(frozen=True)
class NetworkConfig:
    """All that fixes the shape of a network; plain values, so that it can be saved as JSON.

    Parameters
    ----------
    channels : int
        C.
    horizon, context_length : int
        L and T. The patch backbone needs whole patches: T is a multiple of `patch_length` there.
    backbone : {"patch", "stacked", "mixer"}
        Blocks over patches of each channel, over steps of all channels, or over channels.
    layout : str
        Blocks; see `xlstm_ts.nn.parse_layout`.
    num_blocks : int or None
        Length of the stack; None for the layout's own.
    hidden_size, num_heads : int
        Width of the tokens, and the heads of every cell.
    patch_length : int
        P, steps per patch; without effect on other backbones than "patch".
    conv_width : int
        Steps seen by the causal convolution in a block; 0 leaves it out. Channels are in no order, so "mixer" has none.
    decomposition : int or None
        Steps of the moving average by which trend and remainder are read apart; None to read them together.
    dropout : float
        Rate on every residual branch while training.
    linear_skip : bool
        Whether the linear map from context to horizon is there.
    loss : {"quantile", "student_t", "mae", "mse", "huber"}
        What the head predicts: quantiles for "quantile", location, scale and degrees of freedom for "student_t",
        else a point.
    quantile_levels : tuple of float
        Levels that the quantile head predicts, and at which those of a Student t are taken, increasing.
    known : tuple of bool
        One entry for each of the E features of covariates: whether it is known ahead. Default: no covariates.

    Raises
    ------
    ParameterError
        A value is impossible; the message names it and what is expected.
    """

    channels: int
    horizon: int
    context_length: int
    backbone: str
    layout: str
    num_blocks: int | None
    hidden_size: int
    num_heads: int
    patch_length: int
    conv_width: int
    decomposition: int | None
    dropout: float
    linear_skip: bool
    loss: str
    quantile_levels: tuple[float, ...]
    known: tuple[bool, ...] = ()

    def __post_init__(self):
        for name in ("channels", "horizon", "context_length", "hidden_size", "num_heads", "patch_length"):
            require(is_whole(getattr(self, name)), name, getattr(self, name), "a whole number, 1 or above")
        require(self.backbone in BACKBONES, "backbone", self.backbone, f"one of {BACKBONES}")
        require(self.loss in LOSSES, "loss", self.loss, f"one of {LOSSES}")
        require(is_between(self.dropout, 0, 1), "dropout", self.dropout, "a number from 0 to below 1")
        require(is_whole(self.conv_width, 0), "conv_width", self.conv_width, "a whole number, or 0 for no convolution")
        some = self.decomposition is None or is_whole(self.decomposition, 2)
        require(some, "decomposition", self.decomposition, "a whole number of steps, 2 or above, or None")
        levels = self.quantile_levels
        numbers = isinstance(levels, tuple) and len(levels) > 0 and all(is_between(x, 0, 1) and x > 0 for x in levels)
        rising = numbers and all(a < b for a, b in itertools.pairwise(levels))
        require(rising, "quantile_levels", levels, "increasing numbers between 0 and 1")
        parse_layout(self.layout, self.num_blocks)
        width = head_width("hidden_size", self.hidden_size, self.num_heads)
        # The norm of a head of one unit would be zero whatever it holds.
        require(width >= 2, "hidden_size", self.hidden_size, f"at least 2 units per head, num_heads={self.num_heads}")
        if self.backbone == "patch":
            whole = self.context_length % self.patch_length == 0
            require(whole, "context_length", self.context_length, f"a multiple of patch_length={self.patch_length}")


class NetworkState(NamedTuple):
    """What a network carries from one piece of context to the next."""

    scale: LocScale
    values: Tensor  # [B, T, C], the scaled end of the context, for the linear skip
    observed: Tensor
    backbone: Any


class ForecastNetwork(nn.Module):
    """Quantiles of the next L steps from the last T.

    Parameters
    ----------
    config : NetworkConfig
        Its shape.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config)
        shape = (self.backbone.width, config.horizon, config.channels // self.backbone.groups)
        self.head: QuantileHead | StudentTHead | PointHead
        if config.loss == "quantile":
            self.head = QuantileHead(*shape, config.quantile_levels)
        elif config.loss == "student_t":
            self.head = StudentTHead(*shape, config.quantile_levels)
        else:
            self.head = PointHead(*shape)
        self.effect = None
        if config.known:
            width, groups = self.backbone.width, self.backbone.groups
            self.effect = CovariateEffect(config.known, width, config.horizon, config.channels, groups)
        if config.linear_skip:
            self.skip_weight = nn.Parameter(torch.empty(config.horizon, config.context_length))
        if not self.head.head_weight.is_meta:
            initialise(self)

    @classmethod
    def create(cls, config: NetworkConfig, *, generator: torch.Generator, device: torch.device) -> "ForecastNetwork":
        """Make a network whose weights come from `generator` alone: no global seed is read or moved."""
        with torch.device("meta"):
            network = cls(config)
        network = network.to_empty(device="cpu")
        initialise(network, generator)
        return network.to(device)

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        state: NetworkState | None = None,
        *,
        covariates: Tensor | None = None,
        future: Tensor | None = None,
        scale: LocScale | None = None,
        carry: bool = True,
    ) -> tuple[Tensor, NetworkState]:
        """Read context and forecast what follows it.

        Parameters
        ----------
        values : Tensor of shape (B, T', C)
            Context in units of the training series' spread around its level; anything finite where not observed.
        observed : Tensor of shape (B, T', C), bool
            Which values were seen.
        state : NetworkState, optional
            What an earlier call returned; its scale is kept. Default: the empty history.
        covariates : Tensor of shape (B, T', E), optional
            Features of the covariates beside the context, 0 where unknown; if the network was made for some.
        future : Tensor of shape (B, L, F), optional
            Those that are known ahead, of the steps to be forecast.
        scale : LocScale, optional
            Affine map of the window. Default: from the observed values of this piece, or the state's.
        carry : bool
            Whether anything will go on from here. If not, and nothing came before, the last block computes its last
            step alone, and the state has no `backbone`; the forecast is the same up to rounding.

        Returns
        -------
        forecast : Tensor of shape (B, L, C, Q)
            In the units of `values`: quantiles, increasing along Q; the parameters of a Student t, for which
            `quantiles` gives them; or for a point loss one value.
        state : NetworkState
            To go on from here.
        """
        before = None
        if state is not None:
            scale, before = state.scale, state.backbone
        scale = instance_scale(values, observed) if scale is None else scale
        scaled = apply_scale(values, observed, scale)
        if carry or state is not None:
            features, after = self.backbone(scaled, observed, before, covariates)
        else:
            features, after = self.backbone.features(scaled, observed, covariates), None
        window, seen = self._window(scaled, observed, state)
        forecast = self.head(features)
        if self.config.linear_skip:
            linear = linear_forecast(window, seen, self.skip_weight)
            forecast = self.head.move(forecast, linear[..., None])
        level = scale.loc[..., None]
        if self.effect is not None and covariates is not None and future is not None:
            effect = self.effect(covariates, future, features)
            forecast = self.head.widen(forecast, effect.log_width[..., None].exp())
            forecast = self.head.move(forecast, effect.shift[..., None])
            level = level + effect.linear[..., None]
        forecast = self.head.move(forecast, level, scale.scale[..., None])
        return forecast, NetworkState(scale, window, seen, after)

    def quantiles(self, forecast: Tensor) -> Tensor:
        """Return the quantiles (B, L, C, Q) that a forecast says; a point remains itself."""
        return self.head.quantiles(forecast)

    def _window(self, scaled: Tensor, observed: Tensor, state: NetworkState | None) -> tuple[Tensor, Tensor]:
        """Return the last T steps, unobserved where there were none."""
        if state is not None:
            scaled = torch.cat([state.values, scaled], dim=1)
            observed = torch.cat([state.observed, observed], dim=1)
        missing = self.config.context_length - scaled.shape[1]
        pad = (0, 0, missing, 0)  # a negative number cuts
        return nn.functional.pad(scaled, pad), nn.functional.pad(observed, pad)

    @property
    def linear_weights(self) -> list[nn.Parameter]:
        """The matrices (L, T) that map a window linearly: the skip, and those inside the backbone."""
        return [p for name, p in self.named_parameters() if name.endswith(LINEAR_WEIGHTS)]


def make_backbone(config: NetworkConfig) -> Backbone:
    """Return the backbone that a config names."""
    if config.decomposition is not None:
        trend, remainder = (make_backbone(replace(config, decomposition=None)) for _ in range(2))
        return Decomposed(trend, remainder, config.decomposition)
    channels, width = config.channels, config.hidden_size
    stack = BlockStack(
        config.layout,
        config.num_blocks,
        width=width,
        num_heads=config.num_heads,
        conv_width=0 if config.backbone == "mixer" else config.conv_width,
        dropout=config.dropout,
    )
    if config.backbone == "stacked":
        return StackedBackbone(channels, stack, width, len(config.known))
    if config.backbone == "mixer":
        return MixerBackbone(channels, stack, width, config.context_length, config.horizon, len(config.known))
    return PatchBackbone(channels, stack, width, config.patch_length, len(config.known))
