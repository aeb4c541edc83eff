"""`archisync plan`: the coming runs and the load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.errors import ConfigurationError, UnreachableError, UsageError
from archisync.cli.arguments import AgentOption, TypeOption
from archisync.cli.context import App, Json, app

if TYPE_CHECKING:
    from archisync.cli.output import Output
    from archisync.rules.forecast import Hour, Plan

_LONGEST_DAYS = 31
_HOURS_LISTED = 48
_ONE_PER_CENT = 0.01
_BLOCKS = "·▁▂▃▄▅▆▇█"
_BAR = 30
_SHORTEST_BAR, _LONGEST_BAR = 8, 60
_BESIDE_BAR = 55
"""Columns of the other figures, and the gaps between them."""


def plan(
    ctx: typer.Context,
    span: Annotated[str, typer.Option("--for", help="How far ahead: 6h, 24h, 7d.")] = "24h",
    type_name: TypeOption = None,
    agent: AgentOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-n", min=1, max=100_000, help="As if there were so many workers.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the coming runs and the load by hour, from the settings and measured durations; say where workers don't keep up.

    Example: archisync plan --for 24h

    Example, before an interval is shortened: archisync plan --workers 8 --type orders
    """
    from datetime import timedelta

    from archisync.cli.times import parse_span
    from archisync.rules.forecast import make_plan
    from archisync.rules.synctypes import sync_type
    from archisync.store import agents, clock, timetable

    a = app(ctx)
    ahead = parse_span(span)
    if not timedelta(0) < ahead <= timedelta(days=_LONGEST_DAYS):
        raise UsageError(f"--for {span} is out of range", hint=f"allowed: up to {_LONGEST_DAYS}d")
    kind = sync_type(type_name).name if type_name else None
    with a.database("plan") as db:
        if agent:
            agents.agent(db, agent)
        now = clock.now(db)
        groups = timetable.due_groups(db, sync_type=kind, agent_id=agent)
        queued = timetable.queued(db, sync_type=kind, agent_id=agent)
        measured = timetable.durations(db)
    alive = _alive(a) if workers is None else workers
    found = make_plan(groups, measured, now=now, span=ahead, workers=alive, queued=queued)
    if json:
        a.output.json(
            now=now, workers=found.workers, durations_s=found.durations_s, assumed=found.assumed,
            queued=found.queued, queued_s=found.queued_s, hours=found.hours, notes=found.notes, keeps_up=found.keeps_up,
        )  # fmt: skip
        return
    _show(a, found)


def _alive(a: App) -> int:
    from archisync.queue.client import redis_client
    from archisync.queue.workers import live_workers

    try:
        with redis_client(a.config.redis_url) as client:
            return len(live_workers(client, a.config.queue))
    except (UnreachableError, ConfigurationError) as exc:
        if isinstance(exc, ConfigurationError) and a.config.text("ARCHISYNC_REDIS_URL"):
            raise  # a setting that is wrong has a hint of its own
        raise exc.with_hint("archisync plan --workers 2   (asks no Redis how many are alive)") from None


def _show(a: App, found: Plan) -> None:
    from archisync.base.text import seconds

    if a.output.terminal and a.output.unicode and len(found.hours) > _HOURS_LISTED:
        _show_days(a.output, found)
    else:
        _show_hours(a.output, found)
    told = ", ".join(f"{name} {seconds(mean_s)}" for name, mean_s in found.durations_s.items())
    a.output.line(f"{found.workers} worker(s); a run takes: {told or 'nothing is scheduled'}")
    if found.queued:
        waiting = ", ".join(f"{number} {name}" for name, number in found.queued.items())
        a.output.line(
            f"queued already: {waiting}; {found.queued_s / 60:.1f} min of work, which the first hours have to do as well"
        )
    if found.assumed:
        a.output.line(f"note: {', '.join(found.assumed)} never ran: their duration is assumed")
    for note in found.notes:
        a.output.line(f"warning: {note}")
    if found.keeps_up:
        a.output.line("the workers keep up")


def _show_hours(output: Output, found: Plan) -> None:
    terminal = output.terminal
    most = max((h.total for h in found.hours), default=0)
    width = min(_LONGEST_BAR, max(_SHORTEST_BAR, output.columns - _BESIDE_BAR)) if terminal else _BAR
    plain = not (terminal and output.unicode)
    rows = [
        [
            f"{h.at:%a %d %H:%M}" if terminal else h.at, h.total, f"{h.work_s / 60:.1f}", _load(h.load), f"{h.left_s / 60:.1f}",
            bar(h.total, most, width, ascii_only=plain),
        ]
        for h in found.hours
    ]  # fmt: skip
    heads = ["hour (UTC)", "runs", "minutes of work", "load", "left over", "chart"]
    output.table(heads, rows, less=["minutes of work", "left over"])


def _show_days(output: Output, found: Plan) -> None:
    """A line a day, with a block for each of its hours: a week of hours scrolls away before anybody has read it."""
    most = max(h.total for h in found.hours)
    days: dict[str, list[Hour]] = {}
    for hour in found.hours:
        days.setdefault(f"{hour.at:%a %d %b}", []).append(hour)
    rows = []
    for day, hours in days.items():
        loads = [h.load for h in hours if h.load is not None]
        left = f"{hours[-1].left_s / 60:.1f}"
        row = [
            day,
            sum(h.total for h in hours),
            f"{sum(h.work_s for h in hours) / 60:.1f}",
            _load(max(loads, default=None)),
            left,
        ]
        rows.append([*row, " " * hours[0].at.hour + "".join(block(h.total, most) for h in hours)])
    heads = ["day (UTC)", "runs", "minutes of work", "peak load", "left over", "runs from 0 to 24 h"]
    output.table(heads, rows, less=["minutes of work", "left over"])


def _load(share: float | None) -> str:
    if share is None:
        return "-"
    return "<1%" if 0 < share < _ONE_PER_CENT else f"{share:.0%}"


def block(value: int, most: int) -> str:
    """One block, an eighth to a whole one high; a dot for nothing."""
    return _BLOCKS[max(1, round(value / most * (len(_BLOCKS) - 1)))] if value else _BLOCKS[0]


def bar(value: int, most: int, width: int, *, ascii_only: bool) -> str:
    """A bar of at most `width` characters; anything above nothing shows."""
    length = 0 if not value else max(1, round(value / most * width))
    return ("#" if ascii_only else "█") * length
