"""sLSTM in plain torch with a hand-written backward: runs on every device, needs no compiler.

The loop over time holds only what depends on the previous step. Time comes first and the four gates of a head
lie side by side, so that the recurrence is one batched product per step; the gradient of the recurrent weights
is one product after the loop. Nothing is kept for the backward when no gradient is wanted. What goes into an
exponent is added up in the dtype of m: in float32 a gate of 60 would lose the last digits of its recurrent part.

Dimensions: T steps, H heads, B batch, K head width. Equations of section 2.2 of Beck et al. 2024; the backward
is derived in docs/kernels.md, "The backward of sLSTM".
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels.states import SLSTMState, log_forget


def unsupported(*tensors: Tensor) -> None:
    """Return None: plain torch runs on every device."""
    return None


def run(gates: Tensor, recurrent_weights: Tensor, state: SLSTMState, forget_gate: str) -> tuple[Tensor, SLSTMState]:
    """Run the recurrence; arguments and results as in `xlstm_ts.kernels.slstm`."""
    heads, width = gates.shape[-2:]
    x = gates.permute(1, 3, 0, 2, 4).flatten(3)  # [T, H, B, 4K]
    weights = recurrent_weights.permute(1, 2, 0, 3).reshape(heads, width, 4 * width)  # [H, K, 4K]
    h0, c0, n0, m0 = (part.transpose(0, 1) for part in state)  # each [H, B, K]
    inputs = (x, weights, h0, c0, n0)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    hidden, c, n, m = _Recurrence.apply(*inputs, m0, forget_gate, keep)
    last = SLSTMState(*(part.transpose(0, 1) for part in (hidden[-1], c, n, m)))
    return hidden.permute(2, 0, 1, 3), last


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weights, h, c, n, m, forget_gate, keep):
        h0, c0, n0 = h, c, n
        half = 2 * h.shape[-1]
        x_exponents, x = x[..., :half].to(m.dtype), x[..., half:]
        outputs, kept = [], []
        for t in range(x.shape[0]):
            recurrent = torch.bmm(h, weights)  # [H, B, 4K]
            log_i, f_raw = (x_exponents[t] + recurrent[..., :half]).chunk(2, dim=-1)
            z, o_raw = (x[t] + recurrent[..., half:]).chunk(2, dim=-1)
            log_f = log_forget(f_raw, forget_gate, m.dtype) + m
            m = torch.maximum(log_f, log_i)
            i = torch.exp(log_i - m).to(x.dtype)
            f = torch.exp(log_f - m).to(x.dtype)
            z = torch.tanh(z)
            o = torch.sigmoid(o_raw)
            c = torch.addcmul(f * c, i, z)
            n = torch.addcmul(i, f, n)
            h = c / n * o
            outputs.append(h)
            if keep:
                kept.append((i, f, z, o, c, n, f_raw))
        hidden = torch.stack(outputs)
        if keep:
            i, f, z, o, c_all, n_all, f_raw = (torch.stack(tensors) for tensors in zip(*kept, strict=True))
            slope = torch.sigmoid(-f_raw) if forget_gate == "sigmoid" else torch.ones_like(f_raw)
            ctx.save_for_backward(weights, h0, c0, n0, i, f, z, o, c_all, n_all, slope.to(x.dtype), hidden)
        ctx.mark_non_differentiable(m)
        return hidden, c, n, m

    @staticmethod
    @once_differentiable
    def backward(ctx, d_hidden, d_c, d_n, _):
        weights, h0, c0, n0, i, f, z, o, c, n, slope, hidden = ctx.saved_tensors
        before_c = torch.cat([c0[None], c[:-1]])
        before_n = torch.cat([n0[None], n[:-1]])
        before_h = torch.cat([h0[None], hidden[:-1]])
        # All that does not wait for the step after is done at once for every step.
        ratio = c / n
        d_ratio = o / n
        o_slope = ratio * o * (1 - o)
        z_slope = i * (1 - z * z)
        f_slope = f * slope
        d_raw = torch.empty(*i.shape[:-1], 4 * i.shape[-1], dtype=i.dtype, device=i.device)  # [T, H, B, 4K]
        d_h = torch.zeros_like(h0)
        back = weights.transpose(1, 2)
        for t in reversed(range(i.shape[0])):
            d_i, d_f, d_z, d_o = d_raw[t].chunk(4, dim=-1)
            d_h = d_h + d_hidden[t]
            through = d_h * d_ratio[t]
            d_c = d_c + through
            d_n = torch.addcmul(d_n, through, ratio[t], value=-1)
            torch.mul(torch.addcmul(d_n, d_c, z[t]), i[t], out=d_i)
            torch.mul(torch.addcmul(d_n * before_n[t], d_c, before_c[t]), f_slope[t], out=d_f)
            torch.mul(d_c, z_slope[t], out=d_z)
            torch.mul(d_h, o_slope[t], out=d_o)
            d_c = d_c * f[t]
            d_n = d_n * f[t]
            d_h = torch.bmm(d_raw[t], back)
        d_weights = torch.einsum("thbj,thbk->hjk", before_h, d_raw)
        return d_raw, d_weights, d_h, d_c, d_n, None, None, None
