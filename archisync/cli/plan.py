"""`archisync plan`: the coming runs, the load of the workers, and where they can't keep up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.text import counted, seconds
from archisync.cli.arguments import AgentOption, Json, TypeOption
from archisync.cli.context import app
from archisync.rules.forecast import ESTIMATED
from archisync.rules.synctypes import sync_type
from archisync.rules.times import parse_span

if TYPE_CHECKING:
    from archisync.cli.output import Output
    from archisync.rules.forecast import Forecast, Hour

_HOURS_LISTED = 48
"""A terminal gets a longer forecast by days: a week of hours would scroll off the screen."""
_ONE_PER_CENT = 0.01
_BLOCKS = "·▁▂▃▄▅▆▇█"
_BAR_IN_A_PIPE = 30
_SHORTEST_BAR, _LONGEST_BAR = 8, 60
_BESIDE_BAR = 55
"""Columns of a terminal that the other figures and the gaps take."""


def plan(
    ctx: typer.Context,
    span: Annotated[str, typer.Option("--for", metavar="SPAN", help="How far ahead: 6h, 24h, 7d.")] = "24h",
    type_name: TypeOption = None,
    agent: AgentOption = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-n", metavar="NUMBER", min=1, max=100_000, help="Calculate with so many workers."),
    ] = None,
    json: Json = False,
) -> None:
    """Show the coming runs, and whether the workers can keep up. Calculated from the settings and measured durations.

    Example: archisync plan --for 24h

    Example, before you shorten an interval: archisync plan --workers 8 --type orders
    """
    from archisync.observe.plan import check_span, document, forecast, workers_alive

    a = app(ctx)
    ahead = check_span(span, parse_span(span))
    name = sync_type(type_name).name if type_name else None
    with a.database("plan") as db:
        alive = workers_alive(a.config) if workers is None else workers
        found = forecast(db, type_name=name, agent_id=agent, span=ahead, workers=alive)
    if json:
        a.output.json(**document(found))
        return
    _show(a.output, found)


def _show(output: Output, found: Forecast) -> None:
    if output.terminal and output.unicode and len(found.hours) > _HOURS_LISTED:
        _show_days(output, found)
    else:
        _show_hours(output, found)
    durations = ", ".join(f"{name} {seconds(mean_s)}" for name, mean_s in found.durations_s.items())
    output.line(f"{counted(found.workers, 'worker')}; a run takes: {durations or 'nothing is scheduled'}")
    if found.queued:
        waiting = ", ".join(f"{number} {name}" for name, number in found.queued.items())
        output.line(f"already queued: {waiting}; {found.queued_s / 60:.1f} min of work for the first hours")
    if found.assumed:
        output.line(f"note: {', '.join(found.assumed)} never ran: their duration is assumed")
    if found.estimated:
        output.line(f"note: the runs are {ESTIMATED}")
    for note in found.notes:
        output.line(f"warning: {note}")
    if found.keeps_up:
        output.line("the workers keep up")


def _show_hours(output: Output, found: Forecast) -> None:
    terminal = output.terminal
    most = max((h.total for h in found.hours), default=0)
    width = min(_LONGEST_BAR, max(_SHORTEST_BAR, output.columns - _BESIDE_BAR)) if terminal else _BAR_IN_A_PIPE
    ascii_only = not (terminal and output.unicode)
    rows = [
        [
            f"{h.at:%a %d %H:%M}" if terminal else h.at, h.total, f"{h.work_s / 60:.1f}", _load(h.load), f"{h.left_s / 60:.1f}",
            bar(h.total, most, width, ascii_only=ascii_only),
        ]
        for h in found.hours
    ]  # fmt: skip
    heads = ["hour (UTC)", "runs", "minutes of work", "load", "left over", "chart"]
    output.table(heads, rows, less=["minutes of work", "left over"])


def _show_days(output: Output, found: Forecast) -> None:
    """A line for each day, with a block for each of its hours."""
    most = max(h.total for h in found.hours)
    days: dict[str, list[Hour]] = {}
    for hour in found.hours:
        days.setdefault(f"{hour.at:%a %d %b}", []).append(hour)
    rows = []
    for day, hours in days.items():
        work_s = sum(h.work_s for h in hours)
        peak = max((h.load for h in hours if h.load is not None), default=None)
        chart = " " * hours[0].at.hour + "".join(block(h.total, most) for h in hours)
        left = f"{hours[-1].left_s / 60:.1f}"
        rows.append([day, sum(h.total for h in hours), f"{work_s / 60:.1f}", _load(peak), left, chart])
    heads = ["day (UTC)", "runs", "minutes of work", "peak load", "left over", "runs from 0 to 24 h"]
    output.table(heads, rows, less=["minutes of work", "left over"])


def _load(share: float | None) -> str:
    if share is None:
        return "-"
    return "<1%" if 0 < share < _ONE_PER_CENT else f"{share:.0%}"


def block(value: int, most: int) -> str:
    """One block, from an eighth to the full height; a dot for 0."""
    return _BLOCKS[max(1, round(value / most * (len(_BLOCKS) - 1)))] if value else _BLOCKS[0]


def bar(value: int, most: int, width: int, *, ascii_only: bool) -> str:
    """A bar of at most `width` characters; only 0 has none."""
    length = 0 if not value else max(1, round(value / most * width))
    return ("#" if ascii_only else "█") * length
