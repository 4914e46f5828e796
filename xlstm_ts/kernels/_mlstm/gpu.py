"""mLSTM on an NVIDIA GPU: the chunkwise form in two Triton kernels forward and three backward, inside one Function.

Whatever T is, a call launches as many kernels. For the backward it keeps the memory before every chunk, and two
numbers per step and head; the gates' sums and all weights are computed again. Nothing waits for the GPU.

Dimensions: N = batch x heads, J chunks, K key width, V value width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels.gpu import device
from xlstm_ts.kernels.states import MLSTMState

READS_BFLOAT16 = True
SHORTEST, LONGEST = 16, 64  # steps of a chunk: powers of two
# Steps of a chunk, width of a tile, and warps: the largest with which no kernel runs out of registers.
SIZES = {torch.float32: (32, 32, 4), torch.bfloat16: (64, 32, 8), torch.float64: (32, 16, 8)}


def unsupported(*tensors: Tensor) -> str | None:
    """Return why the kernels cannot run these tensors here, or None."""
    return device.unsupported(tensors, *(tensor.shape[-1] for tensor in tensors[:3]))


def run(q, k, v, i_raw, f_raw, state: MLSTMState, forget_gate: str, chunk: int | None) -> tuple[Tensor, MLSTMState]:
    """Run the chunkwise form; arguments and results as in `xlstm_ts.kernels.mlstm`.

    `chunk` is rounded up to a power of two from 16 to 64.
    """
    inputs = (q, k, v, i_raw, f_raw, state.c, state.n)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    h, *last = _Chunkwise.apply(*inputs, state.m, forget_gate == "sigmoid", chunk, keep)
    return h, MLSTMState(*last)


class _Chunkwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q, k, v, i_raw, f_raw, c0, n0, m0, sigmoid, chunk, keep):
        from xlstm_ts.kernels._mlstm import gpu_kernels

        q, k, v, i_raw, f_raw, c0, n0, m0 = (x.contiguous() for x in (q, k, v, i_raw, f_raw, c0, n0, m0))
        batch, steps, heads, width = q.shape
        tiles = _tiles(q, v, chunk)
        rows, chunks = batch * heads, -(-steps // tiles["LENGTH"])
        across_k, across_v = -(-width // tiles["TILE_K"]), -(-v.shape[-1] // tiles["TILE_V"])
        before = [x.new_empty(rows, chunks, *x.shape[2:]) for x in (c0, n0, m0)]
        last = [torch.empty_like(x) for x in (c0, n0, m0)]
        h = c0.new_empty(v.shape)  # not rounded: its product with its own gradient is needed exactly
        reach, turn = (c0.new_empty(i_raw.shape if keep else 0) for _ in range(2))
        with device.on(q):
            gpu_kernels.forward_memory[rows, across_k, across_v](
                k, v, i_raw, f_raw, c0, n0, m0, *before, *last, steps, heads,
                SIGMOID=sigmoid, **tiles, **_options(q),
            )  # fmt: skip
            gpu_kernels.forward_read[rows * chunks, across_v](
                q, k, v, i_raw, f_raw, *before, h, reach, turn, steps, heads,
                WIDTH_K=device.padded(width), SIGMOID=sigmoid, KEEP=keep, **tiles, **_options(q),
            )  # fmt: skip
        if keep:
            ctx.save_for_backward(q, k, v, i_raw, f_raw, *before, h, reach, turn)
            ctx.sigmoid, ctx.tiles = sigmoid, tiles
        ctx.mark_non_differentiable(last[2])
        return h, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h, d_c, d_n, _):
        from xlstm_ts.kernels._mlstm import gpu_kernels

        q, k, v, i_raw, f_raw, c_before, n_before, m_before, h, reach, turn = ctx.saved_tensors
        d_h, d_c, d_n = (x.contiguous() for x in (d_h, d_c, d_n))
        _, steps, heads, width = q.shape
        rows, chunks = m_before.shape
        tiles, options = ctx.tiles, _options(q)
        across_k, across_v = -(-width // tiles["TILE_K"]), -(-v.shape[-1] // tiles["TILE_V"])
        padded_k, padded_v = device.padded(width), device.padded(v.shape[-1])
        d_dot, c_after, n_after, d_c0, d_n0 = (torch.empty_like(x) for x in (turn, c_before, n_before, d_c, d_n))
        gradients = [torch.empty_like(x) for x in (q, k, v, i_raw, f_raw)]
        with device.on(q):
            launch = {name: option for name, option in options.items() if name != "PRECISION"}
            gpu_kernels.backward_dot[(rows * chunks,)](
                d_h, h, turn, d_dot, steps, heads,
                V=tiles["V"], LENGTH=tiles["LENGTH"], WIDTH_V=padded_v, **launch,
            )  # fmt: skip
            gpu_kernels.backward_memory[rows, across_k, across_v](
                q, i_raw, f_raw, m_before, d_h, reach, d_dot, d_c, d_n, c_after, n_after, d_c0, d_n0, steps, heads,
                SIGMOID=ctx.sigmoid, **tiles, **options,
            )  # fmt: skip
            gpu_kernels.backward_inputs[(rows * chunks,)](
                q, k, v, i_raw, f_raw, c_before, n_before, m_before, c_after, n_after, d_h, reach, d_dot,
                *gradients, steps, heads,
                WIDTH_K=padded_k, WIDTH_V=padded_v, SIGMOID=ctx.sigmoid, **tiles, **options,
            )  # fmt: skip
        return *gradients, d_c0, d_n0, None, None, None, None


def _tiles(q: Tensor, v: Tensor, chunk: int | None) -> dict[str, int]:
    """Return the compile-time sizes that all kernels share; none depends on T unless `chunk` is given."""
    length, widest, _ = SIZES[q.dtype]
    if chunk is not None:
        length = max(SHORTEST, 1 << (min(chunk, LONGEST) - 1).bit_length())
    return {
        "K": q.shape[-1],
        "V": v.shape[-1],
        "LENGTH": length,
        "TILE_K": min(widest, device.padded(q.shape[-1])),
        "TILE_V": min(widest, device.padded(v.shape[-1])),
    }


def _options(q: Tensor) -> dict[str, Any]:
    return device.launch_options(q, warps=SIZES[q.dtype][2])
