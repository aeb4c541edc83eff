"""The promises as a state machine: operators, ticks, workers, crashes and a moving clock in any order, on the real store and queue.

The machine computes the slots itself, from the rule in words and not with archisync's code. After each step it checks the promises that
always hold. At the end it goes on without faults, and every pair must become fresh.

`make test` runs EXAMPLES examples (ARCHISYNC_EXAMPLES chooses another number), `make soak` 500.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from archisync.base.errors import LeaseLostError
from archisync.queue.joblist import rq_queue
from archisync.queue.push import push_delivery
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES, Scope, SyncType
from archisync.schedule.tick import tick
from archisync.store import agents, claims, deliveries, history, queued_runs, runs
from archisync.store import settings as store_settings
from archisync.store.database import Database, connected
from archisync.work.accepted import SyncJob
from tests.support.rows import count, do_delivery

AGENTS = ("anna", "bruno")
EXAMPLES = 20
TYPES = tuple(SYNC_TYPES.values())
START = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)  # the clocks change that night
LEASE_S, REDELIVER_S = 120, 30
EXPORTS = {
    "customers": "customer_id,name\n1,Rossi\n",
    "orders": "order_id,order_number,created_at\n1,O1,2026-01-01\n",
    "ddt": "ddt_number,order_number\nD1,O1\n",
    "invoices": "invoice_number,order_number\nI1,O1\n",
    "products": "product_id,name\nP1,Vite\n",
    "prices": "product_id,account_code,valid_from,quantity_from,unit_price\nP1,,,,1.5\n",
}
Pair = tuple[str, str]


class Promises(RuleBasedStateMachine):
    """The test sets the class attributes, since hypothesis makes the instances."""

    config: Config
    url: str
    redis_url: str

    def __init__(self) -> None:
        super().__init__()
        self.db: Database
        self.now = START
        self.whitelisted: set[str] = set()
        self.every = {type_.name: timedelta(minutes=type_.default_interval_minutes) for type_ in TYPES}
        self.enabled = {type_.name: True for type_ in TYPES}
        self.paused: set[tuple[str | None, str | None]] = set()
        self.slots: dict[Pair, datetime] = {}
        self.given_back: set[int] = set()

    @initialize()
    def begin(self) -> None:
        self._connection = connected(self.url, purpose="promises")
        self.db = self._connection.__enter__()
        self.redis = redis.Redis.from_url(self.redis_url)
        self.redis.flushall()
        self.db.execute("truncate system.sync_runs, system.ticks, system.pauses, system.held_exports, agents.users")
        self.db.execute("delete from system.sync_state where agent_id <> 'service-account'")
        self.db.execute(
            "update system.sync_state set last_slot_at = null, backoff_until = null, consecutive_failures = 0,"
            " last_run_id = null, last_success_at = null"
        )
        self.db.execute("truncate test_applied")
        for type_ in TYPES:
            store_settings.set_interval(self.db, type_, type_.default_interval_minutes)
            store_settings.set_enabled(self.db, type_, True)
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
        agents.set_whitelisted(self.db, agent, True)
        self.whitelisted.add(agent)

    @precondition(lambda self: self.whitelisted)
    @rule(agent=st.sampled_from(AGENTS))
    def take_off_whitelist(self, agent: str) -> None:
        if agent not in self.whitelisted:
            return
        agents.set_whitelisted(self.db, agent, False)
        self.whitelisted.discard(agent)
        assert (
            count(self.db, "select count(*) from system.sync_runs where state = 'queued' and agent_id = %s", agent) == 0
        )

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

    @rule(pair=st.sampled_from([(t.name, a) for t in TYPES for a in AGENTS if t.scope is Scope.AGENT]))
    def force(self, pair: Pair) -> None:
        if pair[1] not in self.whitelisted:
            return
        forced = queued_runs.force(self.db, *pair, by="test", why=None)
        assert history.state_of(self.db, forced.run_id).unfinished

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

    @rule()
    def a_tick_dies_before_it_pushes(self) -> None:
        due = self._due()
        before = self._newest_run()
        claims.reap(self.db, max_attempts=3)
        queued_runs.insert_due(self.db, limit=1000, batch=1000)
        self._account(due, before)

    @rule()
    def a_tick_dies_after_it_pushed(self) -> None:
        """The jobs are pushed; the transaction that marks the delivery is rolled back."""
        with self.db.transaction(force_rollback=True):
            delivery = deliveries.lock_next(self.db)
            if delivery is not None:
                push_delivery(rq_queue(self.redis, self.config.queue), delivery, timeout_s=60)

    @rule(jobs=st.integers(1, 12))
    def a_worker_works(self, jobs: int) -> None:
        for _ in range(jobs):
            if not self._work_one():
                return

    @rule(after_claim=st.booleans())
    def a_worker_crashes(self, after_claim: bool) -> None:
        """kill -9 between pop and claim, or after the claim: then the lease has to run out."""
        job = self._pop()
        if job is not None and after_claim:
            run_id, fence = job
            claims.claim(self.db, run_id, fence, worker="crashed", lease_s=LEASE_S)

    @rule()
    def redis_forgets_everything(self) -> None:
        self.redis.flushall()

    @rule()
    def a_worker_sleeps_beyond_its_lease(self) -> None:
        """It wakes up when another worker has the run: its finish must change nothing."""
        self.one_tick()
        job = self._pop()
        first = claims.claim(self.db, *job, worker="sleeper", lease_s=LEASE_S) if job else None
        if first is None:
            return
        self._set_clock(self.now + timedelta(seconds=LEASE_S))
        assert claims.reap(self.db, max_attempts=20) >= 1
        second = claims.claim(self.db, first.run_id, first.fence + 1, worker="other", lease_s=LEASE_S)
        assert second is not None
        with pytest.raises(LeaseLostError):
            claims.finish(
                self.db, first, claims.Outcome(runs.State.SUCCEEDED, "applied", "a zombie"), report=claims.Report()
            )
        if second.blocked is None:
            claims.finish(
                self.db, second, claims.Outcome(runs.State.SUCCEEDED, "applied", "in time"), report=claims.Report()
            )

    # --- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def never_two_at_once(self) -> None:
        if not hasattr(self, "_connection"):
            return
        doubled = (
            "select count(*) from (select from system.sync_runs where state in {} group by {} having count(*) > 1) d"
        )
        assert count(self.db, doubled.format("('queued', 'running')", "sync_type, agent_id")) == 0
        assert count(self.db, doubled.format("('running')", "agent_id")) == 0

    @invariant()
    def every_run_is_applied_at_most_once(self) -> None:
        if hasattr(self, "_connection"):
            twice = "select count(*) from (select from test_applied group by run_id having count(*) > 1) d"
            assert count(self.db, twice) == 0

    @invariant()
    def every_unsuccessful_run_has_a_reason(self) -> None:
        if hasattr(self, "_connection"):
            silent = (
                "select count(*) from system.sync_runs where state in ('failed', 'held', 'skipped') and reason is null"
            )
            assert count(self.db, silent) == 0

    # --- the end -------------------------------------------------------------------------------------------------------

    def everything_heals(self) -> None:
        """Without faults, pauses and disabled types, each whitelisted pair succeeds and nothing is left unfinished."""
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
            if self._stale_pairs(healed_at) == 0 and self._unfinished() == 0:
                return
        assert (self._stale_pairs(healed_at), self._unfinished()) == (0, 0)

    def _stale_pairs(self, since: datetime) -> int:
        return count(
            self.db,
            "select count(*) from system.sync_state where active and (last_success_at is null or last_success_at <= %s)",
            since,
        )

    def _unfinished(self) -> int:
        return count(self.db, "select count(*) from system.sync_runs where state in ('queued', 'running')")

    # --- the slots, as the machine computes them -------------------------------------------------------------------------------

    def _pairs(self) -> set[Pair]:
        own = {(t.name, a) for t in TYPES for a in self.whitelisted if t.scope is Scope.AGENT}
        return own | {(t.name, "service-account") for t in TYPES if t.scope is Scope.SHARED}

    def _due(self) -> set[Pair]:
        """The due rule, written down a second time. Back-off never begins: the ERP always answers."""
        self._give_slots_back()
        unfinished = self._unfinished_pairs()
        return {
            (type_, agent)
            for type_, agent in self._pairs()
            if self.enabled[type_]
            and not self.paused & {(None, None), (type_, None), (None, agent), (type_, agent)}
            and (type_, agent) not in unfinished
            and ((type_, agent) not in self.slots or self.slots[type_, agent] + self.every[type_] <= self.now)
        }

    def _account(self, due: set[Pair], newest_before: int) -> None:
        """A tick queued exactly the runs that were due, each with the slot of the rule. If the tick itself failed a run for good, because
        its worker crashed three times, it may have queued the pair's next one too."""
        rows = self.db.execute(
            "select sync_type, agent_id, slot_at from system.sync_runs where id > %s and trigger = 'scheduled'",
            [newest_before],
        ).fetchall()
        queued = {(row["sync_type"], row["agent_id"]): row["slot_at"] for row in rows}
        assert due <= set(queued)
        for pair, slot in queued.items():
            last, every = self.slots.get(pair), self.every[pair[0]]
            assert last is None or last + every <= self.now, "early"
            on_time = last is not None and last + every > self.now - every
            assert slot == (last + every if on_time and last else self.now)
            self.slots[pair] = slot
        assert set(queued) - due <= self._failed_pairs()

    def _give_slots_back(self) -> None:
        """A skipped run gives its slot back: the pair is due at that slot again."""
        rows = self.db.execute(
            "select id, sync_type, agent_id, slot_at from system.sync_runs where state = 'skipped' and slot_at is not null"
        ).fetchall()
        for row in rows:
            pair = row["sync_type"], row["agent_id"]
            if row["id"] not in self.given_back and self.slots.get(pair) == row["slot_at"]:
                self.slots[pair] = row["slot_at"] - self.every[row["sync_type"]]
            self.given_back.add(row["id"])

    def _failed_pairs(self) -> set[Pair]:
        rows = self.db.execute("select sync_type, agent_id from system.sync_runs where state = 'failed'").fetchall()
        return {(row["sync_type"], row["agent_id"]) for row in rows}

    def _unfinished_pairs(self) -> set[Pair]:
        rows = self.db.execute(
            "select sync_type, agent_id from system.sync_runs where state in ('queued', 'running')"
        ).fetchall()
        return {(row["sync_type"], row["agent_id"]) for row in rows}

    # --- tools ---------------------------------------------------------------------------------------------------------

    def _set_clock(self, now: datetime) -> None:
        self.now = now
        self.db.execute("select set_config('archisync.now', %s, false)", [now.isoformat()])

    def _newest_run(self) -> int:
        return count(self.db, "select coalesce(max(id), 0) from system.sync_runs")

    def _pop(self) -> tuple[int, int] | None:
        """The next job, taken from the list and read from its hash as RQ's worker does it."""
        job_id = self.redis.lpop(f"rq:queue:{self.config.queue}")
        if job_id is None:
            return None
        job = SyncJob.fetch(bytes(job_id).decode(), connection=self.redis, serializer="json")  # type: ignore[arg-type]
        run_id, fence = job.args
        return int(run_id), int(fence)

    def _work_one(self) -> bool:
        job = self._pop()
        if job is None:
            return False
        do_delivery(self.db, self.config, *job)
        return True


@pytest.fixture
def machine(connection: Database, database_url: str, redis_url: str, exports: Path) -> type[Promises]:
    for type_ in TYPES:
        for agent in AGENTS if type_.scope is Scope.AGENT else ("service-account",):
            (exports / agent).mkdir(exist_ok=True)
            (exports / agent / f"{type_.name}.csv").write_text(EXPORTS[type_.name], "utf-8")
    connection.execute("create table test_applied (run_id bigint)")
    connection.execute(
        "create function test_applied() returns trigger language plpgsql as"
        " $$ begin insert into test_applied values (new.id); return null; end $$"
    )
    connection.execute(
        "create trigger test_applied after update on system.sync_runs for each row"
        " when (new.state = 'succeeded') execute function test_applied()"
    )

    class Ready(Promises):
        config = Config.from_environment(
            {
                "ARCHISYNC_DATABASE_URL": database_url,
                "ARCHISYNC_REDIS_URL": redis_url,
                "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv",
                "ARCHISYNC_LEASE_S": str(LEASE_S),
                "ARCHISYNC_REDELIVER_AFTER_S": str(REDELIVER_S),
            }
        )
        url = database_url

    Ready.redis_url = redis_url
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
