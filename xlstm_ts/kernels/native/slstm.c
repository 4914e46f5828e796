/* The functions of sLSTM. */

#define PASS "slstm.h"
#include "cells.h"

/* How many numbers the forward keeps for the backward. */
EXPORT integer xlstm_slstm_saved(const struct slstm *s) {
    integer most = chunk_steps(s), chunks = (s->steps + most - 1) / most;
    return s->batch * s->heads * (s->steps * KEPT + chunks * 2) * round_up(s->width, lanes(s->level, s->is_double));
}

/* Both return 0, or 1 when there was no memory. */
EXPORT int xlstm_slstm_forward(const struct slstm *call) {
    struct slstm copy = *call, *s = &copy;
    if (s->inner) {
        integer padded = round_up(s->width, lanes(s->level, s->is_double));
        s->packed = reserve(4 * s->heads * s->inner * padded * (s->is_double ? 8 : 4));
        if (!s->packed) return 1;
        PICK(slstm_pack, s)(s);
    }
    struct job job = {s, PICK(slstm_forward, s), (s->batch + s->tile - 1) / s->tile * s->heads, 0, 0};
    int failed = run_all(&job, s->parallel, s->threads);
    if (s->inner) release(s->packed);
    return failed;
}

EXPORT int xlstm_slstm_backward(const struct slstm *s) {
    struct job job = {s, PICK(slstm_backward, s), (s->batch + s->tile - 1) / s->tile * s->heads, 0, 0};
    return run_all(&job, s->parallel, s->threads);
}
