"""`db grants`: with its roles a tick, a worker, an operator and a reader can do their work, and nothing else."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from archisync.base.errors import ExitCode
from archisync.store.database import Database
from archisync.store.grants import Role, grants_sql
from tests.conftest import Cli
from tests.support.samples import SAMPLES

PREFIX = "granted"
AGENT = "anna.bianchi"
SOURCE = {"ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv"}


@pytest.fixture
def accounts(connection: Database, cli: Cli, database_url: str) -> Iterator[dict[Role, dict[str, str]]]:
    """The environment of an account in each role. Roles belong to the whole server, so they are dropped at the end."""
    connection.execute(cli("db", "grants", "--prefix", PREFIX).stdout.encode())
    found = {}
    for role in Role:
        connection.execute(f"create role {PREFIX}_{role}_1 login in role {PREFIX}_{role}".encode())
        url = urlsplit(database_url)._replace(netloc=f"{PREFIX}_{role}_1@").geturl()
        found[role] = SOURCE | {"ARCHISYNC_DATABASE_URL": url}
    yield found
    for role in Role:
        connection.execute(f"drop role {PREFIX}_{role}_1".encode())
        connection.execute(f"drop owned by {PREFIX}_{role}".encode())
        connection.execute(f"drop role {PREFIX}_{role}".encode())


def test_a_login_that_may_not_create_roles_is_told_who_may_and_can_grant_again(
    connection: Database, database_url: str
) -> None:
    """The owner of the schema, as `createuser` makes it, in a database that is its own."""
    owner, sql = "granted_owner", grants_sql(PREFIX)
    connection.execute(f"create role {owner} login".encode())
    connection.execute(f"alter database {connection.info.dbname} owner to {owner}".encode())
    for schema in ("system", "agents", "shared"):
        connection.execute(f"alter schema {schema} owner to {owner}".encode())
    connection.execute(
        f"do $$ declare t regclass; begin for t in select oid from pg_class where relkind in ('r', 'v', 'p') and relnamespace = any "
        f"(array['system'::regnamespace, 'agents'::regnamespace, 'shared'::regnamespace]) loop "
        f"execute format('alter table %s owner to {owner}', t); end loop; end $$".encode()
    )
    try:
        with psycopg.connect(urlsplit(database_url)._replace(netloc=f"{owner}@").geturl(), autocommit=True) as db:
            with pytest.raises(psycopg.errors.RaiseException) as told:
                db.execute(sql.encode())
            assert told.value.diag.message_primary == f"{owner} may not create the role {PREFIX}_tick"
            assert str(told.value.diag.message_hint).startswith("run this as a superuser")
            connection.execute(sql.encode())
            db.execute(sql.encode())
    finally:
        connection.execute(f"reassign owned by {owner} to current_user".encode())
        for name in (owner, *(f"{PREFIX}_{role}" for role in Role)):
            connection.execute(f"drop owned by {name}".encode())
            connection.execute(f"drop role {name}".encode())


def test_each_role_has_the_rights_for_its_work(
    cli: Cli, connection: Database, accounts: dict[Role, dict[str, str]]
) -> None:
    def does(role: Role, *words: str, code: int = 0) -> None:
        done = cli(*words, env=accounts[role])
        assert done.returncode == code, f"{role}: archisync {' '.join(words)}: {done.stderr}"

    does(Role.OPERATOR, "agent", "add", AGENT, "--allow")
    does(Role.OPERATOR, "interval", "set", "orders", "15")
    does(Role.TICK, "tick", "--dry-run")
    does(Role.TICK, "tick")
    does(Role.WORKER, "worker", "--single", "--burst")
    row = connection.execute("select count(*) as n from system.sync_runs where state = 'succeeded'").fetchone()
    assert row is not None
    assert row["n"] == 6
    connection.execute("update system.sync_state set known_rows = 100000 where sync_type = 'orders'")
    does(Role.OPERATOR, "run", "orders", "--agent", AGENT, "--inline", code=ExitCode.HELD)
    does(Role.OPERATOR, "held", "accept", "7", "--why", "known")
    does(Role.TICK, "tick")
    does(Role.WORKER, "worker", "--single", "--burst")
    does(Role.OPERATOR, "pause", "--agent", AGENT)
    does(Role.OPERATOR, "resume", "--agent", AGENT)
    does(Role.OPERATOR, "prune", "--older-than", "1d")
    for role in Role:
        does(role, "status")
        does(role, "history")
        does(role, "held", "list", "--all")
    assert connection.execute("select used_by_run from system.held_exports").fetchone() == {"used_by_run": 8}


def test_doctor_says_for_what_an_account_has_the_rights(cli: Cli, accounts: dict[Role, dict[str, str]]) -> None:
    printed = {role: cli("doctor", "--only", "rights", env=accounts[role]).stdout.splitlines()[0] for role in Role}
    name = f"{PREFIX}_{{}}_1"
    ok = "ok       rights       the role "
    assert printed[Role.TICK] == f"{ok}{name.format('tick')} has the rights of a tick"
    assert printed[Role.WORKER] == f"{ok}{name.format('worker')} has the rights of a worker"
    assert printed[Role.OPERATOR] == f"{ok}{name.format('operator')} has the rights of a tick and a worker"
    assert printed[Role.READER].startswith(f"failed   rights       the role {name.format('reader')} lacks: ")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (Role.TICK, "select 1 from agents.customers"),
        (Role.TICK, "update agents.users set whitelisted = true"),
        (Role.TICK, "update system.sync_settings set enabled = true"),
        (Role.WORKER, "delete from system.sync_runs"),
        (Role.WORKER, "update agents.users set whitelisted = true"),
        (Role.WORKER, "update system.sync_settings set enabled = true"),
        (Role.READER, "update system.sync_state set active = false"),
        (Role.READER, "delete from shared.products"),
        (Role.READER, "select system.activate_agents('{x}')"),
        (Role.READER, "select system.deactivate_agents('{x}')"),
        (Role.OPERATOR, "drop table agents.orders"),
    ],
)
def test_a_role_may_do_nothing_else(accounts: dict[Role, dict[str, str]], role: Role, statement: str) -> None:
    with (
        psycopg.connect(accounts[role]["ARCHISYNC_DATABASE_URL"]) as db,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        db.execute(statement.encode())


def test_granting_again_revokes_rights_that_a_role_no_longer_needs(
    connection: Database, accounts: dict[Role, dict[str, str]]
) -> None:
    connection.execute(f"grant delete on agents.orders to {PREFIX}_tick".encode())
    connection.execute(grants_sql(PREFIX).encode())
    row = connection.execute(
        f"select has_table_privilege('{PREFIX}_tick', 'agents.orders', 'delete') as has"
    ).fetchone()
    assert row == {"has": False}
    assert accounts


@pytest.mark.parametrize("prefix", ["", "Big", "a; drop table x", "x" * 41])
def test_a_prefix_that_is_not_a_name_is_refused(cli: Cli, prefix: str) -> None:
    done = cli("db", "grants", "--prefix", prefix)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {ascii(prefix)[:40]} can't begin the name of a role\n"
        "hint: lower-case letters, digits and underscores, at most 40, beginning with a letter\n"
    )


def test_the_reader_may_read_every_table(connection: Database) -> None:
    rows = connection.execute(
        "select schemaname || '.' || tablename as t from pg_tables where schemaname in ('system', 'agents', 'shared')"
        "   and schemaname || '.' || tablename not in (select table_name from system.sync_types)"
    ).fetchall()
    text = grants_sql()
    assert {row["t"] for row in rows if f" on {row['t']} to archisync_reader;" not in text} == set()


def test_what_a_tick_may_not_see_is_refused_and_lists_leave_it_out(
    cli: Cli, connection: Database, accounts: dict[Role, dict[str, str]]
) -> None:
    assert cli("agent", "add", AGENT, "--allow", env=accounts[Role.OPERATOR]).returncode == 0
    connection.execute("update system.sync_state set known_rows = 100000 where sync_type = 'orders'")
    assert cli("run", "orders", "--agent", AGENT, "--inline", env=accounts[Role.OPERATOR]).returncode == ExitCode.HELD
    tick, reader = accounts[Role.TICK], accounts[Role.READER]
    for words in (
        ("status", "--json"),
        ("held", "list", "--json"),
        ("history", "--json"),
        ("metrics",),
        ("--quiet", "report", "--html", "-"),
    ):
        done = cli(*words, env=tick)
        assert (words, done.returncode, done.stderr) == (words, 0, "")
    assert '"changes": null' in cli("held", "list", "--json", env=tick).stdout
    for words in (("held", "show", "1"), ("show", "1")):
        assert cli(*words, env=reader).returncode == 0
        refused = cli(*words, env=tick)
        assert (refused.returncode, refused.stdout) == (ExitCode.CONFIGURATION, "")
        assert refused.stderr.startswith("error: the database role may not do that: permission denied for table ")
