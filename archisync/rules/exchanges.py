"""Values that are in the export, in the wrong column. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from archisync.rules.changedrows import (
    LEAST,
    PURE_PERCENT,
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

SURE = 5
"""Rows from which a share of the rows is enough; with fewer, most rows must show it."""


def columns_swapped(changed: ChangedRows, columns: Sequence[Column]) -> Iterator[Suspicion]:
    """A column gets what another one had in the same row, and that one changes too: else an invoice that is paid would look like it, whose
    remaining amount becomes the settled one. A text may also become its row's number, which stays. A counter that becomes 0 has been paid
    or sold, and what it counted may be counted elsewhere."""
    values = {column.name: column for column in columns if column.field.kind is not Kind.BOOLEAN}
    for column in values.values():
        for place, field in enumerate(changed.fields):
            other = values.get(field.name)
            if field.name == column.name:
                continue
            if other is None:
                hits = _become_numbers(changed, column, place)
            elif _share_several(column, other):
                hits = _taken_from(changed, column, other, place)
            else:
                continue
            seen = _swapped(changed, column, place, hits)
            if seen is not None:
                yield seen


def _share_several(column: Column, other: Column) -> bool:
    """Whether several values of one column were the other's: few pairs of columns are worth a look at each row."""
    return len(column.news & other.olds) > 1


def _taken_from(changed: ChangedRows, column: Column, other: Column, place: int) -> list[Cell]:
    rows, counter = changed.rows, other.field.role is Role.COUNTER
    return [
        cell
        for cell in column.both
        if cell.old
        and cell.new
        and rows[cell.row][0][place] == cell.new != (now := rows[cell.row][1][place])
        and (now or not counter)
    ]


def _become_numbers(changed: ChangedRows, column: Column, place: int) -> list[Cell]:
    """Texts that become the number of their row, which stays."""
    if column.field.kind is not Kind.TEXT or changed.fields[place].kind is not Kind.IDENTIFIER:
        return []
    rows = changed.rows
    return [c for c in column.both if c.old and rows[c.row][0][place] == c.new == rows[c.row][1][place]]


def _swapped(changed: ChangedRows, column: Column, place: int, hits: Sequence[Cell]) -> Suspicion | None:
    distinct = len({c.new for c in hits})
    if len(hits) < LEAST or distinct < 2:
        return None
    compared = [c for c in column.both if (value := changed.rows[c.row][0][place]) and value != c.old]
    if not at_least(len(hits), len(compared), PURE_PERCENT):
        return None
    source = changed.fields[place].name
    return Suspicion(
        rule=Rule.COLUMNS_SWAPPED,
        column=column.name,
        what=f"gets the values of {source}",
        hits=changed.scaled(len(hits)),
        estimated_from=changed.looked_at,
        distinct=distinct,
        bases=(Base(Among.BOTH, column.name, other=source),),
        examples=examples_of(hits),
        floor=0 if len(hits) >= SURE else 50,
    )
