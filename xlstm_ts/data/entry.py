"""What a user hands in, looked at before anything else: what can hold a series, and what a horizon is."""

import types
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.data.series import check_dtype
from xlstm_ts.errors import DataError, DataTypeError, ParameterError

NO_SERIES = (str, bytes, Real, dict, set, frozenset, tuple, pd.Index, types.GeneratorType, types.NoneType)


def check_container(data: Any, name: str, where: str) -> None:
    """Raise unless `data` can hold a series or a panel.

    Frames, series, arrays of numbers and lists of frames can; other packages' containers are left to sktime.

    Raises
    ------
    DataTypeError, DataError
        The message names what was given and what to give instead.
    """
    plain_list = isinstance(data, list) and not (data and all(isinstance(part, pd.DataFrame) for part in data))
    if isinstance(data, NO_SERIES) or plain_list or type(data).__module__.partition(".")[0] == "torch":
        how = f", for instance pd.Series({name}) with times as its index" if isinstance(data, list | tuple) else ""
        raise DataTypeError(
            f"{where}: {name} is of type {type(data).__name__}; expected a pandas Series or DataFrame with its "
            f"times{how}."
        )
    if isinstance(data, np.ndarray):
        if not 1 <= data.ndim <= 3:
            raise DataError(
                f"{where}: {name} is an array of {data.ndim} dimensions; expected rows, rows and columns, or series, "
                "columns and rows. A pandas Series or DataFrame has its times as well."
            )
        check_dtype(data.dtype, name, where)


def check_horizon(fh: Any, where: str) -> None:
    """Raise unless `fh` names steps or times, each once; a horizon of sktime's own is left to it.

    Raises
    ------
    ParameterError
        The message says what a horizon may be.
    """
    expected = "expected whole steps such as [1, 2, 3], or times as a pandas index"
    if isinstance(fh, str | bytes | dict | set | frozenset | float) or fh is True or fh is False:
        raise ParameterError(f"{where}: fh={fh!r} is impossible; {expected}.")
    if not isinstance(fh, Sequence | np.ndarray | pd.Index):
        return
    if len(fh) == 0:
        raise ParameterError(f"{where}: fh is empty; {expected}, for instance fh=[1, 2, 3].")
    values = fh if isinstance(fh, pd.Index) else pd.Index(fh)
    if values.dtype.kind in "fbc" or values.hasnans:
        raise ParameterError(f"{where}: fh={_short(fh)} is impossible; {expected}.")
    if values.has_duplicates:
        raise ParameterError(f"{where}: fh={_short(fh)} names {values[values.duplicated()][0]} twice; give each once.")


def check_coverage(coverage: Any, where: str) -> None:
    """Raise unless every coverage lies between 0 and 1."""
    for value in coverage if isinstance(coverage, list | tuple | np.ndarray) else [coverage]:
        if not isinstance(value, Real) or not 0 < float(value) < 1:
            raise ParameterError(
                f"{where}: coverage={value!r} is impossible; expected 0 < coverage < 1, for instance 0.9 for 90 %."
            )


def _short(fh: Any) -> str:
    return repr(fh) if len(fh) <= 12 else f"{type(fh).__name__} of {len(fh)}"
