"""`archisync metrics`: figures for a monitoring system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archisync.base.errors import UsageError
from archisync.cli.context import app


def metrics(
    ctx: typer.Context,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Replace this file in one step.")] = None,
    serve: Annotated[
        str | None, typer.Option("--serve", metavar="[HOST:]PORT", help="Answer scrapes until SIGTERM or Ctrl-C.")
    ] = None,
) -> None:
    """Show metrics as Prometheus text: on standard output, in a file for node-exporter, or on a port.

    Needs the extra `metrics`. A server that is away is told by archisync_up, not by an error.

    Example: archisync metrics --output /var/lib/node_exporter/archisync.prom

    Example: archisync metrics --serve 0.0.0.0:9464
    """
    from archisync.base import atomicfile
    from archisync.observe import metrics as m

    a = app(ctx)
    if output is not None and serve is not None:
        raise UsageError("--output and --serve exclude each other", hint="leave one of them out")
    if serve is not None:
        import signal
        from threading import Event

        stop = Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: stop.set())
        host, port = m.parse_address(serve)
        server, thread, port = m.serve(a.config, host, port)
        a.output.say(f"metrics at http://{host}:{port}/metrics   (Ctrl-C stops)")
        stop.wait()
        server.shutdown()
        server.server_close()
        thread.join()
    elif output is not None:
        atomicfile.replace(output, m.text(a.config), mode=m.FILE_MODE)
    else:
        for line in m.text(a.config).splitlines():
            a.output.line(line)
