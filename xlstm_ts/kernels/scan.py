"""A memory that is updated element by element, for all steps at once by a parallel prefix.

M_t = C_t * M_{t-1} + U_t has the form of many memories: a leaky integrator, a state-space model with diagonal
dynamics, the matrix memory of the mLSTM. A step is the affine map M -> C * M + U, and two steps in a row are such a
map again, so all running compositions follow in a number of rounds that grows with log T. Every M_t is kept, which
the chunkwise form of the mLSTM avoids: this form is for memories that are small, or that someone wants to look at
(docs/kernels.md, "Scan").

Dimensions: B batch, T steps, H heads, K key width, V value width.
"""

from typing import Any

import torch
from torch import Tensor

from xlstm_ts.errors import ShapeError
from xlstm_ts.kernels.arguments import check_forget_gate, check_mlstm, check_mlstm_state
from xlstm_ts.kernels.states import MLSTMState, log_forget


def linear_scan(decay: Tensor, update: Tensor, initial: Tensor | None = None) -> Tensor:
    """Return the memory after every step of M_t = C_t * M_{t-1} + U_t.

    Work is linear in T, in about 2 log2(T) rounds of element-wise operations. Derivatives of any order.

    Parameters
    ----------
    decay : Tensor of shape (B, T, ...)
        C, what is kept of the memory. Axes after T may have length 1 where `update` is longer. Products over
        several steps are formed, which must not overflow; with abs(C) <= 1 they cannot.
    update : Tensor of shape (B, T, ...)
        U, what is added.
    initial : Tensor of shape (B, ...), optional
        The memory before the first step, of the shape of one step of `update`. Default: zero.

    Returns
    -------
    Tensor of the shape of `update`
        M_1 to M_T; the last one is the state to carry on.

    Raises
    ------
    ShapeError
        Shapes, dtypes or devices do not fit together, or there is no step.

    Examples
    --------
    >>> import torch
    >>> from xlstm_ts.kernels import linear_scan
    >>> linear_scan(torch.full((1, 3), 0.5), torch.tensor([[8.0, 0.0, 1.0]]))
    tensor([[8., 4., 3.]])
    """
    _check(decay, update, initial)
    if initial is None:
        initial = torch.zeros_like(update[:, 0])
    return _Scan.apply(decay, update, initial)


def mlstm_states(
    k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState, *, forget_gate: str = "sigmoid"
) -> MLSTMState:
    """Return the state of an mLSTM after every step: c (B, T, H, K, V), n (B, T, H, K) and m (B, T, H).

    The special case of `linear_scan` in which all elements of a head decay alike and updates are outer products:
    C_t = f'_t and U_t = i'_t k_t v_t' for c, U_t = i'_t k_t for n, in the stabilised units of docs/kernels.md. It
    takes K times V numbers per step and head, and shows what a cell remembers; `mlstm` reads it without storing it.

    Parameters
    ----------
    k, v, i, f
        Keys, values and gates as in `xlstm_ts.kernels.mlstm`; keys unscaled.
    state : MLSTMState
        State before the first step.
    forget_gate : {"sigmoid", "exp"}
        Activation of the forget gate.

    Returns
    -------
    MLSTMState
        All states. As everywhere, m carries no gradient, and those of c and n are at fixed m.

    Raises
    ------
    ShapeError
        A tensor has a wrong shape, dtype or device.
    ParameterError
        `forget_gate` is unknown, or `state` is not an MLSTMState.
    """
    check_forget_gate("mlstm_states", forget_gate)
    check_mlstm("mlstm_states", {"k": k}, v, i, f)
    check_mlstm_state("mlstm_states", state, k, v.shape[-1])
    log_i = i.to(state.m.dtype)
    log_f = log_forget(f, forget_gate, state.m.dtype)
    forgotten = log_f.detach().cumsum(1)
    highest = torch.maximum((log_i.detach() - forgotten).cummax(1).values, state.m[:, None])
    m = forgotten + highest
    before = torch.cat([state.m[:, None], m[:, :-1]], dim=1)
    write = torch.exp(log_i - m).to(k.dtype)[..., None]
    keep = torch.exp(log_f + before - m).to(k.dtype)[..., None]
    key = write * k * k.shape[-1] ** -0.5
    c = linear_scan(keep[..., None], key[..., None] * v[..., None, :], state.c)
    return MLSTMState(c, linear_scan(keep, key, state.n), m)


class _Scan(torch.autograd.Function):
    """The gradient D_t = C_{t+1} * D_{t+1} + dM_t of the updates is a scan too, from the end."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, update: Tensor, initial: Tensor) -> Tensor:
        first = torch.addcmul(update[:, :1], decay[:, :1], initial[:, None])
        memory = _prefix(decay, torch.cat([first, update[:, 1:]], dim=1))
        ctx.save_for_backward(decay, initial, memory)
        return memory

    @staticmethod
    def backward(ctx: Any, d_memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, initial, memory = ctx.saved_tensors
        ahead = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], dim=1)
        d_update = linear_scan(ahead.flip(1), d_memory.flip(1)).flip(1)
        before = torch.cat([initial[:, None], memory[:, :-1]], dim=1)
        return (d_update * before).sum_to_size(decay.shape), d_update, decay[:, 0] * d_update[:, 0]


def _prefix(decay: Tensor, update: Tensor) -> Tensor:
    """Return all M_t from an empty memory: steps are joined in pairs, and the odd ones filled in between."""
    if update.shape[1] == 1:
        return update
    first, second = decay[:, :-1:2], decay[:, 1::2]
    pairs = torch.addcmul(update[:, 1::2], second, update[:, :-1:2])
    after_pairs = _prefix(first * second, pairs)
    memory = torch.empty_like(update)
    memory[:, 0] = update[:, 0]
    memory[:, 1::2] = after_pairs
    between = decay[:, 2::2]
    torch.addcmul(update[:, 2::2], between, after_pairs[:, : between.shape[1]], out=memory[:, 2::2])
    return memory


def _check(decay: Tensor, update: Tensor, initial: Tensor | None) -> None:
    shape = tuple(update.shape)
    if len(shape) < 2 or shape[1] == 0:
        raise ShapeError(f"kernels.linear_scan: update has shape {shape}; expected (B, T, ...) with T >= 1.")
    fits = decay.dim() == len(shape) and decay.shape[:2] == update.shape[:2]
    if not fits or any(a not in (1, b) for a, b in zip(decay.shape, shape, strict=True)):
        raise ShapeError(
            f"kernels.linear_scan: decay has shape {tuple(decay.shape)}; expected {shape}, in which axes after the "
            "second may have length 1."
        )
    if initial is not None and tuple(initial.shape) != shape[:1] + shape[2:]:
        raise ShapeError(
            f"kernels.linear_scan: initial has shape {tuple(initial.shape)}; expected {shape[:1] + shape[2:]}, "
            "one step of update."
        )
    for name, tensor in (("decay", decay), ("initial", initial)):
        if tensor is not None and (tensor.dtype, tensor.device) != (update.dtype, update.device):
            raise ShapeError(
                f"kernels.linear_scan: {name} is {tensor.dtype} on {tensor.device}, update {update.dtype} on "
                f"{update.device}. Bring them together with .to()."
            )
    if not update.is_floating_point():
        raise ShapeError(f"kernels.linear_scan: update is {update.dtype}; expected a floating-point tensor.")
