"""A worker loses its run or its agent: it leaves no claim and no lock behind, and no other run pays for it."""

from __future__ import annotations

import pytest

from archisync.base.errors import LeaseLostError
from archisync.store import agents, claims, endings, queued_runs
from archisync.store.claims import Claim
from archisync.store.database import Database, connected
from archisync.store.endings import Outcome, Report, UnchangedEnd
from archisync.store.runs import Counts, State
from tests.support.queued import LOCKED
from tests.support.rows import count, pretend_applied

AGENT = "anna.bianchi"
OVER = Outcome(State.FAILED, "error", "it failed")
UNCHANGED = Outcome(State.SUCCEEDED, "unchanged", "as it was")


def claimed(db: Database) -> Claim:
    agents.add(db, AGENT, name=None, whitelisted=True)
    queued_runs.insert_due(db, limit=10, batch=10)
    claim = claims.claim_agent(db, AGENT, worker="slow:1", lease_s=60)
    assert isinstance(claim, Claim)
    return claim


def take_back(db: Database) -> int:
    db.execute("update system.claims set lease_until = system.clock() - interval '1 second'")
    return claims.reap(db, max_attempts=3)


def test_a_run_that_a_denial_takes_away_while_it_begins_leaves_no_claim_and_no_lock(
    connection: Database, database_url: str
) -> None:
    claim = claimed(connection)
    with connected(database_url, purpose="a person") as person, person.transaction():
        agents.set_whitelisted(person, [AGENT], False)  # it sees a claim that names no run yet
        run = claims.begin(connection, claim.runs[0], lease_s=60)
        assert run is not None

    with pytest.raises(LeaseLostError):
        endings.finish(connection, run, OVER, report=Report())
    claims.release(connection, claim)

    assert count(connection, "select count(*) from system.claims") == 0
    assert count(connection, LOCKED) == 0


def unchanged_end(connection: Database, claim: Claim) -> UnchangedEnd:
    """The end, as unchanged, of a run that the worker has begun."""
    run = claims.begin(connection, claim.runs[1], lease_s=60)
    assert run is not None
    pretend_applied(connection)
    return UnchangedEnd(run, UNCHANGED, Report(counts=Counts()), 1)


def test_a_run_whose_table_was_written_to_meanwhile_is_named_until_it_ends_and_pays_alone(connection: Database) -> None:
    claim = claimed(connection)
    end = unchanged_end(connection, claim)
    connection.execute(
        "insert into system.outside_changes (sync_type, agent_id) values (%s, %s)", [end.run.sync_type, AGENT]
    )

    assert not endings.end_unchanged(connection, claim, [end], release=False).run_ids

    assert take_back(connection) == 1
    charged = connection.execute("select id from system.queued_runs where attempt > 1").fetchall()
    assert [row["id"] for row in charged] == [end.run.run_id]


def test_a_run_that_is_forced_while_it_is_done_ends_and_the_forced_one_waits(connection: Database) -> None:
    claim = claimed(connection)
    end = unchanged_end(connection, claim)
    forced = queued_runs.force(connection, end.run.sync_type, AGENT, by="test", why=None)
    assert forced.behind == end.run.run_id

    assert endings.end_unchanged(connection, claim, [end], release=False).run_ids == {end.run.run_id}

    waits = connection.execute("select id, behind from system.queued_runs where trigger = 'forced'").fetchall()
    assert [row["id"] for row in waits] == [forced.run_id]


def test_a_run_that_is_forced_before_it_begins_is_not_ended_as_unchanged(connection: Database) -> None:
    claim = claimed(connection)
    end = unchanged_end(connection, claim)
    connection.execute("update system.claims set run_id = null")  # it waits
    assert queued_runs.force(connection, end.run.sync_type, AGENT, by="test", why=None).joined

    assert not endings.end_unchanged(connection, claim, [end], release=False).run_ids


def test_a_release_after_the_agent_was_taken_away_frees_its_lock_and_touches_no_run(
    connection: Database, database_url: str
) -> None:
    claim = claimed(connection)
    take_back(connection)
    connection.execute("update system.queued_runs set delivery_id = 7, job_no = 0")

    claims.release(connection, claim)

    assert count(connection, "select count(*) from system.queued_runs where delivery_id is null") == 0
    with connected(database_url, purpose="another worker") as other:
        again = claims.claim_agent(other, AGENT, worker="quick:2", lease_s=60)
        assert isinstance(again, Claim)
        claims.release(other, again)
    assert (
        count(connection, "select count(*) from system.queued_runs where delivery_id = 7 and agent_id = %s", AGENT) == 0
    )
