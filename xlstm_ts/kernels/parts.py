"""What surrounds the cells in a block: linear maps, the causal convolution, gates and norms.

Each picks the fastest backend that can run its tensors, as the cells do; there is nothing to choose by name. They
exist because around a fast cell these parts are most of a block's time, and on a CPU torch passes over memory many
times for each. Dimensions: B batch, T steps, D width, H heads, K head width.
"""

from types import ModuleType

import torch
from torch import Tensor

from xlstm_ts.kernels._parts.eager import Product
from xlstm_ts.kernels.cells import slstm
from xlstm_ts.kernels.dispatch import load, resolve
from xlstm_ts.kernels.states import SLSTMState

# Below this many rows, torch's products are as fast and cost less to start.
FEW_ROWS = 32


def project(*products: Product, joined: bool = False) -> tuple[Tensor, ...]:
    """Map inputs linearly, several at once.

    Parameters
    ----------
    products : tuple of (x, weight, bias)
        An input (..., D); a dense weight (E, D) as in `torch.nn.Linear`, or a head-wise one (H, D / H, E / H), where
        each head reads its own part of the input; and a bias (E,) or (H, E / H), or None. Products of one input
        should name the same tensor object: its gradient is then gathered in one place.
    joined : bool
        Whether to return all outputs side by side in one tensor. All weights must then be of one kind.

    Returns
    -------
    tuple of Tensor
        Per product (..., E) for a dense weight, (..., H, E / H) for a head-wise one; or the one joined tensor.
    """
    tensors = tuple(tensor for product in products for tensor in product if tensor is not None)
    x = products[0][0]
    module = load("parts", "eager") if x.numel() < FEW_ROWS * x.shape[-1] else _pick(*tensors)
    return module.project(products, joined)


def causal_conv(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel with the present and the steps before it, and apply SiLU.

    Parameters
    ----------
    x : Tensor of shape (B, T, D)
        Input.
    tail : Tensor of shape (B, size - 1, D)
        The input before it.
    weight : Tensor of shape (D, size)
        The last one is the present step's.
    bias : Tensor of shape (D,)
        Added before SiLU.

    Returns
    -------
    Tensor of shape (B, T, D)
        The convolved steps.
    """
    return _pick(x, tail, weight, bias).causal_conv(x, tail, weight, bias)


def gelu_gate(x: Tensor) -> Tensor:
    """Return gelu(first half) * second half of the last axis."""
    return _pick(x).gelu_gate(x)


def head_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Normalise (..., H, K) over K, join the heads, and multiply by the weight (H * K,)."""
    return _pick(x, weight).head_norm(x, weight)


def norm_gate(x: Tensor, weight: Tensor, skip: Tensor, residual: Tensor, gate: Tensor) -> Tensor:
    """Return (head_norm(x, weight) + residual * skip) * silu(gate); skip and gate are (..., H * K)."""
    return _pick(x, weight, skip, residual, gate).norm_gate(x, weight, skip, residual, gate)


def projected_slstm(
    x: Tensor,
    gate_input: Tensor,
    weight_if: Tensor,
    weight_zo: Tensor,
    bias: Tensor,
    recurrent_weights: Tensor,
    state: SLSTMState,
    *,
    forget_gate: str,
    backend: str,
) -> tuple[Tensor, SLSTMState]:
    """Run an sLSTM whose gates are head-wise maps of its inputs.

    Where no gradient is wanted and the native kernel runs, it makes the gates itself, a few steps at a time.

    Parameters
    ----------
    x, gate_input : Tensor of shape (B, T, H * I)
        What z and o, and what i and f read.
    weight_if, weight_zo : Tensor of shape (H, I, 2 * K)
        Of each head, two gates side by side.
    bias : Tensor of shape (4, H, K)
        In the order i, f, z, o.
    recurrent_weights, state, forget_gate, backend
        As in `xlstm_ts.kernels.slstm`.

    Returns
    -------
    h : Tensor of shape (B, T, H, K)
        Hidden sequence.
    state : SLSTMState
        State after the last step.
    """
    tensors = (x, gate_input, weight_if, weight_zo, bias, recurrent_weights, *state[:3])
    graph = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if not graph and backend in ("auto", "native") and x.numel() >= FEW_ROWS * x.shape[-1]:
        names = resolve("parts", tensors)[0], resolve("slstm", (x, recurrent_weights), backend)[0]
        if names == ("native", "native"):
            return load("slstm", "native").run_projected(*tensors[:6], state, forget_gate)
    bias_if, bias_zo = (pair.transpose(0, 1).flatten(1) for pair in bias.chunk(2))
    (gates,) = project((gate_input, weight_if, bias_if), (x, weight_zo, bias_zo), joined=True)
    gates = gates.unflatten(-1, (4, -1)).transpose(2, 3)  # [B, T, 4, H, K]
    return slstm(gates, recurrent_weights, state, forget_gate=forget_gate, backend=backend)


def read_last(q: Tensor, keys: Tensor, values: Tensor, gates: Tensor, forget_gate: str) -> Tensor:
    """Return what an mLSTM reads at the last of several steps after the empty history.

    That one read is a weighted sum over the steps, as in attention with a single query; no memory has to be built
    (docs/kernels.md, "The last step alone").

    Parameters
    ----------
    q : Tensor of shape (B, H, K)
        Query of the last step, already divided by the root of the width of the memory.
    keys, values : Tensor of shape (B, T, H, K) and (B, T, H, V)
        Of every step.
    gates : Tensor of shape (B, T, 2 * H)
        Pre-activations of the input gates, then those of the forget gates.
    forget_gate : {"sigmoid", "exp"}
        Activation of the forget gate.

    Returns
    -------
    Tensor of shape (B, H, V)
        What `mlstm` returns at the last step.
    """
    return _pick(q, keys, values, gates).read_last(q, keys, values, gates, forget_gate)


def _pick(*tensors: Tensor) -> ModuleType:
    name, _ = resolve("parts", tensors)
    return load("parts", name)
