"""Intervals that cover what they say, from held-out windows that training never saw.

For a quantile network the distance of each pair of levels (a, 1 - a) from the median is multiplied by the smallest
factor with which the pair would have covered the share 1 - 2a of the held-out targets, with the finite-sample
correction of split conformal prediction (Romano, Patterson and Candes 2019); the median stays. There is one factor
per step and channel; where windows are few, a step borrows the scores of its neighbours. For a point network,
quantiles are those of its held-out residuals, in units of the window's own scale.

Dimensions: W windows, B windows to forecast, L horizon steps, C channels, Q quantile levels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from xlstm_ts.data.windows import Windows
from xlstm_ts.nn.network import ForecastNetwork
from xlstm_ts.training.loop import EVALUATION_BATCH, MAX_EVALUATION_WINDOWS

MIN_WINDOWS = 30
"""Held-out windows below which nothing is calibrated: the 80 % interval would rest on six of them."""


INDEPENDENT = 20
"""Independent windows below which a step borrows from its neighbours."""


LARGEST_FACTOR = 10.0
"""A series that jumps out of a flat stretch would ask for any factor at all, and get intervals without meaning."""


POWERS = (0.0, 0.25, 0.5, 0.75)
"""How much less the widths may follow the spread of the window: calm days can come before storms."""


WORTH = 0.01
"""Share of the loss that another power than 0 has to save."""


ENOUGH_TO_CHOOSE = 4 * MIN_WINDOWS


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
        forecast, state = network(**batch.inputs)
        forecast = network.quantiles(forecast)
        target = torch.where(batch.target_observed, batch.target, torch.nan)
        parts.append([tensor.double().cpu().numpy() for tensor in (forecast, target, state.scale.scale)])
    return HeldOut(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@dataclass(frozen=True)
class WidthFactors:
    """Calibration of a quantile network: `factors` (L, C, Q) on the distance from the median.

    The network's widths are proportional to the spread of the window. Divided by that spread to a `power`, in units
    of the training series' spread, they follow it less: not at all at a power of 1.
    """

    factors: np.ndarray
    power: float = 0.0

    @classmethod
    def fit(cls, held_out: HeldOut, levels: np.ndarray, power: float = 0.0) -> "WidthFactors":
        """Measure held-out windows; `levels` are symmetric around one half."""
        forecast, target = held_out.forecast, held_out.target
        factors = np.ones(forecast.shape[1:])
        middle = len(levels) // 2
        unit = held_out.scale**power
        for low in range(middle):
            high = len(levels) - 1 - low
            tiny = np.finfo(np.float64).tiny  # a quantile may have shrunk onto the median
            above = (target - forecast[..., middle]) / np.maximum(forecast[..., high] - forecast[..., middle], tiny)
            below = (forecast[..., middle] - target) / np.maximum(forecast[..., middle] - forecast[..., low], tiny)
            scores = np.maximum(above, below) * unit
            pair = conformal_quantile(_with_neighbours(scores), levels[high] - levels[low])
            factors[..., low] = factors[..., high] = pair
        observed = int((~np.isnan(target)).any((1, 2)).sum())
        return cls(_lean(np.clip(factors, 0.0, LARGEST_FACTOR), observed), power)

    @classmethod
    def choose(cls, held_out: HeldOut, levels: np.ndarray) -> "WidthFactors":
        """Measure held-out windows, with the power with which each half forecasts the other best.

        With fewer than ENOUGH_TO_CHOOSE windows, or where it is not WORTH it, the widths follow the spread of the
        window: the power is 0.
        """
        if len(held_out.target) < ENOUGH_TO_CHOOSE:
            return cls.fit(held_out, levels)
        halves = split_in_two(held_out)

        def loss(power: float) -> float:
            pairs = zip(halves, reversed(halves), strict=True)
            return sum(_pinball(cls.fit(one, levels, power), other, levels) for one, other in pairs)

        losses = {power: loss(power) for power in POWERS}
        best = min(losses, key=lambda power: losses[power])
        return cls.fit(held_out, levels, best if losses[best] < (1 - WORTH) * losses[0.0] else 0.0)

    def apply(self, forecast: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return calibrated quantiles (B, L, C, Q) of raw ones, kept from crossing outward from the median."""
        middle = forecast.shape[-1] // 2
        centre = forecast[..., middle : middle + 1]
        wider = centre + (forecast - centre) * self.factors / scale[..., None] ** self.power
        above = np.maximum.accumulate(wider[..., middle:], axis=-1)
        below = np.minimum.accumulate(wider[..., middle::-1], axis=-1)[..., ::-1]
        return np.concatenate([below[..., :-1], above], axis=-1)


@dataclass(frozen=True)
class ResidualQuantiles:
    """Spread of a point network: `offsets` (L, C, Q) in units of the window's scale."""

    offsets: np.ndarray

    @classmethod
    def fit(cls, held_out: HeldOut, levels: np.ndarray) -> "ResidualQuantiles":
        """Measure held-out windows."""
        residuals = (held_out.target - held_out.forecast[..., 0]) / held_out.scale
        residuals = np.where(np.isnan(residuals).all(0), 0.0, residuals)
        offsets = np.moveaxis(np.nanquantile(residuals, levels, axis=0), 0, -1)
        # A handful of residuals may all have one sign; the point stays inside its intervals even then.
        outside = (offsets > 0) & (levels < 0.5) | (offsets < 0) & (levels > 0.5)
        return cls(np.where(outside, 0.0, offsets))

    def apply(self, forecast: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return quantiles (B, L, C, Q) around points (B, L, C, 1); `scale` is each window's, (B, 1, C)."""
        return forecast + self.offsets * scale[..., None]


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


def _lean(factors: np.ndarray, windows: int) -> np.ndarray:
    """Let the factors (L, C, Q) of each channel lean to their geometric mean over the channels.

    By half where there are INDEPENDENT independent windows (see `_with_neighbours`), by less where there are more:
    few of them say little of a single channel. Factors of 0, where the median was always met or nothing was observed,
    stay and do not count.
    """
    independent = windows / len(factors)
    own = independent / (independent + INDEPENDENT)
    some = factors > 0
    logs = np.log(np.where(some, factors, 1.0))
    mean = logs.sum(1, keepdims=True) / np.maximum(some.sum(1, keepdims=True), 1)
    return np.where(some, np.exp(own * logs + (1 - own) * mean), 0.0)


def _with_neighbours(scores: np.ndarray) -> np.ndarray:
    """Put beside the scores (W, L, C) of each step those of its neighbours, as many as few windows need.

    Windows overlap: W of them hold about W / L independent ones. Where these are fewer than INDEPENDENT, the steps
    on either side are pooled until they are not.
    """
    windows, horizon = scores.shape[:2]
    reach = min(horizon - 1, max(0, int(np.ceil((INDEPENDENT * horizon / windows - 1) / 2))))
    pooled = np.full((2 * reach + 1, *scores.shape), np.nan)
    for j, shift in enumerate(range(-reach, reach + 1)):
        start, stop = max(0, -shift), min(horizon, horizon - shift)
        pooled[j, :, start:stop] = scores[:, start + shift : stop + shift]
    return pooled.reshape(-1, *scores.shape[1:])


def measure_coverage(
    held_out: HeldOut, levels: np.ndarray, fit: Callable[[HeldOut], WidthFactors | ResidualQuantiles]
) -> dict[float, tuple[float, float]]:
    """Return the share of held-out targets in the central intervals: as the network says them, and calibrated.

    Each half is calibrated by the other, so that no target is counted that its interval has seen. By nominal coverage,
    the narrowest interval first; NaN for what a point network does not say.
    """
    earlier, later = split_in_two(held_out)
    crossed = [fit(one).apply(other.forecast, other.scale) for one, other in ((later, earlier), (earlier, later))]
    after = np.concatenate(crossed)
    before = held_out.forecast if held_out.forecast.shape[-1] == len(levels) else np.full_like(after, np.nan)
    shares = {}
    for low in reversed(range(len(levels) // 2)):
        high = len(levels) - 1 - low
        nominal = round(float(levels[high] - levels[low]), 12)
        network, calibrated = (_share_inside(q[..., low], q[..., high], held_out.target) for q in (before, after))
        shares[nominal] = (network, calibrated)
    return shares


def _share_inside(low: np.ndarray, high: np.ndarray, target: np.ndarray) -> float:
    counted = ~np.isnan(target) & ~np.isnan(low)
    inside = (low <= target) & (target <= high)
    return float(inside[counted].mean()) if counted.any() else float("nan")


def split_in_two(held_out: HeldOut) -> tuple[HeldOut, HeldOut]:
    """Return the earlier and the later half of held-out windows."""
    half = len(held_out.target) // 2
    return HeldOut(*(part[:half] for part in held_out)), HeldOut(*(part[half:] for part in held_out))


def _pinball(calibration: WidthFactors, held_out: HeldOut, levels: np.ndarray) -> float:
    quantiles = calibration.apply(held_out.forecast, held_out.scale)
    error = held_out.target[..., None] - quantiles
    return float(np.nanmean(np.maximum(levels * error, (levels - 1) * error)))
