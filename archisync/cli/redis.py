"""`archisync redis`: what concerns the queue's server."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.cli.context import app

commands = typer.Typer(help="The queue's server.", no_args_is_help=True, rich_markup_mode=None)


@commands.callback()
def redis() -> None:
    """The queue's server."""


@commands.command()
def acl(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Option("--prefix", help="What the names of the users begin with.")] = "archisync",
) -> None:
    """Print Redis commands that make least-privilege users for ticks and workers. Needs no connection.

    They are made without a password and off; running the commands again, after an upgrade, changes neither.

    Example: archisync redis acl | redis-cli
    """
    from archisync.queue.acl import MEANING, User, acl_commands

    a = app(ctx)
    for line in acl_commands(a.config.queue, prefix):
        a.output.line(line)
    for user in User:
        a.output.say(f"{prefix}_{user} is for: archisync {MEANING[user]}")
    a.output.say(
        f"switch each on: ACL SETUSER {prefix}_{User.TICK} on '>PASSWORD'   (then: ACL SAVE, or CONFIG REWRITE)"
    )
