"""`archisync why`: why a sync is, or is not, running now, and when it will."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.base.errors import ExitCode
from archisync.base.text import iso
from archisync.cli import completion
from archisync.cli.arguments import Json, TypeArgument
from archisync.cli.context import app
from archisync.rules.agentid import check_agent_id
from archisync.rules.synctypes import sync_type


def why(
    ctx: typer.Context,
    type_name: TypeArgument,
    agent: Annotated[
        str | None,
        typer.Argument(metavar="[AGENT]", help="Not for products and prices.", autocompletion=completion.agent_ids),
    ] = None,
    json: Json = False,
) -> None:
    """Explain why a sync is or isn't running, and when it will run.

    Example: archisync why orders anna.bianchi
    """
    from archisync.observe.why import agent_of_pair, explain

    a = app(ctx)
    type_ = sync_type(type_name)
    agent_id = agent_of_pair(type_, agent)
    with a.database("why") as db:
        found = explain(db, type_, agent_id, config=a.config)
    if found.is_unknown:
        check_agent_id(agent_id)  # only now: an id that is registered gets an answer, however it came there
    if json:
        a.output.json(**found.document())
    else:
        decision = found.decision
        a.output.line(f"{type_.name} of {agent_id}: {decision.sentence}")
        if decision.next_at is not None and not decision.due:
            a.output.line(f"next at {iso(decision.next_at)}")
        for note in found.notes:
            a.output.line(f"note: {note}")
    if found.is_unknown:
        raise typer.Exit(ExitCode.NOT_FOUND)
