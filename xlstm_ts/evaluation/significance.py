"""Is a difference more than luck? Tests and confidence limits for forecasts.

Errors of overlapping forecasts depend on each other, so no test here counts them as independent trials unless it
says so. Randomness comes from a generator or seed that is passed in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import norm, t

from xlstm_ts.errors import ParameterError


@dataclass(frozen=True)
class TestResult:
    """Outcome of a test.

    Attributes
    ----------
    statistic : float
        The test statistic; NaN where the data do not allow the test.
    p_value : float
        Probability of a statistic at least as extreme if the null hypothesis holds; NaN likewise.
    """

    statistic: float
    p_value: float
    __test__ = False  # no test class of pytest


NO_TEST = TestResult(float("nan"), float("nan"))


def diebold_mariano(
    loss: ArrayLike, other_loss: ArrayLike, *, horizon: int = 1, alternative: str = "two-sided"
) -> TestResult:
    """Test whether two forecasts of the same values have the same expected loss.

    The statistic of Diebold and Mariano (1995, "Comparing predictive accuracy") is the mean difference d of the
    losses over its standard error, sqrt(v / n). The variance v counts the autocovariances of the differences up to
    lag ``horizon - 1``, since errors of forecasts that overlap are correlated. Harvey, Leybourne and Newbold (1997,
    "Testing the equality of prediction mean squared errors", equations 8 and 9) multiply it by
    sqrt((n + 1 - 2h + h(h - 1) / n) / n) and compare with Student's t on n - 1 degrees of freedom.

    Parameters
    ----------
    loss, other_loss : array_like of shape (n,)
        Losses of the two forecasts, such as absolute errors, in time order. Pairs with a NaN are left out.
    horizon : int
        How many neighbouring forecasts overlap, h: steps ahead, counted in the distance between origins. 1 if they
        do not overlap.
    alternative : {"two-sided", "less", "greater"}
        What is tested against equality: the first loss is different, smaller or larger.

    Returns
    -------
    TestResult
        A negative statistic means that the first loss is smaller. Where the sum of autocovariances is not positive,
        as can happen with small n, they are weighted by Bartlett's triangle, which keeps it positive. NaN for fewer
        than 2 pairs, for n too small for this horizon, and for differences that are all the same.

    Raises
    ------
    ParameterError
        `horizon` is below 1, `alternative` unknown, or the losses have different lengths.

    Examples
    --------
    >>> from xlstm_ts.evaluation.significance import diebold_mariano
    >>> round(diebold_mariano([1, 2, 1, 3], [2, 2, 3, 4]).statistic, 4)
    -2.4495
    """
    first, second = np.asarray(loss, dtype=float), np.asarray(other_loss, dtype=float)
    if first.ndim != 1 or first.shape != second.shape:
        raise ParameterError(
            f"diebold_mariano: the losses have the shapes {first.shape} and {second.shape}; two series of the same "
            "length are needed."
        )
    if horizon < 1:
        raise ParameterError(f"diebold_mariano: horizon={horizon}; at least 1 is needed.")
    difference = first - second
    difference = difference[~np.isnan(difference)]
    n = len(difference)
    correction = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n if n > 1 else -1.0
    if correction <= 0 or horizon > n or np.ptp(difference) == 0:
        return NO_TEST
    centred = difference - difference.mean()
    covariances = np.array([centred[lag:] @ centred[: n - lag] / n for lag in range(horizon)])
    variance = covariances[0] + 2 * covariances[1:].sum()
    if variance <= 1e-12 * covariances[0]:
        variance = covariances[0] + 2 * (covariances[1:] * (1 - np.arange(1, horizon) / horizon)).sum()
    statistic = float(difference.mean() / np.sqrt(variance / n) * np.sqrt(correction))
    return TestResult(statistic, _p_value(statistic, t(n - 1).cdf, alternative, "diebold_mariano"))


def pesaran_timmermann(actual: ArrayLike, forecast: ArrayLike, *, alternative: str = "greater") -> TestResult:
    """Test whether forecast signs say anything about actual signs.

    Pesaran and Timmermann (1992, "A simple nonparametric test of predictive performance", equation 6) compare the
    share of agreeing signs with the share that independence would give for as many rises among the actual and among
    the forecast values. A forecast that always says "up" in a rising market therefore gains nothing.

    Parameters
    ----------
    actual, forecast : array_like of shape (n,)
        Changes; a rise is a value above 0. Pairs with a NaN are left out. The trials must be independent under the
        null hypothesis, which overlapping changes are not.
    alternative : {"two-sided", "less", "greater"}
        What is tested against independence; "greater": signs agree more often than by chance.

    Returns
    -------
    TestResult
        Asymptotically normal. NaN without any variation: if either side has only rises or only falls.

    Raises
    ------
    ParameterError
        The shapes differ, or `alternative` is unknown.
    """
    truth, guess = np.asarray(actual, dtype=float), np.asarray(forecast, dtype=float)
    if truth.ndim != 1 or truth.shape != guess.shape:
        raise ParameterError(
            f"pesaran_timmermann: the changes have the shapes {truth.shape} and {guess.shape}; two series of the "
            "same length are needed."
        )
    known = ~(np.isnan(truth) | np.isnan(guess))
    up, says_up = truth[known] > 0, guess[known] > 0
    n = len(up)
    if n < 2 or up.all() or says_up.all() or not up.any() or not says_up.any():
        return NO_TEST
    p_up, p_says = up.mean(), says_up.mean()
    share = (up == says_up).mean()
    expected = p_up * p_says + (1 - p_up) * (1 - p_says)
    variance = expected * (1 - expected) / n
    variance_expected = (
        (2 * p_up - 1) ** 2 * p_says * (1 - p_says) / n
        + (2 * p_says - 1) ** 2 * p_up * (1 - p_up) / n
        + 4 * p_up * p_says * (1 - p_up) * (1 - p_says) / n**2
    )
    if variance <= variance_expected:
        return NO_TEST
    statistic = float((share - expected) / np.sqrt(variance - variance_expected))
    return TestResult(statistic, _p_value(statistic, norm.cdf, alternative, "pesaran_timmermann"))


def wilson_interval(successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95) -> tuple[NDArray, NDArray]:
    """Confidence limits of a share, for independent trials (Wilson 1927).

    Parameters
    ----------
    successes, trials : array_like
        Counts, broadcast against each other.
    confidence : float
        Probability that the limits hold the true share, in (0, 1).

    Returns
    -------
    tuple of ndarray
        Lower and upper limit, always within [0, 1]; NaN without trials.
    """
    successes, trials = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    z = ndtri(0.5 + confidence / 2)
    n = np.where(trials > 0, trials, np.nan)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def block_bootstrap(
    terms: ArrayLike,
    statistic: Callable[[NDArray], NDArray],
    *,
    block_length: int,
    resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.Generator | None = 0,
) -> tuple[NDArray, NDArray]:
    """Confidence limits of a statistic of dependent rows, by the circular block bootstrap.

    Blocks of neighbouring rows are drawn with replacement, so that what depends on each other stays together; the
    rows are closed to a circle, so that each is drawn equally often (Politis and Romano 1992).

    Parameters
    ----------
    terms : array_like of shape (n, ...)
        One row per origin, in time order.
    statistic : callable
        Maps the mean of the rows, of shape (resamples, ...), to statistics of shape (resamples, ...).
    block_length : int
        Rows per block: at least as many as depend on each other.
    resamples : int
        Number of resamples.
    confidence : float
        Probability between the two limits, in (0, 1).
    random_state : int, Generator or None
        Seed, or a generator to draw from.

    Returns
    -------
    tuple of ndarray
        Lower and upper percentile limit of the statistic.

    Raises
    ------
    ParameterError
        There are no rows, or `block_length` or `resamples` is below 1.
    """
    terms = np.asarray(terms, dtype=float)
    n = len(terms)
    if n < 1 or block_length < 1 or resamples < 1:
        raise ParameterError(
            f"block_bootstrap: {n} rows, block_length={block_length}, resamples={resamples}; each must be at least 1."
        )
    rng = np.random.default_rng(random_state)
    length = min(block_length, n)
    blocks = -(-n // length)
    starts = rng.integers(n, size=(resamples, blocks))
    rows = ((starts[..., np.newaxis] + np.arange(length)).reshape(resamples, -1)[:, :n]) % n
    # How often each row was drawn, as a matrix, makes all means one product.
    counts = np.zeros((resamples, n))
    np.add.at(counts, (np.arange(resamples)[:, np.newaxis], rows), 1.0)
    means = (counts @ terms.reshape(n, -1) / n).reshape(resamples, *terms.shape[1:])
    values = np.asarray(statistic(means), dtype=float)
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return low, high


def _p_value(statistic: float, cdf: Callable[[float], float], alternative: str, where: str) -> float:
    if alternative == "two-sided":
        return float(2 * cdf(-abs(statistic)))
    if alternative == "less":
        return float(cdf(statistic))
    if alternative == "greater":
        return float(cdf(-statistic))
    raise ParameterError(f'{where}: alternative={alternative!r}; "two-sided", "less" or "greater" is needed.')
