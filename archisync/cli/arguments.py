"""Arguments and options that several commands take: their help texts, their completion, and what their values mean."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, TypeAlias

import typer

from archisync.base.errors import UsageError
from archisync.cli import completion
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope, SyncType

TYPES = ", ".join(SYNC_TYPES.built_in) + ", or one of your own"
TypeArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="TYPE", help=TYPES, autocompletion=completion.sync_types)
]
TypeArguments: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="TYPE...", help=TYPES, autocompletion=completion.sync_types)
]
OptionalType: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="[TYPE]", help="Only this type.", autocompletion=completion.sync_types)
]
EveryType: TypeAlias = Annotated[bool, typer.Option("--all", help="Every type, without asking.")]
TypeOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--type", "-t", metavar="TYPE", help="Only this type.", autocompletion=completion.sync_types),
]
AgentOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--agent", "-a", metavar="ID", help="Only this agent.", autocompletion=completion.agent_ids),
]
TypeOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--type", "-t", metavar="TYPE", help="Only this type; may be repeated.", autocompletion=completion.sync_types
    ),
]
AgentOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--agent", "-a", metavar="ID", help="Only this agent; may be repeated.", autocompletion=completion.agent_ids
    ),
]
DataAgentOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agent",
        "-a",
        metavar="ID",
        help="The agent; not for products and prices.",
        autocompletion=completion.agent_ids,
    ),
]
RunId: TypeAlias = Annotated[
    int, typer.Argument(metavar="RUN", help="The number of the run.", autocompletion=completion.run_ids)
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

Columns: TypeAlias = Annotated[
    str | None,
    typer.Option("--columns", metavar="NAME,...", help="Only these columns of the table, in this order."),
]

DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Reason: TypeAlias = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; recorded with your name: archisync audit list.")
]


def finite(seconds: float | None) -> float | None:
    """A callback for options with a range: every range contains `nan`, and one without an end contains `inf`."""
    if seconds is not None and not isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is not a number of seconds.")
    return seconds


def data_agent(type_: SyncType, agent: str | None) -> str:
    """The agent id under which the type's data is kept. Raises UsageError if --agent is missing, or given for a shared type."""
    if type_.scope is Scope.SHARED:
        if agent is not None:
            raise UsageError(f"{type_.name} are shared by all agents", hint="leave --agent out")
        return SHARED_AGENT
    if agent is None:
        raise UsageError(f"which agent's {type_.name}?", hint="--agent ID (archisync agent list)")
    return agent
