"""Somebody deletes the settings of a type with SQL: its runs wait until the settings are back, and nothing else waits for them."""

from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database
from archisync.store.runs import State
from tests.support.rows import count, do_run

AGENT = "anna.bianchi"


def test_a_run_of_a_type_without_settings_waits_and_the_agents_other_runs_are_done(
    connection: Database, config: Config
) -> None:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    waiting, other = (
        queued_runs.force(connection, name, AGENT, by="test", why=None).run_id for name in ("orders", "customers")
    )
    connection.execute("create temp table kept as select * from system.sync_settings where sync_type = 'orders'")
    connection.execute("delete from system.sync_settings where sync_type = 'orders'")
    assert do_run(connection, config, waiting) == 1
    assert history.state_of(connection, other) is State.SUCCEEDED
    for _ in range(2):  # it does not go round and round
        assert do_run(connection, config, waiting) == 0
        assert history.state_of(connection, waiting) is State.QUEUED
        assert count(connection, "select count(*) from system.claims") == 0
    assert tick(connection, config).error is None
    connection.execute("insert into system.sync_settings select * from kept")
    do_run(connection, config, waiting)
    assert history.state_of(connection, waiting) is State.SUCCEEDED
