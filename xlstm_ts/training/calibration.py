"""Intervals that cover what they say, from held-out windows that training never saw.

For a quantile network the distance of each pair of levels (a, 1 - a) from the median is multiplied by the smallest
factor with which the pair would have covered the share 1 - 2a of the held-out targets, with the finite-sample
correction of split conformal prediction (Romano, Patterson and Candes 2019, arXiv 1905.03222); the median stays. There
is one factor per step and channel. How far it is believed depends on how much it rests on:

* Windows overlap. Errors at step l of neighbouring origins are correlated up to l - 1 origins apart (those of an ideal
  forecast are a moving average of that order, Diebold and Mariano 1995), so that W windows count as W / l.
* The outer pairs hang on the few largest errors. Where windows are few, the factors of all pairs lean to their
  geometric mean.
* The held-out part is one stretch of time and the next may be another, which no correction for sampling foresees
  (Barber et al. 2023, arXiv 2202.13415). So all factors lean to 1, to what the network says.
* Calm does not last, nor does storm: the spread of a window is no more than an estimate of what comes, and widths
  follow it less than in proportion.

Where a forecaster is asked to, the factors go on learning from what happens (`follow`): a target outside an interval
widens it a little, one inside narrows it less, so that in the long run the share outside is the promised one, whatever
the series does (Gibbs and Candes 2021, arXiv 2106.00170; on the scores themselves Angelopoulos, Candes and Tibshirani
2023, arXiv 2307.16895).

For a point network, quantiles are those of its held-out residuals, in units of the window's own scale.

Dimensions: W windows, B windows to forecast, L horizon steps, C channels, Q quantile levels, M pairs of them
around the median, the outermost first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from xlstm_ts.data.windows import Windows
from xlstm_ts.nn.average import NetworkAverage
from xlstm_ts.nn.network import ForecastNetwork
from xlstm_ts.training.loop import EVALUATION_BATCH, MAX_EVALUATION_WINDOWS

MIN_WINDOWS = 30
"""Held-out windows below which nothing is calibrated: the 80 % interval would rest on six of them."""


PRIOR_WINDOWS = 20.0
"""Independent windows that weigh as much as the other pairs together, and as the network's own word: a factor of 1."""


LARGEST_FACTOR = 10.0
"""A series that jumps out of a flat stretch would ask for any factor at all, and get intervals without meaning."""


RETURN = 0.2
"""How far the logarithm of a window's spread is taken to go back to its mean until the targets come."""


RATE = 0.05
"""What the logarithm of a factor moves by, at one step ahead, for a share of targets outside that is off by 1."""


BLOCKS = 4
"""Stretches of the held-out windows that are measured in turn, with what the others calibrate."""


class HeldOut(NamedTuple):
    """Forecasts of held-out windows beside the truth, float64, in units of the training series' spread."""

    forecast: np.ndarray  # [W, L, C, Q]
    target: np.ndarray  # [W, L, C], NaN where not observed
    scale: np.ndarray  # [W, 1, C], of each window
    stride: int = 1  # origins from one window to the next

    def part(self, rows: slice | np.ndarray) -> "HeldOut":
        """Return some of the windows."""
        return self._replace(forecast=self.forecast[rows], target=self.target[rows], scale=self.scale[rows])


@torch.no_grad()
def forecast_held_out(network: ForecastNetwork | NetworkAverage, windows: Windows, origins: np.ndarray) -> HeldOut:
    """Run the network over held-out windows, thinned evenly if they are very many."""
    network.eval()
    stride = -(-len(origins) // MAX_EVALUATION_WINDOWS)
    origins = origins[::stride]
    parts = []
    for first in range(0, len(origins), EVALUATION_BATCH):
        batch = windows.batch(origins[first : first + EVALUATION_BATCH], len(windows.values))
        output, state = network(**batch.inputs, carry=False)
        observed = torch.where(batch.target_observed, batch.target, torch.nan)
        tensors = (network.quantiles(output), observed, state.scale.scale)
        parts.append([tensor.double().cpu().numpy() for tensor in tensors])
    forecast, target, scale = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return HeldOut(forecast, target, scale, stride)


@dataclass(frozen=True)
class WidthFactors:
    """Calibration of a quantile network: `factors` (L, C, Q) on the distance from the median.

    The network's widths are proportional to the spread of the window; here they are so to its power 1 - RETURN, in
    units of `usual_scale` (1, C), the geometric mean of the spreads that the factors were measured with.
    """

    factors: np.ndarray
    usual_scale: np.ndarray

    @classmethod
    def fit(cls, held_out: HeldOut, levels: np.ndarray) -> "WidthFactors":
        """Measure held-out windows; `levels` are symmetric around one half."""
        usual_scale = np.exp(np.log(held_out.scale).mean(0))
        scores = _scores(held_out, usual_scale)
        horizon, middle = scores.shape[1], scores.shape[-1]
        windows = held_out.stride * (~np.isnan(held_out.target)).sum(0) / np.arange(1, horizon + 1)[:, None]
        trust = (windows / (windows + PRIOR_WINDOWS))[..., None]
        pairs = np.empty(scores.shape[1:])
        for low, coverage in enumerate(_coverages(levels)):
            pairs[..., low] = conformal_quantile(scores[..., low], coverage, windows)
        logs = np.log(np.clip(pairs, 1 / LARGEST_FACTOR, LARGEST_FACTOR))
        mean = logs.sum(-1, keepdims=True) / max(middle, 1)
        return cls(_mirrored(np.exp(trust * (trust * logs + (1 - trust) * mean))), usual_scale)

    def apply(self, forecast: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return calibrated quantiles (B, L, C, Q) of raw ones, kept from crossing outward from the median."""
        middle = forecast.shape[-1] // 2
        centre = forecast[..., middle : middle + 1]
        wider = centre + (forecast - centre) * self.factors * _towards(scale, self.usual_scale)[..., None]
        above = np.maximum.accumulate(wider[..., middle:], axis=-1)
        below = np.minimum.accumulate(wider[..., middle::-1], axis=-1)[..., ::-1]
        return np.concatenate([below[..., :-1], above], axis=-1)


def _scores(held_out: HeldOut, usual_scale: np.ndarray) -> np.ndarray:
    """Return the factors (W, L, C, M) with which each pair of levels would just have reached its target."""
    forecast, target = held_out.forecast, held_out.target
    middle = forecast.shape[-1] // 2
    by = _towards(held_out.scale, usual_scale)
    tiny = np.finfo(np.float64).tiny  # a quantile may have shrunk onto the median
    scores = np.empty((*target.shape, middle))
    for low in range(middle):
        high = forecast.shape[-1] - 1 - low
        above = (target - forecast[..., middle]) / np.maximum(forecast[..., high] - forecast[..., middle], tiny)
        below = (forecast[..., middle] - target) / np.maximum(forecast[..., middle] - forecast[..., low], tiny)
        scores[..., low] = np.maximum(above, below) / by
    return scores


def _coverages(levels: np.ndarray) -> np.ndarray:
    """Return what the pairs of levels promise to hold, (M,)."""
    middle = len(levels) // 2
    return levels[:middle:-1] - levels[:middle]


def _mirrored(pairs: np.ndarray) -> np.ndarray:
    """Return factors (..., Q) of all levels from those of the pairs (..., M)."""
    return np.concatenate([pairs, np.ones_like(pairs[..., :1]), pairs[..., ::-1]], axis=-1)


def follow(
    start: WidthFactors,
    network: ForecastNetwork | NetworkAverage,
    windows: Windows,
    levels: np.ndarray,
    *,
    first: int,
    origins: np.ndarray,
) -> np.ndarray:
    """Let the factors learn from window after window; return those that hold at each origin, (O, L, C, Q).

    The log-factor of a pair at step l moves by RATE / l times what the share of its targets outside, 0 or 1, has more
    than promised: l neighbouring origins say little more than one, see above. A window counts once its last target is
    known, so that the factors at an origin rest on rows before it alone.

    Parameters
    ----------
    start : WidthFactors
        As they are before the first window.
    network, windows, levels
        What is forecast, and the levels (Q,).
    first : int
        Origin of the first window to learn from; each of its rows counts.
    origins : array of shape (O,), int
        In any order, all in the same series as `first`.
    """
    horizon, order = windows.horizon, np.argsort(origins, kind="stable")
    ready = origins[order] - horizon  # the last window that an origin may learn from
    rate = RATE / np.arange(1, horizon + 1)[:, None, None]
    wider, narrower = np.exp(rate * _coverages(levels)), np.exp(rate * (_coverages(levels) - 1))
    pairs = start.factors[..., : len(levels) // 2]
    factors = np.empty((len(origins), *pairs.shape))
    done, last = 0, int(ready.max(initial=first - 1))
    for begin in range(first, last + 1, EVALUATION_BATCH):
        some = np.arange(begin, min(begin + EVALUATION_BATCH, last + 1))
        some = windows.usable(some, len(windows.values))
        if not len(some):
            continue
        scores = _scores(forecast_held_out(network, windows, some), start.usual_scale)
        for window, score in zip(some, scores, strict=True):
            before = int(np.searchsorted(ready, window))
            factors[order[done:before]], done = pairs, before
            step = np.where(np.isnan(score), 1.0, np.where(score > pairs, wider, narrower))
            pairs = np.clip(pairs * step, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    factors[order[done:]] = pairs
    return _mirrored(factors)


def _towards(scale: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return what the widths of windows (B, 1, C) are multiplied by, for their spread to go back towards the usual."""
    return (usual / scale) ** RETURN


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


def conformal_quantile(scores: np.ndarray, coverage: float, windows: np.ndarray | None = None) -> np.ndarray:
    """Return the value that a new score stays below with probability `coverage`, along the first axis.

    Of scores that are worth n independent `windows` (default: each is one), the smallest that at least a share
    (1 + 1 / n) * `coverage` of them does not exceed: of n scores the ceil((n + 1) * coverage)-th smallest. The largest,
    where that share is more than 1. NaN scores do not count; 0 where there is none.
    """
    count = (~np.isnan(scores)).sum(0)
    windows = np.maximum(count if windows is None else windows, np.finfo(np.float64).tiny)
    share = np.minimum(coverage * (1 + 1 / windows), 1.0)
    index = np.clip(np.ceil(share * count - 1e-9).astype(int) - 1, 0, None)
    chosen = np.take_along_axis(np.sort(scores, axis=0), index[None], axis=0)[0]
    return np.where(count > 0, chosen, 0.0)


def cross_calibrate(held_out: HeldOut, fit: Callable[[HeldOut], WidthFactors | ResidualQuantiles]) -> np.ndarray:
    """Return quantiles (W, L, C, Q) of held-out windows, those of each of BLOCKS stretches calibrated by the others.

    Windows that share a target with the stretch have no part in its calibration. NaN where that leaves none.
    """
    numbers, horizon = np.arange(len(held_out.target)), held_out.target.shape[1]
    apart = -(-horizon // held_out.stride)  # windows from one to the next that shares no target with it
    parts = []
    for block in np.array_split(numbers, min(BLOCKS, len(numbers))):
        others = (numbers <= block[0] - apart) | (numbers >= block[-1] + apart)
        one = held_out.part(slice(block[0], block[-1] + 1))
        fitted = fit(held_out.part(others if others.any() else slice(None)))
        quantiles = fitted.apply(one.forecast, one.scale)
        parts.append(quantiles if others.any() else np.full_like(quantiles, np.nan))
    return np.concatenate(parts)


def measure_coverage(
    held_out: HeldOut, levels: np.ndarray, fit: Callable[[HeldOut], WidthFactors | ResidualQuantiles]
) -> dict[float, tuple[float, float]]:
    """Return the share of held-out targets in the central intervals: as the network says them, and calibrated.

    The latter by `cross_calibrate`, so that no target is counted that its interval has seen. By nominal coverage, the
    narrowest interval first; NaN for what a point network does not say, and where windows are too few to be parted.
    """
    after = cross_calibrate(held_out, fit)
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
