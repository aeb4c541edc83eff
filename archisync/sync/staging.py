"""Bringing an export into the database to be compared: the stage is a temporary table with its rows.

An agent's first export has nothing to be compared with and is copied straight into the table. Of a later one only the lines that are not
known yet need to be staged (archisync.sync.knownrows).
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from archisync.formats.knownlines import LineDigests
from archisync.rules.synctypes import Kind
from archisync.sync.copying import Copier, Staged
from archisync.sync.records import RecordReader
from archisync.sync.target import STAGE, Target, columns_of, comma

SQL_TYPE = {
    Kind.TEXT: "text",
    Kind.IDENTIFIER: "text",
    Kind.NUMBER: "numeric",
    Kind.INTEGER: "bigint",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamptz",
    Kind.BOOLEAN: "boolean",
}


def load_first(target: Target, records: RecordReader) -> Staged | None:
    """Copy the export straight into the table if the table has no row of this agent.

    Returns None, and writes nothing, when it has one, or when the export has a key twice: `stage_all` then says what that means. Raises
    what reading raises. The transaction must have begun with `applied_exports.begin_apply`.
    """
    if records.ignored_names or target.count(
        "select count(*) as n from (select from {table} t where {mine} limit 1) r"
    ):
        return None
    try:
        with target.db.transaction():
            staged = Copier(target, records, target.table, new_digests(records), keep_bad=False).copy()
    except psycopg.errors.UniqueViolation:
        return None
    staged.loaded = True
    return staged


def stage_all(target: Target, records: RecordReader) -> Staged:
    """Copy the whole export into the stage; nothing else is written. Raises what reading raises."""
    return stage(target, records, new_digests(records))


def new_digests(records: RecordReader) -> LineDigests | None:
    """For an export of which no line is known; None when its rows are no lines."""
    return LineDigests(records.line_layout) if records.line_layout is not None else None


def stage(target: Target, records: RecordReader, digests: LineDigests | None) -> Staged:
    """Copy the export into the stage, without the lines that the digests know."""
    # Neither the stage nor a table that was just filled or emptied has statistics to rely on: a nested loop over it takes hours for a
    # first load. A hash join is at worst twice as slow as the best plan.
    target.db.execute("set local enable_nestloop = off; set local enable_mergejoin = off; set local jit = off")
    target.db.execute("set local work_mem = '64MB'")  # for a hash of 100,000 rows; with 4 MB it goes to disk and back
    target.db.execute(
        target.statement(
            "create temp table {stage} (ok boolean not null default true, line_digest uuid, {columns}) on commit drop",
            columns=comma(_definitions(target, records)),
        )
    )
    staged = Copier(target, records, STAGE, digests, keep_bad=True).copy()
    _drop_repeated(target, staged)
    return staged


def _definitions(target: Target, records: RecordReader) -> list[sql.Composed]:
    """The stage's columns. A key field without a column in the file has its empty value as the default."""
    fields = [
        sql.SQL("{} {} default {}").format(sql.Identifier(c.name), sql.SQL(SQL_TYPE[c.kind]), sql.Literal(c.empty))
        for c in target.columns
    ]
    return fields + [sql.SQL("{} text").format(sql.Identifier(name)) for name in records.ignored_names]


def _drop_repeated(target: Target, staged: Staged) -> None:
    """Keep one of several identical rows, and count the keys that still have several rows, with different values. Drop a quarantined
    row beside a valid one of its key: the key is present either way."""
    keys = comma(target.key_parts("d"))
    twice = "select count(*) as n from (select from {stage} d group by {keys} having count(*) > 1 limit 1) r"
    if not target.count(twice, keys=keys):
        return
    staged.repeated = target.execute(
        """
        delete from {stage} s using (
          select ctid, ok, row_number() over (partition by {keys}, ok, {row} order by ctid) as n,
                 row_number() over (partition by {keys} order by ok desc, ctid) as of_key
            from {stage} d) r
        where s.ctid = r.ctid and (r.n > 1 or (r.of_key > 1 and not r.ok))
        """,
        keys=keys,
        row=columns_of("d", target.columns),
    )
    staged.conflicting = target.count(
        "select count(*) as n from (select from {stage} d where ok group by {keys} having count(*) > 1) c", keys=keys
    )
    staged.valid = target.count("select count(*) as n from {stage} where ok")
