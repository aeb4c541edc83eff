"""The schema on empty and on used databases; the registry and the database agree; every statement prepares."""

import importlib
import pkgutil
import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import archisync.store
from archisync.base.errors import SchemaError
from archisync.rules.synctypes import SYNC_TYPES, Scope
from archisync.store import migrations, settings
from archisync.store.database import Database, connected
from archisync.sync.staging import SQL_TYPE

ALL = [
    "0001 initial",
    "0002 source_validators",
    "0003 guard",
    "0004 outside_changes",
    "0005 notices",
    "0006 deliveries",
    "0007 at_scale",
    "0008 line_digests",
    "0009 queue_indexes",
    "0010 skipped_runs",
    "0011 holds_and_registry",
]
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


def test_an_existing_interval_out_of_bounds_is_told_and_changes_nothing(empty_database_url: str) -> None:
    with connected(empty_database_url, purpose="test") as db:
        db.execute("create schema system")
        db.execute("create table system.sync_settings (sync_type text primary key, interval_minutes int)")
        db.execute("insert into system.sync_settings values ('orders', 3)")
        with pytest.raises(SchemaError, match="can't be applied to what is in this database"):
            migrations.migrate(db, {})
        assert migrations.applied_versions(db) == []


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
    expected = {f.name: SQL_TYPE[f.kind] for f in kind.fields}
    assert {n: t for n, t in columns.items() if n not in BOOKKEEPING} == expected
    assert ("agent_id" in columns) == (kind.scope is Scope.AGENT)


def test_db_status_tells_by_exit_code_whether_the_schema_is_current(
    cli: object, empty_database_url: str, database_url: str
) -> None:
    assert callable(cli)
    old = cli("db", "status", "--exit-code", env={"ARCHISYNC_DATABASE_URL": empty_database_url})
    assert (old.returncode, old.stdout, old.stderr) == (
        3,
        f"missing: {', '.join(ALL)}\n",
        "hint: archisync db migrate\n",
    )
    new = cli("db", "status", "--exit-code", env={"ARCHISYNC_DATABASE_URL": database_url})
    assert (new.returncode, new.stdout) == (0, "the schema is current\n")
