"""`archisync metrics`: figures for a monitoring system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archisync.base.errors import UsageError
from archisync.cli.context import App, app


def metrics(
    ctx: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write them to this file, replaced in one step.")
    ] = None,
    serve: Annotated[
        str | None, typer.Option("--serve", metavar="[HOST:]PORT", help="Answer scrapes until SIGTERM or Ctrl-C.")
    ] = None,
) -> None:
    """Print metrics for Prometheus. Or write them to a file, or serve them on a port.

    Needs the extra `metrics`. When a server is out of reach, the metric archisync_up says so, and the exit code is 0.

    Example: archisync metrics --output /var/lib/node_exporter/archisync.prom

    Example: archisync metrics --serve 0.0.0.0:9464
    """
    from archisync.base import atomicfile
    from archisync.observe import metrics as prometheus

    a = app(ctx)
    if output is not None and serve is not None:
        raise UsageError("--output and --serve exclude each other", hint="leave one of them out")
    if serve is not None:
        from archisync.base.pid1 import leave_pid_1

        leave_pid_1()
        _serve(a, serve)
    elif output is not None:
        atomicfile.replace(output, prometheus.text(a.config), mode=prometheus.FILE_MODE)
    else:
        for line in prometheus.text(a.config).splitlines():
            a.output.line(line)


def _serve(a: App, address: str) -> None:
    import signal
    from threading import Event

    from archisync.base.listening import parse_address
    from archisync.observe import scrapes

    host, port = parse_address(address)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    with scrapes.answered(a.config, host, port) as port:
        a.output.say(f"metrics at http://{host}:{port}/metrics   (Ctrl-C stops)")
        stop.wait()
