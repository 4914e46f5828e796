import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import cbook
from pandas.tseries import holiday

from xlstm_ts.data.calendar import (
    EASTER_OFFSETS,
    EasterOffset,
    FixedDate,
    TradingCalendar,
    WeekdayFrom,
    as_calendar,
    infer_trading_calendar,
    looks_like_sessions,
)
from xlstm_ts.errors import DataError, ParameterError

TO_NEAREST = ((5, -1), (6, 1))
NEW_YEAR = FixedDate(1, 1, ((6, 1),))
GOOD_FRIDAY = EasterOffset(-2)
CHRISTMAS = FixedDate(12, 25, TO_NEAREST)
US_RULES = (
    NEW_YEAR,
    WeekdayFrom(0, 1, 15),
    WeekdayFrom(0, 2, 15),
    GOOD_FRIDAY,
    WeekdayFrom(0, 5, 25),
    FixedDate(7, 4, TO_NEAREST),
    WeekdayFrom(0, 9, 1),
    WeekdayFrom(3, 11, 22),
    CHRISTMAS,
)
SUNDAY_TO_THURSDAY = (0, 1, 2, 3, 6)


@pytest.fixture(scope="module")
def google():
    return pd.DatetimeIndex(cbook.get_sample_data("goog.npz")["price_data"]["date"])


@pytest.fixture(scope="module")
def us_sessions():
    return sessions_of(US_RULES, 1995, 2020)


def sessions_of(rules, first_year, last_year, weekdays=(0, 1, 2, 3, 4), **kwargs):
    calendar = TradingCalendar(weekdays=weekdays, holidays=tuple(rules), **kwargs)
    start, end = pd.Timestamp(first_year, 1, 1), pd.Timestamp(last_year, 12, 31, 23)
    return calendar.sessions_between(start.tz_localize(calendar.tz), end.tz_localize(calendar.tz))


def days(*dates):
    return [pd.Timestamp(date) for date in dates]


def words(calendar):
    return [str(rule) for rule in calendar.holidays]


# What is inferred from a real market


def test_google_to_2006_predicts_2007_but_for_the_day_of_mourning(google):
    past, future = google[google.year < 2007], google[google.year == 2007]

    predicted = infer_trading_calendar(past).sessions_after(past[-1], len(future) + 1)

    assert list(predicted.difference(future)) == days("2007-01-02")
    assert list(future.difference(predicted)) == []


def test_google_to_2007_predicts_2008_exactly(google):
    past, future = google[google.year < 2008], google[google.year == 2008]

    predicted = infer_trading_calendar(past).sessions_after(past[-1], len(future))

    pd.testing.assert_index_equal(predicted, future)


def test_google_rules_read_as_the_exchange_states_them(google):
    calendar = infer_trading_calendar(google[google.year < 2008])

    assert str(calendar).splitlines() == [
        "TradingCalendar: Monday to Friday",
        "closed on",
        "  1 January, Sunday observed on Monday",
        "  3rd Monday of January",
        "  3rd Monday of February",
        "  2 days before Easter Sunday",
        "  last Monday of May",
        "  4 July, Saturday observed on Friday, Sunday on Monday",
        "  1st Monday of September",
        "  4th Thursday of November",
        "  25 December, Saturday observed on Friday, Sunday on Monday",
        "one-offs, not repeated: 1",
    ]
    assert repr(calendar) == str(calendar)
    assert list(calendar.one_offs) == days("2007-01-02")


# What is inferred from made-up markets


@pytest.mark.parametrize(
    ("rules", "weekdays"),
    [
        pytest.param(US_RULES, (0, 1, 2, 3, 4), id="new-york"),
        pytest.param(
            [
                FixedDate(1, 1, ((5, 2), (6, 1))),
                GOOD_FRIDAY,
                EasterOffset(1),
                WeekdayFrom(0, 5, 1),
                WeekdayFrom(0, 5, 25),
                WeekdayFrom(0, 8, 25),
                FixedDate(12, 25, ((5, 2), (6, 2))),
                FixedDate(12, 26, ((5, 2), (6, 2))),
            ],
            (0, 1, 2, 3, 4),
            id="london",
        ),
        pytest.param(
            [*(FixedDate(12, day) for day in (24, 25, 26, 31)), FixedDate(1, 1), EasterOffset(1), FixedDate(5, 1)],
            (0, 1, 2, 3, 4),
            id="frankfurt",
        ),
        pytest.param([EasterOffset(o) for o in EASTER_OFFSETS], (0, 1, 2, 3, 4), id="every-easter-offset"),
        pytest.param(
            [FixedDate(1, 25), FixedDate(4, 25), FixedDate(7, 23), FixedDate(10, 6)], SUNDAY_TO_THURSDAY, id="cairo"
        ),
        pytest.param([WeekdayFrom(0, 5, 18), WeekdayFrom(4, 6, 19)], (0, 1, 2, 3, 4), id="odd-weeks"),
    ],
)
def test_28_years_of_a_market_give_back_its_rules(rules, weekdays):
    calendar = infer_trading_calendar(sessions_of(rules, 1990, 2017, weekdays))

    assert set(calendar.holidays) == set(rules)
    assert calendar.weekdays == weekdays
    assert calendar.one_offs == ()


@st.composite
def markets(draw):
    """Weekdays and rules, of different months, of a market that moves its fixed holidays in one way."""
    weekdays, habits = draw(
        st.sampled_from(
            [
                ((0, 1, 2, 3, 4), [(), ((6, 1),), TO_NEAREST, ((5, 2), (6, 1))]),
                (SUNDAY_TO_THURSDAY, [(), ((5, 1),), ((4, -1), (5, 1))]),
            ]
        )
    )
    moves = draw(st.sampled_from(habits))
    fixed = st.builds(FixedDate, st.integers(1, 12), st.integers(1, 28), st.just(moves))
    floating = st.builds(WeekdayFrom, st.sampled_from(weekdays), st.integers(1, 12), st.sampled_from([1, 8, 15, 22]))
    of_months = draw(st.lists(fixed | floating, min_size=1, max_size=6, unique_by=lambda rule: rule.month))
    traded = [offset for offset in EASTER_OFFSETS if (6 + offset) % 7 in weekdays]
    of_easter = draw(st.lists(st.builds(EasterOffset, st.sampled_from(traded)), max_size=2, unique=True))
    return weekdays, [*of_months, *of_easter]


@given(market=markets(), year=st.integers(1950, 2050))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_next_year_of_any_market_is_predicted_exactly_after_28_years(market, year):
    weekdays, rules = market
    past, future = sessions_of(rules, year - 28, year - 1, weekdays), sessions_of(rules, year, year, weekdays)

    predicted = infer_trading_calendar(past).sessions_after(past[-1], len(future))

    pd.testing.assert_index_equal(predicted, future)


def test_holiday_missed_once_is_a_one_off_and_is_not_repeated():
    past = sessions_of([GOOD_FRIDAY], 2015, 2015).drop(days("2015-05-25", "2015-08-12"))

    calendar = infer_trading_calendar(past)

    assert calendar.holidays == ()
    assert list(calendar.one_offs) == days("2015-04-03", "2015-05-25", "2015-08-12")
    pd.testing.assert_index_equal(calendar.sessions_after(past[-1], 261), sessions_of([], 2016, 2016))


def test_two_years_are_enough_for_a_rule():
    calendar = infer_trading_calendar(sessions_of([WeekdayFrom(0, 9, 1), GOOD_FRIDAY, FixedDate(10, 3)], 2016, 2017))

    assert words(calendar) == ["2 days before Easter Sunday", "1st Monday of September", "3 October"]


@pytest.mark.parametrize(
    ("rule", "first_year"),
    [
        pytest.param(WeekdayFrom(0, 5, 25), 2012, id="last-monday-not-4th"),
        pytest.param(WeekdayFrom(3, 11, 22), 2009, id="4th-thursday-not-last"),
        pytest.param(FixedDate(7, 4, ((6, 1),)), 2010, id="4-july-not-1st-monday"),
        pytest.param(FixedDate(12, 25, TO_NEAREST), 2021, id="25-december-not-24"),
        pytest.param(WeekdayFrom(0, 9, 1), 2005, id="1st-monday-not-4-september"),
    ],
)
def test_of_explanations_that_fit_two_years_the_likelier_is_believed(rule, first_year):
    assert infer_trading_calendar(sessions_of([rule], first_year, first_year + 1)).holidays == (rule,)


def test_weekday_of_no_set_week_needs_three_years():
    rule = WeekdayFrom(0, 5, 18)  # the 3rd Monday of May in 2019 and 2020 and the 4th in 2021

    assert infer_trading_calendar(sessions_of([rule], 2020, 2021)).holidays == ()
    assert infer_trading_calendar(sessions_of([rule], 2019, 2021)).holidays == (rule,)


def test_1_january_is_believed_after_one_year():
    past = sessions_of([NEW_YEAR], 2005, 2006)[200:-200]  # 1 January 2006 was a Sunday

    assert words(infer_trading_calendar(past)) == ["1 January, Sunday observed on Monday"]


def test_holiday_traded_in_the_last_year_is_dropped():
    past = sessions_of([GOOD_FRIDAY, CHRISTMAS], 2008, 2016).append(sessions_of([CHRISTMAS], 2017, 2017))

    calendar = infer_trading_calendar(past)

    assert words(calendar) == ["25 December, Saturday observed on Friday, Sunday on Monday"]
    assert len(calendar.one_offs) == 9


@pytest.mark.parametrize(("years", "expected"), [(2, []), (3, ["3rd Monday of January"])])
def test_introduced_holiday_is_believed_after_three_years(years, expected):
    introduced = sessions_of([WeekdayFrom(0, 1, 15)], 2018, 2017 + years)

    calendar = infer_trading_calendar(sessions_of([], 2010, 2017).append(introduced))

    assert words(calendar) == expected


def test_the_latest_year_decides_how_a_holiday_is_moved():
    past = sessions_of([CHRISTMAS], 2000, 2008).append(sessions_of([FixedDate(12, 25, ((6, 1),))], 2009, 2012))

    calendar = infer_trading_calendar(past)  # Saturdays: 2004, then on Friday, and 2010, then lost

    assert words(calendar) == ["25 December, Sunday observed on Monday"]
    assert list(calendar.one_offs) == days("2004-12-24")


def test_unseen_move_is_borrowed_from_other_holidays_but_not_across_1_january():
    rules = [NEW_YEAR, FixedDate(7, 4, TO_NEAREST), CHRISTMAS]

    # From 27 December 2010 no Christmas is a Saturday, 1 January 2011 is and is lost, and 4 July 2015 is moved.
    past = sessions_of(rules, 2010, 2019)
    calendar = infer_trading_calendar(past[past >= "2010-12-27"])

    assert set(calendar.holidays) == set(rules)


def test_holiday_at_the_edge_of_the_index_is_not_taken_for_a_lost_one():
    past = sessions_of(US_RULES, 1995, 2005)  # from Tuesday 3 January 1995: the closed Monday is not covered

    predicted = infer_trading_calendar(past).sessions_after(past[-1], 1)

    assert list(predicted) == days("2006-01-03")


def test_a_few_special_sessions_make_no_traded_weekday():
    special = pd.DatetimeIndex(days("2016-01-02", "2017-10-21", "2019-10-27")).as_unit("us")
    past = sessions_of([CHRISTMAS], 2010, 2019).union(special)

    calendar = infer_trading_calendar(past)

    assert calendar.weekdays == (0, 1, 2, 3, 4)
    assert calendar.holidays == (CHRISTMAS,)


def test_market_that_moved_its_weekend_recently():
    rules = [FixedDate(12, 2)]
    before, after = sessions_of(rules, 2010, 2021, SUNDAY_TO_THURSDAY), sessions_of(rules, 2022, 2022)
    past = before.append(after[:200])

    calendar = infer_trading_calendar(past)

    assert calendar.weekdays == (0, 1, 2, 3, 4)
    assert calendar.one_offs == ()
    pd.testing.assert_index_equal(calendar.sessions_after(past[-1], 59), after[200:])


def test_few_sessions_without_a_weekend_mean_monday_to_friday():
    calendar = infer_trading_calendar(pd.DatetimeIndex(days("2024-03-06", "2024-03-07")))

    assert list(calendar.sessions_after(pd.Timestamp("2024-03-07"), 3)) == days(
        "2024-03-08", "2024-03-11", "2024-03-12"
    )


def test_40_years_are_inferred_and_60000_sessions_made_in_well_under_a_second():
    past = sessions_of(US_RULES, 1980, 2019)

    start = time.perf_counter()
    calendar = infer_trading_calendar(past)
    sessions = calendar.sessions_after(past[-1], 60_000)

    assert time.perf_counter() - start < 2  # measured: 0.15 s
    assert len(sessions) == 60_000
    assert sessions[-1].year == 2258


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (pd.RangeIndex(5), "the index is a RangeIndex"),
        (pd.DatetimeIndex([]), "has no rows"),
        (pd.DatetimeIndex(["2024-01-02", None]), "holds NaT"),
        (pd.DatetimeIndex(["2024-01-03", "2024-01-02"]), "2024-01-02 00:00:00 follows 2024-01-03"),
        (pd.DatetimeIndex(["2024-01-02 09:00", "2024-01-02 10:00"]), "2024-01-02 10:00:00 follows"),
        (pd.DatetimeIndex(["2024-01-02 09:00", "2024-01-03 09:00", "2024-01-04 10:00"]), "one at 2024-01-04 10:00"),
    ],
)
def test_index_that_is_not_one_row_per_day_is_refused(index, message):
    with pytest.raises(DataError, match=message):
        infer_trading_calendar(index)


# The rules and the sessions of a calendar


@pytest.mark.parametrize(
    ("rule", "year", "expected", "text"),
    [
        (CHRISTMAS, 2020, "2020-12-25", "25 December, Saturday observed on Friday, Sunday on Monday"),
        (CHRISTMAS, 2021, "2021-12-24", "25 December, Saturday observed on Friday, Sunday on Monday"),
        (CHRISTMAS, 2022, "2022-12-26", "25 December, Saturday observed on Friday, Sunday on Monday"),
        (FixedDate(1, 1, TO_NEAREST), 2022, "2021-12-31", "1 January, Saturday observed on Friday, Sunday on Monday"),
        (FixedDate(2, 29), 2024, "2024-02-29", "29 February"),
        (FixedDate(2, 29), 2100, None, "29 February"),
        (WeekdayFrom(3, 11, 22), 2024, "2024-11-28", "4th Thursday of November"),
        (WeekdayFrom(0, 9, 1), 2024, "2024-09-02", "1st Monday of September"),
        (WeekdayFrom(0, 5, 25), 2021, "2021-05-31", "last Monday of May"),
        (WeekdayFrom(0, 4, 24), 2024, "2024-04-29", "last Monday of April"),
        (WeekdayFrom(0, 5, 18), 2024, "2024-05-20", "first Monday from 18 May"),
        (EasterOffset(-2), 2024, "2024-03-29", "2 days before Easter Sunday"),
        (EasterOffset(1), 2011, "2011-04-25", "1 day after Easter Sunday"),
    ],
)
def test_day_and_words_of_a_rule(rule, year, expected, text):
    assert rule.date(year) == (expected and pd.Timestamp(expected))
    assert str(rule) == text


@pytest.mark.parametrize(
    ("weekdays", "text"),
    [
        ((0, 1, 2, 3, 4), "Monday to Friday"),
        (SUNDAY_TO_THURSDAY, "Sunday to Thursday"),
        (tuple(range(7)), "every day"),
        ((0, 2, 4), "Monday, Wednesday, Friday"),
        ((1,), "Tuesday"),
    ],
)
def test_weekdays_in_words(weekdays, text):
    assert str(TradingCalendar(weekdays=weekdays)).splitlines()[0] == f"TradingCalendar: {text}"


def test_sessions_agree_with_pandas_holidays():
    exchange = holiday.AbstractHolidayCalendar(
        rules=[
            holiday.Holiday("New Year", month=1, day=1, observance=holiday.sunday_to_monday),
            holiday.USMartinLutherKingJr,
            holiday.USPresidentsDay,
            holiday.GoodFriday,
            holiday.USMemorialDay,
            holiday.Holiday("Independence Day", month=7, day=4, observance=holiday.nearest_workday),
            holiday.USLaborDay,
            holiday.USThanksgivingDay,
            holiday.Holiday("Christmas", month=12, day=25, observance=holiday.nearest_workday),
        ]
    )
    closed = exchange.holidays("1990-01-01", "2030-12-31")

    sessions = sessions_of(US_RULES, 1990, 2030)

    assert list(sessions) == list(pd.bdate_range("1990-01-01", "2030-12-31").difference(closed))


def test_holiday_kept_on_31_december_closes_the_year_before():
    calendar = TradingCalendar(holidays=(FixedDate(1, 1, TO_NEAREST),))

    assert list(calendar.sessions_after(pd.Timestamp("2021-12-30"), 1)) == days("2022-01-03")


def test_sessions_after_is_strict_and_compares_the_time_of_day():
    calendar = TradingCalendar(time_of_day=pd.Timedelta(hours=16))

    assert calendar.sessions_after(pd.Timestamp("2024-03-06 16:00"), 1)[0] == pd.Timestamp("2024-03-07 16:00")
    assert calendar.sessions_after(pd.Timestamp("2024-03-06 09:00"), 1)[0] == pd.Timestamp("2024-03-06 16:00")
    assert calendar.sessions_after(pd.Timestamp("2024-12-31 16:00"), 1)[0] == pd.Timestamp("2025-01-01 16:00")
    assert len(calendar.sessions_after(pd.Timestamp("2024-03-06"), 0)) == 0


def test_sessions_between_includes_both_ends_and_compares_the_time_of_day():
    calendar = TradingCalendar(time_of_day=pd.Timedelta(hours=16))

    sessions = calendar.sessions_between(pd.Timestamp("2024-03-07 16:00"), pd.Timestamp("2024-03-12 15:00"))

    assert list(sessions) == days("2024-03-07 16:00", "2024-03-08 16:00", "2024-03-11 16:00")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("tz", [None, "UTC", "America/New_York"])
def test_sessions_keep_time_of_day_time_zone_and_unit(us_sessions, unit, tz):
    past = (us_sessions + pd.Timedelta(hours=9, minutes=30)).tz_localize(tz).as_unit(unit)

    calendar = infer_trading_calendar(past[:5000])

    pd.testing.assert_index_equal(calendar.sessions_after(past[4999], 1000), past[5000:6000])
    pd.testing.assert_index_equal(calendar.sessions_between(past[5000], past[5999]), past[5000:6000])
    assert str(calendar).splitlines()[-1] == f"at 09:30:00 {tz or ''}".strip()


def test_local_midnight_across_summer_time_is_one_time_of_day(us_sessions):
    past = us_sessions.tz_localize("America/New_York")

    calendar = infer_trading_calendar(past[:5000])

    assert len(set(past[:5000].tz_convert("UTC").hour)) == 2
    assert calendar.time_of_day == pd.Timedelta(0)
    pd.testing.assert_index_equal(calendar.sessions_after(past[4999].tz_convert("UTC"), 500), past[5000:5500])


def test_local_time_that_summer_time_skips_or_repeats_is_understood():
    # Cairo's clocks went from 00:00 to 01:00 on Friday 2023-04-28 and back over midnight on Friday 2023-10-27.
    past = pd.date_range("2023-03-01", "2023-12-29", freq="B")
    past = past.tz_localize("Africa/Cairo", nonexistent="shift_forward", ambiguous=np.ones(len(past), dtype=bool))

    calendar = infer_trading_calendar(past)

    assert looks_like_sessions(past)
    assert calendar.time_of_day == pd.Timedelta(0)
    assert list(calendar.sessions_after(past[0], len(past) - 1)) == list(past[1:])


@pytest.mark.parametrize("tz", [None, "Europe/London"])
def test_mixing_time_zones_with_none_is_refused(tz):
    calendar = TradingCalendar(tz=pd.Timestamp("2024-01-01", tz=tz).tz)
    last = pd.Timestamp("2024-01-01", tz="UTC" if tz is None else None)

    with pytest.raises(DataError, match=r"no time zone.*Use tz_localize"):
        calendar.sessions_after(last, 1)


@pytest.mark.parametrize("n", [-1, 2.5, "3"])
def test_impossible_number_of_sessions_is_refused(n):
    with pytest.raises(ParameterError, match="n="):
        TradingCalendar().sessions_after(pd.Timestamp("2024-01-01"), n)


@pytest.mark.parametrize("weekdays", [(), (7,)])
def test_impossible_weekdays_are_refused(weekdays):
    with pytest.raises(ParameterError, match="weekdays="):
        TradingCalendar(weekdays=weekdays)


# What a user passes as calendar=


def test_no_calendar_is_inferred(us_sessions):
    assert as_calendar(None, us_sessions) == infer_trading_calendar(us_sessions)


@pytest.mark.parametrize("make", [lambda index: infer_trading_calendar(index), lambda index: as_calendar("B", index)])
def test_calendar_passes_through(us_sessions, make):
    calendar = make(us_sessions)

    assert as_calendar(calendar, us_sessions) is calendar


@pytest.mark.parametrize("offset", ["B", "C", pd.offsets.BusinessDay()])
def test_offset_steps_from_session_to_session(us_sessions, offset):
    index = (us_sessions + pd.Timedelta(hours=16)).tz_localize("America/New_York").as_unit("s")

    sessions = as_calendar(offset, index).sessions_after(pd.Timestamp("2024-03-08 16:00", tz="America/New_York"), 2)

    expected = pd.DatetimeIndex(["2024-03-11 16:00", "2024-03-12 16:00"], tz="America/New_York").as_unit("s")
    pd.testing.assert_index_equal(sessions, expected)


def test_custom_offset_skips_its_holidays_and_starts_anywhere(us_sessions):
    calendar = as_calendar(pd.offsets.CustomBusinessDay(holidays=["2024-03-11"]), us_sessions)

    assert list(calendar.sessions_after(pd.Timestamp("2024-03-09"), 2)) == days("2024-03-12", "2024-03-13")
    assert list(calendar.sessions_between(pd.Timestamp("2024-03-08"), pd.Timestamp("2024-03-12"))) == days(
        "2024-03-08", "2024-03-12"
    )


def test_listed_sessions_are_used_in_the_zone_and_unit_of_the_series(us_sessions):
    index = us_sessions.tz_localize("America/New_York").as_unit("s")
    listed = pd.DatetimeIndex(
        ["2020-12-31 05:00", "2021-01-04 05:00", "2021-01-06 05:00"], tz="UTC", name="day"
    ).as_unit("ns")

    calendar = as_calendar(listed, index)

    expected = pd.DatetimeIndex(["2021-01-04", "2021-01-06"], tz="America/New_York").as_unit("s")
    pd.testing.assert_index_equal(calendar.sessions_after(index[-1], 2), expected)
    pd.testing.assert_index_equal(calendar.sessions_between(expected[0], expected[1]), expected)


def test_listed_sessions_that_end_too_early_say_how_many_are_missing(us_sessions):
    calendar = as_calendar(pd.DatetimeIndex(days("2021-01-04", "2021-01-05")), us_sessions)

    with pytest.raises(DataError, match=r"5 sessions after .* has 2: 3 are missing"):
        calendar.sessions_after(us_sessions[-1], 5)
    with pytest.raises(DataError, match=r"up to 2021-01-08 and the given index ends at 2021-01-05"):
        calendar.sessions_between(us_sessions[-1], pd.Timestamp("2021-01-08"))


@pytest.mark.parametrize(
    "listed",
    [
        pd.DatetimeIndex(["2021-01-05", "2021-01-04"]),
        pd.DatetimeIndex(["2021-01-04", "2021-01-04"]),
        pd.DatetimeIndex(["2021-01-04", None]),
        pd.DatetimeIndex(["2021-01-04"], tz="UTC"),
    ],
    ids=["unsorted", "duplicate", "nat", "other-kind-of-time-zone"],
)
def test_unusable_list_of_sessions_is_refused(us_sessions, listed):
    with pytest.raises(DataError, match="calendar: the"):
        as_calendar(listed, us_sessions)


@pytest.mark.parametrize("calendar", [5, "no such alias", True, ["2024-01-01"], pd.offsets.BusinessDay(-1)])
def test_anything_else_is_refused(us_sessions, calendar):
    with pytest.raises(ParameterError, match=r"calendar=.*Give "):
        as_calendar(calendar, us_sessions)


# What looks like sessions


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        pytest.param(sessions_of(US_RULES, 2019, 2020), True, id="holidays"),
        pytest.param(pd.bdate_range("2019-01-01", "2020-12-31"), True, id="business-days"),
        pytest.param(pd.bdate_range("2024-03-25", "2024-04-05").delete([4, 5]), True, id="short-with-easter"),
        pytest.param(pd.DatetimeIndex(["2024-03-08", "2024-03-11"]), True, id="friday-and-monday"),
        pytest.param(sessions_of([], 2019, 2019, SUNDAY_TO_THURSDAY)[:40], True, id="sunday-to-thursday"),
        pytest.param(sessions_of([], 2019, 2019, (0, 1, 2, 3, 4, 5)), True, id="monday-to-saturday"),
        pytest.param(pd.bdate_range("2019-01-01", "2019-12-31").delete(range(99, 106)), True, id="golden-week"),
        pytest.param(pd.bdate_range("2019-01-01", "2019-12-31").delete(range(99, 110)), False, id="long-hole"),
        pytest.param(pd.bdate_range("2019-01-01", "2019-12-31")[::2], False, id="every-other-day"),
        pytest.param(pd.date_range("2019-01-01", "2019-12-31").delete([40, 41, 90]), False, id="seven-day-with-gaps"),
        pytest.param(pd.date_range("2024-03-04", periods=12).delete(4), False, id="short-seven-day-with-gap"),
        pytest.param(pd.date_range("2024-03-04", periods=6).delete(1), False, id="short-with-saturday"),
        pytest.param(pd.DatetimeIndex(["2024-03-08", "2024-03-14"]), False, id="short-with-long-hole"),
        pytest.param(pd.date_range("2019-01-01", periods=500, freq="h"), False, id="hourly"),
        pytest.param(pd.date_range("2019-01-01", periods=50, freq="W-MON").delete(3), False, id="weekly"),
        pytest.param(pd.date_range("2019-01-01", periods=50, freq="MS"), False, id="monthly"),
        pytest.param(pd.bdate_range("2019-01-01", periods=50)[::-1], False, id="unsorted"),
        pytest.param(pd.bdate_range("2019-01-01", periods=50).repeat(2), False, id="duplicates"),
        pytest.param(pd.DatetimeIndex(["2024-03-08"]), False, id="one-row"),
        pytest.param(pd.DatetimeIndex([]), False, id="empty"),
        pytest.param(pd.DatetimeIndex(["2024-03-08", None]), False, id="nat"),
        pytest.param(pd.period_range("2019-01-01", periods=50, freq="D"), False, id="periods"),
        pytest.param(pd.RangeIndex(50), False, id="range"),
    ],
)
def test_looks_like_sessions(index, expected):
    assert looks_like_sessions(index) is expected


def test_google_looks_like_sessions_from_two_rows_on(google):
    assert all(looks_like_sessions(google[start : start + size]) for size in (2, 5, 9, 12, 30) for start in range(99))


def test_sessions_look_alike_in_local_time_but_not_where_the_hour_changes():
    index = pd.bdate_range("2024-01-01", "2024-12-31", tz="America/New_York")

    assert looks_like_sessions(index)
    assert not looks_like_sessions(index.tz_convert("UTC"))
