"""The live view of `status --watch`: look, draw, wait for a key. Drawn on the terminal's other screen, which is left as it was found.

Each look has a connection of its own, so that a database that restarts is a line on the screen and not the end. A frame is written
over the last one without clearing it, between the marks of synchronized output (DEC mode 2026): nothing flickers, and a terminal that
knows the marks never shows half a frame; one that doesn't ignores them.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from types import FrameType

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from archisync.base.errors import ArchisyncError
from archisync.base.text import duration, printable, relative, seconds
from archisync.cli.output import STYLES
from archisync.cli.tablefit import GAP, fit
from archisync.rules.config import Config
from archisync.store import activity, claims, clock, health, held, settings, ticks
from archisync.store.activity import Point
from archisync.store.database import connected
from archisync.store.health import TypeHealth, UnhealthyPair
from archisync.store.held import Held
from archisync.store.runs import Run
from archisync.store.settings import Pause
from archisync.store.ticks import Heartbeat

TREND_RUNS = 24
NARROW_TREND_RUNS = 8
LISTED = 100
_COLUMNS = (
    "type", "health", "every", "agents", "queued", "running", "stale", "failing", "degraded", "resting", "held", "last ok", "took",
    "next", "trend",
)  # fmt: skip
_FIGURES = _COLUMNS[2:11]
_LESS_TELLING = (
    "resting", "failing", "every", "degraded", "queued", "running", "agents", "stale", "held", "took", "trend", "next", "last ok",
)  # fmt: skip
"""Left out where a terminal is narrow, the first one first."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_ALERTS = {"failed": ("x", "red"), "held": ("!", "yellow")}
_NAME_WIDTH = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """What Redis tells; `error` in its place when it can't be asked."""

    alive: int = 0
    busy: int = 0
    idle: Sequence[str] = ()
    queue_length: int = 0
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One look at everything."""

    now: datetime
    health: Sequence[TypeHealth]
    trends: dict[str, list[Point]]
    beat: Heartbeat | None
    running: Sequence[Run]
    held: Sequence[Held]
    ailing: Sequence[UnhealthyPair]
    pauses: Sequence[Pause]
    workers: Workers


def look(config: Config) -> Snapshot:
    """Raises what a connection raises; Redis may be away."""
    with connected(config.database_url, purpose="status --watch") as db:
        return Snapshot(
            now=clock.now(db),
            health=health.type_health(db),
            trends=activity.trends(db, limit=TREND_RUNS),
            beat=ticks.last(db),
            running=claims.running(db, limit=LISTED),
            held=held.held_exports(db, limit=LISTED),
            ailing=health.unhealthy_pairs(db, limit=LISTED),
            pauses=settings.pauses(db),
            workers=_workers(config),
        )


def _workers(config: Config) -> Workers:
    from archisync.queue.client import redis_client
    from archisync.queue.joblist import queue_length
    from archisync.queue.workers import live_workers

    try:
        with redis_client(config.redis_url) as client:
            workers = live_workers(client, config.queue)
            return Workers(
                alive=len(workers),
                busy=sum(worker.state == "busy" for worker in workers),
                idle=sorted(worker.place for worker in workers if worker.state != "busy"),
                queue_length=queue_length(client, config.queue),
            )
    except ArchisyncError as exc:
        return Workers(error=exc.message)


# --- drawing ------------------------------------------------------------------------------------------------------


def draw(snapshot: Snapshot, *, width: int, height: int, problem: str | None = None) -> RenderableType:
    """The whole frame; what does not fit into the height is counted in its last line."""
    lines = [*_head(snapshot, problem, width)]
    table = _types(snapshot, width=width)
    details = _details(snapshot)
    room = max(1, height - len(lines) - len(snapshot.health) - 4)
    if len(details) > room:
        details = [*details[: room - 1], Text(f"… and {len(details) - room + 1} more", style="dim")]
    for line in (*lines, *details):
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines, table, *details, Text("q ends", style="dim"))


def _head(s: Snapshot, problem: str | None, width: int) -> Iterator[Text]:
    note = ticks.overdue_note(s.beat)
    tick = note or (
        f"last tick {s.beat.age_s:.0f} s ago on {printable(s.beat.host, limit=_NAME_WIDTH)}" if s.beat else ""
    )
    style = "red" if note or (s.beat and s.beat.error) else "green"
    title = Text.assemble(("archisync", "bold"), f"  {s.now:%Y-%m-%d %H:%M:%S} UTC  ")
    if cell_len(title.plain) + cell_len(tick) <= width:
        yield title.append(tick, style=style)
    else:
        yield from (title, Text(tick, style=style))
    w = s.workers
    if w.error:
        yield Text(printable(w.error), style="red")
    else:
        told = f"queue {w.queue_length}, workers {w.alive}: {w.busy} busy, {w.alive - w.busy} idle"
        yield Text(told, style="" if w.alive else "red")
    if problem:
        yield Text(f"{printable(problem)} (trying again; this is the last look)", style="bold red")


def _types(s: Snapshot, *, width: int) -> Table:
    rows = [_row(s, h) for h in s.health]
    widths = [max(len(name), *(cell_len(row[i].plain) for row in rows)) for i, name in enumerate(_COLUMNS)]
    trend = len(_COLUMNS) - 1
    widths[trend] = min(widths[trend], NARROW_TREND_RUNS)
    found = fit(_COLUMNS, widths, room=width, less=_LESS_TELLING)
    shown = found.shown or (0, 1)
    spare = width - sum(widths[i] for i in shown) - GAP * (len(shown) - 1)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for i in shown:
        table.add_column(_COLUMNS[i], justify="right" if _COLUMNS[i] in _FIGURES else "left", no_wrap=True)
    for row, h in zip(rows, s.health, strict=True):
        runs = max(NARROW_TREND_RUNS, min(TREND_RUNS, NARROW_TREND_RUNS + spare))
        row[trend] = sparkline(s.trends.get(h.sync_type, [])[-runs:])
        table.add_row(*(row[i] for i in shown))
    return table


def _row(s: Snapshot, h: TypeHealth) -> list[Text]:
    points = s.trends.get(h.sync_type, [])
    last = relative(h.newest_success_at, s.now) if h.newest_success_at else "never"
    following = relative(h.next_due_at, s.now) if h.next_due_at else "-"
    succeeded = [p.seconds for p in points if p.state == "succeeded"]
    cells = [
        h.sync_type, Text(h.word, style=STYLES.get(h.word, "")), f"{h.interval_minutes} min", h.shown("pairs"), h.shown("queued"),
        h.shown("running"), _alert(h, "stale", "yellow"), _alert(h, "failing", "yellow"), _alert(h, "degraded", "red"),
        h.shown("backing_off"), _alert(h, "held", "yellow"), last, seconds(succeeded[-1]) if succeeded else "-", following,
        sparkline(points),
    ]  # fmt: skip
    return [cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells]


def _alert(h: TypeHealth, name: str, style: str) -> Text:
    return Text(str(h.shown(name)), style=style if getattr(h, name) else "dim")


def sparkline(points: Sequence[Point]) -> Text:
    """A block for each run, as high as it was long; x for a failed one, ! for a held one."""
    longest = max((p.seconds for p in points), default=0.0)
    text = Text()
    for point in points:
        if point.state in _ALERTS:
            text.append(*_ALERTS[point.state])
        else:
            share = point.seconds / longest if longest > 0 else 0.0
            text.append(_BLOCKS[min(len(_BLOCKS) - 1, int(share * len(_BLOCKS)))], "green")
    return text


def _details(s: Snapshot) -> list[Text]:
    found = []
    for run in s.running:
        since = duration(s.now - run.started_at) if run.started_at else "?"
        found.append(_line("running", f"{_pair(run)} for {since} on {run.worker} (run {run.run_id})"))
    if s.workers.idle:
        found.append(_line("idle", ", ".join(s.workers.idle)))
    for h in s.held:
        found.append(_line("held", f"{_pair(h)} (archisync held show {h.run_id}): {h.message}"))
    for pair in s.ailing:
        word, _, told = pair.describe(lambda moment: relative(moment, s.now)).partition(": ")
        found.append(_line(word, told))
    for p in s.pauses:
        about = " of ".join(part for part in (p.sync_type, p.agent_id) if part) or "everything"
        found.append(_line("paused", f"{about}{': ' + p.reason if p.reason else ''}"))
    return found


def _pair(thing: Run | Held) -> str:
    return f"{thing.sync_type} of {thing.agent_id}"


def _line(word: str, text: str) -> Text:
    return Text.assemble((f"{word:<8} ", STYLES.get(word, "yellow")), printable(text, limit=500))


# --- the loop -----------------------------------------------------------------------------------------------------


def watch(config: Config, *, every_s: float, colour: bool) -> bool:
    """Show until q or Ctrl-C (then True). Raises what the first look raises: a wrong setting is no live view."""
    snapshot, problem = look(config), None
    console = Console(no_color=not colour, highlight=False, markup=False)
    with _terminated_by_sigterm(), _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as screen:
        try:
            while True:
                frame = draw(snapshot, width=console.width, height=console.height, problem=problem)
                with _at_once(console):
                    screen.update(frame, refresh=True)
                if _quit_within(keys, every_s):
                    return False
                try:
                    snapshot, problem = look(config), None
                except ArchisyncError as exc:
                    problem = exc.message
        except KeyboardInterrupt:
            return True


@contextmanager
def _at_once(console: Console) -> Iterator[None]:
    """What is written in here is to be shown as a whole."""
    console.file.write("\x1b[?2026h")
    try:
        yield
    finally:
        console.file.write("\x1b[?2026l")
        console.file.flush()


def _quit_within(keys: int, seconds_left: float) -> bool:
    """Whether q was typed, among other keys perhaps; waits so long if it was not. Escape and a closed terminal count as q."""
    until = monotonic() + seconds_left
    while (left := until - monotonic()) > 0:
        if select.select([keys], [], [], left)[0]:
            typed = os.read(keys, 64).lower()
            if b"q" in typed or typed in (b"", b"\x1b"):
                return True
    return False


@contextmanager
def _keys() -> Iterator[int]:
    """The terminal's keys as they are typed, not shown; Ctrl-C still is one."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield number
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@contextmanager
def _terminated_by_sigterm() -> Iterator[None]:
    """SIGTERM leaves the terminal as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
