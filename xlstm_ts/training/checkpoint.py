"""A training run on the disk, so that one that was killed goes on where it was and ends with the same bits.

After an epoch all that goes on is written: weights, moments of the optimiser, generators, history, what the callbacks
keep. Beside it stands what the run is of (its facts): settings by value, data by their sha256. The initial weights
follow from these and are not among them.

A checkpoint is one file of one run, or a folder in which every run has a file named after its facts. A file is whole
(see `xlstm_ts.archive`), and one of another run or another version is refused.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlstm_ts import __version__
from xlstm_ts.archive import FileKind, checked_target, path_of, read_archive, remove_parts, write_archive
from xlstm_ts.data.rows import RowWindows
from xlstm_ts.data.windows import Windows
from xlstm_ts.errors import CheckpointError, ParameterError
from xlstm_ts.training.callbacks import Callback, Run

CHECKPOINT = FileKind(
    noun="checkpoint",
    parameter="checkpoint",
    example="fit.ckpt",
    format=1,
    error=CheckpointError,
    foreign="(checkpoint= names a file of its own, which fit writes and removes)",
    again="Delete it to begin anew, or give another name.",
    smaller="Leave checkpoint out, or fit a smaller network.",
)

PAUSE = 50
"""A write is followed by at least this many times its own duration without one: it takes 2 % of the time at most."""


@dataclass
class TrainingState:
    """All that changes while a network is trained.

    Parameters
    ----------
    run : Run
        History, best epoch and steps so far.
    modules : dict of Module
        The network, and the average of its weights if there is one.
    optimiser : Optimizer
        With one state of moments per parameter; its rates follow from the number of steps.
    generators : dict of Generator
        Of the order of windows and of dropout.
    callbacks : sequence of Callback
        At most one of each class keeps something.
    """

    run: Run
    modules: Mapping[str, torch.nn.Module]
    optimiser: torch.optim.Optimizer
    generators: Mapping[str, torch.Generator]
    callbacks: Sequence[Callback]

    def numbers(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        run = self.run
        return {"history": run.history, "best_epoch": run.best_epoch, "stop": run.stop, "step": run.step}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all tensors by name."""
        found: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            found |= _named(f"module.{name}", module.state_dict())
        for number, moments in self.optimiser.state_dict()["state"].items():
            found |= _named(f"optimiser.{number}", moments)
        for name, generator in self.generators.items():
            found[f"generator.{name}"] = generator.get_state()
        for callback in self.callbacks:
            found |= _named(f"callback.{type(callback).__name__}", callback.tensors())
        return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in found.items()}

    def restore(self, numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take on what was written; raise an ordinary error where it does not fit."""
        found = {name: torch.from_numpy(part.copy()) for name, part in arrays.items()}
        for name in ("history", "best_epoch", "stop", "step"):
            setattr(self.run, name, numbers[name])
        for name, module in self.modules.items():
            module.load_state_dict(_below(f"module.{name}", found))
        self._restore_moments(found)
        for name, generator in self.generators.items():
            generator.set_state(found[f"generator.{name}"])
        for callback in self.callbacks:
            callback.restore(self.run, _below(f"callback.{type(callback).__name__}", found))

    def _restore_moments(self, found: Mapping[str, Tensor]) -> None:
        parameters = [one for group in self.optimiser.param_groups for one in group["params"]]
        moments = {number: _below(f"optimiser.{number}", found) for number in range(len(parameters))}
        for parameter, of in zip(parameters, moments.values(), strict=True):
            if any(value.shape not in (parameter.shape, ()) for value in of.values()):
                raise ValueError("the moments are not of the shape that the weights have")
        state = {number: of for number, of in moments.items() if of}
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})


@dataclass
class Checkpoint:
    """Where a run is written while it goes on.

    Parameters
    ----------
    path : str or PathLike
        A file, or a folder that is there.
    where : str
        Object and method, for the messages.
    settings : dict
        Facts that `train` does not see, such as the patience of a callback.

    Raises
    ------
    ParameterError
        The path is no name of a file.
    """

    path: str | os.PathLike
    where: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self._path = path_of(self.path, CHECKPOINT, self.where)
        self._in_folder = self._path.is_dir()
        self._target: Path | None = None
        self._facts: dict[str, Any] = {}
        self._written: tuple | None = None  # the file as this run left it
        self._pause_until = 0.0
        self._stages = [self]

    @classmethod
    def of(cls, path: Any, random_state: Any, where: str, **settings: Any) -> "Checkpoint | None":
        """Return the checkpoint that a user asks for, or None; raise if the fit that goes on could be another one."""
        if path is None:
            return None
        if random_state is None:
            raise ParameterError(
                f"{where}: checkpoint={str(path)!r} needs a random_state. Give a whole number, such as "
                "random_state=0, so that the fit that goes on is the one that was broken off."
            )
        return cls(path, where, settings)

    def stage(self, name: str) -> "Checkpoint":
        """Return where one of several runs of the same fit is written; the first has the name that was given."""
        first = len(self._stages) == 1
        path = self._path if self._in_folder or first else self._path.with_name(f"{self._path.name}.{name}")
        further = Checkpoint(path, self.where, self.settings | {"stage": name})
        self._stages.append(further)
        further._stages = self._stages
        return further

    def begin(self, state: TrainingState, facts: Mapping[str, dict]) -> bool:
        """Take on what was written of a run, and say whether there was anything.

        Raises
        ------
        CheckpointError
            What is there is damaged, or of another run or version; or nothing can be written there.
        """
        self._facts = json.loads(json.dumps({**facts, "settings": facts["settings"] | self.settings}, default=_plain))
        versions = self._facts.pop("versions")
        path = self._path
        if self._in_folder:
            path /= f"{hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:16]}.ckpt"
        self._facts["versions"] = versions
        self._target = checked_target(path, CHECKPOINT, self.where)
        remove_parts(self._target)
        if not self._target.exists():
            return False
        self._written = _stamp(self._target)
        config, arrays = read_archive(self._target, CHECKPOINT, self.where)
        self._refuse_other(config.get("facts"))
        try:
            state.restore(config["run"], arrays)
        except Exception as error:  # whatever a file holds that passes for no run
            raise CheckpointError(
                f"{self.where}: {self._target} is not the checkpoint of such a run: {error}. {CHECKPOINT.again}"
            ) from error
        return True

    def write(self, state: TrainingState) -> None:
        """Write a run, unless it was written so lately that doing it again would slow it down.

        Raises
        ------
        CheckpointError
            It cannot be written, and what was written before is as it was; or another run writes to the same file.
        """
        assert self._target is not None
        start = time.monotonic()
        if start < self._pause_until:
            return
        if self._is_foreign():
            raise CheckpointError(
                f"{self.where}: another fit writes to {self._target} as well. Let each have a file of its own: give "
                "other names, or the name of a folder, in which they do not meet."
            )
        config = {"facts": self._facts, "run": state.numbers()}
        write_archive(self._target, config, state.arrays(), CHECKPOINT, self.where)
        self._written = _stamp(self._target)
        end = time.monotonic()
        self._pause_until = end + PAUSE * (end - start)

    def remove(self) -> None:
        """Remove the files of a fit that needs them no more."""
        for one in self._stages:
            if one._target is not None and not one._is_foreign():
                with suppress(OSError):  # what is left over is harmless: a run that goes on from its end
                    one._target.unlink(missing_ok=True)
                remove_parts(one._target)

    def _is_foreign(self) -> bool:
        assert self._target is not None
        return _stamp(self._target) not in (None, self._written)

    def _refuse_other(self, facts: Any) -> None:
        differing = _differences(facts, self._facts)
        if differing:
            raise CheckpointError(
                f"{self.where}: the checkpoint {self._target} is of another run. There and here differ: "
                f"{'; '.join(differing)}. Give what it was begun with, and it goes on; to begin anew, delete the file "
                "or give another name. In a folder, runs of different data and settings do not meet."
            )


def facts_of(
    network, windows: Windows | RowWindows, origins, stop, valid_origins, config, generator
) -> dict[str, dict]:
    """Return all that decides a run: settings by value, data by their sha256, and versions."""
    if isinstance(windows, RowWindows):
        y, x = _digest(windows.values, windows.ends), _digest(windows.inputs.values, windows.inputs.observed)
    else:
        y = _digest(windows.values, windows.observed, windows.first)
        x = _digest(windows.covariates, windows.known)
    return {
        "settings": asdict(network.config) | asdict(config),
        "data": {
            "y": y,
            "X": x,
            "rows to learn from": _digest(*map(np.asarray, (origins, stop, valid_origins))),
            "random_state": _digest(np.array(generator.initial_seed(), dtype=np.uint64)),
        },
        "versions": {
            "xlstm_ts": __version__,
            "torch": torch.__version__,
            "device": next(network.parameters()).device.type,
        },
    }


def _differences(there: Any, here: Mapping[str, Any]) -> list[str]:
    found = []
    for kind, values in here.items():
        others = there.get(kind) if isinstance(there, dict) else None
        if not isinstance(others, dict):
            return [f"the {kind}"]
        for name in sorted(values.keys() | others.keys()):
            if others.get(name) == values.get(name):
                continue
            shown = f"{name}={others.get(name)!r} there, {values.get(name)!r} here"
            found.append(name if kind == "data" else shown)
    return found


def _digest(*parts: Tensor | np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for part in parts:
        array = part.cpu().numpy() if isinstance(part, Tensor) else part
        digest.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Return a number of numpy as JSON has it."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _stamp(target: Path) -> tuple | None:
    """Return what tells one writing of a file from another; None where it is not there."""
    try:
        info = target.stat()
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns, info.st_size


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: part for name, part in tensors.items() if name.startswith(f"{prefix}.")}
