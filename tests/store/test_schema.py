"""The schema on empty and on used databases; the registry and the database agree; every statement prepares."""

import importlib
import json
import pkgutil
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

import archisync.store
from archisync.base.errors import ExitCode, SchemaError
from archisync.rules.synctypes import SYNC_TYPES, Scope
from archisync.store import agents, migrations, settings
from archisync.store.database import Database, connected
from archisync.store.typetables import COLUMN_TYPE
from tests.conftest import Cli
from tests.support.programs import postgresql_program

ALL = ["0001 archisync"]
BOOKKEEPING = {"agent_id", "inserted_at", "updated_at", "run_id", "absent_since", "line_digest"}


def statements() -> list[tuple[str, str]]:
    found = []
    for module in pkgutil.iter_modules(archisync.store.__path__):
        loaded = importlib.import_module(f"archisync.store.{module.name}")
        found += [
            (f"{module.name}.{n}", v) for n, v in vars(loaded).items() if n.startswith("SQL_") and n != "SQL_BOOTSTRAP"
        ]
    return found


@pytest.mark.parametrize(("name", "statement"), statements(), ids=lambda v: v if "." in v and " " not in v else "")
def test_every_statement_prepares_on_a_real_server(connection: Database, name: str, statement: str) -> None:
    numbers = {name: f"${i}" for i, name in enumerate(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)), 1)}
    connection.execute(
        "prepare checked as " + re.sub(r"%\((\w+)\)s", lambda m: numbers[m[1]], statement).replace("%%", "%")
    )
    assert name


def test_every_statement_says_its_purpose_its_caller_and_its_locks() -> None:
    written = re.compile(r"((?:^#.*\n)*)^(SQL_\w+) = ", re.M)
    silent = [
        f"{path.stem}.{name}"
        for path in Path(archisync.store.__path__[0]).glob("*.py")
        for comment, name in written.findall(path.read_text("utf-8"))
        if not re.search(r"Purpose: [^$]+Caller: [^$]+ (Locks: |No locks\.)", comment.replace("\n# ", " "))
    ]
    assert silent == []


def test_the_default_intervals_are_seeded(connection: Database) -> None:
    found = {s.sync_type: s.interval_minutes for s in settings.all_settings(connection)}
    assert found == {"orders": 10, "customers": 15, "products": 30, "prices": 60, "ddt": 20, "invoices": 20}


def test_an_environment_variable_changes_the_seed_only(empty_database_url: str) -> None:
    with connected(empty_database_url, purpose="test") as db:
        migrations.migrate(db, {"ARCHISYNC_INTERVAL_ORDERS": "7"})
        migrations.migrate(db, {"ARCHISYNC_INTERVAL_ORDERS": "9"})
        assert settings.all_settings(db)[0].interval_minutes == 7


def test_migrating_twice_applies_nothing_the_second_time(empty_database_url: str) -> None:
    with connected(empty_database_url, purpose="test") as db:
        assert migrations.migrate(db, {}) == ALL
        assert migrations.migrate(db, {}) == []


def test_migrating_four_times_at_once_applies_once(empty_database_url: str) -> None:
    def migrate(_: int) -> list[str]:
        with connected(empty_database_url, purpose="test") as db:
            return migrations.migrate(db, {})

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(migrate, range(4)))
    assert sorted(done) == [[], [], [], ALL]


def test_existing_users_and_settings_are_kept(empty_database_url: str) -> None:
    with connected(empty_database_url, purpose="test") as db:
        db.execute("create schema agents")
        db.execute("create schema system")
        db.execute("create table agents.users (id text primary key, badge int not null, whitelisted boolean)")
        db.execute("insert into agents.users values ('a', 1, true), ('b', 2, false), ('c', 3, null)")
        db.execute("create table system.sync_settings (sync_type text primary key, interval_minutes int)")
        db.execute("insert into system.sync_settings values ('orders', 99)")
        migrations.migrate(db, {})
        kept = {s.sync_type: s.interval_minutes for s in settings.all_settings(db)}
        pairs = db.execute("select agent_id, count(*) as n from system.sync_state group by 1 order by 1").fetchall()
    assert kept == {"orders": 99, "customers": 15, "products": 30, "prices": 60, "ddt": 20, "invoices": 20}
    assert [(p["agent_id"], p["n"]) for p in pairs] == [("a", 4), ("service-account", 2)]


@pytest.mark.parametrize("minutes", [3, None])
def test_an_existing_interval_out_of_bounds_is_refused_and_changes_nothing(
    empty_database_url: str, minutes: int | None
) -> None:
    with connected(empty_database_url, purpose="test") as db:
        db.execute("create schema system")
        db.execute("create table system.sync_settings (sync_type text primary key, interval_minutes int)")
        db.execute("insert into system.sync_settings values ('orders', %s)", [minutes])
        with pytest.raises(SchemaError, match="can't be applied to what is in this database"):
            migrations.migrate(db, {})
        assert migrations.applied(db) == {}


@pytest.mark.parametrize("minutes", [4, 1441, 0, -5])
def test_the_database_refuses_an_interval_out_of_bounds(connection: Database, minutes: int) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("update system.sync_settings set interval_minutes = %s", (minutes,))


def test_the_database_refuses_an_unknown_type(connection: Database) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("insert into system.sync_settings (sync_type) values ('order')")


def test_the_registry_and_the_database_know_the_same_types(connection: Database) -> None:
    rows = connection.execute("select sync_type, scope, level from system.sync_types").fetchall()
    declared = {(t.name, t.scope.value, t.level) for t in SYNC_TYPES.values()}
    assert {(r["sync_type"], r["scope"], r["level"]) for r in rows} == declared


@pytest.mark.parametrize("name", SYNC_TYPES)
def test_each_declared_field_is_a_column_of_its_type(connection: Database, name: str) -> None:
    kind = SYNC_TYPES[name]
    rows = connection.execute(
        "select a.attname as name, format_type(a.atttypid, null) as type from pg_attribute a"
        " where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped",
        (kind.table,),
    ).fetchall()
    columns = {r["name"]: r["type"].replace("timestamp with time zone", "timestamptz") for r in rows}
    expected = {f.name: COLUMN_TYPE[f.kind] for f in kind.fields}
    assert {n: t for n, t in columns.items() if n not in BOOKKEEPING} == expected
    assert ("agent_id" in columns) == (kind.scope is Scope.AGENT)


def test_db_status_says_by_exit_code_whether_the_schema_is_current(
    cli: Cli, empty_database_url: str, database_url: str
) -> None:
    old = cli("db", "status", "--exit-code", env={"ARCHISYNC_DATABASE_URL": empty_database_url})
    assert (old.returncode, old.stdout, old.stderr) == (
        ExitCode.CONFIGURATION,
        "the schema lacks 0001 archisync\n",
        "hint: archisync db migrate\n",
    )
    new = cli("db", "status", "--exit-code", env={"ARCHISYNC_DATABASE_URL": database_url})
    assert (new.returncode, new.stdout) == (ExitCode.DONE, "the schema is current\n")


ELEVEN = {
    1: "initial", 2: "source_validators", 3: "guard", 4: "outside_changes", 5: "notices", 6: "deliveries", 7: "at_scale",
    8: "line_digests", 9: "queue_indexes", 10: "skipped_runs", 11: "holds_and_registry",
}  # fmt: skip
"""The migrations of the development versions before the first release."""


def record(db: Database, versions: dict[int, str]) -> None:
    """Replace the recorded migrations."""
    db.execute(migrations.SQL_BOOTSTRAP)
    db.execute("delete from system.schema_migrations")
    for version, name in versions.items():
        db.execute(migrations.SQL_RECORD, {"version": version, "name": name})


def tables(db: Database) -> list[str]:
    rows = db.execute("select schemaname || '.' || tablename as name from pg_tables where tableowner = current_user")
    return sorted(row["name"] for row in rows if not row["name"].startswith(("pg_catalog", "information_schema")))


def described(versions: Iterable[int]) -> str:
    names = ", ".join(f"{version:04d} {ELEVEN[version]}" for version in versions)
    return f"a development version of archisync made this database ({names}): it can't be brought up to date"


@pytest.mark.parametrize("versions", [range(1, 12), range(1, 6), [1], [3, 4]], ids=str)
def test_a_database_of_a_development_version_is_refused_and_left_alone(
    empty_database_url: str, versions: Iterable[int]
) -> None:
    with connected(empty_database_url, purpose="test") as db:
        record(db, {version: ELEVEN[version] for version in versions})
        db.execute("create schema agents")
        db.execute("create table agents.users (id text primary key, whitelisted boolean)")
        db.execute("insert into agents.users values ('anna', true)")
        before = tables(db)
        for refused in (migrations.migrate, migrations.check_current):
            with pytest.raises(SchemaError) as caught:
                refused(db)
            assert (caught.value.message, caught.value.hint) == (described(versions), migrations.HINT_START_ANEW)
        assert tables(db) == before == ["agents.users", "system.schema_migrations"]
        assert db.execute("select id from agents.users").fetchall() == [{"id": "anna"}]


def test_db_commands_say_what_to_do_with_a_database_of_a_development_version(cli: Cli, connection: Database) -> None:
    record(connection, ELEVEN)
    said, hint = described(ELEVEN), f"hint: {migrations.HINT_START_ANEW}\n"
    status = cli("db", "status")
    assert (status.returncode, status.stdout, status.stderr) == (ExitCode.DONE, f"{said}\n", hint)
    checked = cli("db", "status", "--exit-code", "--json")
    assert (checked.returncode, json.loads(checked.stdout)) == (
        ExitCode.CONFIGURATION,
        {"schema": 1, "current": False, "applied": list(ELEVEN), "missing": ALL},
    )
    migrated = cli("db", "migrate")
    assert (migrated.returncode, migrated.stdout, migrated.stderr) == (
        ExitCode.CONFIGURATION,
        "",
        f"error: {said}\n{hint}",
    )


def test_what_the_hint_says_keeps_agents_settings_and_pauses(
    cli: Cli, connection: Database, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    connection.execute(
        "insert into agents.users (id, full_name, whitelisted) values ('anna', 'Anna', true), ('carl', '', false)"
    )
    settings.set_interval(connection, SYNC_TYPES["orders"], 45)
    settings.pause(connection, sync_type=None, agent_id="anna", until=None, reason="holiday", by="me")
    record(connection, ELEVEN)
    dump, migrate, load = migrations.HINT_START_ANEW.partition("): ")[2].split("; ")

    for command in (dump, load):
        if command is load:
            assert migrate == "archisync db migrate in the new one"
            assert cli("db", "migrate", env={"ARCHISYNC_DATABASE_URL": empty_database_url}).returncode == ExitCode.DONE
        urls = f"OLD_URL='{database_url}' NEW_URL='{empty_database_url}'"
        typed = command.replace("OLD_URL", '"$OLD_URL"').replace("NEW_URL", '"$NEW_URL"')
        subprocess.run(f"{urls}; {postgresql_program(typed)}", shell=True, check=True, cwd=tmp_path)  # noqa: S602 - the hint as typed

    with connected(empty_database_url, purpose="test") as db:
        assert [(a.agent_id, a.name, a.whitelisted, a.paused) for a in agents.agents(db)] == [
            ("anna", "Anna", True, True),
            ("carl", "", False, False),
        ]
        assert settings.all_settings(db) == settings.all_settings(connection)
        assert settings.pauses(db) == settings.pauses(connection)
        assert {row["agent_id"] for row in db.execute("select agent_id from system.sync_state where active")} == {
            "anna",
            "service-account",
        }
