"""Repairs that a user asks for: times brought to a regular grid, by averaging or by leaving holes as missing rows."""

import pandas as pd

from xlstm_ts.data.calendar import looks_like_sessions
from xlstm_ts.data.covariates import is_number
from xlstm_ts.data.time_axis import check_order
from xlstm_ts.errors import DataError, ParameterError

WEEK = pd.Timedelta(days=7)
"""From here on an index without Saturdays and Sundays is one of sessions, and not of days with a hole."""


def resampled(frame: pd.DataFrame, step: str, where: str) -> pd.DataFrame:
    """Return the mean of numbers, and the first category, in each step of a regular grid.

    Times may be unsorted, repeated and irregular. A step without rows is missing.

    Parameters
    ----------
    frame : pd.DataFrame
        With a DatetimeIndex.
    step : str or pandas offset
        Of the grid, such as "1h".
    where : str
        Object and method, for the messages.

    Raises
    ------
    DataError
        The index has no times, or one is missing.
    ParameterError
        The step is none.
    """
    if not isinstance(frame.index, pd.DatetimeIndex):
        raise DataError(f"{where}: resample={step!r} needs a DatetimeIndex, got {type(frame.index).__name__}.")
    if frame.index.hasnans:
        raise DataError(f"{where}: row {int(frame.index.isna().argmax())} has no time (NaT). Drop such rows.")
    try:
        # From one origin, so that every piece of a series, and X beside it, comes to the same grid.
        grid = frame.sort_index(kind="stable").resample(step, origin="epoch")
    except (ValueError, TypeError, AttributeError) as error:
        raise ParameterError(f"{where}: resample={step!r} is no step of time, such as '1h': {error}") from error
    rules = {name: "mean" if is_number(dtype) else "first" for name, dtype in frame.dtypes.items()}
    return grid.agg(rules)[list(frame.columns)] if rules else grid.first()


def check_whole_step(part: pd.DataFrame, grid: pd.DataFrame, known: pd.Index, step: str, where: str) -> None:
    """Raise where new rows of a series begin inside a step whose mean is known: it would become that of the rest.

    Parameters
    ----------
    part, grid : pd.DataFrame
        The new rows, and what `resampled` makes of them.
    known : pd.Index
        The steps of the series so far.
    step : str
        Of the grid.
    where : str
        Object and method, for the messages.

    Raises
    ------
    DataError
        Rows from the beginning of the step on are missing.
    """
    first, begin = part.index.min(), grid.index[0]
    if first > begin and begin in known[1:]:
        raise DataError(
            f"{where}: the rows begin at {first}, inside the step of {step} from {begin}, of which others were seen "
            "before; its mean would become that of the new rows alone. Give all rows from the beginning of that step, "
            "or from the next one on."
        )


def with_holes_as_rows(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the frame with a row of missing values at every time that its regular step would have.

    Trading sessions are as they are: what they leave out are weekends and holidays.

    Raises
    ------
    DataError
        The times lie on no regular grid.
    """
    index = frame.index
    check_order(index, where)
    if len(index) < 3:
        return frame
    full = _grid(index)
    if full is None:
        raise DataError(
            f"{where}: on_gap='mask' needs times on a regular grid, but those of the series, from {index[0]} to "
            f"{index[-1]}, lie on none. Bring them to one with resample=, for instance resample='1h'."
        )
    return frame if len(full) == len(index) else frame.reindex(full)


def _grid(index: pd.Index) -> pd.Index | None:
    """Return the regular index from the first to the last time that holds all of them, if there is one."""
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[0], index[-1], freq=index.freq, name=index.name)
    if not isinstance(index, pd.DatetimeIndex):
        if not pd.api.types.is_integer_dtype(index):
            return None
        step = int(pd.Series(index[1:] - index[:-1]).mode().iloc[0])
        full: pd.Index = pd.RangeIndex(int(index[0]), int(index[-1]) + 1, step, name=index.name)
        return full if index.isin(full).all() else None
    sessions = index[-1] - index[0] >= WEEK and looks_like_sessions(index)
    if index.freq is not None or pd.infer_freq(index) is not None or sessions:
        return index
    usual = pd.Series(index[1:] - index[:-1]).mode().iloc[0]
    if usual == pd.Timedelta(days=1):
        usual = "D"  # by the local clock, which has days of 23 and 25 hours
    month = index[0].strftime("%b").upper()
    # The coarsest grid that holds all times: days hold months, and months hold quarters.
    offsets = [f"YS-{month}", f"YE-{month}", f"QS-{month}", f"QE-{month}", "MS", "ME", usual]
    for offset in offsets:
        full = pd.date_range(index[0], index[-1], freq=offset, unit=index.unit, name=index.name)
        if len(full) >= len(index) and index.isin(full).all():
            return full
    return None
