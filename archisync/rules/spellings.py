"""Texts that another program has rewritten: in quotes or tags, masked, rounded, without their beginning, or as a word for nothing. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

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
    seen_in,
)
from archisync.rules.reasons import Rule

LEAST_PIECES = 5
"""Different beginnings that are lost: a common one (IT, +39) is dropped on purpose."""
_PROBED = 20
"""Cells that are tried first. Of those that change, most must bear a sign."""
_MISSING = frozenset(
    "NULL null None nan NaN undefined #N/A #N/D #NV #REF! #RIF! #VALUE! #VALORE! #NAME? #NOME? #DIV/0! [NULL] (null) \\N".split()  # noqa: SIM905
)
"""How programs spell a value that is missing or could not be computed. What people write (-, n/d) may be an answer."""
_MARKUP = re.compile(r"[\"<>;|{}=\\`]")
_POWER = re.compile(r"([0-9])[.,]?([0-9]*)E\+([0-9]+)")


class _Sign(NamedTuple):
    """`of` gives what the cells with the sign have in common, None where it is missing."""

    rule: Rule
    what: str
    of: Callable[[str, str], str | None]


def _wrapping(old: str, new: str) -> str | None:
    """What has been put around the text, if no person would: quotes, tags, separators."""
    before, found, after = new.partition(old)
    return f"{before}\n{after}" if found and _MARKUP.search(before + after) else None


def _mask(old: str, new: str) -> str | None:
    return "" if "***" in new and "***" not in old else None


def _power(old: str, new: str) -> str | None:
    """As a spreadsheet writes a long number: 12345678901 as 1.23E+10."""
    found = _POWER.fullmatch(new)
    if found is None or not old.isdigit() or len(old.lstrip("0")) != int(found[3]) + 1:
        return None
    return "" if abs(int(old.lstrip("0")[: len(found[2]) + 1]) - int(found[1] + found[2])) <= 1 else None


def _lost_beginning(old: str, new: str) -> str | None:
    lost = len(old) - len(new)
    if lost <= 0 or not old.endswith(new) or not old[lost - 1].isalnum():
        return None
    return str(lost)


_SIGNS = (
    _Sign(Rule.GARBLED, "has quotes, tags or separators around its values", _wrapping),
    _Sign(Rule.GARBLED, "is masked with asterisks", _mask),
    _Sign(Rule.CUT_VALUES, "is written as a power of ten", _power),
    _Sign(Rule.CUT_VALUES, "loses its beginning", _lost_beginning),
)


def rewritten(changed: ChangedRows, column: Column) -> Suspicion | None:
    """Most of the changed texts bear one sign, in one form."""
    if column.field.kind not in TEXTS or len(column.both) < LEAST:
        return None
    probed = column.both[:: len(column.both) // _PROBED + 1]
    for sign in _SIGNS:
        if any(sign.of(str(c.old), str(c.new)) is not None for c in probed):
            hits = _in_one_form(sign, column.both)
            pieces = len({str(c.old)[: len(str(c.old)) - len(str(c.new))] for c in hits})
            enough = sign.of is not _lost_beginning or pieces >= LEAST_PIECES
            if enough and len(hits) >= LEAST and at_least(len(hits), len(column.both), PURE_PERCENT):
                return seen_in(changed, column, hits, sign.rule, sign.what, base=Base(Among.FILLED, column.name))
    return None


def _in_one_form(sign: _Sign, cells: Sequence[Cell]) -> list[Cell]:
    forms = [(c, sign.of(str(c.old), str(c.new))) for c in cells]
    usual, _ = Counter(form for _, form in forms if form is not None).most_common(1)[0]
    return [c for c, form in forms if form == usual]


def spelled_missing(changed: ChangedRows, column: Column) -> Suspicion | None:
    """Empty cells, or values, become a word such as NULL."""
    if column.field.kind not in TEXTS or column.news.isdisjoint(_MISSING):
        return None
    cells = [c for c in column.cells if c.new in _MISSING]
    if len(cells) < LEAST:
        return None
    empty = [c for c in cells if c.old is None]
    hits, among = (empty, Among.EMPTY) if len(empty) * 2 >= len(cells) else ([c for c in cells if c.old], Among.FILLED)
    what = "gets a word for a missing value, such as NULL,"
    return seen_in(changed, column, hits, Rule.GARBLED, what, base=Base(among, column.name))
