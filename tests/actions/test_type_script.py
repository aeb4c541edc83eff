"""`type apply --sql`: whoever executes the statements leaves the database as `type apply` does."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from archisync.actions import types
from archisync.rules.config import Config
from archisync.rules.declarations import parse_toml, read
from archisync.rules.synctypes import SYNC_TYPES, Field, Kind, SyncType
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents
from archisync.store.audit import Actor, Via
from archisync.store.database import Database, connected
from archisync.store.grants import Role, grants_sql
from tests.conftest import REPOSITORY, migrated_copy
from tests.support.programs import postgresql_program

ACTOR = Actor(name="paolo@web1", via=Via.CLI)
CONFIG = Config(environment={})
FILE = "returns.toml"
DBA = "type_script_dba"
OWNER = "type_script_owner"
PREFIX = "type_script"
ROLES = [DBA, OWNER, *(f"{PREFIX}_{role}" for role in Role)]


def declared(name: str) -> SyncType:
    path = REPOSITORY / "examples" / "types" / f"{name}.toml"
    return read(parse_toml(path.read_bytes(), path.name), file=path.name)


RETURNS = declared("returns")
CHANGED = replace(
    RETURNS,
    default_interval_minutes=60,
    after=("ddt",),
    fields=(
        *(field for field in RETURNS.fields if field.name != "reason"),
        Field(name="note", aliases=("NOTÀ D'AGENTE; $$ \\ {}",)),
        Field(name="carrier", kind=Kind.IDENTIFIER, distinct=True),
    ),
)


@pytest.fixture
def databases(
    admin: psycopg.Connection[Any], session_postgres: EmbeddedPostgres, template: str, database_names: Iterator[str]
) -> Iterator[tuple[str, str]]:
    """Two databases that are alike. Their tables are not the administrator's, who runs the statements."""
    admin.execute(f"create role {DBA} superuser".encode())
    admin.execute(f"create role {OWNER}".encode())
    with (
        migrated_copy(admin, session_postgres, template, next(database_names)) as first,
        migrated_copy(admin, session_postgres, template, next(database_names)) as second,
    ):
        for url in (first, second):
            with connected(url, purpose="test") as db:
                db.execute(grants_sql(PREFIX).encode())
                for type_ in SYNC_TYPES.values():
                    db.execute(f"alter table {type_.table} owner to {OWNER}".encode())
                for name in ("anna", "d'angelo"):
                    agents.add(db, name, name=None, whitelisted=True)
        yield first, second
    for role in ROLES:
        admin.execute(f"drop role if exists {role}".encode())


def structure(url: str) -> list[str]:
    """Tables, indexes, triggers, rights and owners, as statements."""
    done = subprocess.run(
        [postgresql_program("pg_dump"), "--schema-only", "-d", url], capture_output=True, check=True, text=True
    )
    return [line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


def rows(db: Database) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table, without the times at which they came."""
    tables = db.execute(
        "select quote_ident(t.table_schema) || '.' || quote_ident(t.table_name) as name,"
        " array(select c.column_name::text from information_schema.columns c where c.table_schema = t.table_schema"
        " and c.table_name = t.table_name and c.data_type like 'timestamp%%') as times"
        " from information_schema.tables t where t.table_schema in ('system', 'agents', 'shared')"
        " and t.table_type = 'BASE TABLE'",
        [],
    ).fetchall()
    assert len(tables) > 20
    found = {}
    for table in tables:
        statement = f"select to_jsonb(t) - %s::text[] as row from {table['name']} t order by 1"
        found[table["name"]] = [row["row"] for row in db.execute(statement.encode(), [table["times"]]).fetchall()]
    return found


ADOPTED = replace(declared("stock"), adopt=True)
CASES: dict[str, list[SyncType]] = {
    "new": [RETURNS],
    "shared": [declared("stock")],
    "changed": [RETURNS, CHANGED],
    "two, of which one changes the level of the other": [RETURNS, replace(declared("targets"), after=("returns",)), CHANGED],
    "adopted": [ADOPTED],
}  # fmt: skip


@pytest.mark.parametrize("declarations", CASES.values(), ids=CASES)
def test_the_statements_leave_what_apply_leaves(databases: tuple[str, str], declarations: list[SyncType]) -> None:
    first, second = databases
    with connected(first, purpose="test") as one, connected(second, purpose="test") as other:
        if ADOPTED in declarations:
            for db in (one, other):
                db.execute(
                    "create table shared.stock (warehouse text, product_id text, unique (warehouse, product_id))"
                )
        other.execute(f"set session authorization {DBA}".encode())
        for type_ in declarations:
            types.apply(one, ACTOR, type_, CONFIG, file=FILE, why="more work")
            other.execute(types.script(other, ACTOR, type_, CONFIG, file=FILE, why="more work").encode())
            assert types.script(other, ACTOR, type_, CONFIG, file=FILE) == ""
        assert rows(other) == rows(one)
        assert [r["action"] for r in rows(other)["system.audit"]] == ["type apply"] * len(declarations)
    assert structure(second) == structure(first)


def test_a_new_table_belongs_to_whoever_owns_the_others(databases: tuple[str, str]) -> None:
    """The role that created it may have been one that does nothing else."""
    with connected(databases[0], purpose="test") as db:
        db.execute(f"set session authorization {DBA}".encode())
        db.execute(types.script(db, ACTOR, RETURNS, CONFIG, file=FILE).encode())
        [row] = db.execute("select tableowner from pg_tables where tablename = 'returns'").fetchall()
    assert row["tableowner"] == OWNER


def test_an_adopted_table_keeps_its_owner_and_the_owner_of_the_others_may_write_to_it(
    databases: tuple[str, str],
) -> None:
    with connected(databases[0], purpose="test") as db:
        db.execute("create table shared.stock (warehouse text, product_id text, unique (warehouse, product_id))")
        before = db.execute("select tableowner from pg_tables where tablename = 'stock'").fetchall()
        types.apply(db, ACTOR, ADOPTED, CONFIG, file=FILE)
        assert db.execute("select tableowner from pg_tables where tablename = 'stock'").fetchall() == before
        for privilege in ("select", "insert", "update", "delete"):
            [row] = db.execute(
                "select has_table_privilege(%s, 'shared.stock', %s) as may", [OWNER, privilege]
            ).fetchall()
            assert row["may"], privilege


def test_statements_that_are_out_of_date_change_nothing(databases: tuple[str, str]) -> None:
    with connected(databases[0], purpose="test") as db:
        types.apply(db, ACTOR, RETURNS, CONFIG, file=FILE)
        late = types.script(db, ACTOR, CHANGED, CONFIG, file=FILE)
        types.apply(db, ACTOR, replace(RETURNS, default_interval_minutes=45), CONFIG, file=FILE)
        before = rows(db)
        with pytest.raises(
            psycopg.errors.RaiseException, match="the type returns was declared by somebody else meanwhile"
        ):
            db.execute(late.encode())
        db.execute("rollback")
        assert rows(db) == before
