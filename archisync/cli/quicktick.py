"""`archisync tick` without typer.

Cron starts a tick each minute, and one with nothing to do takes a few milliseconds; importing typer and the commands takes ten times as
long. So `archisync.__main__` comes straight here for `tick` and `tick --json`; `archisync.cli.tick` does it for all other options.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from archisync.base.errors import ExitCode, UnreachableError
from archisync.cli.deadline import ends_within
from archisync.cli.output import Output
from archisync.rules.config import Config
from archisync.schedule.deadlines import TICK_DEADLINE_S
from archisync.schedule.summary import Summary
from archisync.schedule.tick import tick
from archisync.store.database import connected


def run_plain_tick(arguments: Sequence[str]) -> ExitCode | None:
    """Run `tick` or `tick --json`. None: `arguments` are something else."""
    match arguments:
        case ["tick"]:
            return run_tick(Output(), Config.from_environment(), json=False)
        case ["tick", "--json"]:
            return run_tick(Output(), Config.from_environment(), json=True)
        case _:
            return None


def run_tick(output: Output, config: Config, *, json: bool) -> ExitCode:
    """Run one tick and show what it did. Raises what `tick` raises."""
    _ = config.redis_url  # report a missing setting now, not only when there is something to deliver
    late = UnreachableError(
        f"the tick did not end within {TICK_DEADLINE_S:g} s and was stopped: PostgreSQL or Redis answers too slowly",
        hint="archisync status; the next tick goes on with what is left",
    )
    seconds = config.database_timeout_s
    with (
        ends_within(TICK_DEADLINE_S, late),
        connected(config.database_url, purpose="tick", answer_timeout_s=seconds) as db,
    ):
        summary = tick(db, config)
    if json:
        output.json_line(time=datetime.now(UTC), tick=_as_json(summary))
    else:
        output.line(summary.line())
    if summary.error is None:
        return ExitCode.DONE
    output.error(summary.error)
    return summary.error.exit_code


def _as_json(summary: Summary) -> dict[str, object]:
    counts = ("reaped", "due", "enqueued", "redelivered", "skipped", "pruned", "duration_ms")
    error = summary.error.message if summary.error else None
    return {**{name: getattr(summary, name) for name in counts}, "error": error}
