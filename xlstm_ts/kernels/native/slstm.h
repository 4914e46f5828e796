/* sLSTM; compiled once per instruction set and number type.
 *
 * Work is cut into tiles of a few batch rows of one head. A tile runs the whole sequence by itself, in chunks of a few
 * steps whose gates stay in the second-level cache, with its state and recurrent weights in the nearest. The gates are
 * given, or made here from the inputs of the layer. What the backward needs takes their place: KEPT numbers per element,
 * and c and n before every chunk, from which it finds those of every step again. Equations of section 2.2 of Beck et al.
 * 2024; the backward is derived in docs/kernels.md, "The backward of sLSTM". P = K rounded up to whole vectors.
 */

/* One step of the cell for the rows of a tile. x: gate pre-activations, [rows, 4, P], in whose place comes what is kept;
 * rec: their recurrent part, likewise. Loops are short: the chains of dependent operations of several iterations then
 * overlap. This one does all that does not depend on m. */
static TARGET void NAME(activate)(const int exp_forget, integer rows, integer padded, REAL *restrict x,
                                  const REAL *restrict rec, double *restrict log_f) {
    for (integer r = 0; r < rows; r++) {
        for (integer v = 0; v < padded; v += LANES) {
            REAL *xf = x + (4 * r + 1) * padded + v;
            const REAL *rf = rec + (4 * r + 1) * padded + v;
            double *logs = log_f + r * padded + v;
#pragma GCC ivdep
            for (integer l = 0; l < LANES; l++) {
                double exact = (double)xf[l] + (double)rf[l];
                REAL f_raw = (REAL)exact;
                REAL u = MATH(exp_negative)(-MATH(abs)(f_raw));
                REAL slope = (f_raw > 0 ? u : (REAL)1) / (1 + u); /* sigmoid(-f_raw) */
                double log_sigmoid = (exact > 0 ? 0.0 : exact) - (double)MATH(log1p_unit)(u);
                logs[l] = exp_forget ? exact : log_sigmoid;
                xf[l] = exp_forget ? (REAL)1 : slope;
            }
        }
    }
    for (integer r = 0; r < rows; r++) {
        for (integer v = 0; v < padded; v += LANES) {
            REAL *xz = x + (4 * r + 2) * padded + v, *xo = xz + padded;
            const REAL *rz = rec + (4 * r + 2) * padded + v, *ro = rz + padded;
#pragma GCC ivdep
            for (integer l = 0; l < LANES; l++) {
                xz[l] = MATH(tanh)(xz[l] + rz[l]);
                xo[l] = MATH(sigmoid)(xo[l] + ro[l]);
            }
        }
    }
}

static TARGET void NAME(cell)(integer rows, integer padded, REAL *restrict kept, const REAL *restrict rec,
                              const double *restrict log_f, REAL *restrict c, REAL *restrict n, double *restrict m,
                              REAL *restrict h) {
    for (integer r = 0; r < rows; r++) {
        for (integer v = 0; v < padded; v += LANES) {
            REAL *xi = kept + 4 * r * padded + v;
            const REAL *z = xi + 2 * padded, *o = z + padded, *ri = rec + 4 * r * padded + v;
            REAL *cs = c + r * padded + v, *ns = n + r * padded + v, *hs = h + r * padded + v;
            const double *logs = log_f + r * padded + v;
            double *ms = m + r * padded + v;
#pragma GCC ivdep
            for (integer l = 0; l < LANES; l++) {
                double log_i = (double)xi[l] + (double)ri[l], carried = logs[l] + ms[l];
                double ahead = log_i - carried;
                ms[l] = ahead > 0 ? log_i : carried;
                REAL gap = (REAL)ahead;
                REAL e = MATH(exp_negative)(-MATH(abs)(gap));
                REAL i = gap > 0 ? (REAL)1 : e; /* one of the two is 1 */
                REAL f = gap > 0 ? e : (REAL)1;
                cs[l] = f * cs[l] + i * z[l];
                ns[l] = f * ns[l] + i;
                hs[l] = cs[l] / ns[l] * o[l];
                xi[l] = MATH(sign)(e, gap);
            }
        }
    }
}

/* The states after every step of a chunk again: states is [steps + 1, rows, 2, P], the first given. */
static TARGET void NAME(replay)(integer steps, integer rows, integer padded, const REAL *restrict kept,
                                REAL *restrict states) {
    const integer size = 2 * rows * padded;
    for (integer r = 0; r < steps * rows; r++) {
        const REAL *before = states + 2 * r * padded;
        REAL *after = states + size + 2 * r * padded;
        const REAL *es = kept + KEPT * r * padded, *zs = es + 2 * padded;
        for (integer v = 0; v < padded; v += LANES) {
#pragma GCC ivdep
            for (integer l = v; l < v + LANES; l++) {
                REAL e = MATH(abs)(es[l]);
                int opened = MATH(sign)((REAL)1, es[l]) > 0;
                REAL i = opened ? (REAL)1 : e, f = opened ? e : (REAL)1;
                after[l] = f * before[l] + i * zs[l];
                after[padded + l] = f * before[padded + l] + i;
            }
        }
    }
}

/* One step back. before and after: c and n, [rows, 2, P]. dh is complete, dc and dn come from the step after; raw:
 * gradients of the pre-activations. */
static TARGET void NAME(cell_back)(integer rows, integer padded, const REAL *restrict kept, const REAL *restrict before,
                                   const REAL *restrict after, const REAL *restrict dh, REAL *restrict dc,
                                   REAL *restrict dn, REAL *restrict raw, integer raw_row, integer raw_gate) {
    for (integer r = 0; r < rows; r++) {
        for (integer v = 0; v < padded; v += LANES) {
            const REAL *k0 = kept + r * KEPT * padded + v;
            const REAL *c_before = before + 2 * r * padded + v, *n_before = c_before + padded;
            const REAL *c = after + 2 * r * padded + v, *n = c + padded, *dhs = dh + r * padded + v;
            REAL *dcs = dc + r * padded + v, *dns = dn + r * padded + v;
            REAL *d_i = raw + r * raw_row + v, *d_f = d_i + raw_gate, *d_z = d_f + raw_gate, *d_o = d_z + raw_gate;
#pragma GCC ivdep
            for (integer l = 0; l < LANES; l++) {
                REAL e = MATH(abs)(k0[l]);
                int opened = MATH(sign)((REAL)1, k0[l]) > 0;
                REAL i = opened ? (REAL)1 : e, f = opened ? e : (REAL)1;
                REAL slope = k0[l + padded], z = k0[l + 2 * padded], o = k0[l + 3 * padded];
                REAL inverse = 1 / n[l];
                REAL ratio = c[l] * inverse;
                REAL through = dhs[l] * o * inverse;
                REAL d_c = dcs[l] + through;
                REAL d_n = dns[l] - through * ratio;
                d_i[l] = (d_c * z + d_n) * i;
                d_f[l] = (d_c * c_before[l] + d_n * n_before[l]) * (f * slope);
                d_z[l] = d_c * i * (1 - z * z);
                d_o[l] = dhs[l] * ratio * o * (1 - o);
                dcs[l] = d_c * f;
                dns[l] = d_n * f;
            }
        }
    }
}

/* The weights of a pair of gates of one head, [inner, 2 K] in any order, into panels of [inner, 2 P]. */
static TARGET void NAME(pack_pair)(const struct slstm *s, const REAL *w, REAL *packed) {
    const integer inner = s->inner, width = s->width, padded = round_up(width, LANES);
    for (integer column = 0; column < 2 * padded; column += LANES) {
        const integer gate = column / padded, k = column % padded;
        const integer most = width - k < LANES ? width - k : LANES;
        const REAL *from = w + (gate * width + k) * s->w_strides[2];
        REAL *to = packed + NAME(packed)(0, column, inner, 2 * padded);
        if (s->w_strides[2] == 1)
            NAME(copy)(inner, most, from, s->w_strides[1], to, 2 * LANES);
        else
            NAME(transpose)(most, inner, from, s->w_strides[2], to, 2 * LANES);
    }
}

/* The same weights, which must lie with their columns side by side, transposed into panels of [2 K, Q]; Q = inner
 * rounded up to whole vectors. */
static TARGET void NAME(pack_pair_back)(const struct slstm *s, const REAL *w, REAL *packed) {
    const integer columns = round_up(s->inner, LANES);
    for (integer column = 0; column < s->inner; column += LANES) {
        const integer most = s->inner - column < LANES ? s->inner - column : LANES;
        NAME(transpose)(most, 2 * s->width, w + column * s->w_strides[1], s->w_strides[1],
                        packed + NAME(packed)(0, column, 2 * s->width, columns), NAME(panel_width)(column, columns));
    }
}

/* The weights of all heads, ahead of the tiles. */
static TARGET int NAME(slstm_pack)(const struct slstm *s) {
    const integer size = 2 * s->inner * round_up(s->width, LANES);
    for (integer head = 0; head < s->heads; head++) {
        NAME(pack_pair)(s, (const REAL *)s->w_if + head * s->w_strides[0], (REAL *)s->packed + 2 * head * size);
        NAME(pack_pair)(s, (const REAL *)s->w_zo + head * s->w_strides[0], (REAL *)s->packed + (2 * head + 1) * size);
    }
    return 0;
}

/* The gates of a chunk from the inputs of the layer: [length, rows, 4, P]. */
static TARGET void NAME(project_chunk)(const struct slstm *s, integer head, integer first, integer rows, integer start,
                                       integer length, const REAL *bias, REAL *gates) {
    const integer padded = round_up(s->width, LANES), size = 2 * s->inner * padded;
    for (int pair = 0; pair < 2; pair++) {
        const integer *strides = pair ? s->x_zo_strides : s->x_if_strides;
        const REAL *x = (const REAL *)(pair ? s->x_zo : s->x_if) + first * strides[0] + start * strides[1] +
                        head * s->x_head;
        const REAL *packed = (const REAL *)s->packed + (2 * head + pair) * size;
        for (integer r = 0; r < rows; r++) {
            const REAL *from = x + r * strides[0];
            if (start + 2 * length <= s->steps) NAME(prefetch)(length, s->inner, from + length * strides[1], strides[1]);
            NAME(multiply_from)(length, 2 * padded, s->inner, from, strides[1], 1, packed, 0,
                                gates + (4 * r + 2 * pair) * padded, 4 * rows * padded, 0, bias + 2 * pair * padded);
        }
    }
}

static TARGET int NAME(slstm_forward)(const void *call, integer item) {
    const struct slstm *s = call;
    const integer head = item % s->heads, first = item / s->heads * s->tile;
    const integer rows = s->batch - first < s->tile ? s->batch - first : s->tile;
    const integer heads = s->heads, width = s->width, steps = s->steps, padded = round_up(width, LANES);
    const integer matrix = width * width, state = rows * padded, row0 = (first * heads + head) * width;
    const integer row = heads * width, out_row = steps * row, most = chunk_steps(s), chunks = (steps + most - 1) / most;
    const REAL *weights = (const REAL *)s->weights + head * matrix;
    REAL *out = (REAL *)s->hidden + first * out_row + head * width;
    REAL *saved = s->saved ? (REAL *)s->saved + (head * s->batch + first) * steps * KEPT * padded : 0;
    REAL *starts = s->saved ? (REAL *)s->saved + heads * s->batch * steps * KEPT * padded +
                                  (head * s->batch + first) * chunks * 2 * padded
                            : 0;

    integer numbers = width * 4 * padded + (4 + 3) * state + 4 * padded + (saved ? 0 : most * KEPT * state);
    double *memory = reserve(2 * state * sizeof(double) + numbers * sizeof(REAL));
    if (!memory) return 1;
    double *m = memory, *log_f = m + state;
    REAL *packed = (REAL *)(log_f + state), *rec = packed + width * 4 * padded;
    REAL *h = rec + 4 * state, *c = h + state, *n = c + state, *bias = n + state, *passing = bias + 4 * padded;

    for (integer gate = 0; gate < 4; gate++)
        for (integer k = 0; k < width; k += LANES)
            NAME(copy)(width, width - k < LANES ? width - k : LANES, weights + gate * heads * matrix + k, width,
                       packed + NAME(packed)(0, gate * padded + k, width, 4 * padded), 2 * LANES);
    if (s->bias)
        for (integer gate = 0; gate < 4; gate++)
            memcpy(bias + gate * padded, (const REAL *)s->bias + (gate * heads + head) * width, width * sizeof(REAL));
    for (integer j = 0; j < state; j++) n[j] = 1; /* in the padding, c / n must stay finite */
    NAME(copy)(rows, width, (const REAL *)s->h0 + row0, row, h, padded);
    NAME(copy)(rows, width, (const REAL *)s->c0 + row0, row, c, padded);
    NAME(copy)(rows, width, (const REAL *)s->n0 + row0, row, n, padded);
    for (integer r = 0; r < rows; r++) memcpy(m + r * padded, s->m0 + row0 + r * row, width * sizeof(double));

    for (integer start = 0; start < steps; start += most) {
        const integer length = steps - start < most ? steps - start : most;
        REAL *gates = saved ? saved + start * KEPT * state : passing;
        if (s->inner) {
            NAME(project_chunk)(s, head, first, rows, start, length, bias, gates);
        } else {
            const REAL *x = (const REAL *)s->gates + first * s->gates_strides[0] + head * s->gates_strides[2];
            for (integer r = 0; r < rows; r++)
                for (integer gate = 0; gate < 4; gate++)
                    NAME(copy)(length, width, x + r * s->gates_strides[0] + start * s->gates_strides[1] +
                               s->gate_offsets[gate], s->gates_strides[1], gates + (4 * r + gate) * padded, 4 * state);
        }
        if (saved) {
            NAME(copy)(rows, padded, c, padded, starts + start / most * 2 * state, 2 * padded);
            NAME(copy)(rows, padded, n, padded, starts + start / most * 2 * state + padded, 2 * padded);
        }
        for (integer t = start; t < start + length; t++, gates += KEPT * state) {
            NAME(multiply)(rows, 4 * padded, width, h, padded, 1, packed, 0, rec, 4 * padded, 0);
            if (s->exp_forget)
                NAME(activate)(1, rows, padded, gates, rec, log_f);
            else
                NAME(activate)(0, rows, padded, gates, rec, log_f);
            NAME(cell)(rows, padded, gates, rec, log_f, c, n, m, h);
            NAME(copy)(rows, width, h, padded, out + t * row, out_row);
        }
    }
    NAME(copy)(rows, width, h, padded, (REAL *)s->h + row0, row);
    NAME(copy)(rows, width, c, padded, (REAL *)s->c + row0, row);
    NAME(copy)(rows, width, n, padded, (REAL *)s->n + row0, row);
    for (integer r = 0; r < rows; r++) memcpy(s->m + row0 + r * row, m + r * padded, width * sizeof(double));
    release(memory);
    return 0;
}

/* What the gradients of a chunk's gates, raw, give to the inputs and the weights of the layer. */
static TARGET void NAME(project_chunk_back)(const struct slstm *s, integer head, integer first, integer rows,
                                            integer start, integer length, const REAL *raw, const REAL *packed,
                                            REAL *d_w, REAL *inputs, REAL *draft) {
    const integer inner = s->inner, width = s->width, wide = round_up(4 * width, LANES);
    const integer padded = round_up(inner, LANES), pair_wide = round_up(2 * width, LANES);
    const integer to_step = s->heads * inner, to_row = s->steps * to_step;
    for (int pair = 0; pair < 2; pair++) {
        const integer *strides = pair ? s->x_zo_strides : s->x_if_strides;
        const REAL *x = (const REAL *)(pair ? s->x_zo : s->x_if) + first * strides[0] + start * strides[1] +
                        head * s->x_head;
        const REAL *d_gates = raw + pair * 2 * width, *weights = packed + pair * 2 * width * padded;
        REAL *d_x = (REAL *)(pair ? s->d_x_zo : s->d_x_if) + first * to_row + start * to_step + head * inner;
        const REAL keep = pair && s->d_x_zo == s->d_x_if; /* one tensor is both inputs */
        for (integer r = 0; r < rows; r++) {
            const REAL *from = x + r * strides[0], *d_from = d_gates + r * wide;
            REAL *to = d_x + r * to_row;
            NAME(copy)(length, inner, from, strides[1], inputs + r * inner, rows * inner);
            if (inner == padded) {
                NAME(multiply)(length, padded, 2 * width, d_from, rows * wide, 1, weights, 0, to, to_step, keep);
            } else { /* whole vectors would write beyond the tensor */
                if (keep != 0) NAME(copy)(length, inner, to, to_step, draft, padded);
                NAME(multiply)(length, padded, 2 * width, d_from, rows * wide, 1, weights, 0, draft, padded, keep);
                NAME(copy)(length, inner, draft, padded, to, to_step);
            }
        }
        NAME(multiply)(inner, pair_wide, length * rows, inputs, 1, inner, d_gates, wide, d_w + pair * inner * pair_wide,
                       pair_wide, 1);
    }
}

static TARGET int NAME(slstm_backward)(const void *call, integer item) {
    const struct slstm *s = call;
    const integer head = item % s->heads, tile = item / s->heads, first = tile * s->tile;
    const integer rows = s->batch - first < s->tile ? s->batch - first : s->tile;
    const integer heads = s->heads, width = s->width, steps = s->steps, padded = round_up(width, LANES);
    const integer matrix = width * width, state = rows * padded, row0 = (first * heads + head) * width;
    const integer row = heads * width, out_row = steps * row, most = chunk_steps(s), chunks = (steps + most - 1) / most;
    const integer wide = round_up(4 * width, LANES), pair_wide = round_up(2 * width, LANES);
    const integer inner = s->d_x_if ? s->inner : 0, inner_padded = round_up(inner, LANES);
    const integer by_row = s->d_hidden_strides[0], by_step = s->d_hidden_strides[1];
    const REAL *weights = (const REAL *)s->weights + head * matrix;
    const REAL *hidden = (const REAL *)s->hidden + first * out_row + head * width;
    const REAL *saved = (const REAL *)s->saved + (head * s->batch + first) * steps * KEPT * padded;
    const REAL *starts = (const REAL *)s->saved + heads * s->batch * steps * KEPT * padded +
                         (head * s->batch + first) * chunks * 2 * padded;
    const REAL *arriving =
        s->d_hidden ? (const REAL *)s->d_hidden + first * by_row + head * s->d_hidden_strides[2] : 0;

    integer of_layer = 4 * width * inner_padded + 2 * inner * pair_wide + most * rows * inner + most * inner_padded;
    integer numbers = 4 * width * padded + (3 + 4) * state + width * wide + wide + (most + 1) * 2 * state +
                      most * state + most * rows * wide + LANES + of_layer;
    REAL *memory = reserve(numbers * sizeof(REAL));
    if (!memory) return 1;
    REAL *packed = memory, *dh = packed + 4 * width * padded, *dc = dh + state, *dn = dc + state, *rough = dn + state;
    REAL *states = rough + 4 * state, *before = states + (most + 1) * 2 * state, *d_weights = before + most * state;
    REAL *d_bias = d_weights + width * wide, *packed_back = d_bias + wide, *d_w = packed_back + 4 * width * inner_padded;
    REAL *raw = d_w + 2 * inner * pair_wide, *inputs = raw + most * rows * wide + LANES;
    REAL *draft = inputs + most * rows * inner;

    for (integer gate = 0; gate < 4; gate++)
        for (integer j = 0; j < width; j += LANES)
            NAME(transpose)(width - j < LANES ? width - j : LANES, width, weights + gate * heads * matrix + j * width,
                            width, packed + NAME(packed)(gate * width, j, 4 * width, padded),
                            NAME(panel_width)(j, padded));
    if (inner) {
        NAME(pack_pair_back)(s, (const REAL *)s->w_if + head * s->w_strides[0], packed_back);
        NAME(pack_pair_back)(s, (const REAL *)s->w_zo + head * s->w_strides[0], packed_back + 2 * width * inner_padded);
    }
    if (s->d_h) NAME(copy)(rows, width, (const REAL *)s->d_h + row0, row, dh, padded);
    if (s->d_c) NAME(copy)(rows, width, (const REAL *)s->d_c + row0, row, dc, padded);
    if (s->d_n) NAME(copy)(rows, width, (const REAL *)s->d_n + row0, row, dn, padded);

    for (integer chunk = chunks - 1; chunk >= 0; chunk--) {
        const integer start = chunk * most, length = steps - start < most ? steps - start : most;
        const REAL *kept = saved + start * KEPT * state;
        memcpy(states, starts + chunk * 2 * state, 2 * state * sizeof(REAL));
        NAME(replay)(length, rows, padded, kept, states);
        for (integer r = 0; r < rows; r++) {
            const REAL *h = hidden + r * out_row + (start - 1) * row;
            if (start)
                NAME(copy)(1, width, h, row, before + r * padded, state);
            else
                NAME(copy)(1, width, (const REAL *)s->h0 + row0 + r * row, row, before + r * padded, state);
            NAME(copy)(length - 1, width, h + row, row, before + state + r * padded, state);
            if (start && arriving)
                NAME(prefetch)(most, width, arriving + r * by_row + (start - most) * by_step, by_step);
        }
        for (integer t = length - 1; t >= 0; t--) {
            REAL *raw_t = raw + t * rows * wide;
            if (arriving) {
                const REAL *now = arriving + (start + t) * by_step;
                for (integer r = 0; r < rows; r++)
                    for (integer k = 0; k < width; k++) dh[r * padded + k] += now[r * by_row + k];
            }
            const REAL *kept_t = kept + t * KEPT * state, *state_t = states + t * 2 * state;
            if (width == padded) {
                NAME(cell_back)(rows, padded, kept_t, state_t, state_t + 2 * state, dh, dc, dn, raw_t, wide, width);
            } else {
                NAME(cell_back)
                (rows, padded, kept_t, state_t, state_t + 2 * state, dh, dc, dn, rough, 4 * padded, padded);
                for (integer gate = 0; gate < 4; gate++)
                    NAME(copy)(rows, width, rough + gate * padded, 4 * padded, raw_t + gate * width, wide);
            }
            NAME(multiply)(rows, padded, 4 * width, raw_t, wide, 1, packed, 0, dh, padded, 0);
        }
        if (s->d_weights)
            NAME(multiply)(width, wide, length * rows, before, 1, padded, raw, wide, d_weights, wide, 1);
        if (s->d_bias)
            for (integer r = 0; r < length * rows; r++) NAME(add)(wide, 1, raw + r * wide, d_bias);
        if (s->d_gates)
            for (integer r = 0; r < rows; r++)
                for (integer gate = 0; gate < 4; gate++)
                    NAME(copy)(length, width, raw + r * wide + gate * width, rows * wide,
                               (REAL *)s->d_gates + (first + r) * s->gates_strides[0] + start * s->gates_strides[1] +
                                   head * s->gates_strides[2] + s->gate_offsets[gate],
                               s->gates_strides[1]);
        if (inner)
            NAME(project_chunk_back)(s, head, first, rows, start, length, raw, packed_back, d_w, inputs, draft);
    }
    NAME(copy)(rows, width, dh, padded, (REAL *)s->d_h0 + row0, row);
    NAME(copy)(rows, width, dc, padded, (REAL *)s->d_c0 + row0, row);
    NAME(copy)(rows, width, dn, padded, (REAL *)s->d_n0 + row0, row);
    for (integer gate = 0; gate < 4; gate++) {
        if (s->d_weights)
            NAME(copy)(width, width, d_weights + gate * width, wide,
                       (REAL *)s->d_weights + ((tile * 4 + gate) * heads + head) * matrix, width);
        if (s->d_bias)
            NAME(copy)(1, width, d_bias + gate * width, wide,
                       (REAL *)s->d_bias + ((tile * 4 + gate) * heads + head) * width, width);
    }
    for (int pair = 0; pair < 2 && inner; pair++)
        NAME(copy)(inner, 2 * width, d_w + pair * inner * pair_wide, pair_wide,
                   (REAL *)(pair ? s->d_w_zo : s->d_w_if) + (tile * heads + head) * inner * 2 * width, 2 * width);
    release(memory);
    return 0;
}
