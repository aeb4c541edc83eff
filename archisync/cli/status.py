"""`archisync status`: is everything fresh, and if not, what stands in the way."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from archisync.base.errors import ExitCode, UsageError
from archisync.cli.arguments import finite
from archisync.cli.context import App, Json, app
from archisync.cli.pause import scope

_LESS_TELLING = ("minutes", "queued", "running", "resting", "agents", "next due", "failing", "held", "stale")
_AILING = 5
"""Pairs that are named: a table of the types must not scroll away above the pairs of a broken ERP."""
_COUNTS = ("pairs", "queued", "running", "stale", "failing", "backing_off", "held")


def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="A live view; q or Ctrl-C ends it.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.5, max=3600, callback=finite, help="Seconds between looks (--watch).")
    ] = 2.0,
    json: Json = False,
) -> None:
    """Show the health of each type, running syncs, held exports, pauses and the last tick.

    Example: archisync status

    Example, on a screen on the wall: archisync status --watch
    """
    from archisync.cli.output import Ago
    from archisync.store import claims, clock, health, held, settings, ticks

    a = app(ctx)
    if watch:
        _watch(a, every, json)
        return
    with a.database("status") as db:
        now, types, beat = clock.now(db), health.type_health(db), ticks.last(db)
        running, waiting, pauses = claims.running(db), held.held_exports(db), settings.pauses(db)
        ailing = health.unhealthy_pairs(db, limit=_AILING + 1)
        note = ticks.overdue_note(beat)
    if json:
        shown = [{name: getattr(h, name) for name in (*h.__dataclass_fields__, "word")} for h in types]
        a.output.json(
            now=now, types=shown, last_tick=beat, tick_note=note, running=running, held=waiting, ailing=ailing[:_AILING],
            pauses=pauses,
        )  # fmt: skip
        return
    rows: list[list[Any]] = [
        [
            h.sync_type, h.word, h.interval_minutes, *map(h.shown, _COUNTS),
            Ago(h.newest_success_at, now), Ago(h.next_due_at, now) if h.next_due_at else None,
        ]
        for h in types
    ]  # fmt: skip
    heads = ["type", "health", "minutes", "agents", "queued", "running", "stale", "failing", "resting", "held"]
    a.output.table([*heads, "last success", "next due"], rows, less=_LESS_TELLING)
    if beat is not None and note is None:
        a.output.line(f"last tick: {round(beat.age_s)} s ago on {beat.host}{': ' + beat.error if beat.error else ''}")
    if note:
        a.output.line(f"warning: {note}")
    for run in running:
        a.output.line(f"running: {run.sync_type} of {run.agent_id} on {run.worker} (run {run.run_id})")
    for h in waiting:
        a.output.line(f"held: {h.sync_type} of {h.agent_id}: {h.message} (archisync held show {h.run_id})")
    if note:
        ailing = [pair for pair in ailing if pair.backoff_until]  # all the rest is stale for that one reason
    for pair in ailing[:_AILING]:
        told = pair.describe(lambda moment: a.output.moment(moment, now))
        a.output.line(f"{told} (archisync why {pair.sync_type} {pair.agent_id})")
    if len(ailing) > _AILING:
        a.output.line("… and more: archisync status --json, archisync history --state failed")
    for p in pauses:
        a.output.line(f"paused: {scope(p.sync_type, p.agent_id)}{': ' + p.reason if p.reason else ''}")


def _watch(a: App, every_s: float, json: bool) -> None:
    import os
    import sys

    if json:
        raise UsageError("--watch and --json exclude each other", hint="watch -n 5 archisync status --json")
    if not (a.output.terminal and sys.stdin.isatty()):
        raise UsageError("--watch needs a terminal", hint="archisync status   (or archisync metrics --serve 9464)")
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        raise UsageError(
            "--watch needs a terminal that can move its cursor (TERM)",
            hint="archisync status   (or set TERM, to xterm for example)",
        )
    from archisync.cli.liveview import watch as run

    if run(a.config, every_s=every_s, colour=a.output.colour):
        raise typer.Exit(ExitCode.INTERRUPTED)
