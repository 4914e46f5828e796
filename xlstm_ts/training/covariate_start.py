"""Where the linear effect of covariates starts: at a ridge regression beside that of the context.

For every step of the horizon, targets are regressed on the features of that step and of the last one before, after
both have been cleared of what the context says (Frisch, Waugh and Lovell): so an effect that the context already
carries is not counted twice. Everything is in units of the training series, relative to the last observed value.

Dimensions: R rows, T context steps, L horizon steps, C channels, Z features of a step.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from xlstm_ts.data.windows import Windows
from xlstm_ts.nn.covariates import CovariateEffect, horizon_features
from xlstm_ts.nn.linear import from_last_value
from xlstm_ts.nn.network import ForecastNetwork

CONTEXT_PENALTY = 1e-2  # relative to the mean variance of the context
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties on the effect that are tried, relative to the variance of a scaled feature; none at all is tried too."""

LARGEST_TABLE = 20_000_000
"""Numbers that the features of all rows and steps may fill."""


@torch.no_grad()
def start_effect(
    network: ForecastNetwork, windows: Windows, origins: np.ndarray, stop: int | np.ndarray, valid_origins: np.ndarray
) -> None:
    """Set the linear effect of the covariates, where the network reads some and held-out windows can judge it.

    The penalty is the one with the smallest absolute error on the held-out windows; without any the effect stays 0.
    """
    if network.effect is None or not len(valid_origins):
        return
    training = _Table(network, network.effect, windows, origins, stop)
    valid = _Table(network, network.effect, windows, valid_origins, len(windows.values))
    for channel in range(network.config.channels):
        weights = _best(training, valid, channel)
        if weights is not None:
            network.effect.covariate_weight[:, channel] = weights.to(network.effect.covariate_weight)


class _Table:
    """Rows for the regressions of every channel: contexts and targets relative to the last value, and features."""

    def __init__(self, network: ForecastNetwork, effect: CovariateEffect, windows: Windows, origins, stop):
        config = network.config
        width = effect.covariate_weight.shape[-1]
        most = max(1, LARGEST_TABLE // (config.horizon * width))
        origins = origins[:: -(-len(origins) // most)]
        batch = replace(windows, covariates=None).batch(origins, stop)  # of the context's covariates only the last
        inputs, anchor = from_last_value(batch.context, batch.context_observed)
        self.inputs = inputs.double().cpu()  # [R, T, C]
        self.targets = (batch.target - anchor).double().cpu()  # [R, L, C]
        self.observed = batch.target_observed.cpu()
        last, future = windows.features(origins, length=1)
        assert last is not None
        assert future is not None
        self.features = horizon_features(last, future).double().cpu()  # [R, L, Z]

    def rows(self, channel: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows with whole targets: contexts (R, T), targets (R, L), features (R, L, Z)."""
        whole = self.observed[..., channel].all(1)
        return self.inputs[whole, :, channel], self.targets[whole, :, channel], self.features[whole]


def _best(training: _Table, valid: _Table, channel: int) -> Tensor | None:
    """Return the weights (L, Z) of the effect on one channel; None where nothing is better than none."""
    inputs, targets, features = training.rows(channel)
    if len(inputs) < 2:
        return None
    count, width = len(inputs), features.shape[-1]
    gram = inputs.T @ inputs
    unit = (gram.diagonal().mean()).clamp_min(1e-12)
    gram = gram + CONTEXT_PENALTY * unit * torch.eye(len(gram), dtype=gram.dtype)
    crossed = torch.einsum("rt,rlz->tlz", inputs, features)
    solved = torch.linalg.solve(gram, crossed.flatten(1)).reshape(crossed.shape)  # the features, told by the context
    direct = torch.linalg.solve(gram, inputs.T @ targets)  # [T, L], the targets, told by the context
    inner = torch.einsum("rlz,rly->lzy", features, features) - torch.einsum("tlz,tly->lzy", crossed, solved)
    outer = torch.einsum("rlz,rl->lz", features, targets) - torch.einsum("tlz,tl->lz", crossed, direct)
    held_inputs, held_targets, held_features = valid.rows(channel)
    if not len(held_inputs):
        return None
    best, least = None, (held_targets - held_inputs @ direct).abs().mean()
    for penalty in PENALTIES:
        weights = torch.linalg.solve(inner + penalty * count * 0.01 * torch.eye(width, dtype=inner.dtype), outer)
        context = direct - torch.einsum("tlz,lz->tl", solved, weights)
        error = held_targets - held_inputs @ context - torch.einsum("rlz,lz->rl", held_features, weights)
        if error.abs().mean() < least:
            best, least = weights, error.abs().mean()
    return best
