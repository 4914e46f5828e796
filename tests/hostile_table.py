"""Hostile input as data: what is called, and the right answer or the error that it has to end in.

Each entry has a name, a call, and its outcome: `Raises` with the kind of the error and words of its message, the
remedy among them; or a call that gives the same by a plain way; or `Exactly` a value. Two tables: what `fit` gets, and
what a fitted forecaster gets.
"""

import copy
import datetime
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny_forecaster

STEPS = [1, 2, 5]
ROWS = 60


class Raises(NamedTuple):
    kind: str
    words: tuple[str, ...]


class Exactly(NamedTuple):
    value: Any


def data_error(*words):
    return Raises("DataError", words)


def type_error(*words):
    return Raises("DataTypeError", words)


def parameter_error(*words):
    return Raises("ParameterError", words)


# What is plain


def hours(rows=ROWS, **options):
    return pd.date_range("2024-03-01", periods=rows, freq="h", **options)


VALUES = 10 + 3 * np.sin(np.arange(ROWS) * 2 * np.pi / 12) + np.random.default_rng(0).normal(size=ROWS) * 0.3
LOAD = pd.Series(VALUES, index=hours(), name="load")
TWO = pd.DataFrame({"load": LOAD, "wind": LOAD[::-1].to_numpy()})
NEXT = pd.Series([11.0, 12.0, 13.0], index=hours(ROWS + 3)[ROWS:], name="load")
HEAT = pd.DataFrame(
    {"heat": np.cos(np.arange(ROWS + 12)), "kind": pd.Categorical(np.where(np.arange(ROWS + 12) % 3, "a", "b"))},
    index=hours(ROWS + 12),
)
PANEL = pd.concat({"north": LOAD.to_frame(), "south": 2 * LOAD[5:].to_frame()}, names=["station", "time"])
PANEL_X = pd.concat({"north": HEAT, "south": HEAT[5:]}, names=["station", "time"])


def load(index, values=VALUES):
    return pd.Series(values, index=index, name="load")


def changed(row, value):
    series = LOAD.copy()
    series.iloc[row] = value
    return series


def column(values):
    return pd.Series(values, index=LOAD.index, name="load")


def missing(*rows):
    series = LOAD.copy()
    for row in rows:
        series.iloc[row] = np.nan
    return series


def forecast(y, X=None, future=None, fh=STEPS, **settings):
    """Fit and forecast."""
    return tiny_forecaster(**settings).fit(y, X=X).predict(fh=fh, X=future)


def values(y, **options):
    """Forecast the same numbers at plain times."""
    return np.asarray(forecast(load(hours(len(y)), np.asarray(y, dtype=float)), **options)).ravel()


def at(times, like=LOAD, name="load"):
    """Return the forecast of plain numbers, at given times."""
    return pd.Series(values(like), index=times, name=name)


@cache
def _fitted(kind):
    return {
        "plain": lambda: tiny_forecaster().fit(LOAD),
        "two": lambda: tiny_forecaster().fit(TWO),
        "zoned": lambda: tiny_forecaster().fit(LOAD.tz_localize("Europe/Berlin")),
        "monthly": lambda: tiny_forecaster().fit(load(pd.period_range("2019-01", periods=ROWS, freq="M"))),
        "whole": lambda: tiny_forecaster().fit(load(range(ROWS))),
        "heated": lambda: tiny_forecaster().fit(LOAD, X=HEAT),
        "measured": lambda: tiny_forecaster(past_covariates=["heat", "kind"]).fit(LOAD, X=HEAT),
        "panel": lambda: tiny_forecaster().fit(PANEL),
        "heated panel": lambda: tiny_forecaster().fit(PANEL, X=PANEL_X),
    }[kind]()


def fitted(kind="plain"):
    return copy.deepcopy(_fitted(kind))


def after_update(y, kind="plain", X=None, future=None):
    return fitted(kind).update(y, X=X, update_params=False).predict(fh=STEPS, X=future)


def warned(call):
    """Return what a call gives that says, as sktime does, that nothing was there."""
    with pytest.warns(UserWarning, match="empty y passed to update"):
        return call()


zones = pd.Index(
    [time.tz_localize("UTC" if row % 2 else "Asia/Tokyo") for row, time in enumerate(hours())], dtype=object
)
spring = pd.date_range("2024-03-30", periods=ROWS, freq="h", tz="Europe/Berlin")
autumn = pd.date_range("2024-10-26", periods=ROWS, freq="h", tz="Europe/Berlin")
half_an_hour = pd.date_range("2024-04-06", periods=ROWS, freq="30min", tz="Australia/Lord_Howe")
days = pd.date_range("2024-03-01", periods=ROWS, freq="D", tz="Europe/Berlin")
weekdays = pd.bdate_range("2024-03-01", periods=ROWS)
odd_name = "<script>{x}%s\n☃ 'quoted\" \\"
no_next_time = ("has no next time", "Use a DatetimeIndex, a PeriodIndex, or integers")
not_numbers = ("expected real numbers",)

FIT = {
    # Nothing, or next to nothing
    "empty series": (lambda: forecast(LOAD[:0]), data_error("the series is empty (0 rows", "at least 2 rows")),
    "empty frame": (lambda: forecast(TWO[:0]), data_error("the series is empty (0 rows, 2 columns)")),
    "no columns": (lambda: forecast(TWO[[]]), data_error("the series is empty (60 rows, 0 columns)")),
    "one row": (lambda: forecast(LOAD[:1]), data_error("observed values", "1; at least 2", "Give a longer series")),
    "one row of a frame": (lambda: forecast(TWO[:1]), data_error("'load': 1; at least 2", "drop this one")),
    "two equal rows": (lambda: forecast(load(hours(2), [5.0, 5.0])), Exactly([5.0, 5.0, 5.0])),
    "all missing": (lambda: forecast(LOAD * np.nan), data_error("observed values", "0; at least 2")),
    "one value seen": (lambda: forecast(missing(range(1, ROWS))), data_error("observed values", "1; at least 2")),
    "one column all missing": (
        lambda: forecast(TWO.assign(wind=np.nan)),
        data_error("observed values", "'wind': 0; at least 2", "drop this one"),
    ),
    "a million columns": (
        lambda: forecast(pd.DataFrame(np.zeros((3, 1_000_000), dtype=np.float32), index=hours(3))),
        data_error("1000000 columns", "at most 10000", "panel"),
    ),
    "None": (lambda: forecast(None), type_error("y is of type NoneType", "pandas Series or DataFrame")),
    # Kinds of containers
    "list": (lambda: forecast(list(VALUES)), type_error("y is of type list", "pd.Series(y)")),
    "tuple": (lambda: forecast(tuple(VALUES)), type_error("y is of type tuple", "pd.Series(y)")),
    "dictionary": (lambda: forecast({"load": list(VALUES)}), type_error("y is of type dict", "pandas Series")),
    "text": (lambda: forecast("load.csv"), type_error("y is of type str", "pandas Series")),
    "number": (lambda: forecast(3.0), type_error("y is of type float", "pandas Series")),
    "generator": (lambda: forecast(value for value in VALUES), type_error("y is of type generator", "pandas Series")),
    "index": (lambda: forecast(pd.Index(VALUES)), type_error("y is of type Index", "pandas Series")),
    "tensor": (lambda: forecast(torch.as_tensor(VALUES)), type_error("y is of type Tensor", "pandas Series")),
    "array": (lambda: forecast(VALUES).ravel(), lambda: values(LOAD)),
    "array of whole numbers": (lambda: forecast(VALUES.astype(int)).ravel(), lambda: values(VALUES.astype(int))),
    "array with two columns": (
        lambda: forecast(TWO.to_numpy()),
        lambda: forecast(TWO.reset_index(drop=True)).to_numpy(),
    ),
    "array without dimensions": (lambda: forecast(np.array(3.0)), data_error("0 dimensions", "pandas Series")),
    "array of four dimensions": (lambda: forecast(np.zeros((2, 2, 2, 2))), data_error("4 dimensions", "pandas Series")),
    "array with infinity": (lambda: forecast(changed(3, np.inf).to_numpy()), data_error("is infinite at 3")),
    "array of objects": (lambda: forecast(VALUES.astype(object)), type_error("object", *not_numbers, "to_numeric")),
    "array of text": (lambda: forecast(VALUES.astype(str)), type_error("<U", *not_numbers, "to_numeric")),
    "array of complex numbers": (lambda: forecast(VALUES + 1j), type_error("complex128", ".real")),
    "array of truth values": (lambda: forecast(VALUES > 10), type_error("bool", "astype(float)")),
    "array of times": (lambda: forecast(hours().to_numpy()), type_error("datetime64", "index")),
    "empty array": (lambda: forecast(np.zeros(0)), data_error("the series is empty")),
    # Types of columns
    "int8": (lambda: forecast(LOAD.round().astype("int8")), lambda: forecast(LOAD.round())),
    "int64": (lambda: forecast(LOAD.round().astype("int64")), lambda: forecast(LOAD.round())),
    "uint64 beyond float precision": (
        lambda: forecast((LOAD * 1e18).astype("uint64")),
        lambda: forecast(LOAD * 1e18),
    ),
    "float16": (lambda: forecast(LOAD.astype("float16")), lambda: forecast(LOAD.astype("float16").astype(float))),
    "float32": (lambda: forecast(LOAD.astype("float32")), lambda: forecast(LOAD.astype("float32").astype(float))),
    "longdouble": (lambda: forecast(LOAD.astype(np.longdouble)), lambda: forecast(LOAD)),
    "nullable Int64": (
        lambda: forecast(missing(3).round().astype("Int64")),
        lambda: forecast(missing(3).round()),
    ),
    "nullable Float64": (lambda: forecast(missing(3, 9).astype("Float64")), lambda: forecast(missing(3, 9))),
    "sparse": (lambda: forecast(LOAD.astype(pd.SparseDtype(float))), lambda: forecast(LOAD)),
    "sparse with holes": (lambda: forecast(missing(3).astype(pd.SparseDtype(float))), lambda: forecast(missing(3))),
    "sparse around zero": (
        lambda: forecast((LOAD.round() - 10).astype(pd.SparseDtype(float, 0.0))),
        lambda: forecast(LOAD.round() - 10),
    ),
    "objects that are numbers": (lambda: forecast(LOAD.astype(object)), type_error("object", "pd.to_numeric")),
    "objects with None": (lambda: forecast(missing(3).astype(object).where(LOAD > 9, None)), type_error("object")),
    "decimals": (lambda: forecast(column([Decimal(str(v)) for v in VALUES])), type_error("object", "pd.to_numeric")),
    "text in a column": (lambda: forecast(LOAD.astype(str)), type_error(*not_numbers, "pd.to_numeric")),
    "dates written as text in a column": (
        lambda: forecast(LOAD.rename_axis("date").reset_index().astype({"date": str})),
        type_error("'date'", "put times or names of series in the index"),
    ),
    "strings": (lambda: forecast(LOAD.astype("string")), type_error("string", "pd.to_numeric")),
    "text in one of two": (lambda: forecast(TWO.assign(wind="x")), type_error("'wind'", "pd.to_numeric")),
    "numbers written with commas": (
        lambda: forecast(LOAD.map(lambda v: f"{v:.2f}".replace(".", ","))),
        type_error(*not_numbers, "pd.to_numeric"),
    ),
    "truth values": (lambda: forecast(LOAD > 10), type_error("bool", "astype(float)")),
    "nullable truth values": (lambda: forecast((LOAD > 10).astype("boolean")), type_error("boolean", "astype(float)")),
    "times in a column": (lambda: forecast(column(LOAD.index)), type_error("datetime64", "set_index")),
    "time spans": (lambda: forecast(column(LOAD.index - LOAD.index[0])), type_error("timedelta64", "total_seconds")),
    "periods in a column": (lambda: forecast(column(LOAD.index.to_period("h"))), type_error("period", "set_index")),
    "intervals in a column": (lambda: forecast(column(pd.interval_range(0, ROWS))), type_error("interval")),
    "categories": (lambda: forecast(LOAD.round().astype("category")), type_error("category", "astype(float)")),
    "complex numbers": (lambda: forecast(LOAD + 1j), type_error("complex128", ".real")),
    "times beside the numbers": (
        lambda: forecast(LOAD.rename_axis("time").reset_index()),
        type_error("'time'", "datetime64", "set_index"),
    ),
    # Values
    "infinite": (lambda: forecast(changed(7, np.inf)), data_error("'load' is infinite at 2024-03-01 07", "NaN")),
    "minus infinite": (lambda: forecast(changed(0, -np.inf)), data_error("is infinite at 2024-03-01 00")),
    "infinite in the second column": (
        lambda: forecast(TWO.assign(wind=changed(9, np.inf))),
        data_error("'wind' is infinite at 2024-03-01 09"),
    ),
    "constant": (lambda: forecast(LOAD * 0 + 0.1), Exactly([0.1, 0.1, 0.1])),
    "constant with holes": (lambda: forecast(missing(0, 5, -1) * 0 - 7.3), Exactly([-7.3, -7.3, -7.3])),
    "constant and enormous": (lambda: forecast(LOAD * 0 + 1e300), Exactly([1e300, 1e300, 1e300])),
    "minus zero": (lambda: forecast(LOAD * 0 - 0.0), Exactly([0.0, 0.0, 0.0])),
    "one constant column": (lambda: forecast(TWO.assign(wind=4.0))["wind"], Exactly([4.0, 4.0, 4.0])),
    "near the largest float": (
        lambda: forecast(LOAD * 1e307) / 1e307,
        lambda: forecast(LOAD),
    ),
    "near the smallest float": (lambda: forecast(LOAD * 1e-300) * 1e300, lambda: forecast(LOAD)),
    "a level of a thousand million": (lambda: forecast(LOAD + 2.0**30) - 2.0**30, lambda: forecast(LOAD)),
    # Times
    "a time twice": (
        lambda: forecast(pd.concat([LOAD, LOAD.iloc[[3]]]).sort_index()),
        data_error("2024-03-01 03:00:00 stands twice", "y[~y.index.duplicated()]"),
    ),
    "all times equal": (lambda: forecast(load(hours()[[0] * ROWS])), data_error("stands twice", "duplicated")),
    "unsorted": (
        lambda: forecast(pd.concat([LOAD[30:], LOAD[:30]])),
        data_error("2024-03-01 00:00:00 comes after a later one", "y.sort_index()"),
    ),
    "backwards": (lambda: forecast(LOAD[::-1]), data_error("comes after a later one", "y.sort_index()")),
    "no time in a row": (
        lambda: forecast(load(hours(ROWS - 1).append(pd.DatetimeIndex([pd.NaT])))),
        data_error("row 59 has no time (NaT)", "Drop such rows"),
    ),
    "no times at all": (lambda: forecast(load(pd.DatetimeIndex([pd.NaT] * ROWS))), data_error("row 0 has no time")),
    "a hole": (
        lambda: forecast(LOAD.drop(LOAD.index[9])),
        data_error("2024-03-01 08:00:00 is followed by 2024-03-01 10:00:00", "asfreq"),
    ),
    "a hole that is masked": (
        lambda: forecast(LOAD.drop(LOAD.index[9]), on_gap="mask"),
        lambda: forecast(missing(9)),
    ),
    "irregular seconds": (
        lambda: forecast(load(hours() + pd.to_timedelta(np.arange(ROWS) % 7, unit="s"))),
        data_error("no regular step", "asfreq"),
    ),
    "irregular seconds that cannot be masked": (
        lambda: forecast(load(hours() + pd.to_timedelta(np.arange(ROWS) % 7, unit="s")), on_gap="mask"),
        data_error("lie on none", "resample="),
    ),
    "irregular seconds, resampled": (
        lambda: forecast(load(hours() + pd.to_timedelta(np.arange(ROWS) % 7, unit="s")), resample="1h"),
        lambda: forecast(LOAD),
    ),
    "repeated and unsorted, resampled": (
        lambda: forecast(pd.concat([LOAD[30:], LOAD]), resample="1h"),
        lambda: forecast(LOAD),
    ),
    "resampled without times": (
        lambda: forecast(load(range(ROWS)), resample="1h"),
        data_error("needs a DatetimeIndex"),
    ),
    "resampled to no step": (lambda: forecast(LOAD, resample="soon"), parameter_error("resample='soon'", "'1h'")),
    "periods with a hole": (
        lambda: forecast(load(pd.period_range("1950", periods=ROWS + 1, freq="Y").delete(5))),
        data_error("1954 is followed by 1956", "reindex"),
    ),
    "whole numbers with a hole": (
        lambda: forecast(load([*range(30), *range(31, ROWS + 1)])),
        data_error("29 is followed by 31", "reindex"),
    ),
    "whole numbers in twos": (lambda: forecast(load(range(0, 2 * ROWS, 2))), lambda: at([120, 122, 128])),
    "negative whole numbers": (lambda: forecast(load(range(-100, -40))), lambda: at([-40, -39, -36])),
    "unsigned whole numbers": (
        lambda: forecast(load(np.arange(ROWS, dtype="uint8"))),
        lambda: at(np.array([60, 61, 64])),
    ),
    "whole numbers downwards": (lambda: forecast(load(range(ROWS, 0, -1))), data_error("y.sort_index()")),
    "floats as times": (lambda: forecast(load(np.arange(ROWS) / 2)), data_error("float64", *no_next_time)),
    "text as times": (lambda: forecast(load([f"t{j:02}" for j in range(ROWS)])), data_error(*no_next_time)),
    "dates written as text": (
        lambda: forecast(load(hours().astype(str))),
        data_error(*no_next_time, "pd.to_datetime(y.index)"),
    ),
    "dates as Python objects": (
        lambda: forecast(load(pd.date_range("2024-01-01", periods=ROWS).date)),
        data_error(*no_next_time, "pd.to_datetime(y.index)"),
    ),
    "time spans as times": (lambda: forecast(load(hours() - hours()[0])), data_error("timedelta64", *no_next_time)),
    "truth values as times": (lambda: forecast(load(VALUES > 10)), data_error("bool", *no_next_time)),
    "categories as times": (lambda: forecast(load(pd.CategoricalIndex(range(ROWS)))), data_error(*no_next_time)),
    "intervals as times": (lambda: forecast(load(pd.interval_range(0, ROWS))), data_error(*no_next_time)),
    "two time zones": (
        lambda: forecast(load(zones)),
        data_error("object", *no_next_time, "pd.to_datetime(y.index, utc=True)"),
    ),
    "spring, a missing hour": (lambda: forecast(load(spring)), lambda: at(spring[-1] + pd.to_timedelta(STEPS, "h"))),
    "autumn, an hour twice": (lambda: forecast(load(autumn)), lambda: at(autumn[-1] + pd.to_timedelta(STEPS, "h"))),
    "a clock moved by half an hour": (
        lambda: forecast(load(half_an_hour)),
        lambda: at(half_an_hour[-1] + pd.to_timedelta(np.array(STEPS) * 30, "min")),
    ),
    "days of 23 and of 25 hours": (
        lambda: forecast(load(days)),
        lambda: at(pd.date_range("2024-04-30", periods=5, tz="Europe/Berlin")[[0, 1, 4]]),
    ),
    "a fixed offset": (
        lambda: forecast(load(hours(tz=datetime.timezone(datetime.timedelta(hours=5, minutes=30))))),
        lambda: at(hours(66, tz=datetime.timezone(datetime.timedelta(hours=5, minutes=30)))[[60, 61, 64]]),
    ),
    "seconds as unit": (lambda: forecast(load(hours().as_unit("s"))), lambda: at(hours(66).as_unit("s")[[60, 61, 64]])),
    "the year 1000": (
        lambda: forecast(
            load(pd.date_range(pd.Timestamp("1000-01-01").as_unit("s"), periods=ROWS, freq="D", unit="s"))
        ),
        lambda: at(pd.date_range(pd.Timestamp("1000-03-02").as_unit("s"), periods=5, unit="s")[[0, 1, 4]]),
    ),
    "microseconds": (
        lambda: forecast(load(pd.date_range("2024-01-01", periods=ROWS, freq="us"))),
        lambda: at(pd.date_range("2024-01-01", periods=66, freq="us")[[60, 61, 64]]),
    ),
    "ends of months": (
        lambda: forecast(load(pd.DatetimeIndex(list(pd.date_range("2019-01-31", periods=ROWS, freq="ME"))))),
        lambda: at(pd.DatetimeIndex(["2024-01-31", "2024-02-29", "2024-05-31"])),
    ),
    "weekdays": (
        lambda: forecast(load(pd.DatetimeIndex(list(weekdays)))),
        lambda: at(pd.bdate_range(weekdays[-1], periods=6)[[1, 2, 5]]),
    ),
    "years": (
        lambda: forecast(load(pd.period_range("1950", periods=ROWS, freq="Y"))),
        lambda: at(pd.PeriodIndex(["2010", "2011", "2014"], freq="Y")),
    ),
    # Names
    "a column twice": (lambda: forecast(pd.concat([LOAD, LOAD], axis=1)), data_error("'load' stands twice", "Rename")),
    "an odd name": (lambda: forecast(LOAD.rename(odd_name)), lambda: forecast(LOAD).rename(odd_name)),
    "an odd name in an error": (lambda: forecast((LOAD * np.nan).rename(odd_name)), data_error(repr(odd_name))),
    "no name": (lambda: forecast(LOAD.rename(None)), lambda: forecast(LOAD).rename(None)),
    "an empty name": (lambda: forecast(LOAD.rename("")), lambda: forecast(LOAD).rename("")),
    "a very long name": (lambda: forecast(LOAD.rename("x" * 9999)), lambda: forecast(LOAD).rename("x" * 9999)),
    "NaN as name": (lambda: forecast(LOAD.to_frame(np.nan)).iloc[:, 0], lambda: forecast(LOAD).rename(np.nan)),
    "numbers and text as names": (
        lambda: forecast(TWO.set_axis([0, "a"], axis=1)),
        lambda: forecast(TWO).set_axis([0, "a"], axis=1),
    ),
    "times as names": (
        lambda: forecast(TWO.set_axis(hours(2), axis=1)),
        lambda: forecast(TWO).set_axis(hours(2), axis=1),
    ),
    "names of several levels": (
        lambda: forecast(pd.concat({"north": TWO}, axis=1)),
        data_error("column names of 2 levels", "y.columns ="),
    ),
    # Covariates
    "X shorter than y": (
        lambda: forecast(LOAD, X=HEAT[:50], future=HEAT[60:]),
        data_error("lacks 10 of the 60 times of y", "2024-03-03 02:00:00", "NaN where a value is missing"),
    ),
    "X starts later than y": (lambda: forecast(LOAD, X=HEAT[3:], future=HEAT), data_error("lacks 3 of the 60 times")),
    "X at other times": (
        lambda: forecast(LOAD, X=HEAT.set_axis(HEAT.index + pd.Timedelta("1min")), future=HEAT),
        data_error("lacks 60 of the 60 times of y"),
    ),
    "X with another kind of times": (
        lambda: forecast(LOAD, X=HEAT.reset_index(drop=True), future=HEAT),
        data_error("(int64)", "(datetime64[us])"),
    ),
    "X and y swapped": (
        lambda: forecast(HEAT[:60], X=LOAD.to_frame(), future=NEXT.to_frame()),
        type_error("'kind' is of type category"),
    ),
    "X as a list": (lambda: forecast(LOAD, X=[1.0] * ROWS), type_error("X is of type list", "pandas")),
    "X with infinity": (
        lambda: forecast(LOAD, X=HEAT.replace(HEAT.iloc[4, 0], np.inf), future=HEAT),
        data_error("'heat' of X is infinite at 2024-03-01 04", "NaN"),
    ),
    "X with times in a column": (
        lambda: forecast(LOAD, X=HEAT.assign(when=HEAT.index), future=HEAT),
        type_error("'when' of X is of type datetime64", "calendar_features="),
    ),
    "X with complex numbers": (
        lambda: forecast(LOAD, X=HEAT[["heat"]] + 1j, future=HEAT),
        type_error("'heat' of X is of type complex128"),
    ),
    "X with a column twice": (
        lambda: forecast(LOAD, X=HEAT[["heat", "heat"]], future=HEAT),
        data_error("X has the column 'heat' twice", "Rename"),
    ),
    "X with a million columns": (
        lambda: forecast(LOAD[:3], X=pd.DataFrame(np.zeros((3, 1_000_000), dtype=np.float32), index=hours(3))),
        data_error("X has 1000000 columns", "at most 10000"),
    ),
    "X with a name for every row": (
        lambda: forecast(
            pd.concat([LOAD] * 4).set_axis(hours(240)),
            X=pd.DataFrame({"id": [f"row {j}" for j in range(240)]}, index=hours(240)),
        ),
        data_error("240 different values", "at most 200", "pd.to_numeric"),
    ),
    "X unsorted": (lambda: forecast(LOAD, X=HEAT[::-1], future=HEAT), data_error("X", "comes after a later one")),
    "X with a time twice": (
        lambda: forecast(LOAD, X=pd.concat([HEAT, HEAT[:1]]).sort_index(), future=HEAT),
        data_error("X", "stands twice"),
    ),
    "X without columns": (lambda: forecast(LOAD, X=HEAT[[]], future=HEAT[[]]), lambda: forecast(LOAD)),
    "X all missing": (
        lambda: np.isfinite(forecast(LOAD, X=HEAT[["heat"]] * np.nan, future=HEAT[["heat"]])).all(),
        Exactly(True),
    ),
    "X of truth values": (
        lambda: forecast(LOAD, X=HEAT[["heat"]] > 0, future=HEAT[["heat"]] > 0),
        lambda: forecast(LOAD, X=(HEAT[["heat"]] > 0) * 1.0, future=(HEAT[["heat"]] > 0) * 1.0),
    ),
    "X of nullable numbers": (
        lambda: forecast(LOAD, X=HEAT[["heat"]].astype("Float64"), future=HEAT[["heat"]]),
        lambda: forecast(LOAD, X=HEAT[["heat"]], future=HEAT[["heat"]]),
    ),
    "X of text": (
        lambda: forecast(LOAD, X=HEAT.astype({"kind": str}), future=HEAT.astype({"kind": str})),
        lambda: forecast(LOAD, X=HEAT, future=HEAT),
    ),
    "X without y": (lambda: forecast(None, X=HEAT), type_error("y is of type NoneType")),
    "a past column that is not there": (
        lambda: forecast(LOAD, X=HEAT, past_covariates=["cold"]),
        data_error("past_covariates names ['cold']", "['heat', 'kind']"),
    ),
    "past columns without X": (
        lambda: forecast(LOAD, past_covariates=["heat"]),
        data_error("past_covariates=['heat']", "no X was given"),
    ),
    "past columns as text": (
        lambda: forecast(LOAD, X=HEAT, past_covariates="heat"),
        parameter_error("past_covariates='heat'", "a list of columns"),
    ),
    "a static column that changes": (
        lambda: forecast(LOAD, X=HEAT, static_covariates=["heat"]),
        data_error("'heat' of X is named in static_covariates, but changes", "one value per series"),
    ),
    "calendar features of whole numbers": (
        lambda: forecast(load(range(ROWS)), calendar_features=["day"]),
        data_error("calendar_features", "DatetimeIndex"),
    ),
    "an unknown cycle": (
        lambda: forecast(LOAD, calendar_features=["fortnight"]),
        parameter_error("calendar_features", "fortnight"),
    ),
    # Panels
    "empty panel": (lambda: forecast(PANEL[:0]), data_error("the panel is empty", "at least one series")),
    "one level only": (
        lambda: forecast(load(pd.MultiIndex.from_arrays([hours()]))),
        data_error("an index of one level", "get_level_values(0)"),
    ),
    "a panel with a series of one value": (
        lambda: forecast(pd.concat([PANEL[:70], PANEL.loc[["south"]][:1].rename(index={"south": "west"}, level=0)])),
        data_error("'west'", "at least 2", "drop this one"),
    ),
    "a panel with a hole in one series": (
        lambda: forecast(PANEL.drop(PANEL.index[9])),
        data_error("'north'", "2024-03-01 08:00:00 is followed by 2024-03-01 10:00:00"),
    ),
    "a panel with a time twice": (
        lambda: forecast(pd.concat([PANEL, PANEL[:1]]).sort_index()),
        data_error("'north'", "2024-03-01 00:00:00 stands twice"),
    ),
    "a panel with infinity": (
        lambda: forecast(PANEL.replace(PANEL.iloc[70, 0], np.inf)),
        data_error("'south'", "is infinite at"),
    ),
    "a panel with text": (lambda: forecast(PANEL.astype(str)), type_error(*not_numbers, "pd.to_numeric")),
    "a panel with odd keys": (
        lambda: forecast(PANEL.rename(index={"north": odd_name, "south": ""}, level=0)).to_numpy(),
        lambda: forecast(PANEL).to_numpy(),
    ),
    "a panel with times above the series": (
        lambda: forecast(PANEL.swaplevel()),
        data_error("has no next time"),
    ),
    "a panel whose X is a single series": (
        lambda: forecast(PANEL, X=HEAT),
        data_error("y is a panel and X is a single series", "the same index levels"),
    ),
    "a series whose X is a panel": (
        lambda: forecast(LOAD, X=PANEL_X),
        data_error("y is a single series and X is a panel"),
    ),
    "a panel whose X lacks a series": (
        lambda: forecast(PANEL, X=PANEL_X.loc[["north"]]),
        data_error("X has no rows for", "'south'", "for every series of y"),
    ),
    "a panel of whole and of missing series": (
        lambda: forecast(PANEL.assign(load=PANEL["load"].where(PANEL.index.get_level_values(0) == "north"))),
        data_error("'south'", "0; at least 2", "drop this one"),
    ),
}

LATER = {
    # Horizons
    "no steps": (lambda: fitted().predict(fh=[]), parameter_error("fh is empty", "fh=[1, 2, 3]")),
    "no horizon": (lambda: fitted().predict(), parameter_error("fh is missing", "predict(fh=[1, 2, 3])")),
    "half a step": (lambda: fitted().predict(fh=[1.5]), parameter_error("fh=[1.5]", "whole")),
    "steps as text": (lambda: fitted().predict(fh="next week"), parameter_error("fh='next week'")),
    "steps as a dictionary": (lambda: fitted().predict(fh={"a": 1}), parameter_error("fh={'a': 1}")),
    "a step that is missing": (lambda: fitted().predict(fh=[1, np.nan]), parameter_error("fh=[1, nan]")),
    "steps twice": (lambda: fitted().predict(fh=[1, 1, 2]), parameter_error("fh=[1, 1, 2] names 1 twice", "each once")),
    "steps unsorted": (lambda: fitted().predict(fh=[5, 1, 2]), lambda: fitted().predict(fh=STEPS)),
    "a number of steps": (lambda: fitted().predict(fh=2), lambda: fitted().predict(fh=[1, 2])),
    "steps of numpy": (lambda: fitted().predict(fh=np.array(STEPS)), lambda: fitted().predict(fh=STEPS)),
    "whole floats": (lambda: fitted().predict(fh=[1.0, 2.0]), parameter_error("fh=[1.0, 2.0]", "whole")),
    "a set of steps": (lambda: fitted().predict(fh={1, 2}), parameter_error("fh={1, 2}")),
    "truth values as steps": (lambda: fitted().predict(fh=[True]), parameter_error("fh=[True]")),
    "a thousand million steps": (
        lambda: fitted().predict(fh=[10**9]),
        data_error("1000000000 steps", "at most 1000000"),
    ),
    "the last step before the series": (
        lambda: fitted().predict(fh=[-59]),
        lambda: pd.Series([LOAD.mean()], index=LOAD.index[:1], name="load"),
    ),
    "a step before the series": (
        lambda: fitted().predict(fh=[-60]),
        data_error("step -60 lies before the first observation", "earliest step is -59"),
    ),
    "times": (lambda: fitted().predict(fh=hours(66)[[60, 61, 64]]), lambda: fitted().predict(fh=STEPS)),
    "times off the grid": (
        lambda: fitted().predict(fh=pd.DatetimeIndex(["2024-03-03 12:30"])),
        data_error("2024-03-03 12:30:00, which is not a step of the series' own index", "relative steps"),
    ),
    "times before the series": (
        lambda: fitted().predict(fh=pd.DatetimeIndex(["2020-01-01"])),
        data_error("2020-01-01 00:00:00, which is not a step"),
    ),
    "times in a zone": (
        lambda: fitted().predict(fh=hours(63, tz="UTC")[60:]),
        data_error("time zone UTC, the fitted series None"),
    ),
    "times without a zone": (
        lambda: fitted("zoned").predict(fh=hours(63)[60:]),
        data_error("time zone None, the fitted series Europe/Berlin"),
    ),
    "times in another zone": (
        lambda: fitted("zoned").predict(fh=hours(62, tz="Europe/Berlin")[60:].tz_convert("UTC")),
        lambda: fitted("zoned").predict(fh=[1, 2]),
    ),
    "times for months": (
        lambda: fitted("monthly").predict(fh=pd.DatetimeIndex(["2024-01-01", "2024-02-01"])),
        lambda: fitted("monthly").predict(fh=[1, 2]),
    ),
    "days for months": (
        lambda: fitted("monthly").predict(fh=pd.PeriodIndex(["2024-01-05"], freq="D")),
        data_error("period[D]", "period[M]"),
    ),
    "times for whole numbers": (
        lambda: fitted("whole").predict(fh=hours(2)),
        data_error("datetime64", "int64"),
    ),
    "time spans": (
        lambda: fitted().predict(fh=pd.to_timedelta([1, 2], unit="h")),
        lambda: fitted().predict(fh=[1, 2]),
    ),
    "time spans off the grid": (
        lambda: fitted().predict(fh=pd.to_timedelta([90], unit="min")),
        data_error("not a step of the series' own index"),
    ),
    # Levels
    "a coverage in percent": (
        lambda: fitted().predict_interval(fh=1, coverage=90),
        parameter_error("coverage=90", "0.9"),
    ),
    "a negative coverage": (lambda: fitted().predict_interval(fh=1, coverage=-0.5), parameter_error("coverage=-0.5")),
    "a coverage of one": (lambda: fitted().predict_interval(fh=1, coverage=1.0), parameter_error("coverage=1.0")),
    "a coverage as text": (lambda: fitted().predict_interval(fh=1, coverage="90%"), parameter_error("coverage='90%'")),
    "a level of zero": (lambda: fitted().predict_quantiles(fh=1, alpha=[0.0]), parameter_error("0 < level < 1")),
    "a level above one": (
        lambda: fitted().predict_quantiles(fh=1, alpha=1.5),
        parameter_error("quantile levels [1.5]", "0 < level < 1"),
    ),
    "a level as text": (
        lambda: fitted().predict_quantiles(fh=1, alpha="0.1"),
        parameter_error("quantile levels '0.1' are not numbers"),
    ),
    "a level that is missing": (
        lambda: fitted().predict_quantiles(fh=1, alpha=[np.nan]),
        parameter_error("quantile levels [nan]", "0 < level < 1"),
    ),
    "no level": (
        lambda: fitted().predict_quantiles(fh=1, alpha=[]),
        parameter_error("quantile levels []", "0 < level < 1"),
    ),
    # Updates
    "an update": (
        lambda: after_update(NEXT),
        lambda: fitted().update(pd.concat([LOAD, NEXT]), update_params=False).predict(fh=STEPS),
    ),
    "an update with the past": (
        lambda: after_update(LOAD[:40]),
        lambda: after_update(LOAD[20:40]),
    ),
    "an update of nothing": (lambda: warned(lambda: after_update(NEXT[:0])), lambda: fitted().predict(fh=STEPS)),
    "an update with a list": (lambda: after_update([1.0, 2.0]), type_error("y is of type list", "pandas Series")),
    "an update off the grid": (
        lambda: after_update(NEXT.set_axis(NEXT.index + pd.Timedelta("7min"))),
        data_error("is not a step of the fitted series", "the next times of the same series"),
    ),
    "an update by the half hour": (
        lambda: after_update(load(pd.date_range(NEXT.index[0], periods=4, freq="30min"), VALUES[:4])),
        data_error("2024-03-03 12:30:00 of the new data is not a step"),
    ),
    "an update with another column": (
        lambda: after_update(NEXT.to_frame().assign(wind=1.0)),
        data_error("y has the columns ['load', 'wind']", "fitted on ['load']"),
    ),
    "an update that lacks a column": (
        lambda: after_update(NEXT.to_frame(), "two"),
        data_error("y has the columns ['load']", "fitted on ['load', 'wind']", "Give the same columns"),
    ),
    "an update with renamed columns": (
        lambda: after_update(pd.DataFrame({"wind": NEXT, "load": NEXT}), "two"),
        data_error("['wind', 'load']", "['load', 'wind']", "in the same order"),
    ),
    "an update under another name": (
        lambda: after_update(NEXT.rename("charge")).to_numpy(),
        lambda: after_update(NEXT).to_numpy(),
    ),
    "an update in a zone": (
        lambda: after_update(NEXT.tz_localize("UTC")),
        data_error("time zone UTC, the fitted series None"),
    ),
    "an update with periods": (
        lambda: after_update(NEXT.set_axis(NEXT.index.to_period("h"))),
        data_error("period[h]", "datetime64"),
    ),
    "an update with infinity": (lambda: after_update(NEXT.replace(12.0, np.inf)), data_error("is infinite at")),
    "an update with text": (lambda: after_update(NEXT.astype(str)), type_error(*not_numbers)),
    "an update without values": (
        lambda: after_update(NEXT * np.nan),
        lambda: after_update(pd.concat([LOAD, NEXT * np.nan])),
    ),
    "an update after a hole": (
        lambda: after_update(NEXT[2:]),
        lambda: after_update(NEXT.where(NEXT.index >= NEXT.index[2])),
    ),
    "an outlier beyond float32": (
        lambda: np.isfinite(after_update(NEXT.replace(12.0, 1e40))).all(),
        Exactly(True),
    ),
    "an update of a series by a panel": (
        lambda: after_update(PANEL),
        data_error("panel", "single series"),
    ),
    "an update of a panel by a series": (
        lambda: after_update(NEXT, "panel"),
        data_error("panel", "single series"),
    ),
    "an update by a new series": (
        lambda: after_update(PANEL.rename(index={"north": "west"}, level=0), "panel").loc["south"].to_numpy(),
        lambda: fitted("panel").predict(fh=STEPS).loc["south"].to_numpy(),
    ),
    # Covariates to come
    "X is left out": (
        lambda: fitted("heated").predict(fh=STEPS),
        data_error("no X was given", "Missing columns: ['heat', 'kind']"),
    ),
    "X is too short": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT[60:63]),
        data_error("Missing steps: 2", "to 2024-03-03 16:00:00"),
    ),
    "X for the steps asked for alone": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT.iloc[[60, 61, 64]]),
        data_error("Missing steps: 2"),
    ),
    "X from the past": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT[:60]),
        data_error("Missing steps: 5"),
    ),
    "X lacks a column": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT[["heat"]]),
        data_error("Missing columns: ['kind']"),
    ),
    "X has a column more": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT.assign(more=1.0)),
        data_error("X has the columns ['more']", "Leave them out"),
    ),
    "X is renamed": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT.rename(columns={"heat": "warmth"})),
        data_error("['warmth']", "it had ['heat', 'kind']", "fit again"),
    ),
    "X in another order": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT[["kind", "heat"]]),
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT),
    ),
    "X has an unseen category": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT.assign(kind="c")),
        data_error("'kind' of X holds 'c' at", "not there in training", "'a', 'b'", "NaN"),
    ),
    "X has text for numbers": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT.astype({"heat": str})),
        type_error("'heat' of X is of type", "pd.to_numeric"),
    ),
    "X has a missing value": (
        lambda: np.isfinite(fitted("heated").predict(fh=STEPS, X=HEAT.replace(HEAT.iloc[61, 0], np.nan))).all(),
        Exactly(True),
    ),
    "X has infinity": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT.replace(HEAT.iloc[61, 0], np.inf)),
        data_error("'heat' of X is infinite"),
    ),
    "X is unsorted": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT[::-1]),
        data_error("X", "comes after a later one", "sort_index"),
    ),
    "X in a zone": (
        lambda: fitted("heated").predict(fh=STEPS, X=HEAT.tz_localize("UTC")),
        data_error("Missing steps: 5"),
    ),
    "X that was not there in fit": (
        lambda: fitted().predict(fh=STEPS, X=HEAT),
        data_error("X was given, but the forecaster was fitted without", "Give X to fit too"),
    ),
    "X as a list at predict": (
        lambda: fitted("heated").predict(fh=STEPS, X=[1.0, 2.0]),
        type_error("X is of type list", "pandas"),
    ),
    "measurements need not be known": (
        lambda: fitted("measured").predict(fh=STEPS),
        lambda: fitted("measured").predict(fh=STEPS, X=HEAT),
    ),
    "an update without X": (
        lambda: after_update(NEXT, "heated"),
        data_error("no X was given", "['heat', 'kind']", "Give X at the times of y"),
    ),
    "an update with an X that is too short": (
        lambda: after_update(NEXT, "heated", X=HEAT[60:62]),
        data_error("X", "lacks 1 of the 3 times of y"),
    ),
    "an update with an X that was not there in fit": (
        lambda: fitted().update(NEXT, X=HEAT, update_params=False).predict(fh=STEPS),
        data_error("X was given, but the forecaster was fitted without"),
    ),
    "a panel without the X of a series": (
        lambda: fitted("heated panel").predict(fh=STEPS, X=PANEL_X.loc[["north"]]),
        data_error("'south'", "Missing"),
    ),
    "a panel without X": (lambda: fitted("heated panel").predict(fh=STEPS), data_error("Missing columns")),
    "a panel and an X of one series": (
        lambda: fitted("heated panel").predict(fh=STEPS, X=HEAT),
        data_error("panel", "single series"),
    ),
    # Origins
    "an origin that is no time": (
        lambda: fitted().predict_origins(LOAD, origins=["soon"], fh=[1]),
        data_error("soon is not a time of y"),
    ),
    "an origin after the end": (
        lambda: fitted().predict_origins(LOAD, origins=NEXT.index, fh=[1]),
        data_error("2024-03-03 12:00:00 is not a time of y"),
    ),
    "no origins": (lambda: fitted().predict_origins(LOAD, origins=[], fh=[1]), data_error("there are no origins")),
    "origins of a list": (
        lambda: fitted().predict_origins(list(VALUES), origins=[3], fh=[1]),
        data_error("y is a list", "pandas Series"),
    ),
    "origins and steps into the past": (
        lambda: fitted().predict_origins(LOAD, origins=LOAD.index[30:31], fh=[0]),
        parameter_error("fh=[0]", "1 or more"),
    ),
}
