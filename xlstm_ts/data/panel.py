"""Many series as one object: a frame with instance levels above time, taken apart and put together again.

A single series is a panel of one, without keys. Dimensions: S series, N times, C channels, K columns of X.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import pandas as pd
import torch

from xlstm_ts.data.covariates import Column, CovariatePlan, check_names, to_matrix
from xlstm_ts.data.repair import resampled, with_holes_as_rows
from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.series import SeriesArray, make_series
from xlstm_ts.data.time_axis import TimeAxis, check_order
from xlstm_ts.data.windows import Windows
from xlstm_ts.errors import DataError


@dataclass(frozen=True)
class Panel:
    """Series with the same columns.

    Parameters
    ----------
    series : tuple of SeriesArray
        In the order of the frame.
    keys : tuple or None
        The label of each series, a tuple where there are several levels; None for a single series.
    names : list
        Names of the index levels, time last.
    """

    series: tuple[SeriesArray, ...]
    keys: tuple[Hashable, ...] | None
    names: Sequence[Hashable]

    def __len__(self) -> int:
        return len(self.series)

    @property
    def columns(self) -> pd.Index:
        """Names of the C channels."""
        return self.series[0].columns

    def key(self, number: int) -> Hashable:
        """Return the label of a series; 0 for a single one."""
        return 0 if self.keys is None else self.keys[number]

    def subset(self, numbers: Sequence[int]) -> "Panel":
        """Keep some of the series."""
        keys = None if self.keys is None else tuple(self.keys[j] for j in numbers)
        return replace(self, series=tuple(self.series[j] for j in numbers), keys=keys)

    def times(self) -> list[np.ndarray]:
        """Return the times of each series as integers on one clock."""
        return [_on_clock(one.axis.index) for one in self.series]

    def frame(self, tables: Sequence[np.ndarray], times: Sequence[pd.Index], columns: pd.Index) -> pd.DataFrame:
        """Put tables (n_s, ...) of each series under one index."""
        values = np.concatenate([table.reshape(len(table), -1) for table in tables])
        return pd.DataFrame(values, index=self.index(times), columns=columns)

    def index(self, times: Sequence[pd.Index]) -> pd.Index:
        """Return the index that has, for each series, its own times below its key."""
        if self.keys is None:
            return times[0]
        joined = times[0].append(list(times[1:]))
        count = [len(part) for part in times]
        keys = [key if isinstance(key, tuple) else (key,) for key in self.keys]
        levels = [np.repeat(np.array(level, dtype=object), count) for level in zip(*keys, strict=True)]
        return pd.MultiIndex.from_arrays(
            [*[pd.Index(level).infer_objects() for level in levels], joined], names=self.names
        )

    def updated(
        self, y: pd.DataFrame, where: str, *, X: pd.DataFrame | None, plan: Sequence[Column], calendar=None
    ) -> "Panel":
        """Return the panel known after `y` was seen; series that are not there yet are added."""
        parts, X_parts = take_apart(y, where), dict(take_apart(X, where)) if X is not None else {}
        place = {self.key(j): j for j in range(len(self))}
        series = list(self.series)
        keys = None if self.keys is None else list(self.keys)
        for key, part in parts:
            x = X_parts.get(key)
            if key in place:
                series[place[key]] = series[place[key]].updated(part, _named(where, key), X=x, plan=plan)
            elif keys is not None:
                series.append(make_series(part, calendar=calendar, where=where, X=x, plan=plan, name=repr(key)))
                keys.append(key)
        return replace(self, series=tuple(series), keys=None if keys is None else tuple(keys))

    def future_x(
        self, X: pd.DataFrame | None, steps: np.ndarray, plan: Sequence[Column], where: str
    ) -> list[np.ndarray]:
        """Return the covariates of the next `steps` (S,) steps of each series; NaN where nothing is known ahead.

        Of X, only the columns that are known ahead are read.

        Raises
        ------
        DataError
            X does not cover these steps; the message names the series, the missing steps and columns.
        """
        ahead = [column for column in plan if column.kind == "known"]
        known, places = [column.name for column in ahead], [plan.index(column) for column in ahead]
        if X is not None:
            check_names(X, plan, where)
        parts = dict(take_apart(X, where)) if X is not None else {}
        rows = []
        for number, one in enumerate(self.series):
            times = one.axis.future(int(steps[number]))
            future = np.tile(one.static_row(plan), (len(times), 1))
            if known and len(times):
                part = parts.get(self.key(number))
                if part is None:
                    _raise_uncovered(part, times, known, self.key(number), where)
                _check_coverage(part, times, known, self.key(number), where)
                future[:, places] = to_matrix(part.iloc[part.index.get_indexer(times)][known], ahead, where)
            rows.append(future)
        return rows


def make_panel(
    y: pd.DataFrame, *, X: pd.DataFrame | None = None, plan: Sequence[Column] = (), calendar=None, where: str
) -> Panel:
    """Check a frame and take it apart.

    Parameters
    ----------
    y : pd.DataFrame
        A single series, or many below instance levels.
    X : pd.DataFrame, optional
        Covariates, with the same levels.
    plan : sequence of Column
        What the columns of X are.
    calendar
        What continues daily indices without freq; see `xlstm_ts.data.time_axis.make_axis`.
    where : str
        Object and method, for the messages.

    Raises
    ------
    DataError
        A series cannot be used as it is; the message names it, the place and the remedy.
    """
    parts = take_apart(y, where)
    X_parts = dict(take_apart(X, where)) if X is not None else {}
    names = list(y.index.names)
    series: list[SeriesArray] = []
    axis: TimeAxis | None = None
    for key, part in parts:
        if axis is not None and not part.index.equals(axis.index):
            axis = None  # most panels repeat one index: its rule is found once
        x = X_parts.get(key)
        if X is not None and x is None:
            raise DataError(f"{where}: X has no rows for series {key!r}. Give X for every series of y.")
        name = "" if len(names) == 1 else repr(key)
        series.append(make_series(part, calendar=calendar, where=where, X=x, plan=plan, axis=axis, name=name))
        axis = series[-1].axis
    keys = None if len(names) == 1 else tuple(key for key, _ in parts)
    return Panel(tuple(series), keys, names)


def take_apart(frame: pd.DataFrame, where: str) -> list[tuple[Hashable, pd.DataFrame]]:
    """Return the series of a frame, each with its key and with time alone as its index."""
    if not isinstance(frame.index, pd.MultiIndex):
        return [(0, frame)]
    if frame.index.nlevels == 1:
        raise DataError(
            f"{where}: the frame has an index of one level that is a MultiIndex. Make it plain, with "
            "y.index = y.index.get_level_values(0)."
        )
    if len(frame) == 0:
        raise DataError(f"{where}: the panel is empty. Give at least one series.")
    for name, codes in zip(frame.index.names[:-1], frame.index.codes[:-1], strict=True):
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise DataError(
                f"{where}: row {row} belongs to no series: the level {name!r} of the index is missing there. Name its "
                "series, or drop such rows."
            )
    above = list(range(frame.index.nlevels - 1))
    places = frame.groupby(level=above if len(above) > 1 else 0, sort=False).indices
    times = frame.index.get_level_values(-1)
    parts = []
    for key, rows in places.items():
        one = frame.iloc[rows]
        index = times[rows]
        parts.append((key, one.set_axis(index, axis=0)))
    return parts


def is_nested(data: pd.Series | pd.DataFrame) -> bool:
    """Return whether the cells of a frame are series themselves, as in sktime's nested format for panels."""
    return (
        isinstance(data, pd.DataFrame)
        and data.size > 0
        and all(isinstance(cell, pd.Series | np.ndarray) for cell in data.iloc[0])
    )


def repair(frame: pd.DataFrame, where: str, *, resample: str | None, on_gap: str) -> pd.DataFrame:
    """Return a frame whose series were brought to a grid, or had their holes filled, as a user asks for.

    See `xlstm_ts.data.repair`. Without such a wish it is the frame itself.
    """
    if resample is None and on_gap != "mask":
        return frame
    parts = [
        (key, part if resample is None else resampled(part, resample, where)) for key, part in take_apart(frame, where)
    ]
    if on_gap == "mask":
        parts = [(key, with_holes_as_rows(part, where)) for key, part in parts]
    if not isinstance(frame.index, pd.MultiIndex):
        return parts[0][1]
    names = list(frame.index.names)
    return pd.concat({key: part for key, part in parts}, names=names[:-1]).rename_axis(names)


def check_same_times(y: pd.Series | pd.DataFrame, X: pd.Series | pd.DataFrame, where: str) -> None:
    """Raise unless X is a single series where y is one, and covers its times."""
    many = [isinstance(data.index, pd.MultiIndex) for data in (y, X)]
    if many[0] != many[1]:
        kinds = ["a panel" if one else "a single series" for one in many]
        raise DataError(f"{where}: y is {kinds[0]} and X is {kinds[1]}. Give both the same index levels.")
    if many[0]:
        return
    comparable = X.index.dtype == y.index.dtype
    lost = ~y.index.isin(X.index) if comparable else np.ones(len(y), dtype=bool)
    if lost.any():
        raise DataError(
            f"{where}: X covers {X.index[0]} to {X.index[-1]} ({X.index.dtype}), but lacks {int(lost.sum())} of the "
            f"{len(y)} times of y ({y.index.dtype}), the first being {y.index[lost][0]}. Give a row of X for each time "
            "of y (NaN where a value is missing)."
        )


def panel_scaler(panel: Panel, cuts: np.ndarray) -> SeriesScaler:
    """Measure level and scale (S, C) of each series before its cut."""
    pairs = zip(panel.series, cuts, strict=True)
    return SeriesScaler.stack([SeriesScaler.fit_before(one.values, int(cut)) for one, cut in pairs])


def covariate_scaler(panel: Panel, plan: Sequence[Column], cuts: np.ndarray) -> SeriesScaler:
    """Measure level and scale (K,) of the columns of X over all series, before their cuts."""
    if not plan:
        return SeriesScaler(np.zeros(0), np.ones(0))
    before = np.concatenate([one.x[: int(cut)] for one, cut in zip(panel.series, cuts, strict=True)])
    after = np.concatenate([one.x[int(cut) :] for one, cut in zip(panel.series, cuts, strict=True)])
    scaler = SeriesScaler.fit_before(np.concatenate([before, after]), len(before))
    numbers = np.array([column.categories is None for column in plan], dtype=bool)
    return SeriesScaler(np.where(numbers, scaler.level, 0.0), np.where(numbers, scaler.scale, 1.0))


def panel_windows(
    panel: Panel,
    scaler: SeriesScaler,
    covariates: CovariatePlan,
    context_length: int,
    horizon: int,
    device: torch.device,
    *,
    ahead: int,
    future: Sequence[np.ndarray] | None = None,
) -> tuple[Windows, np.ndarray]:
    """Scale all series and lay them out; see `xlstm_ts.data.windows.Windows.of_many`.

    Parameters
    ----------
    panel, scaler, covariates
        The series, their levels and scales (S, C), and what to make of X and the clock.
    context_length, horizon : int
        T and L.
    device : torch.device
        Where to put the windows.
    ahead : int
        Rows for the future of each series.
    future : sequence of arrays of shape (at most `ahead`, K), optional
        Covariates of these rows, as `Panel.future_x` returns them.

    Returns
    -------
    windows : Windows
    starts : array of shape (S,)
        The row of the first value of each series.
    """
    scaled = [scaler.of(j).forward(one.values) for j, one in enumerate(panel.series)]
    known = covariates.known
    features = None
    if len(known):
        features = []
        for j, one in enumerate(panel.series):
            x, times = one.x, one.axis.index
            if future is not None and len(future[j]):
                x, times = np.concatenate([x, future[j]]), times.append(one.axis.future(len(future[j])))
            features.append(covariates.encode(x, times))
    return Windows.of_many(scaled, context_length, horizon, device, ahead=ahead, features=features, known=known)


def _check_coverage(part: pd.DataFrame, times: pd.Index, known: list, key: Hashable, where: str) -> None:
    check_order(part.index, f"{_named(where, key)}: X")
    comparable = type(part.index) is type(times) or part.index.dtype == times.dtype
    rows = part.index.get_indexer(times) if comparable else np.full(len(times), -1)
    if (rows < 0).any() or any(name not in part.columns for name in known):
        _raise_uncovered(part, times, known, key, where)


def _raise_uncovered(part: pd.DataFrame | None, times: pd.Index, known: list, key: Hashable, where: str) -> NoReturn:
    if part is None:
        covered, missing, columns = "no X was given", times, known
    else:
        comparable = type(part.index) is type(times) or part.index.dtype == times.dtype
        missing = times[part.index.get_indexer(times) < 0] if comparable else times
        covered = f"X covers {part.index[0]} to {part.index[-1]}" if len(part) else "X is empty"
        columns = [name for name in known if name not in part.columns]
    shown = ", ".join(str(time) for time in missing[:3]) + (", ..." if len(missing) > 3 else "")
    raise DataError(
        f"{_named(where, key)}: {covered}; covariates that are known ahead are needed from {times[0]} to {times[-1]}. "
        f"Missing columns: {columns or 'none'}. Missing steps: "
        f"{len(missing)}{f' ({shown})' if shown else ''}. Give these rows, or fit with the columns "
        "named in past_covariates."
    )


def _named(where: str, key: Hashable) -> str:
    return where if key == 0 and not isinstance(key, str) else f"{where}: series {key!r}"


def _on_clock(index: pd.Index) -> np.ndarray:
    if isinstance(index, pd.DatetimeIndex):
        # Not always nanoseconds: counted in these, the calendar ends in 1677 and in 2262.
        return index.as_unit("ns" if index.unit == "ns" else "us").asi8
    return index.asi8 if isinstance(index, pd.PeriodIndex) else index.to_numpy()
