"""A tick moves each slot as the rule says, at the edges and between."""

import random
from datetime import UTC, datetime, timedelta

from archisync.store import agents, queued_runs
from archisync.store.database import Database
from tests.support.slots import next_slot

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)
EVERY = timedelta(minutes=10)
SECOND = timedelta(seconds=1)
EDGES = [
    timedelta(0),
    EVERY - SECOND,
    EVERY,
    EVERY + SECOND,
    2 * EVERY - SECOND,
    2 * EVERY,
    2 * EVERY + SECOND,
    timedelta(days=3),
]


def test_a_tick_moves_each_slot_by_the_rule(connection: Database) -> None:
    chosen = random.Random(7)
    ages = [None, *EDGES, *(chosen.randrange(4 * 10 * 60) * SECOND for _ in range(200))]
    connection.execute("set archisync.now = '2026-05-05T12:00:00Z'")
    connection.execute("update system.sync_settings set interval_minutes = 10, enabled = sync_type = 'orders'")
    before: dict[str, datetime | None] = {}
    for number, age in enumerate(ages):
        agent_id = f"a{number}"
        agents.add(connection, agent_id, name=None, whitelisted=True)
        before[agent_id] = NOON - age if age is not None else None
        connection.execute(
            "update system.sync_state set last_slot_at = %s where agent_id = %s", [before[agent_id], agent_id]
        )
    queued_runs.insert_due(connection, limit=10_000, batch=1000)
    found = connection.execute(
        "select st.agent_id, st.last_slot_at, r.slot_at from system.sync_state st"
        " left join system.queued_runs r using (sync_type, agent_id) where st.sync_type = 'orders'"
    ).fetchall()
    assert len(found) == len(ages)
    for row in found:
        last = before[row["agent_id"]]
        due = last is None or last + EVERY <= NOON
        slot = next_slot(last, EVERY, NOON) if due else last
        assert (row["last_slot_at"], row["slot_at"]) == (slot, slot if due else None), row["agent_id"]
