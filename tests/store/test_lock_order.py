"""Statements that lock several runs of an agent lock them in the same order, so none of them is ended by a deadlock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from archisync.store import agents, claims, deliveries, endings, queued_runs
from archisync.store.claims import Claim
from archisync.store.database import Database, connected
from archisync.store.deliveries import JobKey
from archisync.store.endings import Outcome, Report, UnchangedEnd
from archisync.store.runs import Counts, State
from tests.support.rows import count, pretend_applied

AGENT = "anna.bianchi"
WAITING = """select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"""
WITHIN_S = 20


def wait_for_waiting(db: Database, number: int) -> None:
    end = monotonic() + WITHIN_S
    while count(db, WAITING) < number:
        assert monotonic() < end


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda db: agents.set_whitelisted(db, [AGENT], False), id="deny"),
        pytest.param(lambda db: claims.put_off(db, AGENT, delay_s=15), id="put off"),
        pytest.param(lambda db: deliveries.mark_undelivered(db, [JobKey(1, 0)]), id="mark undelivered"),
    ],
)
def test_a_claim_takes_the_runs_in_the_order_of_everybody_else(
    connection: Database, database_url: str, other: Callable[[Database], object]
) -> None:
    """The forced run is the first that a worker does, and not the first in the table."""
    agents.add(connection, AGENT, name=None, whitelisted=True)
    queued_runs.insert_due(connection, limit=10, batch=10)
    queued_runs.force(connection, "orders", AGENT, by="test", why=None)
    connection.execute("update system.queued_runs set delivery_id = 1, job_no = 0")

    def claim(db: Database) -> object:
        return claims.claim_agent(db, AGENT, worker="slow:1", lease_s=60)

    with (
        connected(database_url, purpose="claim") as claiming,
        connected(database_url, purpose="other") as another,
        connected(database_url, purpose="holder") as holder,
        ThreadPoolExecutor(2) as threads,
    ):
        with holder.transaction():
            holder.execute("select from system.queued_runs where trigger = 'forced' for update")
            first = threads.submit(claim, claiming)
            wait_for_waiting(connection, 1)
            second = threads.submit(other, another)
            wait_for_waiting(connection, 2)
        first.result(WITHIN_S)
        second.result(WITHIN_S)


@pytest.mark.parametrize("whitelisted", [False, True], ids=["deny", "allow"])
def test_runs_that_end_together_take_their_pairs_in_the_order_of_the_whitelist(
    connection: Database, database_url: str, whitelisted: bool
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    queued_runs.insert_due(connection, limit=10, batch=10)
    if whitelisted:  # as if another session had denied the agent, which leaves the runs that are being done
        connection.execute("set session_replication_role = replica")
        connection.execute("update agents.users set whitelisted = false")
        connection.execute("update system.sync_state set active = false where agent_id = %s", [AGENT])
        connection.execute("reset session_replication_role")
    pretend_applied(connection)
    claim = claims.claim_agent(connection, AGENT, worker="quick:1", lease_s=60)
    assert isinstance(claim, Claim)
    outcome, report = Outcome(State.SUCCEEDED, "unchanged", "as it was"), Report(counts=Counts())
    ends = [UnchangedEnd(run, outcome, report, 1) for run in claim.runs]
    with (
        connected(database_url, purpose="other") as another,
        connected(database_url, purpose="holder") as holder,
        connected(database_url, purpose="watch") as watch,
        ThreadPoolExecutor(2) as threads,
    ):
        with holder.transaction():
            holder.execute(
                "select from system.sync_state where agent_id = %s and sync_type = 'customers' for update", [AGENT]
            )
            first = threads.submit(endings.end_unchanged, connection, claim, ends, release=True)
            wait_for_waiting(watch, 1)
            second = threads.submit(agents.set_whitelisted, another, [AGENT], whitelisted)
            wait_for_waiting(watch, 2)
        assert len(first.result(WITHIN_S).run_ids) == 4
        second.result(WITHIN_S)
