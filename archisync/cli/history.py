"""`archisync history`, `show`, `prune`: the runs and their outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.base.errors import UsageError
from archisync.base.text import counted
from archisync.cli.arguments import AgentOption, Columns, Json, OptionalType, RunId
from archisync.cli.context import app
from archisync.rules.synctypes import SHARED_AGENT, sync_type
from archisync.rules.times import parse_moment, parse_span

if TYPE_CHECKING:
    from archisync.cli.output import Ago, Output
    from archisync.store.runs import Run, State

_COUNTS = ("seen", "inserted", "updated", "unchanged", "absent", "restored", "deleted", "quarantined")
_LESS_IMPORTANT = (
    "unchanged", "restored", "trigger", "absent", "updated", "inserted", "quarantined", "deleted", "seen", "seconds", "reason", "queued",
)  # fmt: skip
"""Columns that a narrow terminal leaves out, the first one first."""
HINTS_SAID = 5
"""More are in `show` of each run."""


def history(
    ctx: typer.Context,
    type_name: OptionalType = None,
    agent: AgentOption = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="queued, running, succeeded, held, failed, skipped …")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="A span like 2h, or an ISO time.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="NUMBER", min=1, max=100_000, help="How many runs to show.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with a line for each run that ends, until Ctrl-C.")
    ] = False,
    columns: Columns = None,
    json: Json = False,
) -> None:
    """Show runs, newest first.

    Example: archisync history orders --state failed --since 1d

    Example, to watch what happens: archisync history --follow
    """
    from archisync.cli.output import Ago
    from archisync.store import agents, clock, history

    a = app(ctx)
    name = sync_type(type_name).name if type_name is not None else None
    wanted = _state(state)
    if follow:
        from archisync.cli.follow import follow_runs

        _check_follow(since=since, columns=columns, state=wanted)
        follow_runs(a, sync_type=name, agent_id=agent, state=wanted, limit=limit, json=json)
        return
    with a.database("history") as db:
        now = clock.now(db)
        start = parse_moment(since, now, sign=-1) if since is not None else None
        found = history.newest(db, sync_type=name, agent_id=agent, state=wanted, since=start, limit=limit)
        if not found and agent is not None and agent != SHARED_AGENT:
            agents.agent(db, agent)  # an unknown agent is a mistake, not an empty history
    if json:
        a.output.json(runs=found)
        return
    heads = ["run", "type", "agent", "state", "reason", "trigger", "queued", "seconds", *_COUNTS, "message"]
    rows = [_row(run, Ago(run.queued_at, now)) for run in found]
    a.output.table(heads, rows, empty="no runs", less=_LESS_IMPORTANT, folds="message", columns=columns)
    _say_hints(a.output, found)


def _check_follow(*, since: str | None, columns: str | None, state: State | None) -> None:
    if since is not None or columns is not None:
        raise UsageError("--follow goes without --since and --columns", hint="archisync history --follow")
    if state is not None and state in ("queued", "running"):
        raise UsageError(f"--follow shows runs that have ended: none of them is {state}", hint="--state failed")


def _say_hints(output: Output, runs: Sequence[Run]) -> None:
    """Say each hint once, with the newest run that has it."""
    newest: dict[str, int] = {}
    for run in runs:
        if run.hint:
            newest.setdefault(run.hint, run.run_id)
    for hint, run_id in list(newest.items())[:HINTS_SAID]:
        output.say(f"hint for run {run_id}: {hint}")


def _state(text: str | None) -> State | None:
    from archisync.store.runs import State

    if text is None:
        return None
    if text not in list(State):
        raise UsageError(f"there is no state {ascii(text)[:40]}", hint="allowed: " + ", ".join(State))
    return State(text)


def _row(run: Run, queued: Ago) -> list[Any]:
    counts = run.counts.as_dict() if run.counts else {}
    head: list[Any] = [run.run_id, run.sync_type, run.agent_id, run.state.value, run.reason, run.trigger.value]
    message = None if run.state == "succeeded" else run.message  # it would say the counts again
    return [*head, queued, run.duration_s, *(counts.get(name) for name in _COUNTS), message]


def show(ctx: typer.Context, run_id: RunId, json: Json = False) -> None:
    """Show everything about one run.

    Example: archisync show 42
    """
    from archisync.store import history

    a = app(ctx)
    with a.database("show") as db:
        run = history.get(db, run_id)
    if json:
        a.output.json(run=run)
        return
    a.output.fields(_fields(run))
    show_warnings(a.output, run.warnings)


def _fields(run: Run) -> dict[str, Any]:
    counts = run.counts.as_dict() if run.counts else {}
    return {
        "run": run.run_id,
        "sync": f"{run.sync_type} of {run.agent_id}",
        "state": run.state.value,
        "reason": run.reason,
        "message": run.message,
        "hint": run.hint,
        "trigger": run.trigger.value,
        "requested by": run.requested_by,
        "request reason": run.request_reason,
        "slot": run.slot_at,
        "attempt": run.attempt,
        "not before": run.not_before,
        "queued": run.queued_at,
        "delivered": run.delivered_at,
        "started": run.started_at,
        "lease until": run.lease_until,
        "finished": run.finished_at,
        "worker": run.worker,
        **{f"rows {name}": counts.get(name) for name in _COUNTS},
        **{f"export {name}": _in_words(value) for name, value in (run.export or {}).items()},
        **{f"{name} ms": value for name, value in (run.steps or {}).items()},
    }


def _in_words(value: Any) -> Any:
    """A nested value as a person reads it: format csv, encoding utf-8."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items() if inner is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def show_warnings(output: Output, warnings: Sequence[Mapping[str, Any]]) -> None:
    """Print each warning with the lines of the export that it is about."""
    for warning in warnings:
        output.line(f"warning: {warning['message']}")
        for row in warning.get("rows", []):
            output.line(f"  line {row['line']}: {row['field'] or 'row'}: {row['reason']}")


def prune(
    ctx: typer.Context,
    older_than: Annotated[str, typer.Option("--older-than", metavar="SPAN", help="Whole days, as in 90d.")] = "90d",
) -> None:
    """Delete runs that finished long ago. Each tick deletes some, too.

    The last success of each pair stays, and so do held exports that wait for a decision.

    Example: archisync prune --older-than 90d
    """
    from archisync.store import history

    a = app(ctx)
    days = parse_span(older_than).days
    if days < 1:
        raise UsageError(f"{ascii(older_than)[:40]} is less than a day", hint="archisync prune --older-than 90d")
    with a.database("prune") as db:
        number = history.prune_for(db, days=days, seconds=math.inf)
    a.output.line(f"deleted {counted(number, 'run')}")
