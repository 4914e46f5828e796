/* What surrounds the cells in a block: linear maps, the causal convolution, gates and norms; compiled once per
 * instruction set and number type.
 *
 * Each stands for several passes of torch over large tensors. In their backward, what is cheap is computed again instead
 * of kept. The gradient of a weight is summed in slabs of rows whose number depends on the sizes alone, so that it is
 * the same for any number of threads.
 */

/* --- y = x w + bias, for every group (head) by itself --- */

/* Rearranges the weights into panels of two vectors, and the bias, if any, into whole ones behind all of them. */
static TARGET int NAME(pack)(const struct linear *s) {
    const integer padded = round_up(s->columns, LANES);
    REAL *packed = s->packed;
    for (integer group = 0; group < s->groups; group++, packed += s->inner * padded) {
        const REAL *w = (const REAL *)s->w + group * s->w_group;
        for (integer column = 0; column < padded; column += 2 * LANES) {
            const integer wide = padded - column < 2 * LANES ? LANES : 2 * LANES;
            const integer most = s->columns - column < wide ? s->columns - column : wide;
            REAL *to = packed + column * s->inner;
            if (most < wide) memset(to, 0, s->inner * wide * sizeof(REAL));
            if (s->w_column == 1)
                for (integer j = 0; j < s->inner; j++)
                    memcpy(to + j * wide, w + j * s->w_inner + column, most * sizeof(REAL));
            else if (s->w_inner == 1)
                NAME(transpose)(most, s->inner, w + column * s->w_column, s->w_column, to, wide);
            else
                for (integer c = 0; c < most; c++)
                    for (integer j = 0; j < s->inner; j++)
                        to[j * wide + c] = w[j * s->w_inner + (column + c) * s->w_column];
        }
    }
    if (s->bias) NAME(copy)(s->groups, s->columns, s->bias, s->columns, packed, padded);
    return 0;
}

static TARGET int NAME(linear)(const void *call, integer item) {
    const struct linear *s = call;
    const integer group = item % s->groups, first = item / s->groups * LINEAR_ROWS;
    const integer rows = s->rows - first < LINEAR_ROWS ? s->rows - first : LINEAR_ROWS;
    const integer padded = round_up(s->columns, LANES);
    const REAL *packed = (const REAL *)s->packed + group * s->inner * padded;
    const REAL *x = (const REAL *)s->x + first * s->x_row + group * s->x_group;
    REAL *y = (REAL *)s->y + first * s->y_row + group * s->y_group;
    const REAL *bias = s->bias ? (const REAL *)s->packed + (s->groups * s->inner + group) * padded : 0;
    REAL *to = y;
    integer to_row = s->y_row;
    if (padded != s->columns) { /* whole vectors would write beyond the row */
        to = reserve(rows * padded * sizeof(REAL));
        if (!to) return 1;
        to_row = padded;
        if (s->add) NAME(copy)(rows, s->columns, y, s->y_row, to, to_row);
    }
    NAME(multiply_from)(rows, padded, s->inner, x, s->x_row, 1, packed, 0, to, to_row, s->add, bias);
    if (to != y) {
        NAME(copy)(rows, s->columns, to, to_row, y, s->y_row);
        release(to);
    }
    return 0;
}

/* --- The gradient of w: sum over rows of left^T right, and the sums of one of the two for the bias --- */

static TARGET int NAME(linear_weight)(const void *call, integer item) {
    const struct linear_weight *s = call;
    const integer group = item % s->groups, slab = item / s->groups;
    const integer from = slab * s->rows / s->slabs, to = (slab + 1) * s->rows / s->slabs;
    const integer padded = round_up(s->right_width, LANES), summed = s->sum_right ? s->right_width : s->left_width;
    REAL *sum = reserve((s->left_width * padded + LINEAR_ROWS * (padded + s->left_width)) * sizeof(REAL));
    if (!sum) return 1;
    REAL *right = sum + s->left_width * padded, *left = right + LINEAR_ROWS * padded;
    REAL *sums = s->sums ? (REAL *)s->sums + (slab * s->groups + group) * summed : 0;
    if (sums) memset(sums, 0, summed * sizeof(REAL));
    for (integer first = from; first < to; first += LINEAR_ROWS) {
        const integer rows = to - first < LINEAR_ROWS ? to - first : LINEAR_ROWS;
        const REAL *l = (const REAL *)s->left + first * s->left_row + group * s->left_group;
        const REAL *r = (const REAL *)s->right + first * s->right_row + group * s->right_group;
        NAME(copy)(rows, s->right_width, r, s->right_row, right, padded);
        integer left_row = s->left_row;
        if (s->groups > 1) { /* rows far apart share few sets of the nearest cache */
            NAME(copy)(rows, s->left_width, l, left_row, left, s->left_width);
            l = left, left_row = s->left_width;
        }
        NAME(multiply)(s->left_width, padded, rows, l, 1, left_row, right, padded, sum, padded, 1);
        if (sums) {
            const REAL *row = s->sum_right ? right : l;
            for (integer j = 0; j < rows; j++, row += s->sum_right ? padded : left_row)
                for (integer c = 0; c < summed; c++) sums[c] += row[c];
        }
    }
    REAL *out = (REAL *)s->out + (slab * s->groups + group) * s->left_width * s->right_width;
    NAME(copy)(s->left_width, s->right_width, sum, padded, out, s->right_width);
    release(sum);
    return 0;
}

/* --- Causal convolution and SiLU, one batch row at a time --- */

/* The input at step t of the tail and x joined. */
INLINE const REAL *NAME(conv_row)(const struct conv *s, integer batch, integer t) {
    const integer before = s->size - 1;
    if (t < before) return (const REAL *)s->tail + (batch * before + t) * s->width;
    return (const REAL *)s->x + batch * s->x_batch + (t - before) * s->x_step;
}

/* The weights by steps, [size, D], and the bias behind them. */
INLINE TARGET void NAME(conv_weights)(const struct conv *s, REAL *w) {
    NAME(transpose)(s->width, s->size, (const REAL *)s->w, s->size, w, s->width);
    memcpy(w + s->size * s->width, s->bias, s->width * sizeof(REAL));
}

INLINE TARGET void NAME(conv_sums)(const struct conv *s, integer batch, integer t, const REAL *w, REAL *restrict sums) {
    memcpy(sums, w + s->size * s->width, s->width * sizeof(REAL));
    for (integer j = 0; j < s->size; j++) {
        const REAL *x = NAME(conv_row)(s, batch, t + j), *weight = w + j * s->width;
        for (integer d = 0; d < s->width; d++) sums[d] += weight[d] * x[d];
    }
}

static TARGET int NAME(conv)(const void *call, integer batch) {
    const struct conv *s = call;
    REAL *w = reserve((s->size + 1) * s->width * sizeof(REAL));
    if (!w) return 1;
    NAME(conv_weights)(s, w);
    for (integer t = 0; t < s->steps; t++) {
        REAL *y = (REAL *)s->y + (batch * s->steps + t) * s->width;
        NAME(conv_sums)(s, batch, t, w, y);
#pragma GCC ivdep
        for (integer d = 0; d < s->width; d++) y[d] *= MATH(sigmoid)(y[d]);
    }
    release(w);
    return 0;
}

static TARGET int NAME(conv_back)(const void *call, integer batch) {
    const struct conv *s = call;
    const integer width = s->width, size = s->size;
    REAL *w = reserve((size + 2) * width * sizeof(REAL));
    if (!w) return 1;
    REAL *slope = w + (size + 1) * width;
    REAL *d_w = (REAL *)s->d_w + batch * (size + 1) * width; /* [size + 1, D], the bias last */
    REAL *d_tail = (REAL *)s->d_tail + batch * (size - 1) * width;
    REAL *d_x = (REAL *)s->d_x + batch * s->steps * width;
    NAME(conv_weights)(s, w);
    memset(d_w, 0, (size + 1) * width * sizeof(REAL));
    memset(d_tail, 0, (size - 1) * width * sizeof(REAL));
    memset(d_x, 0, s->steps * width * sizeof(REAL));
    for (integer t = 0; t < s->steps; t++) {
        const REAL *d_y = (const REAL *)s->d_y + batch * s->d_y_batch + t * s->d_y_step;
        NAME(conv_sums)(s, batch, t, w, slope);
#pragma GCC ivdep
        for (integer d = 0; d < width; d++) {
            REAL open = MATH(sigmoid)(slope[d]);
            slope[d] = d_y[d] * open * (1 + slope[d] * (1 - open));
        }
        for (integer j = 0; j <= size; j++) {
            REAL *d_weight = d_w + j * width;
            if (j == size) {
                for (integer d = 0; d < width; d++) d_weight[d] += slope[d];
                continue;
            }
            const REAL *x = NAME(conv_row)(s, batch, t + j), *weight = w + j * width;
            REAL *d_row = t + j < size - 1 ? d_tail + (t + j) * width : d_x + (t + j - size + 1) * width;
#pragma GCC ivdep
            for (integer d = 0; d < width; d++) {
                d_weight[d] += slope[d] * x[d];
                d_row[d] += slope[d] * weight[d];
            }
        }
    }
    release(w);
    return 0;
}

/* --- gelu(a) * b --- */

static TARGET int NAME(gelu_gate)(const void *call, integer item) {
    const struct gelu_gate *s = call;
    const integer last = (item + 1) * GATE_ROWS < s->rows ? (item + 1) * GATE_ROWS : s->rows;
    for (integer r = item * GATE_ROWS; r < last; r++) {
        const REAL *a = (const REAL *)s->x + 2 * r * s->width, *b = a + s->width;
        const REAL *d_y = s->d_y ? (const REAL *)s->d_y + r * s->width : 0;
        REAL *y = s->y ? (REAL *)s->y + r * s->width : 0;
        REAL *d_a = s->d_x ? (REAL *)s->d_x + 2 * r * s->width : 0, *d_b = d_a + s->width;
        if (!d_y) {
#pragma GCC ivdep
            for (integer c = 0; c < s->width; c++) {
                REAL density;
                y[c] = a[c] * MATH(gauss)(a[c], &density) * b[c];
            }
        } else {
#pragma GCC ivdep
            for (integer c = 0; c < s->width; c++) {
                REAL density, below = MATH(gauss)(a[c], &density);
                d_b[c] = d_y[c] * a[c] * below;
                d_a[c] = d_y[c] * b[c] * (below + a[c] * density);
            }
        }
    }
    return 0;
}

/* --- (norm(x) * weight + residual * skip) * silu(gate), the norm over each head --- */

INLINE TARGET REAL NAME(total)(integer count, const REAL *x) {
    VEC sum = {0};
    integer j = 0;
    for (; j + LANES <= count; j += LANES) sum += *(const VEC *)(x + j);
    REAL total = 0;
    for (integer l = 0; l < LANES; l++) total += sum[l];
    for (; j < count; j++) total += x[j];
    return total;
}

INLINE TARGET REAL NAME(inner)(integer count, const REAL *x, const REAL *y) {
    const integer whole = count / LANES * LANES;
    REAL total = NAME(dot)(whole, x, y);
    for (integer j = whole; j < count; j++) total += x[j] * y[j];
    return total;
}

/* One head of one step to mean 0 and variance 1; returns the factor. */
INLINE TARGET REAL NAME(standardise)(integer width, const REAL *restrict x, REAL *restrict to) {
    const REAL mean = NAME(total)(width, x) / width;
    for (integer j = 0; j < width; j++) to[j] = x[j] - mean;
    const REAL factor = 1 / MATH(root)(NAME(inner)(width, to, to) / width + (REAL)1e-5);
    for (integer j = 0; j < width; j++) to[j] *= factor;
    return factor;
}

static TARGET int NAME(norm_gate)(const void *call, integer item) {
    const struct norm_gate *s = call;
    const integer last = (item + 1) * GATE_ROWS < s->rows ? (item + 1) * GATE_ROWS : s->rows;
    const integer width = s->heads * s->width;
    const REAL *weight = s->weight, *residual = s->residual;
    for (integer r = item * GATE_ROWS; r < last; r++) {
        const REAL *x = (const REAL *)s->x + r * width;
        REAL *y = (REAL *)s->y + r * width;
        for (integer head = 0; head < s->heads; head++)
            NAME(standardise)(s->width, x + head * s->width, y + head * s->width);
        if (!s->gate) {
            for (integer c = 0; c < width; c++) y[c] *= weight[c];
            continue;
        }
        const REAL *skip = (const REAL *)s->skip + r * width, *gate = (const REAL *)s->gate + r * s->gate_row;
#pragma GCC ivdep
        for (integer c = 0; c < width; c++)
            y[c] = (y[c] * weight[c] + residual[c] * skip[c]) * (gate[c] * MATH(sigmoid)(gate[c]));
    }
    return 0;
}

static TARGET int NAME(norm_gate_back)(const void *call, integer item) {
    const struct norm_gate *s = call;
    const integer last = (item + 1) * GATE_ROWS < s->rows ? (item + 1) * GATE_ROWS : s->rows;
    const integer width = s->heads * s->width;
    const REAL *weight = s->weight, *residual = s->residual;
    REAL *d_weight = (REAL *)s->d_weight + item * width, *d_residual = (REAL *)s->d_residual + item * width;
    memset(d_weight, 0, width * sizeof(REAL));
    if (s->gate) memset(d_residual, 0, width * sizeof(REAL));
    REAL *unit = reserve(2 * width * sizeof(REAL));
    if (!unit) return 1;
    REAL *arriving = unit + width; /* at the standardised values */
    for (integer r = item * GATE_ROWS; r < last; r++) {
        const REAL *x = (const REAL *)s->x + r * width, *d_y = (const REAL *)s->d_y + r * s->d_y_row;
        REAL *d_x = (REAL *)s->d_x + r * width;
        for (integer head = 0; head < s->heads; head++) /* the factor waits where it is needed */
            d_x[head * s->width] = NAME(standardise)(s->width, x + head * s->width, unit + head * s->width);
        if (s->gate) {
            const REAL *skip = (const REAL *)s->skip + r * width, *gate = (const REAL *)s->gate + r * s->gate_row;
            REAL *d_skip = (REAL *)s->d_skip + r * width, *d_gate = (REAL *)s->d_gate + r * width;
#pragma GCC ivdep
            for (integer c = 0; c < width; c++) {
                REAL open = MATH(sigmoid)(gate[c]), mixed = unit[c] * weight[c] + residual[c] * skip[c];
                REAL d_mixed = d_y[c] * gate[c] * open;
                d_gate[c] = d_y[c] * mixed * open * (1 + gate[c] * (1 - open));
                d_skip[c] = d_mixed * residual[c];
                d_residual[c] += d_mixed * skip[c];
                d_weight[c] += d_mixed * unit[c];
                arriving[c] = d_mixed * weight[c];
            }
        } else {
#pragma GCC ivdep
            for (integer c = 0; c < width; c++) {
                d_weight[c] += d_y[c] * unit[c];
                arriving[c] = d_y[c] * weight[c];
            }
        }
        for (integer head = 0; head < s->heads; head++) {
            const REAL *u = unit + head * s->width, *a = arriving + head * s->width;
            REAL *to = d_x + head * s->width;
            const REAL factor = to[0];
            const REAL mean = NAME(total)(s->width, a) / s->width, along = NAME(inner)(s->width, a, u) / s->width;
            for (integer j = 0; j < s->width; j++) to[j] = factor * (a[j] - mean - u[j] * along);
        }
    }
    release(unit);
    return 0;
}

/* --- down(gelu(a) * b) with a and b = up(norm(x)): pieces of rows stay in the second-level cache --- */

/* A matrix [rows, columns] into panels; `columns` is a multiple of LANES. */
static TARGET void NAME(pack_rows)(integer rows, integer columns, const REAL *from, REAL *to) {
    for (integer column = 0; column < columns; column += LANES)
        NAME(copy)(rows, LANES, from + column, columns, to + NAME(packed)(0, column, rows, columns),
                   NAME(panel_width)(column, columns));
}

/* A matrix [columns, rows] likewise, transposed. */
static TARGET void NAME(pack_columns)(integer rows, integer columns, const REAL *from, REAL *to) {
    for (integer column = 0; column < columns; column += LANES)
        NAME(transpose)(LANES, rows, from + column * rows, rows, to + NAME(packed)(0, column, rows, columns),
                        NAME(panel_width)(column, columns));
}

static TARGET void NAME(feed_forward_pack)(const struct feed_forward *s) {
    NAME(pack_columns)(s->width, 2 * s->inner, s->up, s->packed);
    NAME(pack_columns)(s->inner, s->width, s->down, (REAL *)s->packed + 2 * s->inner * s->width);
}

static TARGET void NAME(feed_forward_pack_back)(const struct feed_forward *s) {
    NAME(pack_rows)(2 * s->inner, s->width, s->up, s->packed);
    NAME(pack_rows)(s->width, s->inner, s->down, (REAL *)s->packed + 2 * s->inner * s->width);
}

static TARGET int NAME(feed_forward)(const void *call, integer item) {
    const struct feed_forward *s = call;
    const integer width = s->width, inner = s->inner, first = item * LINEAR_ROWS;
    const integer rows = s->rows - first < LINEAR_ROWS ? s->rows - first : LINEAR_ROWS;
    const REAL *x = (const REAL *)s->x + first * width, *up = s->packed, *down = up + 2 * inner * width;
    const REAL *weight = s->norm_weight, *bias = s->norm_bias;
    REAL *memory = reserve(rows * (width + 3 * inner) * sizeof(REAL));
    if (!memory) return 1;
    REAL *normed = memory, *product = normed + rows * width;
    REAL *wide = s->wide ? (REAL *)s->wide + first * 2 * inner : product + rows * inner;
    for (integer r = 0; r < rows; r++) {
        REAL *to = normed + r * width;
        NAME(standardise)(width, x + r * width, to);
        for (integer c = 0; c < width; c++) to[c] = to[c] * weight[c] + bias[c];
    }
    NAME(multiply_from)(rows, 2 * inner, width, normed, width, 1, up, 0, wide, 2 * inner, 0, s->up_bias);
    for (integer r = 0; r < rows; r++) {
        const REAL *a = wide + 2 * r * inner, *b = a + inner;
        REAL *to = product + r * inner;
#pragma GCC ivdep
        for (integer c = 0; c < inner; c++) {
            REAL density;
            to[c] = a[c] * MATH(gauss)(a[c], &density) * b[c];
        }
    }
    NAME(multiply_from)(rows, width, inner, product, inner, 1, down, 0, (REAL *)s->y + first * width, width, 0,
                        s->down_bias);
    release(memory);
    return 0;
}

static TARGET int NAME(feed_forward_back)(const void *call, integer slab) {
    const struct feed_forward *s = call;
    const integer width = s->width, inner = s->inner;
    const integer from = slab * s->rows / s->slabs, to = (slab + 1) * s->rows / s->slabs;
    const REAL *up = s->packed, *down = up + 2 * inner * width, *weight = s->norm_weight, *bias = s->norm_bias;
    REAL *memory = reserve((3 * width * inner + LINEAR_ROWS * (3 * width + 4 * inner)) * sizeof(REAL));
    if (!memory) return 1;
    REAL *d_up = memory, *d_down = d_up + 2 * inner * width, *unit = d_down + inner * width;
    REAL *normed = unit + LINEAR_ROWS * width, *d_normed = normed + LINEAR_ROWS * width;
    REAL *product = d_normed + LINEAR_ROWS * width, *d_product = product + LINEAR_ROWS * inner;
    REAL *d_wide = d_product + LINEAR_ROWS * inner;
    REAL *d_weight = (REAL *)s->d_norm_weight + slab * width, *d_bias = (REAL *)s->d_norm_bias + slab * width;
    REAL *d_up_bias = (REAL *)s->d_up_bias + slab * 2 * inner, *d_down_bias = (REAL *)s->d_down_bias + slab * width;
    memset(d_weight, 0, width * sizeof(REAL));
    memset(d_bias, 0, width * sizeof(REAL));
    memset(d_up_bias, 0, 2 * inner * sizeof(REAL));
    memset(d_down_bias, 0, width * sizeof(REAL));
    for (integer first = from; first < to; first += LINEAR_ROWS) {
        const integer rows = to - first < LINEAR_ROWS ? to - first : LINEAR_ROWS;
        const REAL *x = (const REAL *)s->x + first * width, *wide = (const REAL *)s->wide + first * 2 * inner;
        const REAL *d_y = (const REAL *)s->d_y + first * s->d_y_row;
        REAL *d_x = (REAL *)s->d_x + first * width;
        NAME(multiply)(rows, inner, width, d_y, s->d_y_row, 1, down, 0, d_product, inner, 0);
        for (integer r = 0; r < rows; r++) {
            const REAL *a = wide + 2 * r * inner, *b = a + inner, *d = d_product + r * inner;
            REAL *d_a = d_wide + 2 * r * inner, *d_b = d_a + inner, *p = product + r * inner;
            REAL *u = unit + r * width, *y = normed + r * width;
#pragma GCC ivdep
            for (integer c = 0; c < inner; c++) {
                REAL density, below = MATH(gauss)(a[c], &density), open = a[c] * below;
                p[c] = open * b[c];
                d_b[c] = d[c] * open;
                d_a[c] = d[c] * b[c] * (below + a[c] * density);
            }
            d_x[r * width] = NAME(standardise)(width, x + r * width, u); /* the factor waits where it is needed */
            for (integer c = 0; c < width; c++) y[c] = u[c] * weight[c] + bias[c];
            NAME(add)(2 * inner, 1, d_a, d_up_bias);
            NAME(add)(width, 1, d_y + r * s->d_y_row, d_down_bias);
        }
        NAME(multiply)(width, inner, rows, d_y, 1, s->d_y_row, product, inner, d_down, inner, 1);
        NAME(multiply)(2 * inner, width, rows, d_wide, 1, 2 * inner, normed, width, d_up, width, 1);
        NAME(multiply)(rows, width, 2 * inner, d_wide, 2 * inner, 1, up, 0, d_normed, width, 0);
        for (integer r = 0; r < rows; r++) {
            REAL *d = d_normed + r * width, *out = d_x + r * width;
            const REAL *u = unit + r * width;
            const REAL factor = out[0];
#pragma GCC ivdep
            for (integer c = 0; c < width; c++) {
                d_bias[c] += d[c];
                d_weight[c] += d[c] * u[c];
                d[c] *= weight[c];
            }
            const REAL mean = NAME(total)(width, d) / width, along = NAME(dot)(width, d, u) / width;
            for (integer c = 0; c < width; c++) out[c] = factor * (d[c] - mean - u[c] * along);
        }
    }
    memcpy((REAL *)s->d_up + slab * 2 * inner * width, d_up, 2 * inner * width * sizeof(REAL));
    memcpy((REAL *)s->d_down + slab * inner * width, d_down, inner * width * sizeof(REAL));
    release(memory);
    return 0;
}
