"""Values that are in the export, in the wrong row: a sheet was sorted in part. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from archisync.rules.changedrows import TEXTS, Among, Base, Cell, ChangedRows, Column, Suspicion, at_least, examples_of
from archisync.rules.exchanges import SURE
from archisync.rules.reasons import Rule
from archisync.rules.synctypes import Kind, Role
from archisync.rules.values import Value

KEPT_PERCENT, KEPT_OF_FEW_PERCENT = 80, 90
"""How many of a column's old values must be there again in other rows: repeated values come back by chance."""
LEAST_VALUES = 4
FEW_ROWS = 5
FEW_REPEATED = 30
"""Cells of a number column below which small numbers that repeat come back in other rows by chance: admissions, 0 to 6 a day."""
_SURE_OF_PART = 4
"""Values that a part of the rows should have in common below which it says nothing: chance alone may leave none."""


class Reordering(NamedTuple):
    """What a column's changed cells had and have. `filled`: those with a value, before or after, whichever are more; `kept`: of their old
    values those that are there again; `olds`: different old values; `pairs`: different pairs of an old and a new value."""

    cells: int
    filled: int
    kept: int
    olds: int
    pairs: int


def reordering(cells: Sequence[Cell]) -> Reordering:
    old: Counter[Value] = Counter([c.old for c in cells if c.old is not None])
    new: Counter[Value] = Counter([c.new for c in cells if c.new is not None])
    return Reordering(
        cells=len(cells),
        filled=max(old.total(), new.total()),
        kept=sum(min(number, new[value]) for value, number in old.items()),
        olds=len(old),
        pairs=len({(c.old, c.new) for c in cells}),
    )


def may_be_shuffled(changed: ChangedRows, column: Column) -> bool:
    """Whether a closer look is worth it. Of a part of the rows: whether it has as many old values again as such a part would have."""
    if column.field.kind is Kind.BOOLEAN or column.field.role in (Role.ENUM, Role.TOUCHED):
        return False
    least = SURE if changed.known > FEW_ROWS else SURE - 1
    if changed.scaled(len(column.cells)) < least or len(column.olds) < LEAST_VALUES:
        return False
    there_before = sum(c.new in column.olds for c in column.cells)
    expected = len(column.cells) * len(changed.rows) * KEPT_PERCENT / 100 / max(changed.changed, 1)
    if not changed.in_part:
        return there_before * 2 >= expected - 2  # half of the cells may have been empty
    enough = there_before * 4 >= expected or expected < _SURE_OF_PART
    return enough and (column.field.kind in TEXTS or not _usual_of_figures(column, len(column.cells), len(column.olds)))


def shuffled(changed: ChangedRows, column: Column, found: Reordering) -> Suspicion | None:
    """The changed rows have the values that they had, but each has another's.

    Not when each old value has one new one (territories exchanged), when few values are dealt anew, or when all count on by a step.
    """
    different = at_least(found.olds, found.filled, 75) and found.filled >= 8
    by_chance = column.field.kind not in TEXTS and found.cells < FEW_REPEATED
    kept_percent = KEPT_PERCENT if different and not by_chance else KEPT_OF_FEW_PERCENT
    if found.olds < LEAST_VALUES or not at_least(found.kept, found.filled - 1, kept_percent):
        return None
    if _is_usual(column, found):
        return None
    return Suspicion(
        rule=Rule.ROWS_SHUFFLED,
        column=column.name,
        what="has the values that it had, in other rows",
        hits=found.cells,
        distinct=found.olds,
        bases=(Base(Among.FILLED, column.name),),
        examples=examples_of(column.cells),
    )


def _is_usual(column: Column, found: Reordering) -> bool:
    if found.cells > 1.5 * found.olds and found.pairs == found.olds:
        return True  # recoded: one new value for each old one
    if column.field.kind in TEXTS:
        return found.olds * 2 < found.cells and found.olds < 20  # dealt anew
    few_repeat = found.cells < FEW_REPEATED and not at_least(found.olds, found.filled, 75)
    return few_repeat or _usual_of_figures(column, found.cells, found.olds)


def _usual_of_figures(column: Column, cells: int, olds: int) -> bool:
    """Numbers and dates: few of them come back by chance, or all are counted on."""
    return olds * 2 < cells or _keeps_order(column.both)


def _keeps_order(cells: Sequence[Cell]) -> bool:
    """Whether a larger old value nearly always has a larger new one, as when all are counted on by a step."""
    ordered = sorted(cells, key=lambda c: c.old)  # type: ignore[arg-type, return-value]  # numbers or dates, of one kind
    steps = [(a, b) for a, b in pairwise(ordered) if a.old != b.old]
    up = sum(a.new < b.new for a, b in steps)  # type: ignore[operator]
    return bool(steps) and up * 100 > len(steps) * 85
