"""Runs that a person starts, repeats or cancels, and rests that a person ends."""

from __future__ import annotations

from collections.abc import Sequence

from archisync.base.errors import NotFoundError
from archisync.rules.synctypes import SHARED_AGENT, sync_type
from archisync.schedule import force as forcing
from archisync.schedule.force import Pair
from archisync.store import agents, audit, history, interventions
from archisync.store.audit import Actor, Deed
from archisync.store.database import Database
from archisync.store.interventions import Failing, Unfinished
from archisync.store.queued_runs import Forced


def force(db: Database, actor: Actor, pairs: Sequence[Pair], *, why: str | None = None) -> list[Forced]:
    """A run for each pair at the front of the queue: a new one, or the one that waits already. Deliver them after the commit
    (`schedule.deliver.deliver_now`)."""
    with db.transaction():
        forced = forcing.force(db, pairs, by=actor.name, why=why)
        audit.record(db, actor, "run", [_forced(one) for one in forced], why=why)
    return forced


def find_failing(db: Database, type_name: str | None, agent_id: str | None, *, resting: bool) -> list[Failing]:
    """Pairs whose last runs failed, with `resting` only those that rest; of a type, an agent, both or all. Raises UsageError for an unknown
    type, NotFoundError for an unknown agent."""
    name = sync_type(type_name).name if type_name is not None else None
    found = interventions.failing(db, sync_type=name, agent_id=agent_id, resting=resting)
    if not found:
        _check_agent(db, agent_id)
    return found


def _check_agent(db: Database, agent_id: str | None) -> None:
    """An unknown agent is a mistake, and one of whom nothing is found is none. Raises NotFoundError."""
    if agent_id is not None and agent_id != SHARED_AGENT:
        agents.agent(db, agent_id)


def retry(db: Database, actor: Actor, failing: Sequence[Failing], *, why: str | None = None) -> list[Forced]:
    """Run these pairs again at once, and end their rests. Find them with `find_failing`."""
    with db.transaction():
        interventions.end_rests(db, failing)
        pairs = [Pair(sync_type=sync_type(p.sync_type), agent_id=p.agent_id) for p in failing]
        forced = forcing.force(db, pairs, by=actor.name, why=why)
        audit.record(db, actor, "retry", [_forced(one) for one in forced], why=why)
    return forced


def _forced(one: Forced) -> Deed:
    return Deed(sync_type=one.sync_type, agent_id=one.agent_id, run_id=one.run_id, after={"joined": one.joined})


def find_unfinished(
    db: Database, run_ids: Sequence[int], type_name: str | None, agent_id: str | None
) -> list[Unfinished]:
    """Those of these runs that are not over; without ids, the unfinished ones of a type, an agent, both or all. Raises UsageError for an
    unknown type, NotFoundError for an unknown run or agent, and if all of the named runs are over."""
    if not run_ids:
        name = sync_type(type_name).name if type_name is not None else None
        found = interventions.unfinished(db, sync_type=name, agent_id=agent_id)
        if not found:
            _check_agent(db, agent_id)
        return found
    states = history.states_of(db, run_ids)
    found = interventions.unfinished(db, ids=run_ids)
    if not found:
        first = run_ids[0]
        over = f"run {first} is over: it is {states[first]}" if len(run_ids) == 1 else "all of these runs are over"
        raise NotFoundError(over, hint=f"archisync show {first}")
    return found


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
    rested, as they were. Find them with `find_failing`."""
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
