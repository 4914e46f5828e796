"""What surrounds the cells in a block: linear maps, the causal convolution, gates and norms.

Each picks the fastest backend that can run its tensors, as the cells do; there is nothing to choose by name. They
exist because around a fast cell these parts are most of a block's time, and on a CPU torch passes over memory many
times for each. Dimensions: B batch, T steps, D width, H heads, K head width.
"""

from types import ModuleType

from torch import Tensor

from xlstm_ts.errors import ShapeError
from xlstm_ts.kernels._parts.eager import Product, Weights
from xlstm_ts.kernels.dispatch import load, resolve

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

    Raises
    ------
    ShapeError
        An input is wider or narrower than its weight reads.
    """
    for x, weight, _ in products:
        _check_width(x, weight.shape[1] if weight.dim() == 2 else weight.shape[0] * weight.shape[1])
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


def feed_forward(x: Tensor, norm: Weights, up: Weights, down: Weights) -> Tensor:
    """Return down(gelu_gate(up(norm(x)))), the norm over the last axis; each pair a weight and a bias.

    Raises
    ------
    ShapeError
        The input is wider or narrower than the norm.
    """
    _check_width(x, len(norm[0]))
    few = x.numel() < FEW_ROWS * x.shape[-1]
    module = load("parts", "eager") if few else _pick(x, *norm, *up, *down)
    return module.feed_forward(x, norm, up, down)


def head_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Normalise (..., H, K) over K, join the heads, and multiply by the weight (H * K,)."""
    return _pick(x, weight).head_norm(x, weight)


def norm_gate(x: Tensor, weight: Tensor, skip: Tensor, residual: Tensor, gate: Tensor) -> Tensor:
    """Return (head_norm(x, weight) + residual * skip) * silu(gate); skip and gate are (..., H * K)."""
    return _pick(x, weight, skip, residual, gate).norm_gate(x, weight, skip, residual, gate)


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


def _check_width(x: Tensor, width: int) -> None:
    if x.shape[-1] != width:
        raise ShapeError(f"kernels.parts: an input has shape {tuple(x.shape)}; expected {width} on the last axis.")


def _pick(*tensors: Tensor) -> ModuleType:
    name, _ = resolve("parts", tensors)
    return load("parts", name)
