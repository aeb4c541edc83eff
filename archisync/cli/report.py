"""`archisync report`: an HTML page for people who never see a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archisync.cli.context import app

_FILE_MODE = 0o644


def report(
    ctx: typer.Context,
    html: Annotated[
        Path, typer.Option("--html", help="The file to write, replaced in one step; - for standard output.")
    ],
    days: Annotated[
        int, typer.Option("--days", metavar="NUMBER", min=1, max=90, help="How many days of runs to show.")
    ] = 7,
) -> None:
    """Write one HTML page about the last days. Shows freshness, runs, failures, held exports and the slowest syncs; needs no other file.

    Example: archisync report --html /var/www/archisync.html
    """
    from archisync.base import atomicfile
    from archisync.observe import htmlreport
    from archisync.observe.report import read

    a = app(ctx)
    a.output.say("reading the runs …")
    with a.database("report") as db:
        text = htmlreport.page(read(db, days=days, config=a.config))
    if str(html) == "-":
        for line in text.splitlines():
            a.output.line(line)
        return
    atomicfile.replace(html, text, mode=_FILE_MODE)
    a.output.say(f"{html}: {len(text.encode()):,} bytes")
