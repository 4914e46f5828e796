"""The five Triton kernels of the chunkwise mLSTM: two forward, three backward.

The form and its letters are those of docs/kernels.md, "The chunkwise form of mLSTM", with one change: F starts anew in
every chunk, so a chunk needs nothing of the past but the memory and its stabiliser m, and M_- is m itself. Two
kernels walk through the chunks, one program per head and tile of the memory, and write the memory before each chunk
(forward) or its gradient after each chunk (backward). The others treat all chunks at once. The normaliser n is the
memory's column for a value of one; it is carried beside the tiles and never padded into them.

Steps beyond T have log i = -inf and log f = 0: they write and forget nothing. Heads are padded to powers of two by
zeros. Exponents are float64. Every number is written by one program, and sums run in one order: repeated calls agree
bit for bit. T, B and the number of heads are ordinary arguments; offsets that grow with them are 64 bits wide.

Dimensions: N = batch x heads, J chunks, L = LENGTH steps of a chunk, K key width, V value width. q, k, v and h are
[B, T, H, .], gates [B, T, H], memories [N, J, K, V]; all contiguous.
"""

import triton
import triton.language as tl

from xlstm_ts.kernels.gpu.functions import log_forget

_RUN_TIME = ["steps", "heads"]


@triton.jit(do_not_specialize=_RUN_TIME)
def forward_memory(
    k, v, i_raw, f_raw, c0, n0, m0, c_before, n_before, m_before, c_last, n_last, m_last, steps, heads,
    K: tl.constexpr, V: tl.constexpr, LENGTH: tl.constexpr, TILE_K: tl.constexpr, TILE_V: tl.constexpr,
    SIGMOID: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Carry one tile of the memory through all chunks and write it down before each."""
    DTYPE: tl.constexpr = c0.dtype.element_ty
    head = tl.program_id(0).to(tl.int64)
    tile_k, tile_v = tl.program_id(1), tl.program_id(2)
    key = tile_k * TILE_K + tl.arange(0, TILE_K)
    value = tile_v * TILE_V + tl.arange(0, TILE_V)
    memory, inside = _memory(key, value, K, V)
    chunks = tl.cdiv(steps, LENGTH)
    c = tl.load(c0 + head * K * V + memory, mask=inside, other=0.0)
    n = tl.load(n0 + head * K + key, mask=key < K, other=0.0)
    m = tl.load(m0 + head)
    for j in range(chunks):
        at = head * chunks + j
        tl.store(c_before + at * K * V + memory, c, mask=inside)
        if tile_v == 0:
            tl.store(n_before + at * K + key, n, mask=key < K)
            if tile_k == 0:
                tl.store(m_before + at, m)
        log_i, log_f, _ = _gates(i_raw, f_raw, head, j, steps, heads, LENGTH, SIGMOID, DTYPE)
        b = log_i - tl.cumsum(log_f, axis=0)
        end = tl.maximum(tl.max(b, axis=0), m)
        carry = tl.exp((m - end).to(DTYPE))
        write = tl.exp((b - end).to(DTYPE))
        m = end + tl.sum(log_f, axis=0)
        keys = _rows(k, head, j, key, steps, heads, K, LENGTH, DTYPE) * (K**-0.5 * write[:, None])
        values = _rows(v, head, j, value, steps, heads, V, LENGTH, DTYPE)
        c = tl.dot(tl.trans(keys), values, carry * c, input_precision=PRECISION, out_dtype=DTYPE)
        n = carry * n + tl.sum(keys, axis=0)
    tl.store(c_last + head * K * V + memory, c, mask=inside)
    if tile_v == 0:
        tl.store(n_last + head * K + key, n, mask=key < K)
        if tile_k == 0:
            tl.store(m_last + head, m)


@triton.jit(do_not_specialize=_RUN_TIME)
def forward_read(
    q, k, v, i_raw, f_raw, c_before, n_before, m_before, h, reach, turn, steps, heads,
    K: tl.constexpr, V: tl.constexpr, LENGTH: tl.constexpr, TILE_K: tl.constexpr, TILE_V: tl.constexpr,
    WIDTH_K: tl.constexpr, SIGMOID: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Read one tile of values in one chunk; `reach` is 1 / denominator, `turn` its derivative by n.q, over itself."""
    DTYPE: tl.constexpr = c_before.dtype.element_ty
    at, head, j = _chunk(steps, LENGTH)
    tile_v = tl.program_id(1)
    value = tile_v * TILE_V + tl.arange(0, TILE_V)
    m = tl.load(m_before + at)
    log_i, log_f, _ = _gates(i_raw, f_raw, head, j, steps, heads, LENGTH, SIGMOID, DTYPE)
    decay = tl.cumsum(log_f, axis=0)
    b = log_i - decay
    highest = tl.maximum(tl.associative_scan(b, 0, _larger), m)
    read = tl.exp((m - highest).to(DTYPE))
    scores = tl.zeros((LENGTH, LENGTH), DTYPE)
    y = tl.zeros((LENGTH, TILE_V), DTYPE)
    dot = tl.zeros((LENGTH,), DTYPE)
    for first in range(0, WIDTH_K, TILE_K):
        key = first + tl.arange(0, TILE_K)
        memory, inside = _memory(key, value, K, V)
        queries = _rows(q, head, j, key, steps, heads, K, LENGTH, DTYPE)
        keys = _rows(k, head, j, key, steps, heads, K, LENGTH, DTYPE) * K**-0.5
        c = tl.load(c_before + at * K * V + memory, mask=inside, other=0.0)
        n = tl.load(n_before + at * K + key, mask=key < K, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), scores, input_precision=PRECISION, out_dtype=DTYPE)
        y = tl.dot(queries, c, y, input_precision=PRECISION, out_dtype=DTYPE)
        dot += tl.sum(queries * n[None, :], axis=1)
    scores *= _weights(b, highest, LENGTH, DTYPE)
    values = _rows(v, head, j, value, steps, heads, V, LENGTH, DTYPE)
    y = tl.dot(scores, values, y * read[:, None], input_precision=PRECISION, out_dtype=DTYPE)
    dot = tl.sum(scores, axis=1) + dot * read
    # max(|n.q|, exp(-m)), in bounds between which neither it nor its reciprocal overflows.
    LARGEST: tl.constexpr = 708.0 if DTYPE.primitive_bitwidth == 64 else 87.0
    floor = tl.exp(tl.minimum(tl.maximum(-(decay + highest), -LARGEST), LARGEST)).to(DTYPE)
    inverse = 1.0 / tl.maximum(tl.abs(dot), floor)
    here, there = _steps(head, j, steps, heads, LENGTH)
    tl.store(h + here[:, None] * V + value, y * inverse[:, None], mask=there[:, None] & (value < V))
    if KEEP and tile_v == 0:
        tl.store(reach + here, inverse, mask=there)
        sign = tl.where(dot > 0, 1.0, -1.0)
        tl.store(turn + here, tl.where(tl.abs(dot) > floor, sign * inverse, 0.0), mask=there)


@triton.jit(do_not_specialize=_RUN_TIME)
def backward_dot(
    d_h, h, turn, d_dot, steps, heads,
    V: tl.constexpr, LENGTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """Write the gradient of n.q, which only the denominator reads."""
    DTYPE: tl.constexpr = d_dot.dtype.element_ty
    _, head, j = _chunk(steps, LENGTH)
    value = tl.arange(0, WIDTH_V)
    here, there = _steps(head, j, steps, heads, LENGTH)
    arriving = _rows(d_h, head, j, value, steps, heads, V, LENGTH, DTYPE)
    left = _rows(h, head, j, value, steps, heads, V, LENGTH, DTYPE)
    slope = tl.load(turn + here, mask=there, other=0.0)
    tl.store(d_dot + here, -tl.sum(arriving * left, axis=1) * slope, mask=there)


@triton.jit(do_not_specialize=_RUN_TIME)
def backward_memory(
    q, i_raw, f_raw, m_before, d_h, reach, d_dot, d_c_last, d_n_last, c_after, n_after, d_c0, d_n0, steps, heads,
    K: tl.constexpr, V: tl.constexpr, LENGTH: tl.constexpr, TILE_K: tl.constexpr, TILE_V: tl.constexpr,
    SIGMOID: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Carry the gradient of one tile of the memory back through all chunks and write it down after each."""
    DTYPE: tl.constexpr = d_c_last.dtype.element_ty
    head = tl.program_id(0).to(tl.int64)
    tile_k, tile_v = tl.program_id(1), tl.program_id(2)
    key = tile_k * TILE_K + tl.arange(0, TILE_K)
    value = tile_v * TILE_V + tl.arange(0, TILE_V)
    memory, inside = _memory(key, value, K, V)
    chunks = tl.cdiv(steps, LENGTH)
    d_c = tl.load(d_c_last + head * K * V + memory, mask=inside, other=0.0)
    d_n = tl.load(d_n_last + head * K + key, mask=key < K, other=0.0)
    for back in range(chunks):
        j = chunks - 1 - back
        at = head * chunks + j
        tl.store(c_after + at * K * V + memory, d_c, mask=inside)
        if tile_v == 0:
            tl.store(n_after + at * K + key, d_n, mask=key < K)
        m = tl.load(m_before + at)
        log_i, log_f, _ = _gates(i_raw, f_raw, head, j, steps, heads, LENGTH, SIGMOID, DTYPE)
        b = log_i - tl.cumsum(log_f, axis=0)
        highest = tl.maximum(tl.associative_scan(b, 0, _larger), m)
        carry = tl.exp((m - tl.maximum(tl.max(b, axis=0), m)).to(DTYPE))
        read = tl.exp((m - highest).to(DTYPE))
        here, there = _steps(head, j, steps, heads, LENGTH)
        inverse = tl.load(reach + here, mask=there, other=0.0)
        e = tl.load(d_dot + here, mask=there, other=0.0)
        queries = _rows(q, head, j, key, steps, heads, K, LENGTH, DTYPE) * read[:, None]
        d_y = _rows(d_h, head, j, value, steps, heads, V, LENGTH, DTYPE) * inverse[:, None]
        d_c = tl.dot(tl.trans(queries), d_y, carry * d_c, input_precision=PRECISION, out_dtype=DTYPE)
        d_n = carry * d_n + tl.sum(queries * e[:, None], axis=0)
    tl.store(d_c0 + head * K * V + memory, d_c, mask=inside)
    if tile_v == 0:
        tl.store(d_n0 + head * K + key, d_n, mask=key < K)


@triton.jit(do_not_specialize=_RUN_TIME)
def backward_inputs(
    q, k, v, i_raw, f_raw, c_before, n_before, m_before, c_after, n_after, d_h, reach, d_dot,
    d_q, d_k, d_v, d_i, d_f, steps, heads,
    K: tl.constexpr, V: tl.constexpr, LENGTH: tl.constexpr, TILE_K: tl.constexpr, TILE_V: tl.constexpr,
    WIDTH_K: tl.constexpr, WIDTH_V: tl.constexpr, SIGMOID: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of queries, keys, values and gates of one chunk."""
    DTYPE: tl.constexpr = c_before.dtype.element_ty
    at, head, j = _chunk(steps, LENGTH)
    here, there = _steps(head, j, steps, heads, LENGTH)
    m = tl.load(m_before + at)
    log_i, log_f, slope = _gates(i_raw, f_raw, head, j, steps, heads, LENGTH, SIGMOID, DTYPE)
    b = log_i - tl.cumsum(log_f, axis=0)
    highest = tl.maximum(tl.associative_scan(b, 0, _larger), m)
    end = tl.maximum(tl.max(b, axis=0), m)
    carry = tl.exp((m - end).to(DTYPE))
    read = tl.exp((m - highest).to(DTYPE))
    write = tl.exp((b - end).to(DTYPE))
    inverse = tl.load(reach + here, mask=there, other=0.0)
    e = tl.load(d_dot + here, mask=there, other=0.0)

    scores = tl.zeros((LENGTH, LENGTH), DTYPE)
    for first in range(0, WIDTH_K, TILE_K):
        key = first + tl.arange(0, TILE_K)
        queries = _rows(q, head, j, key, steps, heads, K, LENGTH, DTYPE)
        keys = _rows(k, head, j, key, steps, heads, K, LENGTH, DTYPE) * K**-0.5
        scores = tl.dot(queries, tl.trans(keys), scores, input_precision=PRECISION, out_dtype=DTYPE)
    d_scores = tl.zeros((LENGTH, LENGTH), DTYPE) + e[:, None]
    for first in range(0, WIDTH_V, TILE_V):
        value = first + tl.arange(0, TILE_V)
        values = _rows(v, head, j, value, steps, heads, V, LENGTH, DTYPE)
        d_y = _rows(d_h, head, j, value, steps, heads, V, LENGTH, DTYPE) * inverse[:, None]
        d_scores = tl.dot(d_y, tl.trans(values), d_scores, input_precision=PRECISION, out_dtype=DTYPE)
    weights = _weights(b, highest, LENGTH, DTYPE)
    d_scores *= weights
    pair = scores * d_scores
    scores *= weights

    for first in range(0, WIDTH_V, TILE_V):
        value = first + tl.arange(0, TILE_V)
        to_future = tl.zeros((LENGTH, TILE_V), DTYPE)
        for first_key in range(0, WIDTH_K, TILE_K):
            key = first_key + tl.arange(0, TILE_K)
            memory, inside = _memory(key, value, K, V)
            keys = _rows(k, head, j, key, steps, heads, K, LENGTH, DTYPE) * K**-0.5
            after = tl.load(c_after + at * K * V + memory, mask=inside, other=0.0)
            to_future = tl.dot(keys, after, to_future, input_precision=PRECISION, out_dtype=DTYPE)
        d_y = _rows(d_h, head, j, value, steps, heads, V, LENGTH, DTYPE) * inverse[:, None]
        grad = tl.dot(tl.trans(scores), d_y, to_future * write[:, None], input_precision=PRECISION, out_dtype=DTYPE)
        tl.store(d_v + here[:, None] * V + value, grad, mask=there[:, None] & (value < V))

    past = tl.zeros((LENGTH,), DTYPE)
    future = tl.zeros((LENGTH,), DTYPE)
    through = tl.zeros((TILE_K,), DTYPE)
    for first in range(0, WIDTH_K, TILE_K):
        key = first + tl.arange(0, TILE_K)
        n = tl.load(n_before + at * K + key, mask=key < K, other=0.0)
        d_n = tl.load(n_after + at * K + key, mask=key < K, other=0.0)
        through += n * d_n
        from_past = e[:, None] * n
        to_future = tl.zeros((LENGTH, TILE_K), DTYPE) + d_n
        for first_value in range(0, WIDTH_V, TILE_V):
            value = first_value + tl.arange(0, TILE_V)
            memory, inside = _memory(key, value, K, V)
            before = tl.load(c_before + at * K * V + memory, mask=inside, other=0.0)
            after = tl.load(c_after + at * K * V + memory, mask=inside, other=0.0)
            through += tl.sum(before * after, axis=1)
            values = _rows(v, head, j, value, steps, heads, V, LENGTH, DTYPE)
            d_y = _rows(d_h, head, j, value, steps, heads, V, LENGTH, DTYPE) * inverse[:, None]
            from_past = tl.dot(d_y, tl.trans(before), from_past, input_precision=PRECISION, out_dtype=DTYPE)
            to_future = tl.dot(values, tl.trans(after), to_future, input_precision=PRECISION, out_dtype=DTYPE)
        from_past *= read[:, None]
        to_future *= write[:, None]
        queries = _rows(q, head, j, key, steps, heads, K, LENGTH, DTYPE)
        keys = _rows(k, head, j, key, steps, heads, K, LENGTH, DTYPE) * K**-0.5
        past += tl.sum(from_past * queries, axis=1)
        future += tl.sum(to_future * keys, axis=1)
        grad = tl.dot(d_scores, keys, from_past, input_precision=PRECISION, out_dtype=DTYPE)
        tl.store(d_q + here[:, None] * K + key, grad, mask=there[:, None] & (key < K))
        grad = tl.dot(tl.trans(d_scores), queries, to_future, input_precision=PRECISION, out_dtype=DTYPE)
        tl.store(d_k + here[:, None] * K + key, grad * K**-0.5, mask=there[:, None] & (key < K))

    # Each gate collects the terms in which it stands, and no differences of running sums: a zero stays a zero.
    s, t = tl.arange(0, LENGTH)[None, :], tl.arange(0, LENGTH)[:, None]
    crossing = tl.dot(pair, tl.where(t < s, 1.0, 0.0).to(DTYPE), input_precision=PRECISION, out_dtype=DTYPE)
    d_log_f = tl.sum(tl.where(t >= s, crossing + past[:, None], future[:, None]), axis=0) + carry * tl.sum(through)
    tl.store(d_i + here, tl.sum(pair, axis=0) + future, mask=there)
    tl.store(d_f + here, d_log_f * slope, mask=there)


@triton.jit
def _chunk(steps, LENGTH: tl.constexpr):
    """Return the number of this program's chunk among all, its head, and its number in the sequence."""
    chunks = tl.cdiv(steps, LENGTH)
    at = tl.program_id(0)
    return at.to(tl.int64), (at // chunks).to(tl.int64), at % chunks


@triton.jit
def _gates(i_raw, f_raw, head, j, steps, heads, LENGTH: tl.constexpr, SIGMOID: tl.constexpr, DTYPE: tl.constexpr):
    """Return log i, log f and the slope of log f for the steps of a chunk."""
    here, there = _steps(head, j, steps, heads, LENGTH)
    log_i = tl.load(i_raw + here, mask=there, other=float("-inf")).to(tl.float64)
    log_f, slope = log_forget(tl.load(f_raw + here, mask=there, other=0.0).to(tl.float64), SIGMOID, DTYPE)
    return log_i, tl.where(there, log_f, 0.0), slope


@triton.jit
def _weights(b, highest, LENGTH: tl.constexpr, DTYPE: tl.constexpr):
    """Return exp(b_s - M_t) for s <= t and 0 above: masked before exp, since inf * 0 is not 0."""
    s, t = tl.arange(0, LENGTH)[None, :], tl.arange(0, LENGTH)[:, None]
    return tl.exp(tl.where(s <= t, b[None, :] - highest[:, None], float("-inf")).to(DTYPE))


@triton.jit
def _rows(x, head, j, column, steps, heads, WIDTH: tl.constexpr, LENGTH: tl.constexpr, DTYPE: tl.constexpr):
    """Return some columns of the steps of a chunk, [L, columns], with zeros beyond the edges."""
    here, there = _steps(head, j, steps, heads, LENGTH)
    inside = there[:, None] & (column < WIDTH)[None, :]
    return tl.load(x + here[:, None] * WIDTH + column, mask=inside, other=0.0).to(DTYPE)


@triton.jit
def _steps(head, j, steps, heads, LENGTH: tl.constexpr):
    """Return where the steps of a chunk lie in [B, T, H], and which of them exist."""
    step = j * LENGTH + tl.arange(0, LENGTH)
    return ((head // heads) * steps + step) * heads + head % heads, step < steps


@triton.jit
def _memory(key, value, K: tl.constexpr, V: tl.constexpr):
    """Return where a tile lies in a memory of K x V, and what of it lies inside."""
    return key[:, None] * V + value[None, :], (key < K)[:, None] & (value < V)[None, :]


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)
