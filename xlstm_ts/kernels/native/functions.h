/* The functions of the gates, one number at a time; the compiler makes vectors of them.
 *
 * For float they are our own: exp rounds by adding a large constant, so never build with -ffast-math. For double they
 * are libm's.
 */

/* exp(r) for |r| <= log(2) / 2. */
INLINE float exp_series_f32(float r) {
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * r * r + r + 1.0f;
}

/* exp(x) for x <= 0, 0 below the smallest normal number. */
INLINE float exp_negative_f32(float x) {
    float clamped = x < -87.0f ? -87.0f : x; /* keeps NaN */
    float shifted = clamped * 1.44269504f + 12582912.0f;
    float whole = shifted - 12582912.0f;
    float r = clamped - whole * 0.693359375f + whole * 2.12194440e-4f;
    union { float number; int32_t bits; } power = {.number = shifted};
    power.bits = (int32_t)(((uint32_t)power.bits + 127u) << 23); /* 2^whole */
    float result = exp_series_f32(r) * power.number;
    return x < -87.0f ? 0.0f : result;
}

/* exp(x) for any x, from a double: rounding 60.1 to float would cost the last two digits of its exponential. */
INLINE float exp_any_f32(double x) {
    double clamped = x < -110.0 ? -110.0 : x > 90.0 ? 90.0 : x; /* keeps NaN */
    double shifted = clamped * 1.4426950408889634 + 6755399441055744.0;
    double whole = shifted - 6755399441055744.0;
    float r = (float)(clamped - whole * 0.69314718055994531);
    union { double number; int64_t bits; } power = {.number = shifted};
    power.bits = (int64_t)(((uint64_t)power.bits + 1023u) << 52); /* 2^whole */
    return (float)((double)exp_series_f32(r) * power.number);
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

INLINE float sigmoid_f32(float x) {
    float u = exp_negative_f32(-fabsf(x));
    return (x < 0 ? u : 1.0f) / (1.0f + u);
}

/* The normal distribution: its density and what lies below x. With z = abs(x) / sqrt(2), exp(z^2) erfc(z) is t times a
 * polynomial in t = 1 / (1 + z / 2), fitted to 4e-8 relative. */
INLINE float gauss_f32(float x, float *density) {
    float bell = exp_negative_f32(-0.5f * x * x);
    float t = 1.0f / (1.0f + 0.35355339f * fabsf(x));
    float p = -5.8844021862e-2f;
    p = p * t + 2.8347350758e-1f;
    p = p * t - 4.8490938766e-1f;
    p = p * t + 2.7543331835e-1f;
    p = p * t - 2.4800232731e-2f;
    p = p * t + 2.0190892331e-1f;
    p = p * t + 2.4330207550e-1f;
    p = p * t + 2.8234776832e-1f;
    p = p * t + 2.8208800740e-1f;
    float outside = 0.5f * p * t * bell;
    *density = 0.39894228f * bell;
    return x < 0 ? outside : 1.0f - outside;
}

typedef int32_t index_f32; /* of the numbers' sizes */
typedef int64_t index_f64;
static const index_f32 count_f32[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const index_f64 count_f64[8] = {0, 1, 2, 3, 4, 5, 6, 7};

static const float tiny_f32 = 1.17549435e-38f; /* the smallest normal number */
static const double tiny_f64 = 2.2250738585072014e-308;

INLINE float abs_f32(float x) { return fabsf(x); }
INLINE float root_f32(float x) { return sqrtf(x); }
INLINE float sign_f32(float size, float of) { return copysignf(size, of); }

INLINE double exp_negative_f64(double x) { return exp(x); }
INLINE double sigmoid_f64(double x) { return 1 / (1 + exp(-x)); }
INLINE double gauss_f64(double x, double *density) {
    *density = 0.39894228040143268 * exp(-0.5 * x * x);
    return 0.5 * erfc(x * -0.70710678118654752);
}
INLINE double exp_any_f64(double x) { return exp(x); }
INLINE double log1p_unit_f64(double u) { return log1p(u); }
INLINE double tanh_f64(double x) { return tanh(x); }
INLINE double abs_f64(double x) { return fabs(x); }
INLINE double root_f64(double x) { return sqrt(x); }
INLINE double sign_f64(double size, double of) { return copysign(size, of); }
