"""Runs that a person starts, repeats or cancels, and rests that a person ends."""

from __future__ import annotations

from collections.abc import Sequence

from archisync.rules.synctypes import sync_type
from archisync.schedule import force as forcing
from archisync.schedule.force import Pair
from archisync.store import audit, interventions
from archisync.store.audit import Actor, Deed
from archisync.store.database import Database
from archisync.store.interventions import Failing, Unfinished
from archisync.store.queued_runs import Forced


def force(db: Database, actor: Actor, pairs: Sequence[Pair], *, why: str | None = None) -> list[Forced]:
    """A run for each pair at the front of the queue: a new one, or the unfinished one that it joins. Deliver them after the commit
    (`schedule.deliver.deliver_now`)."""
    with db.transaction():
        forced = forcing.force(db, pairs, by=actor.name, why=why)
        audit.record(db, actor, "run", [_forced(one) for one in forced], why=why)
    return forced


def retry(db: Database, actor: Actor, failing: Sequence[Failing], *, why: str | None = None) -> list[Forced]:
    """Run these pairs again at once, and end their rests. Find them with `interventions.failing`."""
    with db.transaction():
        interventions.end_rests(db, failing)
        pairs = [Pair(sync_type=sync_type(p.sync_type), agent_id=p.agent_id) for p in failing]
        forced = forcing.force(db, pairs, by=actor.name, why=why)
        audit.record(db, actor, "retry", [_forced(one) for one in forced], why=why)
    return forced


def _forced(one: Forced) -> Deed:
    return Deed(sync_type=one.sync_type, agent_id=one.agent_id, run_id=one.run_id, after={"joined": one.joined})


def cancel(db: Database, actor: Actor, run_ids: Sequence[int], *, why: str | None = None) -> list[Unfinished]:
    """End runs as cancelled, queued ones and those that are being done: their workers write nothing and let the agent go when they notice,
    at the end of what they fetch at the latest. Returns those that were not over. Their pairs are due again at their next slot."""
    with db.transaction():
        message = f"cancelled by {actor.name}{': ' + why if why else ''}"
        cancelled = interventions.cancel(db, run_ids, message=message)
        deeds = [
            Deed(
                sync_type=run.sync_type,
                agent_id=run.agent_id,
                run_id=run.run_id,
                before={"state": "running" if run.worker else "queued", "worker": run.worker},
                after={"state": "cancelled"},
            )
            for run in cancelled
        ]
        audit.record(db, actor, "cancel", deeds, why=why)
    return cancelled


def end_rests(db: Database, actor: Actor, failing: Sequence[Failing], *, why: str | None = None) -> list[Failing]:
    """The schedule goes on for these pairs: each runs when its next slot comes, and rests longer if it fails again. Returns those that
    rested, as they were. Find them with `interventions.failing`."""
    with db.transaction():
        ended = interventions.end_rests(db, failing)
        deeds = [
            Deed(
                sync_type=pair.sync_type,
                agent_id=pair.agent_id,
                before={"failures": pair.consecutive_failures, "rests": True},
                after={"rests": False},
            )
            for pair in ended
        ]
        audit.record(db, actor, "rest end", deeds, why=why)
    return ended
