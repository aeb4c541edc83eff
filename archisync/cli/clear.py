"""`archisync clear`: deletes copied rows, so that the next sync loads them again."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.base.errors import UsageError
from archisync.base.text import counted
from archisync.cli.arguments import DataAgentOption, Reason, TypeArgument, data_agent
from archisync.cli.context import actor, app, confirm
from archisync.rules.synctypes import Scope, sync_type


def clear(
    ctx: typer.Context,
    type_name: TypeArgument,
    agent: DataAgentOption = None,
    all_agents: Annotated[bool, typer.Option("--all-agents", help="The rows of every agent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    reason: Reason = None,
) -> None:
    """Delete the copied rows of one agent, or of all. The next sync loads them again; the ERP is not touched.

    Example: archisync clear customers --agent anna.bianchi --yes
    """
    from archisync.actions import exports
    from archisync.store import agents
    from archisync.sync.clear import count_rows

    a = app(ctx)
    type_ = sync_type(type_name)
    if all_agents and (agent is not None or type_.scope is Scope.SHARED):
        raise UsageError(
            "--all-agents goes with a type of agents, and without --agent", hint=f"archisync clear {type_.name}"
        )
    chosen = None if all_agents else data_agent(type_, agent)
    whose = f"{type_.name} of {chosen or 'all agents'}"
    with a.database("clear", answer_timeout_s=a.config.run_timeout_s) as db:
        if not yes:
            if chosen is not None and type_.scope is Scope.AGENT:
                agents.agent(db, chosen)
            number = count_rows(db, type_, chosen)
            confirm(
                a,
                f"delete {counted(number, 'row')} of {whose}?",
                refusal=f"{counted(number, 'row')} of {whose} would be deleted",
                hint="add --yes to delete them (the next sync loads the export again)",
            )
        number = exports.clear(db, actor(), type_, chosen, why=reason)
    a.output.line(f"deleted {counted(number, 'row')} of {whose}; the next sync loads the export again")
    option = f" --agent {chosen}" if chosen and type_.scope is Scope.AGENT else ""
    a.output.say(f"hint: archisync run {type_.name}{option}")
