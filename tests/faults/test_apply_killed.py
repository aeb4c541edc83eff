"""A worker is killed, or loses PostgreSQL or its lease, after the n-th step of a job, for every n: each table is as before its run or as
after it, each run ends once, and what is left is done later.

The child process kills itself with SIGKILL, so that it can't tidy up; or has its backend terminated and goes on with a dead connection; or
a tick takes the agent from it, and it goes on as a worker does that was silent for too long.
"""

import io
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from archisync import sources
from archisync.base.errors import TransientSourceError, UnreachableError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.schedule.tick import tick
from archisync.sources.interface import Fetched, Request
from archisync.store import agents, applied_exports, claims, queued_runs
from archisync.store.claims import Claim
from archisync.store.database import Database, connected
from archisync.store.deliveries import JobKey
from archisync.sync import inmemory
from archisync.work.runner import Runner
from tests.faults import oracle
from tests.faults.steps import Steps
from tests.support.rows import count, drain, every_table, fingerprint, job_of
from tests.support.samples import SAMPLES

Fault = Literal["worker killed", "connection lost", "lease lost"]
AGENT = "anna.bianchi"
NOON = "2026-05-05T12:00:00Z"
LEASES_OVER = "2026-05-05T12:04:00Z"
DELAYS_OVER = "2026-05-05T12:09:00Z"
"""Those of retries; no type is due again."""
RETRY_AFTER_S = 300
FORKSERVER = multiprocessing.get_context("forkserver")
MOST_STEPS = 200
"""More than any job has, so the loop ends with a job that has fewer steps than n."""
CONNECTION_LOST, LEASE_LOST = 1, 2
LOCKS = """select count(*) from pg_locks where locktype = 'advisory'
              and database = (select oid from pg_database where datname = current_database())"""


@pytest.fixture(scope="module", autouse=True)
def _preloaded() -> None:
    FORKSERVER.set_forkserver_preload([__name__])


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is queued for one agent. `changed`, `emptied` and `missing` are types whose export has changed, has no row any more, or is gone;
    the exports of the others are the ones that were applied. The ERP does not answer for a type that is `silent`. `arriving` is queued when
    the worker has the agent already. It is asked to stop after `stopping_after` runs whose exports have changed."""

    types: tuple[str, ...]
    trigger: str = "scheduled"
    changed: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    arriving: str | None = None
    stopping_after: int = MOST_STEPS
    first_load: bool = False
    most_rows_in_memory: int = inmemory.MOST_ROWS
    steps: tuple[int, int]
    """So many steps at least before the first run is over, and from then on."""

    @property
    def agent(self) -> str:
        return AGENT if SYNC_TYPES[self.types[0]].scope == "agent" else "service-account"

    @property
    def all_types(self) -> tuple[str, ...]:
        return (*self.types, self.arriving) if self.arriving else self.types


JOBS = {
    "a small change": Job(types=("orders",), trigger="forced", changed=("orders",), steps=(8, 3)),
    "a change that goes through the stage": Job(
        types=("prices",), trigger="forced", changed=("prices",), most_rows_in_memory=0, steps=(20, 3),
    ),
    "new lines that go through the stage": Job(types=("orders",), changed=("orders",), most_rows_in_memory=0, steps=(14, 3)),
    "a first load": Job(types=("customers",), changed=("customers",), first_load=True, steps=(10, 3)),
    "unchanged exports": Job(types=("orders", "customers", "ddt", "invoices"), steps=(1, 2)),
    "unchanged and changed exports, and one that comes meanwhile": Job(
        types=("orders", "customers", "ddt"), changed=("ddt", "invoices"), arriving="invoices", steps=(1, 20),
    ),
    "a worker that is asked to stop": Job(
        types=("orders", "customers", "ddt"), changed=("customers", "ddt"), arriving="invoices", stopping_after=1, steps=(1, 10),
    ),
    "every other way to end": Job(
        types=("orders", "customers", "ddt", "invoices"), changed=("customers",), emptied=("orders",), silent=("customers",),
        disabled=("ddt",), missing=("invoices",), steps=(9, 9),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """What the child is to do; can be pickled."""

    environment: dict[str, str]
    job: Job
    key: JobKey
    fault: Fault
    after_step: int


def _child(orders: Orders) -> None:
    os._exit(do_with_fault(orders))


def do_with_fault(orders: Orders) -> int:
    """Do the job, with the fault after the n-th round trip; the exit code of a worker. 0: the job has fewer steps."""
    config = Config.from_environment(orders.environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inmemory, "MOST_ROWS", orders.job.most_rows_in_memory)
        patch.setattr(sources, "fetch", _fetch_of(orders.job))
        with suppress(UnreachableError), connected(config.database_url, purpose="worker") as db:
            db.execute(f"set archisync.now = '{NOON}'")
            if orders.job.arriving is not None:
                Steps(db, after=1, action=lambda: _arrives(config, orders.job))
            steps = Steps(db, after=orders.after_step, action=lambda: _break(orders, config, db))
            calls = itertools.count()
            stopping = lambda: next(calls) >= orders.job.stopping_after  # noqa: E731
            with Runner(db, config, EventLog(io.StringIO()), stopping=stopping) as runner:
                runner.do(*orders.key)
            happened = steps.happened
            assert count(db, LOCKS + " and pid = pg_backend_pid()") == 0, "it has left the agent locked"
            return LEASE_LOST if happened else 0
    return CONNECTION_LOST


def _fetch_of(job: Job) -> Callable[[Request], Fetched]:
    real_fetch = sources.fetch

    def fetch(request: Request) -> Fetched:
        if request.sync_type in job.silent:
            raise TransientSourceError("the ERP does not answer", retry_after_s=RETRY_AFTER_S)
        return real_fetch(request)

    return fetch


def _arrives(config: Config, job: Job) -> None:
    """The agent's worker is busy: nobody delivers this run to it."""
    with connected(config.database_url, purpose="run") as db:
        db.execute(f"set archisync.now = '{NOON}'")
        _queue(db, [str(job.arriving)], job)


def _break(orders: Orders, config: Config, db: Database) -> None:
    match orders.fault:
        case "worker killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "connection lost":
            with connected(config.database_url, purpose="test") as other:
                other.execute("select pg_terminate_backend(%s, 5000)", [db.info.backend_pid])
        case "lease lost":
            _take_away(config, orders.job.agent)


def _take_away(config: Config, agent_id: str) -> None:
    """A tick takes the agent back, and another worker asks for it: it gets the agent only if the first one had let it go."""
    with connected(config.database_url, purpose="another worker") as other:
        other.execute(f"set archisync.now = '{LEASES_OVER}'")
        was_claimed = count(other, "select count(*) from system.claims")
        claims.reap(other, max_attempts=3)
        claimed = claims.claim_agent(other, agent_id, worker="another:1", lease_s=60)
        if isinstance(claimed, Claim):
            assert not was_claimed, "two workers have the agent"
            claims.release(other, claimed)


# --- the site -----------------------------------------------------------------------------------------------------


class Site:
    """A database with the sample exports applied, and a copy of their tables and states in the schema `kept`."""

    def __init__(self, db: Database, config: Config, folder: Path) -> None:
        self.db, self.config, self._folder = db, config, folder
        oracle.watch(db)
        agents.add(db, AGENT, name=None, whitelisted=True)
        for name in SYNC_TYPES:
            self._write(name, self._lines(name))
        self.set_clock(NOON)
        tick(db, config)
        assert drain(db, config) == len(SYNC_TYPES)
        db.execute("create schema kept")
        for table in (*every_table(), "system.sync_state", "system.applied_exports"):
            db.execute(f"create table kept.{table.replace('.', '_')} as table {table}")
        self._last_run = count(db, "select max(id) from system.sync_runs")

    def set_clock(self, now: str) -> None:
        self.db.execute(f"set archisync.now = '{now}'")

    def prepare(self, job: Job) -> None:
        """Change the exports as the job says."""
        for name in job.changed:
            header, first, _second, *rest = self._lines(name)
            self._write(name, [header, first, "NEW-" + first, *rest])  # a row vanishes, another one is new
        for name in job.emptied:
            self._write(name, self._lines(name)[:1])
        for name in job.missing:
            self._path(name).unlink()

    def queue(self, job: Job) -> JobKey:
        """Put tables and states back, and queue the job."""
        self.set_clock(NOON)
        with self.db.transaction():
            self.db.execute("truncate system.queued_runs, system.claims, system.deliveries")
            self.db.execute("delete from system.sync_runs where id > %s", [self._last_run])
            # The states last: whoever empties a table makes the state forget its export.
            of_types = (SYNC_TYPES[name].table for name in job.all_types)
            for table in (*of_types, "system.sync_state", "system.applied_exports"):
                self.db.execute(f"truncate {table}")
                self.db.execute(f"insert into {table} select * from kept.{table.replace('.', '_')}")
            if job.first_load:
                self.db.execute(f"truncate {SYNC_TYPES[job.types[0]].table}")
                applied_exports.forget(self.db, SYNC_TYPES[job.types[0]], job.agent)
            self.db.execute("truncate system.outside_changes")
            self.db.execute("update system.sync_settings set enabled = sync_type <> all (%s)", [list(job.disabled)])
        oracle.forget(self.db)
        _queue(self.db, job.types, job)
        key = job_of(self.db, count(self.db, "select max(id) from system.queued_runs"))
        assert key is not None
        return key

    def tables(self, job: Job) -> dict[str, str]:
        return {name: fingerprint(self.db, SYNC_TYPES[name]) for name in job.all_types}

    def endings(self) -> dict[str, tuple[str, str]]:
        """State and reason of the runs that are over, by type."""
        rows = self.db.execute("select sync_type, state, reason from system.sync_runs where id > %s", [self._last_run])
        return {row["sync_type"]: (row["state"], row["reason"]) for row in rows.fetchall()}

    def wait_for_the_end_of(self, application: str) -> None:
        """PostgreSQL notices the death of a client a moment later."""
        statement = "select count(*) from pg_stat_activity where datname = current_database() and application_name = %s"
        while count(self.db, statement, f"archisync {application}"):
            continue

    def _path(self, name: str) -> Path:
        return self._folder / _owner(name) / f"{name}.csv"

    def _write(self, name: str, lines: Iterable[str]) -> None:
        self._path(name).parent.mkdir(parents=True, exist_ok=True)
        self._path(name).write_text("".join(lines), "utf-8")

    def _lines(self, name: str) -> list[str]:
        return (SAMPLES / _owner(name) / f"{name}.csv").read_text("utf-8").splitlines(keepends=True)


def _owner(name: str) -> str:
    return AGENT if SYNC_TYPES[name].scope == "agent" else "service-account"


def _queue(db: Database, types: Iterable[str], job: Job) -> None:
    for name in types:
        forced = queued_runs.force(db, name, job.agent, by="test", why=None)
        db.execute("update system.queued_runs set trigger = %s where id = %s", (job.trigger, forced.run_id))


@pytest.fixture
def site(connection: Database, database_url: str, redis_url: str, tmp_path: Path) -> Site:
    environment = {
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": f"{tmp_path}/{{agent}}/{{type}}.csv",
    }
    return Site(connection, Config.from_environment(environment), tmp_path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What the tables have in them, and how the runs ended, by type."""

    tables: Mapping[str, str]
    endings: Mapping[str, tuple[str, str]]


def seen(site: Site, job: Job) -> Seen:
    assert oracle.violations(site.db) == {}
    return Seen(tables=site.tables(job), endings=site.endings())


def attempt(site: Site, job: Job, fault: Fault, after_step: int) -> int:
    """Queue the job and do it with the fault, in a child if that is to die; the worker's exit code."""
    orders = Orders(
        environment=dict(site.config.environment), job=job, key=site.queue(job), fault=fault, after_step=after_step
    )
    if fault != "worker killed":
        return do_with_fault(orders)
    child = FORKSERVER.Process(target=_child, args=(orders,))
    child.start()
    child.join(60)
    assert child.exitcode is not None
    site.wait_for_the_end_of("worker")
    return child.exitcode


def recover(site: Site, job: Job) -> Seen:
    """Do what ticks and workers do when leases are over, and when delays are over too."""
    for moment in (LEASES_OVER, DELAYS_OVER):
        site.set_clock(moment)
        tick(site.db, site.config)
        drain(site.db, site.config)
    assert (
        count(site.db, "select (select count(*) from system.claims) + (select count(*) from system.queued_runs)") == 0
    )
    assert count(site.db, LOCKS) == 0
    repeated = count(
        site.db, "select sum(attempt) - count(*) from system.sync_runs where sync_type <> all (%s)", list(job.silent)
    )
    assert repeated <= 1  # only the run that was being done has spent an attempt
    return seen(site, job)


EXIT_CODES: dict[Fault, int] = {
    "worker killed": -signal.SIGKILL,
    "connection lost": CONNECTION_LOST,
    "lease lost": LEASE_LOST,
}


def _usual(name: str, fault: Fault) -> bool:
    """`make soak` does each job with each fault."""
    return fault == "worker killed" or name in (
        "a small change",
        "unchanged and changed exports, and one that comes meanwhile",
    )


CASES = [
    pytest.param(job, fault, id=f"{name}-{fault}", marks=[] if _usual(name, fault) else [pytest.mark.soak])
    for name, job in JOBS.items()
    for fault in EXIT_CODES
]


@pytest.mark.slow
@pytest.mark.parametrize(("job", "fault"), CASES)
def test_a_fault_after_any_step_leaves_each_table_as_before_or_as_after_and_loses_no_run(
    site: Site, job: Job, fault: Fault
) -> None:
    site.prepare(job)
    assert attempt(site, job, fault, MOST_STEPS) == 0
    done = seen(site, job)
    looked_again = job.arriving is not None and job.stopping_after == MOST_STEPS
    assert not looked_again or job.arriving in done.endings  # by the worker that had the agent
    healed = recover(site, job)
    assert set(healed.endings) == set(job.all_types)
    site.queue(job)
    before = site.tables(job)
    ended = []
    for step in range(1, MOST_STEPS):
        code = attempt(site, job, fault, step)
        if code == 0:  # the job has fewer steps
            break
        assert code == EXIT_CODES[fault], f"step {step}"
        now = seen(site, job)
        assert now.endings.items() <= done.endings.items(), f"step {step}"
        for name, table in now.tables.items():
            expected = done if name in now.endings else Seen(tables=before, endings={})
            assert table == expected.tables[name], f"{name} after step {step}"
        ended.append(len(now.endings))
        assert recover(site, job) == healed, f"not recovered after step {step}"
    begins, goes_on = job.steps
    assert ended.count(0) >= begins
    assert len(ended) - ended.count(0) >= goes_on
    if fault == "lease lost":
        # While an apply ends, a tick passes its agent by: that job ends as if nothing had happened.
        ended = [number for number in ended if number < len(done.endings)] + [len(done.endings)]
    assert ended == sorted(ended)
    assert ended[-1] == len(done.endings)
