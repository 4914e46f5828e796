"""Files that are whole or refused: one zip of ``config.json``, ``weights.safetensors`` and ``SHA256SUMS``.

The comment of the zip is the sha256 of every byte before it. It is compared before anything is parsed, so that a
damaged file is never read. It says nothing of who wrote a file, so what is parsed is bounded too: entries are not
compressed, and their number and sizes are capped.

A file is written beside its place and moved there once it is on the disk: it is the old one or the new one.
"""

import glob
import hashlib
import io
import json
import os
import secrets
import stat
import struct
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from xlstm_ts import __version__
from xlstm_ts.errors import ParameterError, XLSTMError

CONFIG, WEIGHTS, SUMS = "config.json", "weights.safetensors", "SHA256SUMS"
SEAL = b"sha256 "
SEAL_LENGTH = len(SEAL) + 64

LARGEST_FILE = 2**31 - 2**16
"""Bytes: what a zip without 64-bit extensions holds."""

LARGEST_CONFIG, LARGEST_HEADER, LARGEST_DIRECTORY = 2**27, 2**22, 2**10

PIECE = 2**20  # bytes written at once
PART = ".part"  # ending of a file that is not whole yet
ABANDONED = 60  # seconds after which nobody writes to such a file any more


class FileKind(NamedTuple):
    """What such files are called, and what their users can do."""

    noun: str
    parameter: str  # that names the file
    example: str
    format: int  # counts up when older releases could misread a file
    error: type[XLSTMError]  # also an OSError
    foreign: str  # what else could lie there
    again: str  # what to do about a file that is lost
    smaller: str  # what to do about one that would be too large


def write_archive(
    target: Path, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], kind: FileKind, where: str
) -> None:
    """Write a file, whole or not at all.

    Parameters
    ----------
    target : Path
        As `checked_target` returned it; an existing file is replaced once the new one is on the disk.
    config : mapping
        What JSON can hold; format and version are added.
    arrays : mapping of str to ndarray
        Numbers in bulk.
    kind : FileKind
        What it is.
    where : str
        Object and method, for the messages.

    Raises
    ------
    XLSTMError
        Of the class that `kind` names: the file cannot be written; what was there before is intact.
    """
    text = json.dumps({"format": kind.format, "xlstm_ts": __version__, **config}).encode()
    _replace(target, _pack(text, safetensors.numpy.save(dict(arrays)), kind, where), kind, where)


def read_archive(source: Path, kind: FileKind, where: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return config and arrays of a file that `write_archive` wrote.

    Raises
    ------
    XLSTMError
        Of the class that `kind` names: the file is not there, damaged, of a newer format or of another kind.
    """
    return _unpack(_read(source, kind, where), source, kind, where)


def path_of(path: Any, kind: FileKind, where: str) -> Path:
    """Return a path, or raise a ParameterError if it cannot be the name of a file."""
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise ParameterError(
            f'{where}: {kind.parameter}={path!r} is not the name of a file. Give one, such as "{kind.example}".'
        )
    return Path(path)


def checked_target(path: Any, kind: FileKind, where: str) -> Path:
    """Return the file that a path leads to, through links; raise if none can be written there."""
    target = Path(os.path.realpath(path_of(path, kind, where)))
    if target.is_dir():
        raise kind.error(f'{where}: {path} is a folder. Name a file in it, such as "{target / kind.example}".')
    if target.exists() and not target.is_file():
        raise kind.error(f"{where}: {path} is a device or a pipe, not a file. Give another name.")
    if not target.parent.is_dir():
        raise kind.error(f"{where}: there is no folder {target.parent} for {path}. Make it first.")
    if target.exists() and not os.access(target, os.W_OK):
        raise kind.error(f"{where}: {path} is protected from writing. Give another name, or allow it.")
    return target


# Bytes


def _pack(config: bytes, weights: bytes, kind: FileKind, where: str) -> bytes:
    """Return the bytes of a file."""
    if len(config) > LARGEST_CONFIG or len(config) + len(weights) > LARGEST_FILE - LARGEST_DIRECTORY:
        raise kind.error(
            f"{where}: there are {len(weights) / 2**30:.2f} GiB of arrays and {len(config) / 2**20:.0f} MiB of "
            f"names and settings; a {kind.noun} holds {LARGEST_FILE / 2**30:.0f} GiB, and "
            f"{LARGEST_CONFIG / 2**20:.0f} MiB of the latter. {kind.smaller} Nothing was written."
        )
    entries = {CONFIG: config, WEIGHTS: weights}
    entries[SUMS] = _sums(entries)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.comment = bytes(SEAL_LENGTH)
    body = buffer.getvalue()[:-SEAL_LENGTH]
    return body + _seal(body)


def _sums(entries: Mapping[str, bytes]) -> bytes:
    """Return what ``sha256sum --check`` reads."""
    return "".join(f"{hashlib.sha256(entries[name]).hexdigest()}  {name}\n" for name in (CONFIG, WEIGHTS)).encode()


def _seal(body: bytes | memoryview) -> bytes:
    return SEAL + hashlib.sha256(body).hexdigest().encode()


def _unpack(data: bytes, source: Path, kind: FileKind, where: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Return config and arrays of the bytes of a file."""
    if not data.startswith(b"PK") or not data[-SEAL_LENGTH:].startswith(SEAL):
        raise kind.error(
            f"{where}: {source} is not a whole {kind.noun}: it is of another kind {kind.foreign}, or its end is "
            f"missing. {kind.again}"
        )
    if _seal(memoryview(data)[:-SEAL_LENGTH]) != data[-SEAL_LENGTH:]:
        raise kind.error(
            f"{where}: {source} is damaged: its bytes do not have the sha256 that it ends with. {kind.again}"
        )
    try:
        entries = _entries(data)
        config = json.loads(entries[CONFIG])
        version = config["format"]
        if type(version) is int and version > kind.format:
            raise kind.error(
                f"{where}: {source} has the format {version}, written by xlstm_ts {config.get('xlstm_ts')}; this is "
                f"{__version__}, which reads formats up to {kind.format}. Upgrade xlstm_ts."
            )
        if version != kind.format or entries[SUMS] != _sums(entries):
            raise ValueError(f"its format is {version!r}, or its parts do not have their sha256")
        if int.from_bytes(entries[WEIGHTS][:8], "little") > LARGEST_HEADER:
            raise ValueError("it lists too many arrays")
        return config, safetensors.numpy.load(entries[WEIGHTS])
    except XLSTMError:
        raise
    except Exception as error:  # whatever a file holds that passes for no such file
        raise kind.error(
            f"{where}: {source} is no {kind.noun}, although its sha256 is right: {error}. {kind.again}"
        ) from error


def _entries(data: bytes) -> dict[str, bytes]:
    """Return the entries of a zip, none of which is larger than the zip."""
    end = len(data) - SEAL_LENGTH - 22
    signature, count, size = struct.unpack("<4s6xHI", data[end : end + 16])
    if signature != b"PK\5\6" or count != 3 or size > LARGEST_DIRECTORY or data[end - 20 : end - 16] == b"PK\6\7":
        raise ValueError("it is a zip of another form")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        listed = archive.infolist()
        plain = all(one.compress_type == zipfile.ZIP_STORED and one.file_size < len(data) for one in listed)
        if [one.filename for one in listed] != [CONFIG, WEIGHTS, SUMS] or not plain:
            raise ValueError("it is a zip of other entries")
        if listed[0].file_size > LARGEST_CONFIG:
            raise ValueError(f"its {CONFIG} is too large")
        return {one.filename: archive.read(one) for one in listed}


# Files


def _replace(target: Path, data: bytes, kind: FileKind, where: str) -> None:
    """Write a file beside the target, and put it in its place when it is on the disk."""
    part = target.with_name(f"{_part_prefix(target)}{secrets.token_hex(8)}{PART}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left[:PIECE]) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(part, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(part)
        if isinstance(error, OSError):
            raise kind.error(
                f"{where}: {target} cannot be written ({error.strerror or error}). What was there before is as it "
                "was. Make room, or give another name."
            ) from error
        raise
    with suppress(OSError, AttributeError):  # the new name, too, should outlast a crash; not every system can say so
        folder = os.open(target.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _part_prefix(target: Path) -> str:
    return f".{target.name[:40]}."  # short enough for a name with it to be no longer than names may be


def remove_parts(target: Path) -> None:
    """Remove what processes that were killed while they wrote a file left beside it."""
    with suppress(OSError):
        for part in target.parent.glob(f"{glob.escape(_part_prefix(target))}*{PART}"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > ABANDONED:
                    part.unlink()


def _read(source: Path, kind: FileKind, where: str) -> bytes:
    try:
        info = source.stat()
        if not stat.S_ISREG(info.st_mode):
            found = "a folder" if stat.S_ISDIR(info.st_mode) else "a device or a pipe"
            raise kind.error(f"{where}: {source} is {found}, not a {kind.noun}. Give the file's own name.")
        if info.st_size > LARGEST_FILE:
            raise kind.error(
                f"{where}: {source} has {info.st_size} bytes; a {kind.noun} has {LARGEST_FILE} at most. Give another."
            )
        return source.read_bytes()
    except XLSTMError:
        raise
    except OSError as error:
        raise kind.error(
            f"{where}: {source} cannot be read ({error.strerror or error}). Give the name of a {kind.noun} that is "
            "there."
        ) from error
