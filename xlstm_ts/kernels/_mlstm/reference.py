"""mLSTM as its equations stand, in two forms: step by step, and all pairs of steps at once.

Both are short and slow, and agree with each other and with every backend. Dimensions: B batch, T steps, H heads,
K key width, V value width. Equations of section 2.3 of Beck et al. 2024, stabilised form; the stabiliser is
detached, as in every form.
"""

import torch
from torch import Tensor

from xlstm_ts.kernels.states import MLSTMState, log_forget


def unsupported(*tensors: Tensor) -> None:
    """Return None: the reference runs wherever torch does."""
    return None


def run(q, k, v, i_raw, f_raw, state: MLSTMState, forget_gate: str, chunk: int | None) -> tuple[Tensor, MLSTMState]:
    """Run the recurrent form; arguments and results as in `xlstm_ts.kernels.mlstm`."""
    return recurrent(q, k, v, i_raw, f_raw, state, forget_gate)


def recurrent(q, k, v, i_raw, f_raw, state: MLSTMState, forget_gate: str) -> tuple[Tensor, MLSTMState]:
    """Run the cell one step after the other: constant memory in T, one outer product per step."""
    c, n, m = state
    log_i = i_raw.to(m.dtype)
    log_f = log_forget(f_raw, forget_gate, m.dtype)
    k = k * k.shape[-1] ** -0.5
    outputs = []
    for t in range(q.shape[1]):
        m_new = torch.maximum(log_f[:, t] + m, log_i[:, t]).detach()
        i = torch.exp(log_i[:, t] - m_new).to(q.dtype)[..., None]  # [B, H, 1]
        f = torch.exp(log_f[:, t] + m - m_new).to(q.dtype)[..., None]
        c = f[..., None] * c + (i * k[:, t])[..., None] * v[:, t, :, None, :]  # [B, H, K, V]
        n = f * n + i * k[:, t]
        m = m_new
        numerator = torch.einsum("bhk,bhkv->bhv", q[:, t], c)
        outputs.append(numerator / denominator((q[:, t] * n).sum(-1), m)[..., None])
    return torch.stack(outputs, dim=1), MLSTMState(c, n, m)


def parallel(q, k, v, i_raw, f_raw, state: MLSTMState, forget_gate: str) -> tuple[Tensor, MLSTMState]:
    """Run the cell as a sum over all pairs of steps: quadratic in T."""
    c0, n0, m0 = state
    log_i = i_raw.to(m0.dtype).transpose(1, 2)  # [B, H, T]
    decay = log_forget(f_raw, forget_gate, m0.dtype).transpose(1, 2).cumsum(-1)
    steps = decay.shape[-1]
    future = torch.ones(steps, steps, dtype=torch.bool, device=q.device).triu(1)
    log_weights = (decay[..., :, None] - decay[..., None, :] + log_i[..., None, :]).masked_fill(future, -torch.inf)
    log_past = decay + m0[..., None]
    m = torch.maximum(log_weights.amax(-1), log_past).detach()
    weights = torch.exp(log_weights - m[..., None]).to(q.dtype)  # [B, H, T, T]
    past = torch.exp(log_past - m).to(q.dtype)  # [B, H, T]
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k * k.shape[-1] ** -0.5, v))  # [B, H, T, .]
    scores = q @ k.transpose(-1, -2) * weights
    numerator = scores @ v + past[..., None] * (q @ c0)
    dot = scores.sum(-1) + past * (q @ n0[..., None])[..., 0]
    h = numerator / denominator(dot, m)[..., None]
    written = weights[..., -1, :, None] * k  # [B, H, T, K]
    c = past[..., -1, None, None] * c0 + written.transpose(-1, -2) @ v
    n = past[..., -1, None] * n0 + written.sum(-2)
    return h.transpose(1, 2), MLSTMState(c, n, m[..., -1])


def denominator(dot: Tensor, m: Tensor) -> Tensor:
    """Return max(abs(n.q), exp(-m)), kept above 0 where exp(-m) underflows and the query reads nothing."""
    floor = torch.exp(-m).to(dot.dtype).clamp_min(torch.finfo(dot.dtype).tiny)
    return torch.maximum(dot.abs(), floor)
