"""`archisync diff` and `archisync clear`: what a sync would do to the data, and how to begin again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.errors import BusyError, ExitCode, UsageError
from archisync.cli import complete
from archisync.cli.arguments import TypeArgument
from archisync.cli.context import Json, app
from archisync.cli.held import planned, show_outlook
from archisync.cli.history import show_warnings
from archisync.rules.synctypes import SHARED_AGENT, Scope, SyncType, sync_type

if TYPE_CHECKING:
    from archisync.store.database import Database

AgentOption = Annotated[
    str | None,
    typer.Option("--agent", "-a", help="The agent; not for products and prices.", autocompletion=complete.agent_ids),
]


def diff(ctx: typer.Context, type_name: TypeArgument, agent: AgentOption = None, json: Json = False) -> None:
    """Show what a sync would do now: fetches and judges the export as a run would, and writes nothing.

    Exit code 6 when the export would be held.

    Example: archisync diff customers --agent anna.bianchi
    """
    from dataclasses import asdict

    from archisync.store.database import require_direct
    from archisync.store.locks import agent_lock
    from archisync.sync.preview import preview

    a = app(ctx)
    kind = sync_type(type_name)
    agent_id = _agent_of(kind, agent)
    _ = a.config.source(kind)
    with a.database("diff", answer_timeout_s=a.config.run_timeout_s) as db:
        require_direct(db)
        _require_known(db, kind, agent_id)
        with agent_lock(db, agent_id) as locked:
            if not locked:
                raise BusyError(f"a run of {agent_id} is in progress", hint="archisync status; then try again")
            a.output.say(f"fetching {kind.name} of {agent_id} …")
            found = preview(db, a.config, kind, agent_id)
    outlook = found.outlook
    if json:
        a.output.json(
            sync_type=kind.name,
            agent_id=agent_id,
            origin=found.origin,
            seen=found.seen,
            quarantined=found.quarantined,
            plan=asdict(outlook.plan),
            vanishing=outlook.vanishing,
            changes=outlook.changes,
            warnings=found.warnings,
            would_be_held=asdict(found.hold) if found.hold else None,
        )
    else:
        verdict = f"held ({found.hold.rule}): {found.hold.message}" if found.hold else "applied"
        a.output.fields(
            {
                "export": found.origin,
                "it would be": verdict,
                "rows in the export": found.seen,
                "rows quarantined": found.quarantined,
                "rows known": outlook.plan.known,
                **planned(asdict(outlook.plan)),
            }
        )
        show_outlook(a.output, outlook.vanishing, outlook.changes)
        show_warnings(a.output, found.warnings)
    if found.hold:
        raise typer.Exit(ExitCode.HELD)


def clear(
    ctx: typer.Context,
    type_name: TypeArgument,
    agent: AgentOption = None,
    all_agents: Annotated[bool, typer.Option("--all-agents", help="The rows of every agent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Really delete; without it the rows are only counted.")] = False,
) -> None:
    """Delete the copied rows of one agent (or of all), so that the next sync loads them anew. The ERP is not touched.

    Example: archisync clear customers --agent anna.bianchi --yes
    """
    from archisync.store import applied_exports
    from archisync.sync.clear import count_rows, delete_rows

    a = app(ctx)
    kind = sync_type(type_name)
    if all_agents and (agent is not None or kind.scope is Scope.SHARED):
        raise UsageError(
            "--all-agents goes with a type of agents, and without --agent", hint=f"archisync clear {kind.name}"
        )
    chosen = None if all_agents else _agent_of(kind, agent)
    whose = "all agents" if chosen is None else chosen
    with a.database("clear", answer_timeout_s=a.config.run_timeout_s) as db:
        if chosen is not None:
            _require_known(db, kind, chosen)
        if not yes:
            number = count_rows(db, kind, chosen)
            raise UsageError(
                f"{number} row(s) of {kind.name} of {whose} would be deleted; nothing was done",
                hint="add --yes to delete them (the next sync loads the export again)",
            )
        with db.transaction():
            number = delete_rows(
                db, kind, chosen
            )  # first, as an apply locks them: neither waits for the other in a ring
            applied_exports.forget(db, kind, chosen)
    a.output.line(f"{number} row(s) of {kind.name} of {whose} deleted; the next sync loads the export again")
    a.output.say(
        f"hint: archisync run {kind.name}" + (f" --agent {chosen}" if kind.scope is Scope.AGENT and chosen else "")
    )


def _agent_of(kind: SyncType, agent: str | None) -> str:
    if kind.scope is Scope.SHARED:
        if agent is not None:
            raise UsageError(f"{kind.name} are shared by all agents", hint="leave --agent out")
        return SHARED_AGENT
    if agent is None:
        raise UsageError(f"which agent's {kind.name}?", hint="--agent ID (archisync agent list)")
    return agent


def _require_known(db: Database, kind: SyncType, agent_id: str) -> None:
    """Raise NotFoundError for an agent that was never registered: a typing error, most likely."""
    if kind.scope is Scope.AGENT:
        from archisync.store import agents

        agents.agent(db, agent_id)
