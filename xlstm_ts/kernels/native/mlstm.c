/* The functions of mLSTM. */

#define PASS "mlstm.h"
#include "cells.h"

/* How many numbers the forward keeps for the backward. */
EXPORT integer xlstm_mlstm_saved(const struct mlstm *s) {
    integer vector = lanes(s->level, s->is_double), chunks = (s->steps + s->chunk - 1) / s->chunk;
    return s->batch * s->heads * chunks * (s->width * round_up(s->value_width, vector) + round_up(s->width, vector));
}

/* All return 0, or 1 when there was no memory. */
EXPORT int xlstm_mlstm_forward(const struct mlstm *s) {
    struct job job = {s, PICK(mlstm_forward, s), s->batch * s->heads, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}

EXPORT int xlstm_mlstm_backward(const struct mlstm *s) {
    struct job job = {s, PICK(mlstm_backward, s), s->batch * s->heads, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}

EXPORT int xlstm_read_last(const struct read_last *s) {
    struct job job = {s, PICK(read_last, s), s->batch, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}
