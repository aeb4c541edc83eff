"""`archisync redis`: the server of the queue."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.cli.context import app
from archisync.cli.groups import command_group

commands = command_group("The Redis server of the queue.")


@commands.callback()
def redis() -> None:
    """The Redis server of the queue."""


@commands.command()
def acl(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Option("--prefix", help="The beginning of the users' names.")] = "archisync",
) -> None:
    """Print Redis commands that make users with few rights. One for ticks and one for workers; needs no connection.

    The users have no password and are switched off. After an upgrade, run the commands again: they change neither.

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
