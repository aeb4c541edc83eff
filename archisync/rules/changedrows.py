"""The rows that an export changes, column by column: what the guard's rules about values look at. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import NamedTuple

from archisync.rules.reasons import Rule
from archisync.rules.synctypes import Field, Kind
from archisync.rules.values import Value

LEAST = 3
"""Changed cells of a column below which no rule looks at it, garbled text apart."""
FIRST_LOOKED_AT, LOOKED_AT = 300, 1_000
"""Changed rows that are looked at first, and where those look wrong: a share of 1,000 is nearly always that of all to within 3 %."""
GLANCED_AT = 60
"""Cells of a column that are looked at first."""
PURE_PERCENT = 60
"""Of a column's changed values so many must bear a rule's signature; the others are the day's usual changes."""
SHOWN_EXAMPLES = 3
_SHOWN_CHARS = 60
TEXTS = (Kind.TEXT, Kind.IDENTIFIER)
NUMBERS = (Kind.NUMBER, Kind.INTEGER)
DAYS = (Kind.DATE, Kind.TIMESTAMP)


def first_look(changed: int) -> int:
    """How many of so many changed rows are looked at first: more of many, so that one that got another's value is among them with it."""
    return min(max(FIRST_LOOKED_AT, math.isqrt(10 * changed)), LOOKED_AT)


class Cell(NamedTuple):
    """A cell that changes. `row`: the number of its row."""

    row: int
    old: Value
    new: Value


class Column(NamedTuple):
    """A column's changed cells. `both`: those that had a value and have one; `olds` and `news`: the different values that they had, and
    have."""

    field: Field
    cells: Sequence[Cell]
    both: Sequence[Cell]
    olds: Set[Value]
    news: Set[Value]

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def glance(self) -> Column:
        """The same with GLANCED_AT of its cells at the most, the same ones each time."""
        if len(self.cells) <= GLANCED_AT:
            return self
        return column_of(self.field, random.Random(len(self.cells)).sample(self.cells, GLANCED_AT))  # noqa: S311  # no secret


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedRows:
    """`rows`: old and new values of rows that an export changes, in the order of `fields`; all of them, or some of `changed`.

    `known`: all rows that are known. `blank`: for a boolean column the empty cells among the changed rows, at most: a No that is written is
    no missing value. `now` and `zone` (of exports that name none) tell what is near today.
    """

    fields: Sequence[Field]
    rows: Sequence[tuple[Sequence[Value], Sequence[Value]]]
    changed: int
    known: int
    now: datetime
    zone: tzinfo = UTC
    blank: Mapping[str, int] = field(default_factory=dict)

    @property
    def in_part(self) -> bool:
        """Whether there are changed rows that are not looked at."""
        return self.changed > len(self.rows)

    @property
    def looked_at(self) -> tuple[int, int] | None:
        """How many of the changed rows are looked at; None for all."""
        return (len(self.rows), self.changed) if self.in_part else None

    def scaled(self, number: int) -> int:
        """Of all changed rows, when it is this number in those that were looked at."""
        return round(number * self.changed / len(self.rows)) if self.in_part else number

    def part(self, size: int) -> ChangedRows:
        """The same, with so many of the rows at the most, the same ones each time: of all places, for an export's lines may alternate."""
        if len(self.rows) <= size:
            return self
        draw = random.Random(len(self.rows))  # noqa: S311  # no secret
        return replace(self, rows=draw.sample(self.rows, size))

    def columns(self, least: int) -> Iterator[Column]:
        """The columns with at least so many changed cells."""
        if not self.rows:
            return
        before, after = (list(zip(*side, strict=True)) for side in zip(*self.rows, strict=True))
        for changed, olds, news in zip(self.fields, before, after, strict=True):
            if olds == news:  # nearly all columns of nearly all exports
                continue
            cells = [Cell(row, old, new) for row, (old, new) in enumerate(zip(olds, news, strict=True)) if old != new]
            if len(cells) >= least:
                yield column_of(changed, cells)


def column_of(field: Field, cells: Sequence[Cell]) -> Column:
    both = [c for c in cells if c.old is not None and c.new is not None]
    return Column(field, cells, both, {c.old for c in cells}, {c.new for c in cells})


class Among(StrEnum):
    """The rows, of those that are known, of which a share is taken."""

    FILLED = "that have a value"
    EMPTY = "without a value"
    TRUE = "with a yes"
    ACCENTED = "with accents"
    MARKED = "with &, < or quotes"
    LONGER = "with a longer value"
    ZEROS = "with a leading zero"
    FRACTIONS = "with decimals"
    EXCHANGEABLE = "where that is another date"
    BOTH = "that have both, and different ones"


class Base(NamedTuple):
    """Rows to count. `other`: the second column of BOTH; `length`, in characters, of LONGER."""

    among: Among
    column: str
    other: str = ""
    length: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspicion:
    """What a rule has seen in the changed rows; whether it holds depends on how many rows it might have seen it in.

    `hits` rows, with `distinct` old values, of those in `bases` together. `what` is a sentence without values. `floor`: hold above this
    share even where the threshold is lower; `many_values`: only where the column has several. `estimated_from`: the rows that were looked
    at, and those that change, where `hits` is estimated.
    """

    rule: Rule
    column: str
    what: str
    hits: int
    distinct: int
    bases: tuple[Base, ...]
    examples: tuple[tuple[str, str], ...]
    floor: int = 0
    many_values: bool = False
    estimated_from: tuple[int, int] | None = None


def seen_in(
    changed: ChangedRows,
    column: Column,
    cells: Sequence[Cell],
    rule: Rule,
    what: str,
    *,
    base: Base,
    floor: int = 0,
    many_values: bool = False,
) -> Suspicion:
    """What a rule has seen in these cells of one column."""
    return Suspicion(
        rule=rule,
        column=column.name,
        what=what,
        hits=changed.scaled(len(cells)),
        estimated_from=changed.looked_at,
        distinct=len({cell.old for cell in cells}),
        bases=(base,),
        examples=examples_of(cells),
        floor=floor,
        many_values=many_values,
    )


def examples_of(cells: Sequence[Cell]) -> tuple[tuple[str, str], ...]:
    """Some old and new values for people to read, different ones first."""
    different = dict.fromkeys((_short(shown(cell.old) or ""), _short(shown(cell.new) or "")) for cell in cells)
    return tuple(list(different)[:SHOWN_EXAMPLES])


def shown(value: Value) -> str | None:
    """A value as people read it, and as PostgreSQL writes it into JSON."""
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            text = value.isoformat()
            return f"{text[:26].rstrip('0')}{text[26:]}" if value.microsecond else text
        case None:
            return None
        case _:
            return str(value)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def at_least(part: int, whole: int, percent: int) -> bool:
    return part * 100 >= whole * percent
