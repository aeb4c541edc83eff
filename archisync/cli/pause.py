"""`archisync pause` and `resume`: stop scheduling everything, a type, an agent, or one type of one agent for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.base.errors import UsageError
from archisync.cli.arguments import AgentOption, TypeOption
from archisync.cli.context import App, actor, app, confirm
from archisync.rules.times import parse_moment

PAUSES_NAMED = 10
"""Pauses that `resume` names at most: thousands of agents may be paused one by one."""
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="A span like 2h, or an ISO time (UTC unless it names a zone)."),
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Shown by why and status.")]


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
        end = parse_moment(until, clock.now(db), sign=1) if until is not None else None
        settings.pause(db, actor(), sync_type=type_name, agent_id=agent, until=end, why=reason)
    a.output.line(
        f"{settings.scope_in_words(type_name, agent)}: paused {'until ' + iso(end) if end else 'until somebody resumes'}"
    )


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
    from archisync.actions import settings

    with a.database("resume") as db:
        resumed = settings.resume(db, actor(), sync_type=type_name, agent_id=agent)
        others = settings.pauses_upon(db, type_name, agent)
    a.output.line(f"{settings.scope_in_words(type_name, agent)}: {'resumed' if resumed else 'was not paused'}")
    for other in others[:PAUSES_NAMED]:
        a.output.say(f"note: {settings.scope_in_words(other.sync_type, other.agent_id)} is still paused")
    if len(others) > PAUSES_NAMED:
        a.output.say(f"note: and {len(others) - PAUSES_NAMED} more (archisync status)")
