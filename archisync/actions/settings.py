"""Settings that a person changes: intervals, which types run, the guard's thresholds, pauses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from archisync.base.errors import UsageError
from archisync.base.text import iso
from archisync.rules.reasons import Changes, Limits
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, SyncType, sync_type
from archisync.rules.thresholds import check_threshold
from archisync.store import agents, audit, clock, settings
from archisync.store.audit import Actor, Deed
from archisync.store.database import Database
from archisync.store.settings import Pause, TypeSettings


def set_intervals(db: Database, actor: Actor, minutes: Mapping[SyncType, int], *, why: str | None = None) -> None:
    """Change the intervals of these types, from the next tick on. Other types keep theirs."""
    with db.transaction():
        before = _by_type(db)
        for type_, every in minutes.items():
            settings.set_interval(db, type_, every)
        deeds = [
            Deed(
                sync_type=type_.name,
                before={"interval_minutes": before[type_.name].interval_minutes} if type_.name in before else None,
                after={"interval_minutes": every},
            )
            for type_, every in minutes.items()
        ]
        audit.record(db, actor, "interval set", deeds, why=why)


def set_enabled(
    db: Database, actor: Actor, types: Sequence[SyncType], enabled: bool, *, why: str | None = None
) -> None:
    """Schedule these types, or stop scheduling them."""
    with db.transaction():
        before = _by_type(db)
        for type_ in types:
            settings.set_enabled(db, type_, enabled)
        deeds = [
            Deed(
                sync_type=type_.name,
                before={"enabled": before[type_.name].enabled} if type_.name in before else None,
                after={"enabled": enabled},
            )
            for type_ in types
        ]
        audit.record(db, actor, "enable" if enabled else "disable", deeds, why=why)


def _by_type(db: Database) -> dict[str, TypeSettings]:
    return {found.sync_type: found for found in settings.all_settings(db)}


def set_limits(db: Database, actor: Actor, limits: Mapping[SyncType, Limits], *, why: str | None = None) -> None:
    """Change the guard's thresholds of these types."""
    with db.transaction():
        before = settings.all_limits(db)
        for type_, wanted in limits.items():
            settings.set_limits(db, type_, wanted)
        deeds = [
            Deed(
                sync_type=type_.name,
                before=_shares(before[type_.name]) if type_.name in before else None,
                after=_shares(wanted),
            )
            for type_, wanted in limits.items()
        ]
        audit.record(db, actor, "guard set", deeds, why=why)


def change_limits(db: Database, actor: Actor, type_: SyncType, changes: Changes, *, why: str | None = None) -> Limits:
    """Change some thresholds of one type; all that it has then. Raises UsageError for one that it can't have."""
    for share, column in changes:
        check_threshold(share, column, type_)
    with db.transaction():
        settings.lock(db, type_)  # of two who change different thresholds at once, neither is forgotten
        limits = settings.all_limits(db)[type_.name].changed(changes)
        set_limits(db, actor, {type_: limits}, why=why)
    return limits


def _shares(limits: Limits) -> dict[str, object]:
    return {**limits.of_rows, **limits.of_columns}


def pause(
    db: Database,
    actor: Actor,
    *,
    sync_type: str | None,
    agent_id: str | None,
    until: datetime | None = None,
    why: str | None = None,
) -> None:
    """Pause everything (both None), a type, an agent, or one pair; until somebody resumes when `until` is None. A second pause of the same
    takes the place of the first. Raises NotFoundError for an unknown agent, UsageError for a pair that can't be or a time that is over."""
    with db.transaction():
        _check_scope(db, sync_type, agent_id)
        if until is not None and until <= (now := clock.now(db)):
            raise UsageError(f"the end of the pause, {iso(until)}, is in the past", hint=f"it is {iso(now)} now")
        before = _standing(db, sync_type, agent_id)
        settings.pause(db, sync_type=sync_type, agent_id=agent_id, until=until, reason=why, by=actor.name)
        deed = Deed(
            sync_type=sync_type,
            agent_id=agent_id,
            before=_terms(before),
            after={"paused": True, "until": iso(until) if until else None},
        )
        audit.record(db, actor, "pause", [deed], why=why)


def resume(db: Database, actor: Actor, *, sync_type: str | None, agent_id: str | None, why: str | None = None) -> bool:
    """End the pause of exactly this; False, and nothing is recorded, when it was not paused. Raises as `pause` does, but not for an agent
    that was paused and has left the registry."""
    with db.transaction():
        before = _standing(db, sync_type, agent_id)
        resumed = settings.resume(db, sync_type=sync_type, agent_id=agent_id)
        if resumed:
            deed = Deed(sync_type=sync_type, agent_id=agent_id, before=_terms(before), after={"paused": False})
            audit.record(db, actor, "resume", [deed], why=why)
        else:
            _check_scope(db, sync_type, agent_id)
    return resumed


def scope_in_words(type_name: str | None, agent_id: str | None) -> str:
    """What is paused: everything, the type orders, the agent anna, orders of anna."""
    if type_name is not None and agent_id is not None:
        return f"{type_name} of {agent_id}"
    if type_name is not None:
        return f"the type {type_name}"
    return "everything" if agent_id is None else f"the agent {agent_id}"


def pauses_upon(db: Database, type_name: str | None, agent_id: str | None) -> list[Pause]:
    """The pauses that stop any pair of the type, the agent or both."""
    return [pause for pause in settings.pauses(db) if _applies(pause, type_name, agent_id)]


def _applies(pause: Pause, type_name: str | None, agent_id: str | None) -> bool:
    types = {type_name, pause.sync_type} - {None}
    ids = {agent_id, pause.agent_id} - {None}
    if len(types) > 1 or len(ids) > 1:
        return False
    return not (types and ids) or _is_pair(str(*types), str(*ids))


def _check_scope(db: Database, type_name: str | None, agent_id: str | None) -> None:
    type_ = sync_type(type_name) if type_name is not None else None
    if agent_id is not None and agent_id != SHARED_AGENT:
        agents.agent(db, agent_id)
    if type_ is not None and agent_id is not None and not _is_pair(type_.name, agent_id):
        whose = "shared by all agents" if type_.scope is Scope.SHARED else f"not a type of {SHARED_AGENT}"
        raise UsageError(f"{type_.name} is {whose}", hint=f"leave out the agent, for all of {type_.name}")


def _is_pair(type_name: str, agent_id: str) -> bool:
    return (SYNC_TYPES[type_name].scope is Scope.SHARED) == (agent_id == SHARED_AGENT)


def _standing(db: Database, sync_type: str | None, agent_id: str | None) -> Pause | None:
    return next((p for p in settings.pauses(db) if (p.sync_type, p.agent_id) == (sync_type, agent_id)), None)


def _terms(pause: Pause | None) -> dict[str, object]:
    if pause is None:
        return {"paused": False}
    until = iso(pause.until) if pause.until else None
    return {"paused": True, "until": until, "by": pause.paused_by, "why": pause.reason}
