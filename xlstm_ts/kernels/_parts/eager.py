"""The parts of blocks in plain torch, gradients by autograd: short, and what the native ones are compared with."""

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, silu

from xlstm_ts.kernels.states import log_forget, stabiliser_dtype

Weights = tuple[Tensor, Tensor]  # weight and bias
Product = tuple[Tensor, Tensor, Tensor | None]  # input, weight and bias of a linear map


def unsupported(*tensors: Tensor) -> None:
    """Return None: plain torch runs on every device."""
    return None


def project(products: tuple[Product, ...], joined: bool) -> tuple[Tensor, ...]:
    """See `xlstm_ts.kernels.parts.project`."""
    outputs = [_map(*product) for product in products]
    return (torch.cat(outputs, dim=-1),) if joined else tuple(outputs)


def _map(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.dim() == 2:
        return linear(x, weight, bias)
    heads, width, _ = weight.shape
    rows = x.reshape(-1, heads, width).transpose(0, 1)  # one matrix per head
    y = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias[:, None], rows, weight)
    return y.transpose(0, 1).unflatten(0, x.shape[:-1])


def causal_conv(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `xlstm_ts.kernels.parts.causal_conv`."""
    size, steps = weight.shape[1], x.shape[1]
    x = torch.cat([tail, x], dim=1)
    # One product per step of the kernel: three times as fast as a depthwise conv1d at these sizes on a CPU.
    y = bias
    for j in range(size):
        y = torch.addcmul(y, x[:, j : j + steps], weight[:, j])
    return silu(y)


def gelu_gate(x: Tensor) -> Tensor:
    """See `xlstm_ts.kernels.parts.gelu_gate`."""
    gate, value = x.chunk(2, dim=-1)
    return gelu(gate) * value


def norm(x: Tensor, weights: Weights) -> Tensor:
    """Return the norm over the last axis, times a weight, plus a bias."""
    return layer_norm(x, x.shape[-1:], *weights)


def feed_forward(x: Tensor, norm_weights: Weights, up: Weights, down: Weights) -> Tensor:
    """See `xlstm_ts.kernels.parts.feed_forward`."""
    return linear(gelu_gate(linear(norm(x, norm_weights), *up)), *down)


def head_norm(x: Tensor, weight: Tensor) -> Tensor:
    """See `xlstm_ts.kernels.parts.head_norm`."""
    return layer_norm(x, x.shape[-1:]).flatten(-2) * weight


def norm_gate(x: Tensor, weight: Tensor, skip: Tensor, residual: Tensor, gate: Tensor) -> Tensor:
    """See `xlstm_ts.kernels.parts.norm_gate`."""
    return (head_norm(x, weight) + residual * skip) * silu(gate)


def read_last(q: Tensor, keys: Tensor, values: Tensor, gates: Tensor, forget_gate: str) -> Tensor:
    """See `xlstm_ts.kernels.parts.read_last`."""
    i_raw, f_raw = gates.to(stabiliser_dtype(gates.device)).chunk(2, dim=-1)  # [B, T, H]
    forgotten = log_forget(f_raw, forget_gate, f_raw.dtype).cumsum(1)
    log_weight = i_raw + (forgotten[:, -1:] - forgotten)  # of a write, at the last step
    m = log_weight.amax(1, keepdim=True).detach()
    weight = (log_weight - m).exp().to(q.dtype) * (keys * q[:, None]).sum(-1)
    floor = (-m).exp().to(q.dtype).clamp_min(torch.finfo(q.dtype).tiny)
    read = (weight[..., None] * values).sum(1)
    return read / torch.maximum(weight.sum(1).abs(), floor[:, 0])[..., None]
