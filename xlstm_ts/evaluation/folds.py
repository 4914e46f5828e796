"""Which origins a backtest forecasts from, and on which rows each model is fitted for them.

An origin is the last observed time. Origins are cut into folds; each fold is served by one fit, on the rows before
its first origin::

    expanding  |======train======|-gap-o  o  o        one fold: refit=False
               |======train============|-gap-o  o  o  next fold: refit=3
    sliding           |======train=====|-gap-o  o  o  as many rows as at first

With ``gap=0`` the first origin itself is the last row of the training part: its value is known there.
All positions count the times of the series from 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import DataError, ParameterError

DEFAULT_ORIGINS = 50
# Spread origins lie in the last fifth of the rows, unless more of them are wanted than fit there.
_TEST_SHARE = 0.2
# With two horizons and this many rows, the baselines have a spread of errors at every step.
_SPARE_TRAINING_ROWS = 8


@dataclass(frozen=True, eq=False)
class Fold:
    """Origins that are served by one fit.

    Attributes
    ----------
    origins : ndarray of int
        Positions of the origins.
    train_start, train_stop : int
        The training rows lie at positions from `train_start` to before `train_stop`.
    """

    origins: NDArray
    train_start: int
    train_stop: int


def read_steps(horizon: Any) -> list[int]:
    """Return the steps ahead: 1 to a whole number, or those of a sequence, increasing."""
    if is_integer(horizon):
        steps = list(range(1, int(horizon) + 1))
    elif isinstance(horizon, list | tuple | range | np.ndarray) and all(map(is_integer, horizon)):
        steps = sorted({int(step) for step in horizon})
    else:
        steps = []
    if not steps or steps[0] < 1:
        raise ParameterError(f"backtest: horizon={horizon!r}; an integer from 1, or a list of such steps, is needed.")
    return steps


def plan_origins(
    times: pd.Index,
    last_step: int,
    *,
    origins: Any = None,
    initial: int | None = None,
    stride: int | None = None,
    gap: int = 0,
) -> NDArray:
    """Return the positions of the origins; all errors about too little room are raised here.

    Parameters
    ----------
    times : Index
        Times of the series.
    last_step : int
        The farthest step ahead; as many rows must follow the last origin.
    origins : int or index values, optional
        How many, or which.
    initial, stride : int, optional
        Training rows before the first origin, and rows from one origin to the next.
    gap : int
        Rows between the end of the training part and the first origin.
    """
    if not is_integer(gap) or gap < 0:
        raise ParameterError(f"backtest: gap={gap!r}; a number of rows from 0 is needed.")
    if initial is not None or stride is not None:
        if origins is not None:
            raise ParameterError(
                "backtest: origins and initial or stride are both given. Say which origins to forecast from in one "
                "way: origins, or initial and stride."
            )
        return _strided_origins(len(times), last_step, initial, 1 if stride is None else stride, gap)
    origins = DEFAULT_ORIGINS if origins is None else origins
    if is_integer(origins):
        return _spread_origins(len(times), last_step, int(origins), gap)
    if isinstance(origins, bool | float | str):
        raise ParameterError(f"backtest: origins={origins!r}; a number of origins, or a list of index values.")
    return _given_origins(times, last_step, origins, gap)


def plan_folds(positions: NDArray, *, refit: Any, window: str, gap: int) -> list[Fold]:
    """Cut the origins into folds and say on which rows each is fitted.

    Parameters
    ----------
    positions : ndarray of int
        Positions of the origins, increasing.
    refit : bool, int or None
        False or None: one fold; True: one per origin; a number: so many origins per fold.
    window : {"expanding", "sliding"}
        Whether training parts begin at the first row, or have the length of the first one.
    gap : int
        Rows between the end of the training part and the first origin.
    """
    if window not in ("expanding", "sliding"):
        raise ParameterError(f'backtest: window={window!r}; "expanding" or "sliding" is needed.')
    if not (refit is None or isinstance(refit, bool) or (is_integer(refit) and refit >= 1)):
        raise ParameterError(f"backtest: refit={refit!r}; False, True, None or a number of origins from 1 is needed.")
    size = len(positions) if refit in (None, False) and not is_integer(refit) else int(refit)
    length = int(positions[0]) + 1 - gap
    folds = []
    for first in range(0, len(positions), size):
        part = positions[first : first + size]
        stop = int(part[0]) + 1 - gap
        folds.append(Fold(part, 0 if window == "expanding" else stop - length, stop))
    return folds


def _least_rows(last_step: int) -> int:
    """Two errors of the naive forecasts at the farthest step are the least that has a spread."""
    return last_step + 2


def _spread_origins(rows: int, last_step: int, count: int, gap: int) -> NDArray:
    if count < 1:
        raise ParameterError(f"backtest: origins={count}; at least 1 origin is needed.")
    least = 2 * last_step + _SPARE_TRAINING_ROWS
    if rows < least + gap + last_step:
        between = f"{gap} for the gap, " if gap else ""
        raise DataError(
            f"backtest: y has {rows} rows; horizon={last_step} needs at least {least + gap + last_step}: {least} to "
            f"learn from, {between}and {last_step} to score. Give a longer series or a shorter horizon."
        )
    test_rows = max(math.ceil(_TEST_SHARE * rows), count + last_step - 1)
    train_rows = max(rows - test_rows, math.ceil(rows / 2), least + gap)
    return spread(np.arange(train_rows - 1, rows - last_step), count)


def _strided_origins(rows: int, last_step: int, initial: Any, stride: Any, gap: int) -> NDArray:
    if not is_integer(stride) or stride < 1:
        raise ParameterError(f"backtest: stride={stride!r}; a number of rows from 1 is needed.")
    initial = math.ceil(rows * (1 - _TEST_SHARE)) if initial is None else initial
    least = _least_rows(last_step)
    if not is_integer(initial) or initial < least:
        raise ParameterError(
            f"backtest: initial={initial!r}; the first training part needs at least {least} rows for "
            f"horizon={last_step}."
        )
    first = int(initial) - 1 + gap
    if first + last_step >= rows:
        raise DataError(
            f"backtest: y has {rows} rows; initial={initial}, gap={gap} and horizon={last_step} need at least "
            f"{first + last_step + 1}. Give a longer series, or make one of them smaller."
        )
    return np.arange(first, rows - last_step, int(stride))


def _given_origins(times: pd.Index, last_step: int, origins: Any, gap: int) -> NDArray:
    try:
        wanted = pd.Index(origins)
        if isinstance(times, pd.PeriodIndex):
            wanted = pd.PeriodIndex(wanted, freq=times.freq)
        elif isinstance(times, pd.DatetimeIndex):
            wanted = pd.DatetimeIndex(wanted, tz=None if isinstance(wanted, pd.DatetimeIndex) else times.tz)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"backtest: origins are no values of the index of y ({times.dtype}): {error}") from error
    if not len(wanted) or not wanted.is_monotonic_increasing or not wanted.is_unique:
        raise ParameterError(
            f"backtest: origins are {len(wanted)} index values; at least 1 is needed, increasing and without "
            "repetition."
        )
    positions = times.get_indexer(wanted)
    if (positions < 0).any():
        raise ParameterError(
            f"backtest: {int((positions < 0).sum())} of {len(wanted)} origins are not in the index of y, the first "
            f"is {wanted[positions < 0][0]}. An origin is the time of a row of y."
        )
    least, before, after = _least_rows(last_step), positions[0] + 1 - gap, len(times) - 1 - positions[-1]
    if before < least or after < last_step:
        less_gap = f", less gap={gap}," if gap else ""
        raise DataError(
            f"backtest: {max(before, 0)} rows of y lie up to the first origin{less_gap} and {after} after the last; "
            f"horizon={last_step} needs at least {least} and {last_step}. Choose later first or earlier last origins, "
            "a smaller gap or a shorter horizon."
        )
    return positions


def spread(values: Any, count: int) -> Any:
    """At most `count` of the values, evenly spread from the last back to the first; one is the last."""
    return values[np.unique(np.linspace(len(values) - 1, 0, min(count, len(values))).round().astype(int))]


def is_integer(value: Any) -> bool:
    """Whether a value is a whole number (numpy's count, booleans do not)."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
