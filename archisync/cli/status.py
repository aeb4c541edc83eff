"""`archisync status`: is everything fresh, and if not, what stands in the way."""

from __future__ import annotations

from typing import Any

import typer

from archisync.cli.context import Json, app
from archisync.cli.pause import scope


def status(ctx: typer.Context, json: Json = False) -> None:
    """Show the health of each type, running syncs, held exports, pauses and the last tick.

    Example: archisync status
    """
    from archisync.output import Ago
    from archisync.store import held, pairs, runs, settings, ticks

    a = app(ctx)
    with a.database("status") as db:
        now, health, beat = ticks.clock(db), pairs.health(db), ticks.last(db)
        running, waiting, pauses = runs.running(db), held.held_exports(db), settings.pauses(db)
        note = ticks.overdue_note(beat)
    if json:
        types = [{name: getattr(h, name) for name in (*h.__dataclass_fields__, "word")} for h in health]
        a.output.json(
            now=now, types=types, last_tick=beat, tick_note=note, running=running, held=waiting, pauses=pauses
        )
        return
    rows: list[list[Any]] = [
        [
            h.sync_type, h.word, h.interval_minutes, h.pairs, h.queued, h.running, h.stale, h.failing, h.backing_off,
            h.held, Ago(h.newest_success_at, now), Ago(h.next_due_at, now) if h.next_due_at else None,
        ]
        for h in health
    ]  # fmt: skip
    heads = ["type", "health", "minutes", "agents", "queued", "running", "stale", "failing", "resting", "held"]
    a.output.table([*heads, "last success", "next due"], rows)
    if beat is not None and note is None:
        a.output.line(f"last tick: {round(beat.age_s)} s ago on {beat.host}{': ' + beat.error if beat.error else ''}")
    if note:
        a.output.line(f"warning: {note}")
    for run in running:
        a.output.line(f"running: {run.sync_type} of {run.agent_id} on {run.worker} (run {run.run_id})")
    for h in waiting:
        a.output.line(f"held: {h.sync_type} of {h.agent_id}: {h.message} (archisync held show {h.run_id})")
    for p in pauses:
        a.output.line(f"paused: {scope(p.sync_type, p.agent_id)}{': ' + p.reason if p.reason else ''}")
