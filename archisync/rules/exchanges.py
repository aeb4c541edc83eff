"""Values that are in the export, in the wrong column. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

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
    seen_in,
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
            if len(hits) >= LEAST and (seen := _swapped(changed, column, place, hits)) is not None:
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
    if distinct < 2:
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


LEAST_COPIED = 5
_PROBED, _PROBED_FIRST = 20, 4


def columns_copied(changed: ChangedRows, columns: Sequence[Column]) -> Iterator[Suspicion]:
    """A text gets another column's of its row, which may stay; or both are in one, or one is in both parts."""
    for column in columns:
        if column.field.kind not in TEXTS or column.field.role is not None or len(column.both) < LEAST_COPIED:
            continue
        probed = column.both[:: len(column.both) // _PROBED + 1]
        for place, field in enumerate(changed.fields):
            if field.kind not in TEXTS or field.name == column.name or field.role is Role.ENUM:
                continue
            if not any(_may_show(changed, cell, place) for cell in probed[:_PROBED_FIRST]):
                continue
            for what, is_so in _COPIES.items():
                if sum(_shows(changed, cell, place, is_so) for cell in probed) * 2 > len(probed):
                    hits = [cell for cell in column.both if _shows(changed, cell, place, is_so)]
                    if _are_copies(changed, column, hits, place):
                        yield seen_in(
                            changed,
                            column,
                            hits,
                            Rule.COLUMNS_SWAPPED,
                            what.format(field.name),
                            base=Base(Among.FILLED, column.name),
                            floor=50,
                        )


def _are_copies(changed: ChangedRows, column: Column, hits: Sequence[Cell], place: int) -> bool:
    """Not one text, such as a country, that is added everywhere."""
    others = {side[place] for cell in hits for side in changed.rows[cell.row]}
    return (
        len({cell.new for cell in hits}) >= LEAST_COPIED
        and len(others) >= LEAST_COPIED
        and at_least(len(hits), len(column.both), PURE_PERCENT)
    )


def _may_show(changed: ChangedRows, cell: Cell, place: int) -> bool:
    """Quickly, for nearly no two columns are copies."""
    before, now = (row[place] for row in changed.rows[cell.row])
    return bool((before and str(before) in str(cell.new)) or (now and str(cell.old).endswith(str(now))))


def _shows(changed: ChangedRows, cell: Cell, place: int, is_so: Callable[[str, str, str, str], bool]) -> bool:
    before, now = (str(row[place] or "") for row in changed.rows[cell.row])
    return is_so(str(cell.old), str(cell.new), before, now)


def _copied(old: str, new: str, before: str, _: str) -> bool:
    return new == before != old


def _glued(old: str, new: str, before: str, _: str) -> bool:
    return len(before) > 1 and old in new and before in new and 0 <= len(new) - len(old) - len(before) <= LONGEST_GLUE


def _split(old: str, new: str, _: str, now: str) -> bool:
    return (
        bool(now) and old.startswith(new) and old.endswith(now) and 0 <= len(old) - len(new) - len(now) <= LONGEST_GLUE
    )


LONGEST_GLUE = 3
_COPIES: Mapping[str, Callable[[str, str, str, str], bool]] = MappingProxyType(
    {
        "gets the values of {}": _copied,
        "has the values of {} in it": _glued,
        "loses its end to {}": _split,
    }
)
"""What is said of the other column, and whether it is so: old and new text of the column, then of the other one."""
