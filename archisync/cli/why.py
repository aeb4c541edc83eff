"""`archisync why`: why a sync is, or is not, running now, and when it will."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.errors import ExitCode, UsageError
from archisync.base.text import iso
from archisync.cli import completion
from archisync.cli.arguments import Json, TypeArgument
from archisync.cli.context import app
from archisync.rules.agentid import check_agent_id
from archisync.rules.synctypes import SHARED_AGENT, Scope, sync_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archisync.rules.due import Decision, PairState
    from archisync.store.database import Database


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
    from archisync.rules.due import Reason, decide
    from archisync.store import clock, held, pairs

    a = app(ctx)
    type_ = sync_type(type_name)
    if type_.scope is Scope.AGENT and not agent:
        raise UsageError(
            f"{type_.name} are fetched for each agent: which one?", hint=f"archisync why {type_.name} AGENT"
        )
    agent_id = agent if type_.scope is Scope.AGENT and agent else SHARED_AGENT
    with a.database("why") as db:
        now = clock.now(db)
        pair = pairs.state(db, type_, agent_id)
        decision = decide(pair, now)
        held_run = held.open_of_pair(db, type_.name, agent_id)
        notes = list(_notes(db, pair, decision, held_run))
    is_unknown = decision.reason is Reason.UNKNOWN_AGENT
    if is_unknown:
        check_agent_id(agent_id)  # only now: an id that is registered gets an answer, however it came there
    if json:
        a.output.json(
            sync_type=type_.name, agent_id=agent_id, reason=decision.reason.value, message=decision.sentence,
            next_at=decision.next_at, now=now, held_run=held_run, notes=notes,
        )  # fmt: skip
    else:
        a.output.line(f"{type_.name} of {agent_id}: {decision.sentence}")
        if decision.next_at is not None and not decision.due:
            a.output.line(f"next at {iso(decision.next_at)}")
        for note in notes:
            a.output.line(f"note: {note}")
    if is_unknown:
        raise typer.Exit(ExitCode.NOT_FOUND)


def _notes(db: Database, pair: PairState, decision: Decision, held_run: int | None) -> Iterator[str]:
    """What else a person should know about the pair."""
    from archisync.rules.due import Reason
    from archisync.store import agents, ticks

    if decision.reason is Reason.UNKNOWN_AGENT and (alike := agents.alike(db, pair.agent_id)):
        yield f"did you mean {shlex.quote(alike)}?"
    if held_run is not None:
        yield f"an export of it is held since run {held_run}: archisync held show {held_run}"
    failures = pair.consecutive_failures
    if failures and decision.reason is not Reason.BACKING_OFF:
        last = "last run" if failures == 1 else f"last {failures} runs"
        yield f"its {last} failed: archisync history {pair.sync_type} --agent {shlex.quote(pair.agent_id)}"
    if tick_note := ticks.overdue_note(ticks.last(db)):
        yield tick_note
