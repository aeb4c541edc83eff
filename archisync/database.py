"""Connections to PostgreSQL, and what its errors mean for a user.

Every connection is in autocommit mode; a transaction is an explicit `with db.transaction()`. Prepared statements are
off, so that PgBouncer in transaction mode changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import DictRow, dict_row

from archisync.config import redact
from archisync.errors import ArchisyncError, ConfigurationError, SchemaError, UnreachableError

Database: TypeAlias = psycopg.Connection[DictRow]
Params: TypeAlias = dict[str, Any]

CONNECT_TIMEOUT_S = 5
IDLE_IN_TRANSACTION_TIMEOUT_S = 60
"""A worker that is stopped (SIGSTOP, a dead host) inside a transaction loses its row locks after this long."""


def connect(url: str, *, purpose: str, statement_timeout_s: int | None = None) -> Database:
    """A new connection; `purpose` shows in pg_stat_activity.

    Raises UnreachableError when nobody answers, ConfigurationError when the URL or the credentials are wrong.
    `statement_timeout_s` is for workers, which hold a connection of their own for long: it also bounds how long the server
    waits for a client that stopped in the middle of a COPY.
    """
    options: dict[str, Any] = {}
    if statement_timeout_s is not None:
        settings = {
            "statement_timeout": f"{statement_timeout_s * 1000}",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S * 1000}",
            "tcp_keepalives_idle": "30",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
        }
        options["options"] = _merge_options(url, " ".join(f"-c {name}={value}" for name, value in settings.items()))
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            row_factory=dict_row,
            prepare_threshold=None,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name=f"archisync {purpose}",
            **options,
        )
    except psycopg.Error as exc:
        raise translate(exc) from None


def _merge_options(url: str, ours: str) -> str:
    """Our server settings behind those of the URL or of PGOPTIONS, which `options=` would otherwise replace."""
    import os

    given = psycopg.conninfo.conninfo_to_dict(url).get("options") or os.environ.get("PGOPTIONS", "")
    return f"{ours} {given}".strip()


def translate(exc: psycopg.Error) -> ArchisyncError:
    """The archisync error that says what to do about a psycopg error; never shows a password."""
    said = redact(" ".join(str(exc).split())) or type(exc).__name__
    errors = psycopg.errors
    if isinstance(
        exc, (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn, errors.InvalidSchemaName)
    ):
        return SchemaError("the database schema is missing or not current", hint="archisync db migrate")
    if isinstance(exc, errors.InsufficientPrivilege):
        return ConfigurationError(
            f"the database role may not do that: {said}", hint="grant the rights, or use another role"
        )
    if isinstance(exc, (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName)):
        return ConfigurationError(f"PostgreSQL refused the connection: {said}", hint="check ARCHISYNC_DATABASE_URL")
    if isinstance(exc, psycopg.ProgrammingError) and exc.sqlstate is None:
        return ConfigurationError(
            "ARCHISYNC_DATABASE_URL can't be read as a connection string", hint="postgresql://user@host/db"
        )
    if isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError)):
        if "password authentication failed" in said or "does not exist" in said:
            return ConfigurationError(f"PostgreSQL refused the connection: {said}", hint="check ARCHISYNC_DATABASE_URL")
        return UnreachableError(f"PostgreSQL is out of reach: {said}", hint="archisync db status")
    return ArchisyncError(f"PostgreSQL reported {type(exc).__name__}: {said}", hint="repeat with --debug for details")


@contextmanager
def connected(url: str, *, purpose: str, statement_timeout_s: int | None = None) -> Iterator[Database]:
    """`connect`, closed at the end; database errors inside come out as archisync errors."""
    db = connect(url, purpose=purpose, statement_timeout_s=statement_timeout_s)
    try:
        yield db
    except psycopg.Error as exc:
        raise translate(exc) from exc
    finally:
        db.close()
