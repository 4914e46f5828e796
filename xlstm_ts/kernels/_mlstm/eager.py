"""mLSTM in plain torch, chunkwise, with a hand-written backward: linear in T, runs on every device.

Time is cut into chunks of L steps. Inside a chunk every step attends to the earlier ones (matrix products of
L x L); between chunks the memory is carried. One column of ones is appended to the values, so that the memory C
and the normaliser n are one matrix. With F the running sum of log f and b = i - F, the running stabiliser is
m_t = F_t + M_t, M_t = max(m_0, b_1, ..., b_t), and every weight is exp(b_s - M_t) <= 1: no maximum over a matrix
is ever taken. F, b and M are float64; only their differences, at most 0, go on in the dtype of the inputs.

Dimensions: N = batch x heads, J chunks, L steps of a chunk, K key width, V value width + 1. The form and its
backward are derived in docs/kernels.md, "The chunkwise form of mLSTM".
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_ts.kernels._mlstm.reference import denominator
from xlstm_ts.kernels.states import MLSTMState, log_forget


def unsupported(*tensors: Tensor) -> None:
    """Return None: plain torch runs on every device."""
    return None


def run(q, k, v, i_raw, f_raw, state: MLSTMState, forget_gate: str, chunk: int | None) -> tuple[Tensor, MLSTMState]:
    """Run the chunkwise form; arguments and results as in `xlstm_ts.kernels.mlstm`."""
    batch, steps, heads, width = q.shape
    length = min(chunk or default_chunk(steps, width), steps)
    log_i = i_raw.to(state.m.dtype)
    log_f = log_forget(f_raw, forget_gate, state.m.dtype)
    k = k * width**-0.5
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    q, k, v = (_to_chunks(tensor, length, 0.0) for tensor in (q, k, v))  # [N, J, L, .]
    log_i = _to_chunks(log_i[..., None], length, -torch.inf)[..., 0]  # a padded step writes nothing,
    log_f = _to_chunks(log_f[..., None], length, 0.0)[..., 0]  # and forgets nothing
    memory = torch.cat([state.c, state.n[..., None]], dim=-1).flatten(0, 1)  # [N, K, V]
    read, memory, m = _Chunkwise.apply(q, k, v, log_i, log_f, memory, state.m.flatten())
    read = _from_chunks(read, batch, steps)  # [B, T, H, V]
    m = _from_chunks(m[..., None], batch, steps)[..., 0]
    h = read[..., :-1] / denominator(read[..., -1], m)[..., None]
    memory = memory.unflatten(0, (batch, heads))
    return h, MLSTMState(memory[..., :-1], memory[..., -1], m[:, -1])


def default_chunk(steps: int, width: int) -> int:
    """Return the number of steps per chunk: about the key width, where both kinds of product cost the same."""
    if steps <= 64:
        return steps
    return min(64, max(16, 1 << (width - 1).bit_length()))


class _Chunkwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, log_i, log_f, memory, m0):
        decay = log_f.flatten(1).cumsum(1).view_as(log_f)  # F, [N, J, L]
        b = log_i - decay
        running = torch.maximum(b.flatten(1).cummax(1).values, m0[:, None]).view_as(b)  # M
        end = running[..., -1]  # [N, J]
        start = torch.cat([m0[:, None], end[:, :-1]], dim=1)
        carry = torch.exp(start - end).to(q.dtype)  # how much of the memory survives a chunk
        write = torch.exp(b - end[..., None]).to(q.dtype)[..., None]
        read = torch.exp(start[..., None] - running).to(q.dtype)[..., None]

        written = (k * write).transpose(-1, -2) @ v  # [N, J, K, V]
        before = torch.empty_like(written)
        for j in range(q.shape[1]):
            before[:, j] = memory
            memory = torch.addcmul(written[:, j], carry[:, j, None, None], memory)
        weights = _weights(b, running, q.dtype)
        y = (q @ k.transpose(-1, -2)).mul_(weights) @ v + (q * read) @ before
        ctx.save_for_backward(q, k, v, b, running, carry, write, read, before)
        m = decay + running
        ctx.mark_non_differentiable(m)
        return y, memory, m

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y, d_memory, _):
        q, k, v, b, running, carry, write, read, before = ctx.saved_tensors
        q_read = q * read
        read_back = q_read.transpose(-1, -2) @ d_y  # [N, J, K, V]
        after = torch.empty_like(before)  # gradient of the memory after each chunk
        for j in reversed(range(q.shape[1])):
            after[:, j] = d_memory
            d_memory = torch.addcmul(read_back[:, j], carry[:, j, None, None], d_memory)

        weights = _weights(b, running, q.dtype)
        d_scores = (d_y @ v.transpose(-1, -2)).mul_(weights)  # gradient of q.k
        qk = q @ k.transpose(-1, -2)
        from_past = d_y @ before.transpose(-1, -2)  # [N, J, L, K]
        to_future = v @ after.transpose(-1, -2)
        d_q = d_scores @ k + from_past * read
        d_k = d_scores.transpose(-1, -2) @ q + to_future * write
        d_v = (qk * weights).transpose(-1, -2) @ d_y + (k @ after) * write

        # The logarithm of the weight of (t, s) holds i_s once and log f_r once for each s < r <= t. Each
        # gradient below adds only terms in which the gate stands: differences of running sums would leave
        # rounding errors where the true gradient vanishes.
        pair = qk.mul_(d_scores)  # gradient of the log-weight of each pair inside the chunk
        past = (from_past * q_read).sum(-1)
        future = (to_future * k).sum(-1).mul_(write[..., 0])
        through = (before * after).sum((-1, -2)).mul_(carry)
        d_log_i = pair.sum(-2) + future
        steps = torch.ones(pair.shape[-2:], dtype=pair.dtype, device=pair.device)
        crossing = (pair @ steps.triu(1)).tril_().sum(-2)  # sum over s < r <= t
        d_log_f = crossing + past @ steps.tril() + future @ steps.triu(1) + through[..., None]
        return d_q, d_k, d_v, d_log_i.to(b.dtype), d_log_f.to(b.dtype), d_memory, None


def _weights(b: Tensor, running: Tensor, dtype: torch.dtype) -> Tensor:
    """Return exp(b_s - M_t) for s <= t and 0 above: masked before exp, since inf * 0 is not 0."""
    exponent = b[..., None, :] - running[..., :, None]
    future = torch.ones(exponent.shape[-2:], dtype=torch.bool, device=b.device).triu(1)
    return exponent.masked_fill_(future, -torch.inf).to(dtype).exp_()


def _to_chunks(x: Tensor, length: int, fill: float) -> Tensor:
    """Reshape (B, T, H, D) to (B * H, chunks, length, D), filling the end of the last chunk."""
    missing = -x.shape[1] % length
    if missing:
        x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, missing), value=fill)
    return x.transpose(1, 2).flatten(0, 1).unflatten(1, (-1, length))


def _from_chunks(x: Tensor, batch: int, steps: int) -> Tensor:
    """Undo `_to_chunks`: (B * H, chunks, length, D) to (B, T, H, D)."""
    return x.flatten(1, 2)[:, :steps].unflatten(0, (batch, -1)).transpose(1, 2)
