"""The oracle of the fault tests finds what it is there to find."""

import pytest

from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents
from archisync.store.database import Database
from tests.faults import oracle
from tests.support.rows import drain

AGENT = "anna.bianchi"
OPEN = "alter table {} drop constraint {}; "
BREAKS = {
    "the state of a pair names another run than its queue": "update system.sync_state set unfinished_run_id = null",
    "two unfinished runs of a pair": OPEN.format("system.queued_runs", "one_unfinished_run_a_pair")
    + "insert into system.queued_runs (sync_type, agent_id, trigger) values ('orders', 'anna.bianchi', 'forced')",
    "two claims of an agent": OPEN.format("system.claims", "claims_pkey")
    + "insert into system.claims (agent_id, worker, lease_until) select 'a', 'w', now() from generate_series(1, 2)",
    "two running runs of an agent": OPEN.format("system.claims", "claims_pkey")
    + "insert into system.claims (agent_id, worker, lease_until, run_id)"
    " select agent_id, 'w', now(), id from system.queued_runs where sync_type in ('orders', 'ddt')",
    "a claim names a run that is not queued": "insert into system.claims (agent_id, worker, lease_until, run_id)"
    " values ('b', 'w', now(), 1)",
    "a fence was given twice": "insert into system.claims (agent_id, fence, worker, lease_until) overriding system value"
    " select agent_id, 7, 'w', now() from (values ('a'), ('b')) x (agent_id)",
    "a run is in the queue and in the history": "insert into system.sync_runs (id, sync_type, agent_id, state, trigger)"
    " select id, sync_type, agent_id, 'succeeded', trigger from system.queued_runs where sync_type = 'orders'",
    "a queued run is lost": "delete from system.queued_runs where sync_type = 'orders'",
    "a run ended twice": "update system.sync_runs set state = 'succeeded'",
    "a run ended without having been queued": "insert into system.sync_runs (id, sync_type, agent_id, state, trigger)"
    " values (99, 'orders', 'a', 'succeeded', 'forced')",
    "a run was applied in two transactions": "update agents.customers set run_id = run_id",
    "rows were written by another transaction than the one that ended the run": "update agents.customers set run_id = 99",
    "a run that did not end well has no reason": "update system.sync_runs set state = 'failed', reason = null",
}  # fmt: skip


@pytest.fixture
def watched(connection: Database, config: Config) -> Database:
    """Some runs are over, others are queued."""
    oracle.watch(connection)
    agents.add(connection, AGENT, name=None, whitelisted=True)
    for moment in ("2026-05-05T12:00:00Z", "2026-05-05T18:00:00Z"):
        connection.execute(f"set archisync.now = '{moment}'")
        assert tick(connection, config).enqueued == 6
        if moment.startswith("2026-05-05T12"):
            assert drain(connection, config) == 6
    return connection


def test_nothing_is_found_while_all_is_well(watched: Database) -> None:
    assert oracle.violations(watched) == {}


@pytest.mark.parametrize("what", BREAKS)
def test_what_does_not_hold_is_found(watched: Database, what: str) -> None:
    watched.execute(BREAKS[what])
    assert what in oracle.violations(watched)
