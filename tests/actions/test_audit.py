"""Each action of a person leaves who, from where, what, on what, before, after and why in `system.audit`, in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from archisync.actions import agents, exports, runs, settings, types
from archisync.base.errors import ArchisyncError, NotFoundError
from archisync.rules.config import Config
from archisync.rules.declarations import read
from archisync.rules.declarationtext import fingerprint
from archisync.rules.reasons import Limits
from archisync.rules.synctypes import SYNC_TYPES
from archisync.schedule.force import Pair
from archisync.store import agents as registry
from archisync.store import audit, held, interventions
from archisync.store.audit import Actor, Via
from archisync.store.database import Database
from tests.support.rows import add_run, count

AGENT = "anna"
ACTOR = Actor(name="paolo@web1", via=Via.API)
ORDERS = SYNC_TYPES["orders"]
STOCK = read(
    {"name": "stock", "scope": "shared", "interval": 5, "key": ["code"], "fields": {"code": "identifier"}}, file="x"
)
Row = tuple[str, str | None, str | None, object, object]


def _prepare(db: Database) -> int:
    """Anna's orders failed twice and rest, an export of her customers is held; the held run."""
    registry.add(db, AGENT, name="Anna", whitelisted=True)
    registry.add(db, "marco", name=None, whitelisted=False)
    db.execute(
        "update system.sync_state set consecutive_failures = 2, backoff_until = system.clock() + interval '1 hour'"
        " where agent_id = 'anna' and sync_type = 'orders'"
    )
    db.execute("insert into agents.customers (agent_id, customer_id, name, run_id) values ('anna', 'C1', 'x', 1)")
    run_id = add_run(db, "held", sync_type="customers")
    held.record(
        db,
        {
            "run_id": run_id, "sync_type": "customers", "agent_id": AGENT, "rule": "drop", "message": "m", "hint": None,
            "acceptable": True, "sha256": "ab", "rows_valid": 1, "sample": [], "planned": {}, "changes": [], "findings": [],
        },
    )  # fmt: skip
    return run_id


def _pairs(db: Database) -> Sequence[interventions.Failing]:
    return interventions.failing(db)


def _cancel(db: Database, _: int) -> object:
    return runs.cancel(db, ACTOR, [add_run(db, "queued")], why="mistake")


def _pause_again(db: Database, _: int) -> object:
    settings.pause(db, ACTOR, sync_type=None, agent_id=AGENT, why="mistake")
    return settings.resume(db, ACTOR, sync_type=None, agent_id=AGENT, why="mistake")


WHY = {"why": "mistake"}
PAUSED = {"paused": True, "until": None}
ACTIONS: list[tuple[str, Callable[[Database, int], object], list[Row]]] = [
    ("interval", lambda db, _: settings.set_intervals(db, ACTOR, {ORDERS: 15}, why="mistake"),
     [("interval set", "orders", None, {"interval_minutes": 10}, {"interval_minutes": 15})]),
    ("disable", lambda db, _: settings.set_enabled(db, ACTOR, [ORDERS], False, why="mistake"),
     [("disable", "orders", None, {"enabled": True}, {"enabled": False})]),
    ("guard", lambda db, _: settings.set_limits(db, ACTOR, {ORDERS: Limits(drop=60)}, why="mistake"),
     [("guard set", "orders", None, {"drop": 50, "delete": 50, "rewrite": 50}, {"drop": 60, "delete": 50, "rewrite": 50})]),
    ("pause all", lambda db, _: settings.pause(db, ACTOR, sync_type=None, agent_id=None, why="mistake"),
     [("pause", None, None, {"paused": False}, PAUSED)]),
    ("resume", _pause_again,
     [("pause", None, AGENT, {"paused": False}, PAUSED),
      ("resume", None, AGENT, {**PAUSED, "by": ACTOR.name, "why": "mistake"}, {"paused": False})]),
    ("add", lambda db, _: agents.add(db, ACTOR, ["luca"], whitelisted=True, why="mistake"),
     [("agent add", None, "luca", None, {"whitelisted": True})]),
    ("allow", lambda db, _: agents.set_whitelisted(db, ACTOR, ["marco"], True, why="mistake"),
     [("agent allow", None, "marco", {"whitelisted": False}, {"whitelisted": True})]),
    ("remove", lambda db, _: agents.remove(db, ACTOR, [AGENT], with_data=True, why="mistake"),
     [("agent remove", None, AGENT, {"name": "Anna", "whitelisted": True}, {"registered": False, "rows_deleted": 1})]),
    ("force", lambda db, _: runs.force(db, ACTOR, [Pair(sync_type=ORDERS, agent_id=AGENT)], why="mistake"),
     [("run", "orders", AGENT, None, {"joined": False})]),
    ("retry", lambda db, _: runs.retry(db, ACTOR, _pairs(db), why="mistake"),
     [("retry", "orders", AGENT, None, {"joined": False})]),
    ("rest end", lambda db, _: runs.end_rests(db, ACTOR, _pairs(db), why="mistake"),
     [("rest end", "orders", AGENT, {"failures": 2, "rests": True}, {"rests": False})]),
    ("cancel", _cancel,
     [("cancel", "orders", AGENT, {"state": "queued", "worker": None}, {"state": "cancelled"})]),
    ("accept", lambda db, run_id: exports.accept(db, ACTOR, run_id, why="mistake"),
     [("held accept", "customers", AGENT, {"decision": None}, {"decision": "accepted", "sha256": "ab"})]),
    ("reject", lambda db, run_id: exports.reject(db, ACTOR, run_id, why="mistake"),
     [("held reject", "customers", AGENT, {"decision": None}, {"decision": "rejected", "sha256": "ab"})]),
    ("type apply", lambda db, _: types.apply(db, ACTOR, STOCK, Config(environment={}), file="stock.toml", why="mistake"),
     [("type apply", "stock", None, None, {"sha256": fingerprint(STOCK), "did": "table shared.stock with 1 field"})]),
    ("clear", lambda db, _: exports.clear(db, ACTOR, SYNC_TYPES["customers"], AGENT, why="mistake"),
     [("clear", "customers", AGENT, None, {"rows_deleted": 1})]),
]  # fmt: skip


def test_each_action_is_recorded_with_who_where_what_and_why(connection: Database) -> None:
    held_run = _prepare(connection)
    for name, act, expected in ACTIONS:
        with connection.transaction(force_rollback=True):
            act(connection, held_run)
            found = audit.newest(connection)[::-1]
        assert [(r.action, r.sync_type, r.agent_id, r.before, r.after) for r in found] == expected, name
        assert {(r.who, r.via, r.why) for r in found} == {("paolo@web1", "api", "mistake")}, name


def test_an_action_whose_record_can_t_be_written_does_nothing(connection: Database) -> None:
    held_run = _prepare(connection)
    connection.execute("alter table system.audit add constraint full_disk check (false) not valid")

    def everything() -> list[dict[str, Any]]:
        tables = "system.sync_settings system.pauses agents.users system.queued_runs system.sync_runs system.sync_state"
        tables += " system.applied_exports system.held_exports agents.customers"
        return [row for t in tables.split() for row in connection.execute(f"select * from {t} order by 1, 2".encode())]

    before = everything()
    for name, act, _ in ACTIONS:
        with connection.transaction(force_rollback=True):
            with pytest.raises(psycopg.errors.CheckViolation), connection.transaction():
                act(connection, held_run)
            assert everything() == before, name


def test_what_changes_nothing_is_not_recorded(connection: Database) -> None:
    assert not settings.resume(connection, ACTOR, sync_type=None, agent_id=None)
    assert runs.cancel(connection, ACTOR, [4711]) == []
    for act in (
        lambda: agents.set_whitelisted(connection, ACTOR, ["nobody"], True),
        lambda: agents.remove(connection, ACTOR, ["nobody"], with_data=False),
        lambda: exports.accept(connection, ACTOR, 4711, why="x"),
        lambda: exports.clear(connection, ACTOR, ORDERS, "nobody"),
    ):
        with pytest.raises(ArchisyncError) as raised:
            act()
        assert isinstance(raised.value, NotFoundError)
    assert audit.newest(connection) == []


@pytest.mark.parametrize(
    "statement", ["update system.audit set who = 'x'", "delete from system.audit", "truncate system.audit"]
)
def test_the_audit_is_only_added_to(connection: Database, statement: str) -> None:
    """Not even the owner of the schema changes it by mistake."""
    settings.set_enabled(connection, ACTOR, [ORDERS], False)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"^system\.audit is only added to: "):
        connection.execute(statement.encode())
    assert count(connection, "select count(*) from system.audit where who = 'paolo@web1'") == 1
