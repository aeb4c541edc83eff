"""`archisync worker`: runs the syncs, and shows who does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.cli.arguments import Columns, Json
from archisync.cli.context import app
from archisync.cli.groups import command_group

if TYPE_CHECKING:
    from archisync.observe.workers import SeenWorker

commands = command_group(invoke_without_command=True, no_args_is_help=False, subcommand_metavar="[COMMAND]")
_MEBIBYTE = 1 << 20


@commands.callback()
def worker(
    ctx: typer.Context,
    processes: Annotated[
        int, typer.Option("--processes", "-n", metavar="NUMBER", min=1, max=256, help="Number of workers on this host.")
    ] = 1,
    burst: Annotated[bool, typer.Option("--burst", help="Stop when the queue is empty.")] = False,
    single: Annotated[bool, typer.Option("--single", hidden=True)] = False,
) -> None:
    """Run syncs from the queue until SIGTERM or Ctrl-C. Each worker finishes its current run first.

    Example: archisync worker --processes 4
    """
    if ctx.invoked_subcommand is not None:
        return
    from archisync import sources
    from archisync.base.pid1 import leave_pid_1

    leave_pid_1()
    a = app(ctx)
    a.config.require_all()
    sources.check_all(a.config)
    if single:
        from archisync.work.worker import work

        work(a.config, burst=burst)
        return
    from archisync.base.log import EventLog
    from archisync.work.supervisor import Supervisor

    code = Supervisor(processes=processes, burst=burst, log=EventLog()).run()
    raise typer.Exit(code)


@commands.command("list")
def list_(ctx: typer.Context, columns: Columns = None, json: Json = False) -> None:
    """Show what each worker does, since when, and its memory.

    Example: archisync worker list
    """
    from archisync.cli.output import Ago
    from archisync.observe import workers
    from archisync.store import clock

    a = app(ctx)
    with a.database("worker list") as db:
        found, now = workers.workers(db, a.config), clock.now(db)
    if json:
        a.output.json(workers=[w.document() for w in found])
        return
    rows: list[list[Any]] = [
        [w.place, w.state, _doing(w), Ago(w.since, now) if w.since else None, _memory(w), Ago(w.started_at, now)]
        for w in found
    ]
    heads = ["worker", "state", "doing", "since", "MiB", "started"]
    empty = f"no worker is alive on the queue {a.config.queue}: archisync worker --processes 2"
    a.output.table(heads, rows, empty=empty, less=["started", "MiB", "state"], folds="doing", columns=columns)


def _doing(found: SeenWorker) -> str | None:
    run = found.run
    return f"{run.sync_type} of {run.agent_id} (run {run.run_id})" if run else None


def _memory(found: SeenWorker) -> int | None:
    return None if found.memory_bytes is None else round(found.memory_bytes / _MEBIBYTE)
