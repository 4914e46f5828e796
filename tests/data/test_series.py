"""From frames to arrays: what is refused and how, the scaler at the ends of float64, and series that grow."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from xlstm_ts.data.covariates import Column
from xlstm_ts.data.scaler import SeriesScaler
from xlstm_ts.data.series import make_series
from xlstm_ts.errors import DataError, DataTypeError

LARGEST = np.finfo(np.float64).max
DAYS = pd.date_range("2024-01-01", periods=6, freq="D")


def frame(values, index=None, columns=("a",)):
    values = np.asarray(values, dtype=np.float64).reshape(-1, len(columns))
    return pd.DataFrame(values, index=DAYS[: len(values)] if index is None else index, columns=list(columns))


def series_of(values, index=None, columns=("a",)):
    return make_series(frame(values, index, columns), where="fit")


def scale_of(*observed):
    scaler = SeriesScaler.fit(np.array(observed, dtype=np.float64)[:, None])
    return float(scaler.level[0]), float(scaler.scale[0])


def test_level_and_scale_are_mean_and_standard_deviation_of_what_was_observed():
    values = np.array([[1.0, 10.0], [3.0, np.nan], [np.nan, 30.0], [8.0, 50.0]])

    scaler = SeriesScaler.fit(values)

    np.testing.assert_allclose(scaler.level, [4.0, 30.0])
    np.testing.assert_allclose(scaler.scale, [np.std([1, 3, 8]), np.std([10, 30, 50])])


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, -1e-300, 5e-324, 1e9 + 0.1, LARGEST, -LARGEST])
def test_a_constant_channel_has_exactly_its_value_as_level_and_scale_0(value):
    level, scale = scale_of(*[value] * 11)

    assert level == value
    assert scale == 0.0


def test_a_constant_channel_comes_back_exactly_whatever_was_forecast():
    scaler = SeriesScaler.fit(np.full((5, 1), 0.1))

    assert scaler.forward(np.full((5, 1), 0.1)).tolist() == [[0.0]] * 5
    assert scaler.backward(np.array([[-3.7], [1e6]])).tolist() == [[0.1], [0.1]]


def test_moves_of_1_on_a_level_of_1e9_keep_their_digits():
    moves = np.array([0.0, 1.0, 0.5, 0.25, 0.75])[:, None]

    low = SeriesScaler.fit(moves).forward(moves)
    high = SeriesScaler.fit(moves + 1e9).forward(moves + 1e9)

    np.testing.assert_allclose(high, low, rtol=0, atol=1e-6)
    assert SeriesScaler.fit(moves + 1e9).scale[0] == pytest.approx(moves.std(), rel=1e-7)


@pytest.mark.parametrize(
    "observed",
    [[1e308, 0.0], [1e308, -1e308, 0.0], [LARGEST] * 9 + [-LARGEST], [-LARGEST] * 9 + [LARGEST], [1e308, 1.1e308]],
    ids=str,
)
def test_the_largest_floats_do_not_overflow(observed):
    values = np.array(observed)[:, None]
    scaler = SeriesScaler.fit(values)

    scaled = scaler.forward(values)

    exact = np.array(observed) / 2**1000  # the same arithmetic where nothing is large
    np.testing.assert_allclose(scaler.level / 2**1000, exact.mean(), rtol=1e-12, atol=1e-12 * abs(exact).max())
    np.testing.assert_allclose(scaler.scale / 2**1000, exact.std(), rtol=1e-9)
    np.testing.assert_allclose(scaled[:, 0], (exact - exact.mean()) / exact.std(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scaler.backward(scaled), values, rtol=1e-12, atol=1e-12 * LARGEST)


@pytest.mark.parametrize("observed", [[0.0, 5e-324], [1e-320, 2e-320], [0.0, 1e-310, 3e-310]], ids=str)
def test_the_smallest_floats_do_not_divide_by_zero(observed):
    values = np.array(observed)[:, None]
    scaler = SeriesScaler.fit(values)

    assert np.isfinite(scaler.forward(values)).all()
    assert observed[0] <= scaler.level[0] <= observed[-1]
    assert 0 <= scaler.scale[0] <= observed[-1]


@settings(max_examples=200, deadline=None)
@given(
    npst.arrays(
        np.float64, st.tuples(st.integers(1, 8), st.just(2)), elements=st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_backward_undoes_forward(values):
    scaler = SeriesScaler.fit(values)

    scaled = scaler.forward(values)

    assert np.isfinite(scaled).all()
    size = np.abs(values).max(0)
    back = scaler.backward(scaled)
    assert (np.abs(back / 2 - values / 2) <= 4e-15 * size + 1e-320).all()
    moving = scaler.scale > 1e-290
    np.testing.assert_allclose((scaled**2).mean(0)[moving], 1.0, rtol=1e-6)


def test_what_comes_after_the_cut_gives_a_constant_channel_its_unit_alone():
    nan = np.nan
    values = np.array([[5.0, 1.0, nan, nan], [5.0, 3.0, nan, nan], [5.0, 2.0, 7.0, nan], [9.0, 90.0, 9.0, nan]])

    scaler = SeriesScaler.fit_before(values, 2)

    np.testing.assert_array_equal(scaler.level, [5.0, 2.0, 8.0, 0.0])
    np.testing.assert_allclose(scaler.scale, [values[:, 0].std(), 1.0, 1.0, 0.0])
    later = values.copy()
    later[2:] *= 100
    np.testing.assert_array_equal(SeriesScaler.fit_before(later, 2).level[:2], scaler.level[:2])
    np.testing.assert_array_equal(SeriesScaler.fit_before(values, 0).parts, SeriesScaler.fit_before(values, 4).parts)


def test_missing_values_pass_through_the_scaler():
    values = np.array([[1.0], [np.nan], [3.0]])
    scaler = SeriesScaler.fit(values)

    np.testing.assert_allclose(scaler.forward(values), [[-1.0], [np.nan], [1.0]])
    np.testing.assert_array_equal(scaler.backward(scaler.forward(values)), values)


def test_a_frame_becomes_an_array_of_its_own_with_nan_for_what_is_missing():
    y = pd.DataFrame({"b": pd.array([1, None, 3], dtype="Int64"), "a": [0.5, 1.5, np.nan]}, index=DAYS[:3])

    series = make_series(y, where="fit")

    np.testing.assert_array_equal(series.values, [[1.0, 0.5], [np.nan, 1.5], [3.0, np.nan]])
    assert series.values.dtype == np.float64
    assert series.values.flags["C_CONTIGUOUS"]
    assert list(series.columns) == ["b", "a"]
    assert series.axis.index.equals(DAYS[:3])
    series.values[0, 0] = 99
    assert y["b"].iloc[0] == 1


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint64", "Float64", "int64"])
def test_real_numbers_of_every_dtype_are_taken(dtype):
    series = make_series(pd.DataFrame({"a": [1, 2, 3]}, index=DAYS[:3]).astype(dtype), where="fit")

    assert series.values[:, 0].tolist() == [1.0, 2.0, 3.0]


def hourly(*hours):
    return pd.DatetimeIndex([f"2024-01-01 {hour:02d}:00" for hour in hours])


REFUSED = {
    "no rows": (frame(np.empty((0, 1)), index=DAYS[:0]), ["0 rows", "Give at least 2 rows"]),
    "no columns": (pd.DataFrame(index=DAYS), ["0 columns", "Give"]),
    "infinite": (frame([1, np.inf, 3]), ["'a'", "infinite at 2024-01-02", "NaN"]),
    "minus infinite": (frame([[1, 1], [2, 2], [3, -np.inf]], columns="ab"), ["'b'", "2024-01-03", "NaN"]),
    "nothing observed": (frame([[1, np.nan], [2, np.nan]], columns="ab"), ["'b'", ": 0;", "at least 2", "drop"]),
    "one observation": (frame([[np.nan, 1], [2, 2]], columns="ab"), ["'a'", ": 1;", "at least 2", "longer series"]),
    "one row": (frame([1]), ["'a'", ": 1;", "at least 2"]),
    "time twice": (frame([1, 2, 3], DAYS[[0, 1, 1]]), ["2024-01-02", "stands twice", "duplicated()"]),
    "unsorted": (frame([1, 2, 3], DAYS[[0, 2, 1]]), ["2024-01-02", "after a later one", "sort_index()"]),
    "no time": (frame([1, 2, 3], DAYS[:2].append(pd.DatetimeIndex([pd.NaT]))), ["row 2", "NaT", "Drop"]),
    "hole in hours": (frame(range(6), hourly(0, 1, 2, 4, 5, 6)), ["02:00", "04:00", "asfreq('h')", "calendar="]),
    "hole in periods": (
        frame([1, 2, 3], pd.PeriodIndex(["2024-01", "2024-02", "2024-04"], freq="M")),
        ["hole", "2024-02 is followed by 2024-04", "reindex"],
    ),
    "hole in integers": (frame([1, 2, 3, 4], pd.Index([0, 2, 4, 8])), ["hole", "4 is followed by 8", "reindex"]),
    "float times": (frame([1, 2], pd.Index([0.5, 1.5])), ["float64", "DatetimeIndex", "PeriodIndex", "integers"]),
    "column twice": (pd.DataFrame([[1.0, 2.0]] * 3, index=DAYS[:3], columns=["a", "a"]), ["'a'", "twice", "Rename"]),
}


@pytest.mark.parametrize(("y", "parts"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_with_place_and_remedy(y, parts):
    with pytest.raises(DataError) as raised:
        make_series(y, where="Forecaster.fit")

    assert str(raised.value).startswith("Forecaster.fit: ")
    assert [part for part in parts if part not in str(raised.value)] == []


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["x", "y"], index=DAYS[:2]),
        pd.Series([True, False], index=DAYS[:2]),
        pd.Series([1 + 2j, 3], index=DAYS[:2]),
        pd.Series(DAYS[:2], index=DAYS[:2]),
        pd.Series(["u", "v"], index=DAYS[:2], dtype="category"),
        pd.Series([1, "v"], index=DAYS[:2], dtype=object),
        pd.Series([True, None], index=DAYS[:2], dtype="boolean"),
    ],
    ids=["text", "bool", "complex", "dates", "category", "object", "nullable bool"],
)
def test_a_column_that_is_not_numeric_is_refused_by_name_as_a_type_error_too(column):
    y = pd.DataFrame({"good": [1.0, 2.0], "bad": column}, index=DAYS[:2])

    with pytest.raises(
        DataTypeError, match=r"^fit: series 'bad' is of type .*; expected real numbers.*drop it"
    ) as raised:
        make_series(y, where="fit")

    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, ValueError)


def test_new_rows_are_appended():
    series = series_of([1, 2, 3]).updated(frame([4, 5], DAYS[3:5]), "update")

    assert series.values[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert series.axis.index.equals(DAYS[:5])


def test_where_both_have_a_value_the_new_one_wins():
    series = series_of([1, 2, 3]).updated(frame([20, np.nan, 40], DAYS[1:4]), "update")

    np.testing.assert_array_equal(series.values[:, 0], [1, 20, np.nan, 40])


def test_the_series_ends_where_the_new_data_end():
    old = series_of([1, 2, 3, 4, 5])

    series = old.updated(frame([30], DAYS[2:3]), "update")

    assert series.values[:, 0].tolist() == [1, 2, 30]
    assert series.axis.index.equals(DAYS[:3])
    assert old.values[:, 0].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "index",
    [DAYS, pd.period_range("2024-01", periods=6, freq="M"), pd.RangeIndex(0, 12, 2), pd.Index([3, 4, 5, 6, 7, 8])],
    ids=["days", "months", "integers of step 2", "integers"],
)
def test_a_hole_before_the_new_data_is_filled_with_nan(index):
    series = series_of([1, 2, 3], index[:3]).updated(frame([6], index[5:]), "update")

    np.testing.assert_array_equal(series.values[:, 0], [1, 2, 3, np.nan, np.nan, 6])
    assert list(series.axis.index) == list(index)


def test_new_data_may_begin_before_the_series():
    series = series_of([3, 4], DAYS[2:4]).updated(frame([1, 2, 30], DAYS[:3]), "update")

    assert series.values[:, 0].tolist() == [1, 2, 30]
    assert series.axis.index.equals(DAYS[:3])


def test_columns_keep_their_order():
    series = series_of([[1, 10], [2, 20]], columns="ba").updated(frame([[3, 30]], DAYS[2:3], "ba"), "update")

    assert series.values.tolist() == [[1, 10], [2, 20], [3, 30]]
    assert list(series.columns) == ["b", "a"]


HOURS = pd.date_range("2024-01-01", periods=4, freq="h")
OFF_GRID = {
    "between two steps": (HOURS, pd.DatetimeIndex(["2024-01-01 05:30"]), "2024-01-01 05:30:00 of the new data"),
    "between and before": (HOURS, HOURS - pd.Timedelta("90min"), "2024-01-01 00:00:00 of the new data"),
    "odd": (pd.Index([0, 2, 4]), pd.Index([7]), "the time 7 of the new data"),
    "no month end": (
        pd.date_range("2024-01-31", periods=3, freq="ME"),
        pd.DatetimeIndex(["2024-04-29"]),
        "2024-04-29 00:00:00 of the new data",
    ),
    "integers after times": (HOURS, pd.Index([5]), "has times of int64, the fitted series of datetime64"),
    "another freq": (
        pd.period_range("2024-01", periods=3, freq="M"),
        pd.period_range("2024-01-05", periods=1, freq="D"),
        r"has times of period\[D\], the fitted series of period\[M\]",
    ),
    "time zone after none": (HOURS, HOURS.tz_localize("UTC"), "has the time zone UTC, the fitted series None"),
}


@pytest.mark.parametrize(("index", "new", "message"), OFF_GRID.values(), ids=OFF_GRID)
def test_new_data_off_the_axis_are_refused(index, new, message):
    series = series_of(range(len(index)), index)

    with pytest.raises(DataError, match=message) as raised:
        series.updated(frame(range(len(new)), new), "Forecaster.update")

    assert str(raised.value).startswith("Forecaster.update: ")


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (frame([np.inf], DAYS[3:4]), DataError),
        (frame([1, 2], DAYS[[4, 3]]), DataError),
        (pd.DataFrame({"a": ["x"]}, index=DAYS[3:4]), DataTypeError),
        (frame(np.empty((0, 1)), DAYS[:0]), DataError),
    ],
    ids=["infinite", "unsorted", "text", "empty"],
)
def test_new_data_are_checked_like_the_first(new, error):
    with pytest.raises(error, match=r"^update: "):
        series_of([1, 2, 3]).updated(new, "update")


def test_what_x_knows_of_times_that_new_rows_leave_out_is_kept():
    days = pd.date_range("2024-01-01", periods=8, freq="D")
    y, X = pd.DataFrame({"y": np.arange(8.0)}, days), pd.DataFrame({"x": np.arange(10.0, 18.0)}, days)
    plan = [Column("x", "known", None)]
    series = make_series(y[:4], where="fit", X=X[:4], plan=plan)

    got = series.updated(y.iloc[[5, 7]], "update", X=X.drop(days[6]), plan=plan)

    np.testing.assert_array_equal(got.values[:, 0], [0, 1, 2, 3, np.nan, 5, np.nan, 7])
    np.testing.assert_array_equal(got.x[:, 0], [10, 11, 12, 13, 14, 15, np.nan, 17])
