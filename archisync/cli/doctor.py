"""`archisync doctor`: checks everything that archisync needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archisync.base.envfile import FOLDER_VARIABLE
from archisync.cli.arguments import Json
from archisync.cli.context import app


def doctor(
    ctx: typer.Context,
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this check; may be repeated.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", envvar=FOLDER_VARIABLE, help="Also check the disk of `archisync up --folder`."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for a warning, too.")] = False,
    json: Json = False,
) -> None:
    """Check everything that archisync needs, and say how to fix it. Looks at PostgreSQL, Redis, workers, ticks, agents and sources.

    Exits 4 when a server is out of reach, 3 when a setting or the schema is wrong, 1 for any other failure.

    Example: archisync doctor

    Example, as a probe of a worker: archisync doctor --only worker-here
    """
    from archisync.base.errors import ExitCode
    from archisync.observe.doctor import examine
    from archisync.observe.doctor.findings import Finding, Level, document, exit_code

    a = app(ctx)
    found: list[Finding] = []
    for finding in examine(a.config, only=only or [], folder=folder):
        found.append(finding)
        if not json:
            a.output.line(f"{finding.level:<8} {finding.check:<12} {finding.message}")
            if finding.hint and finding.level is not Level.OK:
                a.output.line(f"{'':<21} hint: {finding.hint}")
    code = exit_code(found)
    if strict and code is ExitCode.DONE and any(f.level is Level.WARNING for f in found):
        code = ExitCode.SYNC_FAILED
    if json:
        a.output.json(**document(found, code))
    raise typer.Exit(code)
