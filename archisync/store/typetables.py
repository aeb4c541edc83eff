"""The table of a sync type, as its declaration says: statements that make it, extend it and watch it.

Every table has, besides its fields, columns for archisync alone: when the row came and when it last changed, which run wrote it, since when
it is missing from the exports (it is deleted on the second absence in a row), and the digest of the export's line that it came from, so
that of a large export only the changed lines are read. A line with that digest says what the row says, unless system.outside_changes has a
row of the pair; NULL: compare with the row itself.

An apply names its run, agent and type in settings of its transaction. So its COPY brings the export's columns and no others, and the
condition of the trigger passes it by. What a trigger of somebody else's writes meanwhile, to this or another table, is not the apply's.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from archisync.rules.synctypes import Field, Kind, Scope, SyncType

COLUMN_TYPE = {
    Kind.TEXT: "text",
    Kind.IDENTIFIER: "text",
    Kind.NUMBER: "numeric",
    Kind.INTEGER: "bigint",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamptz",
    Kind.BOOLEAN: "boolean",
}
AGENT_COLUMN = "agent_id text not null default nullif(current_setting('archisync.agent_id', true), '')"
BOOKKEEPING = {
    "inserted_at": "timestamptz not null default system.clock()",
    "updated_at": "timestamptz not null default system.clock()",
    "run_id": "bigint default nullif(current_setting('archisync.run_id', true), '')::bigint",
    "absent_since": "timestamptz",
    "line_digest": "uuid",
}
TRIGGERS = ("archisync_changed_outside", "archisync_truncated")


def table_of(type_: SyncType) -> sql.Identifier:
    return sql.Identifier(*type_.table.split("."))


def create(type_: SyncType) -> list[sql.Composed]:
    """The statements that make the table with its indexes and triggers."""
    columns: list[sql.Composable] = [sql.SQL(AGENT_COLUMN)] if type_.scope is Scope.AGENT else []
    columns += [column(field, type_) for field in type_.fields]
    columns += [sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(rest)) for n, rest in BOOKKEEPING.items()]
    made = sql.SQL("create table {} (\n  {}\n)").format(table_of(type_), sql.SQL(",\n  ").join([*columns, key(type_)]))
    return [made, *indexes(type_, type_.fields), *triggers(type_)]


def column(field: Field, type_: SyncType) -> sql.Composed:
    """The definition of a field's column."""
    kind = sql.SQL(COLUMN_TYPE[field.kind])
    if field.empty is not None:
        return sql.SQL("{} {} not null default {}").format(sql.Identifier(field.name), kind, sql.Literal(field.empty))
    filled = field.required or (field.name in type_.key and field.name not in type_.nullable_key)
    return sql.SQL("{} {}{}").format(sql.Identifier(field.name), kind, sql.SQL(" not null" if filled else ""))


def key_columns(type_: SyncType) -> list[str]:
    return [*(["agent_id"] if type_.scope is Scope.AGENT else []), *type_.key]


def key(type_: SyncType) -> sql.Composed:
    """The constraint that makes a row one of its key."""
    return unique_key(type_) if type_.nullable_key else sql.SQL("primary key ({})").format(_names(key_columns(type_)))


def unique_key(type_: SyncType) -> sql.Composed:
    """The same where the table may have a primary key of its own."""
    return sql.SQL("unique nulls not distinct ({})").format(_names(key_columns(type_)))


def indexes(type_: SyncType, fields: Iterable[Field]) -> list[sql.Composed]:
    """An index for each field that should have no value twice. Not unique: two orders may swap numbers, or one may return under a new id
    while the old row waits for its second absence, and a constraint would then refuse that agent's exports for ever."""
    agent = ["agent_id"] if type_.scope is Scope.AGENT else []
    return [
        sql.SQL("create index on {} ({}) where {} is not null").format(
            table_of(type_), _names([*agent, field.name]), sql.Identifier(field.name)
        )
        for field in fields
        if field.distinct
    ]


def triggers(type_: SyncType) -> list[sql.Composed]:
    """What notices whoever writes to the table and is no apply."""
    return [
        sql.SQL(template).format(table=table_of(type_), name=sql.Literal(type_.name))
        for template in (
            "create trigger archisync_changed_outside after insert or update or delete on {table} for each row\n"
            "  when (pg_trigger_depth() > 0 or coalesce(current_setting('archisync.sync_type', true), '') <> {name})\n"
            "  execute function system.changed_outside({name})",
            "create trigger archisync_truncated after truncate on {table} for each statement\n"
            "  execute function system.truncated_outside({name})",
            "alter table {table} enable always trigger archisync_changed_outside, enable always trigger archisync_truncated",
        )
    ]


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
