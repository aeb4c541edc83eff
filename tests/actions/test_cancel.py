"""A cancelled run ends in the history, and nobody writes anything for it any more."""

from __future__ import annotations

import pytest

from archisync import sources
from archisync.actions import agents, runs
from archisync.sources.interface import Fetched, Request
from archisync.store import agents as registry
from archisync.store import history, queued_runs
from archisync.store.audit import Actor, Via
from archisync.store.database import Database, connected
from archisync.store.runs import State
from tests.support.queued import LOCKED, config_for
from tests.support.rows import count, drain

AGENT = "anna.bianchi"
ACTOR = Actor(name="paolo@web1", via=Via.CLI)
ROWS = "select count(*) from agents.customers"


NO_REDIS = "redis://127.0.0.1:9/0"


def queue(db: Database, *types: str) -> list[int]:
    return [queued_runs.force(db, name, AGENT, by="test", why=None).run_id for name in types]


def test_a_queued_run_ends_as_cancelled_and_its_pair_waits_for_its_next_slot(
    connection: Database, database_url: str
) -> None:
    registry.add(connection, AGENT, name=None, whitelisted=True)
    queued_runs.insert_due(connection, limit=10, batch=10)
    row = connection.execute("select id, slot_at from system.queued_runs where sync_type = 'customers'").fetchone()
    assert row is not None
    assert [run.run_id for run in runs.cancel(connection, ACTOR, [row["id"]], why="not now")] == [row["id"]]
    run = history.get(connection, row["id"])
    assert (run.state, run.reason, run.message, run.worker) == (
        State.CANCELLED,
        "cancelled",
        "cancelled by paolo@web1: not now",
        None,
    )
    state = connection.execute("select * from system.sync_state where sync_type = 'customers'").fetchone()
    assert state is not None
    assert (state["last_slot_at"], state["unfinished_run_id"]) == (row["slot_at"], None)
    queued_runs.insert_due(connection, limit=10, batch=10)
    assert count(connection, "select count(*) from system.queued_runs where sync_type = 'customers'") == 0
    drain(connection, config_for(database_url, NO_REDIS))
    assert count(connection, ROWS) == 0
    assert runs.cancel(connection, ACTOR, [row["id"]]) == []


@pytest.mark.parametrize("how", ["cancel", "remove"])
def test_a_run_that_is_being_done_writes_nothing_after_it_was_cancelled(
    connection: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The claim of the agent stays until its worker lets it go: nobody else enters the ERP meanwhile."""
    registry.add(connection, AGENT, name=None, whitelisted=True)
    cancelled, other = queue(connection, "customers", "orders")
    claims = list[int]()
    real_fetch = sources.fetch

    def fetch(request: Request) -> Fetched:
        if request.sync_type == "customers" and not claims:
            with connected(database_url, purpose="a person") as person:
                if how == "cancel":
                    assert [run.worker is not None for run in runs.cancel(person, ACTOR, [cancelled])] == [True]
                else:
                    agents.remove(person, ACTOR, [AGENT], with_data=True)
                claims.append(count(person, "select count(*) from system.claims"))
        return real_fetch(request)

    monkeypatch.setattr(sources, "fetch", fetch)
    drain(connection, config_for(database_url, NO_REDIS))
    assert claims == [1]
    run = history.get(connection, cancelled)
    assert (run.state, run.counts) == (State.CANCELLED, None)
    assert run.worker is not None
    assert count(connection, ROWS) == 0
    assert history.get(connection, other).state is (State.SUCCEEDED if how == "cancel" else State.SKIPPED)
    assert count(connection, "select count(*) from system.claims") == 0
    assert count(connection, LOCKED) == 0
    assert count(connection, "select count(*) from system.queued_runs") == 0
