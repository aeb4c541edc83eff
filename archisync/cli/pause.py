"""`archisync pause` and `resume`: let everything, a type, an agent or one pair stand still for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.cli.arguments import AgentOption, TypeOption
from archisync.cli.context import App, app, user_name
from archisync.errors import UsageError
from archisync.synctypes import SHARED_AGENT, sync_type

if TYPE_CHECKING:
    from archisync.database import Database

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
    from archisync.cli.times import parse_moment
    from archisync.output import iso
    from archisync.store import settings, ticks

    with a.database("pause") as db:
        _check_scope(db, type_name, agent)
        now = ticks.clock(db)
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
        if type_name is not None:
            sync_type(type_name)
        lifted = settings.resume(db, sync_type=type_name, agent_id=agent)
        others = settings.pauses(db)
    a.output.line(f"{scope(type_name, agent)}: {'resumed' if lifted else 'was not paused'}")
    for other in others:
        a.output.say(f"note: {scope(other.sync_type, other.agent_id)} is still paused")


def _check_scope(db: Database, type_name: str | None, agent: str | None) -> None:
    from archisync.store import agents

    if type_name is not None:
        sync_type(type_name)
    if agent is not None and agent != SHARED_AGENT:
        agents.agent(db, agent)
