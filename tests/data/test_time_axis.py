"""Which time a step is, and which step a time is, on every kind of index."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.tseries.holiday import USFederalHolidayCalendar

from xlstm_ts.data.time_axis import TimeAxis, make_axis
from xlstm_ts.errors import DataError

MARKET = pd.offsets.CustomBusinessDay(calendar=USFederalHolidayCalendar())


def axis_of(index, calendar=None):
    return make_axis(index, calendar=calendar, where="fit")


def without_freq(index):
    return pd.DatetimeIndex(index, freq=None)


AXES = {
    "months as periods": pd.period_range("2023-11", periods=40, freq="M"),
    "weeks as periods": pd.period_range("2023-11-06", periods=40, freq="W-WED"),
    "hours as periods": pd.period_range("2024-02-28 20:00", periods=40, freq="h"),
    "integers": pd.RangeIndex(5, 45),
    "integers of step 2": pd.Index(np.arange(-3, 77, 2)),
    "days": pd.date_range("2024-01-20", periods=40, freq="D"),
    "days without freq": without_freq(pd.date_range("2024-01-20", periods=40, freq="D")),
    "hours into summer time": pd.date_range("2024-03-30 20:00", periods=40, freq="h", tz="Europe/Berlin"),
    "hours into winter time": pd.date_range("2024-10-26 20:00", periods=40, freq="h", tz="Europe/Berlin"),
    "hours into summer time without freq": without_freq(
        pd.date_range("2024-03-30 20:00", periods=40, freq="h", tz="Europe/Berlin")
    ),
    "days into summer time": pd.date_range("2024-03-20", periods=40, freq="D", tz="America/New_York"),
    "10 minutes": pd.date_range("2024-01-01", periods=40, freq="10min"),
    "month ends": pd.date_range("2024-01-31", periods=40, freq="ME"),
    "month ends without freq": without_freq(pd.date_range("2024-01-31", periods=40, freq="ME")),
    "month starts": pd.date_range("2024-01-01", periods=40, freq="MS"),
    "quarters": pd.date_range("2014-01-01", periods=40, freq="QE"),
    "business days": pd.date_range("2024-01-01", periods=40, freq="B"),
    "business days without freq": without_freq(pd.date_range("2024-01-01", periods=40, freq="B")),
    "seconds in [s]": pd.date_range("2024-01-01", periods=40, freq="s", unit="s"),
    "days in [ns]": pd.date_range("2024-01-01", periods=40, freq="D", unit="ns"),
    "months in [us]": pd.date_range("2024-01-01", periods=40, freq="MS", unit="us"),
    "sessions": without_freq(pd.date_range("2015-01-01", "2019-12-31", freq=MARKET)),
}
every_axis = pytest.mark.parametrize("index", AXES.values(), ids=AXES)


@every_axis
def test_the_future_of_the_first_part_is_the_second(index):
    count = 15 if len(index) == 40 else 250
    axis = axis_of(index[:-count])

    future = axis.future(count)

    assert list(future) == list(index[-count:])
    assert future.dtype == index.dtype


@every_axis
def test_at_and_steps_of_undo_each_other_before_and_after_the_cutoff(index):
    axis = axis_of(index[:25] if len(index) == 40 else index[:1000])
    steps = np.array([-24, -3, 0, 1, 2, 15])

    times = axis.at(steps)

    assert list(times[:3]) == list(axis.index[[-25, -4, -1]])
    assert times.dtype == index.dtype
    assert axis.steps_of(times).tolist() == steps.tolist()
    assert axis.steps_of(times[::-1]).tolist() == steps[::-1].tolist()


@every_axis
def test_the_axis_joined_with_its_continuation_is_the_whole_axis(index):
    part = axis_of(index[:25] if len(index) == 40 else index[:1000])
    new = index[len(part) + 3 : len(part) + 10] if part.calendar is None else index[len(part) : len(part) + 10]

    joined = part.joined(new)

    assert list(joined.index) == list(index[: len(part) + 10])
    assert joined.index.dtype == index.dtype
    assert list(joined.future(2)) == list(index[len(part) + 10 :][:2])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("freq", ["D", "h", "ME", "B", MARKET], ids=str)
def test_the_unit_of_the_times_is_kept(unit, freq):
    index = pd.date_range("2019-01-01", periods=700, freq=freq, unit=unit)._with_freq(None)
    axis = axis_of(index)

    assert axis.future(40).unit == unit
    assert axis.at(np.array([-1, 3])).unit == unit
    assert axis.joined(axis.future(3)).index.unit == unit


def test_summer_time_skips_an_hour_and_winter_time_repeats_one():
    spring = axis_of(pd.date_range("2024-03-30 20:00", periods=6, freq="h", tz="Europe/Berlin")).future(3)
    autumn = axis_of(pd.date_range("2024-10-26 20:00", periods=6, freq="h", tz="Europe/Berlin")).future(3)

    assert [time.hour for time in spring] == [3, 4, 5]
    assert [time.hour for time in autumn] == [2, 2, 3]
    assert [time.utcoffset().total_seconds() / 3600 for time in autumn] == [2, 1, 1]


def test_daily_steps_keep_their_hour_across_summer_time():
    future = axis_of(pd.date_range("2024-03-25 09:00", periods=5, freq="D", tz="Europe/Berlin")).future(3)

    assert [str(time) for time in future] == [
        f"2024-03-{day} 09:00:00+0{2 if day == 31 else 1}:00" for day in (30, 31)
    ] + ["2024-04-01 09:00:00+02:00"]


def test_month_ends_know_their_lengths():
    future = axis_of(pd.date_range("2023-10-31", periods=3, freq="ME")).future(4)

    assert [str(time.date()) for time in future] == ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"]


def test_sessions_skip_holidays_and_are_readable_as_a_calendar():
    index = AXES["sessions"]
    axis = axis_of(index)

    future = axis.future(5)

    assert axis.calendar is not None
    assert [str(time.date()) for time in future[:1]] == ["2020-01-02"]
    assert pd.Timestamp("2020-07-03") not in axis.future(200)  # the fourth is a Saturday
    assert pd.Timestamp("2020-12-25") not in axis.future(260)


def test_a_regular_axis_has_no_calendar():
    assert axis_of(AXES["days"]).calendar is None
    assert axis_of(AXES["months as periods"]).calendar is None


def test_a_calendar_that_is_given_wins():
    index = without_freq(pd.date_range("2024-01-01", periods=10, freq="B"))
    listed = pd.DatetimeIndex(["2024-01-12", "2024-01-17", "2024-01-18"])

    assert [time.day for time in axis_of(index, "D").future(3)] == [13, 14, 15]
    assert [time.day for time in axis_of(index, listed).future(2)] == [17, 18]
    with pytest.raises(DataError, match=r"3 sessions after 2024-01-12 .* 1 are missing"):
        axis_of(index, listed).future(3)


@pytest.mark.parametrize("index", [AXES["integers"], AXES["months as periods"]], ids=["integers", "periods"])
def test_a_calendar_needs_timestamps(index):
    with pytest.raises(DataError, match=r"fit: calendar='B' needs a DatetimeIndex, got "):
        axis_of(index, "B")


def test_no_future_is_an_empty_index_of_the_same_kind():
    for index in AXES.values():
        future = axis_of(index).future(0)
        assert len(future) == 0
        assert future.dtype == index.dtype


def test_a_step_before_the_first_observation_is_refused_with_the_earliest():
    with pytest.raises(DataError, match=r"step -40 lies before the first .* 40 times, so the earliest step is -39"):
        axis_of(AXES["days"]).at(np.array([-40, 1]))


OFF = {
    "between hours": (AXES["hours into summer time"], pd.DatetimeIndex(["2024-04-01 12:30"], tz="Europe/Berlin")),
    "within the sample": (AXES["days"], pd.DatetimeIndex(["2024-01-21 12:00"])),
    "before the sample": (AXES["days"], pd.DatetimeIndex(["2024-01-19"])),
    "between seconds, finer than the index": (AXES["seconds in [s]"], pd.DatetimeIndex(["2024-01-01 00:00:01.5"])),
    "no month end": (AXES["month ends"], pd.DatetimeIndex(["2028-02-28"])),
    "an odd integer": (pd.Index([0, 2, 4]), pd.Index([7])),
    "a weekend": (AXES["business days"], pd.DatetimeIndex(["2024-03-02"])),
}


@pytest.mark.parametrize(("index", "times"), OFF.values(), ids=OFF)
def test_a_time_between_two_steps_is_refused_by_name(index, times):
    with pytest.raises(
        DataError, match=f"asks for {times[0]}, which is not a step of the series' own index".replace("+", r"\+")
    ):
        axis_of(index).steps_of(times)


def test_a_holiday_is_refused_as_no_session():
    with pytest.raises(DataError, match=r"asks for 2020-12-25 00:00:00, which is not a trading session of calendar_"):
        axis_of(AXES["sessions"]).steps_of(pd.DatetimeIndex(["2020-12-25"]))


@pytest.mark.parametrize(
    ("index", "times"),
    [
        (AXES["hours into summer time"], pd.DatetimeIndex(["2024-04-01 12:00"])),
        (AXES["days"], pd.DatetimeIndex(["2024-02-01"], tz="UTC")),
        (AXES["days"], pd.Index([3])),
        (AXES["integers"], pd.DatetimeIndex(["2024-02-01"])),
        (AXES["months as periods"], pd.period_range("2025-01-01", periods=1, freq="D")),
        (AXES["months as periods"], pd.DatetimeIndex(["2025-01-01"])),
    ],
    ids=[
        "naive on aware",
        "aware on naive",
        "integer on times",
        "time on integers",
        "day on months",
        "time on periods",
    ],
)
def test_times_of_another_kind_are_refused_with_both_kinds(index, times):
    with pytest.raises(DataError, match=r"the forecasting horizon has .*, the fitted series "):
        axis_of(index).steps_of(times)


def test_times_in_another_time_zone_and_unit_are_the_same_times():
    axis = axis_of(AXES["hours into summer time"])
    times = axis.at(np.array([-5, 1, 7]))

    assert axis.steps_of(times.tz_convert("Asia/Tokyo")).tolist() == [-5, 1, 7]
    assert axis.steps_of(times.as_unit("ns")).tolist() == [-5, 1, 7]
    assert axis.steps_of(times.as_unit("s")).tolist() == [-5, 1, 7]


def test_no_times_are_no_steps():
    assert axis_of(AXES["days"]).steps_of(AXES["days"][:0]).tolist() == []


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(AXES)), st.lists(st.integers(-15, 90), min_size=1, max_size=6))
def test_steps_come_back_in_any_order_however_far(name, steps):
    axis = axis_of(AXES[name])

    assert axis.steps_of(axis.at(np.array(steps))).tolist() == steps


def test_two_rows_are_enough_for_a_step():
    assert list(axis_of(pd.Index([3, 10])).future(1)) == [17]
    assert axis_of(without_freq(["2024-01-06 00:00", "2024-01-06 06:00"])).future(1)[0] == pd.Timestamp(
        "2024-01-06 12:00"
    )
    assert axis_of(without_freq(["2024-01-06", "2024-01-07"])).future(1)[0] == pd.Timestamp("2024-01-08")


def test_the_last_gap_of_irregular_times_is_not_taken_for_the_step():
    irregular = pd.DatetimeIndex(["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 02:00", "2024-01-01 02:17"])

    with pytest.raises(DataError, match=r"mostly 0 days 01:00:00, but 2024-01-01 02:00:00 is followed by .*02:17"):
        axis_of(irregular)


def test_an_axis_says_what_continues_it():
    assert str(TimeAxis(AXES["integers of step 2"], 2)) == "step 2"
    assert str(axis_of(AXES["sessions"])) == "a trading calendar"
