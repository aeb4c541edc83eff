"""What the guard has to know of the values of an export: the rows that change, and how many rows each suspicion is to be weighed against.

Nothing is asked of an export that changes nothing, and known rows are counted only where a rule has seen its signature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import assert_never
from zoneinfo import ZoneInfo

from psycopg import sql

from archisync.rules.changedrows import LOOKED_AT, Among, Base, ChangedRows, Suspicion, first_look
from archisync.rules.guard import Notation, Plan, Weighed
from archisync.rules.shuffles import shuffled
from archisync.rules.suspicions import in_order, suspect
from archisync.rules.synctypes import Kind
from archisync.store.database import Params, one
from archisync.sync import planning
from archisync.sync.comparison import Comparison
from archisync.sync.target import Target, comma


def weighed_suspicions(
    target: Target, comparison: Comparison, plan: Plan, *, now: datetime, zone: ZoneInfo
) -> list[Weighed]:
    """What looks wrong in the rows that would change."""
    if plan.changed < LEAST_CHANGED:
        return []
    found = _found(target, lambda most: _changed_rows(target, comparison, plan, most, now=now, zone=zone), plan)
    bases = dict.fromkeys(base for seen in found for base in seen.bases)
    if not bases:
        return []
    counts = dict(zip(bases, _count(target, comparison, list(bases), zone), strict=True))
    return [Weighed(suspicion=seen, whole=sum(counts[base] for base in seen.bases)) for seen in found]


def _changed_rows(
    target: Target, comparison: Comparison, plan: Plan, most: int, *, now: datetime, zone: ZoneInfo
) -> ChangedRows:
    sample = comparison.changed_rows(most)
    return ChangedRows(
        fields=target.columns,
        rows=sample.rows,
        changed=sample.of,
        known=plan.known,
        now=now,
        zone=zone,
        blank=comparison.staged.blank,
    )


def _found(target: Target, look: Callable[[int], ChangedRows], plan: Plan) -> list[Suspicion]:
    """At more rows where some look wrong. Also columns whose values are in other rows, which no part of the rows can show: such a part is
    of an export in the stage. `look` gives so many of the changed rows at the most, of such an export."""
    changed = look(first_look(plan.changed))
    seen = suspect(changed)
    if changed.in_part and (seen.suspicions or seen.perhaps_shuffled):
        changed = look(LOOKED_AT)
        seen = suspect(changed)
    if not seen.perhaps_shuffled:
        return seen.suspicions
    closer = [(column, planning.reordering(target, column.name)) for column in seen.perhaps_shuffled]
    found = [suspicion for column, how in closer if (suspicion := shuffled(changed, column, how)) is not None]
    return in_order([*seen.suspicions, *found])


def notations(target: Target, comparison: Comparison, plan: Plan) -> list[Notation]:
    """Columns of which numbers were rejected because they are written as the other locale does, and what speaks against it."""
    staged = comparison.staged
    comma = staged.locale == "iso"
    setting = f"ARCHISYNC_LOCALE_{target.type.name.upper()}={'it' if comma else 'iso'}"
    return [
        Notation(column=name, other=other, own=_decimals(target, comparison, plan, name), comma=comma, setting=setting)
        for name, other in staged.other_notation.items()
    ]


def _decimals(target: Target, comparison: Comparison, plan: Plan, name: str) -> int:
    """Numbers of the export that prove the notation in which it was read. Of rows that were not read again, because their lines are known,
    as many as the table has on average."""
    staged = comparison.staged
    if not staged.loaded and not staged.known:
        return comparison.decimals(name)
    in_table = target.count(
        "select count(*) as n from {table} t where {mine} and t.absent_since is null and scale({column}) not in (0, 3)",
        column=sql.Identifier("t", name),
    )
    return comparison.decimals(name) + (in_table if staged.loaded else in_table * staged.known // max(plan.known, 1))


LEAST_CHANGED = 2
"""Fewer changed rows show no rule anything."""


def _count(target: Target, comparison: Comparison, bases: Sequence[Base], zone: ZoneInfo) -> list[int]:
    """The known rows of each base that the export still has."""
    condition, params = comparison.staying()
    statement = target.statement(
        "select {counts} from {table} t where {all} and t.absent_since is null and {staying}",
        counts=comma(
            sql.SQL("count(*) filter (where {}) as {}").format(_among(base, target), sql.Identifier(f"base_{number}"))
            for number, base in enumerate(bases)
        ),
        all=target.mine("t"),
        staying=condition,
    )
    named: Params = {"zone": zone.key}
    return list(one(target.db, statement, target.params | named | params).values())


def _among(base: Base, target: Target) -> sql.Composable:
    """The condition for a row of the base."""
    column = sql.Identifier("t", base.column)
    kind = target.type.field(base.column).kind
    match base.among:
        case Among.FILLED:
            condition = "{column} is not null"
        case Among.EMPTY:
            condition = "{column} is null"
        case Among.TRUE:
            condition = "{column}"
        case Among.ACCENTED:
            condition = "{column} ~ '[^\\x01-\\x7f]'"
        case Among.MARKED:
            condition = "{column} ~ '[&<>\"'']'"
        case Among.LONGER:
            condition = "length({column}) > {length}"
        case Among.ZEROS:
            condition = "{column} ~ '^0+[1-9][0-9]*$'"
        case Among.FRACTIONS:
            condition = "{column} <> trunc({column})"
        case Among.EXCHANGEABLE:
            local = "{column} at time zone %(zone)s" if kind is Kind.TIMESTAMP else "{column}"
            condition = f"extract(day from {local}) <= 12 and extract(day from {local}) <> extract(month from {local})"
        case Among.BOTH:
            condition = "{column} <> {other}"
            if kind in (Kind.NUMBER, Kind.INTEGER):
                condition += " and {column} <> 0 and {other} <> 0"
        case _:
            assert_never(base.among)
    return sql.SQL(condition).format(
        column=column, other=sql.Identifier("t", base.other or base.column), length=sql.Literal(base.length)
    )
