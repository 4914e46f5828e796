"""Level and scale of series, removed in float64 before anything is float32. Dimensions: N times, C channels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SeriesScaler:
    """Level and scale of each channel of the training series, in float64.

    A channel whose training values are all the same has that value as level and 0 as output scale: its forecast
    is exactly that value.

    Parameters
    ----------
    level, scale : arrays of shape (C,)
        Mean and standard deviation; `scale` is 0 for a constant channel. For several series (S, C).
    """

    level: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> "SeriesScaler":
        """Measure the observed values of (N, C)."""
        level, scale = np.empty(values.shape[1]), np.empty(values.shape[1])
        for j, column in enumerate(values.T):
            level[j], scale[j] = _level_and_scale(column[~np.isnan(column)])
        return cls(level, scale)

    @classmethod
    def fit_before(cls, values: np.ndarray, stop: int) -> "SeriesScaler":
        """Measure the rows before `stop`.

        `values` is (N, C), or (N, T, C) for windows. Of a channel that is constant before `stop` that value is the
        level, and only its unit, without which what comes after could not be told from it, is measured on all rows.
        One with nothing observed before is measured on all rows, and one without any observed value gets level and
        scale 0.
        """
        stop = stop or len(values)  # a series may begin where another is cut
        parts = [part.reshape(-1, values.shape[-1]) for part in (values[:stop], values)]
        seen = (~np.isnan(parts[0])).any(0)
        inner, whole = (cls.fit(np.where((~np.isnan(part)).any(0), part, 0.0)) for part in parts)
        return cls(np.where(seen, inner.level, whole.level), np.where(inner.scale > 0, inner.scale, whole.scale))

    @classmethod
    def stack(cls, scalers: Sequence["SeriesScaler"]) -> "SeriesScaler":
        """Put the scalers of several series into one of shape (S, C)."""
        return cls(np.stack([one.level for one in scalers]), np.stack([one.scale for one in scalers]))

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Level and scale."""
        return self.level, self.scale

    def at(self, series: Sequence[int]) -> "SeriesScaler":
        """Keep some of several series."""
        return SeriesScaler(self.level[list(series)], self.scale[list(series)])

    def of(self, series: int | np.ndarray) -> "SeriesScaler":
        """Take the scaler (C,) of one series, or for several, one a row, those that broadcast against (B, L, C)."""
        level, scale = self.level[series], self.scale[series]
        return SeriesScaler(level, scale) if np.ndim(series) == 0 else SeriesScaler(level[:, None], scale[:, None])

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Remove level and scale along the last axis."""
        unit = np.where(self.scale > 0, self.scale, 1.0)
        return 2 * ((values / 2 - self.level / 2) / unit)  # in halves: the difference may exceed the largest float

    def backward(self, scaled: np.ndarray) -> np.ndarray:
        """Put scale and level back along the last axis; what lies beyond the largest float becomes that."""
        limit = np.finfo(np.float64).max
        with np.errstate(over="ignore"):
            return np.clip(self.level + self.scale * scaled, -limit, limit)


def _level_and_scale(observed: np.ndarray) -> tuple[float, float]:
    low, high = observed.min(), observed.max()
    # Relative to one value and in units of the range, a level of 1e9 keeps the digits of moves of 1. All in halves:
    # the range may exceed the largest float.
    unit = high / 2 - low / 2
    if unit == 0:
        return float(low), 0.0
    relative = (observed / 2 - low / 2) / unit
    return float(2 * (low / 2 + unit * relative.mean())), float(unit * (2 * relative.std()))
