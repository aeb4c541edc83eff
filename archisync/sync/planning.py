"""What applying a staged export would do: counted and sampled before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg
from psycopg import sql

from archisync.rules.changedrows import LOOKED_AT
from archisync.rules.guard import Plan
from archisync.rules.shuffles import Reordering
from archisync.rules.values import Value
from archisync.store.database import Params
from archisync.sync.copying import LONG_GONE, SAMPLE_SIZE, Staged
from archisync.sync.target import Target, columns_of, comma


class Places(NamedTuple):
    """Where known rows that would change are, and the staged rows that change them, as PostgreSQL writes arrays: LOOKED_AT of them at the
    most, from all over the table. `of`: all known rows that would change."""

    tables: str
    rows: str
    staged: str
    of: int


def make_plan(target: Target, staged: Staged) -> tuple[Plan, Places | None]:
    """What `apply.write` would do; after `load_first`, what that has done. And where the changed rows are that the guard looks at."""
    if staged.loaded:
        return Plan(new=staged.valid), None
    row = target.row(
        # Compared once, and not in each filter. `rewrites` is null where nothing changes.
        "with r as materialized ("
        " select s.ok, t.absent_since is not null as gone, {long_gone} as long_gone,"
        " case when s.ok and {changed} then {rewritten} end as rewrites,"
        " t.tableoid as part, t.ctid as place, s.ctid as staged"
        "   from {table} t left join {stage} s on {same} where {mine}),"
        " looked_at as (select part, place, staged from r where rewrites is not null and not gone order by hashtid(place) limit {most})"
        " select count(*) filter (where not gone) as known,"
        " count(*) filter (where ok is null and not gone) as missing,"
        " count(*) filter (where ok is null and gone) as gone,"
        " count(*) filter (where ok is null and long_gone) as long_gone,"
        " count(*) filter (where ok is not null and gone) as restored,"
        " count(*) filter (where ok) as matched,"
        " count(*) filter (where rewrites is not null) as changed,"
        " count(*) filter (where rewrites and not gone) as rewritten,"
        " count(*) filter (where rewrites is not null and not gone) as known_changed,"
        " (select array_agg(part)::text from looked_at) as tables,"
        " (select array_agg(place)::text from looked_at) as places,"
        " (select array_agg(staged)::text from looked_at) as staged"
        " from r",
        most=sql.Literal(LOOKED_AT),
        rewritten=_rewritten(target),
        long_gone=LONG_GONE,
    )
    plan = Plan(
        known=row["known"] + staged.known,
        vanishing=0 if staged.missing else row["missing"],
        deleted=0 if staged.missing else row["long_gone" if staged.unkeyed else "gone"],
        restored=row["restored"],
        changed=row["changed"],
        rewritten=row["rewritten"],
        new=staged.valid - staged.known - row["matched"],
    )
    if not row["known_changed"]:
        return plan, None
    return plan, Places(row["tables"], row["places"], row["staged"], row["known_changed"])


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
    """Old and new values of rows, in the order of the target's columns. `of`: known rows that would change."""

    rows: Sequence[tuple[Sequence[Value], Sequence[Value]]] = ()
    of: int = 0


def changed_rows(target: Target, places: Places, most: int) -> ChangedSample:
    """The rows at so many of these places. One that somebody else has moved meanwhile is not among them."""
    number = len(target.columns)
    statement = target.compiled(
        "changed rows",
        lambda: target.statement(
            "select {old}, {new}"
            "  from unnest({tables}, {places}, {staged}) r(part, place, staged)"
            "  join {table} t on t.tableoid = r.part and t.ctid = r.place join {stage} s on s.ctid = r.staged"
            " where t.ctid = any ({places}) and s.ctid = any ({staged}) and {same}",
            tables=sql.SQL("(%(tables)s::oid[])[:%(most)s]"),
            places=sql.SQL("(%(places)s::tid[])[:%(most)s]"),
            staged=sql.SQL("(%(staged)s::tid[])[:%(most)s]"),
            old=columns_of("t", target.columns),
            new=columns_of("s", target.columns),
        ),
    )
    params: Params = {"tables": places.tables, "places": places.rows, "staged": places.staged, "most": most}
    try:
        rows = target.tuples(statement, params)
    except psycopg.DataError as exc:
        if exc.sqlstate is not None:
            raise
        return ChangedSample()  # somebody else wrote a value that Python has no object for: the date infinity, say
    return ChangedSample([(row[:number], row[number:]) for row in rows], places.of)


def reordering(target: Target, name: str) -> Reordering:
    """How the column's values are spread anew over the rows in which it would change."""
    row = target.row(
        "with c as materialized ("
        " select t.{name} as old, s.{name} as new from {table} t join {stage} s on {same}"
        "  where {mine} and s.ok and t.absent_since is null and t.{name} is distinct from s.{name}),"
        " v as (select u.value, count(*) filter (where u.was) as had, count(*) filter (where not u.was) as has"
        "   from (select old as value, true as was from c union all select new, false from c) u where u.value is not null"
        "  group by u.value)"
        " select count(*) as cells, (select greatest(count(old), count(new)) from c) as filled,"
        "  (select coalesce(sum(least(had, has)), 0)::bigint from v) as kept,"
        "  (select count(*) from v where had > 0) as olds,"
        "  (select count(*) from (select distinct old, new from c) p) as pairs from c",
        name=sql.Identifier(name),
    )
    return Reordering(**row)


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
