"""The two Triton kernels of the sLSTM: all steps forward, all steps backward.

A program runs all steps for ROWS rows of a batch and one head; programs never wait for each other. The state stays in
registers. The four gates of a unit lie side by side in the columns of the recurrent weights, so that the recurrent
part is one product per step, [ROWS, K] x [K, 4K], and its columns fall apart into gates without leaving their thread.
Where the weights fit on chip they are read once (TILE is the whole contraction); wider ones stream through the
second-level cache in every step, TILE rows at a time, while the previous tile is multiplied. A tile of the other
factor is cut out of registers by a sum over a mask, so nothing that is written to memory is ever read back.

Heads are padded to WIDTH, a power of two, and batches to a multiple of ROWS, by zeros: a padded unit has weights,
gates and cell memory of zero, so its h is 0 and no one reads it. Sums run in one order: repeated calls agree bit for
bit, and a row does not depend on its neighbours.

Sizes and strides that grow with T or B are ordinary arguments, so there is one compilation per head width. All
offsets that grow with T are 64 bits wide.
"""

import triton
import triton.language as tl

from xlstm_ts.kernels.gpu.functions import log_forget, sigmoid, tanh

_RUN_TIME = ["batch", "steps", "heads", "by_row", "by_step", "by_gate", "by_head"]


@triton.jit(do_not_specialize=_RUN_TIME)
def forward(
    gates, weights, h0, c0, n0, m0, hidden, h_last, c_last, n_last, m_last, saved,
    batch, steps, heads, by_row: tl.int64, by_step: tl.int64, by_gate: tl.int64, by_head: tl.int64,
    K: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr,
    SIGMOID: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Run the recurrence; `weights` is [H, K, 4K] with the gates of a unit side by side, `saved` [B, T, 6, H, K]."""
    DTYPE: tl.constexpr = c0.dtype.element_ty
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS).to(tl.int64)[:, None]
    unit = tl.arange(0, WIDTH)[None, :]
    live = (row < batch) & (unit < K)
    by_row, by_step, by_gate, by_head = _aligned(by_row, by_step, by_gate, by_head, ALIGNED)
    x = row * by_row + head * by_head + unit
    one_step = heads.to(tl.int64) * K
    out = row * (steps * one_step) + head * K + unit
    keep = row * (steps * 6 * one_step) + head * K + unit
    state = (row * heads + head) * K + unit

    h = tl.load(h0 + state, mask=live, other=0.0)
    c = tl.load(c0 + state, mask=live, other=0.0)
    n = tl.load(n0 + state, mask=live, other=0.0)
    m = tl.load(m0 + state, mask=live, other=0.0)
    weights += head * (4 * K * K)
    column = tl.arange(0, 4 * WIDTH)[None, :]
    if TILE == WIDTH:
        whole = _tile(weights, 0, column, K, 4 * K, TILE, DTYPE)
    for _ in range(steps):
        x_i = tl.load(gates + x, mask=live, other=0.0)
        x_f = tl.load(gates + by_gate + x, mask=live, other=0.0)
        x_z = tl.load(gates + 2 * by_gate + x, mask=live, other=0.0)
        x_o = tl.load(gates + 3 * by_gate + x, mask=live, other=0.0)
        if TILE == WIDTH:
            recurrent = tl.dot(h, whole, input_precision=PRECISION, out_dtype=DTYPE)
        else:
            recurrent = tl.zeros((ROWS, 4 * WIDTH), DTYPE)
            for j in range(WIDTH // TILE):
                tile = _tile(weights, j * TILE, column, K, 4 * K, TILE, DTYPE)
                part = _part(h, j, WIDTH // TILE, TILE)
                recurrent = tl.dot(part, tile, recurrent, input_precision=PRECISION, out_dtype=DTYPE)
        pairs_iz, pairs_fo = tl.split(tl.reshape(recurrent, (ROWS, WIDTH, 2, 2)))
        r_i, r_z = tl.split(pairs_iz)
        r_f, r_o = tl.split(pairs_fo)

        # What goes into an exponent is added up in float64. One of the two weights is exactly 1.
        log_i = x_i.to(tl.float64) + r_i.to(tl.float64)
        log_f, slope = log_forget(x_f.to(tl.float64) + r_f.to(tl.float64), SIGMOID, DTYPE)
        log_f += m
        m = tl.maximum(log_f, log_i)
        other = tl.exp(-tl.abs(log_i - log_f).to(DTYPE))
        i = tl.where(log_i >= log_f, 1.0, other)
        f = tl.where(log_i >= log_f, other, 1.0)
        z = tanh(x_z.to(DTYPE) + r_z)
        o = sigmoid(x_o.to(DTYPE) + r_o)
        c = f * c + i * z
        n = f * n + i
        h = o * (c / n)
        h = tl.where(live, h, 0.0)

        tl.store(hidden + out, h, mask=live)
        hidden += one_step
        gates += by_step
        if KEEP:
            tl.store(saved + keep, z, mask=live)
            tl.store(saved + one_step + keep, o, mask=live)
            tl.store(saved + 2 * one_step + keep, c, mask=live)
            tl.store(saved + 3 * one_step + keep, n, mask=live)
            tl.store(saved + 4 * one_step + keep, slope, mask=live)
            # The weight that is not 1; its sign says which, also where it is 0 (so it is multiplied, not subtracted).
            tl.store(saved + 5 * one_step + keep, tl.where(log_i >= log_f, other, other * -1.0), mask=live)
            saved += 6 * one_step
    tl.store(h_last + state, h, mask=live)
    tl.store(c_last + state, c, mask=live)
    tl.store(n_last + state, n, mask=live)
    tl.store(m_last + state, m, mask=live)


@triton.jit(do_not_specialize=_RUN_TIME)
def backward(
    d_hidden, weights, saved, c0, n0, d_h_last, d_c_last, d_n_last, d_gates, d_h0, d_c0, d_n0,
    batch, steps, heads, by_row: tl.int64, by_step: tl.int64, by_gate: tl.int64, by_head: tl.int64,
    K: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Run docs/kernels.md, "The backward of sLSTM"; `weights` is [H, 4K, K], the transpose of the forward's."""
    DTYPE: tl.constexpr = c0.dtype.element_ty
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS).to(tl.int64)[:, None]
    unit = tl.arange(0, WIDTH)[None, :]
    live = (row < batch) & (unit < K)
    by_row, by_step, by_gate, by_head = _aligned(by_row, by_step, by_gate, by_head, ALIGNED)
    x = row * by_row + head * by_head + unit
    one_step = heads.to(tl.int64) * K
    out = row * (steps * one_step) + head * K + unit
    keep = row * (steps * 6 * one_step) + head * K + unit
    state = (row * heads + head) * K + unit

    d_h = tl.load(d_h_last + state, mask=live, other=0.0)
    d_c = tl.load(d_c_last + state, mask=live, other=0.0)
    d_n = tl.load(d_n_last + state, mask=live, other=0.0)
    weights += head * (4 * K * K)
    if TILE == 4 * WIDTH:
        whole = _tile(weights, 0, unit, 4 * K, K, TILE, DTYPE)
    last = (steps - 1).to(tl.int64)
    gates_here = d_gates + last * by_step
    saved += last * 6 * one_step
    d_hidden += last * one_step
    c = tl.load(saved + 2 * one_step + keep, mask=live, other=0.0)
    n = tl.load(saved + 3 * one_step + keep, mask=live, other=1.0)
    z, o, slope, weight, c_before, n_before, d_out = _read(
        saved, d_hidden, c0, n0, keep, out, state, one_step, live, last
    )
    for back in range(steps):
        negative = weight.to(tl.int64 if DTYPE.primitive_bitwidth == 64 else tl.int32, bitcast=True) < 0
        i = tl.where(negative, tl.abs(weight), 1.0)
        f = tl.where(negative, 1.0, weight)
        ratio = c / n
        d_h += d_out.to(DTYPE)
        through = d_h * (o / n)
        d_c += through
        d_n -= through * ratio
        d_i = (d_n + d_c * z) * i
        d_f = (d_n * n_before + d_c * c_before) * (f * slope)
        d_z = d_c * (i * (1.0 - z * z))
        d_o = d_h * (ratio * o * (1.0 - o))
        d_c *= f
        d_n *= f
        tl.store(gates_here + x, d_i, mask=live)
        tl.store(gates_here + by_gate + x, d_f, mask=live)
        tl.store(gates_here + 2 * by_gate + x, d_z, mask=live)
        tl.store(gates_here + 3 * by_gate + x, d_o, mask=live)

        c, n = c_before, n_before
        saved -= 6 * one_step
        d_hidden -= one_step
        gates_here -= by_step
        d_raw = tl.reshape(tl.join(tl.join(d_i, d_z), tl.join(d_f, d_o)), (ROWS, 4 * WIDTH))
        if TILE == 4 * WIDTH:
            # The step before is fetched while the product is computed.
            z, o, slope, weight, c_before, n_before, d_out = _read(
                saved, d_hidden, c0, n0, keep, out, state, one_step, live, last - back - 1
            )
            d_h = tl.dot(d_raw, whole, input_precision=PRECISION, out_dtype=DTYPE)
        else:
            d_h = tl.zeros((ROWS, WIDTH), DTYPE)
            for j in range(4 * WIDTH // TILE):
                tile = _tile(weights, j * TILE, unit, 4 * K, K, TILE, DTYPE)
                part = _part(d_raw, j, 4 * WIDTH // TILE, TILE)
                d_h = tl.dot(part, tile, d_h, input_precision=PRECISION, out_dtype=DTYPE)
            # Not earlier: so long a product hides nothing by comparison, and needs the registers.
            z, o, slope, weight, c_before, n_before, d_out = _read(
                saved, d_hidden, c0, n0, keep, out, state, one_step, live, last - back - 1
            )
    tl.store(d_h0 + state, d_h, mask=live)
    tl.store(d_c0 + state, d_c, mask=live)
    tl.store(d_n0 + state, d_n, mask=live)


@triton.jit
def _read(saved, d_hidden, c0, n0, keep, out, state, one_step, live, t):
    """Return what the backward needs of step t, and the memory before it; zeros for t = -1."""
    t += tl.zeros((1, 1), tl.int64)  # a block: Triton's interpreter cannot widen a single truth value
    there = live & (t >= 0)
    z = tl.load(saved + keep, mask=there, other=0.0)
    o = tl.load(saved + one_step + keep, mask=there, other=0.0)
    slope = tl.load(saved + 4 * one_step + keep, mask=there, other=0.0)
    weight = tl.load(saved + 5 * one_step + keep, mask=there, other=0.0)
    # Of two loads one is masked out. A padded n is 1, since it is a divisor.
    inner, first = live & (t > 0), live & (t == 0)
    c = tl.load(saved - 4 * one_step + keep, mask=inner, other=0.0) + tl.load(c0 + state, mask=first, other=0.0)
    n = tl.load(saved - 3 * one_step + keep, mask=inner, other=0.0) + tl.load(n0 + state, mask=first, other=0.0)
    n = tl.where(live, n, 1.0)
    d_out = tl.load(d_hidden + out, mask=there, other=0.0)
    return z, o, slope, weight, c, n, d_out


@triton.jit
def _tile(weights, first, column, HEIGHT: tl.constexpr, BREADTH: tl.constexpr, TILE: tl.constexpr, DTYPE: tl.constexpr):
    """Return rows first to first + TILE of a HEIGHT x BREADTH matrix, zeros beyond it."""
    row = first + tl.arange(0, TILE)[:, None]
    inside = (row < HEIGHT) & (column < BREADTH)
    return tl.load(weights + row * BREADTH + column, mask=inside, other=0.0).to(DTYPE)


@triton.jit
def _part(x, j, COUNT: tl.constexpr, TILE: tl.constexpr):
    """Return columns j * TILE to (j + 1) * TILE of x: a sum over a mask, which stays on chip and moves no digit."""
    parts = tl.reshape(x, (x.shape[0], COUNT, TILE))
    here = tl.arange(0, COUNT)[None, :, None] == j
    return tl.sum(tl.where(here, parts, 0.0), axis=1)


@triton.jit
def _aligned(by_row, by_step, by_gate, by_head, ALIGNED: tl.constexpr):
    """Tell the compiler that strides are multiples of 16, where the caller has checked it."""
    if ALIGNED:
        by_row, by_step = tl.multiple_of(by_row, 16), tl.multiple_of(by_step, 16)
        by_gate, by_head = tl.multiple_of(by_gate, 16), tl.multiple_of(by_head, 16)
    return by_row, by_step, by_gate, by_head
