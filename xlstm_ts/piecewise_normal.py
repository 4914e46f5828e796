"""The distribution behind a set of quantiles: density, moments and energies in closed form, as arrays."""

import numpy as np
from scipy.special import ndtr, ndtri

from xlstm_ts.quantiles import interpolate_levels, raise_single

LARGEST = np.finfo(np.float64).max
# What the density of coinciding quantiles is spread over, relative to the largest of them: what float64 can resolve.
RESOLUTION = np.finfo(np.float64).eps
ROOT_PI, LOG_ROOT_2_PI = np.sqrt(np.pi), np.log(2 * np.pi) / 2


class PiecewiseNormal:
    """Distributions whose quantiles `interpolate_levels` gives: linear in the normal score of the level.

    Between two given quantiles, and beyond the outermost, such a distribution is a piece of a normal one:
    ``Q(z) = m + a_k + b_k z`` with slope ``b_k = (q_{k+1} - q_k) / (z_{k+1} - z_k)``, where z is the normal score
    and m the quantile of the middle level, from which everything is measured. All integrals over a piece reduce to
    the density φ and the distribution function Φ of the standard normal.

    Parameters
    ----------
    quantiles : array of shape (..., Q)
        Never falling along the last axis, finite.
    levels : array of shape (Q,)
        Increasing, strictly between 0 and 1; two or more.

    Raises
    ------
    ParameterError
        There is a single level.

    Notes
    -----
    Where quantiles coincide, b_k = 0 and their value has a probability of its own. Everything is exact there, but
    for the densities, which do not exist: `log_pdf`, `pdf` and `pdf_power` take such a piece as one of the slope
    that float64 can just resolve, about 2.2e-16 of the largest quantile, or of 1 where all are 0.

    What would exceed the largest float is that float.
    """

    def __init__(self, quantiles: np.ndarray, levels: np.ndarray):
        if len(levels) == 1:
            raise_single(levels)
        self.quantiles, self.levels = quantiles, levels
        # In units of a power of two no digit is lost, nothing overflows, and float64 resolves RESOLUTION.
        largest = np.abs(quantiles).max(axis=-1)
        self.unit = np.where(largest > 0, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)
        self.middle = quantiles[..., (len(levels) - 1) // 2]
        self.scores = ndtri(levels)
        self.knots = quantiles / self.unit[..., None] - (self.middle / self.unit)[..., None]
        self.slopes = np.diff(self.knots) / np.diff(self.scores)
        self.offsets = self.knots[..., :-1] - self.slopes * self.scores[:-1]
        # The outermost knots are no borders: their pieces go on.
        self.borders = np.concatenate([[-np.inf], self.scores[1:-1], [np.inf]])

    def ppf(self, p: np.ndarray) -> np.ndarray:
        """Return the quantiles (..., K) at levels (..., K); infinite at 0 and 1, NaN beyond."""
        inside = (p > 0) & (p < 1)
        quantiles = interpolate_levels(self.quantiles, self.levels, np.where(inside, p, 0.5))
        return np.select([inside, p == 0, p == 1], [quantiles, -np.inf, np.inf], np.nan)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Return the probability (...) of values up to x (...)."""
        return ndtr(self._score(x)[1])

    def log_pdf(self, x: np.ndarray) -> np.ndarray:
        """Return the logarithm of the density (...) at x (...); finite at every finite x."""
        middle = (self.scores.size - 1) // 2
        slopes = self._resolved_slopes()
        knots = np.cumsum(slopes * np.diff(self.scores), axis=-1)
        knots = np.concatenate([np.zeros_like(knots[..., :1]), knots], axis=-1)
        distance = self._distance(x)
        piece, at, knot, slope = _find(knots - knots[..., [middle]], slopes, distance)
        with np.errstate(over="ignore"):
            score = self.scores[piece] + (at - knot) / slope
            return np.maximum(-score * score / 2 - LOG_ROOT_2_PI - np.log(slope) - np.log(self.unit), -LARGEST)

    def pdf(self, x: np.ndarray) -> np.ndarray:
        """Return the density (...) at x (...)."""
        with np.errstate(over="ignore"):
            return np.minimum(np.exp(self.log_pdf(x)), LARGEST)

    def pdf_power(self, a: float | np.ndarray = 2) -> np.ndarray:
        """Return the integral (...) of the density's power `a`, above 0."""
        a = np.asarray(a)[..., None]
        weights = np.diff(ndtr(np.sqrt(a) * self.borders)) / np.sqrt(a)
        power = (1 - a) * (np.log(self._resolved_slopes()) + np.log(self.unit)[..., None] + LOG_ROOT_2_PI)
        with np.errstate(over="ignore"):
            return np.minimum((weights * np.exp(power)).sum(axis=-1), LARGEST)

    def mean(self) -> np.ndarray:
        """Return the means (...)."""
        with np.errstate(over="ignore"):
            return np.clip(self.middle + self.unit * self._means().sum(axis=-1), -LARGEST, LARGEST)

    def variance(self) -> np.ndarray:
        """Return the variances (...)."""
        mean = self._means().sum(axis=-1, keepdims=True)
        slopes, offsets = self.slopes, self.offsets - mean
        mass, density, bent = np.diff(ndtr(self.borders)), np.diff(_phi(self.borders)), np.diff(_z_phi(self.borders))
        squares = offsets * offsets * mass - 2 * offsets * slopes * density + slopes * slopes * (mass - bent)
        with np.errstate(over="ignore"):
            return np.minimum(squares.sum(axis=-1).clip(0) * self.unit * self.unit, LARGEST)

    def distance_of_two(self) -> np.ndarray:
        """Return the mean distance (...) of two independent values, E|X - X'|."""
        # E|X - X'| = 2 ∫ (2Φ - 1) Q φ dz, and ∫ z φ Φ dz = -φΦ + Φ(√2 z) / (2√π).
        below, density = ndtr(self.borders), _phi(self.borders)
        level = np.diff(below * below - below)
        bent = np.diff(ndtr(np.sqrt(2) * self.borders) / ROOT_PI - density * (2 * below - 1))
        with np.errstate(over="ignore"):
            halves = (self.offsets * level + self.slopes * bent).sum(axis=-1).clip(0)
            return np.minimum(2 * halves * self.unit, LARGEST)

    def distance_to(self, x: np.ndarray) -> np.ndarray:
        """Return the mean distance (...) to x (...), E|X - x|."""
        # With M the part of the mean that lies up to x: E|X - x| = (x - m) (2F - 1) + E[X - m] - 2M.
        piece, score = self._score(x)
        means = self._means()
        up_to = np.concatenate([np.zeros_like(means[..., :1]), np.cumsum(means, axis=-1)], axis=-1)
        part = _take(self.offsets, piece) * (ndtr(score) - ndtr(self.borders[piece]))
        part -= _take(self.slopes, piece) * (_phi(score) - _phi(self.borders[piece]))
        rest = up_to[..., -1] - 2 * (_take(up_to, piece) + part)
        with np.errstate(over="ignore"):
            halves = (x / 2 - self.middle / 2) * (2 * ndtr(score) - 1) + self.unit * rest / 2
            return np.minimum(2 * halves.clip(0), LARGEST)

    def _means(self) -> np.ndarray:
        """Return what each piece (..., Q - 1) adds to the mean of X - m, in units."""
        return self.offsets * np.diff(ndtr(self.borders)) - self.slopes * np.diff(_phi(self.borders))

    def _resolved_slopes(self) -> np.ndarray:
        return np.maximum(self.slopes, RESOLUTION)

    def _distance(self, x: np.ndarray) -> np.ndarray:
        """Return x - m in units."""
        with np.errstate(over="ignore"):
            return x / self.unit - self.middle / self.unit

    def _score(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the piece in which x lies, and the highest normal score whose quantile is x or less."""
        distance = self._distance(x)
        piece, at, knot, slope = _find(self.knots, self.slopes, distance)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            score = np.where(slope > 0, self.scores[piece] + (at - knot) / slope, np.where(at >= knot, np.inf, -np.inf))
        score = np.clip(score, self.borders[piece], self.borders[piece + 1])
        return piece, np.where(np.isnan(distance), np.nan, score)


def _find(knots: np.ndarray, slopes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the number of the piece in which `at` lies, `at`, and the piece's left knot and slope."""
    piece = (knots[..., 1:-1] <= at[..., None]).sum(axis=-1)
    return piece, at, _take(knots, piece), _take(slopes, piece)


def _take(values: np.ndarray, piece: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, piece[..., None], axis=-1)[..., 0]


def _phi(z: np.ndarray) -> np.ndarray:
    """Return the density of the standard normal."""
    with np.errstate(over="ignore"):
        return np.exp(-z * z / 2 - LOG_ROOT_2_PI)


def _z_phi(z: np.ndarray) -> np.ndarray:
    """Return z φ(z), 0 at infinity."""
    return np.where(np.isfinite(z), z, 0.0) * _phi(z)
