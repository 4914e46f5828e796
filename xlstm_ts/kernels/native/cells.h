/* The cells on a CPU, forward and backward: plain C, called through ctypes, knows neither torch nor Python.
 *
 * What slstm.c, mlstm.c and parts.c share: three files, for three compilers to work on at once. Each names its header in
 * PASS, which is compiled once per instruction set and number type; the best is picked at run time. A cell cuts its work
 * into pieces that need nothing of each other, so that threads meet once per call, and a row's result does not depend on
 * its neighbours. Exponents are added up in double, as docs/kernels.md ("Precision") asks; only their differences are
 * exponentiated in float.
 *
 * Letters: B batch, T steps, H heads, K head or key width, V value width.
 */

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
    region parallel;             /* or NULL */
    integer inner, x_head;       /* numbers per step that a head reads of an input, and how far heads lie apart; or 0 */
    integer x_if_strides[2], x_zo_strides[2]; /* B, T */
    integer w_strides[3];        /* H, inner, column; of both weights */
    integer gates_strides[3], gate_offsets[4]; /* B, T, H; of d_gates in the backward */
    integer d_hidden_strides[3]; /* B, T, H */
    const void *gates;           /* [B, T, 4, H, K]; or where inner is not 0 what they are made of: */
    const void *x_if, *x_zo, *w_if, *w_zo, *bias; /* [B, T, ..] twice, [H, inner, 2 K] twice, [4, H, K] */
    const void *weights;         /* [4, H, K, K] */
    const void *h0, *c0, *n0;    /* [B, H, K] */
    const double *m0;
    void *hidden;                /* [B, T, H, K] */
    void *h, *c, *n;             /* [B, H, K], the state after the last step */
    double *m;
    void *saved;                 /* xlstm_slstm_saved() numbers for the backward, or NULL */
    void *packed;                /* our own */
    const void *d_hidden, *d_h, *d_c, *d_n; /* or NULL */
    void *d_gates;               /* or NULL, and then: */
    void *d_x_if, *d_x_zo;       /* [B, T, H, inner], one tensor where x_if and x_zo are one */
    void *d_h0, *d_c0, *d_n0;
    void *d_w_if, *d_w_zo, *d_weights, *d_bias; /* one sum per batch tile, [tiles, ...]; d_weights and d_bias or NULL */
};

struct mlstm {
    integer batch, steps, heads, width, value_width, chunk; /* chunk: steps of a chunk */
    integer is_double, exp_forget, level, threads;
    region parallel;            /* or NULL */
    integer q_strides[3], k_strides[3], v_strides[3], i_strides[3], f_strides[3]; /* B, T, H */
    integer d_h_strides[3];
    const void *q, *k, *v, *i, *f;   /* [B, T, H, K] twice, [B, T, H, V], [B, T, H] twice */
    const void *c0, *n0;             /* [B, H, K, V], [B, H, K] */
    const double *m0;                /* [B, H] */
    void *h;                         /* [B, T, H, V] */
    void *c, *n;                     /* the state after the last step */
    double *m;
    void *memories;                  /* xlstm_mlstm_saved() numbers: c and n before every chunk */
    double *starts;                  /* [B, H, chunks]: m before every chunk */
    void *scales;                    /* [B, H, T, 2] 1 / denominator, and its slope by n.q; or all three NULL */
    const void *d_h, *d_c, *d_n;     /* or NULL */
    void *d_q, *d_k, *d_v, *d_i, *d_f, *d_c0, *d_n0;
};

struct linear {
    integer rows, groups, inner, columns;
    integer is_double, add, level, threads; /* add: to what stands in y */
    region parallel;                     /* or NULL */
    integer x_row, x_group, y_row, y_group, w_group, w_inner, w_column; /* strides */
    const void *x, *w, *bias;            /* [rows, groups, inner], [groups, inner, columns], [groups, columns] or NULL */
    void *y;                             /* [rows, groups, columns] */
    void *packed;                        /* our own */
};

struct linear_weight {
    integer rows, groups, left_width, right_width, slabs;
    integer is_double, sum_right, level, threads;
    region parallel; /* or NULL */
    integer left_row, left_group, right_row, right_group;
    const void *left, *right; /* [rows, groups, left_width], [rows, groups, right_width] */
    void *out;                /* [slabs, groups, left_width, right_width] */
    void *sums;               /* [slabs, groups, right_width or left_width], or NULL */
};

struct conv {
    integer batch, steps, width, size;
    integer is_double, level, threads;
    region parallel; /* or NULL */
    integer x_batch, x_step, d_y_batch, d_y_step;
    const void *x, *tail, *w, *bias; /* [B, T, D], [B, size - 1, D], [D, size], [D] */
    void *y;                         /* [B, T, D] */
    const void *d_y;
    void *d_x, *d_tail, *d_w; /* as x and tail; [B, size + 1, D], the bias last */
};

struct gelu_gate {
    integer rows, width;
    integer is_double, level, threads;
    region parallel; /* or NULL */
    const void *x;   /* [rows, 2, width] */
    void *y;         /* [rows, width], or NULL */
    const void *d_y; /* likewise */
    void *d_x;
};

struct norm_gate {
    integer rows, heads, width;
    integer is_double, level, threads;
    region parallel; /* or NULL */
    integer gate_row, d_y_row;
    const void *x, *weight, *skip, *residual, *gate; /* [rows, heads, width], one row; the last three may be NULL */
    void *y;
    const void *d_y;
    void *d_x, *d_weight, *d_skip, *d_residual, *d_gate; /* of weights: [pieces of GATE_ROWS, heads, width] */
};

struct read_last {
    integer batch, steps, heads, width, value_width;
    integer is_double, exp_forget, level, threads;
    region parallel;                          /* or NULL */
    const void *q, *keys, *values, *gates;    /* [B, H, K], [B, T, H, K], [B, T, H, V], [B, T, 2, H] */
    void *y;                                  /* [B, H, V] */
};

struct feed_forward {
    integer rows, width, inner, slabs; /* width and inner: multiples of whole vectors */
    integer is_double, level, threads;
    region parallel; /* or NULL */
    integer d_y_row;
    const void *x, *norm_weight, *norm_bias;          /* [rows, width], [width] twice */
    const void *up, *up_bias, *down, *down_bias;      /* [2 inner, width], [2 inner], [width, inner], [width] */
    void *wide;                                       /* [rows, 2 inner], for the backward; or NULL */
    void *y;                                          /* [rows, width] */
    void *packed;                                     /* our own: both weights, as the pass needs them */
    const void *d_y;
    void *d_x;
    void *d_norm_weight, *d_norm_bias, *d_up, *d_up_bias, *d_down, *d_down_bias; /* one sum per slab, [slabs, ...] */
};

/* Work in pieces: run(call, item) for every item; returns 0, or 1 when there was no memory. */
struct job {
    const void *call;
    int (*run)(const void *call, integer item);
    integer items, next, failed;
};

enum { KEPT = 4 }; /* numbers kept per element: i and f in one, slope of log f, z, o */
enum { ROWS = 8 }; /* rows of the register block */
enum { LINEAR_ROWS = 64 }; /* rows of a piece of a linear map: they and a panel of weights stay in the nearest cache */
enum { GATE_ROWS = 128 };

INLINE integer round_up(integer n, integer to) { return (n + to - 1) / to * to; }

/* Zeroed memory that starts on a cache line: vectors that straddle two of them cost twice. */
static void *reserve(integer bytes) {
    char *block = calloc(bytes + 64 + sizeof(void *), 1);
    if (!block) return 0;
    void **start = (void **)(((uintptr_t)block + sizeof(void *) + 63) / 64 * 64);
    start[-1] = block;
    return start;
}

static void release(void *memory) { free(((void **)memory)[-1]); }

/* Steps of a chunk of sLSTM: few enough that its gates and states stay in the second-level cache. */
INLINE integer chunk_steps(const struct slstm *s) {
    integer most = s->width * (s->is_double ? 8 : 4) > 128 ? 8 : 16;
    return s->steps < most ? s->steps : most;
}

#include "functions.h"

#define GLUE(a, b, c) a##_##b##_##c
#define EXPAND(a, b, c) GLUE(a, b, c)
#define NAME(name) EXPAND(name, TYPE, ISA) /* of this pass */
#define GLUE2(a, b) a##_##b
#define EXPAND2(a, b) GLUE2(a, b)
#define MATH(name) EXPAND2(name, TYPE) /* one of the functions above */

/* Every level is compiled, or XLSTM_ONLY one, which then must be this processor's: 0 the baseline, 1 AVX2, 2 AVX-512.
 * There is no AVX-512 for double: its exp is libm's, which wider vectors do not speed up. XLSTM_REAL, 32 or 64, leaves
 * out the other number type. */
#if !defined(__x86_64__) || !defined(__GNUC__)
#undef XLSTM_ONLY
#define XLSTM_ONLY 0
#endif
#ifdef XLSTM_ONLY
#define HAS(level) (XLSTM_ONLY == (level))
#else
#define HAS(level) 1
#endif
#if defined(__clang__)
#define WIDE
#else
#define WIDE ",prefer-vector-width=512"
#endif

#if !defined(XLSTM_REAL) || XLSTM_REAL == 32
#define REAL float
#define TYPE f32
#if HAS(0)
#define ISA base
#define VECTOR 16
#define TARGET
#include "pass.h"
#endif
#if HAS(1)
#define ISA avx2
#define VECTOR 32
#define TARGET __attribute__((target("avx2,fma")))
#include "pass.h"
#endif
#if HAS(2)
#define ISA avx512
#define VECTOR 64
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl" WIDE)))
#include "pass.h"
#endif
#undef REAL
#undef TYPE
#endif

#if !defined(XLSTM_REAL) || XLSTM_REAL == 64
#define REAL double
#define TYPE f64
#if HAS(0)
#define ISA base
#define VECTOR 16
#define TARGET
#include "pass.h"
#endif
#if HAS(1) || HAS(2)
#define ISA avx2
#define VECTOR 32
#define TARGET __attribute__((target("avx2,fma")))
#include "pass.h"
#endif
#endif

INLINE integer lanes(integer level, integer is_double) {
    integer bytes = level == 0 ? 16 : level == 1 || is_double ? 32 : 64;
    return bytes / (is_double ? 8 : 4);
}

static void work(void *data) {
    struct job *job = data;
    for (;;) {
        integer item = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (item >= job->items) return;
        if (job->run(job->call, item)) __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
    }
}

static int run_all(struct job *job, region parallel, integer threads) {
    threads = threads < job->items ? threads : job->items;
    if (parallel && threads > 1)
        parallel(work, job, (unsigned)threads, 0);
    else
        work(job);
    return (int)job->failed;
}

/* The function of this name for the number type and the level of a call. */
#if !defined(XLSTM_ONLY)
#define SINGLE(name, s) (s->level == 2 ? name##_f32_avx512 : s->level == 1 ? name##_f32_avx2 : name##_f32_base)
#define DOUBLE(name, s) (s->level > 0 ? name##_f64_avx2 : name##_f64_base)
#elif XLSTM_ONLY == 2
#define SINGLE(name, s) name##_f32_avx512
#define DOUBLE(name, s) name##_f64_avx2
#elif XLSTM_ONLY == 1
#define SINGLE(name, s) name##_f32_avx2
#define DOUBLE(name, s) name##_f64_avx2
#else
#define SINGLE(name, s) name##_f32_base
#define DOUBLE(name, s) name##_f64_base
#endif
#if !defined(XLSTM_REAL)
#define PICK(name, s) (s->is_double ? DOUBLE(name, s) : SINGLE(name, s))
#elif XLSTM_REAL == 64
#define PICK(name, s) DOUBLE(name, s)
#else
#define PICK(name, s) SINGLE(name, s)
#endif
