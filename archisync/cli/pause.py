"""`archisync pause` and `resume`: stop scheduling everything, a type, an agent, or one type of one agent for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.errors import UsageError
from archisync.cli.arguments import AgentOption, TypeOption, parse_moment
from archisync.cli.context import App, actor, app, confirm
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, sync_type

if TYPE_CHECKING:
    from archisync.store.database import Database
    from archisync.store.settings import Pause

PAUSES_NAMED = 10
"""Pauses that `resume` names at most: thousands of agents may be paused one by one."""
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="A span like 2h, or an ISO time (UTC unless it names a zone)."),
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Shown by why and status.")]


def scope(type_name: str | None, agent: str | None) -> str:
    """What is paused, in words: everything, the type orders, the agent anna, orders of anna."""
    if type_name is not None and agent is not None:
        return f"{type_name} of {agent}"
    if type_name is not None:
        return f"the type {type_name}"
    return "everything" if agent is None else f"the agent {agent}"


def pause(
    ctx: typer.Context,
    type_name: TypeOption = None,
    agent: AgentOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything, without asking.")] = False,
    until: UntilOption = None,
    reason: ReasonOption = None,
) -> None:
    """Pause a type, an agent, both, or everything with --all. `archisync run` still works.

    Example: archisync pause --agent anna.bianchi --until 2h --reason "ERP maintenance"
    """
    a = app(ctx)
    named = type_name is not None or agent is not None
    if named and everything:
        raise UsageError("--all goes without --type and --agent", hint="archisync pause --all")
    if not named and not everything:
        confirm(
            a,
            "pause every type of every agent?",
            refusal="that would pause every type of every agent",
            hint="archisync pause --all   (or --type TYPE, --agent ID)",
        )
    pause_scope(a, type_name, agent, until, reason)


def pause_scope(a: App, type_name: str | None, agent: str | None, until: str | None, reason: str | None) -> None:
    """Pause the given type, agent or both, and say so. Raises UsageError, NotFoundError."""
    from archisync.actions import settings
    from archisync.base.text import iso
    from archisync.store import clock

    with a.database("pause") as db:
        _check_scope(db, type_name, agent)
        now = clock.now(db)
        end = parse_moment(until, now, sign=1) if until is not None else None
        if end is not None and end <= now:
            raise UsageError(f"--until {iso(end)} is in the past", hint=f"it is {iso(now)} now")
        settings.pause(db, actor(), sync_type=type_name, agent_id=agent, until=end, why=reason)
    a.output.line(f"{scope(type_name, agent)}: paused {'until ' + iso(end) if end else 'until somebody resumes'}")


def resume(
    ctx: typer.Context,
    type_name: TypeOption = None,
    agent: AgentOption = None,
    everything: Annotated[bool, typer.Option("--all", help="The pause of everything; so does no option.")] = False,
) -> None:
    """End a pause. Name the same type and agent as for `archisync pause`, or --all.

    Example: archisync resume --agent anna.bianchi
    """
    if everything and (type_name is not None or agent is not None):
        raise UsageError("--all goes without --type and --agent", hint="archisync resume --all")
    resume_scope(app(ctx), type_name, agent)


def resume_scope(a: App, type_name: str | None, agent: str | None) -> None:
    """End the pause of exactly this type, agent or both, and name the pauses that still apply to it."""
    from archisync.actions import settings as actions
    from archisync.store import settings

    with a.database("resume") as db:
        resumed = actions.resume(db, actor(), sync_type=type_name, agent_id=agent)
        if not resumed:  # only now: a paused agent may have left the registry
            _check_scope(db, type_name, agent)
        others = [p for p in settings.pauses(db) if _applies(p, type_name, agent)]
    a.output.line(f"{scope(type_name, agent)}: {'resumed' if resumed else 'was not paused'}")
    for other in others[:PAUSES_NAMED]:
        a.output.say(f"note: {scope(other.sync_type, other.agent_id)} is still paused")
    if len(others) > PAUSES_NAMED:
        a.output.say(f"note: and {len(others) - PAUSES_NAMED} more (archisync status)")


def _check_scope(db: Database, type_name: str | None, agent: str | None) -> None:
    """Raise UsageError for an unknown type or an impossible pair, NotFoundError for an unknown agent."""
    from archisync.store import agents

    type_ = sync_type(type_name) if type_name is not None else None
    if agent is not None and agent != SHARED_AGENT:
        agents.agent(db, agent)
    if type_ is not None and agent is not None and not _is_pair(type_.name, agent):
        whose = "shared by all agents" if type_.scope is Scope.SHARED else f"not a type of {SHARED_AGENT}"
        raise UsageError(f"{type_.name} is {whose}", hint=f"leave out --agent, for all of {type_.name}")


def _is_pair(type_name: str, agent: str) -> bool:
    return (SYNC_TYPES[type_name].scope is Scope.SHARED) == (agent == SHARED_AGENT)


def _applies(pause: Pause, type_name: str | None, agent: str | None) -> bool:
    """Whether the pause stops any pair of the type, the agent or both."""
    types = {type_name, pause.sync_type} - {None}
    ids = {agent, pause.agent_id} - {None}
    if len(types) > 1 or len(ids) > 1:
        return False
    return not (types and ids) or _is_pair(str(*types), str(*ids))
