"""SQL: a query in a PostgreSQL database is an export, whatever its values, and it can't write."""

import json
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    ExportError,
    SourceError,
    SyncError,
    TransientSourceError,
)
from archisync.rules.config import Config
from archisync.sources import Request, check_template
from archisync.store import agents
from archisync.store.database import Database
from tests.support.fetching import CANARY, fetched, refused, request_of
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.rows import sync
from tests.support.systempostgres import needs_italian_postgres, system_postgres


def _address(database_url: str, query: str, user: str = "") -> str:
    parts = urlsplit(database_url)
    given = parse_qs(parts.query)
    host = given["host"][0] if "host" in given else parts.hostname
    port = given.get("port", [str(parts.port or "")])[0]
    at = f"127.0.0.1:{port}" if port else ""
    return f"sql+postgresql://{user or parts.username}@{at}{parts.path}?host={host}&query={query}"


def _request(tmp_path: Path, database_url: str, query: str, **more: str) -> Request:
    (tmp_path / "orders.sql").write_text(query)
    address = _address(database_url, f"{tmp_path}/{{type}}.sql", more.pop("user", ""))
    password = more.pop("password", "")
    return request_of(
        tmp_path,
        address,
        agent_id=more.pop("agent", "agent-1"),
        ARCHISYNC_SQL_PASSWORD=password,
        ARCHISYNC_FETCH_TIMEOUT_S=more.pop("timeout_s", "60"),
    )


def test_rows_become_json_lines_with_every_kind_of_value(tmp_path: Path, database_url: str) -> None:
    query = (
        "select %(agent)s as agent, %(type)s::text as kind, 12.500::numeric as number, true as flag, null::text as nothing,"
        " date '2025-12-31' as day, timestamptz '2025-12-31 10:00+00' as moment, E'a\"\\n\\\\;è' as words, '50 %%' as share; \n"
    )
    export = fetched(_request(tmp_path, database_url, query))
    assert export.suffix == ".jsonl"
    text = export.path.read_text()
    assert '"number":12.500,' in text
    row = json.loads(text)
    assert (row["agent"], row["kind"], row["flag"], row["nothing"], row["day"], row["words"], row["share"]) == (
        "agent-1", "orders", True, None, "2025-12-31", 'a"\n\\;è', "50 %",
    )  # fmt: skip
    assert row["moment"].startswith("2025-12-31T")


def _rows(request: Request) -> str:
    path = fetched(request).path
    rows = path.read_text("utf-8")
    path.unlink()
    return rows


HOSTILE = {
    "client_encoding": "LATIN1", "DateStyle": "German, DMY", "IntervalStyle": "sql_standard", "bytea_output": "escape", "xmlbinary": "hex",
    "extra_float_digits": "-15", "default_transaction_isolation": "serializable", "default_transaction_read_only": "off",
    "default_transaction_deferrable": "on", "statement_timeout": "250", "lock_timeout": "1", "idle_session_timeout": "2000",
    "idle_in_transaction_session_timeout": "2000", "standard_conforming_strings": "off", "backslash_quote": "off", "array_nulls": "off",
    "transform_null_equals": "on", "lc_monetary": "C.UTF-8", "lc_numeric": "C.UTF-8", "search_path": "public, pg_catalog",
    "escape_string_warning": "on", "client_min_messages": "debug5", "plpgsql.extra_errors": "all", "jit_above_cost": "0",
}  # fmt: skip
"""Settings that a role may have."""
SHADOWS = """
create function public.row_to_json(record) returns json language plpgsql as $$ begin return '{}'; end $$;
create domain public.text as pg_catalog.text check (false);
"""
VALUES = r"""
select %(agent)s as agent, 0.1::float8 + 0.2 as number, date '2025-12-31' as day, interval '1 day 2 hours' as span, '\x00ff'::bytea as raw,
       '\' as backslash, 'Caffè €' as name, 1234.5::money as price, array[1, null] as list, '12/10/2025'::date::pg_catalog.text as said,
       pg_catalog.pg_sleep(0.4) is null as slow
"""


@pytest.mark.parametrize("way", ["direct", pytest.param("transaction", marks=[needs_pgbouncer, pytest.mark.check])])
def test_values_are_the_same_whatever_the_role_or_a_pooler_says(
    tmp_path: Path, database_url: str, connection: Database, way: str
) -> None:
    right = _rows(_request(tmp_path, database_url, VALUES))
    row = json.loads(right)
    assert (row["number"], row["raw"], row["backslash"], row["said"]) == (0.1 + 0.2, r"\x00ff", "\\", "2025-10-12")
    with ExitStack() as stack:
        url = database_url if way == "direct" else stack.enter_context(pgbouncer(database_url, mode=way))
        connection.execute(SHADOWS.encode())
        # Between two transactions a pooler's own connection is not ours.
        for name in HOSTILE.keys() - ({"idle_session_timeout"} if way == "transaction" else set()):
            connection.execute(f"alter database {connection.info.dbname} set {name} = '{HOSTILE[name]}'".encode())
        assert _rows(_request(tmp_path, url, VALUES)) == right
        error = refused(_request(tmp_path, url, "select nextval('system.deliveries_id_seq')"))
        assert "read-only transaction" in error.message


def test_many_rows_are_read_by_a_cursor(tmp_path: Path, database_url: str) -> None:
    query = "select n as id, repeat('x', 20) as name from generate_series(1, 12345) n order by n -- all of them"
    lines = fetched(_request(tmp_path, database_url, query)).path.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(1, 12346))


def test_no_rows_are_an_export_with_labels(tmp_path: Path, database_url: str) -> None:
    export = fetched(_request(tmp_path, database_url, """select 1 as id, '' as "a;""b" where false"""))
    assert (export.path.read_text(), export.suffix) == ('"id","a;""b"\n', ".csv")


@pytest.mark.parametrize(
    ("query", "kind", "words"),
    [
        ("selec 1", SourceError, "syntax error at or near"),
        ("select * from nowhere", SourceError, 'relation "nowhere" does not exist'),
        ("select 1 as a, 1 / 0 as b", SourceError, "division by zero"),
        ("delete from agents.users returning id", SourceError, "syntax error"),
        ("with x as (delete from agents.users returning id) select * from x", SourceError, "refuses the query"),
        ("select nextval('system.deliveries_id_seq')", SourceError, "refuses the query"),
        ("select 1 as a; drop table agents.users", SourceError, "syntax error"),
        ("select 1) q; drop table agents.users; --", SourceError, "refuses the query"),
        ("select pg_terminate_backend(pg_backend_pid())", TransientSourceError, "can't be asked"),
        ("", SourceError, "is empty or larger than 1 MiB"),
    ],
)
def test_a_query_that_can_not_be_an_export_is_refused(
    tmp_path: Path, database_url: str, connection: Database, query: str, kind: type[SyncError], words: str
) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    error = refused(_request(tmp_path, database_url, query))
    assert (type(error), words in error.message, bool(error.hint)) == (kind, True, True), error.message
    assert connection.execute("select count(*) as n from agents.users").fetchone() == {"n": 1}


def test_a_slow_query_ends_with_the_time_for_a_fetch(tmp_path: Path, database_url: str) -> None:
    error = refused(_request(tmp_path, database_url, "select pg_sleep(600)", timeout_s="1"))
    assert (type(error), "statement timeout" in error.message) == (TransientSourceError, True)


def test_a_large_result_is_refused(tmp_path: Path, database_url: str) -> None:
    query = "select repeat('x', 1000) as a from generate_series(1, 2000)"
    assert type(refused(_request(tmp_path, database_url, query))) is ExportError


def test_a_wrong_login_is_refused_without_the_password(
    tmp_path: Path, database_url: str, admin: psycopg.Connection
) -> None:
    error = refused(_request(tmp_path, database_url, "select 1 as a", user="nobody-here", password=CANARY))
    assert type(error) is AuthenticationError
    assert CANARY not in error.message + error.hint


@needs_italian_postgres
def test_a_server_of_another_language_refuses_a_login_likewise(tmp_path: Path) -> None:
    with system_postgres(language="it") as url, psycopg.connect(url, autocommit=True) as admin:
        admin.execute("create role sealed login password 'right'")
        admin.execute("create role locked")
        folder = str(admin.info.host)
        hba = Path(folder) / "data" / "pg_hba.conf"
        hba.write_text("local all sealed scram-sha-256\nlocal all shut reject\n" + hba.read_text())
        admin.execute("create role shut login")
        admin.execute("select pg_reload_conf()")
        while admin.execute("select count(*) from pg_hba_file_rules where user_name = '{shut}'").fetchall() != [(1,)]:
            continue
        (tmp_path / "q.sql").write_text("select 1 as a")
        for user, password in (("nobody", ""), ("locked", ""), ("shut", ""), ("sealed", CANARY), ("sealed", "")):
            template = f"sql+postgresql://{user}@/postgres?host={folder}&query={tmp_path}/q.sql"
            error = refused(request_of(tmp_path, template, ARCHISYNC_SQL_PASSWORD=password))
            assert type(error) is AuthenticationError, (user, error.message)
            assert CANARY not in error.message + error.hint


def test_a_server_that_is_away_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("select 1 as a")
    error = refused(request_of(tmp_path, f"sql+postgresql://erp@127.0.0.1:1/erp?query={tmp_path}/q.sql"))
    assert (type(error), error.hint) == (TransientSourceError, "psql postgresql://erp@127.0.0.1:1/erp")


def test_a_query_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refused(request_of(tmp_path, f"sql+postgresql://erp@127.0.0.1:1/erp?query={tmp_path}/q.sql"))
    assert error.message == f"the query {tmp_path}/q.sql can't be read: No such file or directory"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("sql+postgresql://host/db", "the source is no address of a database with ?query=/a/file"),
        ("sql+postgresql://host/db?query=relative.sql", "the source is no address of a database with ?query=/a/file"),
        ("sql+postgresql://host/db?query=/q.sql&sslmode=off", "the source is no address of a database with ?query=/a/file"),
        ("sql+postgresql://erp:canary@host/db?query=/q.sql", "the source's address has a password in it"),
        ("sql+postgresql://{agent}@host/db?query=/q.sql", "the source's address has a placeholder in its host, user or database"),
    ],
)  # fmt: skip
def test_an_address_that_can_not_work_is_refused_before_a_worker_starts(template: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_template(template)
    assert (refused.value.message, "canary" in refused.value.hint) == (message, False)


def test_a_query_is_synced_like_any_other_export(connection: Database, database_url: str, tmp_path: Path) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    connection.execute(
        "create table public.erp_clients (id text, label text, agent text, amount numeric, closed boolean)"
    )
    connection.execute(
        "insert into public.erp_clients values ('1', 'Uno', 'anna', 12.500, true), ('2', 'Due', 'else', 1, null)"
    )
    (tmp_path / "customers.sql").write_text(
        "select id as customer_id, label as name, amount as sales_amount from public.erp_clients where agent = %(agent)s"
    )
    config = Config.from_environment(
        {
            "ARCHISYNC_DATABASE_URL": database_url,
            "ARCHISYNC_SOURCE": _address(database_url, f"{tmp_path}/{{type}}.sql"),
            "ARCHISYNC_LOCALE": "it",
        }
    )
    assert sync(connection, config, "customers", "anna").reason == "applied"
    found = connection.execute("select customer_id, name, sales_amount::text from agents.customers").fetchall()
    assert [tuple(row.values()) for row in found] == [("1", "Uno", "12.500")]
