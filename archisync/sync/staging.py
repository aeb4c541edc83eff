"""Bringing an export into the database to be compared: the stage is a temporary table with its rows.

An agent's first export has nothing to be compared with and is copied straight into the table. Of a later one only the lines that are not
known yet need to be staged (archisync.sync.knownrows).
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from archisync.formats.knownlines import LineDigests
from archisync.store.typetables import COLUMN_TYPE
from archisync.sync.copying import Copier, Staged
from archisync.sync.records import RecordReader
from archisync.sync.target import STAGE, Target, columns_of, comma


class RepeatedKeyError(Exception):
    """A first load found a key twice. The transaction is over."""


def load_first(target: Target, records: RecordReader) -> Staged:
    """Copy the export straight into the table, which has no row of this agent.

    Raises RepeatedKeyError, and what reading raises. The transaction must have begun with `applied_exports.begin_apply`.
    """
    try:
        staged = Copier(target, records, target.table, new_digests(records), keep_bad=False).copy()
    except psycopg.errors.UniqueViolation:
        raise RepeatedKeyError from None
    staged.loaded = True
    return staged


def stage_all(target: Target, records: RecordReader) -> Staged:
    """Copy the whole export into the stage; nothing else is written. Raises what reading raises."""
    return stage(target, records, new_digests(records))


def new_digests(records: RecordReader) -> LineDigests:
    """For an export of which no line is known."""
    return LineDigests(records.line_layout)


def stage(target: Target, records: RecordReader, digests: LineDigests | None) -> Staged:
    """Copy the export into the stage, without the lines that the digests know."""
    target.db.execute(
        target.statement(
            "create temp table {stage} (ok boolean not null default true, line_digest uuid, {columns}) on commit drop",
            columns=comma(_definitions(target, records)),
        )
    )
    staged = Copier(target, records, STAGE, digests, keep_bad=True).copy()
    # Without statistics of the stage, a join with it may be planned as a loop that takes hours.
    target.db.execute(target.statement("analyze {stage} ({key})", key=comma(map(sql.Identifier, target.type.key))))
    _drop_repeated(target, staged)
    return staged


def _definitions(target: Target, records: RecordReader) -> list[sql.Composed]:
    """The stage's columns. A key field without a column in the file has its empty value as the default."""
    fields = [
        sql.SQL("{} {} default {}").format(sql.Identifier(c.name), sql.SQL(COLUMN_TYPE[c.kind]), sql.Literal(c.empty))
        for c in target.columns
    ]
    return fields + [sql.SQL("{} text").format(sql.Identifier(name)) for name in records.ignored_names]


def _drop_repeated(target: Target, staged: Staged) -> None:
    """Keep one of several identical good rows, and count the keys that still have several, with different values. Keep one quarantined row
    of a key, and none beside a good one: the key is present either way."""
    keys = comma(target.key_parts("d"))
    twice = "select count(*) as n from (select from {stage} d group by {keys} having count(*) > 1 limit 1) r"
    if not target.count(twice, keys=keys):
        return
    staged.repeated = target.count(
        """
        with gone as (
          delete from {stage} s using (
            select ctid, ok, row_number() over (partition by {keys}, ok, {row} order by ctid) as n,
                   row_number() over (partition by {keys} order by ok desc, ctid) as of_key
              from {stage} d) r
          where s.ctid = r.ctid and (r.n > 1 or (r.of_key > 1 and not r.ok))
          returning s.ok)
        select count(*) as n from gone where ok
        """,
        keys=keys,
        row=columns_of("d", target.columns),
    )
    staged.conflicting = target.count(
        "select count(*) as n from (select from {stage} d where ok group by {keys} having count(*) > 1) c", keys=keys
    )
    staged.valid = target.count(
        "select count(*) as n from (select from {stage} d where ok group by {keys}) k", keys=keys
    )
