"""`archisync audit`: what people did, from the command line and from the panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.cli.arguments import AgentOption, Columns, Json, TypeOption
from archisync.cli.context import app
from archisync.cli.groups import command_group
from archisync.rules.synctypes import sync_type
from archisync.rules.times import parse_moment

if TYPE_CHECKING:
    from archisync.store.audit import Record

commands = command_group("What people did, and why.")


@commands.command("list")
def list_(
    ctx: typer.Context,
    type_name: TypeOption = None,
    agent: AgentOption = None,
    run_id: Annotated[int | None, typer.Option("--run", metavar="RUN", help="Only what was done about a run.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="A span like 2h, or an ISO time.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="NUMBER", min=1, max=100_000, help="How many records to show.")
    ] = 50,
    columns: Columns = None,
    json: Json = False,
) -> None:
    """Show who did what, when, from where and why, newest first. Nothing is ever removed from it.

    Example: archisync audit list --agent anna.bianchi --since 7d
    """
    from archisync.cli.output import Ago
    from archisync.store import audit, clock

    a = app(ctx)
    name = sync_type(type_name).name if type_name is not None else None
    with a.database("audit list") as db:
        now = clock.now(db)
        start = parse_moment(since, now, sign=-1) if since is not None else None
        found = audit.newest(db, sync_type=name, agent_id=agent, run_id=run_id, since=start, limit=limit)
    if json:
        a.output.json(audit=found)
        return
    rows = [[Ago(r.at, now), r.who, r.via, r.action, _object(r), _change(r), r.why] for r in found]
    heads = ["when", "who", "from", "what", "on", "change", "why"]
    less = ["change", "from", "who"]
    a.output.table(heads, rows, empty="nobody has done anything", less=less, folds="why", columns=columns)


def _object(r: Record) -> str:
    run = f" (run {r.run_id})" if r.run_id is not None else ""
    if r.agent_id is not None:
        return f"{r.sync_type} of {r.agent_id}{run}" if r.sync_type else r.agent_id
    return (r.sync_type or "everything") + run


def _change(r: Record) -> str:
    """Each field that changed: interval_minutes 10 → 15."""
    before, after = r.before or {}, r.after or {}
    changed = [n for n in after if n not in before or before[n] != after[n]]
    return ", ".join(
        f"{n} {_word(before[n])} → {_word(after[n])}" if n in before else f"{n} {_word(after[n])}" for n in changed
    )


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
