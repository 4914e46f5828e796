"""Forecasters that say what they were given, in the form of sktime's, for tests of the backtest."""

from typing import ClassVar

import numpy as np
import pandas as pd

from xlstm_ts.evaluation.baselines import each_series, forecast_frame, repeated
from xlstm_ts.evaluation.series import variable_names


class Walker:
    """Last value plus step times the covariate of the target (or plus the step): it moves by `update`.

    What it was given is recorded on the class, since a backtest works on clones.
    """

    fitted_on: ClassVar[list] = []
    updated_with: ClassVar[list] = []

    def __init__(self, fails_at=None):
        self.fails_at = fails_at

    def clone(self):
        return type(self)(self.fails_at)

    def get_tag(self, name, default=None):
        return name == "capability:pred_int" or default

    def fit(self, y, X=None, fh=None):
        self.fitted_on.append(y)
        self._y, self._mean = y, {key: float(np.nanmean(part)) for key, part in each_series(y)}
        self.is_fitted = True
        return self

    @property
    def cutoff(self):
        return self._y.index.get_level_values(-1).max()

    def update(self, y, X=None, update_params=True):
        assert not update_params
        self.updated_with.append(y)
        self._y = pd.concat([self._y, y]).sort_index(kind="stable")
        return self

    def predict(self, fh, X=None):
        frame = self._frame(fh, X)
        return frame.iloc[:, 0].rename(None) if isinstance(self._y, pd.Series) else frame

    def predict_quantiles(self, fh, alpha, X=None):
        frame = self._frame(fh, X)
        columns = pd.MultiIndex.from_product([frame.columns, alpha])
        values = frame.to_numpy()[..., np.newaxis] + (np.asarray(alpha) - 0.5)
        return pd.DataFrame(values.reshape(len(frame), -1), index=frame.index, columns=columns)

    def _frame(self, fh, X):
        parts = {}
        for key, part in each_series(self._y):
            last = part.index[-1]
            if self.fails_at is not None and last in self.fails_at:
                raise RuntimeError("no luck")
            ahead = None if X is None else dict(each_series(X))[key].to_numpy()
            values = points_from(part.to_numpy()[-1], self._mean.get(key, 0.0), fh, ahead)
            parts[key] = pd.DataFrame(values, index=after(part.index, fh), columns=variable_names(self._y))
        if isinstance(self._y.index, pd.MultiIndex):
            frame = pd.concat(parts)
            return frame.set_axis(frame.index.set_names(self._y.index.names))
        return parts[""]


class AllAtOnce(Walker):
    """The same forecasts for all origins in one call; rows in an arbitrary order."""

    asked_with: ClassVar[list] = []

    def predict_origins(self, y, X=None, *, origins, fh, quantile_levels=None):
        self.asked_with.append((y, X, list(origins)))
        quantile_levels = quantile_levels or []
        frames = []
        for key, part in each_series(y):
            here = [origin for origin in origins if origin in part.index]
            if self.fails_at is not None and any(origin in self.fails_at for origin in here):
                raise RuntimeError("no luck")
            if not here:
                continue
            covariates = None if X is None else dict(each_series(X))[key]
            points, times = [], []
            for origin in here:
                ahead = None if covariates is None else covariates[covariates.index > origin].to_numpy()
                points.append(points_from(part.loc[origin].to_numpy(), self._mean.get(key, 0.0), fh, ahead))
                times.extend(after(part.loc[:origin].index, fh))
            points = np.stack(points)
            frame = forecast_frame(
                points,
                points[..., np.newaxis] + (np.asarray(quantile_levels) - 0.5),
                origins=pd.Index(here),
                steps=fh,
                times=pd.Index(times),
                variables=variable_names(y),
                quantile_levels=quantile_levels,
            )
            frame["series"] = repeated(key, len(frame)) if isinstance(y.index, pd.MultiIndex) else 0
            frames.append(frame)
        return pd.concat(frames, ignore_index=True).sample(frac=1, random_state=0)


def points_from(last, mean, fh, ahead):
    """Forecasts that depend on the last value, the training mean, the step and the covariate of the target."""
    steps = np.asarray(fh)[:, np.newaxis]
    moved = 0.0 if ahead is None else ahead[np.asarray(fh) - 1][:, :1]
    return last + 0.1 * steps + 0.01 * mean + moved


def after(index, fh):
    """Times after the last one, by the hour or by ones."""
    last = index[-1]
    if isinstance(index, pd.DatetimeIndex):
        return pd.DatetimeIndex([last + step * pd.Timedelta("1h") for step in fh])
    return pd.Index([last + step for step in fh])


def forget():
    for log in (Walker.fitted_on, Walker.updated_with, AllAtOnce.asked_with):
        log.clear()


def hourly(rows=80, columns=None, seed=0, start="2024-01-01"):
    rng = np.random.default_rng(seed)
    index = pd.date_range(start, periods=rows, freq="h")
    values = rng.normal(size=(rows, columns or 1)).cumsum(axis=0) + 50
    if columns is None:
        return pd.Series(values[:, 0], index=index, name="load")
    return pd.DataFrame(values, index=index, columns=list("abcdef")[:columns])


def panel(lengths=(80, 80), columns=1, levels=1):
    """Series of these lengths, all of which end at the same time."""
    longest = max(lengths)
    frames = {}
    for number, rows in enumerate(lengths):
        name = f"s{number}" if levels == 1 else (f"r{number % 2}", f"s{number}")
        frames[name] = hourly(longest, columns, seed=number).iloc[longest - rows :]
    names = ["store"] if levels == 1 else ["region", "store"]
    return pd.concat(frames, names=[*names, "time"]).sort_index()
