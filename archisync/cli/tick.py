"""`archisync tick`, the command; `quicktick` does the work."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.base.text import counted
from archisync.cli.arguments import Json
from archisync.cli.context import App, app


def tick(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print each decision with its reason; write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Queue every sync that is due. Run it each minute; ticks may overlap.

    Example, in a crontab: * * * * * archisync tick
    """
    a = app(ctx)
    if dry_run:
        _ = a.config.redis_url  # report a missing setting, as without --dry-run
        _dry_run(a, json)
        return
    from archisync.cli.quicktick import run_tick

    code = run_tick(a.output, a.config, json=json)
    if code:
        raise typer.Exit(code)


def _dry_run(a: App, json: bool) -> None:
    """Lines are printed one by one, whatever the number of pairs; --json collects them."""
    from archisync.observe import documents
    from archisync.schedule.dryrun import decisions

    with a.database("tick --dry-run") as db:
        found = (
            {"agent_id": state.agent_id, **documents.decision(state.sync_type, decision)}
            for state, decision in decisions(db)
        )
        if json:
            a.output.json(decisions=list(found))
            return
        due = total = 0
        for d in found:
            total += 1
            due += d["reason"] == "due"
            a.output.line(f"{d['reason']:<14} {d['sync_type']:<10} {d['agent_id']:<24} {d['message']}")
    a.output.say(f"due: {due} of {counted(total, 'pair')}; nothing was written (dry run)")
