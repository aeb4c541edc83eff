"""What the guard's rules about values see in the rows that an export changes. Pure.

Each rule knows the signature of one way to ruin an export, and what in daily life looks like it: a new price list, a year's end, a code
that everybody gets, a corrected column. Nothing is configured: a rule looks at what this table's rows were until now.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from archisync.rules import cells as signs
from archisync.rules.changedrows import (
    LEAST,
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
    first_look,
    seen_in,
)
from archisync.rules.datemoves import dates
from archisync.rules.exchanges import columns_copied, columns_swapped
from archisync.rules.figures import cut_digits, multiplied, rescaled
from archisync.rules.reasons import Rule
from archisync.rules.replacements import counted_up, inverted, replaced
from archisync.rules.shuffles import may_be_shuffled, reordering, shuffled
from archisync.rules.spellings import rewritten, spelled_missing, tried
from archisync.rules.synctypes import Kind, Role

LEAST_GARBLED = 2
LEAST_CUT = 5
MANY_OLD_VALUES = 20
"""Different values that become one and the same, or a code: that many are no group which people treat alike."""
SHORT_CUT = 4
"""Characters below which a text that was cut may as well be a code."""
NEAR_PAST, NEAR_FUTURE = timedelta(days=60), timedelta(days=400)
_CASES_LOOKED_AT = 400
"""Accented texts of a column that are compared with every kind of damage."""


class Seen(NamedTuple):
    """What looks wrong, in the order of the rules; each is to be weighed against the rows that it was looked for in. `perhaps_shuffled`:
    columns of which all rows must be looked at, where `suspect` was given a part."""

    suspicions: list[Suspicion]
    perhaps_shuffled: list[Column]


def suspect(changed: ChangedRows) -> Seen:
    """Look at some of the rows, and at all of them where those look wrong."""
    part = changed.part(first_look(changed.changed))
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
    found = [*columns_swapped(changed, wide), *columns_copied(changed, wide), *_garbled(changed, columns)]
    for column in wide:
        found.extend(_seen_in_column(changed, column))
    perhaps = [column for column in wide if may_be_shuffled(changed, column)]
    if not changed.in_part:
        all_looked_at = [(column, reordering(column.cells)) for column in perhaps]
        found.extend(seen for column, how in all_looked_at if (seen := shuffled(changed, column, how)) is not None)
        perhaps = []
    return Seen(in_order(found), perhaps)


def _seen_in_column(changed: ChangedRows, column: Column) -> Iterator[Suspicion]:
    glance = column.glance
    for rule in _RULES_OF_MOST:
        if (glance is column or rule(changed, glance)) and (seen := rule(changed, column)) is not None:
            yield seen
    for rule in _RULES:
        if (seen := rule(changed, column)) is not None:
            yield seen


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
    many = distinct >= MANY_OLD_VALUES or (distinct > LEAST_CUT and at_least(distinct, len(cut), 75))
    codes = length < SHORT_CUT and (not many or all(str(c.old).isupper() for c in cut))
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


def _marked(changed: ChangedRows, column: Column) -> Suspicion | None:
    """Only texts with such a sign are spelled anew: Rossi & Figli as Rossi &amp; Figli."""
    if column.field.kind not in TEXTS or not any("&" in str(new) for new in column.news):
        return None
    marked = [c for c in column.both if str(c.old).isascii() and html.escape(str(c.old)) != c.old]
    hits = [c for c in marked if "&" in str(c.new) and signs.escaped(str(c.old), str(c.new))]
    if len(hits) < LEAST_GARBLED or not at_least(len(hits), len(marked), PURE_PERCENT):
        return None
    what = "has HTML's names of signs"
    return seen_in(changed, column, hits, Rule.GARBLED, what, base=Base(Among.MARKED, column.name))


_Rule = Callable[[ChangedRows, Column], Suspicion | None]
_RULES_OF_MOST: Sequence[_Rule] = (
    _cut_texts,
    _cut_zeros,
    cut_digits,
    rescaled,
    multiplied,
    dates,
    _constant,
    rewritten,
    tried,
    replaced,
)
"""Most of a column's changed cells must bear their sign: a glance at some shows whether they may."""
_RULES: Sequence[_Rule] = (_emptied, counted_up, spelled_missing, _marked, inverted)
