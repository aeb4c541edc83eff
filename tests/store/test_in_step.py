"""After every statement, in whatever order: a pair's state names the runs that it has in the queue, and no run is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archisync.base.errors import LeaseLostError
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, applied_exports, claims, clock, deliveries, endings, history, queued_runs
from archisync.store.claims import Claim, ClaimedRun
from archisync.store.database import Database, connected
from archisync.store.endings import Outcome, Report, UnchangedEnd
from archisync.store.runs import Counts, State
from tests.support.properties import examples
from tests.support.queued import LOCKED
from tests.support.rows import count, pretend_applied

AGENTS = ("anna", "bruno")
LEASE_S = 60
START = datetime(2026, 3, 1, 12, tzinfo=UTC)

OUT_OF_STEP = """
select count(*) from system.sync_state st
  full join (select agent_id, sync_type, array_agg(id order by id) as ids from system.queued_runs group by 1, 2) q
    on q.agent_id = st.agent_id and q.sync_type = st.sync_type
 where array_remove(array[st.unfinished_run_id, st.next_run_id], null) is distinct from coalesce(q.ids, '{}')
    or (st.unfinished_run_id is null and st.next_run_id is not null)
"""
IN_BOTH = "select count(*) from system.queued_runs q join system.sync_runs r using (id)"
KNOWN = "select id from system.queued_runs union all select id from system.sync_runs"
NAMED_ELSEWHERE = """
select count(*) from system.claims c join system.queued_runs q on q.id = c.run_id where q.agent_id <> c.agent_id
"""


class World:
    """Two agents, and a worker with a session of its own for each. `agent` and `sync_type` of a step are chosen by numbers."""

    def __init__(self, db: Database, sessions: dict[str, Database]) -> None:
        self.db = db
        self.sessions = sessions
        self.now = START
        self.claims: dict[str, Claim] = {}
        self.current: dict[str, ClaimedRun] = {}
        self.seen: set[int] = set()
        self.step_clock(0)

    def step_clock(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        for db in (self.db, *self.sessions.values()):
            db.execute("select set_config('archisync.now', %s, false)", [self.now.isoformat()])

    # --- a tick ---

    def insert_due(self, _agent: str, number: int) -> None:
        self.step_clock(5 * number)
        queued_runs.insert_due(self.db, limit=3, batch=2)

    def assign(self, _agent: str, number: int) -> None:
        deliveries.assign(self.db, limit=1 + number)

    def redeliver(self, _agent: str, _number: int) -> None:
        self.db.execute("update system.deliveries set delivered_at = system.clock()")
        deliveries.mark_undelivered(self.db, deliveries.long_delivered(self.db, after_s=0))
        deliveries.forget(self.db, limit=10)

    def reap(self, _agent: str, number: int) -> None:
        self.step_clock(2)
        claims.reap(self.db, max_attempts=1 + number % 2)

    def mend(self, agent: str, number: int) -> None:
        self.db.execute(
            "update system.sync_state set last_slot_at = system.clock() + interval '1 day' where agent_id = %s", [agent]
        )
        clock.mend(self.db)

    # --- people ---

    def force(self, agent: str, number: int) -> None:
        if count(self.db, "select count(*) from system.sync_state where agent_id = %s", agent):
            queued_runs.force(self.db, own_type(number), agent, by="test", why=None)

    def deny(self, agent: str, _number: int) -> None:
        agents.set_whitelisted(self.db, [agent], False)

    def allow(self, agent: str, _number: int) -> None:
        agents.set_whitelisted(self.db, [agent], True)

    def remove(self, agent: str, number: int) -> None:
        self.db.execute(
            "truncate agents.users" if number == 0 else "delete from agents.users where id = %(a)s", {"a": agent}
        )
        for name in AGENTS:
            if not count(self.db, "select count(*) from agents.users where id = %s", name):
                agents.add(self.db, name, name=None, whitelisted=number > 2)

    def clear(self, agent: str, number: int) -> None:
        applied_exports.forget(self.db, SYNC_TYPES[own_type(number)], agent)

    def write_outside(self, agent: str, number: int) -> None:
        self.db.execute(
            "insert into agents.customers (agent_id, customer_id, name) values (%s, %s, 'x') on conflict do nothing",
            [agent, f"C{number}"],
        )

    # --- the agent's worker ---

    def claim(self, agent: str, number: int) -> None:
        job = self.db.execute(
            "select delivery_id, job_no from system.queued_runs where agent_id = %s and delivery_id is not null limit 1",
            [agent],
        ).fetchone()
        db = self.sessions[agent]
        if job is not None and number > 1:
            found = claims.claim_job(db, job["delivery_id"], job["job_no"], worker=agent, lease_s=LEASE_S)
        else:
            found = claims.claim_agent(db, agent, worker=agent, lease_s=LEASE_S)
        if isinstance(found, Claim):
            assert agent not in self.claims or self.claims[agent].fence != found.fence
            if agent in self.claims:  # it was taken away; the session has the lock twice now
                claims.release(db, self.claims[agent])
            self.claims[agent] = found
            self.current.pop(agent, None)

    def begin(self, agent: str, number: int) -> None:
        claim = self.claims.get(agent)
        if claim is not None and claim.runs:
            run = claims.begin(self.sessions[agent], claim.runs[number % len(claim.runs)], lease_s=LEASE_S)
            if run is not None:
                self.current[agent] = run

    def finish(self, agent: str, number: int) -> None:
        run = self.current.pop(agent, None)
        if run is None:
            return
        db, report = self.sessions[agent], Report()
        state = (State.SUCCEEDED, State.HELD, State.FAILED, State.SKIPPED)[number % 4]
        if state is State.SUCCEEDED:
            report.counts = Counts(seen=1, unchanged=1, inserted=number // 4)
            with db.transaction():
                applied_exports.begin_apply(db, run_id=run.run_id, sync_type=run.sync_type, agent_id=agent)
                endings.finish_applied(
                    db, run, Outcome(state, "applied", "ok"), report=report, known_rows=1, accepted=False,
                    source={"run_id": run.run_id, "validators": {"x": "y"}},
                )  # fmt: skip
        else:
            endings.finish(db, run, Outcome(state, "test", "a test"), report=report)

    def requeue(self, agent: str, number: int) -> None:
        run = self.current.pop(agent, None)
        if run is not None:
            claims.requeue(self.sessions[agent], run, delay_s=60 * number, reason="retry", message="later")

    def end_unchanged(self, agent: str, number: int) -> None:
        claim = self.claims.get(agent)
        if claim is None:
            return
        outcome = Outcome(State.SUCCEEDED, "unchanged", "as it was")
        ends = [
            UnchangedEnd(run, outcome, Report(counts=Counts(seen=1, unchanged=1)), run.applied["run_id"])
            for run in claim.runs[number % 2 :]
            if run.applied
        ]
        ended = endings.end_unchanged(self.sessions[agent], claim, ends, release=number % 3 == 0)
        assert ended.run_ids <= {end.run.run_id for end in ends}
        if ended.released:
            assert len(ended.run_ids) == len(ends)
            self.forget_claim(agent)

    def release(self, agent: str, _number: int) -> None:
        if agent in self.claims:
            claims.release(self.sessions[agent], self.claims[agent])
            self.forget_claim(agent)

    def give_back(self, agent: str, _number: int) -> None:
        claims.give_back(self.db, agent_id=agent, worker=agent, reason="interrupted", message="by a test")

    def work(self, agent: str, number: int) -> None:
        self.claim(agent, number)
        self.begin(agent, number)
        self.finish(agent, number)

    def claim_and_die(self, agent: str, number: int) -> None:
        self.claim(agent, number)
        self.begin(agent, number)
        self.reap(agent, number)

    def claim_and_end_unchanged(self, agent: str, number: int) -> None:
        pretend_applied(self.db)
        self.db.execute("update system.sync_state set same_changes_nothing = true")
        self.claim(agent, number)
        if number == 1:
            self.force(agent, 0)
        self.end_unchanged(agent, number)

    def put_off(self, agent: str, number: int) -> None:
        claims.put_off(self.db, agent, delay_s=number)

    def forget_claim(self, agent: str) -> None:
        self.claims.pop(agent)
        self.current.pop(agent, None)

    # --- what always holds ---

    def check(self) -> None:
        assert count(self.db, OUT_OF_STEP) == 0
        assert count(self.db, IN_BOTH) == 0
        assert count(self.db, NAMED_ELSEWHERE) == 0
        known = [row["id"] for row in self.db.execute(KNOWN).fetchall()]
        assert self.seen <= set(known)
        assert len(set(known)) == len(known)
        self.seen = set(known)


def own_type(number: int) -> str:
    return ("orders", "customers", "ddt", "invoices")[number % 4]


STEPS: list[Callable[[World, str, int], None]] = [
    World.insert_due, World.insert_due, World.assign, World.redeliver, World.reap, World.mend,
    World.force, World.deny, World.allow, World.remove, World.clear, World.write_outside,
    World.work, World.work, World.claim, World.begin, World.finish, World.requeue, World.end_unchanged, World.claim_and_end_unchanged,
    World.claim_and_die, World.release, World.give_back, World.put_off,
]  # fmt: skip
step = st.tuples(st.sampled_from(STEPS), st.sampled_from(AGENTS), st.integers(0, 7))


@pytest.fixture
def sessions(database_url: str) -> Iterator[dict[str, Database]]:
    with (
        connected(database_url, purpose="anna's worker") as one,
        connected(database_url, purpose="bruno's worker") as two,
    ):
        yield dict(zip(AGENTS, (one, two), strict=True))


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step, min_size=20, max_size=60))
def test_a_pair_names_its_unfinished_run_after_every_statement(
    connection: Database, sessions: dict[str, Database], steps: list[tuple[Callable[[World, str, int], None], str, int]]
) -> None:
    connection.execute(
        "truncate system.queued_runs, system.claims, system.deliveries, system.outside_changes, agents.customers, agents.users"
    )
    connection.execute("truncate system.sync_runs cascade")
    connection.execute("delete from system.sync_state where agent_id <> 'service-account'")
    connection.execute(
        "update system.sync_state set unfinished_run_id = null, last_slot_at = null, backoff_until = null"
    )
    for db in sessions.values():
        db.execute("select pg_advisory_unlock_all()")
    world = World(connection, sessions)
    for agent in AGENTS:
        agents.add(connection, agent, name=None, whitelisted=True)
    world.insert_due("", 1)
    for act, agent, number in steps:
        with suppress(LeaseLostError):
            act(world, agent, number)
        world.check()
    for agent in AGENTS:
        world.release(agent, 0)
    world.check()
    assert count(connection, LOCKED) == 0
    assert history.running(connection) == []
