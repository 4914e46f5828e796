"""sLSTM on CPU through the kernel in native/slstm.h: forward and backward each one call, inside one Function.

The kernel reads the gates where they lie, writes their gradient in the same layout and the hidden sequence in that of
the cell, so that no tensor is reordered. For the backward it keeps six numbers per element in its own buffer, and
none when no gradient is wanted.

Dimensions: B batch, T steps, H heads, K head width.
"""

import ctypes

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels.native import call as native
from xlstm_ts.kernels.native.call import Call, integers, pointers, strides, unsupported
from xlstm_ts.kernels.states import SLSTMState

__all__ = ["run", "run_projected", "unsupported"]

# Batch rows that share a pass over the recurrent weights. Speed is flat from 8 to 32; fewer rows feed more threads.
TILE_ROWS = 16
# A tile first rearranges the weights: it should have so many rows times steps to do that for.
WORTH_A_TILE = 256
# Each batch tile sums its own gradient of the recurrent weights; together at most this many numbers.
MOST_PARTIAL_SUMS = 1 << 23


def run(gates: Tensor, recurrent_weights: Tensor, state: SLSTMState, forget_gate: str) -> tuple[Tensor, SLSTMState]:
    """Run the recurrence; arguments and results as in `xlstm_ts.kernels.slstm`."""
    inputs = (gates, recurrent_weights, state.h, state.c, state.n)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    hidden, *last = _Recurrence.apply(*inputs, state.m, forget_gate, keep)
    return hidden, SLSTMState(*last)


def run_projected(
    x: Tensor,
    gate_input: Tensor,
    weight_if: Tensor,
    weight_zo: Tensor,
    bias: Tensor,
    recurrent_weights: Tensor,
    state: SLSTMState,
    forget_gate: str,
) -> tuple[Tensor, SLSTMState]:
    """Project the gates inside the kernel, a few steps at a time; arguments as in `parts.projected_slstm`.

    Of no use for a backward, which wants the gates' gradient. All gates of a batch are four times as large as its
    inputs and would travel through the memory and back.
    """
    inputs = {"x": x, "gate_input": gate_input, "w_if": weight_if, "w_zo": weight_zo, "bias": bias}
    inputs = {name: tensor.contiguous() for name, tensor in inputs.items()}
    weights = recurrent_weights.contiguous()
    h0, c0, n0 = (part.to(x).contiguous() for part in state[:3])
    m0 = state.m.to(torch.float64).contiguous()
    heads, width = weights.shape[1:3]
    hidden = x.new_empty(*x.shape[:2], heads, width)
    last = SLSTMState(*(torch.empty_like(part) for part in (h0, c0, n0, m0)))
    call = _describe(hidden)
    call.exp_forget, call.inner = forget_gate == "exp", weight_if.shape[1]
    call.point(weights=weights, h0=h0, c0=c0, n0=n0, m0=m0, hidden=hidden, **last._asdict(), **inputs)
    native.run("xlstm_slstm_forward", call)
    return hidden, last


class _SLSTMCall(Call):
    """`struct slstm` of cells.c."""

    _fields_ = (
        *integers("batch", "steps", "heads", "width", "tile"),
        *integers("is_double", "exp_forget", "level", "threads"),
        *pointers("parallel"),
        *strides(4, "gates_strides"),
        *strides(3, "d_hidden_strides"),
        *pointers("gates", "weights", "h0", "c0", "n0", "m0", "hidden", "h", "c", "n", "m", "saved"),
        *pointers("d_hidden", "d_h", "d_c", "d_n", "d_gates", "d_h0", "d_c0", "d_n0", "d_weights"),
        *integers("inner"),
        *pointers("x", "gate_input", "w_if", "w_zo", "bias"),
    )


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gates, weights, h0, c0, n0, m0, forget_gate, keep):
        ctx.set_materialize_grads(False)
        gates = native.rows(gates)
        weights, h0, c0, n0, m0 = (tensor.contiguous() for tensor in (weights, h0, c0, n0, m0))
        batch, steps, _, heads, width = gates.shape
        hidden = gates.new_empty(batch, steps, heads, width)
        h, c, n, m = (torch.empty_like(tensor) for tensor in (h0, c0, n0, m0))
        call = _describe(gates)
        call.exp_forget = forget_gate == "exp"
        call.gates_strides[:] = gates.stride()[:4]
        saved = (
            gates.new_empty(native.kernel(bool(call.is_double)).xlstm_slstm_saved(ctypes.byref(call))) if keep else None
        )
        call.point(gates=gates, weights=weights, h0=h0, c0=c0, n0=n0, m0=m0)
        call.point(hidden=hidden, h=h, c=c, n=n, m=m, saved=saved)
        native.run("xlstm_slstm_forward", call)
        if keep:
            ctx.save_for_backward(weights, h0, c0, n0, hidden, saved)
            ctx.layout = (call.tile, call.level)
            ctx.strides = gates.stride() if native.is_dense(gates) else None
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
        d_hidden = None if d_hidden is None else native.rows(d_hidden)
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
        native.run("xlstm_slstm_backward", call)
        d_weights = None if d_weights is None else d_weights.sum(0)
        return d_gates, d_weights, d_h0, d_c0, d_n0, None, None, None


def _describe(like: Tensor) -> _SLSTMCall:
    """Return a call with sizes and threads filled in; `like` is (B, T, ..., H, K)."""
    batch, steps, heads, width = like.shape[0], like.shape[1], like.shape[-2], like.shape[-1]
    weights = 4 * heads * width * width
    return _SLSTMCall(
        batch=batch,
        steps=steps,
        heads=heads,
        width=width,
        tile=_tile_rows(batch, steps, weights),
        is_double=like.dtype == torch.float64,
        level=native.level(like.dtype == torch.float64),
        threads=native.threads(batch * steps * weights),
        parallel=native.region(),
    )


def _tile_rows(batch: int, steps: int, weights: int) -> int:
    """Return the batch rows of a tile; independent of the number of threads, so that sums are too."""
    rows = max(TILE_ROWS, WORTH_A_TILE // steps)
    while rows < batch and -(-batch // rows) * weights > MOST_PARTIAL_SUMS:
        rows *= 2
    return rows
