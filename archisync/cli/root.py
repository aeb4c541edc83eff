"""The root command: its options, and the commands and groups below it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from archisync import __version__
from archisync.cli.context import App
from archisync.cli.groups import CommandGroup
from archisync.cli.output import Output
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES

COMMANDS = {
    "demo": "demo", "up": "up", "tick": "tick", "run": "run", "status": "status", "plan": "plan",
    "history": "history", "show": "history", "why": "why", "enable": "interval", "disable": "interval",
    "pause": "pause", "resume": "pause", "doctor": "doctor", "web": "web", "metrics": "metrics", "report": "report",
    "prune": "history", "diff": "diff", "clear": "clear", "cancel": "cancel", "retry": "rest",
}  # fmt: skip
"""Each command and the module of `archisync.cli` that has a function of its name, in the order of --help."""
GROUPS = {
    "worker": "worker", "config": "config", "interval": "interval", "agent": "agent", "held": "held", "rest": "rest", "audit": "audit",
    "guard": "guard", "type": "type", "db": "database", "redis": "redis",
}  # fmt: skip
"""Each group of commands and the module of `archisync.cli` that has its `commands`."""


SECTIONS = {
    "First": ("demo", "up"),
    "Look": ("status", "why", "history", "show", "plan", "diff", "doctor", "report", "web", "audit", "config"),
    "Act": ("run", "retry", "cancel", "pause", "resume", "rest", "held", "clear"),
    "Set": ("interval", "enable", "disable", "agent", "type", "guard"),
    "Operate": ("tick", "worker", "metrics", "prune", "db", "redis"),
}
"""The commands in --help, by what people do with them."""


class RootGroup(CommandGroup):
    sections = SECTIONS


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"archisync {__version__}")
        raise typer.Exit


def _set_app(
    ctx: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only data, errors and log events.")] = False,
    folder: Annotated[
        str | None,
        typer.Option("--folder", metavar="FOLDER", help="Take settings from archisync.env in there."),
    ] = None,  # for --help: `archisync.cli.folder` has read it
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    ctx.obj = a = App(output=Output(quiet=quiet), config=Config.from_environment())
    SYNC_TYPES.ask = a.learn_types


def root_command(only: str | None = None) -> typer.Typer:
    """The root command with all commands, or with only one command or group.

    Importing all commands and describing them to typer takes longer than most commands run.
    """
    root = typer.Typer(
        name="archisync",
        cls=RootGroup,
        help="Keeps PostgreSQL copies of ERP data fresh, and never harms them.\n\nFirst time? Try: archisync demo",
        no_args_is_help=True,
        rich_markup_mode=None,  # rich takes longer than the rest of --help
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback()(_set_app)
    for name, module in COMMANDS.items():
        if only in (None, name):
            root.command(name)(getattr(import_module(f"archisync.cli.{module}"), name))
    for name, module in GROUPS.items():
        if only in (None, name):
            root.add_typer(import_module(f"archisync.cli.{module}").commands, name=name)
    return root


def named_command(arguments: Sequence[str]) -> str | None:
    """The command or group that the arguments name. None for help, completion and a wrong name, which need the whole command line."""
    word = next((argument for argument in arguments if argument not in ("--quiet", "-q")), "")
    return word if word in COMMANDS or word in GROUPS else None
