"""What the native backends share: finding out whether they can run, threads, and filling in the structs of cells.h.

The threads of a kernel are those that torch already has, so that the two never compete; in a forked child, where
OpenMP may wait for threads that the fork did not copy, it is one. While a kernel runs, Python is free for others.
"""

import ctypes
import os
from functools import cache

import torch
from torch import Tensor

from xlstm_ts.kernels.native.loader import library

# Below this many multiplications (some 20 microseconds) one thread is faster than meeting others.
WORTH_A_REGION = 1 << 20

_forked = False


class Call(ctypes.Structure):
    """A struct of cells.h: the arguments of one call. All have the fields is_double, level, threads and parallel."""

    def point(self, **tensors: Tensor | None) -> None:
        """Set pointers to the data of tensors, which live on with the call."""
        self.__dict__.setdefault("tensors", []).extend(tensors.values())
        for name, tensor in tensors.items():
            setattr(self, name, None if tensor is None else tensor.data_ptr())


def integers(*names: str) -> tuple[tuple[str, type], ...]:
    """Return fields of whole numbers."""
    return tuple((name, ctypes.c_int64) for name in names)


def strides(count: int, *names: str) -> tuple[tuple[str, type], ...]:
    """Return fields of `count` strides each."""
    return tuple((name, ctypes.c_int64 * count) for name in names)


def pointers(*names: str) -> tuple[tuple[str, type], ...]:
    """Return fields that point to data."""
    return tuple((name, ctypes.c_void_p) for name in names)


def unsupported(*tensors: Tensor) -> str | None:
    """Return why a native kernel cannot run these tensors here, or None."""
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"needs CPU tensors, got {tensor.device.type}"
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            return f"needs plain tensors, got {type(tensor).__name__}"
    if torch.compiler.is_compiling():
        return "cannot be traced by torch.compile"
    found = library(any(tensor.dtype == torch.float64 for tensor in tensors))
    return found if isinstance(found, str) else None


def kernel(double: bool) -> ctypes.CDLL:
    """Return the library for float or double; `unsupported` is asked first."""
    found = library(double)
    assert isinstance(found, ctypes.CDLL), found
    return found


@cache
def level(double: bool) -> int:
    """Return the instruction set that this processor offers: 0 the baseline, 1 AVX2, 2 AVX-512."""
    return kernel(double).xlstm_level()


def threads(multiplications: int) -> int:
    """Return how many threads so much work deserves."""
    return torch.get_num_threads() if multiplications >= WORTH_A_REGION and not _forked else 1


def run(name: str, call: Call) -> None:
    """Call a function of the library.

    Raises
    ------
    MemoryError
        There was no memory for its work space.
    """
    if getattr(kernel(bool(call.is_double)), name)(ctypes.byref(call)):
        raise MemoryError(f"{name}: no memory for the work space of the native kernel.")


def execute(name: str, call: Call, like: Tensor, multiplications: int) -> None:
    """Call a function for the dtype of `like`, with the threads that so much work deserves."""
    call.is_double = double = like.dtype == torch.float64
    call.level = level(double)
    call.threads, call.parallel = threads(multiplications), region()
    run(name, call)


def rows(tensor: Tensor) -> Tensor:
    """Return the tensor with its last axis contiguous, itself where it is."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def is_dense(tensor: Tensor) -> bool:
    """Whether the tensor fills its memory without gaps or overlaps, in any order of its axes."""
    size = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1:
            if stride != size:
                return False
            size *= length
    return True


@cache
def region() -> int | None:
    """Return the address of the OpenMP runtime's entry that starts a region; None where there is none."""
    try:
        entry = ctypes.CDLL(None).GOMP_parallel
    except (OSError, AttributeError, TypeError):
        return None
    return ctypes.cast(entry, ctypes.c_void_p).value


def _mark_forked() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
