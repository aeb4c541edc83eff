"""`archisync worker`: runs the syncs."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.cli.context import app


def worker(
    ctx: typer.Context,
    processes: Annotated[
        int, typer.Option("--processes", "-n", metavar="NUMBER", min=1, max=256, help="Number of workers on this host.")
    ] = 1,
    burst: Annotated[bool, typer.Option("--burst", help="Stop when the queue is empty.")] = False,
    single: Annotated[bool, typer.Option("--single", hidden=True)] = False,
) -> None:
    """Run syncs from the queue until SIGTERM or Ctrl-C. Each worker finishes its current run first.

    Example: archisync worker --processes 4
    """
    from archisync import sources

    a = app(ctx)
    a.config.require_all()
    sources.check_all(a.config)
    if single:
        from archisync.work.worker import work

        work(a.config, burst=burst)
        return
    from archisync.base.log import EventLog
    from archisync.work.supervisor import Supervisor

    code = Supervisor(processes=processes, burst=burst, log=EventLog()).run()
    raise typer.Exit(code)
