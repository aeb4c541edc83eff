"""What PostgreSQL's errors mean for a user: the archisync error, with what to do about it. No message shows a password.

SQLSTATE decides where there is one. A refused connection has none, since libpq doesn't pass it on: there `PQping` tells whether a server is
up, whatever language it speaks. Texts are looked for only where they are libpq's own, which are English, or for a better hint.
"""

from __future__ import annotations

import re

import psycopg

from archisync.base.errors import ArchisyncError, ConfigurationError, SchemaError, UnreachableError
from archisync.base.text import redact

CONNECT_TIMEOUT_S = 5
"""For each address in the URL."""


class NoAnswerError(psycopg.OperationalError):
    """PostgreSQL took too long over a statement. It was asked to cancel the statement, and the connection is closed."""


_HINT_STARTUP = "take it out of ARCHISYNC_DATABASE_URL and of PG… variables (PGOPTIONS, PGGEQO): archisync needs none"
_HINT_WAITING = "to see who blocks it: select pid, pg_blocking_pids(pid), query from pg_stat_activity"
_HINT_URL = "check ARCHISYNC_DATABASE_URL"
_HINT_UNREAD = (
    f"{_HINT_URL}, PG… variables, what alter role and alter database have set, the server's pg_hba.conf,"
    " and whether it has a connection left for this role"
)
_HINT_VALUE = "check options in ARCHISYNC_DATABASE_URL, PG… variables (PGOPTIONS, PGTZ), and what alter role has set"
_HINT_HBA = "allow host, user and database in the server's pg_hba.conf, or check ARCHISYNC_DATABASE_URL"
_REFUSALS = {
    "unrecognized configuration parameter": _HINT_VALUE,
    "invalid value for parameter": _HINT_VALUE,  # before "does not exist", which its detail may say
    "password authentication failed": _HINT_URL,
    "no password supplied": "put the password into ARCHISYNC_DATABASE_URL or ~/.pgpass",
    "authentication failed": _HINT_URL,
    "does not exist": _HINT_URL,
    "is not permitted to log in": "name an account in ARCHISYNC_DATABASE_URL that may log in: archisync db grants shows how to make one",
    "pg_hba.conf rejects": _HINT_HBA,
    "no pg_hba.conf entry": _HINT_HBA,
    "permission denied for database": "as the database's owner: grant connect on database DATABASE to ROLE",
    "server does not support SSL": "check sslmode in ARCHISYNC_DATABASE_URL, and PGSSLMODE",
}
"""Texts by which a server refuses a connection because a setting is wrong, and what to do."""
_WRONG_OPTION = re.compile(
    r'invalid (?:integer value .* for connection option "(\w+)"|(port) number|"?(\w+)"? value: )|definition of (service)'
)
"""Texts by which libpq refuses the URL before it connects."""
_HINT_OPTION = "check {option} in ARCHISYNC_DATABASE_URL and PG… variables (in a password, write %2F for /, %3F for ? and %40 for @)"
_DEMANDS = (
    "GSSAPI encryption required", "requirepeer specifies", "authentication method requirement", "channel binding required",
    "channel binding is required", "root certificate file", "service file", "certificate verify failed", "server certificate for",
)  # fmt: skip
"""Texts by which libpq refuses a server that is not what the URL or the environment demands."""
_HINT_DEMANDS = (
    "check what ARCHISYNC_DATABASE_URL and PG… variables demand of the server (sslmode, PGREQUIREPEER, PGSERVICEFILE)"
)
_OTHER_SERVERS = ("session is read-only", "session is not read-only", "in hot standby mode")
"""Texts by which libpq goes past a server that is not of the kind that `target_session_attrs` asks for: another may become it."""
_ENDED_SESSIONS = ("57P05", "25P03", "25P04")
"""idle_session_timeout, idle_in_transaction_session_timeout, transaction_timeout."""
_LIMITS = ("53000", "53200", "53400", "54001")
"""Memory, temp_file_limit, max_stack_depth."""
_FUNCTION = re.compile(r'((?:\w|"[^"]+")+)\.(?:\w|"[^"]+")+\([^()]*\)')
"""The first function in an error's context, the innermost; with its schema, which is not in our search_path."""
_ANSWER = re.compile(r"failed: \S+ ?:  ")
"""What libpq puts before a server's own words: how grave it is, in the server's language."""
_PASSING = ("too many", "remaining connection slots", "connection limit")


def translate_refusal(url: str, exc: psycopg.Error) -> ArchisyncError:
    """The archisync error for one that ended the attempt to connect."""
    error = translate(exc)
    if isinstance(error, UnreachableError) and was_refused(url, exc):
        return ConfigurationError(f"PostgreSQL refused the connection: {_in_one_line(exc)}", hint=_HINT_UNREAD)
    return error


def was_refused(url: str, exc: psycopg.Error) -> bool:
    """Whether a server that is up has refused the connection, in whatever language. `url`: it, or another connection string.

    libpq has the SQLSTATE, and passes it on to nobody but its own `ping`, which tells a server that starts or stops from one that doesn't
    like what it is asked for.
    """
    said = str(exc)
    if exc.sqlstate or not _ANSWER.search(said) or any(word in said for word in _PASSING):
        return False
    asked = psycopg.conninfo.make_conninfo(url, connect_timeout=CONNECT_TIMEOUT_S)
    return psycopg.pq.PGconn.ping(asked.encode()) == psycopg.pq.Ping.OK


def translate(exc: psycopg.Error) -> ArchisyncError:
    """The archisync error for a psycopg error."""
    if exc.sqlstate is not None:
        return _by_state(exc, redact(exc.diag.message_primary or "") or _in_one_line(exc))
    said = _in_one_line(exc)
    if isinstance(exc, NoAnswerError):
        return UnreachableError(f"PostgreSQL did not finish a statement: {said}", hint=_HINT_WAITING)
    if isinstance(exc, psycopg.ProgrammingError):
        return ConfigurationError(
            "ARCHISYNC_DATABASE_URL can't be read as a connection string", hint="postgresql://user@host/db"
        )
    if isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError)):
        return _by_words(said)
    return _unforeseen(exc, said)


def _by_state(exc: psycopg.Error, said: str) -> ArchisyncError:
    """The error for one that a server reported. `said`: its first sentence; detail and context may show rows of agents."""
    errors = psycopg.errors
    match exc:
        case (
            errors.UndefinedTable() | errors.UndefinedFunction() | errors.UndefinedColumn() | errors.InvalidSchemaName()
        ):
            return _missing_name(exc, said)
        case errors.InsufficientPrivilege():
            return ConfigurationError(f"the database role may not do that: {said}", hint=_hint_of_right(exc.diag))
        case errors.InvalidPassword() | errors.InvalidAuthorizationSpecification() | errors.InvalidCatalogName():
            return ConfigurationError(f"PostgreSQL refused the connection: {said}", hint=_HINT_URL)
        case errors.ReadOnlySqlTransaction():
            return UnreachableError(
                "PostgreSQL is read-only there",
                hint="is it a standby? point ARCHISYNC_DATABASE_URL at the primary (target_session_attrs=read-write finds it); "
                "else somebody has set default_transaction_read_only",
            )
        case errors.DiskFull():
            return UnreachableError(
                f"PostgreSQL has no room to write: {said}", hint="free space on its disk; nothing is lost"
            )
        case errors.DeadlockDetected() | errors.SerializationFailure():
            return UnreachableError(
                f"PostgreSQL ended one of two transactions that stood in each other's way: {said}",
                hint="nothing of it was written; try again",
            )
        case errors.QueryCanceled() | errors.LockNotAvailable():
            return UnreachableError(f"PostgreSQL did not finish a statement: {said}", hint=_HINT_WAITING)
    if exc.sqlstate in _ENDED_SESSIONS:
        return UnreachableError(
            f"PostgreSQL ended the session: {said}", hint="was this process stopped, or is that limit very short?"
        )
    if exc.sqlstate in _LIMITS:
        return UnreachableError(f"PostgreSQL reached a limit of its own: {said}", hint="raise it; nothing is lost")
    if (theirs := _their_object(exc, said)) is not None:
        return theirs
    return _by_words(said) if isinstance(exc, psycopg.OperationalError) else _unforeseen(exc, said)


def _by_words(said: str) -> ArchisyncError:
    """The error for one that libpq reported, with a server's words or without."""
    if "unsupported startup parameter" in said:
        return ConfigurationError(f"a pooler refused the connection: {said}", hint=_HINT_STARTUP)
    if (wrong := _WRONG_OPTION.search(said)) and "connection to server" not in said:
        option = wrong[wrong.lastindex or 0]
        return ConfigurationError(  # without the value, which may be part of a password that a / or ? cuts off
            f"ARCHISYNC_DATABASE_URL or a PG… variable has a wrong {option}", hint=_HINT_OPTION.format(option=option)
        )
    hint = next((hint for phrase, hint in _REFUSALS.items() if phrase in said), None)
    if hint is not None:
        return ConfigurationError(f"PostgreSQL refused the connection: {said}", hint=hint)
    if any(phrase in said for phrase in _DEMANDS):
        return ConfigurationError(f"PostgreSQL can't be connected to as it is asked for: {said}", hint=_HINT_DEMANDS)
    if any(phrase in said for phrase in _OTHER_SERVERS):
        return UnreachableError(
            f"no PostgreSQL of the wanted kind is there: {said}",
            hint="check target_session_attrs in ARCHISYNC_DATABASE_URL, and PGTARGETSESSIONATTRS",
        )
    return UnreachableError(
        f"PostgreSQL is out of reach: {said}", hint='is it up? pg_isready -d "$ARCHISYNC_DATABASE_URL"'
    )


def _unforeseen(exc: psycopg.Error, said: str) -> ArchisyncError:
    return ArchisyncError(f"PostgreSQL reported {type(exc).__name__}: {said}", hint="repeat with --debug for details")


def _in_one_line(exc: psycopg.Error) -> str:
    return redact(" ".join(str(exc).split())) or type(exc).__name__


def _hint_of_right(diag: psycopg.errors.Diagnostic) -> str:
    """Found by what no language changes: PostgreSQL's function, and the name of a setting."""
    if diag.source_function == "check_enable_rls":
        return "row security would hide rows of that table, and all must be seen: as a superuser, alter role ROLE bypassrls"
    if "session_replication_role" in (diag.message_primary or ""):
        return (
            "as a superuser: alter role ROLE reset session_replication_role (or alter database), so that triggers fire"
        )
    return "grant the rights, or use another role"


def _missing_name(exc: psycopg.Error, primary: str) -> ArchisyncError:
    """A function of the user's may look for names in a search_path that our sessions don't have."""
    if (theirs := _their_function(exc)) is not None:
        return ConfigurationError(
            f"a function of the database, {theirs[0]}, can't find a name: {primary}",
            hint="archisync's sessions have no schema of yours in their search_path: "
            f"alter function {theirs[0]} set search_path = {theirs[1]}",
        )
    return SchemaError(
        f"the database schema is missing or not current: {primary}",
        hint="archisync db migrate   (if it has nothing to do: archisync doctor --only schema --only tables)",
    )


def _their_object(exc: psycopg.Error, primary: str) -> ArchisyncError | None:
    """The error of a trigger's function or of a constraint that somebody else may have added; None when it is neither."""
    if (theirs := _their_function(exc)) is not None:
        return ConfigurationError(
            f"a function of the database, {theirs[0]}, refused it: {primary}",
            hint=f"psql: \\sf {theirs[0]} shows it; a trigger of yours must let archisync pass",
        )
    diag = exc.diag
    if isinstance(exc, psycopg.IntegrityError) and diag.schema_name not in (None, "system"):
        table = f"{diag.schema_name}.{diag.table_name}"
        return ConfigurationError(
            f"{table} does not take a row: {primary}",
            hint=f"psql: \\d {table} shows {diag.constraint_name or diag.column_name}; alter or drop it if it is yours",
        )
    return None


def _their_function(exc: psycopg.Error) -> re.Match[str] | None:
    """The name of the innermost function, and its schema, if it is not one of archisync's."""
    found = _FUNCTION.search(exc.diag.context or "")
    return None if found is None or found[0].startswith("system.") else found
