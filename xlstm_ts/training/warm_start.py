"""Where training starts: at a ridge regression of the horizon on the context, with its empirical quantiles.

Both have closed forms. The linear skip gets the ridge weights, the head's bias the quantiles of what they leave over,
per step. So before its first step the network already is a linear model with honest spread, at worst the last value;
early stopping counts it as epoch 0, and what training adds has to be better than that on held-out windows.

Rows are windows of one channel, as seen from the last observed value and in units of the window's scale.
Dimensions: R rows, T context steps, L horizon steps, C channels, Q quantile levels.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xlstm_ts.data.windows import Windows
from xlstm_ts.nn.heads import PointHead, QuantileHead, StudentTHead
from xlstm_ts.nn.linear import from_last_value
from xlstm_ts.nn.network import ForecastNetwork
from xlstm_ts.nn.scaling import SCALE_FLOOR, apply_scale, instance_scale
from xlstm_ts.training.covariate_start import start_effect

MAX_ROWS = 20_000
MAX_VALID_ROWS = 4_000  # each is forecast once per penalty
PENALTIES = tuple(10.0**k for k in range(-4, 3))
"""Ridge penalties that are tried, relative to the mean variance of the inputs; no weights at all is tried too."""


class _Rows(NamedTuple):
    inputs: Tensor  # [R, T]
    targets: Tensor  # [R, L], less the anchor
    observed: Tensor  # [R, L]
    anchor: Tensor  # [R, 1], the last observed value
    scale: Tensor  # [R, 1]
    channel: Tensor  # [R]


class _LinearStart(NamedTuple):
    rows: _Rows
    weights: Tensor  # [L, T]
    penalty: float
    error: float  # on the held-out windows, infinity without any


@torch.no_grad()
def warm_start(
    network: ForecastNetwork,
    windows: Windows,
    origins: np.ndarray,
    *,
    stop: int | np.ndarray,
    valid_origins: np.ndarray,
    penalty: float | None = None,
) -> float:
    """Set the linear skip and the head's bias of a network.

    Parameters
    ----------
    network : ForecastNetwork
        Changed in place.
    windows, origins, stop, valid_origins
        As for `xlstm_ts.training.loop.train`.
    penalty : float, optional
        The ridge penalty to use. Default: the one with the smallest absolute error on the held-out windows;
        without any, infinity, which means no weights.

    Returns
    -------
    float
        The penalty used.
    """
    start_effect(network, windows, origins, stop, valid_origins)
    start = _linear_start(network, windows, origins, stop, valid_origins, penalty)
    effect = network.effect
    if effect is not None and len(valid_origins) and effect.covariate_weight.any():
        # The effect was judged beside a plainer map of the context: it has to do better beside this one as well.
        found = effect.covariate_weight.clone()
        effect.covariate_weight.zero_()
        without = _linear_start(network, windows, origins, stop, valid_origins, penalty)
        if without.error <= start.error:
            start = without
        else:
            effect.covariate_weight.copy_(found)
    rows, weights = start.rows, start.weights
    for parameter in network.linear_weights:
        parameter.copy_(weights)
    if isinstance(network.head, PointHead):
        return start.penalty
    residuals = rows.targets - rows.inputs @ weights.T if network.config.linear_skip else rows.targets + rows.anchor
    residuals = torch.where(rows.observed, residuals, torch.nan)
    moving = rows.scale[:, 0] > 1.5 * SCALE_FLOOR  # in units of a flat window's scale every move is enormous
    if moving.any():
        residuals, rows = residuals[moving], rows._replace(channel=rows.channel[moving])
    _start_head(network, network.head, residuals, rows.channel)
    return start.penalty


def _linear_start(
    network: ForecastNetwork,
    windows: Windows,
    origins: np.ndarray,
    stop: int | np.ndarray,
    valid_origins: np.ndarray,
    penalty: float | None,
) -> _LinearStart:
    """Regress the horizon, less the effect of covariates, on the context."""
    rows = _gather(network, windows, origins, stop, most=MAX_ROWS)
    whole = rows.observed.all(1)
    shape = (network.config.horizon, network.config.context_length)
    maps = {math.inf: torch.zeros(shape, dtype=torch.float64)}  # by penalty
    if network.linear_weights and int(whole.sum()) > 1:
        # Between equal weights in units of the window and equal weights in units of the series, where a calm window
        # says almost nothing: best on the validation parts of most sets.
        weight = rows.scale[whole].sqrt()
        ridge = _Ridge(rows.inputs[whole] * weight, rows.targets[whole] * weight)
        if penalty is not None:
            maps = {penalty: ridge.weights(penalty)}
        elif len(valid_origins):
            maps = {value: ridge.weights(value) for value in PENALTIES} | maps
    errors = dict.fromkeys(maps, math.inf)
    if len(valid_origins):
        valid = _gather(network, windows, valid_origins, len(windows.values), most=MAX_VALID_ROWS)
        errors = {value: _absolute_error(valid, weights) for value, weights in maps.items()}
    best = min(errors, key=lambda value: errors[value])
    return _LinearStart(rows, maps[best], best, errors[best])


class _Ridge:
    """Ridge regressions of one set of rows for any penalty, from one eigendecomposition."""

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.values, self.vectors = torch.linalg.eigh(inputs.T @ inputs / len(inputs))
        self.projected = self.vectors.T @ (inputs.T @ targets / len(inputs))
        self.unit = self.values.clamp_min(0).mean().clamp_min(1e-12)

    def weights(self, penalty: float) -> Tensor:
        """Return the weights (L, T)."""
        shrunk = self.projected / (self.values.clamp_min(0) + penalty * self.unit)[:, None]
        return (self.vectors @ shrunk).T


def _absolute_error(rows: _Rows, weights: Tensor) -> float:
    error = (rows.targets - rows.inputs @ weights.T).abs() * rows.scale
    return float(error[rows.observed].mean())


def _gather(
    network: ForecastNetwork, windows: Windows, origins: np.ndarray, stop: int | np.ndarray, *, most: int
) -> _Rows:
    channels = network.config.channels
    origins = origins[:: -(-len(origins) * channels // most)]
    batch = replace(windows, covariates=None).batch(origins, stop)
    scale = instance_scale(batch.context, batch.context_observed)
    scaled = apply_scale(batch.context, batch.context_observed, scale)
    inputs, anchor = from_last_value(scaled, batch.context_observed)
    targets = apply_scale(batch.target, batch.target_observed, scale) - anchor
    last, future = windows.features(origins, length=1)
    if network.effect is not None and last is not None and future is not None:
        targets = targets - network.effect.linear(last, future) / scale.scale
    parts = (inputs, targets, batch.target_observed, anchor, scale.scale)
    inputs, targets, observed, anchor, scales = (part.transpose(1, 2).flatten(0, 1).cpu() for part in parts)
    channel = torch.arange(channels).repeat(len(origins))
    return _Rows(inputs.double(), targets.double(), observed, anchor.double(), scales.double(), channel)


def _start_head(
    network: ForecastNetwork, head: QuantileHead | StudentTHead, residuals: Tensor, channel: Tensor
) -> None:
    """Give the head's bias the quantiles of the residuals, per step, and per channel where it speaks for several."""
    config = network.config
    per_channel = (
        [residuals]
        if network.backbone.groups > 1 or config.channels == 1
        else [residuals[channel == c] for c in range(config.channels)]
    )
    levels = torch.tensor(config.quantile_levels, dtype=residuals.dtype)
    quantiles = torch.stack([torch.nanquantile(part, levels, dim=0) for part in per_channel])  # [C', Q, L]
    if torch.isfinite(quantiles).all():
        head.start_from(quantiles.permute(2, 0, 1))
