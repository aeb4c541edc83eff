"""A first declaration of a type, proposed from an export: pure. What is not certain stays text, and a comment says what was guessed.

A column becomes a date or timestamp if every value is one, a number if every value is one and one of them has a decimal sign. Digits alone
are never a number: nobody can see whether leading zeros count. Eight digits are no date for the same reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from zoneinfo import ZoneInfo

from archisync.base.text import counted
from archisync.rules.declarations import MAX_FIELDS, MAX_LABEL_CHARS, MAX_NAME_BYTES
from archisync.rules.labels import fold_label, strip_accents
from archisync.rules.reservedwords import OWN_COLUMNS, RESERVED
from archisync.rules.typemodel import Kind
from archisync.rules.values import MAX_IDENTIFIER_CHARS, BadValueError, Locale, clean, parse

Cells = Sequence[str | None]
MAX_KEY_COLUMNS = 3
TRIED_FOR_KEY = 12
"""Columns of which a key is made up, from the left: further ones are seldom part of it."""
MAX_ROWS = 100_000
"""Rows that a draft looks at."""
_IN_ASCII = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"})
"""Letters that have no accent to lose, besides those that `casefold` spells out: ß becomes ss."""
_SEPARATED = re.compile(r"[0-9]{1,4}[-/. ]")
_UTC = ZoneInfo("UTC")


@dataclass(kw_only=True)
class Column:
    """One column of the export: its field's name, its label, and what its values are."""

    name: str
    label: str
    values: list[str | None]
    kind: Kind = Kind.TEXT
    why: str = ""

    @property
    def filled(self) -> list[str]:
        return [value for value in self.values if value is not None]


def draft(
    name: str,
    file: str,
    labels: Sequence[str],
    rows: Iterable[Cells],
    locale: Locale,
    *,
    unread: Sequence[str] = (),
    open_ended: bool = False,
) -> str:
    """The TOML of a type `name` for an export like this one. `locale`: how it writes numbers, unless its values show the other one.
    `unread` has, once the rows are read, a sentence for each that can't be. `open_ended`: the last row may be cut off."""
    columns, notes = _columns(labels, rows)
    if unread:
        notes.append(f"{counted(len(unread), 'row')} can't be read, as in {_plain(unread[0])}")
    if open_ended:
        setting = f"ARCHISYNC_CSV_FINAL_LINE_END_{name.upper()}=optional"
        notes.append(f"the last line has no line end: if the ERP always writes it so, set {setting}")
    used = _locale_of(columns, locale)
    for column in columns:
        column.kind, column.why = _kind(column, used)
    # A row may be there twice: that is one row.
    different = len(set(zip(*(c.values for c in columns), strict=True))) if columns else 0
    key, unique = _key(columns, different)
    for column in key:
        if column.kind is Kind.TEXT:
            column.kind = Kind.IDENTIFIER
    if used != locale:
        notes.append(f"numbers are written as 1.234,56: set ARCHISYNC_LOCALE_{name.upper()}={used}")
    head = [
        f"# A draft, made from {_plain(file)}: look at scope, interval and key.",
        *(f"# Note: {note}." for note in notes),
        f'name = "{name}"',
        'scope = "agent"  # each agent has an export; "shared": one for all',
        "interval = 30  # minutes",
        f"key = {json.dumps([c.name for c in key])}  # {_why_key(key, unique, different)}",
        "",
        "[fields]",
    ]
    return "\n".join([*head, *map(_line, columns)]) + "\n"


def _columns(labels: Sequence[str], rows: Iterable[Cells]) -> tuple[list[Column], list[str]]:
    """The columns that have a label of their own, and what has to be said about the others."""
    cells: list[list[str | None]] = [[] for _ in labels]
    for row in rows:
        for place, cell in enumerate(row):
            cells[place].append(_cleaned(cell))
    columns, notes, seen = list[Column](), list[str](), set[str]()
    for label, values in zip(labels, cells, strict=True):
        shown = " ".join(label.split())
        if not fold_label(shown) or len(shown) > MAX_LABEL_CHARS or not shown.isprintable():
            notes.append("a column without a usable label is ignored")
        elif fold_label(shown) in seen:
            notes.append(
                f"a second column {_plain(shown)} is left out: give one of them another label, or the export is held"
            )
        elif len(columns) == MAX_FIELDS:
            notes.append(f"columns after the first {MAX_FIELDS} are left out")
            break
        else:
            field = _field_name(shown, {c.name for c in columns})
            seen |= {fold_label(shown), fold_label(field)}
            columns.append(Column(name=field, label=shown, values=values))
    return columns, list(dict.fromkeys(notes))


def _cleaned(cell: str | None) -> str | None:
    try:
        return clean(cell)[0] if cell else None
    except BadValueError:
        return cell


def _field_name(label: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9]+", "_", strip_accents(label.casefold().translate(_IN_ASCII))).strip("_") or "field"
    base = (base if base[0].isalpha() else f"n_{base}")[: MAX_NAME_BYTES - 4].rstrip("_")
    if base in RESERVED | OWN_COLUMNS or re.fullmatch(r"ignored_[0-9]+", base):
        base += "_"
    names = [base, *(f"{base}_{number}" for number in range(2, MAX_FIELDS + 2))]
    return next(name for name in names if name not in taken)


def _locale_of(columns: Sequence[Column], usual: Locale) -> Locale:
    """The other locale, if no column is a number in the usual one and one is in the other: most of its values have a decimal sign, and not
    three digits behind it, which may be a list of codes."""
    other: Locale = "it" if usual == "iso" else "iso"
    sign = re.compile(r"[,.]([0-9]{1,2}|[0-9]{4,})(?![0-9])[^,.]*$")
    if any(_is_number(column, usual) for column in columns):
        return usual
    clear = [
        c for c in columns if _is_number(c, other) and 2 * sum(map(bool, map(sign.search, c.filled))) > len(c.filled)
    ]
    return other if clear else usual


def _kind(column: Column, locale: Locale) -> tuple[Kind, str]:
    values = column.filled
    if not values:
        return Kind.TEXT, "empty here"
    if all(map(_SEPARATED.match, values)) and _all_parse(Kind.TIMESTAMP, values, locale):
        timed = any(":" in value for value in values)
        return (Kind.TIMESTAMP if timed else Kind.DATE), ""
    if _is_number(column, locale):
        return Kind.NUMBER, ""
    if all(
        " " not in value and any(map(str.isdigit, value)) and len(value) <= MAX_IDENTIFIER_CHARS for value in values
    ):
        whole = all(value.isdecimal() for value in values)
        return Kind.IDENTIFIER, "digits only: integer if nobody needs leading zeros" if whole else ""
    return Kind.TEXT, ""


def _is_number(column: Column, locale: Locale) -> bool:
    sign = "." if locale == "iso" else ","
    values = column.filled
    return any(sign in value for value in values) and _all_parse(Kind.NUMBER, values, locale)


def _all_parse(kind: Kind, values: Iterable[str], locale: Locale) -> bool:
    try:
        for value in values:
            parse(kind, value, locale, _UTC)
    except BadValueError:
        return False
    return True


def _key(columns: Sequence[Column], rows: int) -> tuple[list[Column], bool]:
    """The shortest set of columns, from the left, whose values tell that many rows apart; and whether there is one."""
    fit = [
        c
        for c in columns
        if None not in c.values
        and c.kind is not Kind.NUMBER
        and max(map(len, c.filled), default=0) <= MAX_IDENTIFIER_CHARS
    ][:TRIED_FOR_KEY]
    for candidates in (fit, [c for c in fit if c.kind is not Kind.TEXT]):
        for size in range(1, MAX_KEY_COLUMNS + 1):
            for chosen in _preferred(combinations(candidates, size)):
                if rows and len(set(zip(*(c.values for c in chosen), strict=True))) == rows:
                    return list(chosen), True
    return list(fit[:1] or columns[:1]), False


def _preferred(sets: Iterable[tuple[Column, ...]]) -> Iterator[tuple[Column, ...]]:
    """Sets of identifiers first: a name that happens to be unique today is a poor key."""
    return iter(sorted(sets, key=lambda chosen: sum(c.kind is not Kind.IDENTIFIER for c in chosen)))


def _why_key(key: Sequence[Column], unique: bool, rows: int) -> str:
    if not key:
        return "the export has no column"
    if not unique:
        return "a guess: no set of at most three columns tells the rows of this export apart, so it will be held"
    return f"a guess: the shortest set of columns that tells the {counted(rows, 'row')} of this export apart"


def _line(column: Column) -> str:
    labels = [] if fold_label(column.label) == fold_label(column.name) else [column.label]
    said = [] if column.kind is Kind.TEXT and labels else [f'kind = "{column.kind}"']
    said += [f"labels = {json.dumps(labels, ensure_ascii=False)}"] if labels else []
    comment = f"  # {column.why}" if column.why else ""
    return f"{column.name} = {{ {', '.join(said)} }}{comment}"


def _plain(text: str) -> str:
    """A text for a comment, which is one line."""
    return ascii(text)[:80]
