"""Exports that a person decides about, and copied rows that a person deletes."""

from __future__ import annotations

from archisync.base.errors import UsageError
from archisync.rules.synctypes import Scope, SyncType
from archisync.store import agents, applied_exports, audit, held, queued_runs
from archisync.store.audit import Actor, Deed
from archisync.store.database import Database
from archisync.store.held import Held
from archisync.store.queued_runs import Forced
from archisync.sync.clear import delete_rows


def accept(db: Database, actor: Actor, run_id: int, *, why: str, run_now: bool = True) -> tuple[Held, Forced | None]:
    """Allow the held export of that run to be applied once, within 24 hours, and with `run_now` queue the run that applies it.

    Returns the hold as decided, and that run. Raises NotFoundError, and UsageError when the hold is over or can't be accepted, or `why` is
    empty.
    """
    _check_why(why)
    with db.transaction():
        h = held.held_export(db, run_id)
        # The run first, in the order of an apply's locks: so no deadlock.
        forced = queued_runs.force(db, h.sync_type, h.agent_id, by=actor.name, why=why) if run_now else None
        decided = held.decide(db, run_id, accept=True, by=actor.name, why=why)
        _record_decision(db, actor, "held accept", h, decided, why)
    return decided, forced


def reject(db: Database, actor: Actor, run_id: int, *, why: str) -> Held:
    """Refuse the held export of that run, now and whenever it comes again. Raises as `accept` does."""
    _check_why(why)
    with db.transaction():
        h = held.held_export(db, run_id)
        decided = held.decide(db, run_id, accept=False, by=actor.name, why=why)
        _record_decision(db, actor, "held reject", h, decided, why)
    return decided


def _check_why(why: str) -> None:
    if not why.strip():
        raise UsageError("the reason is empty", hint="say in a few words why; it is recorded with your name")


def _record_decision(db: Database, actor: Actor, action: str, before: Held, after: Held, why: str) -> None:
    deed = Deed(
        sync_type=after.sync_type,
        agent_id=after.agent_id,
        run_id=after.run_id,
        before={"decision": before.decision},
        after={"decision": after.decision, "sha256": after.sha256},
    )
    audit.record(db, actor, action, [deed], why=why)


def clear(db: Database, actor: Actor, sync_type: SyncType, agent_id: str | None, *, why: str | None = None) -> int:
    """Delete the copied rows of the agent, or of all when it is None, and what is known of their last exports, so that the next sync loads
    them again. Returns the number of rows. Raises NotFoundError for an unknown agent."""
    if agent_id is not None and sync_type.scope is Scope.AGENT:
        agents.agent(db, agent_id)
    with db.transaction():
        number = delete_rows(db, sync_type, agent_id)  # first, in the order of an apply's locks: so no deadlock
        applied_exports.forget(db, sync_type, agent_id)
        deed = Deed(sync_type=sync_type.name, agent_id=agent_id, after={"rows_deleted": number})
        audit.record(db, actor, "clear", [deed], why=why)
    return number
