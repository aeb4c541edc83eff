"""What a tick would decide now, without writing anything."""

from __future__ import annotations

from collections.abc import Iterator

from archisync.rules.due import Decision, PairState, decide
from archisync.store import clock, pairs
from archisync.store.database import Database


def decisions(db: Database) -> Iterator[tuple[PairState, Decision]]:
    """Every whitelisted pair with the decision about it, and why."""
    now = clock.now(db)
    for state in pairs.active_states(db):
        yield state, decide(state, now)
