"""The rights in the database that each role of archisync needs: for `db grants`, which prints them, and `doctor`, which checks them.

Four roles without a login; accounts that log in are made their members.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from archisync.base.errors import UsageError
from archisync.store.database import Database

DEFAULT_PREFIX = "archisync"
_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Role(StrEnum):
    TICK = "tick"
    WORKER = "worker"
    OPERATOR = "operator"
    READER = "reader"


MEANING = {
    Role.TICK: "`archisync tick` and what only looks (status, metrics, doctor): queues runs, sees no row of agent data",
    Role.WORKER: "`archisync worker`: runs, and the rows of agent data",
    Role.OPERATOR: "people at the command line: tick, run, run --inline, settings, agents, held exports",
    Role.READER: "dashboards and applications: reads everything, changes nothing",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Right:
    """`privileges` as GRANT spells them, on one table, or on all of its columns but those that are `withheld`."""

    privileges: tuple[str, ...]
    table: str
    withheld: tuple[str, ...] = ()


def _on(tables: Iterable[str], *privileges: str) -> list[Right]:
    return [Right(privileges=privileges, table=table) for table in tables]


_AGENT_DATA = {"system.held_exports": ("sample", "changes", "findings"), "system.sync_runs": ("quarantined_rows",)}
"""The columns that have parts of rows: what a person needs to decide about an export, or to correct it."""


EACH_TYPE = "the table of each sync type"
"""In place of a table's name: a company has types of its own."""
_LOOK = _on(
    (
        "system.schema_migrations", "system.sync_types", "system.sync_settings", "system.pauses", "system.sync_state",
        "system.queued_runs", "system.claims", "system.sync_runs", "system.unfinished_runs", "system.runs", "system.deliveries",
        "system.ticks", "system.held_exports", "system.notices", "system.outside_changes", "system.audit", "agents.users",
    ),
    "select",
)  # fmt: skip
_TICK = [
    *(Right(privileges=r.privileges, table=r.table, withheld=_AGENT_DATA.get(r.table, ())) for r in _LOOK),
    *_on(["system.sync_state"], "update"),
    *_on(["system.queued_runs", "system.deliveries"], "insert", "update", "delete"),
    *_on(["system.claims"], "update", "delete"),
    *_on(["system.sync_runs"], "insert", "update", "delete"),
    *_on(["system.ticks"], "insert", "delete"),
    *_on(["system.pauses"], "delete"),
    *_on(["system.notices"], "update", "delete"),
]
_WORKER = [
    *_LOOK,
    *_on(["system.sync_state"], "update"),
    *_on(["system.applied_exports"], "select", "insert", "update"),
    *_on(["system.queued_runs"], "update", "delete"),
    *_on(["system.claims"], "insert", "update", "delete"),
    *_on(["system.sync_runs"], "insert", "update"),
    *_on(["system.held_exports"], "insert", "update"),
    *_on(["system.notices"], "insert"),
    *_on(["system.outside_changes"], "delete"),
    *_on([EACH_TYPE], "select", "insert", "update", "delete"),
]
_OPERATOR = [
    *_TICK,
    *_WORKER,
    *_on(["system.applied_exports"], "delete"),
    *_on(["system.sync_settings"], "update"),
    *_on(["system.pauses"], "insert", "update", "delete"),
    *_on(["agents.users"], "insert", "update", "delete"),
    *_on(["system.audit"], "insert"),
]
RIGHTS = {
    Role.TICK: _TICK,
    Role.WORKER: _WORKER,
    Role.OPERATOR: _OPERATOR,
    Role.READER: [*_LOOK, *_on([EACH_TYPE, "system.applied_exports"], "select")],
}
NEEDS_TEMPORARY = (Role.WORKER, Role.OPERATOR)
"""Exports are staged in temporary tables."""

# Purpose: the rights that the current role lacks; a table that does not exist counts as a missing right. A right on all columns but some
# is looked for column by column; `withheld` has their names, separated by commas. Caller: missing_rights. No locks.
SQL_MISSING = """
select w.privilege || ' on ' || w.tab as missing
  from unnest(%(privileges)s::text[], %(tables)s::text[], %(withheld)s::text[]) with ordinality as w(privilege, tab, withheld, n)
 where to_regclass(w.tab) is null
    or not has_table_privilege(to_regclass(w.tab), w.privilege)
       and (w.withheld = '' or exists (
             select from pg_attribute a
              where a.attrelid = to_regclass(w.tab) and a.attnum > 0 and not a.attisdropped
                and a.attname::text <> all (string_to_array(w.withheld, ','))
                and not has_column_privilege(a.attrelid, a.attnum, w.privilege)))
 order by w.n
"""
_SQL_EACH_TYPE = """\
do $$ declare of_type record; begin
  for of_type in select table_name, split_part(table_name, '.', 1) as in_schema from system.sync_types order by sync_type loop
    execute format('grant usage on schema %I to {1}', of_type.in_schema);
    execute format('revoke all on %s from {1}', of_type.table_name::regclass);
    execute format('grant {0} on %s to {1}', of_type.table_name::regclass);
  end loop;
end $$;"""
# A login that may not create roles can run the rest again once they are there.
_SQL_ROLE = """\
do $$ begin
  if not exists (select from pg_roles where rolname = '{0}') then create role {0} nologin; end if;
exception
  when duplicate_object then null;
  when insufficient_privilege then raise exception '% may not create the role {0}', current_user
    using hint = 'run this as a superuser (once the roles are there, the owner of the schema may run it again): '
      'runuser -u postgres -- psql --single-transaction --set ON_ERROR_STOP=1 ' || quote_ident(current_database()) || ' -f -';
end $$;"""
_SQL_ALL_BUT = """\
do $$ begin execute (select format('grant {0} (%s) on {1} to {2}', string_agg(quote_ident(attname), ', ')) from pg_attribute
  where attrelid = '{1}'::regclass and attnum > 0 and not attisdropped and attname <> all ('{{{3}}}')); end $$;"""
# Purpose: the schemas that the current role may not use, which hides their tables. Caller: missing_rights. No locks.
SQL_SCHEMAS = """
select 'usage on schema ' || n.nspname as missing from pg_namespace n
 where n.nspname in ('system', 'agents', 'shared') and not has_schema_privilege(n.oid, 'usage') order by 1
"""
# Purpose: the tables of all sync types. Caller: missing_rights. No locks.
SQL_TYPE_TABLES = "select table_name from system.sync_types order by sync_type"
# Purpose: may the current role stage exports? Caller: missing_rights. No locks.
SQL_TEMPORARY = "select has_database_privilege(current_database(), 'temporary') as allowed, current_user as role"


def missing_rights(db: Database, role: Role) -> list[str]:
    """The rights of `role` that the connection's own role lacks, such as "update on system.sync_state"; empty when it has them all."""
    schemas = [row["missing"] for row in db.execute(SQL_SCHEMAS).fetchall()]
    if schemas:
        return schemas
    wanted = dict.fromkeys(
        (p, table, ",".join(right.withheld))
        for right in RIGHTS[role]
        for table in (_type_tables(db) if right.table == EACH_TYPE else [right.table])
        for p in right.privileges
    )
    params = {name: [right[i] for right in wanted] for i, name in enumerate(("privileges", "tables", "withheld"))}
    missing = [row["missing"] for row in db.execute(SQL_MISSING, params).fetchall()]
    temporary = db.execute(SQL_TEMPORARY).fetchone()
    if role in NEEDS_TEMPORARY and not (temporary and temporary["allowed"]):
        missing.append("temporary on the database")
    return missing


def _type_tables(db: Database) -> list[str]:
    return [row["table_name"] for row in db.execute(SQL_TYPE_TABLES).fetchall()]


def grants_sql(prefix: str = DEFAULT_PREFIX) -> str:
    """SQL that creates the four roles and grants each its rights; harmless to run again.

    Raises UsageError when no role may be called `prefix` and an underscore.
    """
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(
            f"{ascii(prefix)[:40]} can't begin the name of a role",
            hint="lower-case letters, digits and underscores, at most 40, beginning with a letter",
        )
    lines = [
        "-- Roles for archisync, each with the rights that it needs. Run this as a superuser, or as the owner of the schema if it may",
        "-- create roles (createrole). After each upgrade the owner alone may run it again:",
        '--   archisync db grants | psql --single-transaction --set ON_ERROR_STOP=1 "$ARCHISYNC_DATABASE_URL"',
        "-- The owner of the schema runs `archisync db migrate`, not one of these roles.",
        "set search_path = pg_catalog, pg_temp;",
    ]
    for role in Role:
        lines += ["", *_role_sql(role, f"{prefix}_{role}")]
    lines += [
        "",
        "-- Then an account for each process, for example:",
        f"--   create role tick_1 login password '…' in role {prefix}_tick;",
    ]
    return "\n".join(lines) + "\n"


def _role_sql(role: Role, name: str) -> list[str]:
    lines = [
        f"-- {MEANING[role]}",
        _SQL_ROLE.format(name),
        f"revoke all on all tables in schema system, agents, shared from {name};",
        f"grant usage on schema system, agents, shared to {name};",
    ]
    by_table: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for right in RIGHTS[role]:
        known = by_table.setdefault((right.table, right.withheld), [])
        known += [p for p in right.privileges if p not in known]
    for (table, withheld), privileges in by_table.items():
        if table == EACH_TYPE:
            lines.append(_SQL_EACH_TYPE.format(", ".join(privileges), name))
        elif withheld:
            lines.append(_SQL_ALL_BUT.format(",".join(privileges), table, name, ",".join(withheld)))
        else:
            lines.append(f"grant {', '.join(privileges)} on {table} to {name};")
    if role in NEEDS_TEMPORARY:
        lines.append(
            f"do $$ begin execute format('grant temporary on database %I to {name}', current_database()); end $$;"
        )
    return lines
