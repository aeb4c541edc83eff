"""An idle tick asks once whether there is anything to do. The answer may be yes without need, but never no when a step has something
to do."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, queued_runs, ticks
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from archisync.store.refusals import NoAnswerError
from tests.conftest import roomy_memory
from tests.support.rows import RUN_ID, count, end_queued

QUEUED = "insert into system.queued_runs (sync_type, agent_id, trigger, not_before) values ('orders', 'anna', 'scheduled', {})"
CLAIMED = "insert into system.claims (agent_id, worker, lease_until) values ('anna', 'elsewhere:7', {})"
FINISHED = (
    "insert into system.sync_runs (id, sync_type, agent_id, trigger, state, finished_at)"
    f" values ({RUN_ID}, 'orders', 'anna', 'scheduled', 'succeeded', {{}})"
)
NOTICE = (
    "insert into system.notices (event, sync_type, agent_id, message, {}) values ('held', 'orders', 'anna', 'held', {})"
)
HOUR = "interval '1 hour'"


@pytest.fixture
def config(redis_url: str) -> Config:
    return Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})


@pytest.fixture
def idle(connection: Database) -> Database:
    """A database whose pairs, those of one agent and the shared ones, have just been run."""
    agents.add(connection, "anna", name=None, whitelisted=True)
    connection.execute("update system.sync_state set last_slot_at = system.clock()")
    assert not anything_to_do(connection)
    return connection


def anything_to_do(db: Database, *, hook: bool = False) -> bool:
    return ticks.anything_to_do(db, history_days=90, hook=hook)[1]


SOMETHING = {
    "a pair past its slot": f"update system.sync_state set last_slot_at = last_slot_at - {HOUR} where sync_type = 'ddt'",
    "a pair exactly at its slot": "update system.sync_state set last_slot_at = system.clock() - interval '20 min' where sync_type = 'ddt'",
    "a pair that never ran": "update system.sync_state set last_slot_at = null where agent_id = 'anna' and sync_type = 'ddt'",
    "a slot of a wrong clock": f"update system.sync_state set last_slot_at = system.clock() + {HOUR} where sync_type = 'prices'",
    "a run that waits for its delivery": QUEUED.format("null"),
    "a run that waits for its retry": QUEUED.format(f"system.clock() + {HOUR}"),
    "a delivery that is not pushed": "insert into system.deliveries default values",
    "a delivery that is pushed": "insert into system.deliveries (delivered_at) values (system.clock())",
    "a silent worker": CLAIMED.format("system.clock()"),
    "a lease of a wrong clock": CLAIMED.format("system.clock() + interval '62 min'"),
    "old history": FINISHED.format("system.clock() - interval '90 days' - interval '1 second'"),
    "an old notice": NOTICE.format("created_at", "system.clock() - interval '31 days'"),
}
NOTHING = {
    "a pair that is not due": "update system.sync_state set last_slot_at = system.clock() - interval '19 min' where sync_type = 'ddt'",
    "a disabled type": f"update system.sync_state set last_slot_at = last_slot_at - {HOUR} where sync_type = 'ddt';"
    "update system.sync_settings set enabled = false where sync_type = 'ddt'",
    "an agent off the whitelist": "update agents.users set whitelisted = false;"
    f"update system.sync_state set last_slot_at = last_slot_at - {HOUR} where agent_id = 'anna'",
    "a worker with a lease": CLAIMED.format("system.clock() + interval '2 min'"),
    "a worker with the longest possible lease": CLAIMED.format(f"system.clock() + {HOUR}"),
    "history": FINISHED.format("system.clock() - interval '89 days'"),
    "a notice without a hook": NOTICE.format("created_at", "system.clock()"),
}


@pytest.mark.parametrize("change", SOMETHING.values(), ids=SOMETHING)
def test_a_tick_is_not_idle_if_a_step_would_find_something(idle: Database, change: str) -> None:
    idle.execute(change)
    assert anything_to_do(idle)


@pytest.mark.parametrize("change", NOTHING.values(), ids=NOTHING)
def test_a_tick_is_idle_if_no_step_would_find_anything(idle: Database, change: str) -> None:
    for statement in change.split(";"):
        idle.execute(statement)
    assert not anything_to_do(idle)


def test_a_slot_of_a_wrong_clock_is_put_right_when_its_type_is_enabled(idle: Database, config: Config) -> None:
    idle.execute("update system.sync_settings set enabled = false where sync_type = 'ddt'")
    idle.execute(f"update system.sync_state set last_slot_at = system.clock() + {HOUR} where sync_type = 'ddt'")
    assert not anything_to_do(idle)
    idle.execute("update system.sync_settings set enabled = true where sync_type = 'ddt'")
    assert tick(idle, config).due == 1


def test_a_notice_is_something_to_do_if_there_is_a_hook(idle: Database) -> None:
    idle.execute(NOTICE.format("created_at", "system.clock()"))
    assert anything_to_do(idle, hook=True)


def test_an_idle_tick_leaves_its_heartbeat_and_nothing_else(idle: Database, config: Config) -> None:
    summary = tick(idle, config)
    assert (summary.due, summary.enqueued, summary.skipped, summary.error) == (0, 0, {}, None)
    [beat] = idle.execute("select due, enqueued, skipped, error from system.ticks").fetchall()
    assert beat == {"due": 0, "enqueued": 0, "skipped": {}, "error": None}
    assert count(idle, "select count(*) from system.runs") == 0


def test_idle_ticks_prune_old_heartbeats_now_and_then(idle: Database, config: Config) -> None:
    idle.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped)"
        f" values (system.clock() - interval '30 days' - {HOUR}, 1, 'h', 0, 0, 0, 0, '{{}}')"
    )
    assert not anything_to_do(idle)
    idle.execute("alter table system.ticks alter column id restart with 499")
    tick(idle, config)
    assert count(idle, "select count(*) from system.ticks") == 2
    tick(idle, config)
    assert [row["id"] for row in idle.execute("select id from system.ticks order by id").fetchall()] == [499, 500]


def test_an_hour_of_ticks_misses_no_run_and_is_idle_whenever_nothing_is_due(idle: Database, config: Config) -> None:
    """Each run is finished before the next tick. That tick deletes its delivery, so it is not idle either."""
    begun = datetime(2026, 3, 1, 12, tzinfo=UTC)
    due, busy = {}, []
    for minute in range(61):
        idle.execute("select set_config('archisync.now', %s, false)", [(begun + timedelta(minutes=minute)).isoformat()])
        if minute == 0:
            idle.execute("update system.sync_state set last_slot_at = system.clock()")
        if anything_to_do(idle):
            busy.append(minute)
        if found := tick(idle, config).due:
            due[minute] = found
        end_queued(idle)
    # orders every 10 minutes, customers every 15, ddt and invoices every 20, products every 30, prices every 60
    assert due == {10: 1, 15: 1, 20: 3, 30: 3, 40: 3, 45: 1, 50: 1, 60: 6}
    assert busy == [10, 11, 15, 16, 20, 21, 30, 31, 40, 41, 45, 46, 50, 51, 60]


def test_an_idle_tick_waits_for_no_standby(config: Config) -> None:
    """A commit that waits for an absent standby never ends. A heartbeat does not wait for one."""
    standby = {"synchronous_standby_names": "nobody", "synchronous_commit": "local"}
    with (
        temporary_folder(roomy_memory()) as folder,
        EmbeddedPostgres(folder, durable=False, settings=standby) as server,
    ):
        with connected(server.url, purpose="test") as db:
            migrate(db, {})
            db.execute("update system.sync_state set last_slot_at = system.clock()")
            db.execute("alter database archisync set synchronous_commit = on")
        with connected(server.url, purpose="test", answer_timeout_s=1) as db:
            tick(db, config)
            assert count(db, "select count(*) from system.ticks") == 1
            with pytest.raises(NoAnswerError):  # any other commit waits
                db.execute("update system.sync_state set last_slot_at = system.clock()")


def test_a_tick_while_everything_is_paused_looks_at_a_limited_number_of_pairs(idle: Database, config: Config) -> None:
    agents_of_a_type = queued_runs.SKIPPED_COUNTED + 500
    idle.execute(
        "insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, %s) n",
        [agents_of_a_type],
    )
    idle.execute("insert into system.pauses default values")
    idle.execute("vacuum analyze system.sync_state")
    summary = tick(idle, config)
    assert (summary.due, summary.skipped) == (0, {"paused": 4 * queued_runs.SKIPPED_COUNTED})
    assert "skipped at least 4000 paused" in summary.line()
    row = idle.execute(
        "explain (analyze, format json) " + queued_runs.SQL_COUNT_SKIPPED, {"limit": queued_runs.SKIPPED_COUNTED}
    ).fetchone()
    assert row is not None
    assert max(rows_read(row["QUERY PLAN"][0]["Plan"])) <= queued_runs.SKIPPED_COUNTED
    idle.execute("delete from agents.users where id > 'a2'")
    few = count(idle, "select count(*) from system.sync_state where active and last_slot_at is null")
    assert f"skipped {few} paused" in tick(idle, config).line()


def rows_read(plan: dict[str, Any]) -> Iterator[float]:
    """The rows that each scan of the pairs read each time."""
    if plan.get("Relation Name") == "sync_state":
        yield plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    for part in plan.get("Plans", ()):
        yield from rows_read(part)
