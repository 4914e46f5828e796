"""sLSTM on an NVIDIA GPU: forward and backward through time one Triton kernel each, inside one Function.

The kernels read the gates where they lie and write their gradient in the same layout. For the backward they keep six
numbers per element, and none when no gradient is wanted. The gradient of the recurrent weights is a matrix product
over all steps afterwards. Nothing waits for the GPU.

Dimensions: B batch, T steps, H heads, K head width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels.gpu import device
from xlstm_ts.kernels.states import SLSTMState

READS_BFLOAT16 = True
# Batch rows that share a pass over the recurrent weights: the height of a matrix unit.
ROWS = 16


def unsupported(*tensors: Tensor) -> str | None:
    """Return why the kernels cannot run these tensors here, or None."""
    return device.unsupported(tensors, *(tensor.shape[-1] for tensor in tensors[:1]))


def run(gates: Tensor, recurrent_weights: Tensor, state: SLSTMState, forget_gate: str) -> tuple[Tensor, SLSTMState]:
    """Run the recurrence; arguments and results as in `xlstm_ts.kernels.slstm`."""
    inputs = (gates, recurrent_weights, state.h, state.c, state.n)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    hidden, *last = _Recurrence.apply(*inputs, state.m, forget_gate, keep)
    return hidden, SLSTMState(*last)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates, weights, h0, c0, n0, m0, forget_gate, keep):
        from xlstm_ts.kernels._slstm import gpu_kernels

        gates = gates if gates.stride(-1) == 1 else gates.contiguous()
        h0, c0, n0, m0 = (tensor.contiguous() for tensor in (h0, c0, n0, m0))
        batch, steps, _, heads, width = gates.shape
        side_by_side = weights.permute(1, 2, 3, 0).contiguous()  # [H, K, K, 4]
        hidden = gates.new_empty(batch, steps, heads, width)
        h, c, n, m = (torch.empty_like(tensor) for tensor in (h0, c0, n0, m0))
        saved = c0.new_empty(batch, steps, 6, heads, width) if keep else c0
        with device.on(gates):
            gpu_kernels.forward[_grid(gates)](
                gates, side_by_side, h0, c0, n0, m0, hidden, h, c, n, m, saved,
                *_sizes(gates), SIGMOID=forget_gate == "sigmoid", KEEP=keep, **_options(gates, contraction=1),
            )  # fmt: skip
        if keep:
            ctx.save_for_backward(gates, weights, h0, c0, n0, hidden, saved)
        ctx.mark_non_differentiable(m)
        return hidden, h, c, n, m

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden, d_h, d_c, d_n, _):
        from xlstm_ts.kernels._slstm import gpu_kernels

        gates, weights, h0, c0, n0, hidden, saved = ctx.saved_tensors
        transposed = weights.permute(1, 3, 0, 2).contiguous()  # [H, K, 4, K]
        d_hidden, d_h, d_c, d_n = (tensor.contiguous() for tensor in (d_hidden, d_h, d_c, d_n))
        d_gates = torch.empty_like(gates)
        if d_gates.stride(-1) != 1:
            d_gates = gates.new_empty(gates.shape)
        d_h0, d_c0, d_n0 = (torch.empty_like(tensor) for tensor in (h0, c0, n0))
        with device.on(gates):
            gpu_kernels.backward[_grid(gates)](
                d_hidden, transposed, saved, c0, n0, d_h, d_c, d_n, d_gates, d_h0, d_c0, d_n0,
                *_sizes(d_gates), **_options(d_gates, contraction=4),
            )  # fmt: skip
        d_weights = _d_weights(h0, hidden, d_gates) if ctx.needs_input_grad[1] else None
        return d_gates, d_weights, d_h0, d_c0, d_n0, None, None, None


def _d_weights(h0: Tensor, hidden: Tensor, d_gates: Tensor) -> Tensor:
    """Return the sum over rows and steps of h before the step times the gradient of each gate, [4, H, K, K]."""
    before = torch.cat([h0[:, None].to(hidden.dtype), hidden[:, :-1]], dim=1).flatten(0, 1)  # [B * T, H, K]
    by_gate = d_gates.flatten(0, 1).unbind(1)  # [B * T, H, K] each
    return torch.stack([torch.bmm(before.permute(1, 2, 0), part.transpose(0, 1)) for part in by_gate])


def _grid(gates: Tensor) -> tuple[int, int]:
    return -(-gates.shape[0] // ROWS), gates.shape[3]


def _sizes(gates: Tensor) -> tuple[int, ...]:
    """Return B, T, H and the strides of the gates by row, step, gate and head, as the kernels take them."""
    batch, steps, _, heads, _ = gates.shape
    return batch, steps, heads, *gates.stride()[:4]


def _options(gates: Tensor, contraction: int) -> dict[str, Any]:
    """Return the compile-time arguments of a kernel whose product runs over `contraction` times the head width."""
    width = gates.shape[-1]
    padded = device.padded(width)
    double = gates.dtype == torch.float64
    fits = padded <= (32 if double else 64)  # 64 KB of weights stay on chip; two streamed tiles take no more than 128
    return {
        "K": width,
        "WIDTH": padded,
        "ROWS": ROWS,
        "TILE": contraction * (padded if fits else 8 if double else 16),
        "ALIGNED": width % 16 == 0 and all(stride % 16 == 0 for stride in gates.stride()[:4]),
        **device.launch_options(gates, warps=min(8, padded // 4) if fits else 16, streams=not fits),
    }
