"""A type of the company's own: declared, changed, adopted and removed while ticks and workers go on."""

import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from archisync import __version__
from archisync.actions import types
from archisync.base.errors import ArchisyncError, BusyError, ConfigurationError, NotFoundError, UsageError
from archisync.rules.config import Config
from archisync.rules.declarations import parse_toml, read
from archisync.rules.synctypes import SYNC_TYPES, Field, Kind, SyncType
from archisync.store import agents, audit, migrations, queued_runs, synctypes
from archisync.store.audit import Actor, Via
from archisync.store.database import Database, connected
from archisync.store.grants import Role, grants_sql
from archisync.store.runs import State
from tests.conftest import REPOSITORY
from tests.support.programs import postgresql_program
from tests.support.rows import count, sync

ACTOR = Actor(name="paolo@web1", via=Via.CLI)
CONFIG = Config(environment={})
FILE = "returns.toml"


def declared(name: str = "returns") -> SyncType:
    path = REPOSITORY / "examples" / "types" / f"{name}.toml"
    return read(parse_toml(path.read_bytes(), path.name), file=path.name)


RETURNS = declared()


def apply(db: Database, type_: SyncType = RETURNS) -> types.Plan:
    return types.apply(db, ACTOR, type_, CONFIG, file=FILE)


def columns(db: Database, table: str = "agents.returns") -> list[str]:
    rows = db.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 order by attnum", [table]
    )
    return [row["attname"] for row in rows.fetchall()]


def with_field(type_: SyncType, field: Field) -> SyncType:
    return replace(type_, fields=(*type_.fields, field))


def without_field(type_: SyncType, name: str) -> SyncType:
    return replace(type_, fields=tuple(f for f in type_.fields if f.name != name))


@pytest.fixture
def anna(connection: Database) -> Database:
    agents.add(connection, "anna", name=None, whitelisted=True)
    agents.add(connection, "marco", name=None, whitelisted=False)
    return connection


def test_applying_makes_table_schedule_and_pairs_at_once(anna: Database) -> None:
    plan = apply(anna)
    assert (plan.new, plan.sentences) == (True, ["table agents.returns with 5 fields"])
    assert columns(anna)[:6] == ["agent_id", "return_number", "order_number", "return_date", "quantity", "reason"]
    pairs = anna.execute("select agent_id, active from system.sync_state where sync_type = 'returns'").fetchall()
    assert pairs == [{"agent_id": "anna", "active": True}]
    [row] = [t for t in synctypes.listed(anna) if t.own]
    assert (row.sync_type, row.level, row.interval_minutes, row.declared_by) == ("returns", 1, 30, "paolo@web1")
    assert queued_runs.insert_due(anna, limit=100, batch=10) == (7, 7)


def test_applying_the_same_again_does_nothing(anna: Database) -> None:
    apply(anna)
    assert apply(anna).statements == []
    assert [r.action for r in audit.newest(anna)] == ["type apply"]


def test_an_agent_that_comes_later_gets_the_pair_too(anna: Database) -> None:
    apply(anna)
    agents.set_whitelisted(anna, ["marco"], True)
    assert count(anna, "select count(*) from system.sync_state where sync_type = 'returns'") == 2


def test_a_shared_type_has_one_pair(anna: Database) -> None:
    apply(anna, declared("stock"))
    rows = anna.execute("select agent_id from system.sync_state where sync_type = 'stock'").fetchall()
    assert rows == [{"agent_id": "service-account"}]


def test_the_interval_of_the_environment_wins_and_a_changed_one_is_set(anna: Database) -> None:
    types.apply(anna, ACTOR, RETURNS, Config(environment={"ARCHISYNC_INTERVAL_RETURNS": "45"}), file=FILE)
    assert [t.interval_minutes for t in synctypes.listed(anna) if t.own] == [45]
    anna.execute("update system.sync_settings set interval_minutes = 7 where sync_type = 'returns'")
    apply(anna, with_field(RETURNS, Field(name="note")))
    assert [t.interval_minutes for t in synctypes.listed(anna) if t.own] == [7]
    apply(anna, replace(with_field(RETURNS, Field(name="note")), default_interval_minutes=60))
    assert [t.interval_minutes for t in synctypes.listed(anna) if t.own] == [60]


def test_a_new_field_is_a_new_column_and_one_that_leaves_keeps_its_column(anna: Database) -> None:
    apply(anna)
    more = with_field(without_field(RETURNS, "order_number"), Field(name="note", required=True))
    more = replace(more, order_reference=None)
    plan = apply(anna, more)
    assert list(plan.sentences) == [
        "1 column added: note", "no longer written, and kept: order_number", "changed: order_reference",
    ]  # fmt: skip
    assert {"note", "order_number"} <= set(columns(anna))
    anna.execute("insert into agents.returns (agent_id, return_number) values ('anna', 'R1')")  # neither must be filled
    apply(anna)
    assert columns(anna).count("order_number") == 1


def refused(act: Callable[[], object], kind: type[ArchisyncError] = ConfigurationError) -> str:
    with pytest.raises(ArchisyncError) as raised:
        act()
    assert type(raised.value) is kind
    assert raised.value.hint
    return raised.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": ("order_number",)}, "key: it can't change from return_number to order_number"),
        ({"table": "agents.returned"}, "table: it can't change from agents.returns to agents.returned"),
        ({"table": "agents.orders"}, "table: agents.orders is the table of orders"),
        ({"name": "orders", "table": "agents.x"}, "name: orders comes with archisync"),
        ({"after": ("ordrs",)}, "after: there is no type 'ordrs'"),
        ({"name": "lines", "table": "nowhere.lines"}, "table: there is no schema nowhere"),
        ({"name": "claims", "table": "agents.taken"}, "table: agents.taken exists, and is no table of archisync"),
    ],
)
def test_what_is_not_safe_is_refused_and_changes_nothing(anna: Database, change: dict[str, Any], message: str) -> None:
    apply(anna)
    anna.execute("create table agents.taken (x int)")
    before = anna.execute("select * from system.sync_types order by 1").fetchall()
    assert refused(lambda: apply(anna, replace(RETURNS, **change))) == f"{FILE}: {message}"
    assert anna.execute("select * from system.sync_types order by 1").fetchall() == before


def test_a_kind_can_t_change(anna: Database) -> None:
    apply(anna)
    other = with_field(without_field(RETURNS, "quantity"), Field(name="quantity", kind=Kind.INTEGER))
    assert (
        refused(lambda: apply(anna, other)) == f"{FILE}: fields.quantity.kind: it can't change from number to integer"
    )


def test_a_column_that_somebody_added_with_another_type_is_refused(anna: Database) -> None:
    apply(anna)
    anna.execute("alter table agents.returns add column note integer")
    other = with_field(RETURNS, Field(name="note"))
    said = "the table has a column of that name, which is integer, not text"
    assert refused(lambda: apply(anna, other)) == f"{FILE}: fields.note: {said}"


def test_a_circle_through_several_types_is_refused_and_levels_follow(anna: Database) -> None:
    first = replace(declared("targets"), name="first", table="agents.first", after=("ddt",))
    second = replace(first, name="second", table="agents.second", after=("first",))
    apply(anna, first)
    apply(anna, second)
    assert {t.sync_type: t.level for t in synctypes.listed(anna) if t.own} == {"first": 2, "second": 3}
    assert refused(lambda: apply(anna, replace(first, after=("second",)))) == (
        f"{FILE}: after: a circle: first after second after first"
    )
    apply(anna, replace(first, after=()))
    assert {t.sync_type: t.level for t in synctypes.listed(anna) if t.own} == {"first": 0, "second": 1}


def test_a_table_of_the_company_s_is_adopted_and_nothing_is_dropped(anna: Database) -> None:
    anna.execute(
        "create table agents.returns (agent_id text not null, return_number text not null, quantity numeric,"
        " seen_by text default 'nobody', unique (agent_id, return_number))"
    )
    anna.execute("insert into agents.returns values ('anna', 'R1', 7)")
    plan = apply(anna, replace(without_field(RETURNS, "order_number"), adopt=True, order_reference=None))
    assert plan.sentences == ["table agents.returns adopted: nothing is dropped"]
    [row] = anna.execute("select * from agents.returns").fetchall()
    assert (row["quantity"], row["seen_by"], row["reason"], row["run_id"]) == (7, "nobody", None, None)
    assert refused(lambda: types.remove(anna, ACTOR, "returns", drop_table=True), UsageError) == (
        "agents.returns was there before the type: it is not dropped"
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("create table agents.returns (return_number text)", "it has no column agent_id"),
        ("create table agents.returns (agent_id text, quantity integer)", "its column quantity is integer, not numeric"),
        ("create table agents.returns (agent_id text, x int not null)", "its column x must be filled, and no field is"),
        ("create table agents.returns (agent_id text, return_number varchar(5))", "its column return_number is character varying(5)"),
        ("create view agents.returns as select 1", "is a view or the like"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_not_adopted(anna: Database, table: str, message: str) -> None:
    anna.execute(table.encode())
    assert message in refused(lambda: apply(anna, replace(RETURNS, adopt=True)))


def test_rows_that_contradict_the_key_are_not_adopted(anna: Database) -> None:
    anna.execute("create table agents.returns (agent_id text, return_number text)")
    anna.execute("insert into agents.returns values ('anna', 'R1'), ('anna', 'R1')")
    adopted = replace(without_field(RETURNS, "order_number"), adopt=True, order_reference=None)
    assert "its rows don't fit" in refused(lambda: apply(anna, adopted))


def test_roles_get_the_rights_that_they_have_on_the_other_tables(anna: Database) -> None:
    anna.execute(grants_sql("own_types").encode())
    try:
        apply(anna)
        rights = {
            role: [
                p
                for p in ("select", "insert", "update", "delete")
                if anna.execute(
                    "select has_table_privilege(%s, 'agents.returns', %s) as has", [f"own_types_{role}", p]
                ).fetchall()[0]["has"]
            ]
            for role in Role
        }
        assert rights == {
            "tick": [], "worker": ["select", "insert", "update", "delete"],
            "operator": ["select", "insert", "update", "delete"], "reader": ["select"],
        }  # fmt: skip
    finally:
        for role in Role:
            anna.execute(f"drop owned by own_types_{role}".encode())
            anna.execute(f"drop role own_types_{role}".encode())


def test_removing_ends_schedule_and_runs_and_keeps_table_and_history(anna: Database) -> None:
    apply(anna)
    anna.execute("insert into agents.returns (agent_id, return_number, order_number) values ('anna', 'R1', 'O1')")
    queued_runs.insert_due(anna, limit=100, batch=10)
    types.remove(anna, ACTOR, "returns", drop_table=False, why="mistake")
    assert count(anna, "select count(*) from agents.returns") == 1
    assert count(anna, "select count(*) from system.sync_runs where sync_type = 'returns' and state = 'cancelled'") == 1
    for table in ("sync_types", "sync_settings", "sync_state", "outside_changes", "queued_runs"):
        assert count(anna, f"select count(*) from system.{table} where sync_type = 'returns'") == 0, table
    anna.execute("update agents.returns set reason = 'x'")  # the triggers are gone
    assert "returns" not in SYNC_TYPES
    newest = audit.newest(anna)[0]
    assert (newest.action, newest.sync_type, newest.after, newest.why) == (
        "type remove", "returns", {"table_dropped": False}, "mistake",
    )  # fmt: skip
    apply(anna, replace(RETURNS, adopt=True))
    assert count(anna, "select count(*) from agents.returns") == 1


def test_removing_may_drop_the_table(anna: Database) -> None:
    apply(anna)
    types.remove(anna, ACTOR, "returns", drop_table=True)
    assert anna.execute("select to_regclass('agents.returns') as t").fetchall() == [{"t": None}]


def test_what_can_t_be_removed_stays(anna: Database) -> None:
    apply(anna)
    apply(anna, replace(declared("targets"), after=("returns",)))
    assert (
        refused(lambda: types.remove(anna, ACTOR, "orders", drop_table=False), UsageError)
        == "orders comes with archisync"
    )
    assert refused(lambda: types.remove(anna, ACTOR, "retruns", drop_table=False), NotFoundError) == (
        "there is no type 'retruns' of your own"
    )
    assert (
        refused(lambda: types.remove(anna, ACTOR, "returns", drop_table=False), UsageError)
        == "targets comes after returns"
    )


def test_eight_that_apply_at_once_make_one_type(anna: Database, database_url: str) -> None:
    def one(_: int) -> bool:
        with connected(database_url, purpose="test") as db:
            return apply(db).new

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(8))) == [False] * 7 + [True]
    assert [r.action for r in audit.newest(anna)] == ["type apply"]


def test_an_agent_that_is_allowed_during_an_apply_gets_the_pair(anna: Database, database_url: str) -> None:
    """The two transactions don't see each other's rows: one waits for the other."""
    with connected(database_url, purpose="test") as other:
        allowed = threading.Thread(target=lambda: agents.set_whitelisted(other, ["marco"], True))
        with anna.transaction():
            apply(anna)
            allowed.start()
            while not anna.execute("select from pg_locks where not granted").fetchall():
                pass
        allowed.join()
    assert count(anna, "select count(*) from system.sync_state where sync_type = 'returns'") == 2


@pytest.mark.slow
def test_a_table_that_somebody_keeps_locked_is_waited_for_and_then_left(anna: Database, database_url: str) -> None:
    apply(anna)
    with connected(database_url, purpose="test") as other, other.transaction():
        other.execute("lock table agents.returns in row exclusive mode")
        changed = with_field(RETURNS, Field(name="note"))
        assert "nothing was done" in refused(lambda: apply(anna, changed), BusyError)
    assert "note" not in columns(anna)


def test_migrating_afterwards_changes_nothing(anna: Database) -> None:
    apply(anna)
    before = synctypes.listed(anna)
    assert migrations.migrate(anna, {}) == []
    assert synctypes.listed(anna) == before


def test_a_declaration_that_this_version_can_t_read_stops_only_its_type(anna: Database) -> None:
    apply(anna)
    anna.execute('update system.sync_types set declaration = \'{"name": "returns", "from": "2.0"}\', sha256 = \'x\'')
    anna.execute("update system.sync_types set declaration = null, sha256 = null where sync_type <> 'returns'")
    synctypes.load(anna)
    assert SYNC_TYPES["orders"].name == "orders"
    with pytest.raises(ConfigurationError, match=r"^the type returns: from: an unknown key$") as refused:
        SYNC_TYPES["returns"]
    assert refused.value.hint == f"archisync {__version__} can't read it: install here the version that declared it"


@pytest.mark.parametrize(
    "wrong", ["insert into system.sync_types values ('all', 'agent', 0, 'agents.a')",
              "insert into system.sync_types values ('x y', 'agent', 0, 'agents.a')",
              "insert into system.sync_types values ('x', 'agent', 0, 'agents.\"')",
              "insert into system.sync_types values ('x', 'agent', 0, 'agents.orders')",
              "insert into system.sync_state (sync_type, agent_id) values ('x', 'anna')"],
)  # fmt: skip
def test_the_database_refuses_what_is_no_type(anna: Database, wrong: str) -> None:
    with pytest.raises(psycopg.errors.IntegrityError):
        anna.execute(wrong.encode())


def test_a_dump_brings_types_tables_and_triggers_along_and_syncs_go_on(
    anna: Database, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    apply(anna)
    anna.execute("insert into agents.returns (agent_id, return_number, order_number) values ('anna', 'R1', 'O1')")
    dump = subprocess.run([postgresql_program("pg_dump"), "-d", database_url], capture_output=True, check=True)
    restored = subprocess.run(
        [postgresql_program("psql"), "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", empty_database_url],
        input=dump.stdout,
        capture_output=True,
    )
    assert (restored.returncode, restored.stderr) == (0, b"")
    with connected(empty_database_url, purpose="test") as db:
        assert migrations.migrate(db, {}) == []
        assert apply(db).statements == []
        db.execute("delete from system.outside_changes")
        db.execute("update agents.returns set reason = 'x'")
        assert count(db, "select count(*) from system.outside_changes where sync_type = 'returns'") == 1
        (tmp_path / "returns.csv").write_text("NUMERO RESO,NUMERO ORDINE\nR1,O1\nR2,O1\n")
        config = Config(environment={"ARCHISYNC_SOURCE": str(tmp_path / "{type}.csv")})
        assert sync(db, config, "returns", "anna", trigger="scheduled").state is State.SUCCEEDED
        assert count(db, "select count(*) from agents.returns") == 2
