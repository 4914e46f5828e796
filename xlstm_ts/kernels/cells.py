"""The two public cells: they check what they are given, pick a backend, and run it.

Dimensions: B batch, T steps, H heads, K key (head) width, V value width.
"""

from types import ModuleType

import torch
from torch import Tensor

from xlstm_ts.errors import ParameterError, ShapeError
from xlstm_ts.kernels.dispatch import load, resolve
from xlstm_ts.kernels.states import MLSTMState, SLSTMState, compute_dtype, stabiliser_dtype

FORGET_GATES = ("sigmoid", "exp")


def slstm(
    gates: Tensor,
    recurrent_weights: Tensor,
    state: SLSTMState | None = None,
    *,
    forget_gate: str = "sigmoid",
    backend: str = "auto",
) -> tuple[Tensor, SLSTMState]:
    """Run an sLSTM over a sequence.

    Exponential gating with a normaliser state and a running log-scale stabiliser, and heads with
    block-diagonal recurrence; section 2.2 of Beck et al. 2024 (arXiv 2405.04517), with m_0 = -inf so that
    the first step needs no special case (docs/kernels.md, "Start").

    Parameters
    ----------
    gates : Tensor of shape (B, T, 4, H, K)
        Gate pre-activations in the order i, f, z, o, biases included, without the recurrent part.
    recurrent_weights : Tensor of shape (4, H, K, K)
        One matrix per gate and head; the recurrent part of gate g in head j is ``h[:, j] @ R[g, j]``.
    state : SLSTMState, optional
        State after the previous piece. Default: the empty history.
    forget_gate : {"sigmoid", "exp"}
        Activation of the forget gate.
    backend : {"auto", "native", "triton", "eager", "reference"}
        Implementation. "auto" picks the fastest that supports these tensors; `resolve` says which and why.

    Returns
    -------
    h : Tensor of shape (B, T, H, K)
        Hidden sequence, in the dtype of `gates`; computed in at least float32.
    state : SLSTMState
        State after the last step, so that a sequence may be processed in pieces. Gradients of c and n are
        taken at fixed m; m itself carries none.

    Raises
    ------
    ShapeError
        A tensor has a wrong shape, dtype or device.
    ParameterError
        `forget_gate` is unknown.
    BackendError
        The requested backend cannot run here; the message names the reason.
    """
    check_forget_gate("slstm", forget_gate)
    _check_rank("slstm", "gates", gates, "(B, T, 4, H, K)", 5)
    batch, steps, four, heads, width = gates.shape
    if four != 4 or steps == 0 or batch == 0:
        raise ShapeError(
            f"kernels.slstm: gates has shape {tuple(gates.shape)}; expected (B, T, 4, H, K) with B, T >= 1 "
            "and the four gates i, f, z, o on the third axis."
        )
    _check_like("slstm", "recurrent_weights", recurrent_weights, gates, (4, heads, width, width))
    state = slstm_state(state, gates, heads, width)
    name, _ = resolve("slstm", (gates, recurrent_weights), backend)
    cell = load("slstm", name)
    dtype = _input_dtype(cell, gates.dtype)
    h, state = cell.run(gates.to(dtype), recurrent_weights.to(dtype), state, forget_gate)
    return h.to(gates.dtype), state


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    *,
    forget_gate: str = "sigmoid",
    backend: str = "auto",
    chunk: int | None = None,
) -> tuple[Tensor, MLSTMState]:
    """Run an mLSTM over a sequence, without its output gate.

    A matrix memory written by outer products of value and key and read by the query; section 2.3 of Beck
    et al. 2024 (arXiv 2405.04517). The denominator is max(abs(n.q), exp(-m)) in stabilised units, which is
    the paper's max(abs(n.q), 1) (docs/kernels.md, "The denominator").

    Parameters
    ----------
    q, k : Tensor of shape (B, T, H, K)
        Queries and keys. Keys come unscaled: the factor 1/sqrt(K) is applied here, once.
    v : Tensor of shape (B, T, H, V)
        Values.
    i, f : Tensor of shape (B, T, H)
        Pre-activations of the input gate (exponential) and of the forget gate.
    state : MLSTMState, optional
        State after the previous piece. Default: the empty history.
    forget_gate : {"sigmoid", "exp"}
        Activation of the forget gate.
    backend : {"auto", "native", "triton", "eager", "reference"}
        Implementation. "auto" picks the fastest that supports these tensors.
    chunk : int, optional
        Steps that the chunkwise form treats at once; "native" takes 128 at most, "triton" a power of two from 16 to
        64. It changes speed and memory, not the result.

    Returns
    -------
    h : Tensor of shape (B, T, H, V)
        What the queries read, in the dtype of `q`; computed in at least float32.
    state : MLSTMState
        State after the last step. Gradients of c and n are taken at fixed m; m itself carries none.

    Raises
    ------
    ShapeError
        A tensor has a wrong shape, dtype or device.
    ParameterError
        `forget_gate` is unknown, or `chunk` is not positive.
    BackendError
        The requested backend cannot run here; the message names the reason.
    """
    check_forget_gate("mlstm", forget_gate)
    if chunk is not None and chunk < 1:
        raise ParameterError(f"kernels.mlstm: chunk={chunk}; expected a positive number of steps, or None.")
    _check_rank("mlstm", "q", q, "(B, T, H, K)", 4)
    _check_rank("mlstm", "v", v, "(B, T, H, V)", 4)
    batch, steps, heads, width = q.shape
    if steps == 0 or batch == 0:
        raise ShapeError(f"kernels.mlstm: q has shape {tuple(q.shape)}; expected (B, T, H, K) with B, T >= 1.")
    value_width = v.shape[-1]
    _check_like("mlstm", "k", k, q, (batch, steps, heads, width))
    _check_like("mlstm", "v", v, q, (batch, steps, heads, value_width))
    _check_like("mlstm", "i", i, q, (batch, steps, heads))
    _check_like("mlstm", "f", f, q, (batch, steps, heads))
    dtype = compute_dtype(q.dtype)
    if state is None:
        state = MLSTMState.empty(batch, heads, width, value_width, dtype=dtype, device=q.device)
    else:
        shapes = ((batch, heads, width, value_width), (batch, heads, width), (batch, heads))
        for name, part, shape in zip(state._fields, state, shapes, strict=True):
            _check_state("mlstm", name, part, q, shape)
        m = state.m.detach().to(stabiliser_dtype(q.device))
        state = MLSTMState(state.c.to(dtype), state.n.to(dtype), m)
    name, _ = resolve("mlstm", (q, k, v, i, f), backend)
    cell = load("mlstm", name)
    dtype = _input_dtype(cell, q.dtype)
    inputs = (tensor.to(dtype) for tensor in (q, k, v, i, f))
    h, state = cell.run(*inputs, state, forget_gate, chunk)
    return h.to(q.dtype), state


def slstm_state(state: SLSTMState | None, like: Tensor, heads: int, width: int) -> SLSTMState:
    """Return the state to start from, checked and in the dtypes of the computation; `like` is an input (B, ...)."""
    batch, dtype = like.shape[0], compute_dtype(like.dtype)
    if state is None:
        return SLSTMState.empty(batch, heads, width, dtype=dtype, device=like.device)
    for name, part in zip(state._fields, state, strict=True):
        _check_state("slstm", name, part, like, (batch, heads, width))
    h, c, n = (part.to(dtype) for part in state[:3])
    return SLSTMState(h, c, n, state.m.detach().to(stabiliser_dtype(like.device)))


def _input_dtype(cell: ModuleType, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a backend takes inputs of `dtype`: it may read bfloat16 as it is."""
    reads_it = dtype == torch.bfloat16 and getattr(cell, "READS_BFLOAT16", False)
    return dtype if reads_it else compute_dtype(dtype)


def check_forget_gate(cell: str, forget_gate: str) -> None:
    """Raise unless the forget gate is known."""
    if forget_gate not in FORGET_GATES:
        raise ParameterError(f'kernels.{cell}: forget_gate={forget_gate!r} is unknown; expected "sigmoid" or "exp".')


def _check_rank(cell: str, name: str, tensor: Tensor, expected: str, rank: int) -> None:
    if tensor.dim() != rank:
        raise ShapeError(f"kernels.{cell}: {name} has shape {tuple(tensor.shape)}; expected {expected}.")
    if not tensor.is_floating_point():
        raise ShapeError(f"kernels.{cell}: {name} is {tensor.dtype}; expected a floating-point tensor.")


def _check_like(cell: str, name: str, tensor: Tensor, like: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ShapeError(f"kernels.{cell}: {name} has shape {tuple(tensor.shape)}; expected {shape}.")
    if tensor.device != like.device or tensor.dtype != like.dtype:
        raise ShapeError(
            f"kernels.{cell}: {name} is {tensor.dtype} on {tensor.device}, the first input {like.dtype} on "
            f"{like.device}. Bring them together with .to()."
        )


def _check_state(cell: str, name: str, part: Tensor, like: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(part.shape) != shape or part.device != like.device or not part.is_floating_point():
        raise ShapeError(
            f"kernels.{cell}: state.{name} is {part.dtype} of shape {tuple(part.shape)} on {part.device}; "
            f"expected floating point, {shape}, on {like.device}."
        )
