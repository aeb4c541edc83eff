"""`archisync report`: an HTML page for people who never see a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archisync.cli.context import App, app

_FILE_MODE = 0o644
_LISTED = 50
_SLOWEST = 10
_BARS = 56


def report(
    ctx: typer.Context,
    html: Annotated[
        Path, typer.Option("--html", help="The file to write, replaced in one step; - for standard output.")
    ],
    days: Annotated[int, typer.Option("--days", min=1, max=90, help="How many days of runs to show.")] = 7,
) -> None:
    """Write one HTML page about the last days. Shows freshness, runs, failures, held exports and the slowest syncs; needs no other file.

    Example: archisync report --html /var/www/archisync.html
    """
    from archisync.base import atomicfile

    a = app(ctx)
    a.output.say("reading the runs …")
    text = _page(a, days)
    if str(html) == "-":
        for line in text.splitlines():
            a.output.line(line)
        return
    atomicfile.replace(html, text, mode=_FILE_MODE)
    a.output.say(f"{html}: {len(text.encode()):,} bytes")


def _page(a: App, days: int) -> str:
    from datetime import timedelta

    from archisync.observe import htmlreport
    from archisync.store import activity, clock, health, held, history, ticks
    from archisync.store.runs import State

    span = timedelta(days=days)
    step = span / _BARS
    with a.database("report") as db:
        now = clock.now(db)
        until = now + timedelta(seconds=1)  # the clock has whole seconds, and the current one counts
        since = until - span
        return htmlreport.page(
            htmlreport.Facts(
                now=now,
                since=since,
                step=step,
                health=health.type_health(db),
                trends=activity.trends(db, limit=htmlreport.TREND_RUNS),
                steps=activity.outcomes(db, since=since, until=until, step=step),
                held=held.held_exports(db, limit=_LISTED),
                failures=history.newest(db, state=State.FAILED, since=since, limit=_LISTED),
                slowest=activity.slowest(db, since=since, limit=_SLOWEST),
                tick_note=ticks.overdue_note(ticks.last(db)),
            )
        )
