"""Forecasts along a stream of observations, at a cost per observation that never grows.

A network reads the last `context_length` steps, scaled by what is observed in them. With each observation the scale
moves, and with it every input of the window, so that no recurrent state can be carried over and give the numbers that
a prediction gives. What a stream keeps is that window: memory and time are those of one window, however long it runs.

Dimensions: T context steps, C channels, S steps asked for, Q quantile levels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.data.covariates import with_categories
from xlstm_ts.data.panel import Panel
from xlstm_ts.data.series import SeriesArray, check_columns
from xlstm_ts.data.time_axis import MOST_STEPS, TimeAxis
from xlstm_ts.errors import DataError, DataTypeError, ParameterError
from xlstm_ts.fitted_panel import FittedPanel
from xlstm_ts.quantiles import check_levels, interpolate_levels


class ForecastStream:
    """One series as it comes in, and its forecasts.

    After every `push`, `forecast` equals what the forecaster says after ``update(..., update_params=False)`` with the
    same observations. `XLSTMForecaster.stream` makes one; what happens to the forecaster afterwards does not change it.

    Parameters
    ----------
    fitted : FittedPanel
        Of one series.
    names : sequence
        Names of the C variables in forecasts.

    Examples
    --------
    >>> from xlstm_ts import XLSTMForecaster
    >>> from sktime.datasets import load_airline
    >>> y = load_airline()
    >>> model = XLSTMForecaster(horizon=12, context_length=24, validation_fraction=0, max_epochs=1, random_state=0)
    >>> stream = model.fit(y[:-12]).stream()
    >>> stream.push(417.0)
    >>> str(stream.cutoff), len(stream.forecast())
    ('1960-01', 12)
    """

    def __init__(self, fitted: FittedPanel, names: Sequence):
        self._fitted = fitted
        self._names = pd.Index(names, tupleize_cols=False)
        config = fitted.predictor.network.config
        self._rows = config.context_length + (0 if fitted.factors is None else config.horizon)
        self._keep(fitted)

    @property
    def _series(self) -> SeriesArray:
        return self._fitted.panel.series[0]

    @property
    def cutoff(self) -> Any:
        """The time of the last observation."""
        return self._series.axis.index[-1]

    def push(self, y: Any, X: pd.DataFrame | None = None) -> None:
        """Take new observations in.

        Parameters
        ----------
        y : float, sequence of C floats, pd.Series or pd.DataFrame
            A number, or one for each variable, is the observation of the next step. A Series or frame has its times
            as index, one or more, all after the last observation; times that it leaves out are missing. NaN is
            missing, too.
        X : pd.DataFrame, optional
            Covariates at the times of `y`, where the forecaster was fitted with some.

        Raises
        ------
        DataError
            A time does not come after the last observation or is no step of the series, or `y` or `X` cannot be used
            as they are. The stream is then as it was.
        """
        where = f"{type(self).__name__}.push"
        frame = self._framed(y, where)
        check_columns(frame.columns, self._series.columns, where)
        plan = self._fitted.covariates.columns
        self._refuse_x(X, where)
        if X is not None:
            X = with_categories(X.to_frame() if isinstance(X, pd.Series) else X)
        series = self._series.updated(frame, where, X=X if plan else None, plan=plan)
        if frame.index[0] <= self.cutoff:
            raise DataError(
                f"{where}: the time {frame.index[0]} does not come after the last observation, {self.cutoff}. Push "
                "later times only; to change what was seen, update the forecaster and make another stream."
            )
        new = series.values[series.axis.index > self.cutoff]
        level, scale = self._fitted.scaler.parts
        if ((scale == 0) & (np.nan_to_num(new - level) != 0)).any():
            warnings.warn(
                f"{where}: a variable that was constant in training now moves; its forecast stays at that constant.",
                UserWarning,
                stacklevel=2,
            )
        grown, _ = self._fitted.grown(replace(self._fitted.panel, series=(series,)), where)
        self._keep(grown)

    def forecast(
        self, fh: int | Sequence[int] | None = None, X: pd.DataFrame | None = None, *, quantile_levels: Any = None
    ) -> pd.DataFrame:
        """Forecast what follows the last observation.

        Parameters
        ----------
        fh : int or sequence of int, optional
            Steps ahead, 1 or more. Default: all steps of the network's horizon.
        X : pd.DataFrame, optional
            Covariates that are known ahead, from the next step to the last one asked for; needed where the forecaster
            was fitted with some.
        quantile_levels : float or sequence of float, optional
            Levels of quantiles. Default: the point forecast.

        Returns
        -------
        pd.DataFrame
            A row per step, in the order of time. A column per variable as `predict` has it; or, with levels, a column
            per variable and level as `predict_quantiles` has it.

        Raises
        ------
        DataError
            X does not cover the steps.
        ParameterError
            A step is below 1 or a level outside (0, 1).
        """
        where = f"{type(self).__name__}.forecast"
        wanted = None if quantile_levels is None else check_levels(quantile_levels, where)
        steps = self._steps(fh, where)
        self._refuse_x(X, where)
        most = int(steps[-1])
        if X is not None:
            X = with_categories(X.to_frame() if isinstance(X, pd.Series) else X)
        (points,), (quantiles,) = self._fitted.at_steps([steps], X, where)
        times = self._series.axis.future(most)[steps - 1]
        if wanted is None:
            return pd.DataFrame(points, index=times, columns=self._names)
        quantiles = interpolate_levels(quantiles, self._fitted.predictor.levels, wanted)  # [S, C, Q]
        columns = pd.MultiIndex.from_product([self._names, [float(level) for level in wanted]])
        return pd.DataFrame(quantiles.reshape(len(steps), -1), index=times, columns=columns)

    def _keep(self, fitted: FittedPanel) -> None:
        """Keep what the next forecasts read, and no more."""
        series = _end_of(fitted.panel.series[0], self._rows)
        self._fitted = replace(fitted, panel=Panel((series,), None, [series.axis.index.name]))

    def _steps(self, fh: int | Sequence[int] | None, where: str) -> np.ndarray:
        if fh is None:
            return np.arange(1, self._fitted.predictor.network.config.horizon + 1)
        steps = np.unique(np.atleast_1d(np.asarray(fh)))
        if not np.issubdtype(steps.dtype, np.integer) or steps.size == 0 or steps[0] < 1 or steps[-1] > MOST_STEPS:
            raise ParameterError(f"{where}: fh={fh!r} is impossible; expected steps ahead, from 1 to {MOST_STEPS}.")
        return steps

    def _framed(self, y: Any, where: str) -> pd.DataFrame:
        """Return observations as a frame with their times."""
        if isinstance(y, pd.DataFrame):
            return y
        columns = self._series.columns
        if isinstance(y, pd.Series):
            return y.to_frame(columns[0] if y.name is None and len(columns) == 1 else y.name)
        try:
            row = np.atleast_1d(np.asarray(y, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise DataTypeError(
                f"{where}: y is of type {type(y).__name__}; expected a number, or a Series or DataFrame with its times."
            ) from error
        if row.shape != (len(columns),):
            raise DataError(
                f"{where}: y is of shape {row.shape}; expected one number for each of the {len(columns)} variables, or "
                "a Series or DataFrame with its times."
            )
        return pd.DataFrame(row[None], index=self._series.axis.future(1), columns=columns)

    def _refuse_x(self, X: Any, where: str) -> None:
        if X is not None and not self._fitted.covariates.columns:
            raise DataError(f"{where}: X was given, but the forecaster was fitted without. Leave it out.")


def _end_of(series: SeriesArray, rows: int) -> SeriesArray:
    """Keep the last rows, as arrays of their own, so that the others can go."""
    axis = TimeAxis(series.axis.index[-rows:].copy(deep=True), series.axis.step)
    return replace(series, values=series.values[-rows:].copy(), axis=axis, x=series.x[-rows:].copy())
