"""A worker is killed or loses PostgreSQL after the n-th step of a run, for every n: the table is as before the run or as after it.

A step is one round trip to PostgreSQL: BEGIN, each statement, each block of a COPY, COMMIT. After it the child process kills itself with
SIGKILL, so that it can't tidy up, or has its backend terminated and goes on with a dead connection.
"""

import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

from archisync.base.errors import ArchisyncError
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES, SyncType
from archisync.schedule.tick import tick
from archisync.store import agents, history, queued_runs, runs
from archisync.store.database import Database, connected
from tests.support.rows import do_delivery, every_table, fingerprint
from tests.support.samples import SAMPLES

Fault = Literal["worker killed", "connection lost"]
AGENT = "anna.bianchi"
FORKSERVER = multiprocessing.get_context("forkserver")
MOST_STEPS = 200
"""More than any run has, so the loop ends with a run that has fewer steps than n."""


@pytest.fixture(scope="module", autouse=True)
def _preloaded() -> None:
    FORKSERVER.set_forkserver_preload([__name__])


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """What the child is to do; can be pickled."""

    environment: dict[str, str]
    run_id: int
    fence: int
    fault: Fault
    after_step: int


def _child(orders: Orders) -> None:
    """Do the run, with the fault after the n-th round trip. Exit with 0 when there were fewer."""
    steps = 0
    real_wait = psycopg.Connection.wait

    def wait(self: psycopg.Connection[Any], gen: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        result = real_wait(self, gen, *args, **kwargs)
        steps += 1
        if steps == orders.after_step:
            if orders.fault == "worker killed":
                os.kill(os.getpid(), signal.SIGKILL)
            _terminate(orders.environment["ARCHISYNC_DATABASE_URL"], self.info.backend_pid)
        return result

    config = Config.from_environment(orders.environment)
    with connected(config.database_url, purpose="worker") as db:
        psycopg.Connection.wait = wait  # type: ignore[method-assign]
        try:
            do_delivery(db, config, orders.run_id, orders.fence)
        except (psycopg.Error, ArchisyncError):
            os._exit(1)  # a worker that lost PostgreSQL ends its job with an error
    os._exit(0 if steps < orders.after_step else 1)


def _terminate(url: str, backend_pid: int) -> None:
    """End a backend and wait until it is gone. Called inside the patched `wait`, hence the plain libpq calls."""
    server = psycopg.pq.PGconn.connect(url.encode())
    server.exec_(f"select pg_terminate_backend({backend_pid}, 5000)".encode())
    server.finish()


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """The sample exports and their second version, in which each type has a changed, a vanished and a new row."""
    for sync_type in SYNC_TYPES.values():
        owner = AGENT if sync_type.scope == "agent" else "service-account"
        for name, lines in (("before", _lines(owner, sync_type)), ("after", _edited(_lines(owner, sync_type)))):
            target = tmp_path / name / owner / f"{sync_type.name}.csv"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("".join(lines), encoding="utf-8")
    return tmp_path


def _lines(owner: str, sync_type: SyncType) -> list[str]:
    return (SAMPLES / owner / f"{sync_type.name}.csv").read_text("utf-8").splitlines(keepends=True)


def _edited(lines: list[str]) -> list[str]:
    """The second row vanishes, the first also comes under another key (a new row), the rest stay."""
    header, first, _second, *rest = lines
    return [header, first, "NEW-" + first, *rest]


def environment(database_url: str, redis_url: str, exports: Path, name: str) -> dict[str, str]:
    return {
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": f"{exports}/{name}/{{agent}}/{{type}}.csv",
    }


def work(db: Database, env: dict[str, str], run_id: int) -> runs.Run:
    do_delivery(db, Config.from_environment(env), run_id, history.get(db, run_id).fence)
    return history.get(db, run_id)


@pytest.fixture
def filled(connection: Database, database_url: str, redis_url: str, exports: Path) -> Database:
    """A database with the first version applied, and a copy of it in the schema `kept`."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    connection.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    for sync_type in SYNC_TYPES.values():
        owner = AGENT if sync_type.scope == "agent" else "service-account"
        forced = queued_runs.force(connection, sync_type.name, owner, by="test", why=None)
        done = work(connection, environment(database_url, redis_url, exports, "before"), forced.run_id)
        assert done.state == "succeeded", done.message
    connection.execute("create schema kept")
    for table in (*every_table(), "system.sync_state"):
        connection.execute(f"create table kept.{table.replace('.', '_')} as table {table}")
    return connection


def put_back(db: Database, sync_type: SyncType) -> None:
    """Restore the table and the pairs' state from `kept`, and delete the unfinished runs."""
    with db.transaction():
        db.execute("delete from system.sync_runs where state in ('queued', 'running')")
        for table in (sync_type.table, "system.sync_state"):
            db.execute(f"truncate {table}")
            db.execute(f"insert into {table} select * from kept.{table.replace('.', '_')}")


@pytest.mark.parametrize("fault", ["worker killed", "connection lost"])
@pytest.mark.parametrize("sync_type", [SYNC_TYPES["orders"], SYNC_TYPES["prices"]], ids=["orders", "prices"])
def test_a_fault_after_any_step_leaves_the_table_as_before_or_as_after(
    filled: Database, database_url: str, redis_url: str, exports: Path, sync_type: SyncType, fault: Fault
) -> None:
    owner = AGENT if sync_type.scope == "agent" else "service-account"
    env = environment(database_url, redis_url, exports, "after")
    before = fingerprint(filled, sync_type)
    forced = queued_runs.force(filled, sync_type.name, owner, by="test", why=None)
    assert work(filled, env, forced.run_id).state == "succeeded"
    after = fingerprint(filled, sync_type)
    assert after != before
    found = []
    for step in range(1, MOST_STEPS):
        put_back(filled, sync_type)
        run_id = queued_runs.force(filled, sync_type.name, owner, by="test", why=None).run_id
        orders = Orders(environment=env, run_id=run_id, fence=1, fault=fault, after_step=step)
        child = FORKSERVER.Process(target=_child, args=(orders,))
        child.start()
        child.join(60)
        if child.exitcode == 0:  # the run has fewer steps
            break
        assert child.exitcode == (-signal.SIGKILL if fault == "worker killed" else 1)
        state = fingerprint(filled, sync_type)
        assert state in (before, after), f"a third state after step {step}"
        assert (state == after) == (_state_of(filled, run_id) == "succeeded"), f"applied but not finished: step {step}"
        found.append("after" if state == after else "before")
        _recovers(filled, env, run_id)
        assert fingerprint(filled, sync_type) == after, f"not recovered after step {step}"
    assert found == sorted(found, reverse=True)  # as before until the commit, as after from then on
    assert found.count("before") >= 15
    assert found.count("after") >= 2


def _state_of(db: Database, run_id: int) -> str:
    """The run's state, after the dead worker's backend has freed its locks."""
    with db.transaction():
        db.execute("select from system.sync_runs where id = %s for update", [run_id])
        return str(history.state_of(db, run_id))


def _recovers(db: Database, env: dict[str, str], run_id: int) -> None:
    """Let the lease run out: a tick takes the run back and a worker does it."""
    if history.state_of(db, run_id) == "running":
        db.execute("select set_config('archisync.now', (system.clock() + interval '10 minutes')::text, false)")
        tick(db, Config.from_environment(env))
    if history.state_of(db, run_id) == "queued":
        assert work(db, env, run_id).state == "succeeded"
