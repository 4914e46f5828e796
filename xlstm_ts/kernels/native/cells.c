/* sLSTM forward and backward through time on a CPU: plain C, called through ctypes, knows neither torch nor Python.
 *
 * The file includes itself once per instruction set and number type; the best set is picked at run time. Work is cut
 * into tiles of a few batch rows of one head. A tile runs the whole sequence by itself, with its state and recurrent
 * weights in the nearest cache, so that threads meet once per call. A sum always runs in the same order, whatever the
 * tile, so that a row's result does not depend on its neighbours. Exponents are added up in double, as docs/kernels.md
 * ("Precision") asks; only their differences are exponentiated in float.
 *
 * Letters: B batch, T steps, H heads, K head width, P = K rounded up to whole vectors. Equations of section 2.2 of
 * Beck et al. 2024; the backward is derived in docs/kernels.md, "The backward of sLSTM".
 */
#ifndef XLSTM_PASS

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define INLINE static inline __attribute__((always_inline))

typedef int64_t integer;

/* Starts a region: calls work(data) once on each of `threads` threads. The OpenMP runtime that torch has loaded offers
 * it under the name GOMP_parallel; going through its address needs no OpenMP of our own, and shares torch's threads. */
typedef void (*region)(void (*work)(void *), void *data, unsigned threads, unsigned flags);

/* The arguments of both calls; mirrored field by field in _slstm/native.py. Strides count elements; the last axis of
 * every tensor is contiguous, and so is all of a tensor without strides. Pointers marked "or NULL" may be absent. */
struct slstm {
    integer batch, steps, heads, width, tile; /* tile: batch rows of a tile */
    integer is_double, exp_forget, level, threads;
    region parallel;            /* or NULL */
    integer gates_strides[4];   /* B, T, gate, H; of d_gates in the backward */
    integer d_hidden_strides[3]; /* B, T, H */
    const void *gates, *weights;     /* [B, T, 4, H, K], [4, H, K, K] */
    const void *h0, *c0, *n0;        /* [B, H, K] */
    const double *m0;
    void *hidden;                    /* [B, T, H, K] */
    void *h, *c, *n;                 /* [B, H, K], the state after the last step */
    double *m;
    void *saved;                     /* xlstm_slstm_saved() numbers for the backward, or NULL */
    const void *d_hidden, *d_h, *d_c, *d_n; /* or NULL */
    void *d_gates, *d_h0, *d_c0, *d_n0;
    void *d_weights;                 /* [tiles, 4, H, K, K]: one sum per batch tile, or NULL */
};

struct job {
    const struct slstm *s;
    int (*run)(const struct slstm *s, integer first, integer rows, integer head);
    integer next, failed;
};

enum { KEPT = 6 }; /* numbers kept per element: i and f in one, slope of log f, z, o, c, n */
enum { ROWS = 8 }; /* rows of the register block */

INLINE integer round_up(integer n, integer to) { return (n + to - 1) / to * to; }

/* exp(x) for x <= 0, 0 below the smallest normal number. Rounding by a large constant: never build with -ffast-math. */
INLINE float exp_negative_f32(float x) {
    float clamped = x < -87.0f ? -87.0f : x; /* keeps NaN */
    float shifted = clamped * 1.44269504f + 12582912.0f;
    float whole = shifted - 12582912.0f;
    float r = clamped - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { float number; int32_t bits; } power = {.number = shifted};
    power.bits = (int32_t)(((uint32_t)power.bits + 127u) << 23); /* 2^whole */
    float result = p * power.number;
    return x < -87.0f ? 0.0f : result;
}

/* log(1 + u) for 0 <= u <= 1: u times a polynomial fitted to 5e-9 relative. */
INLINE float log1p_unit_f32(float u) {
    float p = -3.1639994122e-3f;
    p = p * u + 1.9487686456e-2f;
    p = p * u - 5.6269526478e-2f;
    p = p * u + 1.0532950610e-1f;
    p = p * u - 1.5263274312e-1f;
    p = p * u + 1.9661018252e-1f;
    p = p * u - 2.4951167405e-1f;
    p = p * u + 3.3329665661e-1f;
    p = p * u - 4.9999889733e-1f;
    p = p * u + 1.0f;
    return p * u;
}

INLINE float tanh_f32(float x) {
    float u = exp_negative_f32(-2.0f * fabsf(x));
    float far = copysignf((1.0f - u) / (1.0f + u), x);
    float s = x * x; /* near 0 the quotient loses digits */
    float p = -5.70498872745e-3f;
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    float near = p * s * x + x;
    return s < 0.390625f ? near : far;
}

INLINE float abs_f32(float x) { return fabsf(x); }
INLINE float sign_f32(float size, float of) { return copysignf(size, of); }

INLINE double exp_negative_f64(double x) { return exp(x); }
INLINE double log1p_unit_f64(double u) { return log1p(u); }
INLINE double tanh_f64(double x) { return tanh(x); }
INLINE double abs_f64(double x) { return fabs(x); }
INLINE double sign_f64(double size, double of) { return copysign(size, of); }


#define GLUE(a, b, c) a##_##b##_##c
#define EXPAND(a, b, c) GLUE(a, b, c)
#define NAME(name) EXPAND(name, TYPE, ISA) /* of this pass */
#define GLUE2(a, b) a##_##b
#define EXPAND2(a, b) GLUE2(a, b)
#define MATH(name) EXPAND2(name, TYPE) /* one of the functions above */

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_LEVELS
#if defined(__clang__)
#define WIDE
#else
#define WIDE ",prefer-vector-width=512"
#endif
#endif

/* Every pass compiles the second half of this file; exp in double is libm's, which wider vectors do not speed up. */
#define XLSTM_PASS
#define REAL float
#define TYPE f32
#define ISA base
#define VECTOR 16
#define TARGET
#include "cells.c"
#ifdef HAS_LEVELS
#define ISA avx2
#define VECTOR 32
#define TARGET __attribute__((target("avx2,fma")))
#include "cells.c"
#define ISA avx512
#define VECTOR 64
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl" WIDE)))
#include "cells.c"
#endif
#undef REAL
#undef TYPE

#define REAL double
#define TYPE f64
#define ISA base
#define VECTOR 16
#define TARGET
#include "cells.c"
#ifdef HAS_LEVELS
#define ISA avx2
#define VECTOR 32
#define TARGET __attribute__((target("avx2,fma")))
#include "cells.c"
#endif

/* Which instruction set this processor has: 0 the baseline, 1 AVX2, 2 AVX-512. */
EXPORT integer xlstm_level(void) {
#ifdef HAS_LEVELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        return wide ? 2 : 1;
    }
#endif
    return 0;
}

static integer lanes(const struct slstm *s) {
    integer bytes = s->level == 0 ? 16 : s->level == 1 || s->is_double ? 32 : 64;
    return bytes / (s->is_double ? 8 : 4);
}

/* How many numbers the forward keeps for the backward. */
EXPORT integer xlstm_slstm_saved(const struct slstm *s) {
    return s->batch * s->steps * s->heads * KEPT * round_up(s->width, lanes(s));
}

static void work(void *data) {
    struct job *job = data;
    const struct slstm *s = job->s;
    integer per_head = (s->batch + s->tile - 1) / s->tile;
    for (;;) {
        integer mine = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (mine >= per_head * s->heads) return;
        integer first = mine / s->heads * s->tile;
        integer rows = s->batch - first < s->tile ? s->batch - first : s->tile;
        if (job->run(s, first, rows, mine % s->heads)) __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
    }
}

static int run(struct job *job) {
    const struct slstm *s = job->s;
    integer tiles = (s->batch + s->tile - 1) / s->tile * s->heads;
    integer threads = s->threads < tiles ? s->threads : tiles;
    if (s->parallel && threads > 1)
        s->parallel(work, job, (unsigned)threads, 0);
    else
        work(job);
    return (int)job->failed;
}

#ifdef HAS_LEVELS
#define PICK(name)                                                                                     \
    (s->is_double ? s->level > 0 ? name##_f64_avx2 : name##_f64_base                                   \
     : s->level == 2 ? name##_f32_avx512 : s->level == 1 ? name##_f32_avx2 : name##_f32_base)
#else
#define PICK(name) (s->is_double ? name##_f64_base : name##_f32_base)
#endif

/* Both return 0, or 1 when there was no memory. */
EXPORT int xlstm_slstm_forward(const struct slstm *s) {
    struct job job = {s, PICK(forward), 0, 0};
    return run(&job);
}

EXPORT int xlstm_slstm_backward(const struct slstm *s) {
    struct job job = {s, PICK(backward), 0, 0};
    return run(&job);
}

#else /* The part that is compiled once per instruction set and number type. */

#define VEC NAME(vec)
typedef REAL VEC __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));
#define LANES ((integer)(VECTOR / sizeof(REAL)))

/* One register block: c[r, v] (+)= sum over j < inner of a[r, j] * b[j, v], for `rows` rows and `vecs` vectors. */
INLINE TARGET void NAME(block)(const int rows, const int vecs, integer inner, const REAL *a, integer a_row,
                               integer a_step, const REAL *b, integer b_step, REAL *c, integer c_row, int add) {
    VEC sum[ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) sum[r][v] = add ? *(const VEC *)(c + r * c_row + v * LANES) : (VEC){0};
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
                               integer a_step, const REAL *b, integer b_step, REAL *c, integer c_row, int add) {
    const int most = VECTOR == 32 ? 4 : ROWS; /* AVX2 has 16 registers, the others 32 (or little to lose) */
    integer r = 0;
    for (; r + most <= rows; r += most)
        NAME(block)(most, vecs, inner, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, add);
    if (r + 4 <= rows) {
        NAME(block)(4, vecs, inner, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, add);
        r += 4;
    }
    for (; r < rows; r++)
        NAME(block)(1, vecs, inner, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, add);
}

/* c (+)= a @ b; `columns` is a multiple of LANES. b_step 0 says that b is packed in panels of two vectors. */
static TARGET void NAME(multiply)(integer rows, integer columns, integer inner, const REAL *a, integer a_row,
                                  integer a_step, const REAL *b, integer b_step, REAL *c, integer c_row, int add) {
    for (integer v = 0; v < columns; v += 2 * LANES) {
        const REAL *part = b_step ? b + v : b + v * inner;
        if (columns - v >= 2 * LANES)
            NAME(panel)(2, rows, inner, a, a_row, a_step, part, b_step ? b_step : 2 * LANES, c + v, c_row, add);
        else
            NAME(panel)(1, rows, inner, a, a_row, a_step, part, b_step ? b_step : LANES, c + v, c_row, add);
    }
}

/* Where element (row, column) of a matrix lies when it is packed in panels of two vectors. */
INLINE integer NAME(packed)(integer row, integer column, integer rows, integer columns) {
    integer start = column / (2 * LANES) * (2 * LANES);
    integer wide = columns - start < 2 * LANES ? LANES : 2 * LANES;
    return start * rows + row * wide + (column - start);
}

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

/* Copies rows of `width` numbers, filling up to `padded` with zeros where the target has the room. */
INLINE void NAME(copy)(integer rows, integer width, const REAL *from, integer from_row, REAL *to, integer to_row) {
    for (integer r = 0; r < rows; r++) memcpy(to + r * to_row, from + r * from_row, width * sizeof(REAL));
}

INLINE void NAME(prefetch)(integer rows, integer width, const REAL *from, integer row) {
    /* Into the second level: the rows often lie whole pages apart, and would evict each other from the first. */
    for (integer r = 0; r < rows; r++)
        for (integer k = 0; k < width; k += 64 / sizeof(REAL)) __builtin_prefetch(from + r * row + k, 0, 2);
}

static TARGET int NAME(forward)(const struct slstm *s, integer first, integer rows, integer head) {
    const integer heads = s->heads, width = s->width, steps = s->steps, padded = round_up(width, LANES);
    const integer matrix = width * width, state = rows * padded, row0 = (first * heads + head) * width;
    const integer row = heads * width, out_row = steps * row;
    const integer by_row = s->gates_strides[0], by_step = s->gates_strides[1], by_gate = s->gates_strides[2];
    const REAL *x = (const REAL *)s->gates + first * by_row + head * s->gates_strides[3];
    const REAL *weights = (const REAL *)s->weights + head * matrix;
    REAL *out = (REAL *)s->hidden + first * out_row + head * width;
    REAL *saved = s->saved ? (REAL *)s->saved + (head * s->batch + first) * steps * KEPT * padded : 0;

    integer numbers = width * 4 * padded + (4 + 4 + 4 + KEPT) * state;
    double *memory = calloc(state + numbers, sizeof(double));
    if (!memory) return 1;
    double *m = memory;
    REAL *packed = (REAL *)(m + state), *rec = packed + width * 4 * padded, *inputs = rec + 4 * state;
    REAL *h = inputs + 4 * state, *c = h + state, *n = c + state, *below = n + state;
    REAL *unused = below + state;

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
        if (t + 1 < steps)
            for (integer gate = 0; gate < 4; gate++) NAME(prefetch)(rows, width, x + by_step + gate * by_gate, by_row);
        NAME(multiply)(rows, 4 * padded, width, h, padded, 1, packed, 0, rec, 4 * padded, 0);
        const REAL *read = x;
        integer x_row = by_row, x_gate = by_gate;
        if (width != padded) { /* whole vectors would read beyond the tensor */
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

static TARGET int NAME(backward)(const struct slstm *s, integer first, integer rows, integer head) {
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

#undef VEC
#undef LANES
#undef ISA
#undef VECTOR
#undef TARGET
#endif
