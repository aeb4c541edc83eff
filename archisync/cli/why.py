"""`archisync why`: why a pair is, or is not, running now, and when it will."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.base.errors import ExitCode, UsageError
from archisync.cli import complete
from archisync.cli.arguments import TypeArgument
from archisync.cli.context import Json, app
from archisync.rules.agentid import check_agent_id
from archisync.rules.synctypes import SHARED_AGENT, Scope, sync_type


def why(
    ctx: typer.Context,
    type_name: TypeArgument,
    agent: Annotated[str | None, typer.Argument(metavar="[AGENT]", autocompletion=complete.agent_ids)] = None,
    json: Json = False,
) -> None:
    """Tell why a type of an agent is, or is not, running now, and when it will.

    Example: archisync why orders anna.bianchi
    """
    from archisync.rules.due import Reason, decide
    from archisync.store import agents, clock, held, pairs, ticks

    a = app(ctx)
    kind = sync_type(type_name)
    if kind.scope is Scope.AGENT and not agent:
        raise UsageError(f"{kind.name} are fetched for each agent: which one?", hint=f"archisync why {kind.name} AGENT")
    agent_id = agent if kind.scope is Scope.AGENT and agent else SHARED_AGENT
    with a.database("why") as db:
        now = clock.now(db)
        state = pairs.state(db, kind, agent_id)
        open_hold = held.open_of_pair(db, kind.name, agent_id)
        tick_note = ticks.overdue_note(ticks.last(db))
        decision = decide(state, now)
        meant = agents.alike(db, agent_id) if decision.reason is Reason.UNKNOWN_AGENT else None
    notes = []
    if meant is not None:
        notes.append(f"did you mean {meant}?")
    if open_hold is not None:
        notes.append(f"an export of it is held since run {open_hold}: archisync held show {open_hold}")
    if state.consecutive_failures and decision.reason is not Reason.BACKING_OFF:
        notes.append(
            f"its last {state.consecutive_failures} run(s) failed: archisync history {kind.name} --agent {agent_id}"
        )
    if tick_note:
        notes.append(tick_note)
    if decision.reason is Reason.UNKNOWN_AGENT:
        check_agent_id(agent_id)  # one that is in the registry, however it came there, is answered for
    if json:
        a.output.json(
            sync_type=kind.name, agent_id=agent_id, reason=decision.reason.value, message=decision.sentence,
            next_at=decision.next_at, now=now, held_run=open_hold, notes=notes,
        )  # fmt: skip
    else:
        a.output.line(f"{kind.name} of {agent_id}: {decision.sentence}")
        if decision.next_at is not None and not decision.due:
            from archisync.base.text import iso

            a.output.line(f"next at {iso(decision.next_at)}")
        for note in notes:
            a.output.line(f"note: {note}")
    if decision.reason is Reason.UNKNOWN_AGENT:
        raise typer.Exit(ExitCode.NOT_FOUND)
