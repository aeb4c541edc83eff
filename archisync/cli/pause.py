"""`archisync pause` and `resume`: let everything, a type, an agent or one pair stand still for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.errors import UsageError
from archisync.cli.arguments import AgentOption, TypeOption
from archisync.cli.context import App, app, user_name
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, sync_type

if TYPE_CHECKING:
    from archisync.store.database import Database
    from archisync.store.settings import Pause

_NOTED = 10
"""Pauses that are named after a `resume`: thousands of agents may be paused one by one."""
UntilOption = Annotated[
    str | None, typer.Option("--until", help="A span like 2h, or an ISO time (UTC unless it says).")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Shown by why and status.")]


def scope(type_name: str | None, agent: str | None) -> str:
    """The words for what is paused."""
    if type_name is not None and agent is not None:
        return f"{type_name} of {agent}"
    if type_name is not None:
        return f"the type {type_name}"
    return "everything" if agent is None else f"the agent {agent}"


def pause(
    ctx: typer.Context,
    type_name: TypeOption = None,
    agent: AgentOption = None,
    until: UntilOption = None,
    reason: ReasonOption = None,
) -> None:
    """Pause everything, a type, an agent or one pair; forced runs still work.

    Example: archisync pause --agent anna.bianchi --until 2h --reason "ERP maintenance"
    """
    apply_pause(app(ctx), type_name, agent, until, reason)


def apply_pause(a: App, type_name: str | None, agent: str | None, until: str | None, reason: str | None) -> None:
    from archisync.base.text import iso
    from archisync.cli.times import parse_moment
    from archisync.store import clock, settings

    with a.database("pause") as db:
        _check_scope(db, type_name, agent)
        now = clock.now(db)
        end = parse_moment(until, now, sign=1) if until is not None else None
        if end is not None and end <= now:
            raise UsageError(f"--until {iso(end)} is in the past", hint=f"it is {iso(now)} now")
        settings.pause(db, sync_type=type_name, agent_id=agent, until=end, reason=reason, by=user_name())
    a.output.line(f"{scope(type_name, agent)}: paused {'until ' + iso(end) if end else 'until somebody resumes'}")


def resume(ctx: typer.Context, type_name: TypeOption = None, agent: AgentOption = None) -> None:
    """Lift the pause of exactly that scope.

    Example: archisync resume --agent anna.bianchi
    """
    apply_resume(app(ctx), type_name, agent)


def apply_resume(a: App, type_name: str | None, agent: str | None) -> None:
    from archisync.store import settings

    with a.database("resume") as db:
        lifted = settings.resume(db, sync_type=type_name, agent_id=agent)
        if not lifted:  # a slip of the keyboard; the agent of a pause may be gone
            _check_scope(db, type_name, agent)
        others = [p for p in settings.pauses(db) if _concerns(p, type_name, agent)]
    a.output.line(f"{scope(type_name, agent)}: {'resumed' if lifted else 'was not paused'}")
    for other in others[:_NOTED]:
        a.output.say(f"note: {scope(other.sync_type, other.agent_id)} is still paused")
    if len(others) > _NOTED:
        a.output.say(f"note: and {len(others) - _NOTED} more (archisync status)")


def _check_scope(db: Database, type_name: str | None, agent: str | None) -> None:
    """Raises UsageError, for a type of no such name and a pair that can't be; NotFoundError."""
    from archisync.store import agents

    kind = sync_type(type_name) if type_name is not None else None
    if agent is not None and agent != SHARED_AGENT:
        agents.agent(db, agent)
    if kind is not None and agent is not None and not _possible(kind.name, agent):
        whose = "shared by all agents" if kind.scope is Scope.SHARED else f"not a type of {SHARED_AGENT}"
        raise UsageError(f"{kind.name} is {whose}", hint=f"leave out --agent, for all of {kind.name}")


def _possible(type_name: str, agent: str) -> bool:
    return (SYNC_TYPES[type_name].scope is Scope.SHARED) == (agent == SHARED_AGENT)


def _concerns(other: Pause, type_name: str | None, agent: str | None) -> bool:
    """Whether the pause holds for anything in that scope."""
    types = {type_name, other.sync_type} - {None}
    ids = {agent, other.agent_id} - {None}
    if len(types) > 1 or len(ids) > 1:
        return False
    return not (types and ids) or _possible(str(*types), str(*ids))
