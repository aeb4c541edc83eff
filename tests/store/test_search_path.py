"""No name in a statement of ours is found in a schema where others may create functions, operators, types or tables."""

import re
from typing import Any

import psycopg
import pytest

from archisync.store import agents, migrations
from archisync.store.database import Database, connected
from archisync.store.grants import Role, grants_sql
from archisync.store.locks import SQL_TRY_AGENT
from tests.conftest import Cli
from tests.store.test_schema import statements
from tests.support.hostile import SHADOWS, plant
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.samples import SAMPLES

AGENT = "anna.bianchi"
PLANNED = r"\b(public|pg_temp(_[0-9]+)?)\."
SOURCE = {"ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv"}


@pytest.fixture
def hostile_url(connection: Database, database_url: str) -> str:
    plant(connection)
    return database_url


def plan_of(db: psycopg.Connection[dict[str, Any]], statement: str) -> str:
    """The plan of a statement, with the schema of each name that is not PostgreSQL's or ours, and the types of its parameters."""
    numbers = {name: f"${i}" for i, name in enumerate(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)), 1)}
    text = re.sub(r"%\((\w+)\)s", lambda m: numbers[m[1]], statement).replace("%%", "%")
    rows = db.execute(f"explain (verbose, generic_plan) {text}".encode()).fetchall()
    db.execute("deallocate all")
    db.execute(f"prepare looked_at as {text}".encode())
    types = db.execute("select parameter_types::pg_catalog.text from pg_catalog.pg_prepared_statements").fetchall()
    return "\n".join(str(row["QUERY PLAN"]) for row in rows) + str(types)


def test_no_statement_of_the_store_finds_a_name_of_somebody_else(hostile_url: str) -> None:
    with connected(hostile_url, purpose="test") as db:
        db.execute(SHADOWS)
        assert [n for n, s in statements() if re.search(PLANNED, plan_of(db, s))] == []


@pytest.mark.parametrize(
    "path", ["public, pg_catalog", '"$user", public'], ids=["the database's", "PostgreSQL's own default"]
)
def test_with_another_search_path_it_would(hostile_url: str, path: str) -> None:
    with psycopg.connect(hostile_url, autocommit=True) as db:
        db.execute(f"set search_path = {path}".encode())
        with pytest.raises(psycopg.errors.RaiseException, match="somebody else's function is called"):
            db.execute(SQL_TRY_AGENT, {"agent_id": AGENT})


def test_a_session_has_our_search_path_whatever_database_role_and_environment_say(
    connection: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(f"alter database {connection.info.dbname} set search_path = public".encode())
    monkeypatch.setenv("PGOPTIONS", "-c search_path=public")
    for options in ("", "&options=-csearch_path%3Dpublic"):
        for seconds in (None, 60):
            with connected(database_url + options, purpose="test", statement_timeout_s=seconds) as db:
                assert db.execute("show search_path").fetchone() == {"search_path": "pg_catalog, pg_temp"}


@pytest.fixture
def env(hostile_url: str, connection: Database) -> dict[str, str]:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    return SOURCE | {"ARCHISYNC_DATABASE_URL": hostile_url}


COMMANDS = (
    ("tick", "--dry-run"), ("tick",), ("status",), ("why", "orders", AGENT), ("history",), ("plan",), ("agent", "list"), ("metrics",),
    ("interval", "set", "orders", "15"), ("pause", "--agent", AGENT), ("resume", "--agent", AGENT), ("held", "list"),
    ("guard", "list"), ("prune", "--older-than", "1d"), ("db", "migrate"), ("run", "orders", "--agent", AGENT),
)  # fmt: skip


def test_commands_and_workers_call_nothing_that_somebody_else_has_made(
    cli: Cli, connection: Database, env: dict[str, str]
) -> None:
    for words in (
        *COMMANDS,
        ("worker", "--burst"),
        ("diff", "orders", "--agent", AGENT),
        ("tick",),
        ("worker", "--burst"),
    ):
        done = cli(*words, env=env)
        assert (words, done.returncode, done.stderr if done.returncode else "") == (words, 0, "")
    found = connection.execute("select count(*) as n from system.sync_runs where state = 'succeeded'").fetchone()
    assert found == {"n": 6}


@needs_pgbouncer
@pytest.mark.check
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_through_a_pooler_neither_and_other_clients_keep_their_own_search_path(
    cli: Cli, env: dict[str, str], mode: str
) -> None:
    with pgbouncer(env["ARCHISYNC_DATABASE_URL"], mode=mode) as url:
        for words in COMMANDS:
            done = cli(*words, env=env | {"ARCHISYNC_DATABASE_URL": url})
            assert (words, done.returncode, done.stderr if done.returncode else "") == (words, 0, "")
        with connected(url, purpose="test") as db:
            for _ in range(3):
                assert db.execute("show search_path").fetchone() == {"search_path": "pg_catalog, pg_temp"}
        with psycopg.connect(url, autocommit=True) as other:
            for _ in range(3):
                assert other.execute("show search_path").fetchone() == ("public, pg_catalog",)


def test_the_schema_is_made_of_postgresql_s_own_names(empty_database_url: str) -> None:
    with connected(empty_database_url, purpose="test") as db:
        plant(db)
    with connected(empty_database_url, purpose="test") as db:
        migrations.migrate(db, {})
        agents.add(db, AGENT, name=None, whitelisted=True)
        theirs = db.execute(
            "select pg_describe_object(classid, objid, objsubid) as ours, pg_describe_object(refclassid, refobjid, 0) as theirs"
            "  from pg_depend d where refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass) and"
            " (exists (select from pg_proc p where p.oid = d.refobjid and p.pronamespace = 'public'::regnamespace)"
            "  or exists (select from pg_operator o where o.oid = d.refobjid and o.oprnamespace = 'public'::regnamespace))"
            " and not exists (select from pg_operator o where o.oid = d.objid and o.oprnamespace = 'public'::regnamespace)"
        ).fetchall()
    assert theirs == []


def test_the_text_of_db_grants_calls_nothing_that_somebody_else_has_made(hostile_url: str) -> None:
    with psycopg.connect(hostile_url) as owner:
        owner.execute(grants_sql("hostile").encode())
        roles = owner.execute("select count(*) from pg_catalog.pg_roles where rolname like 'hostile\\_%'").fetchone()
        assert roles == (len(Role),)
        owner.rollback()


def test_a_trigger_that_counts_on_another_search_path_is_named_with_what_to_type(
    cli: Cli, connection: Database
) -> None:
    connection.execute(
        """
        create table public.audit (id pg_catalog.text);
        create function public.audited() returns trigger language plpgsql as
          $$ begin insert into audit values (new.id); return null; end $$;
        create trigger audited after insert on agents.users for each row execute function public.audited();
        """
    )
    refused = cli("agent", "add", AGENT)
    assert (refused.returncode, refused.stderr) == (
        3,
        'error: a function of the database, public.audited(), can\'t find a name: relation "audit" does not exist\n'
        "hint: archisync's sessions have no schema of yours in their search_path: "
        "alter function public.audited() set search_path = public\n",
    )
    connection.execute("alter function public.audited() set search_path = public")
    assert cli("agent", "add", AGENT).returncode == 0
