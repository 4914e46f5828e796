"""The two public cells: they check what they are given, pick a backend, and run it.

Dimensions: B batch, T steps, H heads, K key (head) width, V value width.
"""

from numbers import Integral
from types import ModuleType

import torch
from torch import Tensor

from xlstm_ts.errors import ParameterError
from xlstm_ts.kernels.arguments import (
    check_forget_gate,
    check_like,
    check_mlstm,
    check_mlstm_state,
    check_rank,
    slstm_state,
)
from xlstm_ts.kernels.dispatch import load, resolve
from xlstm_ts.kernels.states import MLSTMState, SLSTMState, compute_dtype, stabiliser_dtype


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
        `forget_gate` is unknown, or `state` is not an SLSTMState.
    BackendError
        The requested backend cannot run here; the message names the reason.
    """
    check_forget_gate("slstm", forget_gate)
    check_rank("slstm", "gates", gates, "(B, T, 4, H, K)", (None, None, 4, None, None))
    heads, width = gates.shape[3:]
    check_like("slstm", "recurrent_weights", recurrent_weights, gates, (4, heads, width, width))
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
        `forget_gate` is unknown, `chunk` is not a positive number of steps, or `state` is not an MLSTMState.
    BackendError
        The requested backend cannot run here; the message names the reason.
    """
    check_forget_gate("mlstm", forget_gate)
    if chunk is not None and (not isinstance(chunk, Integral) or chunk < 1):
        raise ParameterError(f"kernels.mlstm: chunk={chunk!r}; expected a whole number of steps, 1 or above, or None.")
    check_mlstm("mlstm", {"q": q, "k": k}, v, i, f)
    batch, _, heads, width = q.shape
    dtype = compute_dtype(q.dtype)
    if state is None:
        state = MLSTMState.empty(batch, heads, width, v.shape[-1], dtype=dtype, device=q.device)
    else:
        check_mlstm_state("mlstm", state, q, v.shape[-1])
        m = state.m.detach().to(stabiliser_dtype(q.device))
        state = MLSTMState(state.c.to(dtype), state.n.to(dtype), m)
    name, _ = resolve("mlstm", (q, k, v, i, f), backend)
    cell = load("mlstm", name)
    dtype = _input_dtype(cell, q.dtype)
    inputs = (tensor.to(dtype) for tensor in (q, k, v, i, f))
    h, state = cell.run(*inputs, state, forget_gate, chunk)
    return h.to(q.dtype), state


def _input_dtype(cell: ModuleType, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a backend takes inputs of `dtype`: it may read bfloat16 as it is."""
    reads_it = dtype == torch.bfloat16 and getattr(cell, "READS_BFLOAT16", False)
    return dtype if reads_it else compute_dtype(dtype)
