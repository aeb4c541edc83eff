"""Large registries for the benchmarks: agents by COPY, a slot for each pair, and some pairs due."""

from __future__ import annotations

from archisync.store.database import Database
from tests.support.rows import forget_runs

INTERVAL_MINUTES = 1440
"""The interval of every type, so that nothing becomes due while a benchmark runs."""
AGENT_TYPES = 4


def load(db: Database, agents: int) -> None:
    """Add that many whitelisted agents, all of whose pairs ran just now, in the order of a bulk load by an application."""
    db.execute("update system.sync_settings set interval_minutes = %s", [INTERVAL_MINUTES])
    db.execute(
        "alter table agents.users disable trigger user"
    )  # a statement for all pairs is faster than one for each row
    with db.cursor().copy("copy agents.users (id, whitelisted) from stdin") as rows:
        for number in range(agents):
            rows.write_row((f"agent-{number:07}", True))
    db.execute("alter table agents.users enable trigger user")
    db.execute(
        "insert into system.sync_state (sync_type, agent_id, last_slot_at) select t.sync_type, u.id, system.clock()"
        " from agents.users u cross join system.sync_types t where t.scope = 'agent' order by u.id, t.sync_type"
    )
    db.execute("update system.sync_state set last_slot_at = system.clock() where last_slot_at is null")
    settle(db)


def make_due(db: Database, pairs: int) -> None:
    """Put that many pairs an hour past their slot: all pairs of some scattered agents. No run is queued."""
    forget_runs(db)
    db.execute(
        "update system.sync_state set last_slot_at = system.clock() - make_interval(mins => %s)"
        " where agent_id in (select id from agents.users order by hashtext(id), id limit %s)",
        [INTERVAL_MINUTES + 60, pairs // AGENT_TYPES],
    )
    settle(db)


def settle(db: Database) -> None:
    """Do what autovacuum and the checkpointer do between two ticks of a real day."""
    db.execute("vacuum analyze system.sync_state")
    db.execute("checkpoint")
