"""Groups of commands, and how --help lists what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


class CommandGroup(TyperGroup):
    """A group whose --help breaks a long sentence into several lines; typer's own cuts it."""

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The commands by what people do with them; empty: all of them under one title."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for title, names in (self.sections or {"Commands": list(self.commands)}).items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", _first_sentence(self.commands[name])) for name in names])


def _first_sentence(command: Any) -> str:
    whole = 1000
    return str(command.get_short_help_str(whole))


def command_group(text: str | None = None, **options: Any) -> typer.Typer:
    """A group of commands, which `archisync.cli.root.GROUPS` names; alone it shows its help. Without a text, its callback's docstring is
    that."""
    options = {"no_args_is_help": True} | ({"help": text} if text else {}) | options
    return typer.Typer(cls=CommandGroup, rich_markup_mode=None, **options)
