"""Windows by index arithmetic: an origin is the row of the first target, the context ends just before it.

                      origin
    ... [ context_length | horizon ] ...

Several series lie one after the other, each followed by rows for its future; a window reads no row of a neighbour.
Rows before a series, or from `stop` on, count as missing, so that short histories and short futures need no special
case. Dimensions: B windows, T context steps, L horizon steps, C channels, N rows, E features of covariates, F of them
known ahead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST = 1e15
"""Values further than this many spreads from the level of their series count as that far: the network squares
differences, and a float32 ends at 3e38."""


ENOUGH_WHOLE = 8
"""Windows with whole targets below which partial ones are used as well."""


class Batch(NamedTuple):
    """Some windows: what is read, and what is to be forecast."""

    context: Tensor  # [B, T, C]
    context_observed: Tensor
    target: Tensor  # [B, L, C]
    target_observed: Tensor
    covariates: Tensor | None = None  # [B, T, E]
    future: Tensor | None = None  # [B, L, F]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a network reads of them, by name: values and observed, and covariates and future if there are any."""
        return _inputs(self.context, self.context_observed, self.covariates, self.future)


@dataclass(frozen=True)
class Windows:
    """All windows of one or several scaled series.

    Parameters
    ----------
    values : Tensor of shape (N, C), float32
        Scaled values, 0 where missing.
    observed : Tensor of shape (N, C), bool
        Which values were seen.
    context_length, horizon : int
        T and L.
    first : Tensor of shape (N,), int64, optional
        The row at which the series of each row begins. Default: 0 everywhere, a single series.
    covariates : Tensor of shape (N, E), float32, optional
        Features of the covariates of each row, 0 where unknown.
    known : Tensor of shape (E,), bool, optional
        Which features are known ahead and may be read of the rows to be forecast.
    """

    values: Tensor
    observed: Tensor
    context_length: int
    horizon: int
    first: Tensor | None = None
    covariates: Tensor | None = None
    known: Tensor | None = None

    @classmethod
    def of(cls, scaled: np.ndarray, context_length: int, horizon: int, device: torch.device) -> "Windows":
        """Take one scaled float64 array with NaN for missing."""
        observed = ~np.isnan(scaled)
        scaled = np.clip(scaled, -LARGEST, LARGEST)
        values = torch.from_numpy(np.where(observed, scaled, 0.0)).to(device, torch.float32)
        return cls(values, torch.from_numpy(observed).to(device), context_length, horizon)

    @classmethod
    def of_many(
        cls,
        scaled: Sequence[np.ndarray],
        context_length: int,
        horizon: int,
        device: torch.device,
        *,
        ahead: int,
        features: Sequence[np.ndarray] | None = None,
        known: np.ndarray | None = None,
    ) -> tuple["Windows", np.ndarray]:
        """Lay several series one after the other, each with `ahead` rows for what follows it.

        Parameters
        ----------
        scaled : sequence of arrays of shape (N_s, C), float64
            NaN where missing.
        features : sequence of arrays of shape (at most N_s + ahead, E), float32, optional
            Features of the covariates; rows that are not given are 0.
        known : array of shape (E,), bool, optional
            Which features are known ahead.

        Returns
        -------
        windows : Windows
        starts : array of shape (S,)
            The row of the first value of each series.
        """
        sizes = np.array([len(part) + ahead for part in scaled])
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        rows = np.full((int(sizes.sum()), scaled[0].shape[1]), np.nan)
        for start, part in zip(starts, scaled, strict=True):
            rows[start : start + len(part)] = part
        plain = cls.of(rows, context_length, horizon, device)
        first = torch.from_numpy(np.repeat(starts, sizes)).to(device) if len(scaled) > 1 else None
        if features is None or known is None or len(known) == 0:
            return cls(plain.values, plain.observed, context_length, horizon, first), starts
        table = np.zeros((len(rows), len(known)), dtype=np.float32)
        for start, part in zip(starts, features, strict=True):
            table[start : start + len(part)] = part
        covariates = torch.from_numpy(table).to(device)
        mask = torch.from_numpy(np.asarray(known, dtype=bool)).to(device)
        return cls(plain.values, plain.observed, context_length, horizon, first, covariates, mask), starts

    def of_length(self, context_length: int) -> "Windows":
        """Return the same windows with contexts of another length; the values are shared."""
        return self if context_length == self.context_length else replace(self, context_length=context_length)

    def contexts(self, origins: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return values and observed flags of the contexts, (B, T, C) each."""
        rows, inside = self._rows(origins, -self.context_length, self.context_length, len(self.values))
        return self._gather(rows, inside)

    def inputs(self, origins: np.ndarray) -> dict[str, Tensor]:
        """Return what a network reads at some origins, as `Batch.inputs`."""
        return _inputs(*self.contexts(origins), *self.features(origins))

    def features(
        self, origins: np.ndarray, shift: int = 0, *, length: int | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the features of the contexts (B, T, E) and of the horizons (B, L, F).

        Parameters
        ----------
        origins : array of shape (B,)
            What is known ahead is read beyond them, everything else before them only.
        shift : int
            By how many steps the windows lie after those of the origins.
        length : int, optional
            How many steps of the context, its last ones. Default: T.
        """
        if self.covariates is None or self.known is None:
            return None, None
        length = self.context_length if length is None else length
        rows, inside = self._rows(origins, shift - length, length, len(self.values))
        context = self.covariates[rows] * inside[..., None]
        if shift > 0:
            later = rows >= torch.as_tensor(origins, device=rows.device)[:, None]
            context = torch.where(later[..., None] & ~self.known, 0.0, context)
        rows, inside = self._rows(origins, shift, self.horizon, len(self.values))
        return context, self.covariates[:, self.known][rows] * inside[..., None]

    def batch(self, origins: np.ndarray, stop: int | np.ndarray) -> Batch:
        """Return windows whose targets count as missing from row `stop` on: a number, or one for each row."""
        limit: int | Tensor
        if isinstance(stop, np.ndarray):
            limit = torch.as_tensor(stop[origins], device=self.values.device)[:, None]
        else:
            limit = stop
        target = self._gather(*self._rows(origins, 0, self.horizon, limit))
        return Batch(*self.contexts(origins), *target, *self.features(origins))

    def usable(self, origins: np.ndarray, stop: int | np.ndarray) -> np.ndarray:
        """Keep the origins that have an observed value in the context and one in the targets."""
        seen = torch.cumsum(self.observed.any(1).to(torch.int64), 0).cpu().numpy()
        seen = np.concatenate([[0], seen])
        first = 0 if self.first is None else self.first.cpu().numpy()[origins]
        limit = stop[origins] if isinstance(stop, np.ndarray) else stop
        before = seen[origins] - seen[np.maximum(origins - self.context_length, first)]
        after = seen[np.minimum(origins + self.horizon, limit)] - seen[np.minimum(origins, limit)]
        return origins[(before > 0) & (after > 0)]

    def _rows(self, origins: np.ndarray, offset: int, length: int, stop: int | Tensor) -> tuple[Tensor, Tensor]:
        """Return row numbers (B, length), and which of them belong to the series and lie before `stop`."""
        device = self.values.device
        origin = torch.as_tensor(origins, device=device)[:, None]
        rows = origin + torch.arange(offset, offset + length, device=device)
        first = 0 if self.first is None else self.first[origin.clamp_max(len(self.values) - 1)]
        inside = (rows >= first) & (rows < stop)
        return rows.clamp(0, len(self.values) - 1), inside

    def _gather(self, rows: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        observed = self.observed[rows] & inside[..., None]
        return torch.where(observed, self.values[rows], 0.0), observed


def _inputs(context: Tensor, observed: Tensor, covariates: Tensor | None, future: Tensor | None) -> dict[str, Tensor]:
    plain = {"values": context, "observed": observed}
    if covariates is None or future is None:
        return plain
    return plain | {"covariates": covariates, "future": future}


class Split(NamedTuple):
    """Rows at which the training period of each series is cut, arrays of shape (S,): targets of training end before
    `train`, those that decide when to stop lie in [train, stop), those that calibrate intervals in [stop, end).
    """

    train: np.ndarray
    stop: np.ndarray
    end: np.ndarray


def split_by_target_time(times: Sequence[np.ndarray], horizon: int, fraction: float) -> Split:
    """Cut the end of the training period off for validation, by target time: at the same time in all series.

    Its earlier half decides when to stop, its later half calibrates. Where a half would not hold one whole
    horizon of any series, nothing is cut off.

    Parameters
    ----------
    times : sequence of arrays of shape (N_s,), int
        Increasing times of each series, on one clock.
    horizon : int
        L.
    fraction : float
        Share of all rows that lies in the part that is cut off.
    """
    rows = np.array([len(part) for part in times])
    pooled = np.sort(np.concatenate(times))
    half = int(len(pooled) * fraction) // 2
    if half == 0:
        return Split(rows, rows, rows)
    train, stop = (np.array([np.searchsorted(part, pooled[-k]) for part in times]) for k in (2 * half, half))
    if not ((stop - train >= horizon).any() and (rows - stop >= horizon).any()):
        return Split(rows, rows, rows)
    return Split(train, stop, rows)


def training_origins(stop: int, horizon: int) -> np.ndarray:
    """Return the origins of training windows: whole targets before `stop`, or, in a short series, partial ones."""
    whole = stop - horizon
    return np.arange(1, whole + 1) if whole >= ENOUGH_WHOLE else np.arange(1, stop)


def held_out_origins(start: int, stop: int, horizon: int) -> np.ndarray:
    """Return the origins whose whole targets lie in [start, stop)."""
    return np.arange(start, stop - horizon + 1)
