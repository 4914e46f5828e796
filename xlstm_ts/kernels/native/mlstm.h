/* mLSTM by chunks; compiled once per instruction set and number type.
 *
 * One head of one batch row is one piece of work and runs through all its chunks, with its memory and the chunk in the
 * nearest caches. The form and its backward are derived in docs/kernels.md, "The chunkwise form of mLSTM"; the running
 * sum F of the log forget gates starts anew in every chunk, so that it never grows. K key width, V value width, L steps
 * of a chunk; a P behind a letter says: rounded up to whole vectors. What lies in that padding is 0 or never read.
 */

/* What a chunk needs, all in one piece of memory. */
struct NAME(chunk) {
    integer length; /* steps, at most L */
    double *b, *running, *m; /* [LP] i - F, M, and the stabiliser F + M */
    REAL *slope, *write, *read; /* [LP] slope of log f, weight of a write at the end, of the memory before in a read */
    REAL carry, *past, *future, *d_dot, *suffix; /* [LP] for the backward */
    REAL *q, *k, *v, *kt, *vt; /* [L, KP], [L, KP], [L, VP], [K, LP], [V, LP] */
    REAL *scores, *d_scores, *pairs; /* [L, LP] */
    REAL *y, *dy, *dv, *dq, *dk, *far; /* [L, VP] thrice, [L, KP] thrice */
    REAL *c, *n, *ct; /* [K, VP], [KP], [V, KP] */
    REAL *d_c, *d_n, *d_ct;
};

/* Cuts memory into the arrays of a chunk; those of the backward only if asked for. Returns its start, or NULL. */
static void *NAME(chunk_memory)(const struct mlstm *s, struct NAME(chunk) * w, int backward) {
    const integer width = s->width, value_width = s->value_width, length = s->chunk;
    const integer kp = round_up(width, LANES), vp = round_up(value_width, LANES), lp = round_up(length, LANES);
    integer back = backward ? 1 : 0;
    integer numbers = 3 * lp + 2 * length * kp + 2 * length * vp + width * lp + length * lp + width * vp + kp +
                      back * (4 * lp + value_width * lp + 2 * length * lp + 2 * length * vp + 3 * length * kp +
                              2 * value_width * kp + width * vp + kp);
    double *memory = reserve(3 * lp * sizeof(double) + numbers * sizeof(REAL));
    if (!memory) return 0;
    w->b = memory;
    w->running = w->b + lp, w->m = w->running + lp;
    REAL *next = (REAL *)(w->m + lp);
#define TAKE(name, count) w->name = next, next += (count)
    TAKE(slope, lp), TAKE(write, lp), TAKE(read, lp);
    TAKE(q, length * kp), TAKE(k, length * kp), TAKE(v, length * vp), TAKE(y, length * vp);
    TAKE(kt, width * lp), TAKE(scores, length * lp), TAKE(c, width * vp), TAKE(n, kp);
    if (backward) {
        TAKE(past, lp), TAKE(future, lp), TAKE(d_dot, lp), TAKE(suffix, lp);
        TAKE(vt, value_width * lp), TAKE(d_scores, length * lp), TAKE(pairs, length * lp);
        TAKE(dy, length * vp), TAKE(dv, length * vp);
        TAKE(dq, length * kp), TAKE(dk, length * kp), TAKE(far, length * kp);
        TAKE(ct, value_width * kp), TAKE(d_ct, value_width * kp), TAKE(d_c, width * vp), TAKE(d_n, kp);
    }
#undef TAKE
    return memory;
}

/* Reads the gates of a chunk that starts at the stabiliser m, and derives its weights. */
static TARGET void NAME(chunk_gates)(const struct mlstm *s, struct NAME(chunk) * w, const REAL *i, const REAL *f,
                                     double m) {
    const integer length = w->length, padded = round_up(length, LANES);
    REAL *raw = w->write, *under = w->read; /* not needed yet */
    for (integer t = 0; t < length; t++) {
        w->b[t] = i[t * s->i_strides[1]];
        raw[t] = f[t * s->f_strides[1]];
    }
    if (s->exp_forget) {
        for (integer t = 0; t < length; t++) w->slope[t] = 1, w->running[t] = raw[t];
    } else {
#pragma GCC ivdep
        for (integer t = 0; t < padded; t++) {
            REAL u = MATH(exp_negative)(-MATH(abs)(raw[t]));
            w->slope[t] = (raw[t] > 0 ? u : (REAL)1) / (1 + u); /* sigmoid(-raw) */
            under[t] = MATH(log1p_unit)(u);
        }
        for (integer t = 0; t < length; t++)
            w->running[t] = (raw[t] > 0 ? 0.0 : (double)raw[t]) - (double)under[t]; /* log f */
    }
    double sum = 0, largest = m;
    for (integer t = 0; t < length; t++) {
        sum += w->running[t];
        w->b[t] -= sum;
        largest = w->b[t] > largest ? w->b[t] : largest;
        w->running[t] = largest;
        w->m[t] = sum + largest;
    }
    w->carry = MATH(exp_negative)((REAL)(m - largest));
#pragma GCC ivdep
    for (integer t = 0; t < padded; t++) {
        w->write[t] = MATH(exp_negative)((REAL)(w->b[t] - largest));
        w->read[t] = MATH(exp_negative)((REAL)(m - w->running[t]));
    }
}

/* Inside a chunk all products run over blocks of rows, up to the diagonal. */
enum { NAME(DIAGONAL) = 16 };

/* A single step of which nothing is kept: each number of the memory is read once, changed, written and used. */
static TARGET int NAME(mlstm_step)(const void *call, integer item) {
    const struct mlstm *s = call;
    const integer batch = item / s->heads, head = item % s->heads;
    const integer width = s->width, value_width = s->value_width;
    const REAL *q = (const REAL *)s->q + batch * s->q_strides[0] + head * s->q_strides[2];
    const REAL *k = (const REAL *)s->k + batch * s->k_strides[0] + head * s->k_strides[2];
    const REAL *v = (const REAL *)s->v + batch * s->v_strides[0] + head * s->v_strides[2];
    const REAL i = ((const REAL *)s->i)[batch * s->i_strides[0] + head * s->i_strides[2]];
    const REAL f = ((const REAL *)s->f)[batch * s->f_strides[0] + head * s->f_strides[2]];
    const REAL *c0 = (const REAL *)s->c0 + item * width * value_width, *n0 = (const REAL *)s->n0 + item * width;
    REAL *c = (REAL *)s->c + item * width * value_width, *n = (REAL *)s->n + item * width;
    REAL *h = (REAL *)s->h + item * value_width;

    double log_f = f;
    if (!s->exp_forget)
        log_f = (f > 0 ? 0.0 : f) - (double)MATH(log1p_unit)(MATH(exp_negative)(-MATH(abs)(f)));
    const double from = s->m0[item], b = (double)i - log_f, m = b > from ? b : from;
    const REAL carry = MATH(exp_negative)((REAL)(from - m)), write = MATH(exp_negative)((REAL)(b - m));
    const REAL factor = write * (REAL)(1 / sqrt((double)width));
    const integer whole = width / LANES * LANES;
#pragma GCC ivdep
    for (integer j = 0; j < width; j++) n[j] = carry * n0[j] + factor * k[j];
    REAL read = NAME(dot)(whole, n, q);
    for (integer j = whole; j < width; j++) read += n[j] * q[j];
    REAL size = MATH(abs)(read), floor = MATH(exp_any)(-(log_f + m));
    floor = floor < MATH(tiny) ? MATH(tiny) : floor;
    const REAL inverse = 1 / (size > floor ? size : size <= floor ? floor : size);
    integer first = 0;
    for (; first + 2 * LANES <= value_width; first += 2 * LANES) {
        const VEC v0 = *(const VEC *)(v + first), v1 = *(const VEC *)(v + first + LANES);
        VEC y0 = {0}, y1 = {0};
        for (integer j = 0; j < width; j++) {
            const integer at = j * value_width + first;
            const REAL key = factor * k[j];
            VEC row0 = carry * *(const VEC *)(c0 + at) + key * v0;
            VEC row1 = carry * *(const VEC *)(c0 + at + LANES) + key * v1;
            *(VEC *)(c + at) = row0, *(VEC *)(c + at + LANES) = row1;
            y0 += q[j] * row0, y1 += q[j] * row1;
        }
        *(VEC *)(h + first) = y0 * inverse, *(VEC *)(h + first + LANES) = y1 * inverse;
    }
    for (; first < value_width; first++) {
        REAL y = 0;
        for (integer j = 0; j < width; j++) {
            const integer at = j * value_width + first;
            c[at] = carry * c0[at] + factor * k[j] * v[first];
            y += q[j] * c[at];
        }
        h[first] = y * inverse;
    }
    s->m[item] = log_f + m;
    return 0;
}

static TARGET int NAME(mlstm_forward)(const void *call, integer item) {
    const struct mlstm *s = call;
    if (s->steps == 1 && !s->scales) return NAME(mlstm_step)(call, item);
    const integer batch = item / s->heads, head = item % s->heads;
    const integer width = s->width, value_width = s->value_width;
    const integer kp = round_up(width, LANES), vp = round_up(value_width, LANES), lp = round_up(s->chunk, LANES);
    const integer chunks = (s->steps + s->chunk - 1) / s->chunk;
    const REAL scale = (REAL)(1 / sqrt((double)width));
    struct NAME(chunk) w;
    void *memory = NAME(chunk_memory)(s, &w, 0);
    if (!memory) return 1;

    const REAL *q = (const REAL *)s->q + batch * s->q_strides[0] + head * s->q_strides[2];
    const REAL *k = (const REAL *)s->k + batch * s->k_strides[0] + head * s->k_strides[2];
    const REAL *v = (const REAL *)s->v + batch * s->v_strides[0] + head * s->v_strides[2];
    const REAL *i = (const REAL *)s->i + batch * s->i_strides[0] + head * s->i_strides[2];
    const REAL *f = (const REAL *)s->f + batch * s->f_strides[0] + head * s->f_strides[2];
    const integer out_step = s->heads * value_width;
    REAL *h = (REAL *)s->h + batch * s->steps * out_step + head * value_width;
    REAL *scales = s->scales ? (REAL *)s->scales + item * s->steps * 2 : 0;
    NAME(copy)(width, value_width, (const REAL *)s->c0 + item * width * value_width, value_width, w.c, vp);
    NAME(copy)(1, width, (const REAL *)s->n0 + item * width, width, w.n, kp);
    double m = s->m0[item];

    for (integer chunk = 0; chunk < chunks; chunk++) {
        const integer start = chunk * s->chunk;
        const integer length = s->steps - start < s->chunk ? s->steps - start : s->chunk;
        w.length = length;
        if (scales) {
            REAL *memories = (REAL *)s->memories + (item * chunks + chunk) * (width * vp + kp);
            memcpy(memories, w.c, width * vp * sizeof(REAL));
            memcpy(memories + width * vp, w.n, kp * sizeof(REAL));
            s->starts[item * chunks + chunk] = m;
        }
        NAME(copy)(length, width, q + start * s->q_strides[1], s->q_strides[1], w.q, kp);
        NAME(copy)(length, width, k + start * s->k_strides[1], s->k_strides[1], w.k, kp);
        NAME(copy)(length, value_width, v + start * s->v_strides[1], s->v_strides[1], w.v, vp);
        for (integer j = 0; j < length * kp; j++) w.k[j] *= scale;
        NAME(chunk_gates)(s, &w, i + start * s->i_strides[1], f + start * s->f_strides[1], m);
        NAME(transpose)(length, width, w.k, kp, w.kt, lp);

        for (integer top = 0; top < length; top += NAME(DIAGONAL)) {
            const integer below = top + NAME(DIAGONAL) < length ? top + NAME(DIAGONAL) : length;
            const integer columns = round_up(below, LANES);
            NAME(multiply)(below - top, columns, width, w.q + top * kp, kp, 1, w.kt, lp, w.scores + top * lp, lp, 0);
            for (integer t = top; t < below; t++) {
                REAL *row = w.scores + t * lp;
                const double largest = w.running[t];
#pragma GCC ivdep
                for (integer j = 0; j < columns; j++) {
                    REAL weighted = MATH(exp_negative)((REAL)(w.b[j] - largest)) * row[j];
                    row[j] = j <= t ? weighted : (REAL)0; /* a choice, not a factor: beyond t stands anything */
                }
            }
            NAME(multiply)(below - top, vp, below, w.scores + top * lp, lp, 1, w.v, vp, w.y + top * vp, vp, 0);
            for (integer t = top; t < below; t++) {
                VEC sum = {0};
                for (integer j = 0; j < columns; j += LANES) sum += *(const VEC *)(w.scores + t * lp + j);
                REAL read = 0; /* n . q */
                for (integer l = 0; l < LANES; l++) read += sum[l];
                REAL *row = w.q + t * kp;
                for (integer j = 0; j < kp; j++) row[j] *= w.read[t];
                w.slope[t] = read + NAME(dot)(kp, row, w.n);
            }
        }
        NAME(multiply)(length, vp, width, w.q, kp, 1, w.c, vp, w.y, vp, 1);

        for (integer t = 0; t < length; t++) {
            REAL read = w.slope[t], size = MATH(abs)(read), floor = MATH(exp_any)(-w.m[t]);
            floor = floor < MATH(tiny) ? MATH(tiny) : floor;
            REAL inverse = 1 / (size > floor ? size : size <= floor ? floor : size); /* NaN stays NaN */
            REAL *row = w.y + t * vp;
            for (integer j = 0; j < vp; j++) row[j] *= inverse;
            if (scales) {
                scales[(start + t) * 2] = inverse;
                scales[(start + t) * 2 + 1] = size > floor ? MATH(sign)(inverse, read) : (REAL)0;
            }
        }
        NAME(copy)(length, value_width, w.y, vp, h + start * out_step, out_step);

        for (integer t = 0; t < length; t++)
            for (integer j = 0; j < kp; j++) w.k[t * kp + j] *= w.write[t];
        NAME(multiply)(width, vp, length, w.k, 1, kp, w.v, vp, w.c, vp, w.carry);
        for (integer j = 0; j < kp; j++) w.n[j] *= w.carry;
        for (integer t = 0; t < length; t++) NAME(add)(kp, 1, w.k + t * kp, w.n);
        m = w.m[length - 1];
    }
    NAME(copy)(width, value_width, w.c, vp, (REAL *)s->c + item * width * value_width, value_width);
    NAME(copy)(1, width, w.n, kp, (REAL *)s->n + item * width, width);
    s->m[item] = m;
    release(memory);
    return 0;
}

static TARGET int NAME(mlstm_backward)(const void *call, integer item) {
    const struct mlstm *s = call;
    const integer batch = item / s->heads, head = item % s->heads;
    const integer width = s->width, value_width = s->value_width;
    const integer kp = round_up(width, LANES), vp = round_up(value_width, LANES), lp = round_up(s->chunk, LANES);
    const integer chunks = (s->steps + s->chunk - 1) / s->chunk;
    const REAL scale = (REAL)(1 / sqrt((double)width));
    struct NAME(chunk) w;
    void *memory = NAME(chunk_memory)(s, &w, 1);
    if (!memory) return 1;

    const REAL *q = (const REAL *)s->q + batch * s->q_strides[0] + head * s->q_strides[2];
    const REAL *k = (const REAL *)s->k + batch * s->k_strides[0] + head * s->k_strides[2];
    const REAL *v = (const REAL *)s->v + batch * s->v_strides[0] + head * s->v_strides[2];
    const REAL *i = (const REAL *)s->i + batch * s->i_strides[0] + head * s->i_strides[2];
    const REAL *f = (const REAL *)s->f + batch * s->f_strides[0] + head * s->f_strides[2];
    const REAL *d_h = s->d_h ? (const REAL *)s->d_h + batch * s->d_h_strides[0] + head * s->d_h_strides[2] : 0;
    const integer key_step = s->heads * width, value_step = s->heads * value_width;
    const integer key_first = batch * s->steps * key_step + head * width;
    const integer value_first = batch * s->steps * value_step + head * value_width;
    const REAL *h = (const REAL *)s->h + value_first;
    REAL *d_q = (REAL *)s->d_q + key_first, *d_k = (REAL *)s->d_k + key_first, *d_v = (REAL *)s->d_v + value_first;
    REAL *d_i = (REAL *)s->d_i + batch * s->steps * s->heads + head;
    REAL *d_f = (REAL *)s->d_f + batch * s->steps * s->heads + head;
    const REAL *scales = (const REAL *)s->scales + item * s->steps * 2;
    if (s->d_c)
        NAME(copy)(width, value_width, (const REAL *)s->d_c + item * width * value_width, value_width, w.d_c, vp);
    if (s->d_n) NAME(copy)(1, width, (const REAL *)s->d_n + item * width, width, w.d_n, kp);

    for (integer chunk = chunks - 1; chunk >= 0; chunk--) {
        const integer start = chunk * s->chunk;
        const integer length = s->steps - start < s->chunk ? s->steps - start : s->chunk;
        const REAL *c = (const REAL *)s->memories + (item * chunks + chunk) * (width * vp + kp), *n = c + width * vp;
        w.length = length;
        NAME(copy)(length, width, q + start * s->q_strides[1], s->q_strides[1], w.q, kp);
        NAME(copy)(length, width, k + start * s->k_strides[1], s->k_strides[1], w.k, kp);
        NAME(copy)(length, value_width, v + start * s->v_strides[1], s->v_strides[1], w.v, vp);
        for (integer j = 0; j < length * kp; j++) w.k[j] *= scale;
        NAME(chunk_gates)(s, &w, i + start * s->i_strides[1], f + start * s->f_strides[1], s->starts[item * chunks + chunk]);
        NAME(transpose)(length, width, w.k, kp, w.kt, lp);
        NAME(transpose)(length, value_width, w.v, vp, w.vt, lp);
        NAME(transpose)(width, value_width, c, vp, w.ct, kp);
        NAME(transpose)(width, value_width, w.d_c, vp, w.d_ct, kp);

        /* Through the denominator. */
        for (integer t = 0; t < length; t++) {
            REAL *dy = w.dy + t * vp;
            w.d_dot[t] = 0;
            if (!d_h) {
                memset(dy, 0, vp * sizeof(REAL));
                continue;
            }
            REAL *out = w.y + t * vp;
            memcpy(dy, d_h + (start + t) * s->d_h_strides[1], value_width * sizeof(REAL));
            memcpy(out, h + (start + t) * value_step, value_width * sizeof(REAL));
            w.d_dot[t] = -scales[(start + t) * 2 + 1] * NAME(dot)(vp, dy, out);
            for (integer j = 0; j < vp; j++) dy[j] *= scales[(start + t) * 2];
        }

        /* Pairs of steps inside the chunk. */
        for (integer top = 0; top < length; top += NAME(DIAGONAL)) {
            const integer below = top + NAME(DIAGONAL) < length ? top + NAME(DIAGONAL) : length;
            const integer columns = round_up(below, LANES), rows = below - top;
            NAME(multiply)(rows, columns, width, w.q + top * kp, kp, 1, w.kt, lp, w.scores + top * lp, lp, 0);
            NAME(multiply)(rows, columns, value_width, w.dy + top * vp, vp, 1, w.vt, lp, w.d_scores + top * lp, lp, 0);
            for (integer t = top; t < below; t++) {
                REAL *score = w.scores + t * lp, *d_score = w.d_scores + t * lp, *pair = w.pairs + t * lp;
                const REAL d_dot = w.d_dot[t];
                const double largest = w.running[t];
#pragma GCC ivdep
                for (integer j = 0; j < columns; j++) {
                    REAL weight = MATH(exp_negative)((REAL)(w.b[j] - largest));
                    REAL weighted = weight * score[j], arriving = d_score[j] + d_dot;
                    score[j] = j <= t ? weighted : (REAL)0;
                    d_score[j] = j <= t ? weight * arriving : (REAL)0;
                    pair[j] = j <= t ? weighted * arriving : (REAL)0;
                }
            }
            NAME(multiply)(rows, kp, below, w.d_scores + top * lp, lp, 1, w.k, kp, w.dq + top * kp, kp, 0);
        }
        for (integer top = 0; top < length; top += NAME(DIAGONAL)) {
            const integer below = top + NAME(DIAGONAL) < length ? top + NAME(DIAGONAL) : length, rows = below - top;
            const integer diagonal = top * lp + top, later = length - top;
            NAME(multiply)(rows, kp, later, w.d_scores + diagonal, 1, lp, w.q + top * kp, kp, w.dk + top * kp, kp, 0);
            NAME(multiply)(rows, vp, later, w.scores + diagonal, 1, lp, w.dy + top * vp, vp, w.dv + top * vp, vp, 0);
        }

        /* Reads of the memory before the chunk, and writes that last beyond it. */
        NAME(multiply)(length, kp, value_width, w.dy, vp, 1, w.ct, kp, w.far, kp, 0);
        for (integer t = 0; t < length; t++) {
            REAL *far = w.far + t * kp, *row = w.q + t * kp;
            NAME(add)(kp, w.d_dot[t], n, far);
            for (integer j = 0; j < kp; j++) row[j] *= w.read[t];
            w.past[t] = NAME(dot)(kp, row, far);
            NAME(add)(kp, w.read[t], far, w.dq + t * kp);
        }
        NAME(multiply)(length, kp, value_width, w.v, vp, 1, w.d_ct, kp, w.far, kp, 0);
        for (integer t = 0; t < length; t++) {
            REAL *far = w.far + t * kp, *row = w.k + t * kp;
            NAME(add)(kp, 1, w.d_n, far);
            for (integer j = 0; j < kp; j++) row[j] *= w.write[t];
            w.future[t] = NAME(dot)(kp, row, far);
            NAME(add)(kp, w.write[t], far, w.dk + t * kp);
        }
        NAME(multiply)(length, vp, width, w.k, kp, 1, w.d_c, vp, w.dv, vp, 1);
        REAL through = NAME(dot)(kp, n, w.d_n);
        for (integer j = 0; j < width; j++) through += NAME(dot)(vp, c + j * vp, w.d_c + j * vp);
        through *= w.carry;

        NAME(multiply)(width, vp, length, w.q, 1, kp, w.dy, vp, w.d_c, vp, w.carry);
        for (integer j = 0; j < kp; j++) w.d_n[j] *= w.carry;
        for (integer t = 0; t < length; t++) NAME(add)(kp, w.d_dot[t], w.q + t * kp, w.d_n);

        /* The gates. suffix[j]: sum of the pairs (t', j) with t' >= t; those with j < t are the ones that cross f_t. */
        memset(w.suffix, 0, lp * sizeof(REAL));
        REAL past = 0, before = 0;
        for (integer t = length - 1; t >= 0; t--) {
            const integer columns = round_up(t + 1, LANES);
            VEC sum = {0};
            for (integer j = 0; j < columns; j += LANES) *(VEC *)(w.suffix + j) += *(const VEC *)(w.pairs + t * lp + j);
            for (integer j = 0; j + LANES <= t; j += LANES) sum += *(const VEC *)(w.suffix + j);
            REAL crossing = 0;
            for (integer l = 0; l < LANES; l++) crossing += sum[l];
            for (integer j = t / LANES * LANES; j < t; j++) crossing += w.suffix[j];
            past += w.past[t];
            w.past[t] = crossing + past;
        }
        for (integer t = 0; t < length; t++) {
            d_i[(start + t) * s->heads] = w.suffix[t] + w.future[t];
            d_f[(start + t) * s->heads] = (w.past[t] + before + through) * w.slope[t];
            before += w.future[t];
        }
        for (integer j = 0; j < length * kp; j++) w.dk[j] *= scale;
        NAME(copy)(length, width, w.dq, kp, d_q + start * key_step, key_step);
        NAME(copy)(length, width, w.dk, kp, d_k + start * key_step, key_step);
        NAME(copy)(length, value_width, w.dv, vp, d_v + start * value_step, value_step);
    }
    NAME(copy)(width, value_width, w.d_c, vp, (REAL *)s->d_c0 + item * width * value_width, value_width);
    NAME(copy)(1, width, w.d_n, kp, (REAL *)s->d_n0 + item * width, width);
    release(memory);
    return 0;
}

#include "readout.h"
