"""Accuracy of point, quantile and interval forecasts, on plain arrays.

Two rules hold for every function. A cell whose actual value is NaN (or whose ``observed`` flag is false)
does not count; without any counted cell the score is NaN. A forecast that is NaN where the actual value
is known is never skipped: the score is then NaN, since averaging over the rest would flatter the model.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri


def mae(actual: ArrayLike, forecast: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Mean absolute error, in the units of `actual`.

    Parameters
    ----------
    actual, forecast : array_like
        Arrays of the same shape; NaN in `actual` is a missing value.
    observed : array_like of bool, optional
        Cells that count, of the same shape. Default: wherever `actual` is not NaN.

    Returns
    -------
    float
        The error; NaN if no cell counts, or if a counted forecast is NaN.
    """
    actual, forecast, counted = _align(actual, forecast, observed=observed)
    return _mean(np.abs(actual - forecast)[counted])


def rmse(actual: ArrayLike, forecast: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Root of the mean squared error, in the units of `actual`; parameters as for `mae`."""
    actual, forecast, counted = _align(actual, forecast, observed=observed)
    return float(np.sqrt(_mean(np.square(actual - forecast)[counted])))


def mase(actual: ArrayLike, forecast: ArrayLike, scale: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Mean absolute scaled error: the absolute error in units of a naive forecast's error.

    Parameters
    ----------
    actual, forecast : array_like
        Arrays of the same shape; NaN in `actual` is a missing value.
    scale : array_like
        Training error of the naive forecast (see `naive_scale`), broadcast against `actual`.
    observed : array_like of bool, optional
        Cells that count. Default: wherever `actual` is not NaN.

    Returns
    -------
    float
        The scaled error. It has no meaning for a series that was constant in training (scale 0) or for
        which no scale is known (NaN): the score is then NaN for the whole array.
    """
    actual, forecast, scale, counted = _align(actual, forecast, scale, observed=observed)
    usable_scale = np.where(scale > 0, scale, np.nan)
    return _mean((np.abs(actual - forecast) / usable_scale)[counted])


def rmsse(actual: ArrayLike, forecast: ArrayLike, scale: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Root mean squared scaled error: like `mase`, with squared errors.

    Parameters
    ----------
    actual, forecast : array_like
        Arrays of the same shape; NaN in `actual` is a missing value.
    scale : array_like
        Root mean squared training error of the naive forecast, ``naive_scale(train, m, power=2)``, broadcast
        against `actual`.
    observed : array_like of bool, optional
        Cells that count. Default: wherever `actual` is not NaN.

    Returns
    -------
    float
        The scaled error; NaN where `mase` is.
    """
    actual, forecast, scale, counted = _align(actual, forecast, scale, observed=observed)
    usable_scale = np.where(scale > 0, scale, np.nan)
    return float(np.sqrt(_mean(np.square((actual - forecast) / usable_scale)[counted])))


def smape(actual: ArrayLike, forecast: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Symmetric mean absolute percentage error, mean of 2 |y - f| / (|y| + |f|): from 0 to 2; 0 where both are 0."""
    actual, forecast, counted = _align(actual, forecast, observed=observed)
    return _mean(symmetric_error(actual, forecast)[counted])


def symmetric_error(actual: NDArray, forecast: NDArray) -> NDArray:
    """Return 2 |y - f| / (|y| + |f|) of each cell, 0 where both are 0: the terms of `smape`."""
    size = np.abs(actual) + np.abs(forecast)
    return 2 * np.abs(actual - forecast) / np.where(size == 0, 1.0, size)


def wape(actual: ArrayLike, forecast: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Weighted absolute percentage error: the sum of |y - f| over the sum of |y|; NaN if all values are 0."""
    actual, forecast, counted = _align(actual, forecast, observed=observed)
    return _ratio(np.abs(actual - forecast)[counted], np.abs(actual)[counted])


def bias(actual: ArrayLike, forecast: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Mean of forecast less actual value, in the units of `actual`: positive where forecasts are too high."""
    actual, forecast, counted = _align(actual, forecast, observed=observed)
    return _mean((forecast - actual)[counted])


def naive_scale(train: ArrayLike, seasonal_period: int = 1, *, power: int = 1) -> float:
    """Training error of the seasonal naive forecast, mean |y_t - y_(t-m)|: the unit of `mase` and `rmsse`.

    Parameters
    ----------
    train : array_like of shape (n,)
        One training series; pairs with a NaN are left out.
    seasonal_period : int
        Rows per season, m. A series not longer than one season uses m = 1.
    power : int
        1 for the mean absolute error, the unit of `mase`; 2 for the root of the mean squared error, of `rmsse`.

    Returns
    -------
    float
        The scale; 0 for a constant series, NaN if no pair is complete.
    """
    train = np.asarray(train, dtype=float)
    lag = seasonal_period if len(train) > seasonal_period else 1
    steps = np.abs(train[lag:] - train[:-lag])
    return _mean(steps[~np.isnan(steps)] ** power) ** (1 / power)


def pinball_loss(
    actual: ArrayLike,
    quantiles: ArrayLike,
    quantile_levels: ArrayLike,
    *,
    observed: ArrayLike | None = None,
) -> float:
    """Pinball (quantile) loss, averaged over the levels and the counted cells.

    Parameters
    ----------
    actual : array_like of shape (...)
        Actual values; NaN is missing.
    quantiles : array_like of shape (..., Q)
        Quantile forecasts, one per level, levels last.
    quantile_levels : array_like of shape (Q,)
        Levels in (0, 1).
    observed : array_like of bool of shape (...), optional
        Cells that count. Default: wherever `actual` is not NaN.

    Returns
    -------
    float
        Mean of max(a (y - q), (a - 1)(y - q)) over levels a; for the level 0.5 alone, half the MAE.
    """
    actual, counted = _align(actual, observed=observed)
    return _mean(pinball_terms(actual, np.asarray(quantiles, dtype=float), quantile_levels)[counted])


def weighted_quantile_loss(
    actual: ArrayLike,
    quantiles: ArrayLike,
    quantile_levels: ArrayLike,
    *,
    observed: ArrayLike | None = None,
) -> float:
    """Twice the pinball loss, averaged over the levels, summed over the cells, over the sum of |y|.

    For the level 0.5 alone it is `wape`. Parameters as for `pinball_loss`; NaN if all actual values are 0.
    """
    actual, counted = _align(actual, observed=observed)
    loss = 2 * pinball_terms(actual, np.asarray(quantiles, dtype=float), quantile_levels).mean(axis=-1)
    return _ratio(loss[counted], np.abs(actual)[counted])


def crps(
    actual: ArrayLike,
    quantiles: ArrayLike,
    quantile_levels: ArrayLike,
    *,
    observed: ArrayLike | None = None,
) -> float:
    """Continuous ranked probability score of a forecast that is known by its quantiles.

    CRPS is twice the integral of the pinball loss over all levels (Gneiting and Raftery 2007, "Strictly proper
    scoring rules", section 4.2). The integral is taken as a sum in which each level stands for the stretch from
    halfway to the level below it to halfway to the one above. At levels (k - 1/2) / K it is the exact score of the
    ensemble of the K quantiles; few levels, or none in the tails, make it a rough one.

    Parameters as for `pinball_loss`; in the units of `actual`.
    """
    actual, counted = _align(actual, observed=observed)
    loss = pinball_terms(actual, np.asarray(quantiles, dtype=float), quantile_levels)
    return _mean(2 * (loss @ level_masses(quantile_levels))[counted])


def pinball_terms(actual: NDArray, quantiles: NDArray, quantile_levels: ArrayLike) -> NDArray:
    """Return max(a (y - q), (a - 1)(y - q)) of each cell and level a: the terms of `pinball_loss`."""
    levels = np.asarray(quantile_levels, dtype=float)
    error = actual[..., np.newaxis] - quantiles
    return np.maximum(levels * error, (levels - 1) * error)


def level_masses(quantile_levels: ArrayLike) -> NDArray:
    """Return the probability that each of the increasing levels stands for; they add up to 1."""
    levels = np.asarray(quantile_levels, dtype=float)
    return np.diff(np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]]))


def coverage(actual: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Share of the counted actual values inside the closed interval [`lower`, `upper`].

    NaN if no cell counts, or if a bound is NaN where the actual value is known.
    """
    actual, lower, upper, counted = _align(actual, lower, upper, observed=observed)
    # A comparison with NaN is false: a missing bound would silently count as a miss.
    unknown = np.isnan(lower) | np.isnan(upper)
    inside = np.where(unknown, np.nan, (lower <= actual) & (actual <= upper))
    return _mean(inside[counted])


def interval_width(lower: ArrayLike, upper: ArrayLike, *, observed: ArrayLike | None = None) -> float:
    """Mean width of an interval, in the units of the series, over the cells that are `observed`."""
    width = np.asarray(upper, dtype=float) - np.asarray(lower, dtype=float)
    return _mean(width if observed is None else width[np.asarray(observed, dtype=bool)])


def winkler_score(
    actual: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    coverage: float,
    *,
    observed: ArrayLike | None = None,
) -> float:
    """Winkler's interval score: the width, plus 2 / (1 - coverage) times the distance of a value outside.

    Parameters
    ----------
    actual, lower, upper : array_like
        Arrays of the same shape; NaN in `actual` is a missing value.
    coverage : float
        Share of values that the interval promises to hold, in (0, 1).
    observed : array_like of bool, optional
        Cells that count. Default: wherever `actual` is not NaN.

    Returns
    -------
    float
        Mean score, in the units of `actual`; lower is better.
    """
    actual, lower, upper, counted = _align(actual, lower, upper, observed=observed)
    return _mean(winkler_terms(actual, lower, upper, coverage)[counted])


def winkler_terms(actual: NDArray, lower: NDArray, upper: NDArray, coverage: float) -> NDArray:
    """Return the interval score of each cell: the terms of `winkler_score`."""
    outside = np.maximum(lower - actual, 0) + np.maximum(actual - upper, 0)
    return upper - lower + 2 / (1 - coverage) * outside


def probability_below(threshold: ArrayLike, quantiles: ArrayLike, quantile_levels: ArrayLike) -> NDArray:
    """Forecast probability of a value at or below a threshold, P(Y <= threshold).

    The distribution function runs through the quantiles. Between them, and beyond the outermost as a normal tail,
    it is linear in the normal score of the level.

    Parameters
    ----------
    threshold : array_like of shape (...)
        Thresholds, in the units of the series; broadcast against the cells of `quantiles`.
    quantiles : array_like of shape (..., Q)
        Quantile forecasts, non-decreasing along the last axis.
    quantile_levels : array_like of shape (Q,)
        Increasing levels in (0, 1), at least two.

    Returns
    -------
    ndarray of shape (...)
        Probabilities; where quantiles are equal to the threshold the largest of their levels, NaN where the
        threshold or a quantile is NaN.
    """
    quantiles = np.asarray(quantiles, dtype=float)
    scores = ndtri(np.asarray(quantile_levels, dtype=float))
    threshold = np.broadcast_to(np.asarray(threshold, dtype=float), quantiles.shape[:-1])
    last = len(scores) - 1
    right = np.clip((quantiles <= threshold[..., np.newaxis]).sum(axis=-1), 1, last)
    low, high = (np.take_along_axis(quantiles, k[..., np.newaxis], -1)[..., 0] for k in (right - 1, right))
    slope = (scores[right] - scores[right - 1]) / np.where(high > low, high - low, 1.0)
    probability = ndtr(scores[right - 1] + (threshold - low) * slope)
    # Two equal quantiles have no slope: a jump, or an end beyond which there is nothing.
    jump = np.where(threshold < low, 0.0, np.where(threshold > high, 1.0, ndtr(scores[right])))
    unknown = np.isnan(threshold) | np.isnan(quantiles).any(axis=-1)
    return np.where(unknown, np.nan, np.where(high > low, probability, jump))


def pit(actual: ArrayLike, quantiles: ArrayLike, quantile_levels: ArrayLike) -> NDArray:
    """Probability integral transform: the forecast probability of a value at or below the one that came.

    Over many forecasts it is uniform between 0 and 1 if they are calibrated; heaps at both ends mean intervals that
    are too narrow, a heap in the middle intervals that are too wide. Shapes as for `pinball_loss`; NaN where the
    actual value is missing.
    """
    return probability_below(actual, quantiles, quantile_levels)


def quantile_coverage(
    actual: ArrayLike, quantiles: ArrayLike, *, observed: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Share of the counted actual values at or below each quantile forecast, of shape (Q,).

    A calibrated forecast gives the levels themselves. Shapes as in `pinball_loss`.
    """
    quantiles = np.asarray(quantiles, dtype=float)
    actual, counted = _align(actual, observed=observed)
    below = np.where(np.isnan(quantiles), np.nan, actual[..., np.newaxis] <= quantiles)
    return np.array([_mean(below[..., level][counted]) for level in range(quantiles.shape[-1])])


def _align(actual: ArrayLike, *others: ArrayLike, observed: ArrayLike | None) -> tuple[NDArray, ...]:
    """All arrays as float64 in the shape of `actual`, and last the mask of the cells that count."""
    actual = np.asarray(actual, dtype=float)
    counted = ~np.isnan(actual)
    if observed is not None:
        counted &= np.asarray(observed, dtype=bool)
    shaped = [np.broadcast_to(np.asarray(other, dtype=float), actual.shape) for other in others]
    return actual, *shaped, counted


def _ratio(numerator: NDArray, denominator: NDArray) -> float:
    total = float(denominator.sum())
    return float(numerator.sum()) / total if total > 0 else float("nan")


def _mean(values: NDArray) -> float:
    return float(values.mean()) if values.size else float("nan")
