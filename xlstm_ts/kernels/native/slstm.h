/* sLSTM; compiled once per instruction set and number type.
 *
 * Work is cut into tiles of a few batch rows of one head. A tile runs the whole sequence by itself, with its state and
 * recurrent weights in the nearest cache. Equations of section 2.2 of Beck et al. 2024; the backward is derived in
 * docs/kernels.md, "The backward of sLSTM". P = K rounded up to whole vectors.
 */

/* One step of the cell for the rows of a tile. x: gate pre-activations; rec: their recurrent part, [rows, 4, P]; kept:
 * [rows, KEPT, P]. Three short loops instead of one: the chains of dependent operations of several iterations overlap. */
static TARGET void NAME(activate)(const int exp_forget, integer rows, integer padded, const REAL *restrict x,
                                  integer x_row, integer x_gate, const REAL *restrict rec, REAL *restrict kept,
                                  REAL *restrict below) {
    for (integer r = 0; r < rows; r++) {
        for (integer v = 0; v < padded; v += LANES) {
            const REAL *xf = x + r * x_row + x_gate + v, *rf = rec + (4 * r + 1) * padded + v;
            REAL *slopes = kept + (r * KEPT + 1) * padded + v, *unders = below + r * padded + v;
            if (exp_forget) {
                for (integer l = 0; l < LANES; l++) slopes[l] = 1;
                continue;
            }
#pragma GCC ivdep
            for (integer l = 0; l < LANES; l++) {
                REAL f_raw = xf[l] + rf[l];
                REAL u = MATH(exp_negative)(-MATH(abs)(f_raw));
                slopes[l] = (f_raw > 0 ? u : (REAL)1) / (1 + u); /* sigmoid(-f_raw) */
                unders[l] = MATH(log1p_unit)(u); /* log f = min(f_raw, 0) - this */
            }
        }
    }
    for (integer r = 0; r < rows; r++) {
        for (integer v = 0; v < padded; v += LANES) {
            const REAL *xz = x + r * x_row + 2 * x_gate + v, *xo = xz + x_gate;
            const REAL *rz = rec + (4 * r + 2) * padded + v, *ro = rz + padded;
            REAL *zs = kept + (r * KEPT + 2) * padded + v, *os = zs + padded;
#pragma GCC ivdep
            for (integer l = 0; l < LANES; l++) {
                zs[l] = MATH(tanh)(xz[l] + rz[l]);
                REAL o_raw = xo[l] + ro[l];
                REAL u = MATH(exp_negative)(-MATH(abs)(o_raw));
                os[l] = (o_raw < 0 ? u : (REAL)1) / (1 + u);
            }
        }
    }
}

INLINE TARGET void NAME(cell)(const int exp_forget, integer rows, integer padded, const REAL *restrict x,
                              integer x_row, integer x_gate, const REAL *restrict rec, REAL *restrict kept,
                              const REAL *restrict below, REAL *restrict c, REAL *restrict n, double *restrict m,
                              REAL *restrict h) {
    for (integer r = 0; r < rows; r++) {
        for (integer v = 0; v < padded; v += LANES) {
            const REAL *xi = x + r * x_row + v, *xf = xi + x_gate, *unders = below + r * padded + v;
            const REAL *ri = rec + 4 * r * padded + v, *rf = ri + padded;
            REAL *cs = c + r * padded + v, *ns = n + r * padded + v, *hs = h + r * padded + v;
            double *ms = m + r * padded + v;
            REAL *k0 = kept + r * KEPT * padded + v;
#pragma GCC ivdep
            for (integer l = 0; l < LANES; l++) {
                double log_i = (double)xi[l] + (double)ri[l];
                double log_f = (double)xf[l] + (double)rf[l];
                if (!exp_forget) log_f = (log_f > 0 ? 0.0 : log_f) - (double)unders[l];
                log_f += ms[l];
                double ahead = log_i - log_f;
                ms[l] = ahead > 0 ? log_i : log_f;
                REAL gap = (REAL)ahead;
                REAL e = MATH(exp_negative)(-MATH(abs)(gap));
                REAL i = gap > 0 ? (REAL)1 : e; /* one of the two is 1 */
                REAL f = gap > 0 ? e : (REAL)1;
                REAL cell = f * cs[l] + i * k0[l + 2 * padded], norm = f * ns[l] + i;
                cs[l] = cell;
                ns[l] = norm;
                hs[l] = cell / norm * k0[l + 3 * padded];
                k0[l] = MATH(sign)(e, gap);
                k0[l + 4 * padded] = cell;
                k0[l + 5 * padded] = norm;
            }
        }
    }
}

/* One step back. d_h is complete, dc and dn come from the step after; raw: gradients of the pre-activations. */
static TARGET void NAME(cell_back)(integer rows, integer padded, const REAL *restrict kept, const REAL *restrict c0,
                                   const REAL *restrict n0, integer before_row, const REAL *restrict dh,
                                   REAL *restrict dc, REAL *restrict dn, REAL *restrict raw, integer raw_row,
                                   integer raw_gate) {
    for (integer r = 0; r < rows; r++) {
        for (integer v = 0; v < padded; v += LANES) {
            const REAL *k0 = kept + r * KEPT * padded + v;
            const REAL *c_before = c0 + r * before_row + v, *n_before = n0 + r * before_row + v;
            const REAL *dhs = dh + r * padded + v;
            REAL *dcs = dc + r * padded + v, *dns = dn + r * padded + v;
            REAL *d_i = raw + r * raw_row + v, *d_f = d_i + raw_gate, *d_z = d_f + raw_gate, *d_o = d_z + raw_gate;
#pragma GCC ivdep
            for (integer l = 0; l < LANES; l++) {
                REAL e = MATH(abs)(k0[l]);
                int opened = MATH(sign)((REAL)1, k0[l]) > 0;
                REAL i = opened ? (REAL)1 : e, f = opened ? e : (REAL)1;
                REAL slope = k0[l + padded], z = k0[l + 2 * padded], o = k0[l + 3 * padded];
                REAL inverse = 1 / k0[l + 5 * padded];
                REAL ratio = k0[l + 4 * padded] * inverse;
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

/* Gates of the rows of a tile from their inputs, for `count` steps from t on: to[step, row, gate, P]. packed holds the
 * weights of i and f, those of z and o, and the biases. */
static TARGET void NAME(project_gates)(const struct slstm *s, integer head, integer first, integer rows, integer t,
                                       integer count, const REAL *packed, REAL *to) {
    const integer padded = round_up(s->width, LANES), row = s->heads * s->inner, pair = s->inner * 2 * padded;
    const REAL *bias = packed + 2 * pair;
    for (integer j = 0; j < count * rows; j++) memcpy(to + j * 4 * padded, bias, 4 * padded * sizeof(REAL));
    for (integer r = 0; r < rows; r++, to += 4 * padded) {
        const integer from = ((first + r) * s->steps + t) * row + head * s->inner;
        NAME(multiply)(count, 2 * padded, s->inner, (const REAL *)s->gate_input + from, row, 1, packed, 0, to,
                       rows * 4 * padded, 1);
        NAME(multiply)(count, 2 * padded, s->inner, (const REAL *)s->x + from, row, 1, packed + pair, 0,
                       to + 2 * padded, rows * 4 * padded, 1);
    }
}

/* The weights and biases of a head as project_gates reads them; the memory is 0 before. */
static TARGET void NAME(pack_gates)(const struct slstm *s, integer head, REAL *packed) {
    const integer padded = round_up(s->width, LANES), pair = s->inner * 2 * padded;
    for (integer gate = 0; gate < 4; gate++) {
        const REAL *w = (const REAL *)(gate < 2 ? s->w_if : s->w_zo) + head * s->inner * 2 * s->width;
        for (integer j = 0; j < s->inner; j++)
            for (integer k = 0; k < s->width; k++)
                packed[gate / 2 * pair + NAME(packed)(j, gate % 2 * padded + k, s->inner, 2 * padded)] =
                    w[(2 * j + gate % 2) * s->width + k];
        memcpy(packed + 2 * pair + gate * padded, (const REAL *)s->bias + (gate * s->heads + head) * s->width,
               s->width * sizeof(REAL));
    }
}

static TARGET int NAME(slstm_forward)(const void *call, integer item) {
    const struct slstm *s = call;
    const integer head = item % s->heads, first = item / s->heads * s->tile;
    const integer rows = s->batch - first < s->tile ? s->batch - first : s->tile;
    const integer heads = s->heads, width = s->width, steps = s->steps, padded = round_up(width, LANES);
    const integer matrix = width * width, state = rows * padded, row0 = (first * heads + head) * width;
    const integer row = heads * width, out_row = steps * row;
    const integer by_row = s->gates_strides[0], by_step = s->gates_strides[1], by_gate = s->gates_strides[2];
    const REAL *x = (const REAL *)s->gates + first * by_row + head * s->gates_strides[3];
    const REAL *weights = (const REAL *)s->weights + head * matrix;
    REAL *out = (REAL *)s->hidden + first * out_row + head * width;
    REAL *saved = s->saved ? (REAL *)s->saved + (head * s->batch + first) * steps * KEPT * padded : 0;

    const integer ahead = s->x ? AHEAD : 1;
    integer numbers = width * 4 * padded + (4 + 4 * ahead + 4 + KEPT) * state + (4 * s->inner + 4) * padded;
    double *memory = calloc(state + numbers, sizeof(double));
    if (!memory) return 1;
    double *m = memory;
    REAL *packed = (REAL *)(m + state), *rec = packed + width * 4 * padded, *inputs = rec + 4 * state;
    REAL *h = inputs + 4 * ahead * state, *c = h + state, *n = c + state, *below = n + state;
    REAL *unused = below + state, *projection = unused + KEPT * state;

    if (s->x) NAME(pack_gates)(s, head, projection);
    for (integer gate = 0; gate < 4; gate++)
        for (integer j = 0; j < width; j++)
            for (integer k = 0; k < width; k++)
                packed[NAME(packed)(j, gate * padded + k, width, 4 * padded)] =
                    weights[gate * heads * matrix + j * width + k];
    for (integer j = 0; j < state; j++) n[j] = 1; /* in the padding, c / n must stay finite */
    NAME(copy)(rows, width, (const REAL *)s->h0 + row0, row, h, padded);
    NAME(copy)(rows, width, (const REAL *)s->c0 + row0, row, c, padded);
    NAME(copy)(rows, width, (const REAL *)s->n0 + row0, row, n, padded);
    for (integer r = 0; r < rows; r++) memcpy(m + r * padded, s->m0 + row0 + r * row, width * sizeof(double));

    for (integer t = 0; t < steps; t++, x += by_step) {
        if (!s->x && t + 1 < steps)
            for (integer gate = 0; gate < 4; gate++) NAME(prefetch)(rows, width, x + by_step + gate * by_gate, by_row);
        NAME(multiply)(rows, 4 * padded, width, h, padded, 1, packed, 0, rec, 4 * padded, 0);
        const REAL *read = x;
        integer x_row = by_row, x_gate = by_gate;
        if (s->x) {
            const integer count = steps - t < AHEAD ? steps - t : AHEAD;
            if (t % AHEAD == 0) NAME(project_gates)(s, head, first, rows, t, count, projection, inputs);
            read = inputs + t % AHEAD * 4 * state, x_row = 4 * padded, x_gate = padded;
        } else if (width != padded) { /* whole vectors would read beyond the tensor */
            for (integer gate = 0; gate < 4; gate++)
                NAME(copy)(rows, width, x + gate * by_gate, by_row, inputs + gate * padded, 4 * padded);
            read = inputs, x_row = 4 * padded, x_gate = padded;
        }
        REAL *kept = saved ? saved + t * KEPT * state : unused;
        NAME(activate)(s->exp_forget, rows, padded, read, x_row, x_gate, rec, kept, below);
        if (s->exp_forget)
            NAME(cell)(1, rows, padded, read, x_row, x_gate, rec, kept, below, c, n, m, h);
        else
            NAME(cell)(0, rows, padded, read, x_row, x_gate, rec, kept, below, c, n, m, h);
        NAME(copy)(rows, width, h, padded, out + t * row, out_row);
    }
    NAME(copy)(rows, width, h, padded, (REAL *)s->h + row0, row);
    NAME(copy)(rows, width, c, padded, (REAL *)s->c + row0, row);
    NAME(copy)(rows, width, n, padded, (REAL *)s->n + row0, row);
    for (integer r = 0; r < rows; r++) memcpy(s->m + row0 + r * row, m + r * padded, width * sizeof(double));
    free(memory);
    return 0;
}

static TARGET int NAME(slstm_backward)(const void *call, integer item) {
    const struct slstm *s = call;
    const integer head = item % s->heads, first = item / s->heads * s->tile;
    const integer rows = s->batch - first < s->tile ? s->batch - first : s->tile;
    const integer heads = s->heads, width = s->width, steps = s->steps, padded = round_up(width, LANES);
    const integer matrix = width * width, state = rows * padded, row0 = (first * heads + head) * width;
    const integer row = heads * width, out_row = steps * row, wide = round_up(4 * width, LANES);
    const integer kept_step = rows * KEPT * padded, by_row = s->d_hidden_strides[0], by_step = s->d_hidden_strides[1];
    const REAL *weights = (const REAL *)s->weights + head * matrix;
    const REAL *hidden = (const REAL *)s->hidden + first * out_row + head * width;
    const REAL *saved = (const REAL *)s->saved + (head * s->batch + first) * steps * KEPT * padded;
    const REAL *arriving =
        s->d_hidden ? (const REAL *)s->d_hidden + first * by_row + head * s->d_hidden_strides[2] : 0;
    REAL *d_gates = (REAL *)s->d_gates + first * s->gates_strides[0] + head * s->gates_strides[3];

    integer numbers = 4 * width * padded + 6 * state + 4 * state + rows * wide + width * wide;
    REAL *memory = calloc(numbers, sizeof(REAL));
    if (!memory) return 1;
    REAL *packed = memory, *dh = packed + 4 * width * padded, *dc = dh + state, *dn = dc + state;
    REAL *h = dn + state, *c = h + state, *n = c + state, *rough = n + state, *raw = rough + 4 * state;
    REAL *d_weights = raw + rows * wide;

    for (integer gate = 0; gate < 4; gate++)
        for (integer j = 0; j < width; j++)
            for (integer k = 0; k < width; k++)
                packed[NAME(packed)(gate * width + k, j, 4 * width, padded)] =
                    weights[gate * heads * matrix + j * width + k];
    NAME(copy)(rows, width, (const REAL *)s->c0 + row0, row, c, padded);
    NAME(copy)(rows, width, (const REAL *)s->n0 + row0, row, n, padded);
    if (s->d_h) NAME(copy)(rows, width, (const REAL *)s->d_h + row0, row, dh, padded);
    if (s->d_c) NAME(copy)(rows, width, (const REAL *)s->d_c + row0, row, dc, padded);
    if (s->d_n) NAME(copy)(rows, width, (const REAL *)s->d_n + row0, row, dn, padded);

    for (integer t = steps - 1; t >= 0; t--) {
        const REAL *kept = saved + t * kept_step, *before = hidden + (t - 1) * row;
        if (arriving) {
            const REAL *now = arriving + t * by_step;
            if (t) NAME(prefetch)(rows, width, now - by_step, by_row);
            for (integer r = 0; r < rows; r++)
                for (integer k = 0; k < width; k++) dh[r * padded + k] += now[r * by_row + k];
        }
        if (s->d_weights && t > 1) NAME(prefetch)(rows, width, before - row, out_row);
        const REAL *c_before = t ? kept - kept_step + 4 * padded : c, *n_before = t ? c_before + padded : n;
        integer before_row = t ? KEPT * padded : padded;
        if (width == padded) {
            NAME(cell_back)(rows, padded, kept, c_before, n_before, before_row, dh, dc, dn, raw, wide, width);
        } else {
            NAME(cell_back)
            (rows, padded, kept, c_before, n_before, before_row, dh, dc, dn, rough, 4 * padded, padded);
            for (integer gate = 0; gate < 4; gate++)
                NAME(copy)(rows, width, rough + gate * padded, 4 * padded, raw + gate * width, wide);
        }
        for (integer gate = 0; gate < 4; gate++)
            NAME(copy)(rows, width, raw + gate * width, wide,
                       d_gates + t * s->gates_strides[1] + gate * s->gates_strides[2], s->gates_strides[0]);
        NAME(multiply)(rows, padded, 4 * width, raw, wide, 1, packed, 0, dh, padded, 0);
        if (s->d_weights) {
            if (t)
                NAME(copy)(rows, width, before, out_row, h, padded);
            else
                NAME(copy)(rows, width, (const REAL *)s->h0 + row0, row, h, padded);
            NAME(multiply)(width, wide, rows, h, 1, padded, raw, wide, d_weights, wide, 1);
        }
    }
    NAME(copy)(rows, width, dh, padded, (REAL *)s->d_h0 + row0, row);
    NAME(copy)(rows, width, dc, padded, (REAL *)s->d_c0 + row0, row);
    NAME(copy)(rows, width, dn, padded, (REAL *)s->d_n0 + row0, row);
    if (s->d_weights) {
        REAL *to = (REAL *)s->d_weights + (first / s->tile * 4 * heads + head) * matrix;
        for (integer gate = 0; gate < 4; gate++)
            NAME(copy)(width, width, d_weights + gate * width, wide, to + gate * heads * matrix, width);
    }
    free(memory);
    return 0;
}
