"""The functions of the schema: those with the rights of its owner are for triggers only, and none depends on its caller's search_path."""

from collections.abc import Iterator, Sequence
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from archisync.store import agents, migrations
from archisync.store.database import Database, connected
from archisync.store.grants import Role, grants_sql
from tests.support.rows import count
from tests.support.systempostgres import needs_system_postgres, system_postgres

AGENT = "anna.bianchi"
FUNCTIONS: LiteralString = """
select p.oid, p.oid::regprocedure::text as name, p.prosecdef as definer, l.lanname as language, p.prosqlbody is not null as parsed,
       coalesce(p.proconfig, '{}') as settings, p.prorettype = 'trigger'::regtype as is_trigger,
       has_function_privilege('public', p.oid, 'execute') as of_public
  from pg_proc p join pg_language l on l.oid = p.prolang
 where p.pronamespace in ('system'::regnamespace, 'agents'::regnamespace, 'shared'::regnamespace)
"""
OWN_PATH = "search_path=pg_catalog, pg_temp"
PREFIX = "functions"


@pytest.fixture(scope="module")
def older_server() -> Iterator[str]:
    with system_postgres() as url:
        yield url


@pytest.fixture(params=["embedded", pytest.param("system", marks=needs_system_postgres)])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database that a superuser has migrated, with the roles of `db grants`: in the embedded server, and in the operating system's."""
    if request.param == "embedded":
        yield from _with_roles(request.getfixturevalue("database_url"))
        return
    url = urlsplit(request.getfixturevalue("older_server"))
    with psycopg.connect(url.geturl(), autocommit=True) as admin:
        admin.execute("create database functions")
        yield from _with_roles(url._replace(path="/functions").geturl())
        admin.execute("drop database functions with (force)")


def _with_roles(url: str) -> Iterator[Database]:
    with connected(url, purpose="test") as db:
        migrations.migrate(db, {})
        db.execute(grants_sql(PREFIX).encode())
        yield db
        for role in Role:
            db.execute(f"drop owned by {PREFIX}_{role}".encode())
            db.execute(f"drop role {PREFIX}_{role}".encode())


def functions(db: Database) -> Sequence[dict[str, object]]:
    found = db.execute(FUNCTIONS).fetchall()
    assert len(found) > 10
    return found


def test_no_function_with_the_rights_of_its_owner_may_be_called_by_everybody(db: Database) -> None:
    assert [f["name"] for f in functions(db) if f["definer"] and f["of_public"]] == []


def test_no_function_depends_on_the_search_path_of_its_caller(db: Database) -> None:
    def is_safe(function: dict[str, object]) -> bool:
        return function["settings"] == [OWN_PATH] or (bool(function["parsed"]) and not function["definer"])

    assert [f["name"] for f in functions(db) if not is_safe(f)] == []


def refused(db: Database, statements: Sequence[str]) -> bool:
    """Whether the last of the statements is refused for want of a right; all of them are rolled back."""
    with db.transaction(force_rollback=True):
        for statement in statements[:-1]:
            db.execute(statement.encode())
        with pytest.raises(InsufficientPrivilege) as caught, db.transaction():
            db.execute(statements[-1].encode())
    return "permission denied for function" in str(caught.value) or "for its own tables, not for" in str(caught.value)


def test_no_login_of_any_role_may_call_such_a_function_or_make_a_trigger_of_it(db: Database) -> None:
    for role in Role:
        for function in (f for f in functions(db) if f["definer"]):
            login = [f"set local role {PREFIX}_{role}", "create temp table mine (id text, whitelisted boolean)"]
            if function["is_trigger"]:
                attempt = f"create trigger t after insert on mine execute function {function['name']}"
            else:
                attempt = f"select {str(function['name']).split('(')[0]}('{{x}}')"
            assert refused(db, [*login, attempt]), f"{role}: {attempt}"


def test_a_trigger_function_refuses_a_table_that_is_not_ours(db: Database) -> None:
    """The second line: somebody was granted the right after all, or the owner has made a mistake."""
    db.execute("create table agents.mine (id text, agent_id text, whitelisted boolean)")
    for function in (f for f in functions(db) if f["definer"] and f["is_trigger"]):
        for arguments in ("", "'customers'", "'mine;'", "'users'"):
            call = f"{str(function['name']).removesuffix('()')}({arguments})"
            for when, level in (("after insert", "row"), ("before insert", "row"), ("after insert", "statement")):
                trigger = f"create trigger t {when} on agents.mine for each {level} execute function {call}"
                assert refused(db, [trigger, "insert into agents.mine values ('x', 'x', true)"]), trigger


def test_what_a_caller_calls_like_a_transition_table_is_never_read(db: Database) -> None:
    """A view of that name, made by whoever had the right to attach the functions, would run its functions as the schema's owner."""
    db.execute(f"grant execute on all functions in schema system to {PREFIX}_reader".encode())
    db.execute(f"set role {PREFIX}_reader".encode())
    db.execute("create temp table caught (who text)")
    db.execute(
        "create function pg_temp.catch() returns boolean language plpgsql as"
        " $$ begin insert into pg_temp.caught values (current_user); return true; end $$"
    )
    for name in ("new_users", "old_users"):
        db.execute(f"create temp view {name} as select 'x'::text as id, pg_temp.catch() as whitelisted".encode())
    db.execute("create temp table mine (id text)")
    for function in ("users_inserted", "users_deleted"):
        trigger = f"create trigger t after insert on mine execute function system.{function}()"
        assert refused(db, [trigger, "insert into mine values ('x')"])
    assert count(db, "select count(*) from pg_temp.caught") == 0
    db.execute("reset role")


def test_triggers_of_ours_fire_for_a_login_that_may_not_call_them(db: Database) -> None:
    db.execute(f"grant insert, update, delete on agents.users, agents.customers to {PREFIX}_reader".encode())
    db.execute(f"set role {PREFIX}_reader".encode())
    db.execute("insert into agents.users (id, whitelisted) values (%s, true), ('luca', true)", [AGENT])
    db.execute("update agents.users set whitelisted = false where id = 'luca'")
    db.execute("insert into agents.customers (agent_id, customer_id, name) values (%s, '1', 'x')", [AGENT])
    db.execute("reset role")
    assert [a.agent_id for a in agents.agents(db) if a.whitelisted] == [AGENT]
    assert count(db, "select count(*) from system.sync_state where agent_id = %s and active", AGENT) == 4
    assert count(db, "select count(*) from system.sync_state where agent_id = 'luca' and not active") == 4
    assert count(db, "select count(*) from system.outside_changes where agent_id = %s", AGENT) == 1


def test_a_partition_of_our_table_counts_as_ours(connection: Database) -> None:
    connection.execute("drop table agents.ddt")
    connection.execute(
        "create table agents.ddt (agent_id text not null, ddt_number text not null) partition by list (agent_id)"
    )
    connection.execute(
        "create trigger archisync_changed_outside after insert on agents.ddt for each row execute function system.changed_outside('ddt')"
    )
    connection.execute("create table public.ddt_of_anna partition of agents.ddt for values in ('anna')")
    connection.execute("insert into agents.ddt values ('anna', '1')")
    assert (
        count(connection, "select count(*) from system.outside_changes where agent_id = 'anna' and sync_type = 'ddt'")
        == 1
    )
