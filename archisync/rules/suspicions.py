"""What the guard's rules about values see in the rows that an export changes. Pure.

Each rule knows the signature of one way to ruin an export, and what in daily life looks like it: a new price list, a year's end, a code
that everybody gets, a corrected column. Nothing is configured: a rule looks at what this table's rows were until now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from archisync.rules import cells as signs
from archisync.rules.changedrows import (
    DAYS,
    LEAST,
    LOOKED_AT,
    NUMBERS,
    PURE_PERCENT,
    TEXTS,
    Among,
    Base,
    Cell,
    ChangedRows,
    Column,
    Suspicion,
    at_least,
    examples_of,
    seen_in,
)
from archisync.rules.exchanges import columns_swapped
from archisync.rules.reasons import Rule
from archisync.rules.shuffles import may_be_shuffled, reordering, shuffled
from archisync.rules.spellings import rewritten, spelled_missing
from archisync.rules.synctypes import Kind, Role
from archisync.rules.values import Value

LEAST_GARBLED = 2
LEAST_CUT = 5
MANY_OLD_VALUES = 20
"""Different values that become one and the same, or a code: that many are no group which people treat alike."""
SHORT_CUT = 4
"""Characters below which a text that was cut may as well be a code."""
FAR_DAYS = 360
NEAR_PAST, NEAR_FUTURE = timedelta(days=60), timedelta(days=400)
LONGEST_TERM_YEARS = 3
LONGEST_SHIFT_HOURS = 14
_CASES_LOOKED_AT = 400
"""Accented texts of a column that are compared with every kind of damage."""


class Seen(NamedTuple):
    """What looks wrong, in the order of the rules; each is to be weighed against the rows that it was looked for in. `perhaps_shuffled`:
    columns of which all rows must be looked at, where `suspect` was given a part."""

    suspicions: list[Suspicion]
    perhaps_shuffled: list[Column]


def suspect(changed: ChangedRows) -> Seen:
    """Look at some of the rows, and at all of them where those look wrong."""
    part = changed.part(LOOKED_AT)
    seen = _look(part)
    if part is not changed and (seen.suspicions or seen.perhaps_shuffled):
        return _look(changed)
    return seen


def in_order(suspicions: Iterable[Suspicion]) -> list[Suspicion]:
    order = {rule: number for number, rule in enumerate(Rule)}
    return sorted(suspicions, key=lambda seen: (order[seen.rule], -seen.hits))


def _look(changed: ChangedRows) -> Seen:
    columns = list(changed.columns(LEAST_GARBLED))
    wide = [column for column in columns if len(column.cells) >= LEAST]
    found = [*columns_swapped(changed, wide), *_garbled(changed, columns)]
    for column in wide:
        found.extend(seen for rule in _RULES if (seen := rule(changed, column)) is not None)
    perhaps = [column for column in wide if may_be_shuffled(changed, column)]
    if not changed.in_part:
        all_looked_at = [(column, reordering(column.cells)) for column in perhaps]
        found.extend(seen for column, how in all_looked_at if (seen := shuffled(changed, column, how)) is not None)
        perhaps = []
    return Seen(in_order(found), perhaps)


# -- texts


def _garbled(changed: ChangedRows, columns: Sequence[Column]) -> Iterator[Suspicion]:
    """Each column alone, and all of them together: a table may have few accents, in many columns."""
    everywhere: list[Cell] = []
    touched: list[str] = []
    looked_at = 0
    for column in columns:
        if column.field.kind is not Kind.TEXT:
            continue
        accented = [c for c in column.both if signs.beyond_ascii(str(c.old))]
        looked = accented[:: len(accented) // _CASES_LOOKED_AT + 1]
        bad = [c for c in looked if signs.garbled(str(c.old), str(c.new))]
        everywhere += bad
        looked_at += len(looked)
        touched += [column.name] if bad else []
        if len(bad) >= LEAST_GARBLED and len(bad) * 2 > len(looked):
            hits = round(len(bad) * len(accented) / len(looked))
            yield _garbling(changed, (column.name,), bad, hits)
    if len(touched) > 1 and len(everywhere) >= LEAST and len(everywhere) * 2 > looked_at:
        yield _garbling(changed, touched, everywhere, len(everywhere))


def _garbling(changed: ChangedRows, names: Sequence[str], bad: Sequence[Cell], hits: int) -> Suspicion:
    return Suspicion(
        rule=Rule.GARBLED,
        column=", ".join(names),
        what="letters with accents are garbled",
        hits=changed.scaled(hits),
        estimated_from=changed.looked_at,
        distinct=len({c.old for c in bad}),
        bases=tuple(Base(Among.ACCENTED, name) for name in names),
        examples=examples_of(bad),
    )


def _cut_texts(changed: ChangedRows, column: Column) -> Suspicion | None:
    """Not a part that was dropped at a separator (an extension, ZIP+4), nor a code that takes the place of a name (MILANO, MI)."""
    if column.field.kind not in TEXTS or column.field.role is Role.ENUM:
        return None
    beginnings = [c for c in column.both if signs.is_beginning(str(c.old), str(c.new))]
    if len(beginnings) < LEAST or not at_least(len(beginnings), len(column.both), PURE_PERCENT):
        return None
    length = max(len(str(c.new)) for c in beginnings)
    cut = [c for c in beginnings if str(c.old)[:length].strip() == c.new]
    distinct = len({c.old for c in cut})
    after, number = Counter(str(c.old)[len(str(c.new))] for c in cut).most_common(1)[0] if cut else ("", 0)
    dropped_part = not after.isalnum() and at_least(number, len(cut), 90)
    codes = length < SHORT_CUT and (distinct < MANY_OLD_VALUES or all(str(c.new).isupper() for c in cut))
    if dropped_part or codes or len(cut) < LEAST or not at_least(len(cut), len(column.both), PURE_PERCENT):
        return None
    return seen_in(
        changed,
        column,
        cut,
        Rule.CUT_VALUES,
        f"is cut to {length} characters",
        base=Base(Among.LONGER, column.name, length=length),
        many_values=True,
    )


def _cut_zeros(changed: ChangedRows, column: Column) -> Suspicion | None:
    """As after a spreadsheet."""
    if column.field.kind not in TEXTS:
        return None
    cut = [c for c in column.both if signs.lost_zeros(str(c.old), str(c.new))]
    if len(cut) < LEAST or not at_least(len(cut), len(column.both), PURE_PERCENT):
        return None
    return seen_in(
        changed, column, cut, Rule.CUT_VALUES, "loses its leading zeros", base=Base(Among.ZEROS, column.name)
    )


# -- numbers


def _cut_decimals(changed: ChangedRows, column: Column) -> Suspicion | None:
    """All numbers that changed lost their decimals, also those that would have been rounded up."""
    if column.field.kind is not Kind.NUMBER or column.field.role is not None:
        return None
    cut = [c for c in column.both if signs.truncated(_number(c.old), _number(c.new))]
    rounded_down = sum(abs(_number(c.old)) % 1 > Decimal("0.5") for c in cut)
    if len(cut) < LEAST_CUT or rounded_down < 2 or not at_least(len(cut), len(column.both), 90):
        return None
    return seen_in(
        changed, column, cut, Rule.CUT_VALUES, "loses its decimals", base=Base(Among.FRACTIONS, column.name), floor=50
    )


def _rescaled(changed: ChangedRows, column: Column) -> Suspicion | None:
    if column.field.kind not in NUMBERS:
        return None
    not_zero = [c for c in column.both if c.old and c.new]
    powers = [signs.factor(_number(c.old), _number(c.new)) for c in not_zero]
    power, number = Counter(powers).most_common(1)[0] if powers else (0, 0)
    hits = [c for c, of_cell in zip(not_zero, powers, strict=True) if of_cell == power]
    if not power or number < LEAST or not at_least(number, len(not_zero), PURE_PERCENT):
        return None
    distinct = len({c.old for c in hits})
    if distinct < 2:
        return None
    return seen_in(changed, column, hits, Rule.RESCALED, _in_words(power), base=Base(Among.FILLED, column.name))


def _number(value: Value) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _in_words(power: int) -> str:
    if power == signs.SIGN:
        return "changes its sign"
    return f"becomes {10 ** abs(power)} times as {'large' if power > 0 else 'small'}"


# -- dates


def _local(changed: ChangedRows, column: Column) -> list[tuple[Cell, date, date]]:
    """Dates as they are, moments as the ERP's clock showed them."""
    if column.field.kind is Kind.DATE:
        return [(c, c.old, c.new) for c in column.both if isinstance(c.old, date) and isinstance(c.new, date)]
    return [
        (c, c.old.astimezone(changed.zone).replace(tzinfo=None), c.new.astimezone(changed.zone).replace(tzinfo=None))
        for c in column.both
        if isinstance(c.old, datetime) and isinstance(c.new, datetime)
    ]


def _dates(changed: ChangedRows, column: Column) -> Suspicion | None:
    if column.field.kind not in DAYS or len(column.both) < LEAST:
        return None
    local = _local(changed, column)
    exchanged = [c for c, old, new in local if signs.swapped(old) == new]
    distinct = len({c.old for c in exchanged})
    if distinct >= LEAST and at_least(len(exchanged), len(local), PURE_PERCENT):
        return seen_in(
            changed,
            column,
            exchanged,
            Rule.DATES_SWAPPED,
            "has day and month exchanged",
            base=Base(Among.EXCHANGEABLE, column.name),
        )
    return _dates_moved(changed, column, local)


def _dates_moved(changed: ChangedRows, column: Column, local: Sequence[tuple[Cell, date, date]]) -> Suspicion | None:
    other_year = [(c, old, new) for c, old, new in local if signs.same_day_of_another_year(old, new)]
    distance, number = Counter(_distance(old, new) for _, old, new in local).most_common(1)[0]
    moved, what, floor = other_year, "moves to another year", 0
    if number > len(other_year):
        moved = [(c, old, new) for c, old, new in local if _distance(old, new) == distance]
        found = _how_far(distance, column)
        if found is None:
            return None
        what, floor = found
    distinct = len({c.old for c, _, _ in moved})
    renewed = column.field.role is Role.TERM and all(
        0 < new.year - old.year <= LONGEST_TERM_YEARS for _, old, new in moved
    )
    pure = at_least(len(moved), len(local), PURE_PERCENT) and at_least(distinct, len(moved), 10)
    if renewed or distinct < LEAST or not pure:
        return None
    hits = [c for c, _, _ in moved]
    return seen_in(changed, column, hits, Rule.DATES_MOVED, what, base=Base(Among.FILLED, column.name), floor=floor)


def _distance(old: date, new: date) -> timedelta:
    return new - old


def _how_far(distance: timedelta, column: Column) -> tuple[str, int] | None:
    """In words, and the share from which so small a step is unlikely: none is for a day that was planned, or the row's own time stamp."""
    if abs(distance) >= timedelta(days=FAR_DAYS):
        return f"moves by {abs(distance).days} days", 0
    hours, rest = divmod(abs(distance), timedelta(hours=1))
    if column.field.role is not None or rest or not hours:
        return None
    if hours == 24 and distance.days in (1, -1):
        return "moves by one day", 50
    if column.field.kind is Kind.TIMESTAMP and hours <= LONGEST_SHIFT_HOURS:
        return f"moves by {hours} h", 50
    return None


# -- any column


def _emptied(changed: ChangedRows, column: Column) -> Suspicion | None:
    among = Among.FILLED
    if column.field.kind is Kind.BOOLEAN:
        among = Among.TRUE
        lost = [c for c in column.both if c.old and not c.new][: changed.blank.get(column.name, 0)]
    else:
        lost = [c for c in column.cells if c.new is None]
    come = sum(c.old is None for c in column.cells)
    if len(lost) < LEAST or come * 2 >= len(lost):  # remarks of a day come and go
        return None
    return seen_in(changed, column, lost, Rule.EMPTIED, "loses its value", base=Base(among, column.name))


def _constant(changed: ChangedRows, column: Column) -> Suspicion | None:
    if column.field.kind is Kind.BOOLEAN or column.field.role in (Role.ENUM, Role.TOUCHED) or not column.both:
        return None
    if len(column.news) * 5 > len(column.both) + 10:  # nearly all cells can't have one of so many values
        return None
    value, number = Counter(c.new for c in column.both).most_common(1)[0]
    same = [c for c in column.both if c.new == value]
    olds = {c.old for c in same}
    many = len(olds) >= MANY_OLD_VALUES or at_least(len(olds), number, 20 if column.field.kind in TEXTS else 10)
    usual = (column.field.role is Role.COUNTER and not value) or (
        column.field.role is Role.PLANNED and _may_be_planned(changed, value, olds)
    )
    if usual or not many or len(olds) < LEAST or not at_least(number, len(column.both), 80):
        return None
    return seen_in(
        changed,
        column,
        same,
        Rule.CONSTANT,
        "becomes one and the same value",
        base=Base(Among.FILLED, column.name),
        many_values=True,
    )


def _may_be_planned(changed: ChangedRows, value: object, olds: Iterable[object]) -> bool:
    """All that was planned is done in one day, or waits for one: a day near today, or near the last one that was planned."""
    planned = _day(value)
    days = [day for day in map(_day, olds) if day is not None]
    if planned is None or not days:
        return False
    return any(near - NEAR_PAST <= planned <= near + NEAR_FUTURE for near in (changed.now.date(), max(days)))


def _day(value: object) -> date | None:
    if isinstance(value, datetime):
        return value.date()
    return value if isinstance(value, date) else None


_RULES: Sequence[Callable[[ChangedRows, Column], Suspicion | None]] = (
    _cut_texts,
    _cut_zeros,
    _cut_decimals,
    _rescaled,
    _dates,
    _emptied,
    _constant,
    rewritten,
    spelled_missing,
)
