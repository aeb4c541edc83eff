"""`archisync run`: force a sync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.base.errors import ArchisyncError, BusyError, ExitCode, UsageError, WaitTimeoutError
from archisync.cli import completion
from archisync.cli.arguments import Json, finite
from archisync.cli.context import App, actor, app
from archisync.rules.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archisync.cli.output import Output
    from archisync.store.database import Database
    from archisync.store.queued_runs import Forced
    from archisync.store.runs import Run

_COUNTS = ("seen", "inserted", "updated", "absent", "deleted", "quarantined")
_LESS_IMPORTANT = ("seen", "absent", "quarantined", "deleted", "updated", "inserted", "reason")


def run(
    ctx: typer.Context,
    type_name: Annotated[
        str,
        typer.Argument(metavar="TYPE|all", help="A sync type, or all.", autocompletion=completion.sync_types_or_all),
    ],
    agent: Annotated[
        list[str] | None,
        typer.Option(
            "--agent", "-a", metavar="ID", help="Only this agent; may be repeated.", autocompletion=completion.agent_ids
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome and exit with its code.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0, callback=finite, help="Wait so long (with --wait), then exit 124."
        ),
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="Run it in this process, without Redis or a worker.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Recorded in the history.")] = None,
    json: Json = False,
) -> None:
    """Sync now: the run goes to the front of the queue. Works for disabled types and paused agents, too.

    A run that waits already is used. Behind one that is being done, which may have read an older export, there is a new one. With --wait,
    Ctrl-C stops the waiting and not the run.

    Example: archisync run orders --agent anna.bianchi --wait --timeout 60
    """
    from archisync.observe import documents
    from archisync.schedule import force

    a = app(ctx)
    force.select_types(type_name)  # report a wrong type before a missing setting
    _check_options(a, wait=wait, timeout=timeout, inline=inline)
    with a.database("run", answer_timeout_s=a.config.run_timeout_s if inline else None) as db:
        forced = _force(a, db, type_name, agent or [], reason=reason, inline=inline)
        ended, problem = _finish(a, db, forced, wait=wait, timeout_s=timeout, inline=inline)
    if json:
        a.output.json(runs=documents.forced(forced, ended))
    elif ended:
        _show_table(a.output, ended)
    else:
        for one in forced:
            a.output.line(f"{one.run_id}")
    if problem is not None:
        raise problem
    if ended:
        raise typer.Exit(force.exit_code(ended))


def _check_options(a: App, *, wait: bool, timeout: float | None, inline: bool) -> None:
    if timeout is not None and not wait:
        raise UsageError("--timeout goes with --wait", hint="add --wait, or leave --timeout out")
    if inline and wait:
        raise UsageError("--inline waits by itself", hint="leave --wait out")
    if inline:
        a.config.require_all(but=[Config.redis_url, Config.source])  # the source of another type may be none
    else:
        _ = a.config.redis_url


def _force(
    a: App, db: Database, type_name: str, agents: Sequence[str], *, reason: str | None, inline: bool
) -> list[Forced]:
    """Queue the runs, and say what they override and join."""
    from archisync.actions import runs
    from archisync.schedule import force

    if inline:
        from archisync.store.database import require_direct

        require_direct(db, silent_s=a.config.longest_silence_s)
    pairs = force.select_pairs(db, type_name, agents)
    if inline:
        for pair in pairs:
            a.config.source(pair.sync_type)
    for sentence in force.overridden(db, pairs):
        a.output.say(f"note: {sentence}")
    forced = runs.force(db, actor(), pairs, why=reason)
    for one in forced:
        a.output.say(f"{one}")
    return forced


def _finish(
    a: App, db: Database, forced: list[Forced], *, wait: bool, timeout_s: float | None, inline: bool
) -> tuple[list[Run], ArchisyncError | None]:
    """Do the runs here, or deliver them and wait. Returns them with the reason why some are unfinished; no runs if nobody waits, or if
    Redis is away: they are queued then, and a tick delivers them."""
    from archisync.queue import workers
    from archisync.schedule import deliver, force
    from archisync.store import history, ticks

    if not inline:
        try:
            deliver.deliver_now(db, a.config)
        except ArchisyncError as exc:
            return [], exc
        if not wait:
            return [], None
        if note := ticks.overdue_note(ticks.last(db)):
            a.output.say(f"note: {note}")
    ended: dict[int, Run] = {}

    def on_end(run: Run) -> None:
        ended[run.run_id] = run
        _say_outcome(a.output, run)

    def on_long_wait() -> None:
        if note := workers.overdue_note(a.config):
            a.output.say(f"note: {note}")

    problem: ArchisyncError | None = None
    try:
        if inline:
            from archisync.work.inline import run_inline

            run_inline(db, a.config, forced, changed=on_end)
        else:
            force.wait(db, [one.run_id for one in forced], timeout_s=timeout_s, changed=on_end, waits_long=on_long_wait)
    except (BusyError, WaitTimeoutError) as exc:
        problem = exc
    except KeyboardInterrupt:
        unfinished = next((one.run_id for one in forced if one.run_id not in ended), forced[-1].run_id)
        what = "interrupted; unfinished runs are back in the queue" if inline else "no longer waiting; the run goes on"
        a.output.say(f"{what} (archisync show {unfinished})")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    return [ended.get(one.run_id) or history.get(db, one.run_id) for one in forced], problem


def _say_outcome(output: Output, run: Run) -> None:
    output.say(f"run {run.run_id}: {run.sync_type} of {run.agent_id} {run.state} ({run.message})")
    if run.hint:
        output.say(f"hint: {run.hint}")
    if run.state == "held":
        output.say(f"hint: archisync held show {run.run_id}")


def _show_table(output: Output, runs: list[Run]) -> None:
    rows: list[list[Any]] = []
    for run in runs:
        counts = run.counts.as_dict() if run.counts else {}
        rows.append(
            [run.run_id, run.sync_type, run.agent_id, run.state.value, run.reason]
            + [counts.get(name) for name in _COUNTS]
        )
    output.table(["run", "type", "agent", "state", "reason", *_COUNTS], rows, less=_LESS_IMPORTANT)
