"""Intervals that cover what they say: offsets learned on held-out windows that training never saw.

Offsets are in units of each window's own scale, one per step, channel and level, and are added to what the network
says. For a quantile network they are split-conformal (Romano, Patterson and Candes 2019, conformalised quantile
regression): the pair of levels (a, 1 - a) is widened or narrowed by the smallest amount that covers the share
1 - 2a of the held-out targets, with the finite-sample correction; the median stays. For a point network they are
quantiles of the held-out residuals.

Dimensions: W windows, L horizon steps, C channels, Q quantile levels.
"""

from typing import NamedTuple

import numpy as np
import torch

from xlstm_ts.data.windows import Windows
from xlstm_ts.nn.network import ForecastNetwork
from xlstm_ts.training.loop import EVALUATION_BATCH, MAX_EVALUATION_WINDOWS

MIN_WINDOWS = 30
"""Held-out windows below which nothing is calibrated: the 80 % interval would rest on six of them."""


class HeldOut(NamedTuple):
    """Forecasts of held-out windows beside the truth, float64, in units of the training series' spread."""

    forecast: np.ndarray  # [W, L, C, Q]
    target: np.ndarray  # [W, L, C], NaN where not observed
    scale: np.ndarray  # [W, 1, C], of each window


@torch.no_grad()
def forecast_held_out(network: ForecastNetwork, windows: Windows, origins: np.ndarray) -> HeldOut:
    """Run the network over held-out windows, thinned evenly if they are very many."""
    network.eval()
    origins = origins[:: -(-len(origins) // MAX_EVALUATION_WINDOWS)]
    parts = []
    for first in range(0, len(origins), EVALUATION_BATCH):
        batch = windows.batch(origins[first : first + EVALUATION_BATCH], len(windows.values))
        forecast, state = network(batch.context, batch.context_observed)
        target = torch.where(batch.target_observed, batch.target, torch.nan)
        parts.append([tensor.double().cpu().numpy() for tensor in (forecast, target, state.scale.scale)])
    return HeldOut(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def conformal_offsets(held_out: HeldOut, levels: np.ndarray) -> np.ndarray:
    """Return the offsets (L, C, Q) of a quantile network whose levels are symmetric around one half."""
    offsets = np.zeros(held_out.forecast.shape[1:])
    for low in range(len(levels) // 2):
        high = len(levels) - 1 - low
        below = held_out.forecast[..., low] - held_out.target
        above = held_out.target - held_out.forecast[..., high]
        scores = np.maximum(below, above) / held_out.scale
        widening = conformal_quantile(scores, levels[high] - levels[low])
        offsets[..., low], offsets[..., high] = -widening, widening
    return offsets


def conformal_quantile(scores: np.ndarray, coverage: float) -> np.ndarray:
    """Return the value that a new score stays below with probability `coverage`, along the first axis.

    The ceil((n + 1) * coverage)-th smallest of n scores; the largest, where that number exceeds n. NaN scores do
    not count; 0 where there is none.
    """
    count = (~np.isnan(scores)).sum(0)
    rank = np.ceil((count + 1) * coverage - 1e-9).astype(int)
    index = np.clip(np.minimum(rank, count) - 1, 0, None)
    chosen = np.take_along_axis(np.sort(scores, axis=0), index[None], axis=0)[0]
    return np.where(count > 0, chosen, 0.0)


def residual_offsets(held_out: HeldOut, levels: np.ndarray) -> np.ndarray:
    """Return the offsets (L, C, Q) of a point network: quantiles of its residuals; 0 where there is none."""
    residuals = (held_out.target - held_out.forecast[..., 0]) / held_out.scale
    residuals = np.where(np.isnan(residuals).all(0), 0.0, residuals)
    return np.moveaxis(np.nanquantile(residuals, levels, axis=0), 0, -1)


def add_offsets(forecast: np.ndarray, offsets: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Add offsets (L, C, Q) to forecasts (B, L, C, 1 or Q) and keep them from crossing, outward from the median.

    `scale` is that of each window, (B, 1, C).
    """
    forecast = forecast + offsets * scale[..., None]
    middle = forecast.shape[-1] // 2
    above = np.maximum.accumulate(forecast[..., middle:], axis=-1)
    below = np.minimum.accumulate(forecast[..., middle::-1], axis=-1)[..., ::-1]
    return np.concatenate([below[..., :-1], above], axis=-1)
