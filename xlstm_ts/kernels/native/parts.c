/* The functions of what surrounds the cells, and the level of this processor. */

#define PASS "parts.h"
#include "cells.h"

/* The level of this processor; -1 if the library holds another one only. */
EXPORT integer xlstm_level(void) {
    integer level = 0;
#if HAS(1) || HAS(2)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        level = 1;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            level = 2;
    }
#endif
    return HAS(level) ? level : -1;
}

/* All return 0, or 1 when there was no memory. */
EXPORT int xlstm_linear(const struct linear *call) {
    struct linear s = *call;
    integer bytes = s.is_double ? 8 : 4, padded = round_up(s.columns, lanes(s.level, s.is_double));
    s.packed = reserve(s.groups * (s.inner + 1) * padded * bytes);
    if (!s.packed) return 1;
    const struct linear *p = &s;
    PICK(pack, p)(p);
    struct job job = {p, PICK(linear, p), (s.rows + LINEAR_ROWS - 1) / LINEAR_ROWS * s.groups, 0, 0};
    int failed = run_all(&job, s.parallel, s.threads);
    release(s.packed);
    return failed;
}

EXPORT int xlstm_linear_weight(const struct linear_weight *s) {
    struct job job = {s, PICK(linear_weight, s), s->slabs * s->groups, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}

EXPORT int xlstm_conv(const struct conv *s) {
    struct job job = {s, PICK(conv, s), s->batch, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}

EXPORT int xlstm_conv_back(const struct conv *s) {
    struct job job = {s, PICK(conv_back, s), s->batch, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}

EXPORT int xlstm_gelu_gate(const struct gelu_gate *s) {
    struct job job = {s, PICK(gelu_gate, s), (s->rows + GATE_ROWS - 1) / GATE_ROWS, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}

EXPORT int xlstm_norm_gate(const struct norm_gate *s) {
    struct job job = {s, PICK(norm_gate, s), (s->rows + GATE_ROWS - 1) / GATE_ROWS, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}

EXPORT int xlstm_norm_gate_back(const struct norm_gate *s) {
    struct job job = {s, PICK(norm_gate_back, s), (s->rows + GATE_ROWS - 1) / GATE_ROWS, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}

static int feed_forward(const struct feed_forward *call, int backward) {
    struct feed_forward copy = *call, *s = &copy;
    s->packed = reserve(3 * s->width * s->inner * (s->is_double ? 8 : 4));
    if (!s->packed) return 1;
    int failed;
    if (backward) {
        PICK(feed_forward_pack_back, s)(s);
        struct job job = {s, PICK(feed_forward_back, s), s->slabs, 0, 0};
        failed = run_all(&job, s->parallel, s->threads);
    } else {
        PICK(feed_forward_pack, s)(s);
        struct job job = {s, PICK(feed_forward, s), (s->rows + LINEAR_ROWS - 1) / LINEAR_ROWS, 0, 0};
        failed = run_all(&job, s->parallel, s->threads);
    }
    release(s->packed);
    return failed;
}

EXPORT int xlstm_feed_forward(const struct feed_forward *s) { return feed_forward(s, 0); }

EXPORT int xlstm_feed_forward_back(const struct feed_forward *s) { return feed_forward(s, 1); }
