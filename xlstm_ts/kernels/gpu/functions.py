"""Functions of numbers for the kernels of both cells, accurate to the last digits of their dtype and never overflowing.

Triton has none of them itself, and those of CUDA's library do not run in its interpreter.
"""

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    """Return the logistic function."""
    u = tl.exp(-tl.abs(x))
    return tl.where(x > 0, 1.0, u) / (1.0 + u)


@triton.jit
def tanh(x):
    """Return the hyperbolic tangent; small arguments by Lambert's continued fraction, without cancellation."""
    u = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - u) / (1.0 + u)
    s = tl.minimum(x * x, 0.25)
    above = 135135.0 + s * (17325.0 + s * (378.0 + s))
    below = 135135.0 + s * (62370.0 + s * (3150.0 + s * 28.0))
    return tl.where(tl.abs(x) < 0.5, x * (above / below), tl.where(x > 0, far, -far))


@triton.jit
def log_forget(raw, SIGMOID: tl.constexpr, DTYPE: tl.constexpr):
    """Return log f in float64, and its slope in DTYPE, for a pre-activation in float64.

    log sigmoid(x) = min(x, 0) - log(1 + u), u = exp(-|x|). The second term lies between 0 and log 2 and is computed in
    DTYPE with a relative error of a few units in the last place, also where u is tiny: (1 + u) - 1 is what 1 + u
    holds of u, and log(1 + u) / ((1 + u) - 1) is smooth there.
    """
    if SIGMOID:
        u = tl.exp(-tl.abs(raw).to(DTYPE))
        w = 1.0 + u
        log_w = tl.where(w == 1.0, u, u * (tl.log(w) / tl.where(w == 1.0, 1.0, w - 1.0)))
        log_f = tl.minimum(raw, 0.0) - log_w.to(tl.float64)
        slope = tl.where(raw > 0, u, 1.0) / w
    else:
        log_f = raw
        slope = tl.full(raw.shape, 1.0, DTYPE)
    return log_f, slope
