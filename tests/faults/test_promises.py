"""The promises as a state machine: operators, exports, ticks, workers, crashes at any step and a moving clock in any order, on the real
store and queue.

The machine computes the slots itself, from the rule in words and not with archisync's code. After each step it checks the promises that
always hold (tests.faults.oracle). At the end it goes on without faults, and every pair must become fresh.

`make test` runs EXAMPLES examples (ARCHISYNC_EXAMPLES chooses another number), `make soak` 500.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from archisync import sources
from archisync.base.errors import TransientSourceError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES, Scope, SyncType
from archisync.schedule.tick import tick
from archisync.sources.interface import Fetched, Request
from archisync.store import agents, history, queued_runs
from archisync.store import settings as store_settings
from archisync.store.database import Database, connected
from archisync.store.deliveries import JobKey
from archisync.work.accepted import SyncJob
from archisync.work.runner import Runner
from tests.faults import oracle
from tests.faults.slots import Pair, Slots
from tests.faults.steps import Steps
from tests.support.rows import count, do_job, every_table, forget_exports, forget_runs

AGENTS = ("anna", "bruno")
EXAMPLES = 20
TYPES = tuple(SYNC_TYPES.values())
START = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)  # the clocks change that night
LEASE_S, REDELIVER_S, MAX_ATTEMPTS = 120, 30, 3
EXPORTS = {
    "customers": "customer_id,name\n1,Rossi {0}\n2,Bianchi\n",
    "orders": "order_id,order_number,created_at,description\n1,O1,2026-01-01,{0}\n2,O2,2026-01-01,\n",
    "ddt": "ddt_number,order_number,description\nD1,O1,{0}\nD2,O2,\n",
    "invoices": "invoice_number,order_number,billing_name\nI1,O1,{0}\nI2,O2,\n",
    "products": "product_id,name\nP1,Vite {0}\nP2,Dado\n",
    "prices": "product_id,account_code,valid_from,quantity_from,unit_price\nP1,,,,1.{0}\nP2,,,,1.5\n",
}
# A second clock beside the host's: the same for every session, and only the machine moves it.
SQL_CLOCK = """
create table public.test_clock as select timestamptz '2026-01-01' as now;
create or replace function system.clock() returns timestamptz language sql stable parallel safe
as $$ select now from public.test_clock $$
"""
PAIRS: list[Pair] = [(t.name, a) for t in TYPES for a in (AGENTS if t.scope is Scope.AGENT else ("service-account",))]
OF_AGENTS = [pair for pair in PAIRS if pair[1] in AGENTS]
LOCKS = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
MOST_STEPS = 45
"""More than most jobs and ticks have."""


class DiedError(BaseException):
    """Ends a worker or a tick of the machine as a kill -9 does: no code of it goes on."""


class Promises(Slots):
    """The test sets the class attributes, since hypothesis makes the instances."""

    config: Config
    url: str
    redis_url: str
    folder: Path
    silent: set[Pair]
    """Pairs for which the ERP does not answer."""

    def __init__(self) -> None:
        super().__init__(START)
        self.version = 0

    @initialize()
    def begin(self) -> None:
        self._connection = connected(self.url, purpose="promises")
        self.db = self._connection.__enter__()
        self.redis = redis.Redis.from_url(self.redis_url)
        self.redis.flushall()
        tables = "system.ticks, system.pauses, system.held_exports, system.notices, agents.users"
        self.db.execute(f"truncate {tables}, {', '.join(every_table())}")
        forget_runs(self.db)
        self.db.execute("delete from system.sync_state where agent_id <> 'service-account'")
        forget_exports(self.db)
        self.db.execute(
            "update system.sync_state set last_slot_at = null, backoff_until = null, consecutive_failures = 0,"
            " last_success_at = null, same_changes_nothing = false"
        )
        self.db.execute("truncate system.outside_changes")
        oracle.forget(self.db)
        for type_ in TYPES:
            store_settings.set_interval(self.db, type_, type_.default_interval_minutes)
            store_settings.set_enabled(self.db, type_, True)
        self._good_exports()
        self._set_clock(START)

    def teardown(self) -> None:
        if not hasattr(self, "_connection"):
            return
        try:
            self.everything_heals()
        finally:
            self.redis.close()
            self._connection.__exit__(None, None, None)

    # --- what people do -----------------------------------------------------------------------------------------------

    @rule(agent=st.sampled_from(AGENTS))
    def whitelist(self, agent: str) -> None:
        agents.add(self.db, agent, name=None, whitelisted=True)
        agents.set_whitelisted(self.db, [agent], True)
        self.whitelisted.add(agent)

    @precondition(lambda self: self.whitelisted)
    @rule(agent=st.sampled_from(AGENTS))
    def take_off_whitelist(self, agent: str) -> None:
        if agent not in self.whitelisted:
            return
        agents.set_whitelisted(self.db, [agent], False)
        self.whitelisted.discard(agent)
        assert count(self.db, "select count(*) from system.runs where state = 'queued' and agent_id = %s", agent) == 0

    @rule(type_=st.sampled_from(TYPES), minutes=st.sampled_from((5, 7, 20, 60, 1440)))
    def set_interval(self, type_: SyncType, minutes: int) -> None:
        self._give_slots_back()
        store_settings.set_interval(self.db, type_, minutes)
        self.every[type_.name] = timedelta(minutes=minutes)

    @rule(type_=st.sampled_from(TYPES), on=st.booleans())
    def enable_or_disable(self, type_: SyncType, on: bool) -> None:
        store_settings.set_enabled(self.db, type_, on)
        self.enabled[type_.name] = on

    @rule(type_=st.none() | st.sampled_from(TYPES), agent=st.none() | st.sampled_from(AGENTS), pause=st.booleans())
    def pause_or_resume(self, type_: SyncType | None, agent: str | None, pause: bool) -> None:
        scope = (type_.name if type_ else None, agent)
        if pause:
            store_settings.pause(self.db, sync_type=scope[0], agent_id=scope[1], until=None, reason=None, by="test")
            self.paused.add(scope)
        else:
            store_settings.resume(self.db, sync_type=scope[0], agent_id=scope[1])
            self.paused.discard(scope)

    @rule(pair=st.sampled_from(OF_AGENTS))
    def force(self, pair: Pair) -> None:
        if pair[1] not in self.whitelisted:
            return
        forced = queued_runs.force(self.db, *pair, by="test", why=None)
        assert history.state_of(self.db, forced.run_id).unfinished

    @rule(pair=st.sampled_from(OF_AGENTS))
    def run_inline(self, pair: Pair) -> None:
        """`archisync run --inline`: one run of the agent and no other, unless a worker has the agent."""
        if pair[1] not in self.whitelisted:
            return
        run_id = queued_runs.force(self.db, *pair, by="test", why=None).run_id
        busy = count(self.db, "select count(*) from system.claims where agent_id = %s", pair[1])
        before = count(self.db, "select count(*) from system.sync_runs")
        with Runner(self.db, self.config, EventLog(io.StringIO())) as runner:
            state = runner.do_forced(pair[1], run_id)
        done = count(self.db, "select count(*) from system.sync_runs") - before
        assert (state is None, done) == ((True, 0) if busy else (False, 1))

    # --- what the ERP does --------------------------------------------------------------------------------------------

    @rule(pair=st.sampled_from(PAIRS))
    def an_export_changes(self, pair: Pair) -> None:
        self.version += 1
        self._write(pair, EXPORTS[pair[0]].format(self.version))

    @rule(pair=st.sampled_from(PAIRS))
    def an_export_loses_its_rows(self, pair: Pair) -> None:
        self._write(pair, EXPORTS[pair[0]].splitlines(keepends=True)[0])

    @rule(pair=st.sampled_from(PAIRS))
    def the_erp_falls_silent(self, pair: Pair) -> None:
        self.an_export_changes(pair)
        self.silent.add(pair)

    @rule()
    def the_erp_answers_again(self) -> None:
        self.silent.clear()

    # --- what time and machines do -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1, 45, 60, 75, 300, 601, 3600, 90_000)))
    def time_passes(self, seconds: int) -> None:
        self._set_clock(self.now + timedelta(seconds=seconds))

    @rule()
    def one_tick(self) -> None:
        due = self._due()
        before = self._newest_run()
        tick(self.db, self.config)
        self._account(due, before)

    @rule(seconds=st.integers(60, 1300))
    def all_goes_well_for_a_while(self, seconds: int) -> None:
        self._set_clock(self.now + timedelta(seconds=seconds))
        self.one_tick()
        while self._work_one():
            pass

    @rule(after=st.integers(1, MOST_STEPS))
    def a_tick_dies(self, after: int) -> None:
        """kill -9 after any step: what is due is queued as a whole or not at all, pushed or not, marked as pushed or not."""
        due = self._due()
        before = self._newest_run()
        with self._dying("tick", after) as db:
            tick(db, self.config)
        if self._newest_run() > before:
            self._account(due, before)

    @rule(jobs=st.integers(1, 12))
    def a_worker_works(self, jobs: int) -> None:
        for _ in range(jobs):
            if not self._work_one():
                return

    @rule(runs=st.integers(0, 3))
    def a_worker_is_asked_to_stop(self, runs: int) -> None:
        """It gives back what it has not begun."""
        job = self._pop()
        if job is None:
            return
        ended, claimed = "select count(*) from system.sync_runs", "select count(*) from system.claims"
        before = count(self.db, ended), count(self.db, claimed)

        def stopping() -> bool:
            return count(self.db, ended) >= before[0] + runs

        with Runner(self.db, self.config, EventLog(io.StringIO()), stopping=stopping) as runner:
            runner.do(*job)
        assert count(self.db, claimed) == before[1]

    @rule(after=st.integers(0, MOST_STEPS))
    def a_worker_dies(self, after: int) -> None:
        """kill -9 between pop and claim, or after any step: then the lease has to run out."""
        job = self._pop()
        if job is not None and after:
            with self._dying("worker", after) as db:
                do_job(db, self.config, job)

    @rule()
    def redis_forgets_everything(self) -> None:
        self.redis.flushall()

    @rule(after=st.integers(1, MOST_STEPS))
    def a_worker_sleeps_beyond_its_lease(self, after: int) -> None:
        """After any step; a tick and another worker go on meanwhile. When it wakes up, it must change nothing of what is not its own."""
        self.one_tick()
        job = self._pop()
        if job is None:
            return

        def meanwhile() -> None:
            self._set_clock(self.now + timedelta(seconds=LEASE_S))
            self.one_tick()
            while self._work_one():
                assert oracle.violations(self.db) == {}

        with connected(self.url, purpose="sleeper") as db:
            Steps(db, after=after, action=meanwhile)
            do_job(db, self.config, job)
            assert count(db, LOCKS) == 0

    # --- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_doubled_or_out_of_step(self) -> None:
        if hasattr(self, "_connection"):
            assert oracle.violations(self.db) == {}

    @invariant()
    def no_agent_stays_locked(self) -> None:
        if hasattr(self, "_connection"):
            assert count(self.db, LOCKS) == 0

    @invariant()
    def only_repeated_failures_back_off(self) -> None:
        if hasattr(self, "_connection"):
            early = (
                "select count(*) from system.sync_state where backoff_until is not null and consecutive_failures < 2"
            )
            assert count(self.db, early) == 0

    # --- the end -------------------------------------------------------------------------------------------------------

    def everything_heals(self) -> None:
        """Without faults, pauses and disabled types, each whitelisted pair succeeds and nothing is left unfinished."""
        self._good_exports()
        for type_ in TYPES:
            self.enable_or_disable(type_, True)
            self.set_interval(type_, 5)
        for scope in list(self.paused):
            store_settings.resume(self.db, sync_type=scope[0], agent_id=scope[1])
        healed_at = self.now
        for _ in range(3 + 7 * 12):  # leases and back-offs of up to six hours end
            self._set_clock(self.now + timedelta(minutes=5))
            tick(self.db, self.config)
            while self._work_one():
                pass
            assert oracle.violations(self.db) == {}
            if self._stale_pairs(healed_at) == 0 and self._unfinished() == 0:
                assert count(self.db, "select count(*) from system.claims") == 0
                return
        assert (self._stale_pairs(healed_at), self._unfinished()) == (0, 0)

    def _stale_pairs(self, since: datetime) -> int:
        return count(
            self.db,
            "select count(*) from system.sync_state where active and (last_success_at is null or last_success_at <= %s)",
            since,
        )

    def _unfinished(self) -> int:
        return count(self.db, "select count(*) from system.unfinished_runs")

    # --- tools ---------------------------------------------------------------------------------------------------------

    def _set_clock(self, now: datetime) -> None:
        self.now = now
        self.db.execute("update public.test_clock set now = %s", [now])

    def _newest_run(self) -> int:
        return count(self.db, "select coalesce(max(id), 0) from system.runs")

    def _good_exports(self) -> None:
        self.silent.clear()
        for pair in PAIRS:
            self.an_export_changes(pair)

    def _write(self, pair: Pair, text: str) -> None:
        (self.folder / pair[1] / f"{pair[0]}.csv").write_text(text, "utf-8")

    @contextmanager
    def _dying(self, purpose: str, after: int) -> Iterator[Database]:
        """A connection whose process dies after so many steps."""

        def die() -> None:
            db.pgconn.finish()
            raise DiedError

        with suppress(DiedError), connected(self.url, purpose=purpose) as db:
            Steps(db, after=after, action=die)
            yield db

    def _pop(self) -> JobKey | None:
        """The next job, taken from the list and read from its hash as RQ's worker does it."""
        job_id = self.redis.lpop(f"rq:queue:{self.config.queue}")
        if job_id is None:
            return None
        job = SyncJob.fetch(bytes(job_id).decode(), connection=self.redis, serializer="json")  # type: ignore[arg-type]
        return JobKey(*job.args)

    def _work_one(self) -> bool:
        job = self._pop()
        if job is None:
            return False
        do_job(self.db, self.config, job)
        return True


def fetch_unless(silent: set[Pair]) -> Callable[[Request], Fetched]:
    real_fetch = sources.fetch

    def fetch(request: Request) -> Fetched:
        if (request.sync_type, request.agent_id) in silent:
            raise TransientSourceError("the ERP does not answer", retry_after_s=60)
        return real_fetch(request)

    return fetch


@pytest.fixture
def machine(
    connection: Database, database_url: str, redis_url: str, exports: Path, monkeypatch: pytest.MonkeyPatch
) -> type[Promises]:
    for _, agent in PAIRS:
        (exports / agent).mkdir(exist_ok=True)
    connection.execute(SQL_CLOCK)
    oracle.watch(connection)

    class Ready(Promises):
        config = Config.from_environment(
            {
                "ARCHISYNC_DATABASE_URL": database_url,
                "ARCHISYNC_REDIS_URL": redis_url,
                "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv",
                "ARCHISYNC_LEASE_S": str(LEASE_S),
                "ARCHISYNC_REDELIVER_AFTER_S": str(REDELIVER_S),
                "ARCHISYNC_MAX_ATTEMPTS": str(MAX_ATTEMPTS),
            }
        )
        url = database_url
        folder = exports

    Ready.redis_url, Ready.silent = redis_url, set()
    monkeypatch.setattr(sources, "fetch", fetch_unless(Ready.silent))
    return Ready


def check_promises(machine: type[Promises], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_the_promises_hold_in_any_order_of_events(machine: type[Promises]) -> None:
    check_promises(machine, int(os.environ.get("ARCHISYNC_EXAMPLES", EXAMPLES)))


@pytest.mark.soak
def test_the_promises_hold_in_500_orders_of_events(machine: type[Promises]) -> None:
    check_promises(machine, 500)
