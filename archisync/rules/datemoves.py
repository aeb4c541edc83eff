"""Dates that another program has moved: to another year, zone, or order of day and month, or that lost their day or time. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from archisync.rules import cells as signs
from archisync.rules.changedrows import (
    DAYS,
    LEAST,
    PURE_PERCENT,
    Among,
    Base,
    Cell,
    ChangedRows,
    Column,
    Suspicion,
    at_least,
    seen_in,
)
from archisync.rules.reasons import Rule
from archisync.rules.synctypes import Kind, Role

LEAST_CUT = 5
FAR_DAYS = 360
VERY_FAR_DAYS = 3 * 365
LONGEST_TERM_YEARS = 3
LONGEST_SHIFT_HOURS = 14
LEAST_TO_AND_FRO, TO_AND_FRO_DAYS, MANY_DISTANCES = 8, 7, 30
"""Dates that are written anew move on; some that move back, and by less than so many days, are corrections."""
_QUARTER, _HOUR = timedelta(minutes=15), timedelta(hours=1)


class _Moved(NamedTuple):
    """A cell with its dates as they are, or its moments as the ERP's clock showed them."""

    cell: Cell
    old: date
    new: date
    by: timedelta


def dates(changed: ChangedRows, column: Column) -> Suspicion | None:
    if column.field.kind not in DAYS or len(column.both) < LEAST:
        return None
    local = _local(changed, column)
    for rule in (_swapped, _moved, _moved_far, _cut, _to_and_fro):
        if (seen := rule(changed, column, local)) is not None:
            return seen
    return None


def _local(changed: ChangedRows, column: Column) -> list[_Moved]:
    if column.field.kind is Kind.DATE:
        dates = [(c, c.old, c.new) for c in column.both if isinstance(c.old, date) and isinstance(c.new, date)]
        return [_Moved(c, old, new, new - old) for c, old, new in dates]
    moments = [
        (c, c.old.astimezone(changed.zone).replace(tzinfo=None), c.new.astimezone(changed.zone).replace(tzinfo=None))
        for c in column.both
        if isinstance(c.old, datetime) and isinstance(c.new, datetime)
    ]
    return [_Moved(c, old, new, new - old) for c, old, new in moments]


def _swapped(changed: ChangedRows, column: Column, local: Sequence[_Moved]) -> Suspicion | None:
    exchanged = [m.cell for m in local if signs.swapped(m.old) == m.new]
    distinct = len({c.old for c in exchanged})
    if distinct < LEAST or not at_least(len(exchanged), len(local), PURE_PERCENT):
        return None
    base = Base(Among.EXCHANGEABLE, column.name)
    return seen_in(changed, column, exchanged, Rule.DATES_SWAPPED, "has day and month exchanged", base=base)


def _moved(changed: ChangedRows, column: Column, local: Sequence[_Moved]) -> Suspicion | None:
    """By one distance, or to the same day of another year."""
    other_year = [m for m in local if signs.same_day_of_another_year(m.old, m.new)]
    distances = Counter(m.by for m in local)
    distance, number = distances.most_common(1)[0]
    moved, what, floor = other_year, "moves to another year", 0
    if number > len(other_year):
        # Summer time: an hour more for some.
        same = {distance, max((distance - _HOUR, distance + _HOUR), key=lambda near: distances[near])}
        found = _how_far(distance, column)
        if found is None:
            return None
        moved = [m for m in local if m.by in (same if _is_of_zones(distance, column) else {distance})]
        what, floor = found
    distinct = len({m.cell.old for m in moved})
    renewed = column.field.role is Role.TERM and all(0 < m.new.year - m.old.year <= LONGEST_TERM_YEARS for m in moved)
    pure = at_least(len(moved), len(local), PURE_PERCENT) and at_least(distinct, len(moved), 10)
    if renewed or distinct < LEAST or not pure:
        return None
    return _seen(changed, column, moved, what, floor)


def _is_of_zones(distance: timedelta, column: Column) -> bool:
    return (
        column.field.kind is Kind.TIMESTAMP
        and not distance % _QUARTER
        and abs(distance) <= timedelta(hours=LONGEST_SHIFT_HOURS)
    )


def _how_far(distance: timedelta, column: Column) -> tuple[str, int] | None:
    """In words, and the share from which so small a step is unlikely: none is for a day that was planned, or the row's own time stamp."""
    if abs(distance) >= timedelta(days=FAR_DAYS):
        return f"moves by {abs(distance).days} days", 0
    if column.field.role is not None or not distance:
        return None
    if abs(distance) == timedelta(days=1):
        return "moves by one day", 50
    if _is_of_zones(distance, column):
        return f"moves by {abs(distance) / _HOUR:g} h", 50
    return None


def _moved_far(changed: ChangedRows, column: Column, local: Sequence[_Moved]) -> Suspicion | None:
    """By years, each by another distance: counted in thousandths, or from another day. One date that means never is daily life."""
    never, _ = Counter(m.new for m in local).most_common(1)[0]
    far = [m for m in local if abs(m.by.days) >= VERY_FAR_DAYS]
    varied = len({m.new for m in far if m.new != never}) >= LEAST or column.field.role is None
    distinct = len({m.cell.old for m in far})
    if (
        column.field.role is Role.TOUCHED
        or not varied
        or distinct < LEAST
        or not at_least(len(far), len(local), PURE_PERCENT)
    ):
        return None
    return _seen(changed, column, far, "moves by years", 20)


def _cut(changed: ChangedRows, column: Column, local: Sequence[_Moved]) -> Suspicion | None:
    """All that changed lost the time of day, or the day of the month."""
    if column.field.role is not None:
        return None
    no_time = [
        m
        for m in local
        if _is_midnight(m.cell.new, m.new) and not _is_midnight(m.cell.old, m.old) and abs(m.by.days) <= 1
    ]
    first = [m for m in local if m.new.day == 1 != m.old.day and (m.new.year, m.new.month) == (m.old.year, m.old.month)]
    for cut, what in ((no_time, "loses its time of day"), (first, "becomes the first of the month")):
        if len({m.cell.old for m in cut}) >= LEAST_CUT and at_least(len(cut), len(local), 90):
            hits = [m.cell for m in cut]
            return seen_in(changed, column, hits, Rule.CUT_VALUES, what, base=Base(Among.FILLED, column.name), floor=50)
    return None


def _is_midnight(moment: object, local: date) -> bool:
    if not isinstance(moment, datetime) or not isinstance(local, datetime):
        return False
    return time() in (local.time(), moment.astimezone(UTC).time())


def _to_and_fro(changed: ChangedRows, column: Column, local: Sequence[_Moved]) -> Suspicion | None:
    """Many forward, and as many back: other rows' dates, or another agent's."""
    if column.field.role is not None or len(local) < LEAST_TO_AND_FRO:
        return None
    back = sum(m.by < timedelta() for m in local)
    far = [m for m in local if abs(m.by) > timedelta(days=TO_AND_FRO_DAYS)]
    both_ways = at_least(back, len(local), 25) and at_least(len(local) - back, len(local), 25)
    varied = len({m.by for m in far}) >= min(len(local) / 2, MANY_DISTANCES)
    if not both_ways or not varied or not at_least(len(far), len(local), 80):
        return None
    return _seen(changed, column, far, "moves to and fro", 50)


def _seen(changed: ChangedRows, column: Column, moved: Sequence[_Moved], what: str, floor: int) -> Suspicion:
    hits = [m.cell for m in moved]
    return seen_in(changed, column, hits, Rule.DATES_MOVED, what, base=Base(Among.FILLED, column.name), floor=floor)
