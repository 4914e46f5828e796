"""mLSTM on CPU through the kernel in native/mlstm.h: forward and backward each one call, inside one Function.

The kernel goes through the chunks of one head of one batch row after another, so that a chunk never leaves the nearest
caches. For the backward it keeps the memory before every chunk, about as many numbers as the values have, and two
numbers per step and head; the rest is computed again. Nothing is kept when no gradient is wanted.

Dimensions: B batch, T steps, H heads, K key width, V value width, L steps of a chunk.
"""

import ctypes

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels.native import call as native
from xlstm_ts.kernels.native.call import Call, integers, pointers, strides, unsupported
from xlstm_ts.kernels.states import MLSTMState

__all__ = ["run", "unsupported"]

LARGEST_CHUNK = 128  # beyond it, the products inside a chunk fall out of the nearest caches


def run(q, k, v, i_raw, f_raw, state: MLSTMState, forget_gate: str, chunk: int | None) -> tuple[Tensor, MLSTMState]:
    """Run the chunkwise form; arguments and results as in `xlstm_ts.kernels.mlstm`."""
    inputs = (q, k, v, i_raw, f_raw, state.c, state.n)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    steps, width = q.shape[1], q.shape[-1]
    length = min(chunk or default_chunk(width, v.shape[-1]), steps, LARGEST_CHUNK)
    h, *last = _Chunkwise.apply(*inputs, state.m, forget_gate, length, keep)
    return h, MLSTMState(*last)


def default_chunk(width: int, value_width: int) -> int:
    """Return the number of steps per chunk; longer ones for larger memories, which cost more to read and write."""
    size = width * value_width
    return 32 if size < 24 * 24 else 64 if size < 96 * 96 else 128


class _MLSTMCall(Call):
    """`struct mlstm` of cells.h."""

    _fields_ = (
        *integers("batch", "steps", "heads", "width", "value_width", "chunk"),
        *integers("is_double", "exp_forget", "level", "threads"),
        *pointers("parallel"),
        *strides(3, "q_strides", "k_strides", "v_strides", "i_strides", "f_strides", "d_h_strides"),
        *pointers("q", "k", "v", "i", "f", "c0", "n0", "m0", "h", "c", "n", "m", "memories", "starts", "scales"),
        *pointers("d_h", "d_c", "d_n", "d_q", "d_k", "d_v", "d_i", "d_f", "d_c0", "d_n0"),
    )


class _Chunkwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, i, f, c0, n0, m0, forget_gate, chunk, keep):
        ctx.set_materialize_grads(False)
        q, k, v = (native.rows(tensor) for tensor in (q, k, v))
        c0, n0, m0 = (tensor.contiguous() for tensor in (c0, n0, m0))
        h = torch.empty(v.shape, dtype=v.dtype)
        c, n, m = (torch.empty_like(tensor) for tensor in (c0, n0, m0))
        call = _describe(q, k, v, i, f, chunk, forget_gate)
        memories = starts = scales = None
        if keep:
            batch, steps, heads, _ = q.shape
            memories = q.new_empty(native.kernel(bool(call.is_double)).xlstm_mlstm_saved(ctypes.byref(call)))
            starts = m0.new_empty(batch, heads, -(-steps // chunk))
            scales = q.new_empty(batch, heads, steps, 2)
            ctx.save_for_backward(q, k, v, i, f, h, memories, starts, scales)
            ctx.how = (chunk, forget_gate, call.level)
        call.point(c0=c0, n0=n0, m0=m0, h=h, c=c, n=n, m=m, memories=memories, starts=starts, scales=scales)
        native.run("xlstm_mlstm_forward", call)
        ctx.mark_non_differentiable(m)
        return h, c, n, m

    @staticmethod
    @once_differentiable
    def backward(ctx, d_h, d_c, d_n, _):
        q, k, v, i, f, h, memories, starts, scales = ctx.saved_tensors
        chunk, forget_gate, level = ctx.how
        d_q, d_k, d_v, d_i, d_f = (torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in (q, k, v, i, f))
        batch, _, heads, width = q.shape
        d_c0, d_n0 = q.new_empty(batch, heads, width, v.shape[-1]), q.new_empty(batch, heads, width)
        call = _describe(q, k, v, i, f, chunk, forget_gate)
        call.level = level  # that of `memories`
        if d_h is not None:
            d_h = native.rows(d_h)
            call.d_h_strides[:] = d_h.stride()[:3]
        d_c, d_n = (None if tensor is None else tensor.contiguous() for tensor in (d_c, d_n))
        call.point(h=h, memories=memories, starts=starts, scales=scales, d_h=d_h, d_c=d_c, d_n=d_n)
        call.point(d_q=d_q, d_k=d_k, d_v=d_v, d_i=d_i, d_f=d_f, d_c0=d_c0, d_n0=d_n0)
        native.run("xlstm_mlstm_backward", call)
        return d_q, d_k, d_v, d_i, d_f, d_c0, d_n0, None, None, None, None


def _describe(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, chunk: int, forget_gate: str) -> _MLSTMCall:
    """Return a call with sizes, threads and inputs filled in."""
    batch, steps, heads, width = q.shape
    value_width = v.shape[-1]
    call = _MLSTMCall(
        batch=batch,
        steps=steps,
        heads=heads,
        width=width,
        value_width=value_width,
        chunk=chunk,
        is_double=q.dtype == torch.float64,
        exp_forget=forget_gate == "exp",
        level=native.level(q.dtype == torch.float64),
        threads=native.threads(batch * steps * heads * (2 * width * value_width + chunk * (width + value_width) // 2)),
        parallel=native.region(),
    )
    for name, tensor in {"q": q, "k": k, "v": v, "i": i, "f": f}.items():
        getattr(call, f"{name}_strides")[:] = tensor.stride()[:3]
    call.point(q=q, k=k, v=v, i=i, f=f)
    return call
