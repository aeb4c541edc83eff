"""`archisync config`: the settings that are in force."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from archisync.base.envfile import FILE, FOLDER_VARIABLE, settings_of
from archisync.cli.arguments import Columns, Json
from archisync.cli.context import app
from archisync.cli.groups import command_group

commands = command_group("The settings that are in force.")


@commands.callback()
def config() -> None:
    """The settings that are in force."""


@commands.command("list")
def list_(ctx: typer.Context, columns: Columns = None, json: Json = False) -> None:
    """Show every setting, its value and where it comes from. That is the environment, a file or the default; secrets are hidden.

    Example: archisync config list
    """
    from archisync.rules.effective import effective, misspelt, problems

    a = app(ctx)
    folder = os.environ.get(FOLDER_VARIABLE, "").strip()
    file = settings_of(Path(folder), os.environ) if folder else {}
    environment = a.config.environment
    found = effective(environment, file)
    wrong = list(problems(environment))
    if json:
        a.output.json(
            file=str(Path(folder) / FILE) if file else None,
            settings=found,
            problems=[{"message": p.message, "hint": p.hint} for p in wrong],
        )
        return
    rows = [[s.name, s.value, s.origin.value] for s in found]
    a.output.table(["setting", "value", "from"], rows, less=["from"], folds="value", columns=columns)
    if file:
        a.output.say(f"the file is {Path(folder) / FILE}")
    for problem in wrong:
        a.output.say(f"warning: {problem.message} ({problem.hint})")
    for name, meant in misspelt(environment):
        a.output.say(f"warning: nothing reads {name}; did you mean {meant}?")
