"""The version of the schema: what the database has, what it lacks, and applying that in one transaction under an advisory lock.

Running `migrate` twice, or twice at the same moment, is harmless: the second call waits, then finds nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from archisync.base.errors import SchemaError
from archisync.rules.config import Config
from archisync.store import agents, settings, synctypes
from archisync.store.database import Database

LOCK_KEY = 0x61726368  # "arch": one number for every version of archisync, so that two versions wait for each other
HINT_START_ANEW = (
    "keep agents, settings and pauses, and start with a new database (agent data is fetched again): "
    "pg_dump --data-only -t agents.users -t system.sync_settings -t system.pauses --file kept.sql OLD_URL; "
    "archisync db migrate in the new one; "
    "psql --single-transaction -c 'delete from system.sync_settings' -f kept.sql NEW_URL"
)

# Purpose: make the table of versions, so that it can be asked. Caller: migrate. Locks: none once it exists.
SQL_BOOTSTRAP = """
create schema if not exists system;
create table if not exists system.schema_migrations (
  version integer primary key, name text not null, applied_at timestamptz not null default now())
"""
# Purpose: what has been applied. Caller: applied. No locks.
SQL_APPLIED = "select version, name from system.schema_migrations order by version"
# Purpose: tell the migration which types come with archisync. Caller: migrate, in the migration's transaction. No locks.
SQL_BUILT_IN = "select set_config('archisync.built_in_types', %(types)s, true)"
# Purpose: a migration has been applied. Caller: migrate, in the migration's transaction. Locks: none but the new row.
SQL_RECORD = "insert into system.schema_migrations (version, name) values (%(version)s, %(name)s)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    def __str__(self) -> str:
        return f"{self.version:04d} {self.name}"


def migrations() -> list[Migration]:
    """All migrations of this version of archisync, oldest first."""
    folder = files("archisync.store") / "sql" / "migrations"
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return sorted(
        (Migration(version=int(e.name[:4]), name=e.name[5:-4], sql=e.read_text("utf-8")) for e in found),
        key=lambda m: m.version,
    )


def applied(db: Database) -> dict[int, str]:
    """The names of the migrations that the database has, by version; empty when archisync has never used it."""
    try:
        return {row["version"]: row["name"] for row in db.execute(SQL_APPLIED).fetchall()}
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return {}


def pending(db: Database) -> list[Migration]:
    """Migrations that the database lacks, oldest first. Raises SchemaError when a development version of archisync made the database."""
    have, known = applied(db), migrations()
    if (
        have and have.get(known[0].version) != known[0].name
    ):  # until 1.0 the first migration may change, and its name with it
        names = ", ".join(f"{version:04d} {name}" for version, name in have.items())
        raise SchemaError(
            f"a development version of archisync made this database ({names}): it can't be brought up to date",
            hint=HINT_START_ANEW,
        )
    return [m for m in known if m.version not in have]


def problem(db: Database) -> SchemaError | None:
    """Why the schema can't be used as it is, and what to type; None when it is current."""
    try:
        missing = pending(db)
    except SchemaError as exc:
        return exc
    if not missing:
        return None
    return SchemaError(f"the schema lacks {', '.join(map(str, missing))}", hint="archisync db migrate")


def check_current(db: Database) -> None:
    """Raise SchemaError unless every migration is applied. For whoever would do harm with a stale schema (worker, up)."""
    if (error := problem(db)) is not None:
        raise error


def migrate(db: Database, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Apply what is missing, seed the settings and complete the pairs; returns the names of what was applied.

    `db` must be in autocommit mode. Raises SchemaError, and changes nothing, when existing rows break a rule (an interval out of bounds,
    say), or when a development version made the database.
    """
    config = Config.from_environment(environment)
    with db.transaction():
        db.execute("select pg_advisory_xact_lock(%(key)s)", {"key": LOCK_KEY})
        db.execute(SQL_BOOTSTRAP)
        missing = pending(db)
        agents.check_registry(db)
        for migration in missing:
            _apply(db, migration)
        settings.seed(db, config)
        agents.complete(db)
    return [str(migration) for migration in missing]


def _apply(db: Database, migration: Migration) -> None:
    try:
        db.execute(SQL_BUILT_IN, {"types": synctypes.built_in_rows()})
        db.execute(migration.sql.encode())
        if migration.version == 1:
            synctypes.create_built_in_tables(db)
        db.execute(SQL_RECORD, {"version": migration.version, "name": migration.name})
    except (psycopg.errors.IntegrityError, psycopg.errors.DatatypeMismatch, psycopg.errors.UndefinedColumn) as exc:
        said = exc.diag.message_primary or str(exc)
        detail = f" ({exc.diag.message_detail})" if exc.diag.message_detail else ""
        raise SchemaError(
            f"migration {migration.version:04d} can't be applied to what is in this database: {said}{detail}",
            hint="correct the rows it names, then: archisync db migrate",
        ) from exc
