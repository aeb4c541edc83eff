"""What somebody has changed in a table of agent data, named with what to type."""

from __future__ import annotations

import psycopg
from psycopg import errors

from archisync.base.errors import ArchisyncError, ConfigurationError
from archisync.base.text import printable
from archisync.rules.synctypes import Scope, SyncType
from archisync.store import checks
from archisync.store.database import Database
from archisync.store.refusals import translate
from archisync.store.typetables import BOOKKEEPING, COLUMN_TYPE

_LONG_NAMES = {"timestamptz": "timestamp with time zone"}


def problem(db: Database, sync_type: SyncType) -> ConfigurationError | None:
    """What is wrong with the columns of the type's table, and the SQL that puts it right; None when nothing is."""
    table = sync_type.table
    wanted = {field.name: COLUMN_TYPE[field.kind] for field in sync_type.fields}
    wanted |= {name: rest.split()[0] for name, rest in BOOKKEEPING.items()}
    if sync_type.scope is Scope.AGENT:
        wanted["agent_id"] = "text"
    found = {column.name: column for column in checks.columns_of(db, table)}
    if not found:
        return ConfigurationError(f"there is no table {table}", hint="restore it, or begin with a new database")
    for name, kind in wanted.items():
        if name not in found:
            hint = f"alter table {table} add column {name} {kind}"
            return ConfigurationError(
                f"the table {table} lacks the column {name}, which somebody has dropped or renamed", hint=hint
            )
        if found[name].type != _LONG_NAMES.get(kind, kind):
            hint = f"alter table {table} alter column {name} type {kind} using {name}::text::{kind}"
            return ConfigurationError(
                f"the column {name} of {table} is of type {found[name].type}, not {kind}", hint=hint
            )
    for column in found.values():
        if column.must_be_filled and column.name not in wanted:
            shown = printable(column.name, limit=80)
            hint = f"alter table {table} alter column {shown} drop not null   (or give it a default)"
            return ConfigurationError(f"the column {shown} of {table} must be filled, and no export has it", hint=hint)
    return None


def explained(db: Database, sync_type: SyncType, exc: psycopg.Error) -> ArchisyncError:
    """The archisync error for an error of PostgreSQL's while a table was read or written. The transaction must be over."""
    error = translate(exc)
    if not isinstance(exc, errors.IntegrityError | errors.DataError | errors.ProgrammingError):
        return error
    return problem(db, sync_type) or error
