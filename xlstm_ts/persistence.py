"""Model files that cannot run code: one zip of ``config.json``, ``weights.safetensors`` and ``SHA256SUMS``.

What an estimator holds is written down as JSON by a closed table of kinds (`KINDS`, `RECORDS`, and what the caller
adds): a file names kinds, never classes to import, and what is not in the table is an error before anything is
written. Numbers in bulk lie in the weights file: each parameter of a network by its name, all other arrays one after
the other in a pool per dtype, so that a panel of many series makes a short header.

That a file is whole, and how it comes onto the disk, is for `xlstm_ts.archive` to see. That says nothing of who wrote
it, so what is parsed is bounded: networks are built without memory until their shapes are those of the arrays at hand.
"""

import dataclasses
import datetime as dt
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple, NoReturn, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import torch
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from xlstm_ts import __version__
from xlstm_ts.archive import FileKind, checked_target, path_of, read_archive, write_archive
from xlstm_ts.data.calendar import (
    EasterOffset,
    FixedDate,
    ListedSessions,
    OffsetCalendar,
    TradingCalendar,
    WeekdayFrom,
)
from xlstm_ts.data.covariates import Column, CovariatePlan
from xlstm_ts.data.panel import Panel
from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.series import SeriesArray
from xlstm_ts.data.time_axis import TimeAxis
from xlstm_ts.data.time_features import TimeFeatures
from xlstm_ts.data.transformers import Tail
from xlstm_ts.errors import ModelFileError
from xlstm_ts.nn.average import NetworkAverage
from xlstm_ts.nn.network import ForecastNetwork, NetworkConfig
from xlstm_ts.nn.regression import RegressionConfig, RegressionNetwork
from xlstm_ts.training.calibration import ResidualQuantiles, WidthFactors
from xlstm_ts.training.fitting import FitConfig, Fitted
from xlstm_ts.training.loop import TrainingConfig

FORMAT = 1
"""Counts up when older releases could misread a file; a newer one is refused by name."""

MODEL_FILE = FileKind(
    noun="model file",
    parameter="path",
    example="model.xlstm",
    format=FORMAT,
    error=ModelFileError,
    foreign="(save_model writes model files, not save)",
    again="Copy it again from where it is whole, or save the model again.",
    smaller="Fit on fewer series, or use sktime's save.",
)

DEEPEST = 100
POOLED = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
SCALARS = (*POOLED, "bool")
NAMED = ("object", "str", "string", "bool")  # dtypes of an Index that is written value by value
UNITS = ("s", "ms", "us", "ns")

Estimator = TypeVar("Estimator")


class Kind(NamedTuple):
    """How values of one type are written as plainer ones, and come back; both raise ValueError where that fails."""

    type: type
    plain: Callable[[Any], Any]
    restore: Callable[[Any], Any]
    by_field: bool = False  # the plainer value is a dict of names


def write_model(path: Any, estimator: Any, parameters: Mapping[str, Any], kinds: Sequence[Kind], where: str) -> None:
    """Write an estimator to a file, whole or not at all.

    Parameters
    ----------
    path : str or PathLike
        Where to; an existing file is replaced once the new one is on the disk. A link stays, its target is replaced.
    estimator : object
        All its attributes are written.
    parameters : mapping
        Those of its attributes that its constructor takes.
    kinds : sequence of Kind
        Types of values beyond `KINDS` and `RECORDS`.
    where : str
        Object and method, for the messages.

    Raises
    ------
    ModelFileError
        An attribute cannot be written without code, or the file cannot be written; what was there before is intact.
    """
    target = checked_target(path, MODEL_FILE, where)
    writer = _Writer(kinds, where)
    state = {name: value for name, value in vars(estimator).items() if name not in parameters}
    config = {
        "class": type(estimator).__name__,
        "torch": torch.__version__,
        "parameters": {name: writer.encode(value, f"the parameter {name}") for name, value in parameters.items()},
        "state": {name: writer.encode(value, f"the attribute {name}") for name, value in state.items()},
        "shared": writer.shared,
    }
    write_archive(target, config, writer.arrays(), MODEL_FILE, where)


def read_model(
    path: Any, kind: type[Estimator], names: Sequence[str], kinds: Sequence[Kind], *, device: torch.device, where: str
) -> Estimator:
    """Read an estimator that `write_model` wrote.

    Parameters
    ----------
    path : str or PathLike
        The file.
    kind : type
        What it must be; the file only says a name, which is compared.
    names : sequence of str
        Parameters of its constructor.
    kinds : sequence of Kind
        As for `write_model`.
    device : torch.device
        Where to put networks.
    where : str
        Object and method, for the messages.

    Raises
    ------
    ModelFileError
        The file is not there, damaged, of a newer format, of another class, or no model file at all.
    """
    source = path_of(path, MODEL_FILE, where)
    config, weights = read_archive(source, MODEL_FILE, where)
    if config.get("class") != kind.__name__:
        raise ModelFileError(
            f"{where}: {source} holds a model of the class {config.get('class')!r}, not {kind.__name__}. Load it with "
            "that class."
        )
    written = f"it was written by xlstm_ts {config.get('xlstm_ts')}, this is {__version__}"
    try:
        reader = _Reader(config["shared"], weights, kinds, device)
        parameters = {name: reader.decode(value) for name, value in config["parameters"].items()}
        state = {name: reader.decode(value) for name, value in config["state"].items()}
        if strange := sorted(set(parameters) - set(names)):
            raise ValueError(f"there is no parameter {strange[0]!r}")
        model = kind(**parameters)
    # Whatever a file holds that passes for no model: no other error may come of it.
    except Exception as error:
        raise ModelFileError(
            f"{where}: {source} is not a model that this release reads: {str(error) or type(error).__name__} "
            f"({written}). Load it with the release that wrote it, or fit and save the model again."
        ) from error
    vars(model).update(state)
    return model


# What is in a file


def _plain_offset(offset: BaseOffset) -> str:
    same = to_offset(offset.freqstr)
    if type(same) is not type(offset) or same != offset:
        raise ValueError("an offset is written by its alias, which does not say all of this one")
    return offset.freqstr


def _plain_zone(zone: dt.tzinfo) -> list:
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        return ["name", zone.key]
    if type(zone) is dt.timezone and str(zone) == str(dt.timezone(zone.utcoffset(None))):  # no name of its own
        return ["seconds", zone.utcoffset(None).total_seconds()]
    raise ValueError('a time zone needs a name: convert with tz_convert("Europe/Berlin") or another')


def _restore_zone(plain: list) -> dt.tzinfo:
    kind, value = plain
    if kind == "name":
        return ZoneInfo(value)
    return dt.UTC if value == 0 else dt.timezone(dt.timedelta(seconds=value))


def _plain_times(index: pd.DatetimeIndex) -> list:
    return [index.asi8, index.unit, index.tz, index.freq, index.name]


def _restore_times(plain: list) -> pd.DatetimeIndex:
    values, unit, zone, freq, name = plain
    index = pd.DatetimeIndex(_clock_values(values, "M8", unit), name=name)
    index = index if zone is None else index.tz_localize("UTC").tz_convert(zone)
    return _with_freq(index, freq)


def _with_freq(index, freq):
    if freq is not None:
        index.freq = freq
    return index


def _clock_values(values: np.ndarray, kind: str, unit: str) -> np.ndarray:
    if unit not in UNITS or values.dtype != np.int64:
        raise ValueError(f"times are in the unit {unit!r}")
    return values.view(f"{kind}[{unit}]")


def _plain_index(index: pd.Index) -> list:
    dtype = str(index.dtype)
    if index.dtype.kind in "iuf" and dtype in POOLED:
        return [index.to_numpy(), dtype, index.name]
    if dtype not in NAMED:
        raise ValueError(f"an index of {index.dtype} cannot be written")
    return [index.tolist(), dtype, index.name]


def _restore_index(plain: list) -> pd.Index:
    values, dtype, name = plain
    if dtype not in (*POOLED, *NAMED):
        raise ValueError(f"an index is of {dtype!r}")
    return pd.Index(values, dtype=dtype, name=name, tupleize_cols=False)


def _plain_frame(frame: pd.DataFrame) -> list:
    return [frame.columns, frame.index, [frame.iloc[:, k].to_numpy() for k in range(frame.shape[1])]]


def _restore_frame(plain: list) -> pd.DataFrame:
    columns, index, values = plain
    return pd.DataFrame(dict(enumerate(values)), index=index).set_axis(columns, axis=1)


def _restore_random_state(plain: tuple) -> np.random.RandomState:
    state = np.random.RandomState()
    state.set_state(plain)
    return state


def _restore_scalar(plain: list) -> np.generic:
    dtype, value = plain
    if dtype not in SCALARS:
        raise ValueError(f"a number is of {dtype!r}")
    return np.dtype(dtype).type(value)


def _plain_scalar(value: np.generic) -> list:
    if value.dtype.name not in SCALARS:
        raise ValueError(f"a number of {value.dtype} cannot be written")
    return [value.dtype.name, value.item()]


KINDS = (
    Kind(tuple, list, tuple),
    Kind(dict, lambda value: [[key, part] for key, part in value.items()], lambda plain: {k: v for k, v in plain}),
    Kind(PurePath, str, Path),
    Kind(dt.date, dt.date.isoformat, dt.date.fromisoformat),
    Kind(dt.tzinfo, _plain_zone, _restore_zone),
    Kind(np.generic, _plain_scalar, _restore_scalar),
    Kind(np.random.RandomState, lambda value: value.get_state(legacy=True), _restore_random_state),
    Kind(torch.device, str, torch.device),
    Kind(BaseOffset, _plain_offset, to_offset),
    Kind(pd.Timestamp, lambda value: pd.DatetimeIndex([value]), lambda plain: plain[0]),
    Kind(pd.Period, lambda value: pd.PeriodIndex([value]), lambda plain: plain[0]),
    Kind(pd.Timedelta, lambda value: pd.TimedeltaIndex([value]), lambda plain: plain[0]),
    Kind(pd.DatetimeIndex, _plain_times, _restore_times),
    Kind(
        pd.TimedeltaIndex,
        lambda index: [index.asi8, index.unit, index.freq, index.name],
        lambda plain: _with_freq(pd.TimedeltaIndex(_clock_values(plain[0], "m8", plain[1]), name=plain[3]), plain[2]),
    ),
    Kind(
        pd.PeriodIndex,
        lambda index: [index.asi8, index.freqstr, index.name],
        lambda plain: pd.PeriodIndex.from_ordinals(plain[0], freq=plain[1], name=plain[2]),
    ),
    Kind(
        pd.RangeIndex,
        lambda index: [index.start, index.stop, index.step, index.name],
        lambda plain: pd.RangeIndex(*plain[:3], name=plain[3]),
    ),
    Kind(pd.Index, _plain_index, _restore_index),
    Kind(pd.DataFrame, _plain_frame, _restore_frame),
)
"""Values that are not numbers, text, lists or None already."""

FAMILIES = (np.generic, BaseOffset, dt.tzinfo, PurePath)
"""Kinds whose subclasses are written too, since what comes back is compared or the subclass is named."""

RECORDS = (
    Column,
    CovariatePlan,
    EasterOffset,
    FitConfig,
    Fitted,
    FixedDate,
    ListedSessions,
    NetworkConfig,
    OffsetCalendar,
    Panel,
    RegressionConfig,
    ResidualQuantiles,
    SeriesArray,
    SeriesScaler,
    Tail,
    TimeAxis,
    TimeFeatures,
    TradingCalendar,
    TrainingConfig,
    WeekdayFrom,
    WidthFactors,
)
"""Data classes and named tuples, written field by field."""

NETWORKS = (ForecastNetwork, NetworkAverage, RegressionNetwork)


def record(kind: Any) -> Kind:
    """Return how a data class or a named tuple is written: by the names of its fields."""
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else kind._fields
    return Kind(
        kind,
        lambda value: {name: getattr(value, name) for name in names},
        lambda plain: kind(**plain),
        by_field=True,
    )


def _table(kinds: Sequence[Kind]) -> list[Kind]:
    return [*kinds, *map(record, RECORDS), *KINDS]


class _Writer:
    """Turns values into JSON, and keeps their arrays."""

    def __init__(self, kinds: Sequence[Kind], where: str):
        self.shared: list = []
        self._where = where
        self._kinds = _table(kinds)
        self._by_type = {kind.type: kind for kind in self._kinds}
        self._places: dict[int, int] = {}
        self._alive: list = []  # whose id stands in `_places`
        self._networks: dict[str, np.ndarray] = {}
        self._count = 0
        self._pools: dict[str, list[np.ndarray]] = {}
        self._sizes: dict[str, int] = {}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        return self._networks | {f"pool.{name}": np.concatenate(parts) for name, parts in self._pools.items()}

    def encode(self, value: Any, place: str) -> Any:
        """Return a value as JSON has it; `place` says where it was found."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if np.isfinite(value) else {"float": repr(value)}
        if type(value) is list:
            return [self.encode(part, place) for part in value]
        if type(value) is np.ndarray:
            return {"array": self._array(value, place)}
        if isinstance(value, NETWORKS):
            return {type(value).__name__: self._network(value, place)}
        if type(value) is TimeAxis:  # most panels repeat one
            if id(value) not in self._places:
                encoded = self._record(value, place)
                self._places[id(value)] = len(self.shared)
                self._alive.append(value)
                self.shared.append(encoded)
            return {"shared": self._places[id(value)]}
        return self._record(value, place)

    def _record(self, value: Any, place: str) -> dict:
        kind = self._by_type.get(type(value))
        if kind is None:
            kind = next((self._by_type[one] for one in FAMILIES if isinstance(value, one)), None)
        if kind is None:
            self._refuse(value, place, "")
        try:
            plain = kind.plain(value)
        except ValueError as error:
            self._refuse(value, place, f": {error}")
        if kind.by_field:
            encoded = {name: self.encode(part, place) for name, part in plain.items()}
        else:
            encoded = self.encode(plain, place)
        return {kind.type.__name__: encoded}

    def _refuse(self, value: Any, place: str, reason: str) -> NoReturn:
        shown = " ".join(repr(value).split())
        raise ModelFileError(
            f"{self._where}: {place} holds {shown[:80]}, of the type {type(value).__name__}, which a model file cannot "
            f"hold{reason}. Use a plain value in its place (of a calendar, for instance the future sessions as a "
            "DatetimeIndex), or sktime's save, which pickles. Nothing was written."
        )

    def _array(self, value: np.ndarray, place: str) -> list:
        if value.dtype == object and value.ndim == 1:
            return ["object", [self.encode(part, place) for part in value.tolist()]]
        name = value.dtype.name
        if name not in SCALARS or not value.dtype.isnative:
            self._refuse(value, place, f": an array of {value.dtype}")
        # In the order of its memory, which decides in what order sums over it are taken.
        order = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))
        flat = np.ascontiguousarray(value.transpose(order))
        offset = self._sizes.get(name, 0)
        self._pools.setdefault(name, []).append(flat.ravel())
        self._sizes[name] = offset + flat.size
        return [name, offset, list(flat.shape), order]

    def _network(self, network: Any, place: str) -> list:
        prefix = f"network{self._count}."
        self._count += 1
        for name, tensor in network.state_dict().items():
            self._networks[prefix + name] = tensor.detach().cpu().contiguous().numpy()
        shape = network.configs if isinstance(network, NetworkAverage) else network.config
        return [prefix, self.encode(shape, place)]


class _Reader:
    """Turns JSON back into values; raises an ordinary error where that fails."""

    def __init__(self, shared: list, weights: dict[str, np.ndarray], kinds: Sequence[Kind], device: torch.device):
        self._shared, self._weights, self._device = shared, weights, device
        self._by_name = {kind.type.__name__: kind for kind in _table(kinds)}
        self._restored: dict[int, Any] = {}

    def decode(self, value: Any, depth: int = 0) -> Any:
        """Return the value that was encoded."""
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if isinstance(value, list):
            return [self.decode(part, depth + 1) for part in value]
        if not isinstance(value, dict):
            return value
        ((name, plain),) = value.items()
        if name == "float":
            return float(plain)
        if name == "array":
            return self._array(plain, depth)
        if name == "shared":
            if plain not in self._restored:
                self._restored[plain] = self.decode(self._shared[plain], depth + 1)
            return self._restored[plain]
        for network in NETWORKS:
            if name == network.__name__:
                return self._network(network, plain[0], plain[1], depth)
        kind = self._by_name.get(name)
        if kind is None:
            raise ValueError(f"it names {name!r}, which is unknown")
        if kind.by_field:
            self._check_blocks(plain)
            return kind.restore({field: self.decode(part, depth + 1) for field, part in plain.items()})
        return kind.restore(self.decode(plain, depth + 1))

    def _check_blocks(self, fields: dict) -> None:
        """Raise if a config names more blocks than there are arrays: to spell them out may take for ever."""
        numbers = [int(number) for number in re.findall(r"\d+", str(fields.get("layout", "")))]
        numbers += [fields.get("num_blocks") or 0, len(str(fields.get("layout", "")))]
        if max(numbers) > max(len(self._weights), 100):
            raise ValueError("it has more blocks than arrays")

    def _array(self, plain: list, depth: int) -> np.ndarray:
        if plain[0] == "object":
            values = np.empty(len(plain[1]), dtype=object)
            values[:] = self.decode(plain[1], depth + 1)
            return values
        name, offset, shape, order = plain
        flat = self._weights[f"pool.{name}"]
        size = math.prod(shape)
        if min([offset, *shape], default=0) < 0 or offset + size > len(flat):
            raise ValueError("an array lies outside its pool")
        return flat[offset : offset + size].copy().reshape(shape).transpose(np.argsort(order))

    def _network(self, kind: Any, prefix: str, config: Any, depth: int) -> Any:
        config = self.decode(config, depth + 1)
        with torch.device("meta"):  # shapes without memory
            network = kind(config)
        found = {name[len(prefix) :]: part for name, part in self._weights.items() if name.startswith(prefix)}
        tensors = {name: torch.from_numpy(part.copy()) for name, part in found.items()}
        for name, tensor in network.state_dict().items():
            if name not in tensors or (tensor.shape, tensor.dtype) != (tensors[name].shape, tensors[name].dtype):
                raise ValueError(f"the weights {name!r} are not of the shape that the network has")
        network.load_state_dict(tensors, assign=True)
        return network.to(self._device).eval()
