"""What `predict_proba` returns: forecast quantiles as a distribution of skpro's kind. Imports skpro, an extra."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pandas.api.types import is_list_like
from skpro.distributions.base import BaseDistribution

from xlstm_ts.errors import ParameterError
from xlstm_ts.piecewise_normal import PiecewiseNormal
from xlstm_ts.quantiles import check_levels


class QuantileDistribution(BaseDistribution):
    """Distributions given by quantiles, one for each row and column of a frame; rows and columns are independent.

    `ppf` equals `predict_quantiles` at every level: between the given quantiles, and beyond the outermost, it is
    linear in the normal score of the level. So each distribution is made of pieces of normal ones, with the tails
    of a normal. Everything, the energies of the CRPS too, is computed in closed form.

    Parameters
    ----------
    quantiles : array of shape (rows, columns, Q)
        Finite, and never falling along the last axis. Shape (Q,) is a single distribution where neither `index` nor
        `columns` is given; (Q,) and (columns, Q) are repeated for all rows otherwise.
    levels : array of shape (Q,)
        Increasing, strictly between 0 and 1.
    index, columns : pd.Index, optional
        Default: counted from 0.

    Raises
    ------
    ParameterError
        The levels or the quantiles are impossible, or do not belong together.

    Notes
    -----
    Where quantiles coincide, as all do in the forecast of a series that was constant in training, their value has a
    probability of its own. `cdf` jumps there, and moments, energies and samples are exact: the CRPS of a certain
    forecast is its absolute error. A density does not exist; `pdf`, `log_pdf` and `pdfnorm` are those of a normal as
    narrow as float64 can resolve, with a standard deviation of about 2.2e-16 of the value. So the log loss is finite: a
    value that a certain forecast hits has one of about -35 + log|value|, one that it misses by a part in a thousand
    one of 1e25. `LogLoss` and `SquaredDistrLoss` are of little use for such series; CRPS is.

    `sample` draws with NumPy's global generator, as all distributions of skpro do.

    Examples
    --------
    >>> import numpy as np
    >>> from xlstm_ts.distribution import QuantileDistribution
    >>> forecast = QuantileDistribution(np.array([[[-1.0, 0.0, 3.0]], [[5.0, 5.0, 5.0]]]), np.array([0.1, 0.5, 0.9]))
    >>> forecast.ppf(0.9)[0].tolist()
    [3.0, 5.0]
    >>> forecast.cdf(0.0)[0].tolist()
    [0.5, 0.0]
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["xlstm_ts developers"],
        "maintainers": ["xlstm_ts developers"],
        "python_dependencies": None,
        "capabilities:approx": [],
        "capabilities:exact": ["mean", "var", "energy", "pdf", "log_pdf", "pdfnorm", "cdf", "ppf"],
        "distr:measuretype": "continuous",
        "distr:paramtype": "nonparametric",
    }

    index: pd.Index
    columns: pd.Index

    def __init__(self, quantiles, levels, index=None, columns=None):
        self.quantiles = quantiles
        self.levels = levels
        super().__init__(index=index, columns=columns)

    def _init_shape_bc(self, index=None, columns=None):
        levels = check_levels(self.levels, type(self).__name__)
        quantiles = np.asarray(self.quantiles, dtype=np.float64)
        if quantiles.shape[-1:] != levels.shape or quantiles.ndim > 3:
            raise ParameterError(
                f"{type(self).__name__}: quantiles of shape {quantiles.shape} do not belong to {levels.size} levels; "
                "expected (rows, columns, levels)."
            )
        if np.any(np.diff(levels) <= 0) or not np.all(np.isfinite(quantiles)) or np.any(np.diff(quantiles) < 0):
            raise ParameterError(
                f"{type(self).__name__}: levels must increase and quantiles be finite and never fall from level to "
                "level. Sort them."
            )
        if quantiles.ndim > 1 or index is not None or columns is not None:
            rows, width = (1, 1, *quantiles.shape)[-3:-1]
            self.index = pd.RangeIndex(rows) if index is None else self.index
            self.columns = pd.RangeIndex(width) if columns is None else self.columns
            quantiles = np.broadcast_to(quantiles, (len(self.index), len(self.columns), levels.size))
        self._shape = quantiles.shape[:-1]
        self._pieces = PiecewiseNormal(quantiles, levels)

    def _iloc(self, rowidx=None, colidx=None):
        rows, columns = (
            np.arange(size) if places is None else np.arange(size)[places]
            for size, places in zip(self._shape, (rowidx, colidx), strict=True)
        )
        if rows.ndim == columns.ndim == 0:
            return self._iat(rows, columns)
        rows, columns = np.atleast_1d(rows), np.atleast_1d(columns)
        quantiles = self._pieces.quantiles[np.ix_(rows, columns)]
        return type(self)(quantiles, self.levels, index=self.index[rows], columns=self.columns[columns])

    def _iat(self, rowidx=None, colidx=None):
        return type(self)(self._pieces.quantiles[rowidx, colidx], self.levels)

    def _loc(self, rowidx=None, colidx=None):
        pair = colidx is None and isinstance(rowidx, tuple) and len(rowidx) == 2
        if pair and (isinstance(rowidx[0], slice) or is_list_like(rowidx[1])):
            rowidx, colidx = rowidx  # skpro takes [rows, columns] for one key where the rows have several levels
        # What a label stands for, and that it is there at all, pandas knows.
        places = (
            None if labels is None else pd.Series(np.arange(len(axis)), axis).loc[labels]
            for axis, labels in ((self.index, rowidx), (self.columns, colidx))
        )
        return self._iloc(*places)

    def _at(self, rowidx=None, colidx=None):
        return self._loc(rowidx, colidx)

    def _mean(self):
        return self._pieces.mean()

    def _var(self):
        return self._pieces.variance()

    def _pdf(self, x):
        return self._pieces.pdf(x)

    def _log_pdf(self, x):
        return self._pieces.log_pdf(x)

    def _cdf(self, x):
        return self._pieces.cdf(x)

    def _ppf(self, p):
        return self._pieces.ppf(p[..., None])[..., 0]

    def _energy_self(self):
        return _over_columns(self._pieces.distance_of_two())

    def _energy_x(self, x):
        return _over_columns(self._pieces.distance_to(x))

    def pdfnorm(self, a=2):
        """Return the integral of the density's power `a`, as a frame like `mean`."""
        return self._boilerplate("_pdfnorm", a=a)

    def _pdfnorm(self, a):
        return self._pieces.pdf_power(a)

    def _sample(self, n_samples=None):
        size = (*self._shape, 1 if n_samples is None else n_samples)
        # The global generator is what users of skpro seed.
        drawn = self._pieces.ppf(np.random.uniform(size=size))  # noqa: NPY002
        if self.ndim == 0:
            return drawn[0] if n_samples is None else pd.DataFrame(drawn)
        frames = [pd.DataFrame(one, index=self.index, columns=self.columns) for one in np.moveaxis(drawn, -1, 0)]
        return frames[0] if n_samples is None else pd.concat(frames, keys=range(n_samples))

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Return small settings for skpro's contract tests."""
        levels = np.array([0.1, 0.5, 0.9])
        rows = np.array([[[0.0, 1.0, 3.0], [-5.0, -4.5, 0.0]], [[10.0, 10.0, 11.0], [7.0, 7.0, 7.0]]])
        return [
            {"quantiles": rows[:1] + np.arange(3.0)[:, None, None], "levels": levels},
            {
                "quantiles": rows[0],
                "levels": levels,
                "index": pd.Index([1, 2, 5]),
                "columns": pd.Index(["a", "b"]),
            },
            {"quantiles": rows[0, 0], "levels": levels},
        ]


def _over_columns(values: np.ndarray) -> np.ndarray:
    return values.sum(axis=1) if values.ndim else values
