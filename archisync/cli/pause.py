"""`archisync pause` and `resume`: stop scheduling everything, a type, an agent, or one type of one agent for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.base.errors import UsageError
from archisync.cli.arguments import AgentOptions, DryRun, TypeOptions
from archisync.cli.context import App, actor, app, confirm
from archisync.rules.times import parse_moment

PAUSES_NAMED = 10
"""Pauses that `resume` names at most: thousands of agents may be paused one by one."""
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="A span like 2h, or an ISO time (UTC unless it names a zone)."),
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Shown by why and status.")]


Pausable = tuple[str | None, str | None]
"""A type, an agent, both, or everything: what is None stands for all."""


def pause(
    ctx: typer.Context,
    type_names: TypeOptions = None,
    agents: AgentOptions = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything, without asking.")] = False,
    until: UntilOption = None,
    dry_run: DryRun = False,
    reason: ReasonOption = None,
) -> None:
    """Pause types, agents, types of agents, or everything with --all. `archisync run` still works.

    Example: archisync pause --agent anna.bianchi --until 2h --reason "ERP maintenance"
    """
    a = app(ctx)
    named = bool(type_names or agents)
    if named and everything:
        raise UsageError("--all goes without --type and --agent", hint="archisync pause --all")
    if not named and not everything and not dry_run:
        confirm(
            a,
            "pause every type of every agent?",
            refusal="that would pause every type of every agent",
            hint="archisync pause --all   (or --type TYPE, --agent ID)",
        )
    pause_scopes(a, scopes(type_names, agents), until=until, reason=reason, dry_run=dry_run)


def scopes(type_names: list[str] | None, agents: list[str] | None) -> list[Pausable]:
    """Each type with each agent; what is not named is None."""
    types: list[str | None] = [*dict.fromkeys(type_names or [])] or [None]
    ids: list[str | None] = [*dict.fromkeys(agents or [])] or [None]
    return [(name, agent) for name in types for agent in ids]


def pause_scopes(a: App, chosen: list[Pausable], *, until: str | None, reason: str | None, dry_run: bool) -> None:
    """Pause all of these, and say so. Raises UsageError, NotFoundError; then none of them is paused."""
    from archisync.actions import settings
    from archisync.base.text import iso
    from archisync.store import clock

    with a.database("pause") as db, db.transaction(force_rollback=dry_run):
        end = parse_moment(until, clock.now(db), sign=1) if until is not None else None
        for type_name, agent in chosen:
            settings.pause(db, actor(), sync_type=type_name, agent_id=agent, until=end, why=reason)
    what = f"{'would be paused' if dry_run else 'paused'} {'until ' + iso(end) if end else 'until somebody resumes'}"
    for one in chosen:
        a.output.line(f"{settings.scope_in_words(*one)}: {what}")
    if dry_run:
        a.output.say("nothing was done (dry run)")


def resume(
    ctx: typer.Context,
    type_names: TypeOptions = None,
    agents: AgentOptions = None,
    everything: Annotated[bool, typer.Option("--all", help="The pause of everything; so does no option.")] = False,
    dry_run: DryRun = False,
) -> None:
    """End a pause. Name the same types and agents as for `archisync pause`, or --all.

    Example: archisync resume --agent anna.bianchi
    """
    if everything and (type_names or agents):
        raise UsageError("--all goes without --type and --agent", hint="archisync resume --all")
    resume_scopes(app(ctx), scopes(type_names, agents), dry_run=dry_run)


def resume_scopes(a: App, chosen: list[Pausable], *, dry_run: bool) -> None:
    """End the pauses of exactly these, and name those that still apply to them."""
    from archisync.actions import settings

    with a.database("resume") as db, db.transaction(force_rollback=dry_run):
        resumed = {one: settings.resume(db, actor(), sync_type=one[0], agent_id=one[1]) for one in chosen}
        found = [pause for one in chosen for pause in settings.pauses_upon(db, *one)]
    done = "would be resumed" if dry_run else "resumed"
    for one, was_paused in resumed.items():
        a.output.line(f"{settings.scope_in_words(*one)}: {done if was_paused else 'was not paused'}")
    if dry_run:
        a.output.say("nothing was done (dry run)")
    others = list(dict.fromkeys((pause.sync_type, pause.agent_id) for pause in found))
    for other in others[:PAUSES_NAMED]:
        a.output.say(f"note: {settings.scope_in_words(*other)} is still paused")
    if len(others) > PAUSES_NAMED:
        a.output.say(f"note: and {len(others) - PAUSES_NAMED} more (archisync status)")
