"""sLSTM on CPU through the kernel in native/cells.c: forward and backward each one call, inside one Function.

The kernel reads the gates where they lie, writes their gradient in the same layout and the hidden sequence in that of
the cell, so that no tensor is reordered. For the backward it keeps six numbers per element in its own buffer, and
none when no gradient is wanted. While it runs, Python is free for other threads. Its threads are those that torch
already has, so that the two never compete; in a forked child, where OpenMP may wait for threads that the fork did not
copy, it uses one.

Dimensions: B batch, T steps, H heads, K head width.
"""

import ctypes
import os
from functools import cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels.native.loader import library
from xlstm_ts.kernels.states import SLSTMState

# Batch rows that share a pass over the recurrent weights. Speed is flat from 8 to 32; fewer rows feed more threads.
TILE_ROWS = 16
# Below this many multiplications (some 20 microseconds) one thread is faster than meeting others.
WORTH_A_REGION = 1 << 20
# Each batch tile sums its own gradient of the recurrent weights; together at most this many numbers.
MOST_PARTIAL_SUMS = 1 << 23

_forked = False


def unsupported(*tensors: Tensor) -> str | None:
    """Return why the kernel cannot run these tensors here, or None."""
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"needs CPU tensors, got {tensor.device.type}"
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            return f"needs plain tensors, got {type(tensor).__name__}"
    if torch.compiler.is_compiling():
        return "cannot be traced by torch.compile"
    found = library()
    return found if isinstance(found, str) else None


def run(gates: Tensor, recurrent_weights: Tensor, state: SLSTMState, forget_gate: str) -> tuple[Tensor, SLSTMState]:
    """Run the recurrence; arguments and results as in `xlstm_ts.kernels.slstm`."""
    inputs = (gates, recurrent_weights, state.h, state.c, state.n)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    hidden, *last = _Recurrence.apply(*inputs, state.m, forget_gate, keep)
    return hidden, SLSTMState(*last)


class _Call(ctypes.Structure):
    """`struct slstm` of cells.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "steps", "heads", "width", "tile")),
        *((name, ctypes.c_int64) for name in ("is_double", "exp_forget", "level", "threads")),
        ("parallel", ctypes.c_void_p),
        ("gates_strides", ctypes.c_int64 * 4),
        ("d_hidden_strides", ctypes.c_int64 * 3),
        *((name, ctypes.c_void_p) for name in ("gates", "weights", "h0", "c0", "n0", "m0")),
        *((name, ctypes.c_void_p) for name in ("hidden", "h", "c", "n", "m", "saved")),
        *((name, ctypes.c_void_p) for name in ("d_hidden", "d_h", "d_c", "d_n")),
        *((name, ctypes.c_void_p) for name in ("d_gates", "d_h0", "d_c0", "d_n0", "d_weights")),
    )

    def point(self, **tensors: Tensor | None) -> None:
        """Set pointers to the data of tensors that the caller keeps alive."""
        for name, tensor in tensors.items():
            setattr(self, name, None if tensor is None else tensor.data_ptr())


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gates, weights, h0, c0, n0, m0, forget_gate, keep):
        ctx.set_materialize_grads(False)
        gates = _rows(gates)
        weights, h0, c0, n0, m0 = (tensor.contiguous() for tensor in (weights, h0, c0, n0, m0))
        batch, steps, _, heads, width = gates.shape
        hidden = gates.new_empty(batch, steps, heads, width)
        h, c, n, m = (torch.empty_like(tensor) for tensor in (h0, c0, n0, m0))
        call = _describe(gates)
        call.exp_forget = forget_gate == "exp"
        call.gates_strides[:] = gates.stride()[:4]
        saved = gates.new_empty(_kernel().xlstm_slstm_saved(ctypes.byref(call))) if keep else None
        call.point(gates=gates, weights=weights, h0=h0, c0=c0, n0=n0, m0=m0)
        call.point(hidden=hidden, h=h, c=c, n=n, m=m, saved=saved)
        _check(_kernel().xlstm_slstm_forward(ctypes.byref(call)))
        if keep:
            ctx.save_for_backward(weights, h0, c0, n0, hidden, saved)
            ctx.layout = (call.tile, call.level)
            ctx.strides = gates.stride() if _is_dense(gates) else None
        ctx.mark_non_differentiable(m)
        return hidden, h, c, n, m

    @staticmethod
    @once_differentiable
    def backward(ctx, d_hidden, d_h, d_c, d_n, _):
        weights, h0, c0, n0, hidden, saved = ctx.saved_tensors
        batch, steps, heads, width = hidden.shape
        shape = (batch, steps, 4, heads, width)  # and the layout of gates, so that no one has to reorder it
        d_gates = hidden.new_empty_strided(shape, ctx.strides) if ctx.strides else hidden.new_empty(shape)
        d_h0, d_c0, d_n0 = (torch.empty_like(tensor) for tensor in (h0, c0, n0))
        d_hidden = None if d_hidden is None else _rows(d_hidden)
        d_h, d_c, d_n = (None if tensor is None else tensor.contiguous() for tensor in (d_h, d_c, d_n))
        call = _describe(hidden)
        call.tile, call.level = ctx.layout  # that of `saved`
        d_weights = None
        if ctx.needs_input_grad[1]:
            d_weights = weights.new_empty(-(-batch // call.tile), *weights.shape)
        call.gates_strides[:] = d_gates.stride()[:4]
        if d_hidden is not None:
            call.d_hidden_strides[:] = d_hidden.stride()[:3]
        call.point(weights=weights, h0=h0, c0=c0, n0=n0, hidden=hidden, saved=saved)
        call.point(d_hidden=d_hidden, d_h=d_h, d_c=d_c, d_n=d_n)
        call.point(d_gates=d_gates, d_h0=d_h0, d_c0=d_c0, d_n0=d_n0, d_weights=d_weights)
        _check(_kernel().xlstm_slstm_backward(ctypes.byref(call)))
        d_weights = None if d_weights is None else d_weights.sum(0)
        return d_gates, d_weights, d_h0, d_c0, d_n0, None, None, None


def _describe(like: Tensor) -> _Call:
    """Return a call with sizes and threads filled in; `like` is (B, T, ..., H, K)."""
    batch, steps, heads, width = like.shape[0], like.shape[1], like.shape[-2], like.shape[-1]
    weights = 4 * heads * width * width
    worth = batch * steps * weights >= WORTH_A_REGION
    return _Call(
        batch=batch,
        steps=steps,
        heads=heads,
        width=width,
        tile=_tile_rows(batch, weights),
        is_double=like.dtype == torch.float64,
        level=_level(),
        threads=torch.get_num_threads() if worth and not _forked else 1,
        parallel=_region(),
    )


def _kernel() -> ctypes.CDLL:
    found = library()
    assert isinstance(found, ctypes.CDLL), "`unsupported` is asked first"
    return found


def _level() -> int:
    """Return the instruction set that this processor offers: 0 the baseline, 1 AVX2, 2 AVX-512."""
    return _kernel().xlstm_level()


def _tile_rows(batch: int, weights: int) -> int:
    """Return the batch rows of a tile; independent of the number of threads, so that sums are too."""
    rows = TILE_ROWS
    while rows < batch and -(-batch // rows) * weights > MOST_PARTIAL_SUMS:
        rows *= 2
    return rows


def _rows(tensor: Tensor) -> Tensor:
    """Return the tensor with its last axis contiguous, itself where it is."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _is_dense(tensor: Tensor) -> bool:
    """Whether the tensor fills its memory without gaps or overlaps, in any order of its axes."""
    size = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1:
            if stride != size:
                return False
            size *= length
    return True


def _check(status: int) -> None:
    if status:
        raise MemoryError("kernels.slstm: no memory for the work space of the native kernel.")


@cache
def _region() -> int | None:
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
