"""sLSTM in plain torch with a hand-written backward: runs on every device, needs no compiler.

The loop over time holds only what depends on the previous step. Time comes first and the four gates of a head
lie side by side, so that the recurrence is one batched product per step; the gradient of the recurrent weights
is one product after the loop. Every operation writes where its result will stay. Nothing is kept for the backward
when no gradient is wanted. What goes into an exponent is added up in the dtype of m: in float32 a gate of 60 would
lose the last digits of its recurrent part.

Dimensions: T steps, H heads, B batch, K head width. Equations of section 2.2 of Beck et al. 2024; the backward
is derived in docs/kernels.md, "The backward of sLSTM".
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels.states import SLSTMState, log_forget

CHUNK = 16  # steps of the backward whose slopes are found together, and then still lie in the cache


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
        steps, width = x.shape[0], h.shape[-1]
        h0, c0, n0 = h, c, n
        hidden = x.new_empty(steps, *h.shape)
        kept = x.new_empty(steps if keep else 1, 7, *h.shape)  # i, f, z, o, c, n and the pre-activation of f
        recurrent = torch.empty_like(x[0])
        raw_zo = x.new_empty(*x.shape[1:-1], 2 * width)
        exponents = torch.empty_like(raw_zo, dtype=m.dtype)
        gaps = x.new_empty(2, *h.shape)
        for t, (x_t, h_t) in enumerate(zip(x.unbind(), hidden.unbind(), strict=True)):
            i, f, z, o, c_t, n_t, f_raw = kept[t if keep else 0].unbind()
            torch.bmm(h, weights, out=recurrent)
            exponents.copy_(recurrent[..., : 2 * width]).add_(x_t[..., : 2 * width])
            log_i, exact = exponents.split(width, dim=-1)
            log_f = log_forget(exact, forget_gate, m.dtype) + m
            # The larger of the two exponents is m, so that one of i and f is exp(0).
            torch.sub(log_i, log_f, out=gaps[0])
            torch.neg(gaps[0], out=gaps[1])
            torch.exp(gaps.clamp_max_(0), out=kept[t if keep else 0, :2])
            m = torch.maximum(log_f, log_i)
            torch.add(x_t[..., 2 * width :], recurrent[..., 2 * width :], out=raw_zo)
            torch.tanh(raw_zo[..., :width], out=z)
            torch.sigmoid(raw_zo[..., width:], out=o)
            c = torch.mul(f, c, out=c_t).addcmul_(i, z)
            n = torch.addcmul(i, f, n, out=n_t)
            h = torch.div(c, n, out=h_t).mul_(o)
            if keep:
                f_raw.copy_(exact)
        if keep:
            ctx.save_for_backward(weights, h0, c0, n0, kept, hidden)
            ctx.forget_gate = forget_gate
        ctx.mark_non_differentiable(m)
        return hidden, c.clone(), n.clone(), m

    @staticmethod
    @once_differentiable
    def backward(ctx, d_hidden, d_c, d_n, _):
        weights, h0, c0, n0, kept, hidden = ctx.saved_tensors
        steps, heads, batch, width = hidden.shape
        d_raw = hidden.new_empty(steps, heads, batch, 4 * width)
        d_cn = torch.stack([d_c, d_n])
        d_c, d_n = d_cn
        d_h, through, sums = hidden.new_empty(3, *h0.shape)
        back = weights.transpose(1, 2).contiguous()
        after = None
        for last in range(steps, 0, -CHUNK):
            first = max(0, last - CHUNK)
            i, f, z, o, c, n, f_raw = kept[first:last].unbind(1)
            # All that does not wait for the step after is done at once for every step of a chunk.
            ratio, d_ratio = c / n, o / n
            o_slope = ratio * o * (1 - o)
            z_slope = torch.addcmul(i, i * z, z, value=-1)
            f_slope = f * torch.sigmoid(-f_raw) if ctx.forget_gate == "sigmoid" else f
            for t in reversed(range(last - first)):
                before_c, before_n = kept[first + t - 1, 4:6] if first + t else (c0, n0)
                now = d_raw[first + t]
                d_i, d_f, d_z, d_o = now.split(width, dim=-1)
                if after is None:
                    d_h.copy_(d_hidden[first + t])
                else:
                    torch.baddbmm(d_hidden[first + t], after, back, out=d_h)
                d_c.add_(torch.mul(d_h, d_ratio[t], out=through))
                d_n.addcmul_(through, ratio[t], value=-1)
                torch.mul(torch.addcmul(d_n, d_c, z[t], out=sums), i[t], out=d_i)
                torch.mul(torch.mul(d_n, before_n, out=sums).addcmul_(d_c, before_c), f_slope[t], out=d_f)
                torch.mul(d_c, z_slope[t], out=d_z)
                torch.mul(d_h, o_slope[t], out=d_o)
                d_cn.mul_(f[t])
                after = now
        before_h = torch.cat([h0[None], hidden[:-1]])
        d_weights = torch.einsum("thbj,thbk->hjk", before_h, d_raw)
        return d_raw, d_weights, torch.bmm(d_raw[0], back), d_c, d_n, None, None, None
