"""A session is the same whatever role, database, server and environment say: everything is right, or refused in a sentence."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from archisync.base.errors import UnreachableError
from archisync.store import agents
from archisync.store.database import Database, connected
from archisync.store.refusals import translate
from archisync.store.session import ONLY_INSTEAD_OF, SETTINGS
from tests.conftest import Cli
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.rows import count
from tests.support.said import as_text
from tests.support.samples import SAMPLES
from tests.support.systempostgres import needs_italian_postgres, needs_system_postgres, system_postgres
from tests.support.users import logged_in_as

AGENT = "anna.bianchi"
HOSTILE: Mapping[str, str] = {
    "search_path": "public, pg_catalog", "row_security": "on", "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on", "DateStyle": "German, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Pacific/Kiritimati",
    "standard_conforming_strings": "off", "backslash_quote": "off", "transform_null_equals": "on", "array_nulls": "off",
    "bytea_output": "escape", "xmlbinary": "hex", "extra_float_digits": "-15", "quote_all_identifiers": "on", "statement_timeout": "1s",
    "lock_timeout": "1", "idle_session_timeout": "500", "idle_in_transaction_session_timeout": "50", "jit": "on", "jit_above_cost": "0",
    "client_encoding": "LATIN1", "exit_on_error": "on", "session_replication_role": "replica", "synchronous_commit": "off",
    "default_table_access_method": "nonsense", "escape_string_warning": "on", "check_function_bodies": "off",
    "client_min_messages": "debug5",
    "application_name": "somebody", "lc_monetary": "C", "lc_numeric": "C", "lc_time": "C", "xmloption": "document",
    "default_text_search_config": "simple", "enable_seqscan": "off", "enable_indexscan": "off", "enable_sort": "off",
    "enable_hashjoin": "off",
    "enable_nestloop": "off", "enable_material": "off", "work_mem": "64", "plan_cache_mode": "force_generic_plan",
    "max_parallel_workers_per_gather": "4", "parallel_setup_cost": "0", "min_parallel_table_scan_size": "0", "join_collapse_limit": "1",
    "geqo_threshold": "2", "cursor_tuple_fraction": "1", "gin_fuzzy_search_limit": "1", "track_activities": "off", "log_statement": "all",
    "plpgsql.variable_conflict": "use_column", "plpgsql.extra_errors": "all", "password_encryption": "md5", "temp_buffers": "100",
    "default_transaction_read_only": "off",
}  # fmt: skip
"""Settings that a role or a database may have, all at once."""
ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1", "PGTZ": "Asia/Kathmandu", "PGDATESTYLE": "SQL, DMY", "PGGEQO": "off", "PGAPPNAME": "somebody",
    "PGOPTIONS": "-c search_path=public -c statement_timeout=1s -c jit=on -c DateStyle=German",
}  # fmt: skip
CUSTOMERS = "customer_id,name,created\n1,Caffè Łódź €,x\n2,Bar \\' NULL,x\n"
COMMANDS = (
    ("db", "migrate"), ("tick",), ("worker", "--burst", "--single"), ("status",), ("run", "customers", "--agent", AGENT, "--inline"),
    ("tick",),
    ("why", "orders", AGENT), ("history",), ("plan",), ("metrics",), ("agent", "list"), ("held", "list"), ("db", "migrate"),
)  # fmt: skip
POOLED = tuple(words for words in COMMANDS if words[0] not in ("worker", "run"))


def set_everywhere(db: psycopg.Connection[object], names: Mapping[str, str]) -> None:
    """For each role in this database. A setting that this server doesn't have is left out."""
    name = db.info.dbname
    for setting, value in names.items():
        text = sql.SQL("alter database {} set {} = ").format(sql.Identifier(name), sql.SQL(setting))
        parts = (
            [sql.Literal(part.strip()) for part in value.split(",")]
            if setting in ("search_path", "DateStyle")
            else [sql.Literal(value)]
        )
        try:
            db.execute(text + sql.SQL(", ").join(parts))
        except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
            assert setting in ("default_table_access_method", "restrict_nonsystem_relation_kind")


@pytest.fixture
def env(connection: Database, database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    shutil.copytree(SAMPLES / AGENT, tmp_path / AGENT)
    (tmp_path / AGENT / "customers.csv").write_text(CUSTOMERS, "utf-8")
    return {
        "ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url, "ARCHISYNC_ALIASES_CUSTOMERS": '{"created": ""}',
        "ARCHISYNC_SOURCE": f"{tmp_path}/{{agent}}/{{type}}.csv",
    }  # fmt: skip


def check(cli: Cli, env: Mapping[str, str], commands: tuple[tuple[str, ...], ...] = COMMANDS) -> None:
    for words in commands:
        done = cli(*words, env=env)
        assert (words, done.returncode, done.stderr if done.returncode else "") == (words, 0, "")


def names_of(db: Database) -> list[str]:
    return [row["name"] for row in db.execute("select name from agents.customers order by customer_id").fetchall()]


def test_whatever_a_database_says_every_command_is_right(cli: Cli, connection: Database, env: dict[str, str]) -> None:
    assert len(HOSTILE) > 40
    assert set(HOSTILE) >= set(SETTINGS) - {"transaction_timeout", "restrict_nonsystem_relation_kind"}
    set_everywhere(connection, HOSTILE)
    check(cli, env)
    assert names_of(connection) == ["Caffè Łódź €", "Bar \\' NULL"]
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded'") >= 4


def test_whatever_the_environment_says_every_command_is_right(
    cli: Cli, connection: Database, env: dict[str, str]
) -> None:
    check(cli, env | ENVIRONMENT)
    assert names_of(connection) == ["Caffè Łódź €", "Bar \\' NULL"]


def settings_of(db: Database) -> dict[str, str]:
    names = [*SETTINGS, *(name for name, *_ in ONLY_INSTEAD_OF)]
    with db.transaction():
        rows = [db.execute("select current_setting(%s, true) as value", [name]).fetchone() for name in names]
    return {name: str(row["value"]) for name, row in zip(names, rows, strict=True) if row and row["value"] is not None}


@pytest.fixture(params=["embedded", pytest.param("system", marks=needs_system_postgres)])
def server_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    if request.param == "embedded":
        yield database_url
        return
    with system_postgres() as url, psycopg.connect(url, autocommit=True) as db:
        db.execute("create database sessions")
        yield url.replace("/postgres?", "/sessions?")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome", "Asia/Kathmandu", "America/St_Johns"])
def test_times_are_read_as_psycopg_reads_them_in_utc(connection: Database, zone: str) -> None:
    connection.execute(f"set timezone to '{zone}'")
    texts = [
        "0001-01-02 00:00Z",
        "1893-10-31 23:49:55.5Z",
        "2026-10-25 00:30:00.123456Z",
        "2026-10-25 01:30Z",
        "9999-12-30 23:59:59.99Z",
    ]
    read = [connection.execute("select %s::timestamptz as at", [text]).fetchone() for text in texts]
    assert [row["at"].isoformat() for row in read if row] == [
        "0001-01-02T00:00:00+00:00", "1893-10-31T23:49:55.500000+00:00", "2026-10-25T00:30:00.123456+00:00", "2026-10-25T01:30:00+00:00",
        "9999-12-30T23:59:59.990000+00:00",
    ]  # fmt: skip
    for text in ("infinity", "-infinity", "0044-03-15 12:00Z BC"):
        with pytest.raises(psycopg.DataError, match="timestamp too"):
            connection.execute("select %s::timestamptz as at", [text]).fetchone()


def test_a_session_has_each_setting(server_url: str) -> None:
    with connected(server_url, purpose="test") as db:
        expected = settings_of(db)
        set_everywhere(db, HOSTILE)
    for seconds in (None, 60):
        with connected(server_url, purpose="test", statement_timeout_s=seconds) as db:
            found = settings_of(db)
            assert found == expected | ({} if seconds is None else {"statement_timeout": "1min"})
            assert db.info.parameter_status("client_encoding") == "UTF8"


@needs_pgbouncer
@pytest.mark.check
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_through_a_pooler_too_and_other_clients_keep_theirs(
    cli: Cli, connection: Database, env: dict[str, str], mode: str
) -> None:
    with connected(env["ARCHISYNC_DATABASE_URL"], purpose="test") as db:
        expected = settings_of(db)
    # Between two transactions a pooler's own connection is not ours.
    set_everywhere(connection, {name: value for name, value in HOSTILE.items() if name != "idle_session_timeout"})
    with pgbouncer(env["ARCHISYNC_DATABASE_URL"], mode=mode) as url:
        check(cli, env | {"ARCHISYNC_DATABASE_URL": url}, POOLED)
        with connected(url, purpose="test") as db:
            assert settings_of(db) == expected
            with db.transaction():
                assert db.execute("show transaction_isolation").fetchone() == {
                    "transaction_isolation": "read committed"
                }
        with psycopg.connect(url, autocommit=True) as other:
            assert other.execute("show array_nulls").fetchone() == ("off",)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_can_t_hold_every_name_is_refused(cli: Cli, connection: Database, encoding: str) -> None:
    name = f"encoded_{encoding.lower()}"
    connection.execute(
        f"create database {name} encoding {encoding} locale_provider libc locale 'C' template template0".encode()
    )
    url = f"postgresql://postgres@/{name}?host={connection.info.host}&port={connection.info.port}"
    try:
        for words in (("db", "migrate"), ("tick",), ("status",), ("worker", "--burst")):
            done = cli(*words, env={"ARCHISYNC_DATABASE_URL": url})
            said = "".join(line for line in as_text(done.stderr).splitlines(keepends=True) if line[0] != "{")
            assert (words, done.returncode, said) == (
                words,
                3,
                f"error: the database has the encoding {encoding}, which can't hold every name that an export may have\n"
                "hint: make one with UTF8: createdb --encoding UTF8 --locale C.UTF-8 --template template0 NAME\n",
            )
    finally:
        connection.execute(f"drop database {name}".encode())


def test_row_security_is_refused_and_hides_nothing(cli: Cli, connection: Database, database_url: str) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    with logged_in_as(connection, database_url, "guarded") as url:
        for schema in ("system", "agents", "shared"):
            connection.execute(f"grant usage on schema {schema} to guarded".encode())
            connection.execute(f"grant all on all tables in schema {schema} to guarded".encode())
        connection.execute("alter table agents.users enable row level security")
        done = cli("agent", "list", env={"ARCHISYNC_DATABASE_URL": url})
        assert (done.returncode, done.stdout, done.stderr) == (
            3,
            "",
            'error: the database role may not do that: query would be affected by row-level security policy for table "users"\n'
            "hint: row security would hide rows of that table, and all must be seen: as a superuser, alter role ROLE bypassrls\n",
        )
        connection.execute("alter role guarded bypassrls")
        assert AGENT in cli("agent", "list", env={"ARCHISYNC_DATABASE_URL": url}).stdout


def test_a_role_whose_triggers_don_t_fire_is_refused(cli: Cli, connection: Database, database_url: str) -> None:
    with logged_in_as(connection, database_url, "silenced") as url:
        connection.execute("alter role silenced set session_replication_role = replica")
        done = cli("status", env={"ARCHISYNC_DATABASE_URL": url})
        assert (done.returncode, done.stderr) == (
            3,
            'error: the database role may not do that: permission denied to set parameter "session_replication_role"\n'
            "hint: as a superuser: alter role ROLE reset session_replication_role (or alter database), so that triggers fire\n",
        )


def test_a_frozen_database_is_read_and_not_written_to(cli: Cli, connection: Database, env: dict[str, str]) -> None:
    set_everywhere(connection, {"default_transaction_read_only": "on"})
    assert cli("status", env=env).returncode == 0
    for words in (("tick",), ("run", "customers", "--agent", AGENT), ("db", "migrate"), ("agent", "deny", AGENT)):
        done = cli(*words, env=env)
        said = as_text(done.stderr)
        assert (words, done.returncode, said.startswith("error: PostgreSQL is read-only there\n")) == (
            words,
            4,
            True,
        )


def test_a_deadlock_is_its_own_thing() -> None:
    for error in (psycopg.errors.DeadlockDetected("…"), psycopg.errors.SerializationFailure("…")):
        found = translate(error)
        assert isinstance(found, UnreachableError)
        assert found.message == "PostgreSQL ended one of two transactions that stood in each other's way: …"
    for state in ("57P05", "25P03", "25P04"):
        assert translate(psycopg.errors.lookup(state)("…")).message == "PostgreSQL ended the session: …"
    for state in ("53200", "53400", "54001"):
        assert translate(psycopg.errors.lookup(state)("…")).message == "PostgreSQL reached a limit of its own: …"


def test_a_deadlock_ends_one_of_two_sessions_in_a_sentence(database_url: str) -> None:
    with connected(database_url, purpose="test") as first, connected(database_url, purpose="test") as second:
        for db, mine in ((first, 1), (second, 2)):
            db.execute("set deadlock_timeout = '1min'")
            db.execute("select pg_advisory_lock(%(key)s)", {"key": mine})
        waiting = threading.Thread(target=first.execute, args=["select pg_advisory_lock(2)"])
        waiting.start()
        while not count(second, "select count(*) from pg_locks where locktype = 'advisory' and not granted"):
            continue
        second.execute("set deadlock_timeout = '1ms'")
        with pytest.raises(psycopg.errors.DeadlockDetected) as ended:
            second.execute("select pg_advisory_lock(1)")
        second.close()
        waiting.join()
    error = translate(ended.value)
    assert isinstance(error, UnreachableError)
    assert error.message == "PostgreSQL ended one of two transactions that stood in each other's way: deadlock detected"
    assert error.hint == "nothing of it was written; try again"


def test_a_connection_costs_one_question(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    original = psycopg.Connection.execute

    def counted(self: Database, query: object, *more: object, **options: object) -> object:
        asked.append(query)
        return original(self, query, *more, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(psycopg.Connection, "execute", counted)
    with connected(database_url, purpose="test") as db, db.transaction():
        db.execute("select 1")
    assert len(asked) == 2


@needs_italian_postgres
def test_a_server_that_speaks_another_language_refuses_likewise(cli: Cli) -> None:
    with system_postgres(language="it") as url:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("create database closed allow_connections false")
            db.execute("create role archisync_tick")
            for name in ("sealed", "shut"):
                db.execute(f"create role {name} login password 'right'".encode())
            hba = Path(str(db.info.host)) / "data" / "pg_hba.conf"
            hba.write_text("local all sealed scram-sha-256\nlocal all shut reject\n" + hba.read_text())
            db.execute("select pg_reload_conf()")
            while db.execute("select count(*) from pg_hba_file_rules where user_name = '{shut}'").fetchall() != [(1,)]:
                continue
        hint = (
            "check ARCHISYNC_DATABASE_URL, PG… variables, what alter role and alter database have set, the server's pg_hba.conf, "
            "and whether it has a connection left for this role"
        )
        for wrong in (
            url.replace("postgres@", "nobody@"),
            url.replace("postgres@", "archisync_tick@"),
            url.replace("postgres@", "sealed:wrong@"),
            url.replace("postgres@", "shut@"),
            url.replace("/postgres?", "/nowhere?"),
            url.replace("/postgres?", "/closed?"),
            f"{url}&options=-cnonsense%3D1",
        ):
            done = cli("status", env={"ARCHISYNC_DATABASE_URL": wrong})
            assert (done.returncode, "FATALE: " in done.stderr) == (3, True), done.stderr
            assert done.stderr.startswith("error: PostgreSQL refused the connection: connection failed: ")
            assert done.stderr.endswith(f"\nhint: {hint}\n")
        with psycopg.connect(url, autocommit=True) as db:  # for whose end a server that was asked to stop waits
            folder = Path(str(db.info.host)) / "data"
            os.kill(int((folder / "postmaster.pid").read_text().split()[0]), signal.SIGTERM)
            while (done := cli("status", env={"ARCHISYNC_DATABASE_URL": url})).returncode == 0:
                continue
            assert (done.returncode, "FATALE: " in done.stderr) == (4, True), done.stderr
