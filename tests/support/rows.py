"""What tests read from a database (a number, a hash of the data), and a worker in this process."""

import io
from collections.abc import Mapping
from typing import Any

from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES, SyncType
from archisync.store import claims, deliveries, endings, history, queued_runs, runs
from archisync.store.claims import Claim, ClaimedRun
from archisync.store.database import Database
from archisync.store.deliveries import JobKey
from archisync.store.endings import Outcome, Report
from archisync.store.runs import State
from archisync.work.runner import Runner

BOOKKEEPING = ("inserted_at", "updated_at", "run_id", "absent_since", "line_digest")


def count(db: Database, statement: str, *values: Any) -> int:
    """The single number that the statement gives."""
    row = db.execute(statement, list(values) or None).fetchone()
    assert row is not None
    return int(next(iter(row.values())))


RUN_ID = "nextval('system.queued_runs_id_seq')"
"""The id of a run that a test writes into the history: no run of the queue has it."""
_OF_CLAIM = {"fence": "fence", "worker": "worker", "lease_until": "lease_until", "started_at": "run_started_at"}


def add_run(db: Database, state: str, **columns: Any) -> int:
    """Write a run straight into the tables, a running one with its agent's claim; its id. Columns that are not given are those of a
    scheduled run of anna's orders."""
    values = {"sync_type": "orders", "agent_id": "anna", "trigger": "scheduled", **columns}
    if state not in ("queued", "running"):
        return _insert(db, "system.sync_runs", {"id": count(db, f"select {RUN_ID}"), "state": state, **values}, "id")
    claim = {name: values.pop(column) for column, name in _OF_CLAIM.items() if column in values}
    run_id = _insert(db, "system.queued_runs", values, "id")
    pair = (values["sync_type"], values["agent_id"])
    db.execute(
        "update system.sync_state set unfinished_run_id = %s where (sync_type, agent_id) = (%s, %s)", [run_id, *pair]
    )
    if state == "running":
        add_claim(db, pair[1], run_id=run_id, **claim)
    return run_id


def add_claim(db: Database, agent_id: str, **columns: Any) -> int:
    """The claim of a worker that only the table knows: no session has the agent's lock. Its fence."""
    lease_until = db.execute("select system.clock() + interval '2 minutes' as at").fetchone()
    assert lease_until is not None
    values = {"agent_id": agent_id, "worker": "elsewhere:7", "lease_until": lease_until["at"], **columns}
    return _insert(db, "system.claims", values, "fence")


def _insert(db: Database, table: str, values: Mapping[str, Any], returning: str) -> int:
    marks = ", ".join(["%s"] * len(values))
    override = "overriding system value" if "fence" in values and table == "system.claims" else ""
    statement = f"insert into {table} ({', '.join(values)}) {override} values ({marks}) returning {returning}"
    return count(db, statement, *values.values())


def forget_exports(db: Database) -> None:
    """Nothing is known of any export that was applied."""
    db.execute("truncate system.applied_exports")
    db.execute("update system.sync_state set known_rows = null, high_rows = '{}', applied_run_id = null")


def pretend_applied(db: Database) -> None:
    """As if run 1 had applied an export of each pair."""
    db.execute("update system.sync_state set applied_run_id = 1")
    db.execute(
        "insert into system.applied_exports (sync_type, agent_id, source)"
        """ select sync_type, agent_id, '{"run_id": 1}' from system.sync_state on conflict do nothing"""
    )


def forget_runs(db: Database) -> None:
    """No run was ever queued: nothing waits, nothing is being done, no history. Slots stay as they are."""
    db.execute("truncate system.queued_runs, system.claims, system.deliveries")
    db.execute("delete from system.sync_runs")
    db.execute(
        "update system.sync_state set unfinished_run_id = null, last_run_id = null"
        " where unfinished_run_id is not null or last_run_id is not null"
    )


def whitelist_agents(db: Database, number: int) -> None:
    """Add the agents a1, a2 … to the registry."""
    db.execute(
        "insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, %s) n", [number]
    )


def begin_run(db: Database, run_id: int, *, worker: str = "elsewhere:7", lease_s: int = 120) -> ClaimedRun:
    """Claim the run's agent with all that it has queued, and begin the run, as another worker on this connection would."""
    claim = claims.claim_agent(db, history.get(db, run_id).agent_id, worker=worker, lease_s=lease_s)
    assert isinstance(claim, Claim)
    begun = claims.begin(db, next(run for run in claim.runs if run.run_id == run_id), lease_s=lease_s)
    assert begun is not None
    return begun


def end_queued(db: Database) -> int:
    """End every run that is ready as succeeded, without an export; how many."""
    ended = 0
    for row in db.execute("select distinct agent_id from system.queued_runs").fetchall():
        claim = claims.claim_agent(db, row["agent_id"], worker="test", lease_s=120)
        assert isinstance(claim, Claim)
        for run in claim.runs:
            assert claims.begin(db, run, lease_s=120) is not None
            endings.finish(db, run, Outcome(State.SUCCEEDED, "test", "ended by a test"), report=Report())
            ended += 1
        claims.release(db, claim)
    return ended


def do_run(db: Database, config: Config, run_id: int, log: EventLog | None = None) -> int:
    """Deliver a queued run and do its job in this process, as a worker would: all that its agent has queued. Returns the number of runs
    done, 0 when the run is over or another worker has its agent."""
    job = job_of(db, run_id)
    return do_job(db, config, job, log) if job else 0


def job_of(db: Database, run_id: int) -> JobKey | None:
    """The job of a queued run, which is put into a delivery if it is in none. None when the run is over."""
    deliveries.assign(db, limit=1000)
    row = db.execute("select delivery_id, job_no from system.queued_runs where id = %s", [run_id]).fetchone()
    return JobKey(row["delivery_id"], row["job_no"]) if row else None


def do_job(db: Database, config: Config, job: JobKey, log: EventLog | None = None) -> int:
    """Do a delivered job in this process, as a worker would. Returns the number of runs done."""
    with Runner(db, config, log or EventLog(io.StringIO())) as runner:
        return runner.do(*job)


def drain(db: Database, config: Config) -> int:
    """Do what is queued in this process, in queue order. Returns the number of runs done."""
    done = 0
    while row := db.execute(
        "select id from system.queued_runs where not_before is null or not_before <= system.clock() order by id limit 1"
    ).fetchone():
        done += do_run(db, config, row["id"])
    return done


def sync(db: Database, config: Config, sync_type: str, agent_id: str, *, trigger: str = "forced") -> runs.Run:
    """Run a sync of the pair in this process; gives the run as it ended."""
    forced = queued_runs.force(db, sync_type, agent_id, by="test", why=None)
    db.execute("update system.queued_runs set trigger = %s where id = %s", (trigger, forced.run_id))
    do_run(db, config, forced.run_id)
    return history.get(db, forced.run_id)


def record_tick(db: Database, *, ago: str = "10 s", duration_ms: int = 5, error: str | None = None) -> None:
    """The heartbeat of a tick that started so long ago."""
    db.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped, error)"
        " values (system.clock() - %s::interval, %s, 'host-1', 0, 0, 0, 0, '{}', %s)",
        [ago, duration_ms, error],
    )


def every_table() -> tuple[str, ...]:
    return tuple(sync_type.table for sync_type in SYNC_TYPES.values())


def fingerprint(db: Database, *sync_types: SyncType) -> str:
    """A hash over every row of the tables of these types (default: of all). Which run wrote a row, and when, does not count; whether it is
    marked absent does."""
    parts = []
    for sync_type in sync_types or tuple(SYNC_TYPES.values()):
        row = db.execute(
            f"""
            select md5(coalesce(string_agg(line, chr(10) order by line), '')) as hash
              from (select ((to_jsonb(t) - %(bookkeeping)s::text[])
                            || jsonb_build_object('absent', t.absent_since is not null))::text as line
                      from {sync_type.table} t) lines
            """,
            {"bookkeeping": list(BOOKKEEPING)},
        ).fetchone()
        assert row is not None
        parts.append(f"{sync_type.name}:{row['hash']}")
    return " ".join(parts)
