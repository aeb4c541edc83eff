"""What every session of ours is like, whatever the role, the database, the server, the environment or a pooler says.

All of it is set by one text, which a direct connection sends once, and each transaction through a pooler. What is not here is left to the
administrator, because it changes no result: memory, planner, logs, tablespaces. So is `default_transaction_read_only`, with which people
(and hosts with a full disk) freeze a database: whoever writes is refused then.

What may not be set is refused by PostgreSQL, and translated by archisync.store.refusals.
"""

from __future__ import annotations

from collections.abc import Mapping

IDLE_IN_TRANSACTION_TIMEOUT_S = 60
"""After this time the server ends a transaction whose client fell silent (SIGSTOP, a dead host): its row locks are free."""
SEARCH_PATH = "pg_catalog, pg_temp"
"""Tables of ours are named with their schema; pg_temp, which would else come first, has the stage."""
ENCODING = "UTF8"
"""Of the client, sent when the connection begins, and of the database: others can't hold every name, or don't check what they hold."""
SETTINGS: Mapping[str, str] = {
    "search_path": SEARCH_PATH,
    # Which rows a statement sees, and which of its writes count.
    "row_security": "off",  # a policy then refuses the statement, and doesn't hide rows from it
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "restrict_nonsystem_relation_kind": "",
    "default_table_access_method": "heap",
    # How values are written and read.
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
    # What ends a statement or a session: the client has its own limits.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
    "exit_on_error": "off",
    # Compiling takes longer than any statement of ours.
    "jit": "off",
}
ONLY_INSTEAD_OF = (
    (
        "session_replication_role",
        "origin",
        "replica",
    ),  # triggers fire. Only a superuser may set it, who seldom needs to
    ("session_replication_role", "origin", "local"),
    ("synchronous_commit", "on", "off"),  # what was promised is on disk; the stronger levels stay
)
"""Name, value, and the value that it replaces."""
_WORKER = {
    "client_connection_check_interval": "1s",  # how soon a dead worker's statement ends, and its agent's lock
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


def for_worker(statement_timeout_s: int) -> dict[str, str]:
    """The settings of a session that a worker keeps: the server ends a statement that takes too long."""
    return {**SETTINGS, **_WORKER, "statement_timeout": str(statement_timeout_s * 1000)}


def setting_text(pid: int, settings: Mapping[str, str] = SETTINGS) -> str:
    """The text that sets them: two statements, of which the second tells whether the connection is `direct`.

    `pid`: the process that the server named when the connection began. A pooler made it up; there the settings are only for the
    transaction. A setting that this version of PostgreSQL doesn't have is left out. The text runs before anything is set, so it names the
    schema of all that it uses, and begins with what could end it.
    """
    rows = [f"({_literal(name)}, {_literal(value)}, null)" for name, value in settings.items()]
    rows += [f"({', '.join(map(_literal, row))})" for row in ONLY_INSTEAD_OF]
    return f"""set local statement_timeout = 0;
select s.direct, pg_catalog.count(pg_catalog.set_config(w.name, w.value, not s.direct))
  from (select pg_catalog.pg_backend_pid() operator(pg_catalog.=) {pid:d} as direct) s
 cross join (values {", ".join(rows)}) as w(name, value, instead_of)
 where pg_catalog.current_setting(w.name, true) is not null
   and (w.instead_of is null or pg_catalog.current_setting(w.name) operator(pg_catalog.=) w.instead_of)
 group by s.direct"""  # noqa: S608 - its parts are constants of this module and a number


def _literal(text: str) -> str:
    assert not {"'", "\\"} & set(text)
    return f"'{text}'"
