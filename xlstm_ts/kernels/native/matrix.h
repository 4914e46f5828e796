/* Small matrix products and what goes with them; compiled once per instruction set and number type.
 *
 * A product keeps a block of results in registers, broadcasts numbers of its left factor and reads vectors of its right
 * one. With both in the nearest caches this runs at the machine's peak. A sum always runs over its terms in one order,
 * however many rows there are.
 */

#define VEC NAME(vec)
typedef REAL VEC __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));
#define LANES ((integer)(VECTOR / sizeof(REAL)))

/* One register block: c[r, v] = keep * c[r, v] + sum over j < inner of a[r, j] * b[j, v], for `rows` rows and `vecs`
 * vectors; from[v] instead of keep * c[r, v] where it is given. Where keep is 0, what stood in c does not matter. */
INLINE TARGET void NAME(block)(const int rows, const int vecs, integer inner, const REAL *a, integer a_row,
                               integer a_step, const REAL *b, integer b_step, REAL *c, integer c_row, REAL keep,
                               const REAL *from) {
    VEC sum[ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) {
            sum[r][v] = (VEC){0};
            if (from)
                sum[r][v] = *(const VEC *)(from + v * LANES);
            else if (keep != 0)
                sum[r][v] = keep * *(const VEC *)(c + r * c_row + v * LANES);
        }
    for (integer j = 0; j < inner; j++) {
        VEC right[2];
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) right[v] = *(const VEC *)(b + j * b_step + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            REAL left = a[r * a_row + j * a_step];
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) sum[r][v] += left * right[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) *(VEC *)(c + r * c_row + v * LANES) = sum[r][v];
}

INLINE TARGET void NAME(panel)(const int vecs, integer rows, integer inner, const REAL *a, integer a_row,
                               integer a_step, const REAL *b, integer b_step, REAL *c, integer c_row, REAL keep,
                               const REAL *from) {
    const int most = VECTOR == 32 ? 4 : ROWS; /* AVX2 has 16 registers, the others 32 (or little to lose) */
    integer r = 0;
    for (; r + most <= rows; r += most)
        NAME(block)(most, vecs, inner, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, keep, from);
    if (r + 4 <= rows) {
        NAME(block)(4, vecs, inner, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, keep, from);
        r += 4;
    }
    for (; r < rows; r++)
        NAME(block)(1, vecs, inner, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, keep, from);
}

/* How many columns a panel holds side by side that starts at `column` of so many. */
INLINE integer NAME(panel_width)(integer column, integer columns) {
    return columns - column / (2 * LANES) * (2 * LANES) < 2 * LANES ? LANES : 2 * LANES;
}

/* Where element (row, column) of a matrix lies when it is packed in panels of two vectors. */
INLINE integer NAME(packed)(integer row, integer column, integer rows, integer columns) {
    integer start = column / (2 * LANES) * (2 * LANES);
    return start * rows + row * NAME(panel_width)(column, columns) + (column - start);
}

/* c = keep * c + a @ b, or a row `from` added to a @ b where it is given; `columns` is a multiple of LANES. b_step 0 says
 * that b is packed in panels of two vectors. */
static TARGET __attribute__((noinline)) void NAME(multiply_from)(integer rows, integer columns, integer inner,
                                                                 const REAL *a, integer a_row, integer a_step,
                                                                 const REAL *b, integer b_step, REAL *c, integer c_row,
                                                                 REAL keep, const REAL *from) {
    for (integer v = 0; v < columns; v += 2 * LANES) {
        const REAL *part = b_step ? b + v : b + v * inner, *row = from ? from + v : 0;
        if (columns - v >= 2 * LANES)
            NAME(panel)(2, rows, inner, a, a_row, a_step, part, b_step ? b_step : 2 * LANES, c + v, c_row, keep, row);
        else
            NAME(panel)(1, rows, inner, a, a_row, a_step, part, b_step ? b_step : LANES, c + v, c_row, keep, row);
    }
}

INLINE TARGET void NAME(multiply)(integer rows, integer columns, integer inner, const REAL *a, integer a_row,
                                  integer a_step, const REAL *b, integer b_step, REAL *c, integer c_row, REAL keep) {
    NAME(multiply_from)(rows, columns, inner, a, a_row, a_step, b, b_step, c, c_row, keep, 0);
}

/* Copies rows of `width` numbers: mostly short ones, for which calling memcpy would cost more than copying. */
static TARGET __attribute__((noinline)) void NAME(copy)(integer rows, integer width, const REAL *from, integer from_row,
                                                        REAL *to, integer to_row) {
    for (integer r = 0; r < rows; r++, from += from_row, to += to_row) {
        integer k = 0;
        for (; k + LANES <= width; k += LANES) *(VEC *)(to + k) = *(const VEC *)(from + k);
        for (; k < width; k++) to[k] = from[k];
    }
}

static __attribute__((noinline)) void NAME(prefetch)(integer rows, integer width, const REAL *from, integer row) {
    /* Into the second level: the rows often lie whole pages apart, and would evict each other from the first. */
    for (integer r = 0; r < rows; r++)
        for (integer k = 0; k < width; k += 64 / sizeof(REAL)) __builtin_prefetch(from + r * row + k, 0, 2);
}

#if defined(__clang__) /* has no shuffle by a variable */
#define WHOLE_BLOCKS 0
#else
#define WHOLE_BLOCKS 1
typedef MATH(index) NAME(ivec) __attribute__((vector_size(VECTOR), may_alias));

/* A square block of whole vectors: swaps the two off-diagonal quarters, then those of each quarter, and so on. */
INLINE TARGET void NAME(transpose_block)(const REAL *from, integer from_row, REAL *to, integer to_row) {
    const NAME(ivec) lane = *(const NAME(ivec) *)MATH(count);
    VEC rows[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) rows[r] = *(const VEC *)(from + r * from_row);
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2) {
        const NAME(ivec) right = (lane & half) != 0; /* all bits set where true */
        const NAME(ivec) upper = lane + (right & (MATH(index))(LANES - half)), lower = upper + half;
#pragma GCC unroll 16
        for (int r = 0; r < LANES; r++) {
            if (r & half) continue;
            VEC a = rows[r], b = rows[r + half];
            rows[r] = __builtin_shuffle(a, b, upper);
            rows[r + half] = __builtin_shuffle(a, b, lower);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) *(VEC *)(to + r * to_row) = rows[r];
}
#endif

/* to[c, r] = from[r, c]. */
static TARGET __attribute__((noinline)) void NAME(transpose)(integer rows, integer columns, const REAL *from,
                                                             integer from_row, REAL *to, integer to_row) {
    const integer whole_rows = WHOLE_BLOCKS * rows / LANES * LANES, whole = WHOLE_BLOCKS * columns / LANES * LANES;
#if WHOLE_BLOCKS
    for (integer r = 0; r < whole_rows; r += LANES)
        for (integer c = 0; c < whole; c += LANES)
            NAME(transpose_block)(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
#endif
    for (integer c = 0; c < columns; c++)
        for (integer r = c < whole ? whole_rows : 0; r < rows; r++) to[c * to_row + r] = from[r * from_row + c];
}

/* sum over j < count of a[j] * b[j]; `count` is a multiple of LANES. */
static TARGET __attribute__((noinline)) REAL NAME(dot)(integer count, const REAL *a, const REAL *b) {
    VEC sum = {0};
    for (integer j = 0; j < count; j += LANES) sum += *(const VEC *)(a + j) * *(const VEC *)(b + j);
    REAL total = 0;
    for (integer l = 0; l < LANES; l++) total += sum[l];
    return total;
}

/* y += scale * x; `count` is a multiple of LANES. */
static TARGET __attribute__((noinline)) void NAME(add)(integer count, REAL scale, const REAL *x, REAL *y) {
    for (integer j = 0; j < count; j += LANES) *(VEC *)(y + j) += scale * *(const VEC *)(x + j);
}
