"""`archisync run`: force a resync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.base.errors import ArchisyncError, BusyError, ExitCode, UsageError, WaitTimeoutError
from archisync.cli import complete
from archisync.cli.arguments import finite
from archisync.cli.context import App, Json, app, user_name

if TYPE_CHECKING:
    from archisync.store.database import Database
    from archisync.store.queued_runs import Forced
    from archisync.store.runs import Run


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
    from archisync.schedule import force

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
        shown, problem = _finish(a, db, forced, wait=wait, timeout_s=timeout, inline=inline)
    if json:
        by_id = {run.run_id: run for run in shown}
        a.output.json(runs=[_as_json(one, by_id.get(one.run_id)) for one in forced])
    elif shown:
        _table(a, shown)
    else:
        for one in forced:
            a.output.line(f"{one.run_id}")
    if problem is not None:
        raise problem
    if shown:
        raise typer.Exit(force.exit_code(shown))


def _require_direct(db: Database) -> None:
    from archisync.store.database import require_direct

    require_direct(db)


def _say_queued(a: App, one: Forced) -> None:
    what = "joins the unfinished run" if one.joined else "queued as run"
    a.output.say(f"{one.sync_type} of {one.agent_id}: {what} {one.run_id}")


def _finish(
    a: App, db: Database, forced: list[Forced], *, wait: bool, timeout_s: float | None, inline: bool
) -> tuple[list[Run], ArchisyncError | None]:
    """The runs as they are then, and why some are not finished; no runs when nobody waits for them."""
    from archisync.schedule import force
    from archisync.store import history

    if not inline:
        from archisync.schedule.deliver import deliver_now

        deliver_now(db, a.config)
        if not wait:
            return [], None
        _say_whether_ticks_come(a, db)
    ended: dict[int, Run] = {}

    def changed(run: Run) -> None:
        ended[run.run_id] = _told(a, run)

    problem: ArchisyncError | None = None
    try:
        if inline:
            from archisync.work.inline import run_inline

            run_inline(db, a.config, forced, changed=changed)
        else:
            force.wait(db, [one.run_id for one in forced], timeout_s=timeout_s, changed=changed)
    except (BusyError, WaitTimeoutError) as exc:
        problem = exc
    except KeyboardInterrupt:
        first = next((one.run_id for one in forced if one.run_id not in ended), forced[-1].run_id)
        a.output.say(f"{_INTERRUPTED[inline]} (archisync show {first})")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    return [ended.get(one.run_id) or history.get(db, one.run_id) for one in forced], problem


_INTERRUPTED = {False: "no longer waiting; the run goes on", True: "interrupted; what is not done is back in the queue"}


def _say_whether_ticks_come(a: App, db: Database) -> None:
    from archisync.store import ticks

    if note := ticks.overdue_note(ticks.last(db)):
        a.output.say(f"note: {note}")


def _told(a: App, run: Run) -> Run:
    a.output.say(f"run {run.run_id}: {run.sync_type} of {run.agent_id} {run.state} ({run.message})")
    if run.state == "held":
        a.output.say(f"hint: archisync held show {run.run_id}")
    return run


def _table(a: App, shown: list[Run]) -> None:
    rows: list[list[Any]] = []
    for run in shown:
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


def _as_json(one: Forced, run: Run | None) -> dict[str, Any]:
    return {
        "run_id": one.run_id,
        "sync_type": one.sync_type,
        "agent_id": one.agent_id,
        "joined": one.joined,
        "state": run.state.value if run else None,
        "reason": run.reason if run else None,
        "message": run.message if run else None,
        "counts": run.counts.as_dict() if run and run.counts else None,
    }
