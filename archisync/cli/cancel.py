"""`archisync cancel`: ends runs that are not over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.errors import UsageError
from archisync.base.text import counted
from archisync.cli import completion
from archisync.cli.arguments import AgentOption, DryRun, Reason, TypeOption
from archisync.cli.context import App, actor, app

if TYPE_CHECKING:
    from archisync.store.interventions import Unfinished


def cancel(
    ctx: typer.Context,
    run_ids: Annotated[
        list[int] | None, typer.Argument(metavar="[RUN]...", help="Runs.", autocompletion=completion.run_ids)
    ] = None,
    type_name: TypeOption = None,
    agent: AgentOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All runs that are not over.")] = False,
    dry_run: DryRun = False,
    reason: Reason = None,
) -> None:
    """End runs that wait or are being done. A worker that does one writes nothing; the next slot of the pair comes as usual.

    Example: archisync cancel 42

    Example, everything that one agent has in the queue: archisync cancel --agent anna.bianchi --dry-run
    """
    from archisync.actions import runs

    a = app(ctx)
    ids = list(dict.fromkeys(run_ids or []))
    selects = type_name is not None or agent is not None
    if [bool(ids), selects, everything].count(True) != 1:
        raise UsageError("which runs?", hint="archisync cancel RUN   (or --type TYPE, --agent ID, or --all)")
    with a.database("cancel") as db:
        found = runs.find_unfinished(db, ids, type_name, agent)
        if not dry_run and found:
            found = runs.cancel(db, actor(), [run.run_id for run in found], why=reason)
    _tell(a, found, dry_run=dry_run)


def _tell(a: App, found: list[Unfinished], *, dry_run: bool) -> None:
    what = "would be cancelled" if dry_run else "cancelled"
    for run in found:
        doing = (
            f"; {run.worker} is doing it, and {'would write' if dry_run else 'writes'} nothing" if run.worker else ""
        )
        a.output.line(f"run {run.run_id}: {run.sync_type} of {run.agent_id} {what}{doing}")
    if not found:
        a.output.say("nothing waits, and nothing is being done")
    elif dry_run:
        a.output.say(f"{counted(len(found), 'run')}; nothing was done (dry run)")
