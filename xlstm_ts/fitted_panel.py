"""Series and the network that was fitted to them: forecasts from their ends, within them, and from many origins.

Frames of covariates and arrays of steps in, arrays or one table out; nothing is changed, what grows is a new object.

Dimensions: S series, C channels, L steps of one block, Q levels, O origins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from xlstm_ts.data.covariates import CovariatePlan
from xlstm_ts.data.panel import Panel, panel_scaler, panel_windows
from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.series import MIN_OBSERVED
from xlstm_ts.data.windows import Windows
from xlstm_ts.errors import DataError
from xlstm_ts.inference import Predictor
from xlstm_ts.quantiles import interpolate_levels
from xlstm_ts.training.calibration import WidthFactors, follow


@dataclass(frozen=True)
class FittedPanel:
    """What a fitted forecaster knows.

    Parameters
    ----------
    predictor : Predictor
        Network, quantile levels and calibration.
    panel : Panel
        All that was seen of each series.
    scaler : SeriesScaler
        Level and scale (S, C) of each.
    covariates : CovariatePlan
        What the network reads of X and of the clock.
    factors : array of shape (S, L, C, Q) or None
        Of the widths of each series, where they go on learning.
    """

    predictor: Predictor
    panel: Panel
    scaler: SeriesScaler
    covariates: CovariatePlan
    factors: np.ndarray | None

    def subset(self, numbers: Sequence[int]) -> "FittedPanel":
        """Keep some of the series."""
        factors = None if self.factors is None else self.factors[list(numbers)]
        return replace(self, panel=self.panel.subset(numbers), scaler=self.scaler.at(numbers), factors=factors)

    def grown(self, panel: Panel, where: str) -> tuple["FittedPanel", list[int]]:
        """Return what is known once the panel is `panel`, and the numbers of the series that have changed.

        `panel` begins with the series of this one, longer or as they are; those after them are new, and are measured.
        """
        new = range(len(self.panel), len(panel))
        scaler = self.scaler
        if new:
            fresh = Panel(panel.series[new.start :], None, panel.names)
            added = panel_scaler(fresh, np.array([len(one.values) for one in fresh.series]))
            scaler = SeriesScaler(*(np.concatenate(pair) for pair in zip(scaler.parts, added.parts, strict=True)))
        changed = [j for j in range(len(panel)) if j in new or panel.series[j] is not self.panel.series[j]]
        factors = self.factors
        if factors is not None:
            part = panel.subset(changed)
            windows, starts = self._windows(part, scaler.at(changed), None, np.zeros(len(part), int), 1, where)
            ends = [np.array([len(one.values)]) for one in part.series]
            factors = np.concatenate([factors, np.empty((len(new), *factors.shape[1:]))])
            factors[changed] = self._factors_at(part, windows, starts, ends)
        return replace(self, panel=panel, scaler=scaler, factors=factors), changed

    def at_steps(
        self, steps: Sequence[np.ndarray], X: pd.DataFrame | None, where: str
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return points (n, C) and quantiles (n, C, Q) of each series at (n,) steps of its own.

        Steps are counted from the end of the series. Those up to 0 lie in it, and are forecast from one step before.
        """
        panel, predictor = self.panel, self.predictor
        most = np.array([max(0, int(part.max())) for part in steps])
        windows, starts = self._windows(panel, self.scaler, X, most, predictor.blocks(int(most.max())), where)
        sizes = np.array([len(part) for part in steps])
        series, flat = np.repeat(np.arange(len(panel)), sizes), np.concatenate(steps)
        lengths = np.array([len(one.values) for one in panel.series])
        point = np.empty((len(flat), len(panel.columns)))
        quantiles = np.empty((*point.shape, len(predictor.levels)))
        ahead = flat > 0
        if ahead.any():
            # One origin for each series, its end; every step is looked up in what is forecast from there.
            asked, place = np.unique(series[ahead], return_inverse=True)
            factors = None if self.factors is None else self.factors[asked]
            forecast = predictor.forecast(
                windows, starts[asked] + lengths[asked], int(most.max()), self.scaler.of(asked), factors=factors
            )
            point[ahead] = forecast.point[place, flat[ahead] - 1]
            quantiles[ahead] = forecast.quantiles[place, flat[ahead] - 1]
        if not ahead.all():
            of = series[~ahead]
            origins = starts[of] + lengths[of] - 1 + flat[~ahead]
            factors = None if self.factors is None else self.factors[of]
            forecast = predictor.forecast(windows, origins, 1, self.scaler.of(of), factors=factors)
            point[~ahead], quantiles[~ahead] = forecast.point[:, 0], forecast.quantiles[:, 0]
        cuts = np.cumsum(sizes)[:-1]
        return np.split(point, cuts), np.split(quantiles, cuts)

    def from_origins(
        self,
        panel: Panel,
        X: pd.DataFrame | None,
        origins: pd.Index,
        steps: np.ndarray,
        levels: np.ndarray,
        *,
        batch_size: int,
        where: str,
    ) -> pd.DataFrame:
        """Forecast `steps` ahead from many origins in `panel`; a long table, as `predict_origins` has it.

        A series of `panel` that is not among the fitted ones is scaled by its rows up to its first origin.

        Raises
        ------
        DataError
            An origin is a time of no series, X does not cover the steps, or a new series cannot be scaled.
        """
        rows = [one.axis.index.get_indexer(origins) for one in panel.series]
        lost = np.all([part < 0 for part in rows], axis=0)
        if lost.any():
            raise DataError(f"{where}: the origin {origins[lost][0]} is not a time of y.")
        rows = [part[part >= 0] for part in rows]
        # A series without any origin is forecast from nowhere: how it is scaled does not matter.
        pairs = zip(rows, panel.series, strict=True)
        scaler = self._scaler_of(panel, [int(part.min(initial=len(one.values) - 1)) + 1 for part, one in pairs], where)

        predictor, most = self.predictor, int(steps[-1])
        last = np.array([int(part.max(initial=-1)) for part in rows])
        beyond = np.maximum(0, last + most + 1 - np.array([len(one.values) for one in panel.series]))
        windows, starts = self._windows(panel, scaler, X, beyond, predictor.blocks(most), where)
        series = np.repeat(np.arange(len(panel)), [len(part) for part in rows])
        local = np.concatenate(rows)
        factors = self._factors_at(panel, windows, starts, [part + 1 for part in rows])
        forecast = predictor.forecast(
            windows, starts[series] + local + 1, most, scaler.of(series), factors=factors, batch_size=batch_size
        )
        point = forecast.point[:, steps - 1]  # [O, S, C]
        quantiles = interpolate_levels(forecast.quantiles[:, steps - 1], predictor.levels, levels)
        times = [one.axis.index.append(one.axis.future(int(k))) for one, k in zip(panel.series, beyond, strict=True)]
        return _origin_table(panel, series, rows, times, steps, point, quantiles, levels)

    def _windows(self, panel, scaler, X, beyond: np.ndarray, blocks: int, where: str) -> tuple[Windows, np.ndarray]:
        """Lay a panel out with what is known of the `beyond` (S,) rows that follow it, and room for whole blocks."""
        network = self.predictor.network
        config, device = network.config, next(network.parameters()).device
        future = None
        if len(self.covariates.known):
            future = panel.future_x(X, beyond, self.covariates.columns, where)
        ahead = max(blocks * config.horizon, int(beyond.max(initial=0)))
        return panel_windows(
            panel, scaler, self.covariates, config.context_length, config.horizon, device, ahead=ahead, future=future
        )

    def _scaler_of(self, panel: Panel, cuts: list[int], where: str) -> SeriesScaler:
        """Return level and scale of each series: as fitted, or, of one that was not there, measured before its cut."""
        place = {self.panel.key(j): j for j in range(len(self.panel))}
        alike = (self.panel.keys is None) == (panel.keys is None)
        scalers = []
        for j, one in enumerate(panel.series):
            fitted = place.get(panel.key(j)) if alike else None
            if fitted is not None:
                scalers.append(self.scaler.of(fitted))
                continue
            before = one.values[: cuts[j]]
            if ((~np.isnan(before)).sum(axis=0) < MIN_OBSERVED).any():
                raise DataError(
                    f"{where}: the series {panel.key(j)!r} is new to the forecaster and has less than {MIN_OBSERVED} "
                    f"observed values in a column up to its first origin, {one.axis.index[cuts[j] - 1]}, to be scaled "
                    "by. Begin with a later origin, or leave it out."
                )
            scalers.append(SeriesScaler.fit(before))
        return SeriesScaler.stack(scalers)

    def _factors_at(
        self, panel: Panel, windows: Windows, starts: np.ndarray, origins: list[np.ndarray]
    ) -> np.ndarray | None:
        """Return the factors of the widths at origins of each series, one after the other; None where they are fixed.

        They have learned from what came after the cutoff, of a series that was not there from its first origin on.
        """
        start = self.predictor.calibration
        if self.factors is None or not isinstance(start, WidthFactors):
            return None
        place = {self.panel.key(j): j for j in range(len(self.panel))}
        parts = []
        for j, (one, rows) in enumerate(zip(panel.series, origins, strict=True)):
            widths, known = start, int(rows.min(initial=len(one.values)))
            if (fitted := place.get(panel.key(j))) is not None:
                widths = replace(start, factors=self.factors[fitted])
                known = int(one.axis.index.searchsorted(self.panel.series[fitted].axis.index[-1], side="right"))
            learned = follow(
                widths,
                self.predictor.network,
                windows,
                self.predictor.levels,
                first=int(starts[j]) + max(known - windows.horizon + 1, 1),
                origins=starts[j] + rows,
            )
            parts.append(learned)
        return np.concatenate(parts)


def _origin_table(panel, series, rows, times, steps, point, quantiles, levels) -> pd.DataFrame:
    """Put forecasts (O, S, C) and (O, S, C, Q) of many origins into a long table."""
    count, per_row = len(steps), len(panel.columns)
    origin = _join([one.axis.index[part] for one, part in zip(panel.series, rows, strict=True)])
    target = _join([when[(part[:, None] + steps).ravel()] for when, part in zip(times, rows, strict=True)])
    keys = np.empty(len(panel), dtype=object)
    keys[:] = [panel.key(j) for j in range(len(panel))]
    table: dict[str | float, object] = {
        "series": 0 if panel.keys is None else keys[series].repeat(count * per_row),
        "origin": origin.repeat(count * per_row),
        "step": np.tile(np.repeat(steps, per_row), len(series)),
        "time": target.repeat(per_row),
        "variable": np.tile(panel.columns.to_numpy(), len(series) * count),
        "point": point.ravel(),
    }
    table |= {float(level): quantiles[..., j].ravel() for j, level in enumerate(levels)}
    return pd.DataFrame(table)


def _join(parts: list[pd.Index]) -> pd.Index:
    return parts[0].append(parts[1:]) if len(parts) > 1 else parts[0]
