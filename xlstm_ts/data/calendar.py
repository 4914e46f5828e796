"""The days on which a market will trade, found from the days on which it did.

Daily prices have an index without a freq: weekends and holidays are holes. Reproducing the holes of the past
predicts no future holiday, so the past closures are explained by rules (a fixed date, a weekday of a month, a
number of days from Easter), and only what a rule explains is repeated; the rest is kept as one-offs, to be
read. A rule is believed when it was kept in every year that the index covers, at least two, or has been kept
without a break since it was introduced. Half-day sessions do not exist at this level, and holidays of lunar
calendars are one-offs here: pass ``calendar=`` where they matter.
"""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from calendar import day_name, month_name, monthrange
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import takewhile
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import pandas as pd
from dateutil.easter import easter
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from xlstm_ts.errors import DataError, ParameterError

# Carnival Monday and Tuesday, Maundy Thursday, Good Friday, Easter Monday, Ascension, Whit Monday and Corpus
# Christi. Any offset at all would let accidents of two or three years pass for rules.
EASTER_OFFSETS = (-48, -47, -3, -2, 1, 39, 50, 60)

# Fixed dates kept by so many markets that they win a tie with other explanations of the same closures.
_USUAL_DATES = ((1, 1), (5, 1), (7, 4), (12, 25), (12, 26))

# How many days a holiday on a closed weekday may be moved, nearest first.
_MOVES = (-1, 1, 2)

# Years in which a rule must have been kept: without exception; since its last exception; and if it is a weekday
# rule that no month's count of weeks explains, of which there are many, so that more fit by chance.
_ENOUGH_YEARS = 2
_ENOUGH_YEARS_SINCE_INTRODUCED = 3
_ENOUGH_YEARS_OF_ODD_WEEK = 3

# Below this many sessions a weekday may be missing by chance, and Monday to Friday is assumed.
_FEW_SESSIONS = 10

# In days. Golden weeks close for 9 to 11 days, weekends included, and Easter for 4; longer is missing data.
LONGEST_HOLE = 14
_LONGEST_HOLE_OF_SHORT_INDEX = 5

# Days on weekdays that never occur, from which on these are weekends and not chance.
_ENOUGH_CLOSED_DAYS = 4

_DAYS_OF_A_YEAR = 365


class SessionCalendar(Protocol):
    """What a forecaster needs of a calendar: the sessions after a time, and those in a range of time."""

    def sessions_after(self, last: pd.Timestamp, n: int) -> pd.DatetimeIndex:
        """Return the next `n` sessions strictly after `last`."""
        ...

    def sessions_between(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
        """Return the sessions from `start` to `end`, both included."""
        ...


class HolidayRule(ABC):
    """A holiday that falls on one day of each year, or none."""

    def date(self, year: int) -> pd.Timestamp | None:
        """Return the day that the market keeps for the holiday of `year`, or None.

        A holiday of 1 January may be kept on 31 December of the year before.
        """
        day = self._day(year)
        return None if day is None else pd.Timestamp(day)

    @abstractmethod
    def _day(self, year: int) -> dt.date | None: ...


@dataclass(frozen=True)
class FixedDate(HolidayRule):
    """The same day of the same month, perhaps moved when it falls on a weekday that is never traded.

    Parameters
    ----------
    month, day : int
        The date.
    moves : tuple of (int, int)
        Weekday (Monday = 0) and the days by which a holiday on that weekday is moved. On a closed weekday
        that is not listed the holiday is lost.
    """

    month: int
    day: int
    moves: tuple[tuple[int, int], ...] = ()

    def _day(self, year: int) -> dt.date | None:
        if (self.month, self.day) == (2, 29) and monthrange(year, 2)[1] == 28:
            return None
        nominal = dt.date(year, self.month, self.day)
        return nominal + dt.timedelta(days=dict(self.moves).get(nominal.weekday(), 0))

    def __str__(self) -> str:
        moved = [f"{day_name[weekday]} on {day_name[(weekday + days) % 7]}" for weekday, days in self.moves]
        if moved:
            moved[0] = moved[0].replace(" on ", " observed on ")
        return ", ".join([f"{self.day} {month_name[self.month]}", *moved])


@dataclass(frozen=True)
class WeekdayFrom(HolidayRule):
    """The first given weekday on or after a date, which includes every n-th and last weekday of a month.

    The 3rd Monday of January is the first Monday from 15 January, and the last Monday of May the first from
    25 May; only the last weekday of February cannot be written so.

    Parameters
    ----------
    weekday : int
        Monday = 0.
    month, day : int
        The first date on which the holiday can fall; not 29 February.
    """

    weekday: int
    month: int
    day: int

    def _day(self, year: int) -> dt.date | None:
        first = dt.date(year, self.month, self.day)
        return first + dt.timedelta(days=(self.weekday - first.weekday()) % 7)

    @property
    def is_last(self) -> bool:
        """Whether it is the last such weekday of its month."""
        return self.day == monthrange(2001, self.month)[1] - 6 and self.month != 2

    @property
    def is_nth(self) -> bool:
        """Whether it is the first to fourth such weekday of its month."""
        return self.day in (1, 8, 15, 22)

    def __str__(self) -> str:
        name, month = day_name[self.weekday], month_name[self.month]
        if self.is_nth:
            return f"{('1st', '2nd', '3rd', '4th')[self.day // 7]} {name} of {month}"
        if self.is_last:
            return f"last {name} of {month}"
        return f"first {name} from {self.day} {month}"


@dataclass(frozen=True)
class EasterOffset(HolidayRule):
    """A number of days from (western) Easter Sunday.

    Parameters
    ----------
    days : int
        Negative before Easter: -2 is Good Friday.
    """

    days: int

    def _day(self, year: int) -> dt.date | None:
        return _easter(year) + dt.timedelta(days=self.days)

    def __str__(self) -> str:
        count = abs(self.days)
        side = "before" if self.days < 0 else "after"
        return f"{count} day{'' if count == 1 else 's'} {side} Easter Sunday"


@dataclass(frozen=True, repr=False)
class TradingCalendar:
    """The weekdays on which a market trades and the rules of its holidays.

    Usually made by :func:`infer_trading_calendar`; printing it shows what was inferred.

    Parameters
    ----------
    weekdays : tuple of int
        Weekdays traded, Monday = 0.
    holidays : tuple of HolidayRule
        The days of each year without a session.
    one_offs : tuple of Timestamp
        Past days without a session that no rule explains. They are kept to be read and never repeated.
    time_of_day : Timedelta
        Local time of every session's timestamp.
    tz : tzinfo, optional
        Time zone of the sessions. Default: sessions without a time zone.
    unit : {"s", "ms", "us", "ns"}
        Resolution of the sessions' dtype.
    """

    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4)
    holidays: tuple[HolidayRule, ...] = ()
    one_offs: tuple[pd.Timestamp, ...] = ()
    time_of_day: pd.Timedelta = field(default=pd.Timedelta(0))
    tz: dt.tzinfo | None = None
    unit: str = "us"

    def __post_init__(self) -> None:
        if not self.weekdays or not set(self.weekdays) <= set(range(7)):
            raise ParameterError(
                f"TradingCalendar: weekdays={self.weekdays!r}; one or more integers from 0 (Monday) to 6 are needed."
            )

    def sessions_after(self, last: pd.Timestamp, n: int) -> pd.DatetimeIndex:
        """Return the next `n` sessions strictly after `last`.

        Parameters
        ----------
        last : Timestamp
            Usually the last observed session; with the calendar's kind of time zone.
        n : int
            How many sessions.

        Returns
        -------
        DatetimeIndex of length n
            In the calendar's time of day, time zone and resolution, without a name.

        Raises
        ------
        DataError
            Only one of `last` and the calendar has a time zone.
        ParameterError
            `n` is negative.
        """
        last, n = _in_zone(last, self.tz), _checked_count(n)
        days = np.empty(0, dtype="datetime64[D]")
        first = last.date()
        while len(days) <= n:  # one more than n: the session of the first day may not be after `last`
            end = dt.date(first.year, 12, 31)
            days = np.concatenate([days, self._trading_days(first, end)])
            first = end + dt.timedelta(days=1)
        sessions = self._at_time(days)
        return sessions[sessions > last][:n]

    def sessions_between(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
        """Return the sessions from `start` to `end`, both included.

        Parameters
        ----------
        start, end : Timestamp
            Compared with the sessions' full timestamps, time of day included.

        Returns
        -------
        DatetimeIndex
            In the calendar's time of day, time zone and resolution, without a name.

        Raises
        ------
        DataError
            Only one of the arguments and the calendar has a time zone.
        """
        start, end = _in_zone(start, self.tz), _in_zone(end, self.tz)
        sessions = self._at_time(self._trading_days(start.date(), end.date()))
        return sessions[(sessions >= start) & (sessions <= end)]

    def _trading_days(self, first: dt.date, last: dt.date) -> np.ndarray:
        """Days from `first` to `last`, both included, that are no weekend and no holiday."""
        days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
        # The neighbouring years, because a holiday of 1 January may be kept on 31 December.
        years = range(first.year - 1, last.year + 2)
        closed = [day for rule in self.holidays for year in years if (day := rule._day(year)) is not None]
        holidays = np.array(closed, dtype="datetime64[D]")
        return days[np.isin(_weekday_numbers(days), self.weekdays) & ~np.isin(days, holidays)]

    def _at_time(self, days: np.ndarray) -> pd.DatetimeIndex:
        return _at_time(days, self.time_of_day, self.tz, self.unit)

    def __str__(self) -> str:
        lines = [f"TradingCalendar: {_weekdays_in_words(self.weekdays)}", "closed on"]
        lines += [f"  {rule}" for rule in self.holidays] or ["  no holiday that follows a rule"]
        lines.append(f"one-offs, not repeated: {len(self.one_offs)}")
        if self.time_of_day or self.tz is not None:
            lines.append(f"at {_clock(self.time_of_day)}" + (f" {self.tz}" if self.tz is not None else ""))
        return "\n".join(lines)

    __repr__ = __str__


@dataclass(frozen=True)
class OffsetCalendar:
    """Sessions that follow a pandas offset, such as ``BusinessDay()`` or a ``CustomBusinessDay``.

    Parameters
    ----------
    offset : BaseOffset
        The step from one session to the next.
    tz : tzinfo, optional
        Time zone of the sessions.
    unit : {"s", "ms", "us", "ns"}
        Resolution of the sessions' dtype.
    """

    offset: BaseOffset
    tz: dt.tzinfo | None = None
    unit: str = "us"

    def sessions_after(self, last: pd.Timestamp, n: int) -> pd.DatetimeIndex:
        """Return the next `n` sessions strictly after `last`, at the time of day of `last`."""
        last, n = _in_zone(last, self.tz), _checked_count(n)
        sessions = pd.date_range(last, periods=n + 1, freq=self.offset)
        return _plain(sessions[sessions > last][:n], self.unit)

    def sessions_between(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
        """Return the sessions from `start` to `end`, both included, at the time of day of `start`."""
        sessions = pd.date_range(_in_zone(start, self.tz), _in_zone(end, self.tz), freq=self.offset)
        return _plain(sessions, self.unit)


@dataclass(frozen=True, eq=False)
class ListedSessions:
    """Sessions given one by one.

    Parameters
    ----------
    sessions : DatetimeIndex
        Sorted and unique; past sessions may be among them.
    """

    sessions: pd.DatetimeIndex

    def sessions_after(self, last: pd.Timestamp, n: int) -> pd.DatetimeIndex:
        """Return the next `n` sessions strictly after `last`; raise DataError if the list is too short."""
        last, n = _in_zone(last, self.sessions.tz), _checked_count(n)
        later = self.sessions[self.sessions > last][:n]
        if len(later) < n:
            raise DataError(
                f"calendar: {n} sessions after {last} are needed and the given index has {len(later)}:"
                f" {n - len(later)} are missing. Give an index of future sessions that reaches further."
            )
        return later

    def sessions_between(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DatetimeIndex:
        """Return the sessions from `start` to `end`, both included; raise DataError if the list ends earlier."""
        start, end = _in_zone(start, self.sessions.tz), _in_zone(end, self.sessions.tz)
        if not len(self.sessions) or end.date() > self.sessions[-1].date():
            last = self.sessions[-1].date() if len(self.sessions) else "nowhere: it is empty"
            raise DataError(
                f"calendar: sessions are needed up to {end.date()} and the given index ends at {last}."
                " Give an index of future sessions that reaches further."
            )
        return self.sessions[(self.sessions >= start) & (self.sessions <= end)]


def infer_trading_calendar(index: pd.DatetimeIndex) -> TradingCalendar:
    """Find the weekdays and the holidays of a market from the days on which it traded.

    A weekday is traded when at least half of its days in the last year of `index` were sessions. The other
    days without a session are explained by holiday rules where they can be: a fixed date, with its move off a
    weekend, an n-th or last weekday of a month, or a number of days from Easter Sunday (`EASTER_OFFSETS`).

    A rule is believed when it was kept in every year covered, at least two, or in each of the last three or
    more years. A year is covered when the rule's day lies between the first and the last session and is no
    closed weekday. One kept year is enough for 1 January, which nearly every market keeps.

    Parameters
    ----------
    index : DatetimeIndex
        Past sessions: sorted, one row per day, all at the same local time.

    Returns
    -------
    TradingCalendar
        In the time of day, time zone and resolution of `index`.

    Raises
    ------
    DataError
        `index` has no rows, or is not one sorted row per day at the same local time.

    Examples
    --------
    >>> christmas = FixedDate(12, 25, moves=((5, -1), (6, 1)))
    >>> market = TradingCalendar(holidays=(EasterOffset(-2), christmas))
    >>> past = market.sessions_between(pd.Timestamp("2019-01-01"), pd.Timestamp("2023-12-31"))
    >>> infer_trading_calendar(past)
    TradingCalendar: Monday to Friday
    closed on
      2 days before Easter Sunday
      25 December, Saturday observed on Friday, Sunday on Monday
    one-offs, not repeated: 0
    """
    days, time_of_day = _checked_days(index)
    weekdays = _traded_weekdays(days)
    closures = _Closures.of(days, weekdays)
    rules = _infer_rules(closures)
    one_offs = closures.missed.difference(*map(closures.kept, rules))
    return TradingCalendar(
        weekdays=weekdays,
        holidays=tuple(rules),
        one_offs=tuple(pd.Timestamp(day) for day in sorted(one_offs)),
        time_of_day=time_of_day,
        tz=index.tz,
        unit=index.unit,
    )


def as_calendar(calendar: Any, index: pd.DatetimeIndex) -> SessionCalendar:
    """Make a calendar from what a user passes as ``calendar=``.

    Parameters
    ----------
    calendar : None, str, BaseOffset, DatetimeIndex or calendar
        None infers one from `index`. A pandas offset or its alias, such as "B", steps from session to
        session. A DatetimeIndex lists future sessions. A calendar is returned as it is.
    index : DatetimeIndex
        The observed sessions, which give the time zone and the resolution.

    Returns
    -------
    SessionCalendar
        An object with `sessions_after` and `sessions_between`.

    Raises
    ------
    DataError
        The calendar cannot be inferred, or the listed sessions are unsorted or of another kind of time zone.
    ParameterError
        `calendar` is none of these.
    """
    if isinstance(calendar, TradingCalendar | OffsetCalendar | ListedSessions):
        return calendar
    if calendar is None:
        return infer_trading_calendar(index)
    if isinstance(calendar, pd.DatetimeIndex):
        return ListedSessions(_checked_list(calendar, index))
    if isinstance(calendar, str | BaseOffset):
        return OffsetCalendar(_checked_offset(calendar), tz=index.tz, unit=index.unit)
    raise ParameterError(
        f"calendar={calendar!r} is a {type(calendar).__name__}. Give None, a pandas offset or its alias such"
        ' as "B", a DatetimeIndex of future sessions, or a TradingCalendar.'
    )


def looks_like_sessions(index: pd.Index) -> bool:
    """Tell whether an index is the daily sessions of something with closed days.

    True for one sorted row per day at the same local time, mostly on consecutive days, with at least one
    weekday that never occurs, no hole longer than 14 days, and most days of the other weekdays present. Plain
    business days pass. A series of all seven weekdays with missing days does not: it has a gap.

    An index too short for a missing weekday to mean much passes when it has no Saturday, no Sunday and no
    hole longer than 5 days.

    Parameters
    ----------
    index : Index
        Any index.

    Returns
    -------
    bool
    """
    if not isinstance(index, pd.DatetimeIndex) or len(index) < 2:
        return False
    try:
        days, _ = _checked_days(index)
    except DataError:
        return False
    steps, traded = np.diff(days).astype(int), _weekday_numbers(days)
    every = _weekday_numbers(np.arange(days[0], days[-1] + 1))
    on_traded = np.isin(every, traded)
    if np.sum(~on_traded) < _ENOUGH_CLOSED_DAYS:
        return bool(max(traded) < 5 and max(steps) <= _LONGEST_HOLE_OF_SHORT_INDEX)
    is_daily = np.mean(steps == 1) > 0.5 and len(days) > 2 / 3 * np.sum(on_traded)
    return bool(is_daily and max(steps) <= LONGEST_HOLE)


@dataclass(frozen=True)
class _Closures:
    """The days without a session, weekends aside.

    ``since`` maps each weekday traded to the day from which on a missing session is a closure.
    """

    since: dict[int, dt.date]
    last: dt.date
    missed: frozenset[dt.date]

    @classmethod
    def of(cls, days: np.ndarray, weekdays: Iterable[int]) -> _Closures:
        numbers = _weekday_numbers(days)
        since = {}
        for weekday in weekdays:
            first = days[numbers == weekday][:1]
            # A weekday first traded late was part of the weekend before, as Fridays were in some markets.
            is_new = len(first) and (first[0] - days[0]).astype(int) > LONGEST_HOLE
            since[weekday] = (first[0] if is_new else days[0]).item()
        absent = np.setdiff1d(np.arange(days[0], days[-1]), days).tolist()
        missed = frozenset(day for day in absent if since.get(day.weekday(), dt.date.max) <= day)
        return cls(since, days[-1].item(), missed)

    @property
    def years(self) -> range:
        """Years of which a rule's day can be covered: the neighbours too, as days move across 1 January."""
        return range(min(self.since.values()).year - 1, self.last.year + 2)

    def covers(self, day: dt.date) -> bool:
        return self.since.get(day.weekday(), dt.date.max) <= day <= self.last

    def covered(self, rule: HolidayRule) -> list[dt.date]:
        """Return the covered days of a rule, in order."""
        days = (rule._day(year) for year in self.years)
        return [day for day in days if day is not None and self.covers(day)]

    def kept(self, rule: HolidayRule) -> frozenset[dt.date]:
        return self.missed.intersection(self.covered(rule))


def _infer_rules(closures: _Closures) -> list[HolidayRule]:
    """Rules that together explain the closures, in the order of the year."""
    rules = _settle_moves(_cover(_candidates(closures), closures), closures)
    return sorted(rules, key=lambda rule: (rule._day(closures.last.year) or dt.date.min, str(rule)))


def _candidates(closures: _Closures) -> list[HolidayRule]:
    """Believable rules among all that would explain some closures."""
    years: dict[HolidayRule, set[int]] = defaultdict(set)
    for day in closures.missed:
        for rule in _explanations(day, closures):
            years[rule].add(day.year)
    rules = [rule for rule, seen in years.items() if len(seen) >= _ENOUGH_YEARS or _is_new_year(rule)]
    rules = [_with_moves(rule, _moves_seen(rule, closures, closures.missed)) for rule in rules]
    return [rule for rule in rules if _is_believed(rule, closures)]


def _explanations(day: dt.date, closures: _Closures) -> Iterator[HolidayRule]:
    """Rules, without moves yet, of which the closed `day` may be an instance."""
    yield FixedDate(day.month, day.day)
    for move in _MOVES:
        nominal = day - dt.timedelta(days=move)
        if nominal.weekday() not in closures.since:
            yield FixedDate(nominal.month, nominal.day)
    for back in range(7):
        start = day - dt.timedelta(days=back)
        if (start.month, start.day) != (2, 29):
            yield WeekdayFrom(day.weekday(), start.month, start.day)
    offset = (day - _easter(day.year)).days
    if offset in EASTER_OFFSETS:
        yield EasterOffset(offset)


def _is_believed(rule: HolidayRule, closures: _Closures, explained: Set[dt.date] = frozenset()) -> bool:
    """Whether the market has kept the rule for long enough, and still does.

    Closures that another rule has already `explained` say nothing for this one.
    """
    days = [day for day in closures.covered(rule) if day not in explained]
    latest = list(takewhile(closures.missed.__contains__, reversed(days)))
    on_one_weekday = len({day.weekday() for day in latest}) < 2
    if isinstance(rule, FixedDate) and on_one_weekday and (rule.month, rule.day) not in _USUAL_DATES:
        return False  # It has no better claim than a weekday rule, which would need no moves.
    return len(latest) >= _years_needed(rule, without_exception=len(latest) == len(days))


def _years_needed(rule: HolidayRule, *, without_exception: bool) -> int:
    if not without_exception:
        return _ENOUGH_YEARS_SINCE_INTRODUCED
    if _is_new_year(rule):
        return 1
    if isinstance(rule, WeekdayFrom) and not (rule.is_nth or rule.is_last):
        return _ENOUGH_YEARS_OF_ODD_WEEK
    return _ENOUGH_YEARS


def _is_new_year(rule: HolidayRule) -> bool:
    return isinstance(rule, FixedDate) and (rule.month, rule.day) == (1, 1)


def _cover(rules: list[HolidayRule], closures: _Closures) -> list[HolidayRule]:
    """Choose rules greedily: the one that explains the most closures, then the likeliest."""
    kept = {rule: closures.kept(rule) for rule in rules}
    rank = {rule: _rank(rule, closures) for rule in rules}
    chosen: list[HolidayRule] = []
    explained: set[dt.date] = set()
    while kept:
        best = min(kept, key=lambda rule: (-len(kept[rule] - explained), rank[rule]))
        if _is_believed(best, closures, explained):
            chosen.append(best)
            explained |= kept[best]
        del kept[best]
    return chosen


def _rank(rule: HolidayRule, closures: _Closures) -> tuple[int, ...]:
    """Sort key among rules that explain equally many closures: the likeliest has the smallest."""
    if isinstance(rule, FixedDate):
        level = 0 if (rule.month, rule.day) in _USUAL_DATES else 2
        return (level, _distance_moved(rule, closures), rule.month, rule.day)
    if isinstance(rule, EasterOffset):
        return (1, rule.days)
    assert isinstance(rule, WeekdayFrom)
    if not (rule.is_nth or rule.is_last):
        return (4, rule.month, rule.day, rule.weekday)
    # "Last" and "4th" tie while no month has had five: last Mondays and 4th Thursdays are the common ones.
    is_common = rule.is_last == (rule.weekday == 0)
    return (3, 0 if is_common else 1, rule.month, rule.day, rule.weekday)


def _distance_moved(rule: FixedDate, closures: _Closures) -> int:
    """Days by which the rule is moved in all years: of two fixed dates that fit, the less moved is likelier."""
    nominal = (replace(rule, moves=())._day(year) for year in closures.years)
    moves = dict(rule.moves)
    moved = [moves.get(day.weekday(), 0) for day in nominal if day is not None]
    return sum(abs(move) for move in moved)


def _with_moves(rule: HolidayRule, moves: dict[int, int]) -> HolidayRule:
    if not isinstance(rule, FixedDate):
        return rule
    return replace(rule, moves=tuple((weekday, move) for weekday, move in sorted(moves.items()) if move))


def _moves_seen(rule: HolidayRule, closures: _Closures, missed: Set[dt.date]) -> dict[int, int]:
    """Move of a fixed date from each closed weekday on which it has fallen, 0 where the holiday was lost.

    The latest year decides, because markets change their habit.
    """
    if not isinstance(rule, FixedDate):
        return {}
    seen = {}
    for year in closures.years:
        nominal = replace(rule, moves=())._day(year)
        if nominal is None or nominal.weekday() in closures.since:
            continue
        days = {move: nominal + dt.timedelta(days=move) for move in _MOVES}
        days = {move: day for move, day in days.items() if day.weekday() in closures.since}
        if days and all(map(closures.covers, days.values())):
            seen[nominal.weekday()] = next((move for move, day in days.items() if day in missed), 0)
    return seen


def _settle_moves(rules: list[HolidayRule], closures: _Closures) -> list[HolidayRule]:
    """Derive the moves again from what the rules leave unexplained without them.

    Where 25 and 26 December are both kept, the 26th is no sign that the 25th was moved to it. A weekday on
    which a holiday has not fallen yet is treated as the market treats its other holidays.
    """
    unmoved = [_with_moves(rule, {}) for rule in rules]
    unexplained = closures.missed.difference(*(closures.kept(rule) for rule in unmoved))
    fixed = sorted((rule for rule in unmoved if isinstance(rule, FixedDate)), key=lambda r: (r.month, r.day))
    seen: dict[HolidayRule, dict[int, int]] = {}
    for rule in fixed:
        seen[rule] = _moves_seen(rule, closures, unexplained)
        unexplained -= closures.kept(_with_moves(rule, seen[rule]))
    habits = _habits(seen)
    return [_with_moves(rule, _borrowed(rule, habits) | seen.get(rule, {})) for rule in unmoved]


def _habits(seen: dict[HolidayRule, dict[int, int]]) -> dict[int, int]:
    """Return the commonest move from each closed weekday; if in doubt, one that is a move."""
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for moves in seen.values():
        for weekday, move in moves.items():
            votes[weekday][move] += 1
    return {
        weekday: max(counts, key=lambda move: (counts[move], move != 0, -move)) for weekday, counts in votes.items()
    }


def _borrowed(rule: HolidayRule, habits: dict[int, int]) -> dict[int, int]:
    """Habits that a rule may follow until its own is seen: few markets close on 31 December for 1 January."""
    return {weekday: move for weekday, move in habits.items() if move > 0 or not _is_new_year(rule)}


@lru_cache(maxsize=1024)
def _easter(year: int) -> dt.date:
    return easter(year)


def _traded_weekdays(days: np.ndarray) -> tuple[int, ...]:
    """Weekdays of which at least half were sessions in the last year; a few special sessions do not count."""
    recent = days[days > days[-1] - _DAYS_OF_A_YEAR]
    sessions = np.bincount(_weekday_numbers(recent), minlength=7)
    if len(days) < _FEW_SESSIONS and not sessions[5:].any():
        return (0, 1, 2, 3, 4)
    possible = np.bincount(_weekday_numbers(np.arange(recent[0], recent[-1] + 1)), minlength=7)
    return tuple(np.flatnonzero((sessions > 0) & (2 * sessions >= possible)).tolist())


def _weekday_numbers(days: np.ndarray) -> np.ndarray:
    return (days.astype(int) + 3) % 7  # day 0, 1 January 1970, was a Thursday


def _weekdays_in_words(weekdays: tuple[int, ...]) -> str:
    if len(weekdays) == 7:
        return "every day"
    starts = [day for day in weekdays if (day - 1) % 7 not in weekdays]
    if len(starts) == 1 and len(weekdays) > 2:
        last = (starts[0] + len(weekdays) - 1) % 7
        return f"{day_name[starts[0]]} to {day_name[last]}"
    return ", ".join(day_name[day] for day in weekdays)


def _checked_days(index: pd.Index) -> tuple[np.ndarray, pd.Timedelta]:
    """Local days, as datetime64[D], and the local time that all rows share."""
    remedy = "Give one sorted row per day at the same local time, or pass calendar=."
    if not isinstance(index, pd.DatetimeIndex):
        raise DataError(f"trading calendar: the index is a {type(index).__name__}; a DatetimeIndex is needed. {remedy}")
    if not len(index) or index.hasnans:
        problem = "holds NaT" if len(index) else "has no rows"
        raise DataError(f"trading calendar: the index {problem}. {remedy}")
    local = index.tz_localize(None)
    days = local.to_numpy().astype("datetime64[D]")
    backward = np.flatnonzero(np.diff(days).astype(int) <= 0)
    if len(backward):
        row = int(backward[0])
        raise DataError(f"trading calendar: {index[row + 1]} follows {index[row]} in the index. {remedy}")
    times = local - local.normalize()
    time_of_day = times.value_counts().index[0]
    # Compared after localising, because a local midnight that summer time skips is 01:00 on that day.
    expected = _at_time(days, time_of_day, index.tz, index.unit).tz_localize(None)
    if not local.equals(expected):
        odd = index[local != expected][0]
        raise DataError(f"trading calendar: most rows are at {_clock(time_of_day)} and one at {odd}. {remedy}")
    return days, time_of_day


def _at_time(days: np.ndarray, time_of_day: pd.Timedelta, tz: dt.tzinfo | None, unit: str) -> pd.DatetimeIndex:
    """Timestamps of local `days`; a time that summer time skips or repeats becomes the next or the first."""
    stamps = pd.DatetimeIndex(days.astype("datetime64[s]")).as_unit(unit) + time_of_day
    if tz is not None:
        first = np.ones(len(stamps), dtype=bool)
        stamps = stamps.tz_localize(tz, ambiguous=first, nonexistent="shift_forward")
    return _plain(stamps, unit)


def _plain(sessions: pd.DatetimeIndex, unit: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(sessions.as_unit(unit), freq=None).rename(None)


def _clock(time_of_day: pd.Timedelta) -> str:
    return str(time_of_day).split()[-1]


def _in_zone(stamp: pd.Timestamp, tz: dt.tzinfo | None) -> pd.Timestamp:
    stamp = pd.Timestamp(stamp)
    if (stamp.tz is None) != (tz is None):
        raise DataError(
            f"calendar: {stamp} has {_zone_in_words(stamp.tz)} and the sessions have {_zone_in_words(tz)}."
            " Use tz_localize or tz_convert on one of them."
        )
    return stamp if tz is None else stamp.tz_convert(tz)


def _zone_in_words(tz: dt.tzinfo | None) -> str:
    return "no time zone" if tz is None else f"time zone {tz}"


def _checked_count(n: int) -> int:
    if not isinstance(n, Integral) or n < 0:
        raise ParameterError(f"calendar.sessions_after: n={n!r}; an integer of at least 0 is needed.")
    return int(n)


def _checked_list(sessions: pd.DatetimeIndex, index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    if sessions.hasnans or not sessions.is_monotonic_increasing or not sessions.is_unique:
        raise DataError(
            "calendar: the index of future sessions is unsorted, or holds duplicates or NaT."
            " Give calendar.dropna().unique().sort_values()."
        )
    if (sessions.tz is None) != (index.tz is None):
        raise DataError(
            f"calendar: the future sessions have {_zone_in_words(sessions.tz)} and the series has"
            f" {_zone_in_words(index.tz)}. Use tz_localize or tz_convert on one of them."
        )
    return _plain(sessions if index.tz is None else sessions.tz_convert(index.tz), index.unit)


def _checked_offset(offset: str | BaseOffset) -> BaseOffset:
    remedy = 'Give a pandas offset or its alias, such as "B" or CustomBusinessDay(holidays=...).'
    try:
        found = to_offset(offset)
    except ValueError as error:
        raise ParameterError(f"calendar={offset!r} is no pandas offset alias. {remedy}") from error
    if found.n < 1:
        raise ParameterError(f"calendar={offset!r} does not step forward. {remedy}")
    return found
