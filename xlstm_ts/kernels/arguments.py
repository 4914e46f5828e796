"""Checks of what cells, layers and scan are given: shapes, dtypes, devices, states and forget gates.

Dimensions: B batch, T steps, H heads, K key (head) width, V value width.
"""

from typing import Any

import torch
from torch import Tensor

from xlstm_ts.errors import ParameterError, ShapeError
from xlstm_ts.kernels.states import MLSTMState, SLSTMState, compute_dtype, stabiliser_dtype

FORGET_GATES = ("sigmoid", "exp")


def check_forget_gate(cell: str, forget_gate: str) -> None:
    """Raise unless the forget gate is known."""
    if forget_gate not in FORGET_GATES:
        raise ParameterError(f'kernels.{cell}: forget_gate={forget_gate!r} is unknown; expected "sigmoid" or "exp".')


def check_rank(cell: str, name: str, tensor: Tensor, expected: str, axes: tuple[int | None, ...]) -> None:
    """Raise unless a tensor is of real numbers and has these axes: of the length given, or any from 1 on."""
    shape = tuple(tensor.shape)
    if len(shape) != len(axes) or any(
        size != axis if axis else size < 1 for size, axis in zip(shape, axes, strict=True)
    ):
        raise ShapeError(f"kernels.{cell}: {name} has shape {shape}; expected {expected}, every letter 1 or above.")
    if not tensor.is_floating_point():
        raise ShapeError(f"kernels.{cell}: {name} is {tensor.dtype}; expected a floating-point tensor.")


def check_like(cell: str, name: str, tensor: Tensor, like: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless a tensor has this shape, and dtype and device of the first input."""
    if tuple(tensor.shape) != shape:
        raise ShapeError(f"kernels.{cell}: {name} has shape {tuple(tensor.shape)}; expected {shape}.")
    check_kind(f"kernels.{cell}: {name}", tensor, "the first input", like)


def check_kind(name: str, tensor: Tensor, other: str, like: Tensor, *, casting: bool = False) -> None:
    """Raise unless a tensor has dtype and device of another; dtypes may differ while torch is `casting` them."""
    if tensor.device != like.device or (tensor.dtype != like.dtype and not casting):
        raise ShapeError(
            f"{name} is {tensor.dtype} on {tensor.device}, {other} {like.dtype} on {like.device}. "
            "Bring them together with .to()."
        )


def check_mlstm(cell: str, keys: dict[str, Tensor], v: Tensor, i: Tensor, f: Tensor) -> None:
    """Raise unless the inputs of an mLSTM fit together; `keys` are those that are as wide as a key, by name."""
    (name, first), *_ = keys.items()
    check_rank(cell, name, first, "(B, T, H, K)", (None,) * 4)
    check_rank(cell, "v", v, "(B, T, H, V)", (None,) * 4)
    shape = tuple(first.shape)
    for name, tensor in keys.items():
        check_like(cell, name, tensor, first, shape)
    check_like(cell, "v", v, first, (*shape[:3], v.shape[-1]))
    check_like(cell, "i", i, first, shape[:3])
    check_like(cell, "f", f, first, shape[:3])


def check_mlstm_state(cell: str, state: MLSTMState, like: Tensor, value_width: int) -> None:
    """Raise unless a state fits keys like `like`, (B, T, H, K)."""
    batch, _, heads, width = like.shape
    shapes = ((batch, heads, width, value_width), (batch, heads, width), (batch, heads))
    _check_state(cell, state, MLSTMState, like, shapes)


def slstm_state(state: SLSTMState | None, like: Tensor, heads: int, width: int) -> SLSTMState:
    """Return the state to start from, checked and in the dtypes of the computation; `like` is an input (B, ...)."""
    batch, dtype = like.shape[0], compute_dtype(like.dtype)
    if state is None:
        return SLSTMState.empty(batch, heads, width, dtype=dtype, device=like.device)
    _check_state("slstm", state, SLSTMState, like, ((batch, heads, width),) * 4)
    h, c, n = (part.to(dtype) for part in state[:3])
    return SLSTMState(h, c, n, state.m.detach().to(stabiliser_dtype(like.device)))


def is_autocasting(like: Tensor) -> bool:
    """Return whether torch chooses the dtypes of operations on the device of a tensor."""
    return not like.is_meta and torch.is_autocast_enabled(like.device.type)


def _check_state(
    cell: str, state: Any, kind: type[SLSTMState | MLSTMState], like: Tensor, shapes: tuple[tuple[int, ...], ...]
) -> None:
    if not isinstance(state, kind):
        raise ParameterError(
            f"kernels.{cell}: state is of type {type(state).__name__}; expected an {kind.__name__}, as a call before "
            "returned, or nothing for the empty history."
        )
    for name, part, shape in zip(state._fields, state, shapes, strict=True):
        if tuple(part.shape) != shape or part.device != like.device or not part.is_floating_point():
            raise ShapeError(
                f"kernels.{cell}: state.{name} is {part.dtype} of shape {tuple(part.shape)} on {part.device}; "
                f"expected floating point, {shape}, on {like.device}."
            )
