"""The root command: global options and the list of commands."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from archisync import __version__
from archisync.cli.context import App
from archisync.cli.output import Output
from archisync.rules.config import Config

COMMANDS = {
    "demo": "demo",
    "up": "up",
    "tick": "tick",
    "run": "run",
    "status": "status",
    "plan": "plan",
    "history": "history",
    "show": "history",
    "why": "why",
    "enable": "interval",
    "disable": "interval",
    "pause": "pause",
    "resume": "pause",
    "doctor": "doctor",
    "metrics": "metrics",
    "report": "report",
    "worker": "worker",
    "prune": "history",
    "diff": "data",
    "clear": "data",
}
"""Command → module of `archisync.cli` with a function of the command's name, in the order of --help."""
GROUPS = {
    "interval": "interval",
    "agent": "agent",
    "held": "held",
    "guard": "guard",
    "db": "database",
    "redis": "redis",
}
"""Group of commands → module of `archisync.cli` with its `commands`."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"archisync {__version__}")
        raise typer.Exit


def main(
    ctx: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but data, errors and log events.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    ctx.obj = App(output=Output(quiet=quiet), config=Config.from_environment())


def root(only: str | None = None) -> typer.Typer:
    """The command line: all of it, or the root with one of its commands or groups.

    Importing and describing every command to typer takes longer than most of them run.
    """
    app = typer.Typer(
        name="archisync",
        help="Keeps PostgreSQL copies of ERP data fresh, and never harms them.\n\nFirst time? Try: archisync demo",
        no_args_is_help=True,
        rich_markup_mode=None,  # rich costs more than the rest of --help
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(main)
    for name, module in COMMANDS.items():
        if only in (None, name):
            app.command(name)(getattr(import_module(f"archisync.cli.{module}"), name))
    for name, module in GROUPS.items():
        if only in (None, name):
            app.add_typer(import_module(f"archisync.cli.{module}").commands, name=name)
    return app


def named(arguments: Sequence[str]) -> str | None:
    """The command or group that is certainly meant; None where the whole command line has to answer: help, completion, a wrong name."""
    word = next((argument for argument in arguments if argument not in ("--quiet", "-q")), "")
    return word if word in COMMANDS or word in GROUPS else None
