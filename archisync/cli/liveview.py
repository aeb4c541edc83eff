"""The live view of `status --watch`: read, draw, wait for a key. It uses the terminal's alternate screen and restores the terminal.

Each update opens its own connection, so that a restart of PostgreSQL is a line on the screen and not the end. A frame is written over the
last one without clearing it, between the marks of synchronized output (DEC mode 2026), so nothing flickers: a terminal that knows the marks
shows only whole frames, any other ignores them.
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
from time import monotonic
from types import FrameType

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from archisync.base.errors import ArchisyncError
from archisync.base.text import duration, printable, relative, seconds, with_hint
from archisync.cli.output import STYLES
from archisync.cli.tablefit import GAP, fit
from archisync.observe.snapshot import PAIRS_NAMED, Snapshot, read_snapshot
from archisync.rules.config import Config
from archisync.store import activity
from archisync.store.activity import Point
from archisync.store.database import connected
from archisync.store.health import TypeHealth
from archisync.store.held import Held
from archisync.store.runs import Run

TREND_RUNS = 24
NARROW_TREND_RUNS = 8
"""Runs in the trend of a type: as many as there is room for, between these two."""
LISTED = 100
"""Held exports or pairs that one update reads: more than any screen has lines."""
_COLUMNS = (
    "type", "health", "every", "agents", "queued", "running", "stale", "failing", "degraded", "resting", "held", "last ok", "took",
    "next", "trend",
)  # fmt: skip
_NUMBERS = _COLUMNS[2:11]
_LESS_IMPORTANT = (
    "resting", "failing", "every", "degraded", "queued", "running", "agents", "stale", "held", "took", "trend", "next", "last ok",
)  # fmt: skip
"""Columns that a narrow terminal leaves out, the first one first."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_ALERTS = {"failed": ("x", "red"), "held": ("!", "yellow")}
_NAME_WIDTH = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """What Redis says about the workers. `error`: why it can't be asked."""

    alive: int = 0
    busy: int = 0
    idle: Sequence[str] = ()
    queue_length: int = 0
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Everything that one frame shows."""

    status: Snapshot
    trends: dict[str, list[Point]]
    workers: Workers


def read_view(config: Config) -> View:
    """Read everything anew. Raises errors of PostgreSQL; an error of Redis is in the view."""
    with connected(config.database_url, purpose="status --watch") as db:
        return View(
            status=read_snapshot(db, held_limit=LISTED, pairs_limit=LISTED),
            trends=activity.trends(db, limit=TREND_RUNS),
            workers=_read_workers(config),
        )


def _read_workers(config: Config) -> Workers:
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
        return Workers(error=with_hint(exc.message, exc.hint))


# --- drawing ------------------------------------------------------------------------------------------------------


def draw(view: View, *, width: int, height: int, problem: str | None = None) -> RenderableType:
    """The whole frame. Its last line counts what the height has no room for. `problem`: why the view is an old one."""
    lines = [*_head(view, width), *_problem(problem)]
    details = _details(view)
    room = max(1, height - len(lines) - len(view.status.types) - 4)
    if len(details) > room:
        details = [*details[: room - 1], Text(f"… and {len(details) - room + 1} more", style="dim")]
    for line in (*lines, *details):
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines, _table(view, width), *details, Text("q ends", style="dim"))


def _head(view: View, width: int) -> Iterator[Text]:
    title = Text.assemble(("archisync", "bold"), f"  {view.status.now:%Y-%m-%d %H:%M:%S} UTC  ")
    tick = _last_tick(view.status)
    if cell_len(title.plain) + cell_len(tick.plain) <= width:
        yield title.append(tick)
    else:
        yield from (title, tick)
    w = view.workers
    if w.error:
        yield Text(printable(w.error), style="red")
    else:
        counts = f"queue {w.queue_length}, workers {w.alive}: {w.busy} busy, {w.alive - w.busy} idle"
        yield Text(counts, style="" if w.alive else "red")


def _last_tick(s: Snapshot) -> Text:
    tick = s.last_tick
    if tick is None or s.tick_note:
        return Text(s.tick_note or "", style="red")
    host = printable(tick.host, limit=_NAME_WIDTH)
    return Text(f"last tick {tick.age_s:.0f} s ago on {host}", style="red" if tick.error else "green")


def _problem(problem: str | None) -> Iterator[Text]:
    if problem:
        yield Text(f"{printable(problem)} (this is the last view; trying again)", style="bold red")


def _table(view: View, width: int) -> Table:
    types = view.status.types
    rows = [_row(view, h) for h in types]
    widths = [max(len(name), *(cell_len(row[i].plain) for row in rows)) for i, name in enumerate(_COLUMNS)]
    trend = len(_COLUMNS) - 1
    widths[trend] = min(widths[trend], NARROW_TREND_RUNS)
    shown = fit(_COLUMNS, widths, room=width, less=_LESS_IMPORTANT).shown or (0, 1)
    spare = width - sum(widths[i] for i in shown) - GAP * (len(shown) - 1)
    runs = max(NARROW_TREND_RUNS, min(TREND_RUNS, NARROW_TREND_RUNS + spare))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for i in shown:
        table.add_column(_COLUMNS[i], justify="right" if _COLUMNS[i] in _NUMBERS else "left", no_wrap=True)
    for row, h in zip(rows, types, strict=True):
        row[trend] = sparkline(view.trends.get(h.sync_type, [])[-runs:])
        table.add_row(*(row[i] for i in shown))
    return table


def _row(view: View, h: TypeHealth) -> list[Text]:
    now, points = view.status.now, view.trends.get(h.sync_type, [])
    last_ok = relative(h.newest_success_at, now) if h.newest_success_at else "never"
    next_due = relative(h.next_due_at, now) if h.next_due_at else "-"
    succeeded = [p.seconds for p in points if p.state == "succeeded"]
    cells = [
        h.sync_type, Text(h.word, style=STYLES.get(h.word, "")), f"{h.interval_minutes} min", h.shown("pairs"), h.shown("queued"),
        h.shown("running"), _alert(h, "stale", "yellow"), _alert(h, "failing", "yellow"), _alert(h, "degraded", "red"),
        h.shown("backing_off"), _alert(h, "held", "yellow"), last_ok, seconds(succeeded[-1]) if succeeded else "-", next_due,
        sparkline(points),
    ]  # fmt: skip
    return [cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells]


def _alert(h: TypeHealth, name: str, style: str) -> Text:
    return Text(str(h.shown(name)), style=style if getattr(h, name) else "dim")


def sparkline(points: Sequence[Point]) -> Text:
    """A block for each run, as high as the run was long. A failed run is an x, a held one a !."""
    longest = max((p.seconds for p in points), default=0.0)
    text = Text()
    for point in points:
        if point.state in _ALERTS:
            text.append(*_ALERTS[point.state])
        else:
            share = point.seconds / longest if longest > 0 else 0.0
            text.append(_BLOCKS[min(len(_BLOCKS) - 1, int(share * len(_BLOCKS)))], "green")
    return text


def _details(view: View) -> list[Text]:
    s, found = view.status, []
    for run in s.running:
        since = duration(s.now - run.started_at) if run.started_at else "?"
        found.append(_line("running", f"{_pair(run)} for {since} on {run.worker} (run {run.run_id})"))
    if view.workers.idle:
        found.append(_line("idle", ", ".join(view.workers.idle)))
    for h in s.held:
        found.append(_line("held", f"{_pair(h)} (archisync held show {h.run_id}): {with_hint(h.message, h.hint)}"))
    for pair in s.unhealthy:
        word, _, sentence = pair.describe(lambda moment: relative(moment, s.now)).partition(": ")
        found.append(_line(word, sentence))
    for w in s.warned[:PAIRS_NAMED]:
        found.append(
            _line("warned", f"{w.sync_type} of {w.agent_id} (archisync show {w.run_id}): {'; '.join(w.messages)}")
        )
    for p in s.pauses:
        scope = " of ".join(part for part in (p.sync_type, p.agent_id) if part) or "everything"
        found.append(_line("paused", f"{scope}{': ' + p.reason if p.reason else ''}"))
    return found


def _pair(thing: Run | Held) -> str:
    return f"{thing.sync_type} of {thing.agent_id}"


def _line(word: str, text: str) -> Text:
    return Text.assemble((f"{word:<8} ", STYLES.get(word, "yellow")), printable(text, limit=500))


# --- the loop -----------------------------------------------------------------------------------------------------


def watch(config: Config, *, every_s: float, colour: bool) -> bool:
    """Show the view until q (False) or Ctrl-C (True). An error of the first update is raised: a wrong setting needs no live view."""
    view, problem = read_view(config), None
    console = Console(no_color=not colour, highlight=False, markup=False)
    with _sigterm_as_ctrl_c(), _raw_keys() as keys, Live(console=console, screen=True, auto_refresh=False) as screen:
        try:
            while True:
                frame = draw(view, width=console.width, height=console.height, problem=problem)
                with _whole_frame(console):
                    screen.update(frame, refresh=True)
                if _quit_within(keys, every_s):
                    return False
                try:
                    view, problem = read_view(config), None
                except ArchisyncError as exc:
                    problem = with_hint(exc.message, exc.hint)
        except KeyboardInterrupt:
            return True


@contextmanager
def _whole_frame(console: Console) -> Iterator[None]:
    """The terminal shows what the block writes all at once."""
    console.file.write("\x1b[?2026h")
    try:
        yield
    finally:
        console.file.write("\x1b[?2026l")
        console.file.flush()


def _quit_within(keys: int, timeout_s: float) -> bool:
    """Wait for q, even among other keys, and say whether it was typed. Escape and a closed terminal count as q."""
    until = monotonic() + timeout_s
    while (left := until - monotonic()) > 0:
        if select.select([keys], [], [], left)[0]:
            typed = os.read(keys, 64).lower()
            if b"q" in typed or typed in (b"", b"\x1b"):
                return True
    return False


@contextmanager
def _raw_keys() -> Iterator[int]:
    """The file descriptor of the terminal's keys, which arrive as they are typed and are not echoed. Ctrl-C still interrupts."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    try:
        yield stdin
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM restores the terminal too."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
