"""Whether calibrated intervals hold what they promise, and are better than others.

`XLSTMForecaster` with its default settings, on a data set of the long-horizon tables: its intervals as fitted and as
they go on learning, those of the same network before calibration, and those of the seasonal naive forecast, at origins
that none of them was fitted on.
"""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_ts.bench.long_horizon import SEASON, Table, Task
from xlstm_ts.checks import require
from xlstm_ts.data.windows import Windows, held_out_origins
from xlstm_ts.evaluation.baselines import SeasonalNaive
from xlstm_ts.evaluation.metrics import winkler_terms
from xlstm_ts.evaluation.significance import block_bootstrap
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.quantiles import interpolate_levels
from xlstm_ts.training.calibration import WidthFactors, cross_calibrate, forecast_held_out

COVERAGE = 0.9
LEVELS = [0.05, 0.95]
PARTS = ("validation", "blocks", "test")
AT_ONCE = 200  # origins in one frame of forecasts
COLUMNS = [
    "data",
    "horizon",
    "part",
    "seed",
    "origins",
    "intervals",
    "coverage",
    "coverage_low",
    "coverage_high",
    "first_step",
    "middle_step",
    "last_step",
    "winkler",
    "winkler_low",
    "winkler_high",
]


def run_intervals(
    data: str,
    horizon: int,
    part: str = "test",
    *,
    seed: int = 0,
    stride: int = 24,
    output: str = "docs/benchmarks/intervals.csv",
    say: Callable[[str], None] = print,
) -> None:
    """Measure 90 % intervals, and add three or four rows to a CSV file.

    Parameters
    ----------
    data, horizon
        As in `run_long_horizon`.
    part : {"validation", "blocks", "test"}
        The test part, after a fit on all before it; or the last third of the validation part, after a fit on all
        before that: what the forecaster needs for stopping and calibration it takes from the rows of the fit. Or, of
        the later half of the validation part, after a fit on all before it, one block after the other, calibrated by
        the windows of the other blocks that share no target with it (`cross_calibrate`): what is left of the
        difference to 90 % is not for the calibration being older than what it is used on.
    seed : int
        Of the forecaster.
    stride : int
        Steps from one origin to the next; "blocks" has its own.
    output : str
        The CSV file.
    say : callable
        Gets one line of text at a time.
    """
    require(part in PARTS, "part", part, f"one of {PARTS}")
    task = Task.load(data, horizon)
    before, second, third = task.borders
    share = {"validation": 3, "blocks": 2}
    start, stop = (second, third) if part == "test" else (second - (second - before) // share[part], second)
    frame, origins = task.frame, held_out_origins(start, stop, horizon)
    model = XLSTMForecaster(horizon, calibrate="adaptive", random_state=seed).fit(frame[:start])
    naive = SeasonalNaive(SEASON[data]).fit(frame[:start])
    if part == "blocks":
        bounds, stride = _crossed(model, task.values[:stop], origins)
        origins = origins[::stride]
    else:
        origins = origins[::stride]
        fixed, uncalibrated = copy.copy(model), copy.copy(model)
        fixed._factors = uncalibrated._factors = uncalibrated._calibration = None
        models = {"calibrated": fixed, "calibrated, adaptive": model, "as the network says": uncalibrated}
        bounds = {name: _forecast(one, frame, origins, horizon) for name, one in models.items()}
    bounds["seasonal naive"] = _forecast(naive, frame, origins, horizon)
    actual = task.values[origins[:, None] + np.arange(horizon)]
    results = Table(Path(output), COLUMNS)
    for name, (low, high) in bounds.items():
        row = {"data": data, "horizon": horizon, "part": part, "seed": seed, "origins": len(origins), "intervals": name}
        row |= _measure(actual, low, high, -(-horizon // stride))
        results.append(row)
        say(", ".join(f"{key} {value}" for key, value in row.items()))


def _forecast(forecaster, frame, origins, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the intervals, (O, L, C) each."""
    ends: tuple[list, list] = ([], [])
    for first in range(0, len(origins), AT_ONCE):
        some = origins[first : first + AT_ONCE]
        steps = np.arange(1, horizon + 1)
        table = forecaster.predict_origins(frame, origins=frame.index[some - 1], fh=steps, quantile_levels=LEVELS)
        for level, parts in zip(LEVELS, ends, strict=True):
            parts.append(table[level].to_numpy().reshape(len(some), horizon, frame.shape[1]))
    return np.concatenate(ends[0]), np.concatenate(ends[1])


def _crossed(model, values: np.ndarray, origins: np.ndarray) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """Return intervals of one block after the other, calibrated by the others, and the stride of their origins."""
    config, scaler = model.network_.config, model._scaler.of(0)
    device = next(model.network_.parameters()).device
    windows = Windows.of(scaler.forward(values), config.context_length, config.horizon, device)
    held_out, levels = forecast_held_out(model.network_, windows, origins), model._levels
    calibrated = cross_calibrate(held_out, partial(WidthFactors.fit, levels=levels))
    bounds = {}
    for name, quantiles in {"calibrated": calibrated, "as the network says": held_out.forecast}.items():
        ends = interpolate_levels(quantiles, levels, np.array(LEVELS))
        bounds[name] = (scaler.backward(ends[..., 0]), scaler.backward(ends[..., 1]))
    return bounds, held_out.stride


def _measure(actual: np.ndarray, low: np.ndarray, high: np.ndarray, block: int) -> dict[str, Any]:
    """Return coverage and Winkler score, with 95 % limits by a bootstrap of blocks of `block` overlapping origins."""
    covered = ((low <= actual) & (actual <= high)).mean(-1)  # [O, L]: means over channels
    winkler = winkler_terms(actual, low, high, COVERAGE).mean(-1)
    (least, most), (best, worst) = (_limits(terms.mean(1), block) for terms in (covered, winkler))
    by_step = covered.mean(0)
    numbers = {
        "coverage": covered.mean(),
        "coverage_low": least,
        "coverage_high": most,
        "first_step": by_step[0],
        "middle_step": by_step[actual.shape[1] // 2],
        "last_step": by_step[-1],
        "winkler": winkler.mean(),
        "winkler_low": best,
        "winkler_high": worst,
    }
    return {name: f"{float(value):.3f}" for name, value in numbers.items()}


def _limits(terms: np.ndarray, block: int) -> tuple[float, float]:
    low, high = block_bootstrap(terms, lambda mean: mean, block_length=block)
    return float(low), float(high)
