"""The statements that declare a type of the company's own, change it, or take it away: each is complete, so that they can be shown too.

The caller executes them in one transaction that holds `migrations.LOCK_KEY`: `db migrate` waits for it, and a second `type apply`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from archisync.base.errors import ConfigurationError
from archisync.rules.declarationtext import as_json, fingerprint
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, OwnType, Scope, SyncType
from archisync.rules.typechanges import Changes
from archisync.store import typetables
from archisync.store.database import Database, one
from archisync.store.migrations import LOCK_KEY

LOCK_TIMEOUT_S = 5
"""How long the statements wait for a worker that writes to the table: whoever else wants it waits behind them."""

# Purpose: what there is under the table's name. Caller: existing_table. No locks.
SQL_TABLE = """
select c.relkind::text as kind, exists (select from system.sync_types t where t.table_name = %(table)s) as taken,
       to_regnamespace(%(schema)s) is not null as has_schema
  from (select) x left join pg_class c on c.oid = to_regclass(%(table)s)
"""
# Purpose: the columns of a table that is to be adopted. Caller: existing_table. No locks.
SQL_COLUMNS = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull and not a.atthasdef and a.attidentity = '' as filled
  from pg_attribute a where a.attrelid = to_regclass(%(table)s) and a.attnum > 0 and not a.attisdropped
"""
# Purpose: the column lists of a table's unique indexes. Caller: existing_table. No locks.
SQL_KEYS = """
select (select array_agg(a.attname::text) from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any (i.indkey)) as names
  from pg_index i where i.indrelid = to_regclass(%(table)s) and i.indisunique and i.indpred is null and i.indexprs is null and i.indisvalid
"""
# Purpose: who may do what with a table, its owner included, but not the owner of the other one, if there is one. Caller: grants. No locks.
SQL_RIGHTS = """
select r.rolname as role, array_agg(distinct a.privilege_type) as privileges, a.grantee = c.relowner as owns
  from pg_class c cross join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a join pg_roles r on r.oid = a.grantee
 where c.oid = to_regclass(%(model)s)
   and a.grantee is distinct from (select x.relowner from pg_class x where x.oid = to_regclass(%(table)s))
 group by 1, 3 order by 3, 1
"""
_EQUAL = {"character varying": "text", "timestamp with time zone": "timestamptz"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Existing:
    """A table that is there already: its columns and their types, those that must be filled, and the keys that it enforces."""

    columns: Mapping[str, str]
    filled: frozenset[str]
    keys: Sequence[frozenset[str]]


def existing_table(db: Database, type_: SyncType, *, file: str) -> Existing | None:
    """The table under the type's name; None when there is none. Raises ConfigurationError when it can't be the type's."""
    params = {"table": type_.table, "schema": type_.table.partition(".")[0]}
    found = one(db, SQL_TABLE, params)
    if not found["has_schema"]:
        raise ConfigurationError(
            f"{file}: table: there is no schema {params['schema']}", hint=f"create schema {params['schema']}"
        )
    if found["kind"] is None:
        return None
    if found["taken"]:
        raise ConfigurationError(f"{file}: table: {type_.table} is another type's", hint="archisync type list")
    if not type_.adopt:
        raise ConfigurationError(
            f"{file}: table: {type_.table} exists, and is no table of archisync",
            hint="adopt = true takes it over, if its columns fit: nothing is dropped; or choose another name",
        )
    if found["kind"] not in ("r", "p"):
        raise ConfigurationError(
            f"{file}: table: {type_.table} is a view or the like", hint="only a table can be adopted"
        )
    rows = db.execute(SQL_COLUMNS, params).fetchall()
    return Existing(
        columns={row["name"]: _short(row["type"]) for row in rows},
        filled=frozenset(row["name"] for row in rows if row["filled"]),
        keys=[frozenset(row["names"]) for row in db.execute(SQL_KEYS, params).fetchall()],
    )


def adopt(type_: SyncType, table: Existing, *, file: str) -> list[sql.Composed]:
    """What a table that was there lacks. Raises ConfigurationError when its columns don't fit."""
    wanted = {field.name: typetables.COLUMN_TYPE[field.kind] for field in type_.fields}
    if type_.scope is Scope.AGENT:
        wanted["agent_id"] = "text"
        if "agent_id" not in table.columns:
            _misfit(type_, file, "it has no column agent_id", "add it, and fill it with the id of each row's agent")
    bookkeeping = {name: rest.split(" ")[0] for name, rest in typetables.BOOKKEEPING.items()}
    for name, kind in (wanted | bookkeeping).items():
        if table.columns.get(name, kind) != kind:
            _misfit(
                type_,
                file,
                f"its column {name} is {table.columns[name]}, not {kind}",
                "another kind in the file, or alter the column",
            )
    if foreign := sorted(table.filled - {*wanted, *bookkeeping}):
        _misfit(type_, file, f"its column {foreign[0]} must be filled, and no field is", "give the column a default")
    added = [typetables.column(f, type_) for f in type_.fields if f.name not in table.columns]
    added += [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(rest))
        for name, rest in typetables.BOOKKEEPING.items()
        if name not in table.columns
    ]
    parts: list[sql.Composable] = [sql.SQL("add column {}").format(column) for column in added]
    if type_.scope is Scope.AGENT:
        parts.append(
            sql.SQL("alter column agent_id set default nullif(current_setting('archisync.agent_id', true), '')")
        )
    parts += [
        _default(field.name, field.empty)
        for field in type_.fields
        if field.empty is not None and field.name in table.columns
    ]
    if frozenset(typetables.key_columns(type_)) not in table.keys:
        parts.append(sql.SQL("add {}").format(typetables.unique_key(type_)))
    return [_alter(type_, parts), *typetables.indexes(type_, type_.fields), *typetables.triggers(type_)]


def _misfit(type_: SyncType, file: str, reason: str, hint: str) -> None:
    raise ConfigurationError(f"{file}: table: {type_.table} can't be adopted: {reason}", hint=hint)


def _default(name: str, empty: str) -> sql.Composed:
    return sql.SQL("alter column {} set default {}").format(sql.Identifier(name), sql.Literal(empty))


def _alter(type_: SyncType, parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL("alter table {}\n  {}").format(typetables.table_of(type_), sql.SQL(",\n  ").join(parts))


def extend(type_: SyncType, changes: Changes, columns: Mapping[str, str], *, file: str) -> list[sql.Composed]:
    """What turns the table from one declaration to the next. `columns`: those that it has, and their types."""
    for field in changes.added:
        kind = typetables.COLUMN_TYPE[field.kind]
        if columns.get(field.name, kind) != kind:
            raise ConfigurationError(
                f"{file}: fields.{field.name}: the table has a column of that name, which is {columns[field.name]}, not {kind}",
                hint="choose another name, or drop the column if nobody needs it",
            )
    parts: list[sql.Composable] = [
        sql.SQL("add column {} {}").format(sql.Identifier(f.name), sql.SQL(typetables.COLUMN_TYPE[f.kind]))
        for f in changes.added
        if f.name not in columns
    ]
    parts += [sql.SQL("alter column {} drop not null").format(sql.Identifier(name)) for name in changes.loosened]
    return [*([_alter(type_, parts)] if parts else []), *typetables.indexes(type_, changes.indexed)]


def columns_of(db: Database, type_: SyncType) -> dict[str, str]:
    """The columns that the type's table has, and their types."""
    rows = db.execute(SQL_COLUMNS, {"table": type_.table}).fetchall()
    return {row["name"]: _short(row["type"]) for row in rows}


def _short(kind: str) -> str:
    """A column's type as `typetables` names it."""
    return _EQUAL.get(kind, kind)


def register(type_: SyncType, *, who: str, interval_minutes: int, levels: Mapping[str, int]) -> list[sql.Composed]:
    """The type's row, its settings, its pairs, and the `levels` of all types."""
    values = (
        type_.name,
        type_.scope.value,
        type_.level,
        type_.table,
        interval_minutes,
        as_json(type_),
        fingerprint(type_),
        who,
    )
    statements = [
        sql.SQL(
            "insert into system.sync_types (sync_type, scope, level, table_name, default_minutes, declaration, sha256, declared_by)\n"
            "values ({})\n"
            "on conflict (sync_type) do update set declaration = excluded.declaration, sha256 = excluded.sha256,\n"
            "  declared_by = excluded.declared_by, declared_at = system.clock()"
        ).format(sql.SQL(", ").join(map(sql.Literal, values))),
        *(
            sql.SQL("update system.sync_types set level = {} where sync_type = {} and level <> {}").format(
                sql.Literal(level), sql.Literal(name), sql.Literal(level)
            )
            for name, level in levels.items()
        ),
        sql.SQL(
            "insert into system.sync_settings (sync_type, interval_minutes) values ({}, {}) on conflict (sync_type) do nothing"
        ).format(sql.Literal(type_.name), sql.Literal(interval_minutes)),
    ]
    return [*statements, *_pairs(type_)]


def _pairs(type_: SyncType) -> list[sql.Composed]:
    """A pair for each agent on the whitelist. The lock waits for whoever puts an agent on it just now, and does not see the type yet."""
    if type_.scope is Scope.SHARED:
        whose: sql.Composable = sql.SQL("values ({}, {})").format(sql.Literal(type_.name), sql.Literal(SHARED_AGENT))
        locks = []
    else:
        whose = sql.SQL("select {}, id::text from agents.users where whitelisted order by id").format(
            sql.Literal(type_.name)
        )
        locks = [sql.SQL("lock table agents.users in share row exclusive mode").format()]
    insert = sql.SQL("insert into system.sync_state (sync_type, agent_id)\n{} on conflict do nothing").format(whose)
    return [*locks, insert]


def set_interval(type_: SyncType, minutes: int) -> sql.Composed:
    return sql.SQL(
        "update system.sync_settings set interval_minutes = {}, updated_at = system.clock() where sync_type = {}"
    ).format(sql.Literal(minutes), sql.Literal(type_.name))


def grants(db: Database, type_: SyncType, *, adopted: bool) -> list[sql.Composed]:
    """Whoever has rights on the table of a type that comes with archisync gets the same on this one. A new table belongs to whoever owns
    that one, so that somebody else may create it; one that was there keeps its owner."""
    model = next(t for t in map(SYNC_TYPES.__getitem__, SYNC_TYPES.built_in) if t.scope is type_.scope)
    table, schema = typetables.table_of(type_), sql.Identifier(type_.table.partition(".")[0])
    statements = []
    for row in db.execute(SQL_RIGHTS, {"model": model.table, "table": type_.table}).fetchall():
        role, privileges = sql.Identifier(row["role"]), sql.SQL(", ".join(sorted(row["privileges"])).lower())
        if row["owns"] and not adopted:
            statements.append(sql.SQL("alter table {} owner to {}").format(table, role))
        else:
            statements.append(sql.SQL("grant usage on schema {} to {}").format(schema, role))
            statements.append(sql.SQL("grant {} on {} to {}").format(privileges, table, role))
    return statements


def alone() -> list[sql.Composed]:
    """What comes first: nobody else declares a type or migrates meanwhile, and whoever has a table locked is waited for a moment only."""
    return [
        sql.SQL("select pg_advisory_xact_lock({})").format(sql.Literal(LOCK_KEY)),
        sql.SQL("set local lock_timeout = {}").format(sql.Literal(f"{LOCK_TIMEOUT_S}s")),
    ]


def still(type_: SyncType, known: OwnType | None) -> sql.Composed:
    """An error, unless the type is declared as it is `known`."""
    return sql.SQL(
        "do $$ begin\n"
        "  if (select sha256 from system.sync_types where sync_type = {}) is distinct from {} then\n"
        "    raise exception using message = {}, hint = {};\n"
        "  end if;\nend $$"
    ).format(
        sql.Literal(type_.name),
        sql.Literal(known.sha256 if known else None),
        sql.Literal(f"the type {type_.name} was declared by somebody else meanwhile"),
        sql.Literal("archisync type apply FILE --sql prints the statements for it as it is now"),
    )


def remove(type_: SyncType, *, drop_table: bool) -> list[sql.Composed]:
    """The type's schedule, state and row go; its history stays, and its table unless `drop_table`."""
    table = typetables.table_of(type_)
    name = sql.Literal(type_.name)
    end_holds = (
        "update system.held_exports set decision = coalesce(decision, 'withdrawn'),\n"
        "  decided_at = coalesce(decided_at, system.clock()), ended_at = system.clock() where ended_at is null and sync_type = {}"
    )
    statements = [sql.SQL(end_holds).format(name)]
    statements += [
        sql.SQL("delete from {} where sync_type = {}").format(sql.Identifier("system", of), name)
        for of in ("sync_settings", "pauses", "outside_changes", "applied_exports", "sync_state")
    ]
    if drop_table:
        statements.append(sql.SQL("drop table {}").format(table))
    else:
        statements += [
            sql.SQL("drop trigger if exists {} on {}").format(sql.Identifier(trigger), table)
            for trigger in typetables.TRIGGERS
        ]
    return [*statements, sql.SQL("delete from system.sync_types where sync_type = {}").format(name)]
