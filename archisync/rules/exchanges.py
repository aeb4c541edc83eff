"""Values that are in the export, in the wrong place: another column's, or another row's. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

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
)
from archisync.rules.reasons import Rule
from archisync.rules.synctypes import Kind, Role
from archisync.rules.values import Value

SURE = 5
"""Rows from which a share of the rows is enough; with fewer, most rows must show it."""
KEPT_PERCENT, KEPT_OF_FEW_PERCENT = 80, 90
"""How many of a column's old values must be there again in other rows: repeated values come back by chance."""
FEW_ROWS = 5


# -- another column's


def columns_swapped(changed: ChangedRows, columns: Sequence[Column]) -> Iterator[Suspicion]:
    """A column gets what another one had in the same row, and that one changes too: else an invoice that is paid would look like it, whose
    remaining amount becomes the settled one. A text may also become its row's number, which stays. A counter that becomes 0 has been paid
    or sold, and what it counted may be counted elsewhere."""
    usable = {column.name: column for column in columns if column.field.kind is not Kind.BOOLEAN}
    identifiers = [(i, field.name) for i, field in enumerate(changed.fields) if field.kind is Kind.IDENTIFIER]
    hits: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for row, cells in _by_row(usable.values()).items():
        elsewhere: dict[Value, str] = {
            cell.old: name
            for name, cell in cells.items()
            if cell.old and (cell.new or usable[name].field.role is not Role.COUNTER)
        }
        old, new = changed.rows[row]
        numbers: dict[Value, str] = {old[i]: name for i, name in identifiers if old[i] and old[i] == new[i]}
        for name, cell in cells.items():
            if not cell.old or not cell.new:
                continue
            source = elsewhere.get(cell.new)
            if source is None and usable[name].field.kind is Kind.TEXT:
                source = numbers.get(cell.new)
            if source is not None and source != name:
                hits[name, source].append(cell)
    for (name, source), cells_hit in hits.items():
        seen = _swapped(changed, usable[name], source, cells_hit)
        if seen is not None:
            yield seen


def _by_row(columns: Iterable[Column]) -> dict[int, dict[str, Cell]]:
    """Row → column → its changed cell."""
    by_row: dict[int, dict[str, Cell]] = defaultdict(dict)
    for column in columns:
        for cell in column.cells:
            by_row[cell.row][column.name] = cell
    return by_row


def _swapped(changed: ChangedRows, column: Column, source: str, hits: Sequence[Cell]) -> Suspicion | None:
    other = [field.name for field in changed.fields].index(source)
    compared = [c for c in column.both if (value := changed.rows[c.row][0][other]) and value != c.old]
    distinct = len({c.new for c in hits})
    if len(hits) < LEAST or distinct < 2 or not at_least(len(hits), len(compared), PURE_PERCENT):
        return None
    return Suspicion(
        rule=Rule.COLUMNS_SWAPPED,
        column=column.name,
        what=f"gets the values of {source}",
        hits=changed.scaled(len(hits)),
        distinct=distinct,
        bases=(Base(Among.BOTH, column.name, other=source),),
        examples=examples_of(hits),
        floor=0 if len(hits) >= SURE else 50,
    )


# -- another row's


def rows_shuffled(changed: ChangedRows, column: Column) -> Iterator[Suspicion]:
    """The changed rows have the values that they had, but each has another's: a sheet was sorted in part.

    Not when each old value has one new one (territories exchanged), when few values are dealt anew, or when all count on by a step.
    """
    if column.field.kind is Kind.BOOLEAN or column.field.role in (Role.ENUM, Role.TOUCHED):
        return
    cells = column.cells
    old: Counter[Value] = Counter([c.old for c in cells if c.old is not None])
    new: Counter[Value] = Counter([c.new for c in cells if c.new is not None])
    size = max(old.total(), new.total())
    if changed.parts > 1 or len(cells) < _least_rows(changed) or len(old) < 4:
        return
    kept = sum(min(number, new[value]) for value, number in old.items())
    different = at_least(len(old), size, 75) and size >= 8
    if not at_least(kept, size - 1, KEPT_PERCENT if different else KEPT_OF_FEW_PERCENT) or _is_usual(column, old):
        return
    yield Suspicion(
        rule=Rule.ROWS_SHUFFLED,
        column=column.name,
        what="has the values that it had, in other rows",
        hits=len(cells),
        distinct=len(old),
        bases=(Base(Among.FILLED, column.name),),
        examples=examples_of(cells),
    )


def _least_rows(changed: ChangedRows) -> int:
    return SURE if changed.known > FEW_ROWS else SURE - 1


def _is_usual(column: Column, old: Mapping[Value, int]) -> bool:
    cells = column.cells
    if len(cells) > 1.5 * len(old) and len({(c.old, c.new) for c in cells}) == len(old):
        return True  # recoded: one new value for each old one
    few = len(old) * 2 < len(cells)
    if few and (len(old) < 20 or column.field.kind not in TEXTS):
        return True  # dealt anew
    return column.field.kind not in TEXTS and _keeps_order(column.both)


def _keeps_order(cells: Sequence[Cell]) -> bool:
    """Whether a larger old value nearly always has a larger new one, as when all are counted on by a step."""
    ordered = sorted(cells, key=lambda c: c.old)  # type: ignore[arg-type, return-value]  # numbers or dates, of one kind
    steps = [(a, b) for a, b in pairwise(ordered) if a.old != b.old]
    up = sum(a.new < b.new for a, b in steps)  # type: ignore[operator]
    return bool(steps) and up * 100 > len(steps) * 85
