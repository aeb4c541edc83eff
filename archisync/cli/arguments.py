"""Arguments and options that several commands take: one help text, one completion."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, TypeAlias

import typer

from archisync.cli import complete
from archisync.rules.synctypes import SYNC_TYPES


def finite(seconds: float | None) -> float | None:
    """For options with a range: `nan` is inside of every one, and `inf` of one without an end."""
    if seconds is not None and not isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is not a number of seconds.")
    return seconds


TypeArgument: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="TYPE", help=", ".join(SYNC_TYPES), autocompletion=complete.sync_types),
]
TypeArguments: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="TYPE...", help=", ".join(SYNC_TYPES), autocompletion=complete.sync_types),
]
OptionalType: TypeAlias = Annotated[str | None, typer.Argument(metavar="[TYPE]", autocompletion=complete.sync_types)]
TypeOption: TypeAlias = Annotated[
    str | None, typer.Option("--type", "-t", help="Only this type.", autocompletion=complete.sync_types)
]
AgentOption: TypeAlias = Annotated[
    str | None, typer.Option("--agent", "-a", help="Only this agent.", autocompletion=complete.agent_ids)
]
RunId: TypeAlias = Annotated[int, typer.Argument(metavar="RUN", help="Its number.", autocompletion=complete.run_ids)]
