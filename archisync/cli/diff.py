"""`archisync diff`: what a sync would change now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from archisync.base.errors import BusyError, ExitCode
from archisync.cli.arguments import DataAgentOption, Json, TypeArgument, data_agent
from archisync.cli.context import App, app
from archisync.cli.held import UNKNOWN, planned, show_findings, show_outlook
from archisync.cli.history import show_warnings
from archisync.rules.synctypes import Scope, SyncType, sync_type

if TYPE_CHECKING:
    from archisync.cli.output import Output
    from archisync.store.database import Database
    from archisync.sync.preview import Preview


def diff(ctx: typer.Context, type_name: TypeArgument, agent: DataAgentOption = None, json: Json = False) -> None:
    """Show what a sync would change now. Fetches and checks the export as a sync does, and writes nothing.

    Exit code 6 when the export would be held.

    Example: archisync diff customers --agent anna.bianchi
    """
    a = app(ctx)
    type_ = sync_type(type_name)
    agent_id = data_agent(type_, agent)
    found = preview_of(a, type_, agent_id)
    if json:
        a.output.json(sync_type=type_.name, agent_id=agent_id, **_as_json(found))
    else:
        _show(a.output, found)
    if found.hold:
        raise typer.Exit(ExitCode.HELD)


def preview_of(a: App, type_: SyncType, agent_id: str, *, file: Path | None = None) -> Preview:
    """What a sync would do; with `file`, of that export instead of the source's."""
    from archisync.sync.preview import preview

    if file is None:
        _ = a.config.source(type_)  # report a missing setting first
    with locked_agent(a, type_, agent_id) as db:
        if file is None:
            a.output.say(f"fetching {type_.name} of {agent_id} …")
        return preview(db, a.config, type_, agent_id, file=file)


@contextmanager
def locked_agent(a: App, type_: SyncType, agent_id: str) -> Iterator[Database]:
    """A connection on which no run of the agent comes between. Raises BusyError."""
    from archisync.store import agents
    from archisync.store.database import require_direct
    from archisync.store.locks import agent_lock

    with a.database("diff", answer_timeout_s=a.config.run_timeout_s) as db:
        require_direct(db, silent_s=a.config.longest_silence_s)
        if type_.scope is Scope.AGENT:
            agents.agent(db, agent_id)
        with agent_lock(db, agent_id) as locked:
            if not locked:
                raise BusyError(f"a run of {agent_id} is in progress", hint="archisync status; then try again")
            yield db


def _as_json(found: Preview) -> dict[str, object]:
    return {
        "origin": found.origin,
        "seen": found.seen,
        "quarantined": found.quarantined,
        "plan": asdict(found.outlook.plan) if found.outlook.plan else None,
        "vanishing": found.outlook.vanishing,
        "changes": found.outlook.changes,
        "warnings": found.warnings,
        "would_be_held": asdict(found.hold) if found.hold else None,
    }


def _show(output: Output, found: Preview) -> None:
    plan = found.outlook.plan
    output.fields(
        {
            "export": found.origin,
            "it would be": f"held ({found.hold.rule}): {found.hold.message}" if found.hold else "applied",
            "hint": found.hold.hint if found.hold else None,
            "rows in the export": UNKNOWN if found.seen is None else found.seen,
            "rows quarantined": found.quarantined,
            "rows known": plan.known if plan else None,
            **planned(asdict(plan) if plan else {}),
        }
    )
    show_findings(output, [asdict(finding) for finding in found.hold.findings] if found.hold else [])
    show_outlook(output, found.outlook.vanishing, found.outlook.changes)
    show_warnings(output, found.warnings)
