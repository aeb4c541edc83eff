"""The schema's version: apply what is missing, in one transaction each, under one advisory lock.

Running `migrate` twice, or twice at the same instant, is harmless: the second waits, then finds nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from archisync.base.errors import SchemaError
from archisync.rules.config import Config
from archisync.store import agents, settings
from archisync.store.database import Database

LOCK_KEY = 0x61726368  # "arch": one number for every archisync, so that two versions wait for each other as well

# Purpose: the versions table must exist before it can be asked. Caller: migrate.
SQL_BOOTSTRAP = """
create schema if not exists system;
create table if not exists system.schema_migrations (
  version integer primary key, name text not null, applied_at timestamptz not null default now())
"""
# Purpose: what has been applied. Caller: applied_versions. No locks.
SQL_APPLIED = "select version from system.schema_migrations order by version"
SQL_RECORD = "insert into system.schema_migrations (version, name) values (%(version)s, %(name)s)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All migrations of this version of archisync, oldest first."""
    folder = files("archisync.store") / "sql" / "migrations"
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return sorted(
        (Migration(version=int(e.name[:4]), name=e.name[5:-4], sql=e.read_text("utf-8")) for e in found),
        key=lambda m: m.version,
    )


def applied_versions(db: Database) -> list[int]:
    """Versions that the database has; empty when it has never seen archisync."""
    try:
        return [row["version"] for row in db.execute(SQL_APPLIED).fetchall()]
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return []


def pending(db: Database) -> list[Migration]:
    """Migrations that the database lacks, oldest first."""
    have = set(applied_versions(db))
    return [m for m in migrations() if m.version not in have]


def check_current(db: Database) -> None:
    """Raise SchemaError unless every migration is applied. Called where a stale schema would do harm (worker, up)."""
    missing = pending(db)
    if missing:
        raise SchemaError(
            f"the database schema lacks {len(missing)} migration(s), first {missing[0].version:04d}",
            hint="archisync db migrate",
        )


def migrate(db: Database, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Apply what is missing, seed the settings and complete the pairs; the names of what was applied.

    `db` must be in autocommit mode. Raises SchemaError when existing data breaks a rule (an interval out of bounds, say): then
    nothing of that migration is applied.
    """
    config = Config.from_environment(environment)
    done = []
    with db.transaction():
        db.execute("select pg_advisory_xact_lock(%(key)s)", {"key": LOCK_KEY})
        db.execute(SQL_BOOTSTRAP)
        for migration in pending(db):
            _apply(db, migration)
            done.append(f"{migration.version:04d} {migration.name}")
        settings.seed(db, config)
        agents.complete(db)
    return done


def _apply(db: Database, migration: Migration) -> None:
    try:
        db.execute(migration.sql.encode())
        db.execute(SQL_RECORD, {"version": migration.version, "name": migration.name})
    except (psycopg.errors.IntegrityError, psycopg.errors.DatatypeMismatch, psycopg.errors.UndefinedColumn) as exc:
        said = exc.diag.message_primary or str(exc)
        detail = f" ({exc.diag.message_detail})" if exc.diag.message_detail else ""
        raise SchemaError(
            f"migration {migration.version:04d} can't be applied to what is in this database: {said}{detail}",
            hint="correct the rows it names, then: archisync db migrate",
        ) from exc
