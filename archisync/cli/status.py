"""`archisync status`: whether everything is fresh, and if not, why."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.base.errors import ExitCode, UsageError
from archisync.base.text import with_hint
from archisync.cli.arguments import Columns, Json, finite
from archisync.cli.context import App, app
from archisync.cli.output import Ago, Output
from archisync.observe.snapshot import PAIRS_NAMED, Snapshot, read_snapshot

if TYPE_CHECKING:
    from datetime import datetime

    from archisync.store.health import TypeHealth

_HEADS = (
    "type", "health", "minutes", "agents", "queued", "running", "stale", "failing", "resting", "held", "last success", "next due",
)  # fmt: skip
_COUNTS = ("pairs", "queued", "running", "stale", "failing", "backing_off", "held")
_LESS_IMPORTANT = ("minutes", "queued", "running", "resting", "agents", "next due", "failing", "held", "stale")
_HELD_NAMED = 1000


def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="A live view; q or Ctrl-C ends it.")] = False,
    every: Annotated[
        float,
        typer.Option(
            "--every",
            metavar="SECONDS",
            min=0.5,
            max=3600,
            callback=finite,
            help="Time between updates (with --watch).",
        ),
    ] = 2.0,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="Exit 1 if anything is stale or fails, or nothing ticks or works; 6 if held."),
    ] = False,
    columns: Columns = None,
    json: Json = False,
) -> None:
    """Show whether each type is fresh, and if not, why. Also shows running syncs, held exports, pauses and the last tick.

    Example: archisync status

    Example, in a script: archisync status --exit-code

    Example, on a screen on the wall: archisync status --watch
    """
    a = app(ctx)
    if watch:
        _watch(a, every, json)
        return
    with a.database("status") as db:
        found = read_snapshot(db, held_limit=_HELD_NAMED, pairs_limit=PAIRS_NAMED + 1, config=a.config)
    if json:
        a.output.json(**found.document())
    else:
        a.output.table(_HEADS, [_row(h, found.now) for h in found.types], less=_LESS_IMPORTANT, columns=columns)
        for line in _lines(found, a.output):
            a.output.line(line)
    if exit_code:
        raise typer.Exit(found.exit_code)


def _row(h: TypeHealth, now: datetime) -> list[Any]:
    next_due = Ago(h.next_due_at, now) if h.next_due_at else None
    return [h.sync_type, h.word, h.interval_minutes, *map(h.shown, _COUNTS), Ago(h.newest_success_at, now), next_due]


def _lines(found: Snapshot, output: Output) -> Iterator[str]:
    """The lines below the table."""
    tick = found.last_tick
    if found.tick_note:
        yield f"warning: {found.tick_note}"
    elif tick:
        yield f"last tick: {round(tick.age_s)} s ago on {tick.host}{': ' + tick.error if tick.error else ''}"
    if found.worker_note:
        yield f"warning: {found.worker_note}"
    for run in found.running:
        yield f"running: {run.sync_type} of {run.agent_id} on {run.worker} (run {run.run_id})"
    for h in found.held:
        yield f"held: {h.sync_type} of {h.agent_id}: {with_hint(h.message, h.hint)} (archisync held show {h.run_id})"
    yield from _unhealthy_lines(found, output)
    for w in found.warned[:PAIRS_NAMED]:
        yield f"warned: {w.sync_type} of {w.agent_id}: {'; '.join(w.messages)} (archisync show {w.run_id})"
    if len(found.warned) > PAIRS_NAMED:
        yield "… and more: archisync history"
    from archisync.actions.settings import scope_in_words

    for p in found.pauses:
        yield f"paused: {scope_in_words(p.sync_type, p.agent_id)}{': ' + p.reason if p.reason else ''}"


def _unhealthy_lines(found: Snapshot, output: Output) -> Iterator[str]:
    # Without ticks every pair becomes stale, and the warning has said so: then only pairs that rest are named.
    pairs = [pair for pair in found.unhealthy if pair.backoff_until or not found.tick_note]
    for pair in pairs[:PAIRS_NAMED]:
        sentence = pair.describe(lambda moment: output.moment(moment, found.now))
        ends = f"; to end the rest: archisync retry {pair.sync_type} --agent {shlex.quote(pair.agent_id)}"
        more = ends if pair.backoff_until else ""
        yield f"{sentence} (archisync why {pair.sync_type} {shlex.quote(pair.agent_id)}{more})"
    if len(pairs) > PAIRS_NAMED:
        yield "… and more: archisync rest list, archisync history --state failed"


def _watch(a: App, every_s: float, json: bool) -> None:
    if json:
        raise UsageError("--watch and --json exclude each other", hint="watch -n 5 archisync status --json")
    if not (a.output.terminal and sys.stdin.isatty()):
        raise UsageError("--watch needs a terminal", hint="archisync status   (or archisync metrics --serve 9464)")
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        raise UsageError(
            "--watch needs a terminal that can move its cursor (TERM)",
            hint="archisync status   (or set TERM, to xterm for example)",
        )
    from archisync.cli.liveview import watch

    if watch(a.config, every_s=every_s, colour=a.output.colour):
        raise typer.Exit(ExitCode.INTERRUPTED)
