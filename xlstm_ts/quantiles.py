"""Arithmetic of quantiles: other levels from the levels at hand, and one set of quantiles from several paths.

Arrays hold quantiles on their last axis, in the order of `levels`.
"""

from typing import NoReturn

import numpy as np
from scipy.special import ndtri

from xlstm_ts.errors import ParameterError


def check_levels(levels, where: str) -> np.ndarray:
    """Return quantile levels as a float64 array; ParameterError unless all lie strictly between 0 and 1."""
    try:
        if np.asarray(levels).dtype.kind in "SU":  # numpy would read them as numbers, and sktime would not
            raise TypeError("text")
        levels = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{where}: quantile levels {levels!r} are not numbers between 0 and 1.") from error
    if levels.size == 0 or not np.all((levels > 0) & (levels < 1)):
        raise ParameterError(f"{where}: quantile levels {levels.tolist()} are impossible; expected 0 < level < 1.")
    return levels


def interpolate_levels(quantiles: np.ndarray, levels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return quantiles at `wanted` levels, linear in the normal score of the level.

    The outermost pieces are continued beyond the outermost levels, as the tails of a normal would be.
    `PiecewiseNormal` is the distribution that has these quantiles.

    Parameters
    ----------
    quantiles : array of shape (..., Q)
        At `levels`, increasing.
    levels : array of shape (Q,)
        Increasing, strictly between 0 and 1.
    wanted : array of shape (K,) or (..., K)
        Levels strictly between 0 and 1, the same for all or some for each.

    Returns
    -------
    array of shape (..., K)

    Raises
    ------
    ParameterError
        There is a single level, and another one is wanted.
    """
    if len(levels) == 1:
        if np.any(wanted != levels):
            raise_single(levels)
        return np.repeat(quantiles, wanted.shape[-1], axis=-1)
    scores, targets = ndtri(levels), ndtri(wanted)
    right = np.clip(np.searchsorted(scores, targets), 1, len(levels) - 1)
    left = right - 1
    weight = (targets - scores[left]) / (scores[right] - scores[left])
    # Written as a step from the left value: at weight 0, or between equal values, it is exact.
    # Halved, the step between the largest floats of either sign does not overflow.
    if wanted.ndim == 1:
        low, high = quantiles[..., left], quantiles[..., right]
    else:
        low, high = np.take_along_axis(quantiles, left, -1), np.take_along_axis(quantiles, right, -1)
    exact = np.isclose(weight, 1.0, rtol=0, atol=1e-12)
    limit = np.finfo(np.float64).max
    with np.errstate(over="ignore"):
        between = np.clip(low + 2 * weight * (high / 2 - low / 2), -limit, limit)
    return np.where(exact, high, between)


def raise_single(levels: np.ndarray) -> NoReturn:
    """Report that nothing is known of the spread."""
    raise ParameterError(
        f"The only quantile level is {levels[0]}, which says nothing of others, nor of intervals and variances. Fit "
        "with quantile_levels of at least three."
    )


def level_masses(levels: np.ndarray) -> np.ndarray:
    """Return the probability that each level stands for: from halfway to the level before to halfway to the next."""
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    return np.diff(edges)


def pool_paths(quantiles: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Reduce forecasts made along several paths to one.

    Parameters
    ----------
    quantiles : array of shape (Q, ..., Q)
        Along the first axis the path that was followed, the one at each level; along the last, the quantiles that
        were forecast on it.
    levels : array of shape (Q,)
        The levels of both axes.

    Returns
    -------
    array of shape (..., Q)
        Quantiles of the mixture, each path weighted by the probability that its level stands for.
    """
    masses = level_masses(levels)
    points = np.moveaxis(quantiles, 0, -2)
    points = points.reshape(*points.shape[:-2], -1)
    weights = np.multiply.outer(masses, masses).ravel()
    order = np.argsort(points, axis=-1, kind="stable")
    points = np.take_along_axis(points, order, axis=-1)
    weights = weights[order]
    cumulative = np.cumsum(weights, axis=-1) - weights / 2  # the level at which each point stands
    scores = ndtri(np.clip(cumulative, 1e-12, 1 - 1e-12))
    pooled = np.empty((*points.shape[:-1], len(levels)))
    for j, score in enumerate(ndtri(levels)):
        right = np.clip((scores < score).sum(-1, keepdims=True), 1, points.shape[-1] - 1)
        (s0, s1), (p0, p1) = (
            (np.take_along_axis(a, right - 1, -1)[..., 0], np.take_along_axis(a, right, -1)[..., 0])
            for a in (scores, points)
        )
        gap = s1 - s0
        weight = np.where(gap > 0, (score - s0) / np.where(gap > 0, gap, 1.0), 0.5)
        pooled[..., j] = p0 + np.clip(weight, -1.0, 2.0) * (p1 - p0)
    return np.maximum.accumulate(pooled, axis=-1)
