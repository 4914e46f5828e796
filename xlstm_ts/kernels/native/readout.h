/* What an mLSTM reads at its last step alone, one batch row at a time; compiled once per instruction set and number type.
 *
 * Attention with one query: the weight of a step is the exponential of its input gate and of all forget gates after it.
 * docs/kernels.md, "The last step alone".
 */

static TARGET int NAME(read_last)(const void *call, integer batch) {
    const struct read_last *s = call;
    const integer steps = s->steps, heads = s->heads, width = s->width, value_width = s->value_width;
    const integer pairs = steps * 2 * heads, whole = width / LANES * LANES, whole_values = value_width / LANES * LANES;
    const REAL *q = (const REAL *)s->q + batch * heads * width, *gates = (const REAL *)s->gates + batch * pairs;
    const REAL *keys = (const REAL *)s->keys + batch * steps * heads * width;
    const REAL *values = (const REAL *)s->values + batch * steps * heads * value_width;
    REAL *y = (REAL *)s->y + batch * heads * value_width;
    double *exponent = malloc((steps + 2) * heads * sizeof(double) + pairs * sizeof(REAL));
    if (!exponent) return 1;
    double *sum = exponent + steps * heads, *largest = sum + heads; /* [H] */
    REAL *under = (REAL *)(largest + heads);                        /* [T, 2, H] */
    REAL *weights = under;                                          /* [T, H], once the former is read */

#pragma GCC ivdep
    for (integer j = 0; j < pairs; j++) under[j] = MATH(log1p_unit)(MATH(exp_negative)(-MATH(abs)(gates[j])));
    for (integer head = 0; head < heads; head++) sum[head] = 0, largest[head] = -INFINITY;
    for (integer t = steps - 1; t >= 0; t--) {
        const REAL *i = gates + t * 2 * heads, *f = i + heads, *low = under + t * 2 * heads + heads;
        for (integer head = 0; head < heads; head++) {
            const double b = i[head] + sum[head];
            exponent[t * heads + head] = b;
            if (!(b <= largest[head])) largest[head] = b; /* NaN goes through */
            sum[head] += s->exp_forget ? (double)f[head] : (f[head] > 0 ? 0.0 : (double)f[head]) - (double)low[head];
        }
    }
    for (integer t = 0; t < steps; t++)
        for (integer head = 0; head < heads; head++) exponent[t * heads + head] -= largest[head];
#pragma GCC ivdep
    for (integer j = 0; j < steps * heads; j++) weights[j] = MATH(exp_negative)((REAL)exponent[j]);

    memset(y, 0, heads * value_width * sizeof(REAL));
    for (integer head = 0; head < heads; head++) sum[head] = 0; /* from here on n . q */
    for (integer t = 0; t < steps; t++) {
        for (integer head = 0; head < heads; head++, keys += width, values += value_width) {
            const REAL *query = q + head * width;
            REAL *to = y + head * value_width, weight = NAME(dot)(whole, query, keys);
            for (integer j = whole; j < width; j++) weight += query[j] * keys[j];
            weight *= weights[t * heads + head];
            sum[head] += weight;
            NAME(add)(whole_values, weight, values, to);
            for (integer j = whole_values; j < value_width; j++) to[j] += weight * values[j];
        }
    }
    for (integer head = 0; head < heads; head++) {
        const REAL read = (REAL)sum[head], size = MATH(abs)(read);
        REAL floor = MATH(exp_any)(-largest[head]);
        floor = floor < MATH(tiny) ? MATH(tiny) : floor;
        const REAL inverse = 1 / (size > floor ? size : size <= floor ? floor : size); /* NaN stays NaN */
        for (integer j = 0; j < value_width; j++) y[head * value_width + j] *= inverse;
    }
    free(exponent);
    return 0;
}
