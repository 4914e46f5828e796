"""Accuracy of point, quantile and interval forecasts, on plain arrays.

Two rules hold for every function. A cell whose actual value is NaN (or whose ``observed`` flag is false)
does not count; without any counted cell the score is NaN. A forecast that is NaN where the actual value
is known is never skipped: the score is then NaN, since averaging over the rest would flatter the model.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


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


def naive_scale(train: ArrayLike, seasonal_period: int = 1) -> float:
    """Training error of the seasonal naive forecast, mean |y_t - y_(t-m)|: the unit of `mase`.

    Parameters
    ----------
    train : array_like of shape (n,)
        One training series; pairs with a NaN are left out.
    seasonal_period : int
        Rows per season, m. A series not longer than one season uses m = 1.

    Returns
    -------
    float
        The scale; 0 for a constant series, NaN if no pair is complete.
    """
    train = np.asarray(train, dtype=float)
    lag = seasonal_period if len(train) > seasonal_period else 1
    steps = np.abs(train[lag:] - train[:-lag])
    return _mean(steps[~np.isnan(steps)])


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
    quantiles = np.asarray(quantiles, dtype=float)
    levels = np.asarray(quantile_levels, dtype=float)
    actual, counted = _align(actual, observed=observed)
    error = (actual[..., np.newaxis] - quantiles)[counted]
    return _mean(np.maximum(levels * error, (levels - 1) * error))


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


def _mean(values: NDArray) -> float:
    return float(values.mean()) if values.size else float("nan")
