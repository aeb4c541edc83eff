"""`archisync retry` and `rest`: pairs whose last runs failed are tried again at once, or no longer rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.errors import UsageError
from archisync.base.text import counted, iso
from archisync.cli.arguments import AgentOption, Columns, DryRun, Json, OptionalType, Reason
from archisync.cli.context import App, actor, app
from archisync.cli.groups import command_group

if TYPE_CHECKING:
    from archisync.store.interventions import Failing

commands = command_group("Pairs that rest after failures.")


def retry(
    ctx: typer.Context,
    type_name: OptionalType = None,
    agent: AgentOption = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every pair whose last run failed.")] = False,
    dry_run: DryRun = False,
    reason: Reason = None,
) -> None:
    """Run again now what failed last, and end its rest. Name a type, an agent, both, or --failed for everything.

    Example: archisync retry orders --agent anna.bianchi

    Example, when the ERP is back: archisync retry --failed
    """
    from archisync.actions import runs
    from archisync.schedule import deliver

    a = app(ctx)
    _check_selection(type_name, agent, everything=failed, flag="--failed", command="retry")
    if not dry_run:
        _ = a.config.redis_url  # report a missing setting before anything is queued
    with a.database("retry") as db:
        found = runs.find_failing(db, type_name, agent, resting=False)
        if dry_run or not found:
            _list(a, found, "would be tried again", "nothing to retry: no last run of these failed", dry_run=dry_run)
            return
        forced = runs.retry(db, actor(), found, why=reason)
        for one in forced:
            a.output.line(f"{one}")
        deliver.deliver_now(db, a.config)


@commands.command("list")
def list_(ctx: typer.Context, columns: Columns = None, json: Json = False) -> None:
    """Show the pairs that rest after failures, and until when.

    Example: archisync rest list
    """
    from archisync.cli.output import Ago
    from archisync.store import clock, interventions

    a = app(ctx)
    with a.database("rest list") as db:
        found, now = interventions.resting(db), clock.now(db)
    if json:
        a.output.json(resting=found)
        return
    rows = [[p.sync_type, p.agent_id, p.consecutive_failures, Ago(p.backoff_until, now)] for p in found]
    a.output.table(["type", "agent", "failures", "rests until"], rows, empty="nothing rests", columns=columns)


@commands.command()
def end(
    ctx: typer.Context,
    type_name: OptionalType = None,
    agent: AgentOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every pair that rests.")] = False,
    dry_run: DryRun = False,
    reason: Reason = None,
) -> None:
    """End the rest of pairs after failures. Each runs when its next slot comes; `archisync retry` runs them at once.

    Example: archisync rest end orders --agent anna.bianchi
    """
    from archisync.actions import runs

    a = app(ctx)
    _check_selection(type_name, agent, everything=everything, flag="--all", command="rest end")
    with a.database("rest end") as db:
        found = runs.find_failing(db, type_name, agent, resting=True)
        if not dry_run and found:
            found = runs.end_rests(db, actor(), found, why=reason)
    _list(a, found, "would no longer rest" if dry_run else "no longer rests", "none of these rests", dry_run=dry_run)


def _check_selection(type_name: str | None, agent: str | None, *, everything: bool, flag: str, command: str) -> None:
    if everything == (type_name is not None or agent is not None):
        raise UsageError("which pairs?", hint=f"archisync {command} TYPE, --agent ID, both, or {flag} for everything")


def _list(a: App, found: list[Failing], what: str, empty: str, *, dry_run: bool) -> None:
    for pair in found:
        until = f" (until {iso(pair.backoff_until)})" if pair.backoff_until else ""
        failed = counted(pair.consecutive_failures, "failure")
        a.output.line(f"{pair.sync_type} of {pair.agent_id}: {what} after {failed}{until}")
    if not found:
        a.output.say(empty)
    elif dry_run:
        a.output.say(f"{counted(len(found), 'pair')}; nothing was done (dry run)")
