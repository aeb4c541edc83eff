"""What applying a staged export would do: counted and sampled before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg
from psycopg import sql

from archisync.rules.guard import Plan
from archisync.rules.values import Value
from archisync.sync.copying import LONG_GONE, SAMPLE_SIZE, Staged
from archisync.sync.target import Target, columns_of, comma

MOST_CHANGED = 2_000
"""Changed rows that the guard looks at; it finds in so many what it would find in all."""


def make_plan(target: Target, staged: Staged) -> Plan:
    """What `apply.write` would do; after `load_first`, what that has done."""
    if staged.loaded:
        return Plan(new=staged.valid)
    row = target.row(
        # Compared once, and not in each filter. `rewrites` is null where nothing changes.
        "with r as materialized ("
        " select s.ok, t.absent_since is not null as gone, {long_gone} as long_gone,"
        " case when s.ok and {changed} then {rewritten} end as rewrites"
        "   from {table} t left join {stage} s on {same} where {mine})"
        " select count(*) filter (where not gone) as known,"
        " count(*) filter (where ok is null and not gone) as missing,"
        " count(*) filter (where ok is null and gone) as gone,"
        " count(*) filter (where ok is null and long_gone) as long_gone,"
        " count(*) filter (where ok is not null and gone) as restored,"
        " count(*) filter (where ok) as matched,"
        " count(*) filter (where rewrites is not null) as changed,"
        " count(*) filter (where rewrites and not gone) as rewritten"
        " from r",
        rewritten=_rewritten(target),
        long_gone=LONG_GONE,
    )
    return Plan(
        known=row["known"] + staged.known,
        vanishing=0 if staged.missing else row["missing"],
        deleted=0 if staged.missing else row["long_gone" if staged.unkeyed else "gone"],
        restored=row["restored"],
        changed=row["changed"],
        rewritten=row["rewritten"],
        new=staged.valid - staged.known - row["matched"],
    )


def _rewritten(target: Target) -> sql.Composable:
    """Whether more than half of the filled columns, and at least two, get another value. With one column alone, every new price list
    would be a rewrite."""
    if not target.value_columns:
        return sql.SQL("false")
    different = comma(
        sql.SQL("case when {t} is distinct from {s} then {t} end").format(
            t=sql.Identifier("t", field.name), s=sql.Identifier("s", field.name)
        )
        for field in target.value_columns
    )
    return sql.SQL("2 * num_nonnulls({}) > greatest(num_nonnulls({}), 2)").format(
        different, columns_of("t", target.value_columns)
    )


class ChangedSample(NamedTuple):
    """Old and new values of rows, in the order of the target's columns: one in `parts` of those that would change."""

    rows: Sequence[tuple[Sequence[Value], Sequence[Value]]] = ()
    parts: int = 1


def changed_rows(target: Target, plan: Plan) -> ChangedSample:
    """All known rows that would change, or, of more than MOST_CHANGED, about so many, by a hash of their keys."""
    number, parts = len(target.columns), -(-plan.changed // MOST_CHANGED)
    # First the join of all rows, as in make_plan, then the conditions: where the planner has no statistics of the table, it expects one
    # row of all conditions together, and compares each row with each.
    statement = target.statement(
        "with r as materialized ("
        " select t.tableoid as part, t.ctid as place, s.ctid as staged,"
        "        s.ok and t.absent_since is null and (hash_record(row({key})) & 2147483647) %% {parts} = 0 and {changed} as wanted"
        "   from {table} t left join {stage} s on {same} where {mine})"
        " select {old}, {new} from r join {table} t on t.tableoid = r.part and t.ctid = r.place join {stage} s on s.ctid = r.staged"
        "  where r.wanted",
        old=columns_of("t", target.columns),
        new=columns_of("s", target.columns),
        key=comma(sql.Identifier("s", name) for name in target.type.key),
        parts=sql.Literal(parts),
    )
    try:
        rows = target.tuples(statement.as_bytes(target.db), target.params)
    except psycopg.DataError as exc:
        if exc.sqlstate is not None:
            raise
        return ChangedSample()  # somebody else wrote a value that Python has no object for: the date infinity, say
    return ChangedSample([(row[:number], row[number:]) for row in rows], parts)


def decimals(target: Target, name: str) -> int:
    """Staged numbers of the column with decimals, but not three of them."""
    return target.count(
        "select count(*) as n from {stage} s where s.ok and scale({column}) not in (0, 3)",
        column=sql.Identifier("s", name),
    )


def sample_changes(target: Target, staged: Staged) -> list[dict[str, object]]:
    """Some rows that would change: the key, and for each changed field the old and the new value as text."""
    if staged.loaded or staged.conflicting:
        return []
    statement = target.statement(
        "select array[{key}] as key, (select jsonb_object_agg(o.key, jsonb_build_array(o.value #>> '{{}}', n.value #>> '{{}}'))"
        "   from jsonb_each(to_jsonb(t)) o join jsonb_each(to_jsonb(s)) n on n.key = o.key"
        "  where o.key = any (%(fields)s::text[]) and o.value is distinct from n.value) as fields"
        " from {table} t join {stage} s on {same} where {mine} and s.ok and {changed} order by 1 limit {size}",
        key=target.key_as_text,
        size=sql.Literal(SAMPLE_SIZE),
    )
    rows = target.db.execute(statement, target.params | {"fields": [f.name for f in target.value_columns]}).fetchall()
    return [{"key": row["key"], "fields": row["fields"] or {}} for row in rows]


def sample_vanishing(target: Target, staged: Staged) -> list[list[str]]:
    """The keys of some known rows that the export does not have."""
    if staged.loaded:
        return []
    statement = target.statement(
        "select array[{key}] as key from {table} t where {mine} and t.absent_since is null and not {present}"
        " order by 1 limit {size}",
        key=target.key_as_text,
        size=sql.Literal(SAMPLE_SIZE),
    )
    return [row["key"] for row in target.db.execute(statement, target.params).fetchall()]
