"""sLSTM on CPU through the kernel in native/slstm.h: forward and backward each one call, inside one Function.

The kernel reads the gates where they lie, writes their gradient in the same layout and the hidden sequence in that of
the cell, so that no tensor is reordered. Or it makes the gates itself from the inputs of a layer, a few steps at a
time, and they never travel to memory. For the backward it keeps four numbers per element in its own buffer, and none
when no gradient is wanted.

Dimensions: B batch, T steps, D width of an input, H heads, K head width.
"""

import ctypes

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels.native import call as native
from xlstm_ts.kernels.native.call import Call, integers, pointers, strides, unsupported
from xlstm_ts.kernels.native.products import multiply, weight_gradient
from xlstm_ts.kernels.states import SLSTMState

__all__ = ["run", "run_layer", "unsupported"]

# Batch rows that share a pass over the recurrent weights. Speed is flat from 8 to 32; fewer rows feed more threads.
TILE_ROWS = 16
# A tile first rearranges the weights: it should have so many rows times steps to do that for.
WORTH_A_TILE = 256
# Each batch tile sums its own gradient of the weights; together at most this many numbers.
MOST_PARTIAL_SUMS = 1 << 23


def run(gates: Tensor, recurrent_weights: Tensor, state: SLSTMState, forget_gate: str) -> tuple[Tensor, SLSTMState]:
    """Run the recurrence; arguments and results as in `xlstm_ts.kernels.slstm`."""
    inputs = (gates, recurrent_weights, *state[:3])
    hidden, *last = _Recurrence.apply(*inputs, state.m, forget_gate, _wanted(inputs))
    return hidden, SLSTMState(*last)


def run_layer(
    gate_input: Tensor,
    x: Tensor,
    weight_if: Tensor,
    weight_zo: Tensor,
    bias: Tensor,
    recurrent_weights: Tensor,
    state: SLSTMState,
    forget_gate: str,
) -> tuple[Tensor, SLSTMState]:
    """Make the gates and run the recurrence; arguments and results as in `xlstm_ts.kernels.layers.slstm_layer`."""
    heads = recurrent_weights.shape[1]
    if weight_if.dim() == 2:  # by head, its columns last, as a head-wise one lies
        weight_if, weight_zo = (weight.unflatten(0, (heads, -1)).transpose(1, 2) for weight in (weight_if, weight_zo))
    # An input that both pairs of gates read is named once: its gradient is then gathered in one place.
    other = None if gate_input is x else x
    inputs = (gate_input, other, weight_if, weight_zo, bias, recurrent_weights, *state[:3])
    hidden, *last = _Layer.apply(*inputs, state.m, forget_gate, _wanted(inputs))
    return hidden, SLSTMState(*last)


def _wanted(inputs: tuple[Tensor | None, ...]) -> bool:
    """Whether the backward may be asked for."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)


class _SLSTMCall(Call):
    """`struct slstm` of cells.h."""

    _fields_ = (
        *integers("batch", "steps", "heads", "width", "tile"),
        *integers("is_double", "exp_forget", "level", "threads"),
        *pointers("parallel"),
        *integers("inner", "x_head"),
        *strides(2, "x_if_strides", "x_zo_strides"),
        *strides(3, "w_strides", "gates_strides"),
        *strides(4, "gate_offsets"),
        *strides(3, "d_hidden_strides"),
        *pointers("gates", "x_if", "x_zo", "w_if", "w_zo", "bias"),
        *pointers("weights", "h0", "c0", "n0", "m0", "hidden", "h", "c", "n", "m", "saved", "packed"),
        *pointers("d_hidden", "d_h", "d_c", "d_n", "d_gates", "d_x_if", "d_x_zo", "d_h0", "d_c0", "d_n0"),
        *pointers("d_w_if", "d_w_zo", "d_weights", "d_bias"),
    )


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gates, weights, h0, c0, n0, m0, forget_gate, keep):
        gates = native.rows(gates)
        call = _describe(gates, weights)
        _lay_gates(call, gates)
        call.point(gates=gates)
        ctx.strides = gates.stride() if native.is_dense(gates) else None
        return _forward(ctx, call, weights, SLSTMState(h0, c0, n0, m0), forget_gate, keep)

    @staticmethod
    @once_differentiable
    def backward(ctx, *d_outputs):
        call, hidden, _, results = _prepare_backward(ctx, d_outputs, ctx.needs_input_grad[1])
        batch, steps, heads, width = hidden.shape
        shape = (batch, steps, 4, heads, width)  # and the layout of gates, so that no one has to reorder it
        d_gates = hidden.new_empty_strided(shape, ctx.strides) if ctx.strides else hidden.new_empty(shape)
        _lay_gates(call, d_gates)
        call.point(d_gates=d_gates)
        native.run("xlstm_slstm_backward", call)
        return d_gates, *_summed(results), None, None, None


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_input, x, w_if, w_zo, bias, weights, h0, c0, n0, m0, forget_gate, keep):
        w_if, w_zo = (w if 1 in w.stride()[1:] else w.contiguous() for w in (w_if, w_zo))
        if w_if.stride() != w_zo.stride() or _by_head(gate_input, w_if):
            w_if, w_zo = w_if.contiguous(), w_zo.contiguous()
        inputs = (native.rows(gate_input), None if x is None else native.rows(x), w_if, w_zo, bias.contiguous())
        call = _describe(gate_input, weights)
        _lay_inputs(call, *inputs)
        return _forward(ctx, call, weights, SLSTMState(h0, c0, n0, m0), forget_gate, keep, *inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *d_outputs):
        call, hidden, inputs, results = _prepare_backward(ctx, d_outputs, ctx.needs_input_grad[5])
        gate_input, x, w_if, w_zo, bias = inputs
        _lay_inputs(call, *inputs)
        tiles = -(-call.batch // call.tile)
        d_bias = bias.new_empty(tiles, *bias.shape)
        call.point(d_bias=d_bias)
        if _by_head(gate_input, w_if):  # a tile needs nothing of the others
            d_if = torch.empty(gate_input.shape, dtype=bias.dtype)
            d_zo = None if x is None else torch.empty(x.shape, dtype=bias.dtype)
            d_w_if, d_w_zo = (w.new_empty(tiles, *w.shape) for w in (w_if, w_zo))
            call.point(d_x_if=d_if, d_x_zo=d_if if d_zo is None else d_zo, d_w_if=d_w_if, d_w_zo=d_w_zo)
            native.run("xlstm_slstm_backward", call)
            gradients = d_if, d_zo, d_w_if.sum(0), d_w_zo.sum(0)
        else:
            batch, steps, heads, width = hidden.shape
            d_gates = hidden.new_empty(batch, steps, 2, heads, 2, width)  # each pair as its weights have it
            by_batch, by_step, by_pair, by_head, by_gate, _ = d_gates.stride()
            call.gates_strides[:] = [by_batch, by_step, by_head]
            call.gate_offsets[:] = [pair * by_pair + gate * by_gate for pair in (0, 1) for gate in (0, 1)]
            call.point(d_gates=d_gates)
            native.run("xlstm_slstm_backward", call)
            gradients = _dense_gradients(d_gates.view(batch * steps, 1, -1), gate_input, x, w_if, w_zo)
        return *gradients, d_bias.sum(0), *_summed(results), None, None, None


def _forward(ctx, call, weights, state, forget_gate, keep, *inputs):
    """Run the forward of a described call, and keep what its backward needs; returns what the Function returns."""
    ctx.set_materialize_grads(False)
    weights, h0, c0, n0, m0 = (tensor.contiguous() for tensor in (weights, *state))
    hidden = weights.new_empty(call.batch, call.steps, call.heads, call.width)
    h, c, n, m = (torch.empty_like(tensor) for tensor in (h0, c0, n0, m0))
    call.exp_forget = forget_gate == "exp"
    saved = None
    if keep:
        saved = weights.new_empty(native.kernel(bool(call.is_double)).xlstm_slstm_saved(ctypes.byref(call)))
    call.point(weights=weights, h0=h0, c0=c0, n0=n0, m0=m0)
    call.point(hidden=hidden, h=h, c=c, n=n, m=m, saved=saved)
    native.run("xlstm_slstm_forward", call)
    if keep:
        ctx.save_for_backward(weights, h0, c0, n0, hidden, saved, *inputs)
        ctx.layout = (call.tile, call.level)
    ctx.mark_non_differentiable(m)
    return hidden, h, c, n, m


def _prepare_backward(ctx, d_outputs, d_weights_wanted):
    """Return the call, the hidden sequence, the inputs that were kept, and where the common gradients will stand."""
    weights, h0, c0, n0, hidden, saved, *inputs = ctx.saved_tensors
    d_hidden, d_h, d_c, d_n = (None if d is None else native.rows(d) for d in d_outputs[:4])
    d_h, d_c, d_n = (None if d is None else d.contiguous() for d in (d_h, d_c, d_n))
    call = _describe(hidden, weights)
    call.tile, call.level = ctx.layout  # that of `saved`
    d_weights = weights.new_empty(-(-call.batch // call.tile), *weights.shape) if d_weights_wanted else None
    results = (d_weights, *(torch.empty_like(tensor) for tensor in (h0, c0, n0)))
    if d_hidden is not None:
        call.d_hidden_strides[:] = d_hidden.stride()[:3]
    call.point(weights=weights, h0=h0, c0=c0, n0=n0, hidden=hidden, saved=saved)
    call.point(d_hidden=d_hidden, d_h=d_h, d_c=d_c, d_n=d_n)
    call.point(**dict(zip(("d_weights", "d_h0", "d_c0", "d_n0"), results, strict=True)))
    return call, hidden, inputs, results


def _summed(results: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return the common gradients, that of the weights summed over the tiles."""
    d_weights, *d_state = results
    return (None if d_weights is None else d_weights.sum(0), *d_state)


def _lay_gates(call: _SLSTMCall, gates: Tensor) -> None:
    """Say how gates, or their gradient, (B, T, 4, H, K), lie in memory."""
    by_batch, by_step, by_gate, by_head = gates.stride()[:4]
    call.gates_strides[:] = [by_batch, by_step, by_head]
    call.gate_offsets[:] = [gate * by_gate for gate in range(4)]


def _lay_inputs(
    call: _SLSTMCall, gate_input: Tensor, x: Tensor | None, w_if: Tensor, w_zo: Tensor, bias: Tensor
) -> None:
    """Say where the inputs of a layer lie."""
    x = gate_input if x is None else x
    call.inner = w_if.shape[1]
    call.x_head = call.inner if _by_head(gate_input, w_if) else 0
    call.x_if_strides[:], call.x_zo_strides[:] = gate_input.stride()[:2], x.stride()[:2]
    call.w_strides[:] = w_if.stride()
    call.point(x_if=gate_input, x_zo=x, w_if=w_if, w_zo=w_zo, bias=bias)


def _by_head(x: Tensor, weight: Tensor) -> bool:
    """Whether a head reads its own part of the input (weights (H, D / H, 2K)) and not all of it ((H, D, 2K))."""
    return weight.shape[0] * weight.shape[1] == x.shape[-1]


def _dense_gradients(d_gates: Tensor, gate_input: Tensor, x: Tensor | None, w_if: Tensor, w_zo: Tensor):
    """Return the gradients of inputs and dense weights; d_gates is (M, 1, 4HK), by pairs."""
    heads, width, columns = w_if.shape
    flat = [w.transpose(1, 2).reshape(heads * columns, width) for w in (w_if, w_zo)]
    inputs = [gate_input] if x is None else [gate_input, x]
    if x is None:
        flat = [torch.cat(flat)]
    d_inputs = [torch.empty(part.shape, dtype=part.dtype) for part in inputs]
    d_flat = []
    for part, d_part, weight, d in zip(inputs, d_inputs, flat, d_gates.chunk(len(flat), dim=-1), strict=True):
        multiply(d, weight[None], d_part.flatten(0, 1)[:, None])
        d_flat.append(weight_gradient(part.flatten(0, 1)[:, None], d, weight)[0])
    d_if, d_zo = torch.cat(d_flat).view(2, heads, columns, width).transpose(2, 3)
    return d_inputs[0], None if x is None else d_inputs[1], d_if, d_zo


def _describe(like: Tensor, weights: Tensor) -> _SLSTMCall:
    """Return a call with sizes and threads filled in; `like` is (B, T, ...) and `weights` (4, H, K, K)."""
    batch, steps = like.shape[:2]
    _, heads, width, _ = weights.shape
    double = weights.dtype == torch.float64
    return _SLSTMCall(
        batch=batch,
        steps=steps,
        heads=heads,
        width=width,
        tile=_tile_rows(batch, steps, weights.numel()),
        is_double=double,
        level=native.level(double),
        threads=native.threads(batch * steps * weights.numel()),
        parallel=native.region(),
    )


def _tile_rows(batch: int, steps: int, weights: int) -> int:
    """Return the batch rows of a tile; independent of the number of threads, so that sums are too."""
    rows = max(TILE_ROWS, WORTH_A_TILE // steps)
    while rows < batch and -(-batch // rows) * weights > MOST_PARTIAL_SUMS:
        rows *= 2
    return rows
