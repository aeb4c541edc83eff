"""What a tick would decide now, without writing anything."""

from __future__ import annotations

from collections.abc import Iterator

from archisync.rules.due import Decision, Facts, decide
from archisync.store import clock, pairs
from archisync.store.database import Database


def decisions(db: Database) -> Iterator[tuple[Facts, Decision]]:
    """Every whitelisted pair with the decision about it, and why."""
    now = clock.now(db)
    for facts in pairs.all_facts(db):
        yield facts, decide(facts, now)
