"""`archisync run`: force a resync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.cli import complete
from archisync.cli.arguments import finite
from archisync.cli.context import App, Json, app, user_name
from archisync.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from archisync.database import Database
    from archisync.store.runs import Forced, Run


def run(
    ctx: typer.Context,
    type_name: Annotated[
        str, typer.Argument(metavar="TYPE|all", help="A sync type, or all.", autocompletion=complete.sync_types_or_all)
    ],
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", "-a", help="Only this agent; may be repeated.", autocompletion=complete.agent_ids),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome and exit with its code.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0, callback=finite, help="Seconds to wait (with --wait); then exit 124."),
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Run it here: needs no Redis and no worker.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Recorded in the history.")] = None,
    json: Json = False,
) -> None:
    """Force a resync: to the front of the queue, also of a disabled type or a paused agent.

    An unfinished run of the same agent and type is joined, not doubled. Ctrl-C while waiting does not cancel the run.

    Example: archisync run orders --agent anna.bianchi --wait --timeout 60
    """
    from archisync import force

    a = app(ctx)
    force.select_types(type_name)  # a slip of the keyboard is told before a missing setting
    if timeout is not None and not wait:
        raise UsageError("--timeout goes with --wait", hint="add --wait, or leave --timeout out")
    if inline:
        if wait:
            raise UsageError("--inline waits by itself", hint="leave --wait out")
    else:
        _ = a.config.redis_url
    with a.database("run", answer_timeout_s=a.config.run_timeout_s if inline else None) as db:
        if inline:
            _require_direct(db)
        chosen = force.select_pairs(db, type_name, agent or [])
        for pair in chosen if inline else []:
            a.config.source(pair.sync_type)
        for sentence in force.overridden(db, chosen):
            a.output.say(f"note: {sentence}")
        forced = force.force(db, chosen, by=user_name(), why=reason)
        for one in forced:
            _say_queued(a, one)
        ended = _finish(a, db, forced, wait=wait, timeout_s=timeout, inline=inline)
    if json:
        by_id = {run.run_id: run for run in ended}
        a.output.json(runs=[_as_json(one, by_id.get(one.run_id)) for one in forced])
    elif ended:
        _table(a, ended)
    else:
        for one in forced:
            a.output.line(f"{one.run_id}")
    if ended:
        raise typer.Exit(force.exit_code(ended))


def _require_direct(db: Database) -> None:
    from archisync.pooler import require_direct

    require_direct(db)


def _say_queued(a: App, one: Forced) -> None:
    what = "joins the unfinished run" if one.joined else "queued as run"
    a.output.say(f"{one.sync_type} of {one.agent_id}: {what} {one.run_id}")


def _finish(
    a: App, db: Database, forced: list[Forced], *, wait: bool, timeout_s: float | None, inline: bool
) -> list[Run]:
    """The ended runs; empty when nobody waits for them."""
    from archisync import force
    from archisync.store import ticks

    if inline:
        return [_told(a, run) for run in force.run_inline(db, a.config, forced)]
    force.deliver(db, a.config)
    if not wait:
        return []
    if note := ticks.overdue_note(ticks.last(db)):
        a.output.say(f"note: {note}")
    try:
        return force.wait(db, [one.run_id for one in forced], timeout_s=timeout_s, changed=lambda r: _told(a, r))
    except KeyboardInterrupt:
        a.output.say(f"no longer waiting; the run goes on (archisync show {forced[0].run_id})")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _told(a: App, run: Run) -> Run:
    a.output.say(f"run {run.run_id}: {run.sync_type} of {run.agent_id} {run.state} ({run.message})")
    if run.state == "held":
        a.output.say(f"hint: archisync held show {run.run_id}")
    return run


def _table(a: App, ended: list[Run]) -> None:
    rows: list[list[Any]] = []
    for run in ended:
        counts = run.counts.as_dict() if run.counts else {}
        rows.append(
            [run.run_id, run.sync_type, run.agent_id, run.state.value, run.reason]
            + [counts.get(name) for name in ("seen", "inserted", "updated", "absent", "deleted", "quarantined")]
        )
    a.output.table(
        ["run", "type", "agent", "state", "reason", "seen", "inserted", "updated", "absent", "deleted", "quarantined"],
        rows,
        less=["seen", "absent", "quarantined", "deleted", "updated", "inserted", "reason"],
    )


def _as_json(one: Forced, ended: Run | None) -> dict[str, Any]:
    return {
        "run_id": one.run_id,
        "sync_type": one.sync_type,
        "agent_id": one.agent_id,
        "joined": one.joined,
        "state": ended.state.value if ended else None,
        "reason": ended.reason if ended else None,
        "message": ended.message if ended else None,
        "counts": ended.counts.as_dict() if ended and ended.counts else None,
    }
