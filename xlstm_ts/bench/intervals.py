"""Whether calibrated intervals hold what they promise, and are better than others.

`XLSTMForecaster` with its default settings, on a data set of the long-horizon tables: its intervals, those of the same
network before calibration, and those of the seasonal naive forecast, at origins that none of them was fitted on.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_ts.bench.long_horizon import SEASON, Table, Task
from xlstm_ts.checks import require
from xlstm_ts.data.windows import held_out_origins
from xlstm_ts.evaluation.baselines import SeasonalNaive
from xlstm_ts.evaluation.metrics import winkler_terms
from xlstm_ts.evaluation.significance import block_bootstrap
from xlstm_ts.forecaster import XLSTMForecaster

COVERAGE = 0.9
LEVELS = [0.05, 0.95]
PARTS = ("validation", "test")
AT_ONCE = 50  # origins in one frame of forecasts
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
    """Measure 90 % intervals, and add three rows to a CSV file.

    Parameters
    ----------
    data, horizon
        As in `run_long_horizon`.
    part : {"validation", "test"}
        The test part, after a fit on all before it; or the later third of the validation part, after a fit on all
        before that. What the forecaster needs for stopping and calibration it takes from the rows of the fit.
    seed : int
        Of the forecaster.
    stride : int
        Steps from one origin to the next.
    output : str
        The CSV file.
    say : callable
        Gets one line of text at a time.
    """
    require(part in PARTS, "part", part, f"one of {PARTS}")
    task = Task.load(data, horizon)
    _, second, third = task.borders
    third, second = (third, second) if part == "test" else (second, second - (second - task.borders[0]) // 3)
    origins = held_out_origins(second, third, horizon)[::stride]
    frame = task.frame
    model = XLSTMForecaster(horizon, random_state=seed).fit(frame[:second])
    uncalibrated = copy.copy(model)
    uncalibrated._calibration = None
    forecasters = {
        "calibrated": model,
        "as the network says": uncalibrated,
        "seasonal naive": SeasonalNaive(SEASON[data]).fit(frame[:second]),
    }
    results = Table(Path(output), COLUMNS)
    for name, forecaster in forecasters.items():
        row = {"data": data, "horizon": horizon, "part": part, "seed": seed, "origins": len(origins), "intervals": name}
        row |= _measure(forecaster, frame, task.values, origins, horizon, -(-horizon // stride))
        results.append(row)
        say(", ".join(f"{key} {value}" for key, value in row.items()))


def _measure(forecaster, frame, values, origins, horizon: int, block: int) -> dict[str, Any]:
    """Return coverage and Winkler score, with 95 % limits by a bootstrap of blocks of `block` overlapping origins."""
    steps = np.arange(horizon)
    inside, score = [], []  # [O, L]: means over channels
    for first in range(0, len(origins), AT_ONCE):
        some = origins[first : first + AT_ONCE]
        table = forecaster.predict_origins(frame, origins=frame.index[some - 1], fh=steps + 1, quantile_levels=LEVELS)
        shape = (len(some), horizon, values.shape[1])
        low, high = (table[level].to_numpy().reshape(shape) for level in LEVELS)
        actual = values[some[:, None] + steps]
        inside.append(((low <= actual) & (actual <= high)).mean(-1))
        score.append(winkler_terms(actual, low, high, COVERAGE).mean(-1))
    covered, winkler = np.concatenate(inside), np.concatenate(score)
    (low, high), (best, worst) = (_limits(terms.mean(1), block) for terms in (covered, winkler))
    by_step = covered.mean(0)
    numbers = {
        "coverage": covered.mean(),
        "coverage_low": low,
        "coverage_high": high,
        "first_step": by_step[0],
        "middle_step": by_step[horizon // 2],
        "last_step": by_step[-1],
        "winkler": winkler.mean(),
        "winkler_low": best,
        "winkler_high": worst,
    }
    return {name: f"{float(value):.3f}" for name, value in numbers.items()}


def _limits(terms: np.ndarray, block: int) -> tuple[float, float]:
    low, high = block_bootstrap(terms, lambda mean: mean, block_length=block)
    return float(low), float(high)
