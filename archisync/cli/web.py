"""`archisync web`: the panel for browsers, and the HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.base.errors import ConfigurationError
from archisync.cli.context import app


def web(
    ctx: typer.Context,
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="[HOST:]PORT", help="Where to answer; beyond 127.0.0.1 only with a token."),
    ] = "127.0.0.1:8080",
) -> None:
    """Show everything in a browser. Answers the HTTP API, too; needs the extra `web`.

    Until SIGTERM or Ctrl-C. Without ARCHISYNC_WEB_TOKEN it only shows, and only on this machine.

    Example: archisync web --listen 127.0.0.1:8080
    """
    from archisync.base.listening import parse_address
    from archisync.base.pid1 import leave_pid_1

    leave_pid_1()
    a = app(ctx)
    host, port = parse_address(listen)
    _ = a.config.database_url
    try:
        from archisync.web.server import serve
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"archisync web needs {exc.name}, which is not installed", hint="pip install 'archisync[web]'"
        ) from None
    serve(a.config, host, port)
