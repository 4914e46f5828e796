"""Results on disk while they come, so that an interrupted backtest goes on where it stopped.

While it runs, every batch of forecasts is a file of its own in the folder ``<store>.parts``, written beside its place
and moved there in one step: it is complete or it is not there. At the end they become one table, ``<store>``, and the
folder goes; ``<store>.json`` keeps what the table cannot say (times, failures) and the fingerprint of the
configuration. A store of another configuration is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xlstm_ts.errors import DataError, ParameterError
from xlstm_ts.evaluation.runner import Answer, Grid, Task

FORMATS = (".csv", ".parquet")


class Store:
    """Where the batches of one backtest are kept.

    Parameters
    ----------
    path : str or Path
        The table, ending in ".csv" or ".parquet" (which needs pyarrow).
    fingerprint : str
        Of the configuration.
    batches : mapping of (model name, number) to ndarray
        Every batch of the backtest, in order, with the positions of its origins.
    task : Task
        What is asked.

    Raises
    ------
    ParameterError
        The path has another ending or cannot be written, pyarrow is missing, or the store is of another
        configuration.
    """

    def __init__(self, path: str | Path, fingerprint: str, batches: Mapping[tuple[Any, int], Any], task: Task):
        self.path = Path(path)
        if self.path.suffix not in FORMATS:
            raise ParameterError(
                f'backtest: store={str(path)!r}; a file name ending in ".csv" or ".parquet" is needed.'
            )
        if self.path.suffix == ".parquet":
            _require_pyarrow()
        self._fingerprint, self._batches, self._task = fingerprint, batches, task
        self._parts = self.path.with_name(self.path.name + ".parts")
        self._notes = self.path.with_name(self.path.name + ".json")
        self._names = {key: f"{row:06d}" for row, key in enumerate(batches)}

    def open(self) -> dict[tuple[Any, int], Answer]:
        """Return the batches that are already there, and get ready for the rest."""
        if self._notes.is_file():
            notes = self._checked(self._notes)
            return self._whole(notes)
        if self.path.exists():
            raise ParameterError(
                f"backtest: {self.path} exists and is no store of a backtest ({self._notes.name} is missing). Give "
                "another name, or move the file away."
            )
        own = self._parts / "configuration.json"
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            if not own.is_file():
                write_atomically(own, json.dumps({"fingerprint": self._fingerprint}))
        except OSError as error:
            raise ParameterError(f"backtest: store={str(self.path)!r} cannot be written ({error}).") from error
        self._checked(own)
        # The numbers of a batch come last: with them it counts as done.
        return {key: self._part(key) for key, name in self._names.items() if self._data_file(name).is_file()}

    def write(self, key: tuple[Any, int], answer: Answer) -> None:
        """Keep one batch."""
        name = self._names[key]
        write_atomically(self._parts / f"{name}.json", json.dumps(_notes_of(answer)))
        frame = Grid(self._task, self._batches[key]).frame(answer, key[0])
        with _beside(self._data_file(name)) as part:
            _write_table(frame, part)

    def finish(self, frame: pd.DataFrame, answers: Mapping[tuple[Any, int], Answer]) -> None:
        """Turn the parts into one table; nothing is left to do where that has been done before."""
        if self._notes.is_file():
            return
        with _beside(self.path) as part:
            _write_table(frame, part)
        notes = {self._names[key]: _notes_of(answer) for key, answer in answers.items()}
        write_atomically(self._notes, json.dumps({"fingerprint": self._fingerprint, "batches": notes}))
        shutil.rmtree(self._parts)

    def _checked(self, path: Path) -> dict[str, Any]:
        notes = json.loads(path.read_text(encoding="utf-8"))
        if notes.get("fingerprint") != self._fingerprint:
            raise ParameterError(
                f"backtest: the store {self.path} holds a backtest of another configuration (other data, forecasters, "
                "origins or settings). Give another name, or delete it to start again."
            )
        return notes

    def _whole(self, notes: dict[str, Any]) -> dict[tuple[Any, int], Answer]:
        """Cut the finished table into batches again."""
        table, answers, first = _read_table(self.path), {}, 0
        for key, origins in self._batches.items():
            of_batch = notes["batches"][self._names[key]]
            grid = Grid(self._task, origins)
            stop = first + int(_there(grid, of_batch).sum()) * len(self._task.y.variables)
            answers[key] = self._answer(table.iloc[first:stop], grid, of_batch, self.path)
            first = stop
        return answers

    def _part(self, key: tuple[Any, int]) -> Answer:
        file = self._data_file(self._names[key])
        notes = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        return self._answer(_read_table(file), Grid(self._task, self._batches[key]), notes, file)

    def _answer(self, table: pd.DataFrame, grid: Grid, notes: dict[str, Any], file: Path) -> Answer:
        points, quantiles = grid.empty()
        there = _there(grid, notes)
        shape = (int(there.sum()), len(self._task.y.variables))
        if len(table) != shape[0] * shape[1]:
            raise DataError(
                f"backtest: {file} has {len(table)} rows where {shape[0] * shape[1]} were written. Delete it, and it "
                "is computed again."
            )
        points[there] = table["point"].to_numpy(dtype=float).reshape(shape)
        if self._task.levels:
            names = [str(level) for level in self._task.levels]
            quantiles[there] = table[names].to_numpy(dtype=float).reshape(*shape, -1)
        failed = {int(position): why for position, why in notes["failed"].items()}
        return Answer(points, quantiles, failed, notes["fit_seconds"], notes["predict_seconds"])

    def _data_file(self, name: str) -> Path:
        return self._parts / f"{name}{self.path.suffix}"


def fingerprint(task: Task, models: Mapping[Any, Any], settings: Mapping[str, Any]) -> str:
    """Return a hash of all that decides the numbers of a backtest: data, forecasters and settings."""
    digest = hashlib.sha256()
    for frame in (task.y.frame, task.X):
        if frame is not None:
            digest.update(pd.util.hash_pandas_object(frame, index=True).to_numpy().tobytes())
            digest.update(repr(list(frame.columns)).encode())
    for name, model in models.items():
        digest.update(f"{name!r}: {_described(model)}".encode())
    digest.update(repr((task.steps, task.levels, sorted(settings.items()))).encode())
    return digest.hexdigest()


def _described(model: Any) -> str:
    parameters = model.get_params(deep=True) if hasattr(model, "get_params") else vars(model)
    text = f"{type(model).__module__}.{type(model).__qualname__} {sorted(parameters.items(), key=lambda item: item[0])}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)  # the place in memory is no setting


def write_atomically(path: Path, text: str) -> None:
    """Write a text file in one step: it is the old one or the new one, never half of it."""
    with _beside(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write to; it is moved there when all went well, and removed otherwise."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _notes_of(answer: Answer) -> dict[str, Any]:
    return {
        "failed": {str(position): why for position, why in answer.failed.items()},
        "fit_seconds": answer.fit_seconds,
        "predict_seconds": answer.predict_seconds,
    }


def _there(grid: Grid, notes: dict[str, Any]) -> NDArray:
    """Which rows of the grid are in the table: those of origins that did not fail."""
    return ~np.isin(grid.origins[grid.origin_numbers], [int(position) for position in notes["failed"]])


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    frame = frame.rename(columns=str)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
        return
    # Keys of several levels, and periods, become text; only the numbers are read again.
    plain = {name: frame[name].astype(str) for name in ("series", "origin", "time") if not _is_plain(frame[name])}
    frame.assign(**plain).to_parquet(path, index=False)


def _is_plain(column: pd.Series) -> bool:
    return pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_numeric_dtype(column)


def _read_table(path: Path) -> pd.DataFrame:
    # Only the numbers are read again: what they belong to follows from the configuration.
    if path.suffix == ".csv":
        return pd.read_csv(path, float_precision="round_trip")
    return pd.read_parquet(path)


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ParameterError(
            "backtest: a store in Parquet needs pyarrow, which the extra `parquet` installs: "
            "pip install 'xlstm-ts[parquet]'. CSV needs nothing."
        ) from error
