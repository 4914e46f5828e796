"""From fitted parts to forecasts of many origins at once: arrays in, arrays out, nothing is changed.

Dimensions: C channels, O origins, S steps asked for, T context steps, L steps of one block, Q levels.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.windows import LARGEST, Windows
from xlstm_ts.nn.average import NetworkAverage
from xlstm_ts.nn.network import POINT_LOSSES, ForecastNetwork
from xlstm_ts.quantiles import interpolate_levels, pool_paths
from xlstm_ts.training.calibration import ResidualQuantiles, WidthFactors

BATCH_SIZE = 256
# Tokens of a batch that stay in the caches of a processor; past that, windows of 512 steps take twice as long each.
CACHED_TOKENS, LEAST_BATCH = 16384, 16


class Forecast(NamedTuple):
    """Forecasts in the units of the series."""

    point: np.ndarray  # [O, S, C]
    quantiles: np.ndarray  # [O, S, C, Q]


@dataclass(frozen=True)
class Predictor:
    """A fitted network with all that turns its output into forecasts.

    Parameters
    ----------
    network : ForecastNetwork or NetworkAverage
        Trained.
    levels : array of shape (Q,)
        Quantile levels, symmetric around one half.
    calibration : WidthFactors, ResidualQuantiles or None
        What turns the network's output into quantiles; None to take it as it is.
    """

    network: ForecastNetwork | NetworkAverage
    levels: np.ndarray
    calibration: WidthFactors | ResidualQuantiles | None

    def blocks(self, steps: int) -> int:
        """Return how many blocks of the horizon hold `steps` steps."""
        return max(1, -(-steps // self.network.config.horizon))

    def forecast(
        self,
        windows: Windows,
        origins: np.ndarray,
        steps: int,
        scaler: SeriesScaler,
        *,
        factors: np.ndarray | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Forecast:
        """Forecast `steps` steps from each origin.

        The first `horizon` steps come from one pass. Further blocks roll forward: the path along every quantile
        level is fed back, and what is forecast on these paths is pooled, each weighted by the probability that
        its level stands for, so that far intervals do not shrink.

        Parameters
        ----------
        windows : Windows
            The scaled series. Of an origin, only the rows before it are read, and of those after it the covariates
            that are known ahead, which need rows for whole blocks.
        origins : array of shape (O,), int
            Rows of the first step. Where a channel has no observed value in the context, the forecast is the
            distribution of the training series: its level, and normal quantiles of its scale.
        steps : int
            S.
        scaler : SeriesScaler
            Level and scale: (C,) of the one series, or (O, 1, C) for each origin.
        factors : array of shape (O, L, C, Q), optional
            Of the widths, for each origin. Default: those of the calibration for all.
        batch_size : int
            Windows that the network reads at once, at most.
        """
        blocks = self.blocks(steps)
        batch = self._cached_batch(batch_size)
        batch = batch if blocks == 1 else max(1, batch // (len(self.levels) + 1))
        parts = []
        for first in range(0, len(origins), batch):
            rows = slice(first, first + batch)
            parts.append(self._roll(windows, origins[rows], blocks, None if factors is None else factors[rows]))
        point, quantiles = (np.concatenate(arrays)[:, :steps] for arrays in zip(*parts, strict=True))
        point = scaler.backward(point)
        quantiles = np.moveaxis(scaler.backward(np.moveaxis(quantiles, -1, 0)), 0, -1)
        return Forecast(point, quantiles)

    def _cached_batch(self, batch_size: int) -> int:
        """Return how many windows to read at once: on a CPU no more long ones than its caches hold."""
        config = self.network.config
        if config.backbone == "mixer" or next(self.network.parameters()).device.type != "cpu":
            return batch_size
        tokens = config.context_length // (config.patch_length if config.backbone == "patch" else 1)
        return min(batch_size, max(LEAST_BATCH, CACHED_TOKENS // max(tokens, 1)))

    def _roll(
        self, windows: Windows, origins: np.ndarray, blocks: int, factors: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scaled points and quantiles of `blocks` blocks."""
        context, seen = windows.contexts(origins)
        point, quantiles = self._read(context, seen, *windows.features(origins), factors=factors)
        points, quantile_blocks = [point], [quantiles]
        batch, width = len(context), len(self.levels) + 1  # a path per level, and one along the point forecast
        contexts, seen = _along_paths(context, width), _along_paths(seen, width)
        for block in range(1, blocks):
            paths = np.concatenate([quantiles, point[..., None]], axis=-1)  # [B, L, C, Q + 1]
            paths = np.clip(paths, -LARGEST, LARGEST)
            step = torch.as_tensor(np.moveaxis(paths, -1, 1), dtype=context.dtype, device=context.device)
            contexts = torch.cat([contexts, step.flatten(0, 1)], dim=1)[:, -context.shape[1] :]
            seen = torch.cat([seen, torch.ones_like(step.flatten(0, 1), dtype=torch.bool)], dim=1)
            seen = seen[:, -context.shape[1] :]
            features = windows.features(origins, block * self.network.config.horizon)
            path_point, path_quantiles = self._read(
                contexts,
                seen,
                *(None if part is None else _along_paths(part, width) for part in features),
                factors=None if factors is None else np.repeat(factors, width, axis=0),
            )
            path_quantiles = path_quantiles.reshape(batch, width, *path_quantiles.shape[1:])
            quantiles = pool_paths(np.moveaxis(path_quantiles[:, :-1], 1, 0), self.levels)
            point = path_point.reshape(batch, width, *path_point.shape[1:])[:, -1]
            if self.network.config.loss not in POINT_LOSSES:
                point = self._median(quantiles)
            points.append(point)
            quantile_blocks.append(quantiles)
        return np.concatenate(points, axis=1), np.concatenate(quantile_blocks, axis=1)

    @torch.no_grad()
    def _read(
        self,
        context: Tensor,
        seen: Tensor,
        covariates: Tensor | None,
        future: Tensor | None,
        *,
        factors: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scaled points (B, L, C) and quantiles (B, L, C, Q) of one block."""
        forecast, state = self.network(context, seen, covariates=covariates, future=future, carry=False)
        forecast = self.network.quantiles(forecast.double()).cpu().numpy()
        scale = state.scale.scale.double().cpu().numpy()
        point = forecast[..., 0]
        calibration = self.calibration
        if isinstance(calibration, WidthFactors) and factors is not None:
            calibration = replace(calibration, factors=factors)
        if calibration is not None:
            forecast = calibration.apply(forecast, scale)
        if self.network.config.loss not in POINT_LOSSES:
            point = self._median(forecast)
        unseen = ~seen.any(1).cpu().numpy()[:, None, :]  # [B, 1, C]
        forecast = np.where(unseen[..., None], ndtri(self.levels), forecast)
        return np.where(unseen, 0.0, point), forecast

    def _median(self, quantiles: np.ndarray) -> np.ndarray:
        return interpolate_levels(quantiles, self.levels, np.array([0.5]))[..., 0]


def _along_paths(part: Tensor, width: int) -> Tensor:
    """Repeat each row of (B, ...) for every path: (B * width, ...)."""
    return part[:, None].expand(-1, width, *part.shape[1:]).flatten(0, 1)
