"""Texts that another program has rewritten: in quotes or tags, masked, rounded, without their beginning, or as a word for nothing. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from archisync.rules.cells import escaped
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
from archisync.rules.values import Value

LEAST_PIECES = 5
"""Different beginnings that are lost: a common one (IT, +39) is dropped on purpose."""
_PROBED = 20
"""Cells that are tried first. Of those that change, most must bear a sign."""
_MISSING = frozenset(
    "NULL null None nan NaN undefined #N/A #N/D #NV #REF! #RIF! #VALUE! #VALORE! #NAME? #NOME? #DIV/0! [NULL] (null) \\N".split()  # noqa: SIM905
)
"""How programs spell a value that is missing or could not be computed. What people write (-, n/d) may be an answer."""
_TRIED = frozenset("aaa asdf bar dummy foo foobar lorem prova qwerty sample test tests testing xxx xxxx zzz".split())  # noqa: SIM905
"""What people type to try a program."""
_MARKUP = re.compile(r"[\"<>;|{}=\\`]|_x[0-9A-F]{4}_")
_MASK = re.compile(r"([*#•])\1\1|XXXX")
_POWER = re.compile(r"([0-9])[.,]?([0-9]*)E\+([0-9]+)")


class _Sign(NamedTuple):
    """`of` gives what the cells with the sign have in common, None where it is missing."""

    rule: Rule
    what: str
    of: Callable[[str, str], str | None]


def _wrapping(old: str, new: str) -> str | None:
    """What has been put around the text, if no person would: quotes, tags, separators."""
    before, found, after = new.partition(old)
    around = before + after
    return f"{before}\n{after}" if found and (_MARKUP.search(around) or around in ("'", "''")) else None


def _mask(old: str, new: str) -> str | None:
    return "" if _MASK.search(new) and not _MASK.search(old) else None


def _backwards(old: str, new: str) -> str | None:
    return "" if new == old[::-1] != old else None


def _escaped(old: str, new: str) -> str | None:
    return "" if escaped(old, new) else None


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


def _lost_end(old: str, new: str) -> str | None:
    """Not at a separator: an extension, or ZIP+4, is dropped on purpose."""
    lost = len(old) - len(new)
    if lost <= 0 or not old.startswith(new) or not old[len(new)].isalnum():
        return None
    return str(lost)


_SIGNS = (
    _Sign(Rule.GARBLED, "has quotes, tags or separators around its values", _wrapping),
    _Sign(Rule.GARBLED, "is masked with asterisks", _mask),
    _Sign(Rule.GARBLED, "is written backwards", _backwards),
    _Sign(Rule.GARBLED, "has signs of a page or an address, such as %20,", _escaped),
    _Sign(Rule.CUT_VALUES, "is written as a power of ten", _power),
    _Sign(Rule.CUT_VALUES, "loses its beginning", _lost_beginning),
    _Sign(Rule.CUT_VALUES, "loses its end", _lost_end),
)
_CUTS = (_lost_beginning, _lost_end)


def rewritten(changed: ChangedRows, column: Column) -> Suspicion | None:
    """Most of the changed texts bear one sign, in one form."""
    if column.field.kind not in TEXTS or len(column.both) < LEAST:
        return None
    probed = column.both[:: len(column.both) // _PROBED + 1]
    for sign in _SIGNS:
        if any(sign.of(str(c.old), str(c.new)) is not None for c in probed):
            hits = _in_one_form(sign, column.both)
            enough = sign.of not in _CUTS or len({_lost(c) for c in hits}) >= LEAST_PIECES
            if enough and len(hits) >= LEAST and at_least(len(hits), len(column.both), PURE_PERCENT):
                return seen_in(changed, column, hits, sign.rule, sign.what, base=Base(Among.FILLED, column.name))
    return None


def _lost(cell: Cell) -> str:
    old, new = str(cell.old), str(cell.new)
    return old[len(new) :] if old.startswith(new) else old[: len(old) - len(new)]


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


def tried(changed: ChangedRows, column: Column) -> Suspicion | None:
    if column.field.kind not in TEXTS or len(column.both) < LEAST:
        return None
    if not any(_is_trial(c.new) for c in column.both[:: len(column.both) // _PROBED + 1]):
        return None
    hits = [c for c in column.both if _is_trial(c.new) and not _is_trial(c.old)]
    if len(hits) < LEAST or not at_least(len(hits), len(column.both), PURE_PERCENT):
        return None
    what = "gets words that a program is tried with, such as TEST,"
    return seen_in(changed, column, hits, Rule.GARBLED, what, base=Base(Among.FILLED, column.name), floor=50)


def _is_trial(value: Value) -> bool:
    words = str(value).casefold().rstrip("0123456789 ").split()
    return bool(words) and _TRIED.issuperset(words)
