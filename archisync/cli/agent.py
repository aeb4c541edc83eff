"""`archisync agent`: the registry of agents, and who of them is synced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.base.text import counted
from archisync.cli import completion
from archisync.cli.arguments import Columns, DryRun, Json, Reason
from archisync.cli.context import App, actor, app, confirm
from archisync.cli.groups import command_group
from archisync.cli.pause import ReasonOption, UntilOption, pause_scopes, resume_scopes, scopes
from archisync.rules.synctypes import SYNC_TYPES, Scope

if TYPE_CHECKING:
    from archisync.store.database import Database

NAMED = 5
"""Agents that a question names."""
commands = command_group("The registry of agents.")
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of agents.", autocompletion=completion.agent_ids)]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the agent.", autocompletion=completion.agent_ids)]


@commands.command("list")
def list_(ctx: typer.Context, columns: Columns = None, json: Json = False) -> None:
    """Show all agents.

    Example: archisync agent list
    """
    from archisync.cli.output import Ago
    from archisync.store import agents, clock

    a = app(ctx)
    with a.database("agent list") as db:
        found, now = agents.agents(db), clock.now(db)
    if json:
        a.output.json(agents=found)
        return
    rows = [[g.agent_id, g.name, g.whitelisted, g.paused, Ago(g.oldest_success_at, now)] for g in found]
    heads = ["agent", "name", "whitelisted", "paused", "all fresh since"]
    less = ["name", "paused", "all fresh since"]
    a.output.table(heads, rows, empty="no agents yet", less=less, folds="name", columns=columns)


@commands.command()
def show(ctx: typer.Context, agent_id: Id, json: Json = False) -> None:
    """Show one agent, and whether each of its types is due.

    Example: archisync agent show anna.bianchi
    """
    from archisync.cli.output import Ago
    from archisync.observe import documents
    from archisync.store import clock

    a = app(ctx)
    with a.database("agent show") as db:
        document, now = documents.agent(db, agent_id), clock.now(db)
    if json:
        a.output.json(**document)
        return
    found = document["agent"]
    rows: list[list[Any]] = [list(decision.values()) for decision in document["types"]]
    a.output.fields(
        {"agent": found.agent_id, "name": found.name, "whitelisted": found.whitelisted, "paused": found.paused}
    )
    a.output.line()
    if a.output.terminal:
        rows = [[name, word, Ago(at, now) if at else None, sentence] for name, word, at, sentence in rows]
    a.output.table(["type", "decision", "next", "because"], rows, less=["next", "decision"], folds="because")


@commands.command()
def add(
    ctx: typer.Context,
    agent_ids: Ids,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The full name; with one ID only.")] = None,
    allow: Annotated[bool, typer.Option("--allow", help="Also put them on the whitelist.")] = False,
) -> None:
    """Register agents.

    Example: archisync agent add anna.bianchi --name "Anna Bianchi" --allow
    """
    from archisync.actions import agents

    a = app(ctx)
    with a.database("agent add") as db:
        added = agents.add(db, actor(), agent_ids, name=name, whitelisted=allow)
    for agent_id, is_new in added.items():
        state = "on the whitelist" if allow else "not on the whitelist" if is_new else "left as it is"
        a.output.line(f"{agent_id}: {'added' if is_new else 'already registered'}, {state}")


@commands.command()
def allow(ctx: typer.Context, agent_ids: Ids, dry_run: DryRun = False, reason: Reason = None) -> None:
    """Put agents on the whitelist. The next tick schedules them.

    Example: archisync agent allow anna.bianchi
    """
    _set_whitelisted(app(ctx), agent_ids, True, why=reason, dry_run=dry_run)


@commands.command()
def deny(ctx: typer.Context, agent_ids: Ids, dry_run: DryRun = False, reason: Reason = None) -> None:
    """Take agents off the whitelist. Their queued runs end as skipped, their data stays.

    Example: archisync agent deny anna.bianchi
    """
    _set_whitelisted(app(ctx), agent_ids, False, why=reason, dry_run=dry_run)


def _set_whitelisted(a: App, agent_ids: list[str], whitelisted: bool, *, why: str | None, dry_run: bool) -> None:
    from archisync.actions.agents import set_whitelisted
    from archisync.store import agents

    with a.database("agent allow" if whitelisted else "agent deny") as db:
        if dry_run:
            for agent_id in agent_ids:
                agents.agent(db, agent_id)
        else:
            set_whitelisted(db, actor(), agent_ids, whitelisted, why=why)
    for agent_id in agent_ids:
        a.output.line(f"{agent_id}: {'would be ' if dry_run else ''}{'on' if whitelisted else 'off'} the whitelist")
    if dry_run:
        a.output.say("nothing was done (dry run)")


@commands.command()
def remove(
    ctx: typer.Context,
    agent_ids: Ids,
    with_data: Annotated[bool, typer.Option("--with-data", help="Also delete their copied rows.")] = False,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    reason: Reason = None,
) -> None:
    """Take agents out of the registry. Their runs end, their history stays; their copied rows stay without --with-data.

    Example: archisync agent remove anna.bianchi --with-data --dry-run
    """
    from archisync.actions.agents import remove
    from archisync.store import agents

    a = app(ctx)
    with a.database("agent remove", answer_timeout_s=a.config.run_timeout_s) as db:
        chosen = [agents.agent(db, agent_id).agent_id for agent_id in dict.fromkeys(agent_ids)]
        rows = {i: _rows_of(db, i) if with_data else 0 for i in chosen} if dry_run or not yes else {}
        data = f" with {counted(sum(rows.values()), 'row')}" if with_data else ""
        if dry_run:
            for agent_id, number in rows.items():
                a.output.line(f"{agent_id}: would be removed{_with_rows(number, with_data)}")
            a.output.say("nothing was done (dry run)")
            return
        if not yes:
            who = ", ".join(chosen) if len(chosen) <= NAMED else counted(len(chosen), "agent")
            confirm(a, f"remove {who}{data}?", refusal=f"{who}{data} would be removed", hint="add --yes to remove")
        deleted = remove(db, actor(), chosen, with_data=with_data, why=reason)
    for agent_id, number in deleted.items():
        a.output.line(f"{agent_id}: removed{_with_rows(number, with_data)}")


def _with_rows(number: int, with_data: bool) -> str:
    return f", {counted(number, 'row')} deleted" if with_data else ""


def _rows_of(db: Database, agent_id: str) -> int:
    from archisync.sync.clear import count_rows

    return sum(count_rows(db, t, agent_id) for t in SYNC_TYPES.values() if t.scope is Scope.AGENT)


@commands.command("pause")
def pause_(
    ctx: typer.Context,
    agent_ids: Ids,
    until: UntilOption = None,
    dry_run: DryRun = False,
    reason: ReasonOption = None,
) -> None:
    """Pause agents.

    Example: archisync agent pause anna.bianchi --until 1d
    """
    pause_scopes(app(ctx), scopes(None, agent_ids), until=until, reason=reason, dry_run=dry_run)


@commands.command("resume")
def resume_(ctx: typer.Context, agent_ids: Ids, dry_run: DryRun = False) -> None:
    """End the pause of agents.

    Example: archisync agent resume anna.bianchi
    """
    resume_scopes(app(ctx), scopes(None, agent_ids), dry_run=dry_run)
