"""Writing a small difference: one statement for all kinds of changes.

Records are one JSON document, keys are arrays (`Target.unnest_keys`). PostgreSQL takes a document for a hundred records, however many it
has, and so keeps the plan of the prepared statement.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import psycopg
from psycopg import sql

from archisync.rules.synctypes import Scope
from archisync.store.database import Params
from archisync.store.typetables import COLUMN_TYPE
from archisync.sync.records import Record
from archisync.sync.suppressed import replaced
from archisync.sync.target import Key, Target, comma


class Changes:
    """Changes of an agent's rows, collected by kind. No two touch the same row."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._names: list[str] = []
        self._params: Params = {}

    def delete(self, keys: Sequence[Key]) -> None:
        self._add("deleted", self._target.key_arrays("deleted", keys))

    def mark_absent(self, keys: Sequence[Key]) -> None:
        self._add("absent", self._target.key_arrays("absent", keys))

    def insert(self, records: Sequence[Record]) -> None:
        self._add("inserted", self._document("inserted", records))

    def update(self, records: Sequence[Record]) -> None:
        self._add("updated", self._document("updated", records))

    def restore(self, rows: Sequence[tuple[Key, bytes | None]]) -> None:
        self._add("restored", self._digest_arrays("restored", rows))

    def set_digests(self, rows: Sequence[tuple[Key, bytes | None]]) -> None:
        self._add("digests", self._digest_arrays("digests", rows))

    def execute(self) -> dict[str, int]:
        """Rows written by part. Raises WriteMismatchError when a rule of the table does something else instead."""
        if not self._names:
            return {}
        statement = self._target.compiled(" ".join(self._names), lambda: _writing(self._target, self._names))
        try:
            row = self._target.db.execute(statement, self._target.params | self._params, prepare=True).fetchone()
        except psycopg.errors.FeatureNotSupported as exc:  # what the statement asks for is in every version
            raise replaced(self._target, exc) from exc
        assert row is not None
        return dict(row)

    def _add(self, name: str, params: Params) -> None:
        self._names.append(name)
        self._params |= params

    def _digest_arrays(self, name: str, rows: Sequence[tuple[Key, bytes | None]]) -> Params:
        digests = [digest.hex() if digest else None for _, digest in rows]
        return self._target.key_arrays(name, [key for key, _ in rows]) | {f"{name}_digest": digests}

    def _document(self, name: str, records: Sequence[Record]) -> Params:
        names = [*(column.name for column in self._target.columns), "line_digest"]
        rows = [
            dict(zip(names, (*record.values, record.digest.hex() if record.digest else None), strict=True))
            for record in records
        ]
        return {name: json.dumps(rows, default=str)}  # numbers, dates and times as PostgreSQL reads them


def _writing(target: Target, names: Sequence[str]) -> sql.Composed:
    """One statement of all parts, which counts the rows that each wrote."""
    parts = [sql.SQL("{} as ({} returning 1)").format(sql.Identifier(name), _part(target, name)) for name in names]
    counts = [sql.SQL("(select count(*) from {0}) as {0}").format(sql.Identifier(name)) for name in names]
    return sql.SQL("with {} select {}").format(comma(parts), comma(counts))


def _part(target: Target, name: str) -> sql.Composed:
    names = [sql.Identifier(column.name) for column in target.columns]
    match name:
        case "deleted":
            return target.statement(
                "delete from {table} t using {rows} where {mine} and t.absent_since is not null and {same}",
                rows=target.unnest_keys(name),
            )
        case "absent":
            return target.statement(
                "update {table} t set absent_since = system.clock(), line_digest = null, run_id = %(run_id)s from {rows}"
                " where {mine} and t.absent_since is null and {same}",
                rows=target.unnest_keys(name),
            )
        case "inserted":
            of_agent = target.type.scope is Scope.AGENT
            return target.statement(
                "insert into {table} ({agent_column}{names}, line_digest, run_id)"
                " select {agent_value}{names}, line_digest, %(run_id)s from {rows}",
                agent_column=sql.SQL("agent_id, " if of_agent else ""),
                agent_value=sql.SQL("%(agent_id)s, " if of_agent else ""),
                names=comma(names),
                rows=_records(target, name),
            )
        case "updated":
            values = target.value_columns
            return target.statement(
                "update {table} t set {assign}, absent_since = null, line_digest = s.line_digest, updated_at = system.clock(),"
                " run_id = %(run_id)s from {rows} where {mine} and {same}",
                assign=comma(
                    sql.SQL("{} = {}").format(sql.Identifier(c.name), sql.Identifier("s", c.name)) for c in values
                ),
                rows=_records(target, name),
            )
        case "restored":
            return target.statement(
                "update {table} t set absent_since = null, line_digest = s.line_digest, updated_at = system.clock(),"
                " run_id = %(run_id)s from {rows} where {mine} and t.absent_since is not null and {same}",
                rows=target.unnest_keys(name, with_digest=True),
            )
        case _:
            return target.statement(
                "update {table} t set line_digest = s.line_digest from {rows} where {mine} and {same}",
                rows=target.unnest_keys(name, with_digest=True),
            )


def _records(target: Target, name: str) -> sql.Composed:
    """`json_to_recordset(…) as s (columns, line_digest)`."""
    kinds = [(column.name, COLUMN_TYPE[column.kind]) for column in target.columns] + [("line_digest", "uuid")]
    columns = comma(sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in kinds)
    return sql.SQL("json_to_recordset({}::json) as s ({})").format(sql.Placeholder(name), columns)
