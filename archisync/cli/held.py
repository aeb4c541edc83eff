"""`archisync held`: suspicious exports, and the decision about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archisync.base.text import with_hint
from archisync.cli import completion
from archisync.cli.arguments import Columns, Json
from archisync.cli.context import App, actor, app
from archisync.cli.groups import command_group

if TYPE_CHECKING:
    from archisync.cli.output import Output
    from archisync.store.held import Held

commands = command_group("Suspicious exports that wait for a decision.")
HeldRunId = Annotated[
    int, typer.Argument(metavar="RUN", help="The run that was held.", autocompletion=completion.held_run_ids)
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Your reason; recorded with your name.")]

UNKNOWN = "unknown"
_PLANNED = {
    "vanishing": "that would vanish",
    "deleted": "that would be deleted",
    "restored": "that would be restored",
    "rewritten": "that would be rewritten",
    "changed": "that would change",
    "new": "that would be new",
}


@commands.command("list")
def list_(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also show exports that are decided.")] = False,
    columns: Columns = None,
    json: Json = False,
) -> None:
    """Show held exports.

    Example: archisync held list
    """
    from archisync.cli.output import Ago
    from archisync.store import clock, held

    a = app(ctx)
    with a.database("held list") as db:
        found, now = held.held_exports(db, include_decided=everything), clock.now(db)
    if json:
        a.output.json(held=found)
        return
    rows = [
        [
            h.run_id,
            h.sync_type,
            h.agent_id,
            h.rule,
            Ago(h.held_at, now),
            h.decision or "open",
            with_hint(h.message, h.hint),
        ]
        for h in found
    ]
    heads = ["run", "type", "agent", "rule", "held", "decision", "why"]
    less = ["decision", "rule", "held"]
    a.output.table(heads, rows, empty="nothing is held", less=less, folds="why", columns=columns)


@commands.command()
def show(ctx: typer.Context, run_id: HeldRunId, json: Json = False) -> None:
    """Show why an export was held, and how to decide. Names rows that would vanish or change.

    Example: archisync held show 42
    """
    from archisync.store import held

    a = app(ctx)
    with a.database("held show") as db:
        h = held.held_export(db, run_id)
    if json:
        a.output.json(held=h)
        return
    a.output.fields(
        {
            "run": h.run_id,
            "export": f"{h.sync_type} of {h.agent_id}",
            "held": h.held_at,
            "rule": h.rule,
            "why": h.message,
            "hint": h.hint,
            "rows in the export": UNKNOWN if h.rows_valid is None else h.rows_valid,
            "rows known": h.known_rows,
            **planned(h.planned),
            "sha256": h.sha256,
            "decision": _decision(h),
        }
    )
    show_findings(a.output, h.findings or [])
    show_outlook(a.output, h.sample or [], h.changes or [])
    _show_what_to_type(a.output, h)


def _show_what_to_type(output: Output, h: Held) -> None:
    if h.decision is None:
        if h.acceptable:
            output.line(f'to apply it all the same:  archisync held accept {h.run_id} --why "…"')
        else:
            output.line("it can't be accepted: nobody can know what the complete, readable export contains")
        output.line(f'to refuse it:              archisync held reject {h.run_id} --why "…"')
        output.line("a later good export clears it by itself")
    elif h.decision == "rejected" and h.acceptable:
        output.line(f'to accept it after all:    archisync held accept {h.run_id} --why "…"')


def planned(counts: Mapping[str, int]) -> dict[str, int | str]:
    """The counts of a plan by the name to show them under. Without a plan nobody knows what the export would do."""
    if not counts:
        return {"what it would do": UNKNOWN}
    return {f"rows {what}": counts[name] for name, what in _PLANNED.items() if name in counts}


def show_findings(output: Output, findings: Sequence[Mapping[str, Any]]) -> None:
    """Print what is wrong with which column, with old and new values."""
    if findings:
        output.line("what looks wrong:")
    for found in findings:
        output.line(f"  {found['rule']}  {found['message']}")
        for old, new in found["examples"]:
            output.line(f"    {old!r} → {new!r}" if new else f"    {old!r} → nothing")


def show_outlook(output: Output, vanishing: Sequence[Sequence[str]], changes: Sequence[Mapping[str, Any]]) -> None:
    """Print keys of rows that would vanish, and old and new values of rows that would change."""
    if vanishing:
        output.line("keys of known rows that would vanish (some):")
        for key in vanishing:
            output.line("  " + " / ".join(key))
    if changes:
        output.line("rows that would change (some):")
        for change in changes:
            fields = "; ".join(f"{name}: {old!r} → {new!r}" for name, (old, new) in sorted(change["fields"].items()))
            output.line(f"  {' / '.join(change['key'])}  {fields}")


def _decision(h: Held) -> str:
    if h.decision is None:
        return "open"
    text = f"{h.decision} by {h.decided_by}: {h.decided_why}" if h.decided_by else h.decision
    if h.used_by_run:
        return f"{text} (applied by run {h.used_by_run})"
    return f"{text} (expired)" if h.expired else text


@commands.command()
def accept(
    ctx: typer.Context,
    run_id: HeldRunId,
    why: Why,
    no_run: Annotated[bool, typer.Option("--no-run", help="Only record it; the next sync applies it.")] = False,
) -> None:
    """Allow this export to be applied once, within 24 hours. It is not applied if the export or the data changes before.

    Until it is applied, it can still be rejected.

    Example: archisync held accept 42 --why "the branch in Torino was closed"
    """
    from archisync.actions import exports
    from archisync.store import history

    a = app(ctx)
    with a.database("held accept") as db, db.transaction():
        h, forced = exports.accept(db, actor(), run_id, why=why, run_now=not no_run)
        state = history.get(db, forced.run_id).state if forced else None
    _note_other_run(a, h, run_id)
    a.output.line(f"the export of run {h.run_id} is accepted for 24 hours")
    if forced is not None and state == "running":
        a.output.line(f"run {forced.run_id} has already begun: if it is held again, the next sync applies the export")
    elif forced is not None:
        a.output.line(f"run {forced.run_id} will apply it; the next tick delivers it to a worker")


@commands.command()
def reject(ctx: typer.Context, run_id: HeldRunId, why: Why) -> None:
    """Refuse this export, now and whenever it comes again. The known rows stay.

    It can still be accepted later.

    Example: archisync held reject 42 --why "a filter was set in the ERP"
    """
    from archisync.actions import exports

    a = app(ctx)
    with a.database("held reject") as db:
        h = exports.reject(db, actor(), run_id, why=why)
    _note_other_run(a, h, run_id)
    a.output.line(f"the export of run {h.run_id} is rejected")


def _note_other_run(a: App, decided: Held, asked: int) -> None:
    if decided.run_id != asked:
        a.output.say(f"note: the same export as in run {asked} was held again in run {decided.run_id}")
