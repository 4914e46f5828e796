"""sLSTM as its equations stand: one step after the other, gradients by autograd. The oracle of the tests.

Dimensions: B batch, T steps, H heads, K head width. Equations of section 2.2 of Beck et al. 2024, stabilised
form. The stabiliser is detached: h does not depend on it, and attached, exp(-m) can overflow in the backward.
"""

import torch
from torch import Tensor

from xlstm_ts.kernels.states import SLSTMState, log_forget


def unsupported(*tensors: Tensor) -> None:
    """Return None: the reference runs wherever torch does."""
    return None


def run(gates: Tensor, recurrent_weights: Tensor, state: SLSTMState, forget_gate: str) -> tuple[Tensor, SLSTMState]:
    """Run the recurrence; arguments and results as in `xlstm_ts.kernels.slstm`."""
    h, c, n, m = state
    outputs = []
    for t in range(gates.shape[1]):
        recurrent = torch.einsum("bhj,ghjk->bghk", h, recurrent_weights)
        z_raw, o_raw = (gates[:, t, 2:] + recurrent[:, 2:]).unbind(1)  # each [B, H, K]
        log_i, f_raw = (gates[:, t, :2].to(m.dtype) + recurrent[:, :2]).unbind(1)
        log_f = log_forget(f_raw, forget_gate, m.dtype)
        m_new = torch.maximum(log_f + m, log_i).detach()
        i = torch.exp(log_i - m_new).to(h.dtype)
        f = torch.exp(log_f + m - m_new).to(h.dtype)
        c = f * c + i * torch.tanh(z_raw)
        n = f * n + i
        h = torch.sigmoid(o_raw) * c / n
        m = m_new
        outputs.append(h)
    return torch.stack(outputs, dim=1), SLSTMState(h, c, n, m)
