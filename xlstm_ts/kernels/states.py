"""What a cell remembers: the states of sLSTM and mLSTM, and the empty history.

The stabiliser m is the running logarithm by which c and n are scaled down: the true memory is exp(m) * c.
It is -inf before the first step, so that the first step needs no special case (docs/kernels.md, "Start"),
and float64 wherever the device has it: gates of +-60 over 200 steps move m by 12,000, where a float32 can
no longer tell two neighbouring exponents apart.

Dimensions: B batch, H heads, K key (head) width, V value width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NO_HISTORY = float("-inf")


class SLSTMState(NamedTuple):
    """State of an sLSTM after some step; all of shape (B, H, K)."""

    h: Tensor
    c: Tensor
    n: Tensor
    m: Tensor

    @classmethod
    def empty(cls, batch: int, heads: int, width: int, *, dtype=None, device=None) -> "SLSTMState":
        """Return the state before the first step."""
        zero = torch.zeros(batch, heads, width, dtype=dtype, device=device)
        m = torch.full_like(zero, NO_HISTORY, dtype=stabiliser_dtype(zero.device))
        return cls(zero, zero.clone(), zero.clone(), m)


class MLSTMState(NamedTuple):
    """State of an mLSTM after some step: c (B, H, K, V), n (B, H, K) and m (B, H)."""

    c: Tensor
    n: Tensor
    m: Tensor

    @classmethod
    def empty(cls, batch: int, heads: int, width: int, value_width: int, *, dtype=None, device=None) -> "MLSTMState":
        """Return the state before the first step."""
        n = torch.zeros(batch, heads, width, dtype=dtype, device=device)
        c = torch.zeros(batch, heads, width, value_width, dtype=dtype, device=device)
        m = torch.full((batch, heads), NO_HISTORY, dtype=stabiliser_dtype(n.device), device=device)
        return cls(c, n, m)


def stabiliser_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of m: float64, except on devices that have none (Apple's mps)."""
    return torch.float32 if device.type == "mps" else torch.float64


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a cell computes for inputs of `dtype`: at least float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def log_forget(f_raw: Tensor, forget_gate: str, dtype: torch.dtype) -> Tensor:
    """Return log f in `dtype` for the pre-activation of a sigmoid or an exponential forget gate."""
    f_raw = f_raw.to(dtype)
    return torch.nn.functional.logsigmoid(f_raw) if forget_gate == "sigmoid" else f_raw
