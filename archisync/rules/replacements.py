"""Values that have nothing to do with the old ones: another agent's, made up, counted up, or the opposite. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from string import digits
from typing import NamedTuple

from archisync.rules.changedrows import (
    TEXTS,
    Among,
    Base,
    Cell,
    ChangedRows,
    Column,
    Suspicion,
    at_least,
    seen_in,
)
from archisync.rules.labels import strip_accents
from archisync.rules.reasons import Rule
from archisync.rules.synctypes import Kind, Role
from archisync.rules.values import Value

LEAST_REPLACED = 5
LEAST_COUNTED = 8
"""Numbers, or days: fewer small ones follow each other by chance."""
MANY_TEXTS = 20
"""Different new texts that are no few persons, places or codes which are dealt anew."""
NO_CHANCE_PERCENT = 20
_PROBED, _COUNTED = 60, 10
"""Texts that are compared, each with the new one of its row and of another row."""
_ALIKE = 0.5
_SHORTEST = 4
"""Letters and digits below which two texts are alike by chance."""
_WORDS = re.compile(r"[^\W\d_]{3}")
_LONGEST_NUMBER = 16
_LONGEST_GAP = 3
"""A cell that had the number already does not change."""


def replaced(changed: ChangedRows, column: Column) -> Suspicion | None:
    """The new texts of nearly all rows are no more like the old ones of their rows than like those of any other row.

    What is corrected, translated in part, or spelled in another way stays like itself. Texts without words are not judged, since a price or
    a time of day may be typed as text; an identifier is.
    """
    if column.field.kind not in TEXTS or column.field.role is not None or len(column.both) < LEAST_REPLACED:
        return None
    if column.field.kind is Kind.TEXT and not _are_words(column.both):
        return None
    news = len(column.news)
    if news < min(MANY_TEXTS, max(LEAST_REPLACED, len(column.both) * 3 // 4)) or not _are_unlike(column.both):
        return None
    what = "gets values that have nothing in common with the old ones"
    return seen_in(
        changed, column, column.both, Rule.REPLACED, what, base=Base(Among.FILLED, column.name), many_values=True
    )


def _are_words(cells: Sequence[Cell]) -> bool:
    probed = cells[:: len(cells) // _PROBED + 1]
    return sum(_WORDS.search(str(c.old)) is not None for c in probed) * 2 > len(probed)


def _are_unlike(cells: Sequence[Cell]) -> bool:
    probed = cells[:: len(cells) // _PROBED + 1]
    pairs = [(old, new) for c in probed if min(len(old := _letters(c.old)), len(new := _letters(c.new))) >= _SHORTEST]
    if len(pairs) < LEAST_REPLACED or not at_least(len(pairs), len(probed), 60):
        return False
    own = [_likeness(old, new) for old, new in pairs]
    step = len(pairs) // 3 + 1
    others = [_likeness(old, pairs[(n + step) % len(pairs)][1]) for n, (old, _) in enumerate(pairs)]
    alike, by_chance = (sum(each >= _ALIKE for each in side) for side in (own, others))
    more = sum(own) / len(own) - sum(others) / len(others)
    no_more = (alike - by_chance) * 100 <= NO_CHANCE_PERCENT * len(pairs) and more < 0.1
    return alike * 2 <= len(pairs) and no_more


def _letters(value: Value) -> str:
    return "".join(filter(str.isalnum, strip_accents(str(value)).casefold()))


def _likeness(one: str, other: str) -> float:
    """0 to 1: the share of neighbouring letters that both have."""
    a, b = ({text[i : i + 2] for i in range(len(text) - 1)} for text in (one, other))
    return 2 * len(a & b) / (len(a) + len(b))


def inverted(changed: ChangedRows, column: Column) -> Suspicion | None:
    """Most of a column's yes and no have become the opposite, by far more than by chance. A season makes them change in one direction."""
    if column.field.kind is not Kind.BOOLEAN or len(column.both) < LEAST_REPLACED:
        return None
    to_no = sum(bool(c.old) for c in column.both)
    if min(to_no, len(column.both) - to_no) * 10 < len(column.both):
        return None
    floor = min(50 + math.ceil(100 / math.sqrt(max(changed.known, 1))), 99)
    what = "becomes the opposite"
    return seen_in(changed, column, column.both, Rule.REPLACED, what, base=Base(Among.FILLED, column.name), floor=floor)


# -- series


class _Counted(NamedTuple):
    """What stands before the number, and the number."""

    before: object
    number: int


def counted_up(changed: ChangedRows, column: Column) -> Suspicion | None:
    """One value that was drawn down a sheet, where it counts up: 1, 2, 3, or Via Po 1, Via Po 2. Ranks did so before."""
    if column.field.kind is Kind.BOOLEAN or column.field.role in (Role.ENUM, Role.TOUCHED):
        return None
    least = LEAST_REPLACED if column.field.kind in TEXTS else LEAST_COUNTED
    filled = [c for c in column.cells if c.new is not None]  # a sheet is filled without a gap
    if (
        len(column.both) < least
        or len(column.both) * 2 < len(filled)
        or not at_least(len(column.news), len(filled), 80)
    ):
        return None
    series = _series(changed, [(c, c.new) for c in filled])
    hits = [c for c in series if c.old is not None]
    if len(hits) < least or not at_least(len(series), len(filled), 80):
        return None
    if len(_series(changed, [(c, c.old) for c in hits])) * 2 > len(hits):
        return None
    what = "becomes a series that counts up"
    return seen_in(changed, column, hits, Rule.CONSTANT, what, base=Base(Among.FILLED, column.name), floor=50)


def _series(changed: ChangedRows, values: Sequence[tuple[Cell, Value]]) -> list[Cell]:
    """The cells of the longest series. Of a part of the rows: those with as many numbers between them as rows change."""
    most = 2 * changed.scaled(len(values))
    probed = [found for _, value in values[:: len(values) // _COUNTED + 1] if (found := _counted(value)) is not None]
    if len({found.before for found in probed}) * 2 > len(probed) + 1:  # nearly always, this or the next
        return []
    if (
        not probed
        or sorted(found.number for found in probed)[len(probed) * 3 // 4] - min(found.number for found in probed) > most
    ):
        return []
    counted = [(cell, found) for cell, value in values if (found := _counted(value)) is not None]
    before, _ = Counter(found.before for _, found in counted).most_common(1)[0]
    same = {found.number: cell for cell, found in counted if found.before == before}
    numbers = sorted(same)
    if changed.in_part:
        wanted = changed.scaled(len(counted)) * 0.8
        span = numbers[-len(numbers) // 10] - numbers[len(numbers) // 10]
        return (
            list(same.values()) if len(same) * 50 > len(counted) * 49 and 0.9 * wanted <= span <= 1.1 * wanted else []
        )
    runs = [[numbers[0]]]
    for a, b in pairwise(numbers):
        if b - a > _LONGEST_GAP:
            runs.append([])
        runs[-1].append(b)
    longest = max(runs, key=len)
    return [same[number] for number in longest] if at_least(len(longest), longest[-1] - longest[0] + 1, 90) else []


def _counted(value: Value) -> _Counted | None:
    match value:
        case bool() | None:
            return None
        case int():
            return _Counted(0, value)
        case Decimal():
            return _Counted(value % 1, int(value))
        case datetime():
            return _Counted(value.time(), value.toordinal())
        case date():
            return _Counted(0, value.toordinal())
        case _:
            text = str(value)
            before = text.rstrip(digits)
            return _Counted(before, int(text[len(before) :])) if 0 < len(text) - len(before) < _LONGEST_NUMBER else None
