"""`archisync history --follow`: a line for each run that ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from time import sleep
from typing import TYPE_CHECKING

import typer

from archisync.base.errors import ExitCode
from archisync.base.text import iso, with_hint

if TYPE_CHECKING:
    from archisync.cli.context import App
    from archisync.store.runs import Run, State

LOOK_EVERY_S = 1.0
COMMIT_S = 60
"""A run is dated before its transaction commits. One that committed later than this after its end is not shown."""


def follow_runs(
    a: App, *, sync_type: str | None, agent_id: str | None, state: State | None, limit: int, json: bool
) -> None:
    """Show the last `limit` runs that ended, oldest first, then each one that ends, until Ctrl-C or until nobody reads on. Raises
    database errors."""
    from archisync.rules.synctypes import SHARED_AGENT
    from archisync.store import agents, clock, history
    from archisync.store.runs import State

    with a.database("history --follow") as db:
        if agent_id is not None and agent_id != SHARED_AGENT:
            agents.agent(db, agent_id)
        since = clock.now(db)
        states = [state] if state else [s for s in State if not s.unfinished]
        shown: dict[int, datetime] = {}
        found = history.newest(db, sync_type=sync_type, agent_id=agent_id, states=states, limit=limit)
        found.sort(key=lambda run: (run.finished_at or since, run.run_id))
        try:
            while a.output.has_reader:
                for run in found:
                    if run.run_id not in shown:
                        _show(a, run, json=json)
                        shown[run.run_id] = run.finished_at or since
                from_when = since - timedelta(seconds=COMMIT_S)
                shown = {run_id: at for run_id, at in shown.items() if at >= from_when}
                sleep(LOOK_EVERY_S)
                since = clock.now(db)
                found = history.ended_since(db, from_when, sync_type=sync_type, agent_id=agent_id, state=state)
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def _show(a: App, run: Run, *, json: bool) -> None:
    if json:
        a.output.json_line(run=run)
        return
    text = with_hint(run.message or run.reason or "-", run.hint)
    when = iso(run.finished_at) if run.finished_at else "-"
    a.output.line(f"{when}  run {run.run_id}: {run.sync_type} of {run.agent_id} {run.state} ({text})")
