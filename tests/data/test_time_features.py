"""Cycles by hand: which a step can show, where a time lies in them, and which days are holidays."""

import builtins

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.data.time_features import TimeFeatures, choose_time_features
from xlstm_ts.errors import DataError, ParameterError


def chosen(index, cycles="auto", holidays=None):
    return choose_time_features([index], cycles, holidays, "fit").cycles


@pytest.mark.parametrize(
    ("freq", "rows", "cycles"),
    [
        ("5min", 12 * 24 * 15, ("hour", "day", "week")),
        ("h", 24 * 15, ("day", "week")),
        ("h", 24 * 13, ("day",)),
        ("h", 24 * 800, ("day", "week", "year")),
        ("D", 800, ("week", "year")),
        ("B", 600, ("week", "year")),
        ("W", 120, ("year",)),
        ("MS", 30, ("year",)),
        ("QS", 9, ("year",)),
        ("YS", 50, ()),
        ("D", 13, ()),
    ],
)
def test_a_cycle_is_taken_when_the_step_can_show_it_and_it_was_seen_twice(freq, rows, cycles):
    assert chosen(pd.date_range("2020-01-01", periods=rows, freq=freq)) == cycles


def test_periods_have_a_clock_and_integers_have_none():
    assert chosen(pd.period_range("2020-01", periods=30, freq="M")) == ("year",)
    assert chosen(pd.RangeIndex(1000)) == ()
    with pytest.raises(DataError, match="DatetimeIndex"):
        chosen(pd.RangeIndex(1000), ["day"])


def test_the_longest_series_decides():
    short, long = pd.date_range("2020-01-01", periods=20), pd.date_range("2020-01-01", periods=800)

    assert choose_time_features([short, long], "auto", None, "fit").cycles == ("week", "year")


def test_sines_and_cosines_by_hand():
    times = pd.DatetimeIndex(["2024-01-01 00:00", "2024-01-01 06:00", "2024-01-01 12:00"])  # a Monday

    day = TimeFeatures(("day",)).of(times)
    week = TimeFeatures(("week",)).of(pd.DatetimeIndex(["2024-01-01", "2024-01-02 18:00"]))

    np.testing.assert_allclose(day, [[0, 1, 0, 1], [1, 0, 0, -1], [0, -1, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(week[0], [0, 1, 0, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(week[1, :2], [1, 0], atol=1e-6)  # a quarter of the week has passed
    assert day.dtype == np.float32


def test_the_year_closes_in_leap_years_too():
    ends = pd.DatetimeIndex(["2023-12-31 23:59:59", "2024-01-01", "2024-12-31 23:59:59", "2025-01-01"])

    features = TimeFeatures(("year",)).of(ends)

    np.testing.assert_allclose(features, np.tile([0, 1, 0, 1], (4, 1)), atol=1e-6)


def test_a_zone_is_read_off_its_own_clock():
    utc = pd.date_range("2024-07-01", periods=5, freq="h", tz="UTC")

    berlin = TimeFeatures(("day",)).of(utc.tz_convert("Europe/Berlin"))

    np.testing.assert_array_equal(
        berlin, TimeFeatures(("day",)).of(pd.date_range("2024-07-01 02:00", periods=5, freq="h"))
    )


def test_no_features_are_a_table_without_columns():
    assert TimeFeatures().of(pd.RangeIndex(4)).shape == (4, 0)
    assert TimeFeatures(("day", "week")).width == 10


def test_holidays_of_a_country_and_of_a_region():
    pytest.importorskip("holidays")
    days = pd.DatetimeIndex(["2024-12-25 10:00", "2024-12-27", "2024-11-01"])  # All Saints' is kept in Bavaria

    assert TimeFeatures(holidays="DE").of(days)[:, 0].tolist() == [1, 0, 0]
    assert TimeFeatures(holidays="DE-BY").of(days)[:, 0].tolist() == [1, 0, 1]
    with pytest.raises(ParameterError, match="Atlantis"):
        choose_time_features([days], None, "Atlantis", "fit")


def test_without_the_package_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "holidays":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)

    with pytest.raises(ImportError, match=r"xlstm-ts\[calendar\]"):
        choose_time_features([pd.date_range("2024-01-01", periods=3)], None, "DE", "fit")
