"""The long-horizon tables of the literature, by their exact protocol.

Every channel is z-scored by its training rows; windows have stride 1; those of the validation and the test part may
read the rows before their border; MSE and MAE run over all windows, steps and channels, in z-scored units. All choices
are made on the validation part. The test part is read once per network, when it is done.
"""

import csv
import itertools
import json
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from xlstm_ts import __version__
from xlstm_ts.data.time_features import TimeFeatures
from xlstm_ts.data.windows import Windows, held_out_origins
from xlstm_ts.datasets import dataset_info, load_dataset
from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.nn.network import ForecastNetwork, NetworkConfig
from xlstm_ts.training.callbacks import BestWeights
from xlstm_ts.training.device import resolve_device
from xlstm_ts.training.loop import TrainingConfig, train
from xlstm_ts.training.warm_start import warm_start

ROWS = {
    "etth1": (8640, 2880, 2880),
    "etth2": (8640, 2880, 2880),
    "ettm1": (34560, 11520, 11520),
    "ettm2": (34560, 11520, 11520),
    "weather": (36887, 5270, 10539),
    "exchange_rate": (5311, 760, 1517),
    "national_illness": (676, 97, 193),
}
"""Rows for training, validation and test."""

SEASON = {
    "etth1": 24,
    "etth2": 24,
    "ettm1": 96,
    "ettm2": 96,
    "weather": 144,
    "exchange_rate": 1,
    "national_illness": 52,
}
"""Steps of a day, or of a year; 1 where there is no season, which makes the naive forecast the last value."""

PROTOCOLS = ("96", "tuned", "default")
MODELS = ("xlstm", "xlstm_average", "lstm", "linear", "seasonal_naive")

SHORT: dict[str, Any] = {"context_length": 96, "calendar": "day"}
"""What is set where the lookback is 96 steps, which on three of the sets is a day or less."""

LINEAR_LOOKBACKS = (96, 192, 336, 512, 720)
SEARCH: dict[str, tuple] = {
    "context_length": (336, 512, 720),
    "learning_rate": (3e-4, 1e-3),
    "calendar": (None, "day"),
    "loss": ("mae", "quantile"),
}
"""What is tuned, one after the other."""

POOL: dict[str, tuple] = {"calendar": ("day",), "loss": ("mae", "quantile"), "context_length": (336, 512, 720)}
"""What differs among the networks that may be averaged: all combinations."""

NEAR = 0.02  # how far above the best sum of MSE and MAE the networks in an average may be

BATCH = 256  # windows that are scored at once
MAX_FRAME_ROWS = 2_000_000  # rows of one frame of forecasts of the estimator


class Score(NamedTuple):
    """Mean squared and mean absolute error in z-scored units."""

    mse: float
    mae: float


@dataclass(frozen=True)
class Task:
    """One cell of the tables: z-scored values (N, C) at their published times, the rows at which validation, test and
    end lie, a horizon.
    """

    data: str
    horizon: int
    values: np.ndarray
    times: pd.DatetimeIndex
    borders: tuple[int, int, int]

    @classmethod
    def load(cls, data: str, horizon: int) -> "Task":
        """Read a data set and cut it as the papers do.

        Raises
        ------
        ParameterError
            There are no published borders for the data set, or a part of it does not hold one horizon.
        """
        if data not in ROWS:
            raise ParameterError(f"bench long-horizon: data={data!r} is unknown; expected one of {', '.join(ROWS)}.")
        if not 1 <= horizon <= min(ROWS[data]):
            raise ParameterError(
                f"bench long-horizon: horizon={horizon} is impossible; expected from 1 to {min(ROWS[data])} for {data}."
            )
        first, second, third = np.cumsum(ROWS[data]).tolist()
        table = load_dataset(data, raw=True)[:third]
        values = table.select_dtypes("number").to_numpy(np.float64)
        known = values[:first]
        times = pd.DatetimeIndex(table.iloc[:, 0])
        return cls(data, horizon, (values - known.mean(0)) / known.std(0), times, (first, second, third))

    @property
    def frame(self) -> pd.DataFrame:
        """Its values at regular times of the step of the data set; the published times have holes and duplicates."""
        times = pd.date_range("2000-01-01", periods=len(self.values), freq=dataset_info(self.data).step)
        return pd.DataFrame(self.values, index=times)

    def windows(self, setting: "Setting", device: torch.device) -> Windows:
        """Return its windows, with what the setting reads off the clock."""
        features = setting.time_features.of(self.times)
        known = np.ones(features.shape[1], dtype=bool)
        options: dict[str, Any] = {"ahead": 0, "features": [features], "known": known}
        return Windows.of_many([self.values], setting.context_length, self.horizon, device, **options)[0]

    @property
    def validation(self) -> np.ndarray:
        """Origins of the validation windows."""
        return held_out_origins(self.borders[0], self.borders[1], self.horizon)

    @property
    def test(self) -> np.ndarray:
        """Origins of the test windows."""
        return held_out_origins(self.borders[1], self.borders[2], self.horizon)


@dataclass(frozen=True)
class Setting:
    """What a row of the table was trained with."""

    context_length: int = 512
    backbone: str = "mixer"
    layout: str = "s"
    hidden_size: int = 128
    num_heads: int = 4
    patch_length: int = 16
    conv_width: int = 4
    decomposition: int | None = None
    dropout: float = 0.1
    linear_skip: bool = True
    calendar: str | None = None
    loss: str = "mae"
    max_epochs: int = 12
    steps_per_epoch: int | None = 150
    batch_size: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    averaging: float = 0.99
    patience: int = 4

    @property
    def time_features(self) -> TimeFeatures:
        """What is read off the clock: nothing, or the place in one cycle."""
        return TimeFeatures(() if self.calendar is None else (self.calendar,))

    def network(self, task: Task) -> NetworkConfig:
        """Return the shape of the network for a task."""
        fields = [
            "context_length",
            "backbone",
            "layout",
            "hidden_size",
            "num_heads",
            "patch_length",
            "conv_width",
            "decomposition",
            "dropout",
            "linear_skip",
            "loss",
        ]
        return NetworkConfig(
            channels=task.values.shape[1],
            horizon=task.horizon,
            num_blocks=None,
            quantile_levels=(0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95),
            known=(True,) * self.time_features.width,
            **{name: getattr(self, name) for name in fields},
        )

    def training(self) -> TrainingConfig:
        """Return how it is trained."""
        return TrainingConfig(
            max_epochs=self.max_epochs,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            gradient_clip=1.0,
            averaging=self.averaging,
        )

    def __str__(self) -> str:
        return json.dumps(asdict(self))


class Fitted(NamedTuple):
    """A network, with what it was made, what it reads, and what its training took."""

    setting: Setting
    network: ForecastNetwork
    windows: Windows
    validation: Score
    seconds: float


def fit(task: Task, setting: Setting, *, seed: int, device: torch.device) -> Fitted:
    """Train on the training part; the validation part decides the ridge penalty and when to stop."""
    start = time.perf_counter()
    network, windows, origins, generator = _start(task, setting, seed, device)
    train(
        network,
        windows,
        origins,
        stop=task.borders[0],
        valid_origins=task.validation,
        config=setting.training(),
        generator=generator,
        callbacks=[BestWeights(setting.patience)],
    )
    seconds = time.perf_counter() - start
    return Fitted(setting, network, windows, score(network, windows, task.validation), seconds)


def fit_linear(task: Task, *, device: torch.device) -> Fitted:
    """Return the linear model alone, of the lookback that is best on the validation part."""
    start = time.perf_counter()
    best = None
    for context_length in LINEAR_LOOKBACKS:
        if context_length >= task.borders[0] // 2:
            continue
        setting = Setting(context_length=context_length, layout="l")
        network, windows, _, _ = _start(task, setting, 0, device)
        found = Fitted(setting, network, windows, score(network, windows, task.validation), time.perf_counter() - start)
        if best is None or found.validation.mse < best.validation.mse:
            best = found
    if best is None:
        raise DataError(f"bench long-horizon: {task.data} is too short for a lookback of {LINEAR_LOOKBACKS[0]}.")
    return best._replace(seconds=time.perf_counter() - start)


def _start(task: Task, setting: Setting, seed: int, device: torch.device):
    """Return a network at its linear start, the windows, the training origins, and the generator."""
    windows = task.windows(setting, device)
    origins = np.arange(setting.context_length, task.borders[0] - task.horizon + 1)
    generator = torch.Generator().manual_seed(seed)
    network = ForecastNetwork.create(setting.network(task), generator=generator, device=device)
    warm_start(network, windows, origins, stop=task.borders[0], valid_origins=task.validation)
    return network, windows, origins, generator


def score(network: ForecastNetwork, windows: Windows, origins: np.ndarray) -> Score:
    """Score the forecasts from some origins: the point, or the median."""
    return score_average([(network, windows)], origins)


@torch.no_grad()
def score_average(members: Sequence[tuple[ForecastNetwork, Windows]], origins: np.ndarray) -> Score:
    """Score the mean of the forecasts of networks, each of them with the windows that it reads."""
    total = np.zeros(2)
    for first in range(0, len(origins), BATCH):
        forecasts = []
        for network, windows in members:
            batch = windows.batch(origins[first : first + BATCH], len(windows.values))
            quantiles = network.eval().quantiles(network(**batch.inputs, carry=False)[0])
            forecasts.append(quantiles[..., quantiles.shape[-1] // 2])
        error = (torch.stack(forecasts).mean(0) - batch.target).double()
        total += error.square().mean((1, 2)).sum().item(), error.abs().mean((1, 2)).sum().item()
    return Score(*(total / len(origins)))


def score_naive(task: Task, origins: np.ndarray) -> Score:
    """Score the value one season, or the fewest whole seasons, earlier."""
    season = SEASON[task.data]
    steps = np.arange(task.horizon)
    back = steps % season - season  # of the last season before the origin
    total = np.zeros(2)
    for origin in origins:
        error = task.values[origin + back] - task.values[origin + steps]
        total += np.square(error).mean(), np.abs(error).mean()
    return Score(*(total / len(origins)))


def search(
    task: Task, start: Setting, *, seed: int, device: torch.device, log: "Table", say: Callable[[str], None]
) -> tuple[Setting, dict[Setting, Fitted]]:
    """Tune one thing after the other on the validation part, by the sum of MSE and MAE.

    What `log` holds is not tried again. Returns the best setting, and all networks that were trained now.
    """
    tried: dict[Setting, Fitted] = {}

    def loss_of(setting: Setting) -> float:
        key = {"data": task.data, "horizon": task.horizon, "seed": seed, "configuration": str(setting)}
        found = log.find(key)
        if found is None:
            tried[setting] = fitted = fit(task, setting, seed=seed, device=device)
            mse, mae = fitted.validation
            found = log.append(
                key | {"valid_mse": f"{mse:.4f}", "valid_mae": f"{mae:.4f}", "seconds": f"{fitted.seconds:.0f}"}
            )
            say(f"  tried {mse:.4f} {mae:.4f} {fitted.seconds:.0f} s {setting}")
        return float(found["valid_mse"]) + float(found["valid_mae"])

    best, least = start, loss_of(start)
    for name, values in SEARCH.items():
        for candidate in [replace(best, **{name: value}) for value in values if value != getattr(best, name)]:
            if (loss := loss_of(candidate)) < least:
                best, least = candidate, loss
    return best, tried


def fit_pool(
    task: Task, start: Setting, at_hand: dict[Setting, Fitted], *, device: torch.device, say: Callable[[str], None]
) -> list[Fitted]:
    """Train a network with each setting of the pool; return those that are nearly as good as the best on validation."""
    pool = []
    for values in itertools.product(*POOL.values()):
        setting = replace(start, **dict(zip(POOL, values, strict=True)))
        pool.append(at_hand.get(setting) or fit(task, setting, seed=0, device=device))
        mse, mae = pool[-1].validation
        say(f"  for the average {mse:.4f} {mae:.4f} {pool[-1].seconds:.0f} s {setting}")
    least = min(sum(one.validation) for one in pool)
    return [one for one in pool if sum(one.validation) <= (1 + NEAR) * least]


class Table:
    """A CSV file to which rows are added; what is there already is found again."""

    def __init__(self, path: Path, columns: Iterable[str]):
        self.path, self.columns = path, list(columns)
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                if list(reader.fieldnames or []) != self.columns:
                    raise DataError(f"{path}: the columns are {reader.fieldnames}; expected {self.columns}.")
                self.rows = list(reader)

    def find(self, key: dict[str, Any]) -> dict[str, str] | None:
        """Return the first row with these values."""
        return next((row for row in self.rows if all(row[name] == str(key[name]) for name in key)), None)

    def append(self, row: dict[str, Any]) -> dict[str, str]:
        """Add a row, on the disk at once, and return it."""
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.rows.append({name: str(value) for name, value in row.items()})
        return self.rows[-1]


RESULT_COLUMNS = [
    "data",
    "horizon",
    "protocol",
    "model",
    "seed",
    "valid_mse",
    "valid_mae",
    "mse",
    "mae",
    "seconds",
    "parameters",
    "peak_memory_mib",
    "device",
    "versions",
    "configuration",
]
SEARCH_COLUMNS = ["data", "horizon", "seed", "valid_mse", "valid_mae", "seconds", "configuration"]


def run_long_horizon(
    data: str,
    horizon: int,
    protocol: str,
    *,
    seeds: int = 3,
    models: Iterable[str] = MODELS,
    device: str = "auto",
    changes: dict[str, Any] | None = None,
    output: str = "docs/benchmarks/long_horizon.csv",
    say: Callable[[str], None] = print,
) -> None:
    """Fill one cell of the tables; rows that are in the file already are not computed again.

    Parameters
    ----------
    data, horizon
        The cell.
    protocol : {"96", "tuned", "default"}
        A lookback of 96 and the clock; a lookback that is tuned, with what else `SEARCH` lists, on the validation
        part with the first seed; or `XLSTMForecaster` with its default settings.
    seeds : int
        Seeds 0, 1, ..., each with a row of its own.
    models : iterable of str
        Among "xlstm", "xlstm_average" (several networks of `POOL`; "tuned" alone), "lstm" (the same network with LSTM
        blocks), "linear" and "seasonal_naive".
    device : str
        Torch device; "auto" takes CUDA when it is available.
    changes : dict, optional
        Fields of `Setting` to change where the search starts.
    output : str
        The CSV file; what the search tried goes beside it, into a file whose name ends in _search.
    say : callable
        Gets one line of text at a time.

    Raises
    ------
    ParameterError
        A name is unknown.
    """
    where = "bench long-horizon"
    if protocol not in PROTOCOLS:
        raise ParameterError(f"{where}: protocol={protocol!r} is unknown; expected one of {', '.join(PROTOCOLS)}.")
    models = tuple(models)
    if unknown := [name for name in models if name not in MODELS]:
        raise ParameterError(f"{where}: model={unknown[0]!r} is unknown; expected some of {', '.join(MODELS)}.")
    if unknown := [name for name in changes or {} if name not in Setting.__dataclass_fields__]:
        known = ", ".join(Setting.__dataclass_fields__)
        raise ParameterError(f"{where}: config {unknown[0]!r} is unknown; expected some of {known}.")
    task = Task.load(data, horizon)
    target = resolve_device(device, where)
    path = Path(output)
    results = Table(path, RESULT_COLUMNS)
    log = Table(path.with_name(path.stem + "_search" + path.suffix), SEARCH_COLUMNS)
    cell = {"data": data, "horizon": horizon, "protocol": protocol}
    chosen: Setting | None = None
    at_hand: dict[Setting, Fitted] = {}  # of seed 0
    for model, seed in itertools.product(models, range(seeds)):
        if (model in ("linear", "seasonal_naive") and seed) or (protocol == "default" and model != "xlstm"):
            continue
        if model == "xlstm_average" and protocol != "tuned":  # its lookbacks differ
            continue
        key = cell | {"model": model, "seed": seed}
        if results.find(key) is not None:
            continue
        if model == "seasonal_naive":
            row = _naive_row(task)
        elif model == "linear":
            row = _network_row(task, fit_linear(task, device=target))
        elif protocol == "default":
            row = _default_row(task, seed, device)
        else:
            if chosen is None:
                chosen = Setting(**(SHORT if protocol == "96" else {}) | (changes or {}))
                if protocol == "tuned":
                    chosen, at_hand = search(task, chosen, seed=0, device=target, log=log, say=say)
            if model == "xlstm_average":
                first = results.find(key | {"seed": 0})
                if first is None:
                    average = fit_pool(task, chosen, at_hand, device=target, say=say)
                else:
                    settings = [Setting(**one) for one in json.loads(first["configuration"])]
                    average = [fit(task, one, seed=seed, device=target) for one in settings]
                row = _average_row(task, average)
            else:
                setting = chosen if model == "xlstm" else replace(chosen, layout="l" * len(chosen.layout))
                fitted = at_hand.get(setting) if seed == 0 else None
                fitted = fitted or fit(task, setting, seed=seed, device=target)
                row = _network_row(task, fitted) | {"configuration": str(setting)}
        results.append(key | row | _circumstances(target))
        say(f"{data} {horizon} {protocol} {model} seed {seed}: MSE {row['mse']}, MAE {row['mae']}, {row['seconds']} s")


VARIANTS: dict[str, dict[str, Any]] = {
    "mixer": {},
    "mLSTM blocks": {"layout": "m"},
    "LSTM blocks": {"layout": "l"},
    "two sLSTM blocks": {"layout": "ss"},
    "without linear skip": {"linear_skip": False},
    "decomposition, 25 steps": {"decomposition": 25},
    "quantile loss": {"loss": "quantile"},
    "squared error": {"loss": "mse"},
    "Huber loss": {"loss": "huber"},
    "Student t": {"loss": "student_t"},
    "patches of 16": {"backbone": "patch"},
    "patches of 32": {"backbone": "patch", "patch_length": 32},
    "patches of 8, context 96": {"backbone": "patch", "patch_length": 8, "context_length": 96},
    "stacked, context 96": {"backbone": "stacked", "context_length": 96},
    "last weights": {"averaging": 0.0},
    "time of day": {"calendar": "day"},
}
"""What an ablation changes, one thing at a time."""


def run_ablation(
    data: str,
    horizon: int,
    *,
    seeds: int = 1,
    device: str = "auto",
    output: str = "docs/benchmarks/ablation.csv",
    say: Callable[[str], None] = print,
) -> None:
    """Train `Setting` with each of VARIANTS, and score them; parameters as in `run_long_horizon`.

    Nothing is chosen by these rows, so both the validation and the test part are given.
    """
    task = Task.load(data, horizon)
    target = resolve_device(device, "bench ablation")
    results = Table(Path(output), RESULT_COLUMNS)
    for (variant, changes), seed in itertools.product(VARIANTS.items(), range(seeds)):
        key = {"data": data, "horizon": horizon, "protocol": "ablation", "model": variant, "seed": seed}
        if results.find(key) is None:
            setting = replace(Setting(), **changes)
            row = key | _network_row(task, fit(task, setting, seed=seed, device=target))
            results.append(row | {"configuration": str(setting)} | _circumstances(target))
            say(f"{data} {horizon} {variant} seed {seed}: MSE {row['mse']}, MAE {row['mae']}, {row['seconds']} s")


def _naive_row(task: Task) -> dict[str, Any]:
    row = _scores(score_naive(task, task.validation), score_naive(task, task.test))
    return row | {"seconds": 0, "parameters": 0, "configuration": json.dumps({"season": SEASON[task.data]})}


def _network_row(task: Task, fitted: Fitted) -> dict[str, Any]:
    return _scores(fitted.validation, score(fitted.network, fitted.windows, task.test)) | {
        "seconds": f"{fitted.seconds:.0f}",
        "parameters": sum(p.numel() for p in fitted.network.parameters()),
        "configuration": json.dumps({"context_length": fitted.network.config.context_length}),
    }


def _average_row(task: Task, average: Sequence[Fitted]) -> dict[str, Any]:
    members = [(one.network, one.windows) for one in average]
    return _scores(*(score_average(members, origins) for origins in (task.validation, task.test))) | {
        "seconds": f"{sum(one.seconds for one in average):.0f}",
        "parameters": sum(p.numel() for one in average for p in one.network.parameters()),
        "configuration": json.dumps([asdict(one.setting) for one in average]),
    }


def _default_row(task: Task, seed: int, device: str) -> dict[str, Any]:
    """Fit the estimator with its defaults on all rows before the test part, of which it holds out some itself."""
    start = time.perf_counter()
    frame = task.frame
    model = XLSTMForecaster(task.horizon, device=device, random_state=seed).fit(frame[: task.borders[1]])
    seconds = time.perf_counter() - start
    total, steps = np.zeros(2), np.arange(task.horizon)
    at_once = max(1, MAX_FRAME_ROWS // (task.horizon * frame.shape[1]))
    for first in range(0, len(task.test), at_once):
        origins = task.test[first : first + at_once]
        table = model.predict_origins(frame, origins=frame.index[origins - 1], fh=steps + 1, quantile_levels=[0.5])
        forecast = table["point"].to_numpy().reshape(len(origins), task.horizon, -1)
        error = forecast - task.values[origins[:, None] + steps]
        total += np.square(error).mean((1, 2)).sum(), np.abs(error).mean((1, 2)).sum()
    config = model.network_.config
    return {
        "valid_mse": "",
        "valid_mae": "",
        "mse": f"{total[0] / len(task.test):.4f}",
        "mae": f"{total[1] / len(task.test):.4f}",
        "seconds": f"{seconds:.0f}",
        "parameters": sum(p.numel() for p in model.network_.parameters()),
        "configuration": json.dumps({"backbone": config.backbone, "context_length": config.context_length}),
    }


def _scores(validation: Score, test: Score) -> dict[str, str]:
    return {
        "valid_mse": f"{validation.mse:.4f}",
        "valid_mae": f"{validation.mae:.4f}",
        "mse": f"{test.mse:.4f}",
        "mae": f"{test.mae:.4f}",
    }


def _circumstances(device: torch.device) -> dict[str, Any]:
    return {"peak_memory_mib": _peak_memory(device), "device": _device_name(device), "versions": _versions()}


def _peak_memory(device: torch.device) -> int:
    """Return the largest memory of the process so far, or on a GPU of its tensors there, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s)"


def _versions() -> str:
    return f"xlstm_ts {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
