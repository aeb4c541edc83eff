"""`archisync tick`: what cron calls each minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.cli.context import App, Json, app
from archisync.errors import UnreachableError

if TYPE_CHECKING:
    from archisync.tick import Summary


def tick(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print each decision with its reason; write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Decide what is due and enqueue it. Call it each minute; ticks may overlap.

    Example, in a crontab: * * * * * archisync tick
    """
    a = app(ctx)
    _ = a.config.redis_url  # a missing variable is told now, not by the first tick that has something to deliver
    if dry_run:
        _dry_run(a, json)
        return
    from archisync.tick import DEADLINE_S
    from archisync.tick import tick as run_tick
    from archisync.watchdog import ends_within

    late = UnreachableError(
        f"the tick did not end within {DEADLINE_S:g} s and was stopped: PostgreSQL or Redis answers too slowly",
        hint="archisync status; the next tick goes on with what is left",
    )
    with ends_within(DEADLINE_S, late), a.database("tick") as db:
        summary = run_tick(db, a.config)
    if json:
        a.output.json(tick=_as_json(summary))
    else:
        a.output.line(summary.line())
    if summary.error is not None:
        a.output.error(summary.error)
        raise typer.Exit(summary.error.exit_code)


def _as_json(summary: Summary) -> dict[str, object]:
    return {
        "reaped": summary.reaped,
        "due": summary.due,
        "enqueued": summary.enqueued,
        "redelivered": summary.redelivered,
        "skipped": summary.skipped,
        "pruned": summary.pruned,
        "duration_ms": summary.duration_ms,
        "error": summary.error.message if summary.error else None,
    }


def _dry_run(a: App, json: bool) -> None:
    """Streams in a pipe, whatever the number of pairs; --json collects."""
    from archisync.tick import dry_run

    with a.database("tick --dry-run") as db:
        decisions = (
            {
                "sync_type": facts.sync_type,
                "agent_id": facts.agent_id,
                "reason": decision.reason.value,
                "message": decision.sentence,
                "next_at": decision.next_at,
            }
            for facts, decision in dry_run(db)
        )
        if json:
            a.output.json(decisions=list(decisions))
            return
        due = total = 0
        for d in decisions:
            total += 1
            due += d["reason"] == "due"
            a.output.line(f"{d['reason']:<14} {d['sync_type']:<10} {d['agent_id']:<24} {d['message']}")
    a.output.say(f"{due} of {total} pairs are due; nothing was written (dry run)")
