"""Everything that archisync shows: stdout is data, stderr is talk. The one module that prints.

On a terminal: tables, colour, "3 min ago". In a pipe: plain columns, no colour, no wrapping, ISO 8601 UTC. With `--json`: one JSON
document with a `schema` number. Text from the database, the ERP or the command line passes `printable` first, so that a hostile
name can't move the cursor. rich is imported only where a terminal shows a table.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from archisync import streams
from archisync.config import redact
from archisync.errors import ArchisyncError
from archisync.text import escaped, printable

JSON_SCHEMA = 1
"""Rises when a field of any --json output changes its meaning or goes away; new fields don't raise it."""

STYLES = {
    "succeeded": "green", "healthy": "green", "running": "cyan", "queued": "blue", "held": "yellow", "failed": "red",
    "degraded": "red", "stale": "yellow", "failing": "yellow", "paused": "magenta", "disabled": "dim", "skipped": "dim",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ago:
    """A time that a terminal shows relative to `now` (PostgreSQL's), and a pipe as ISO 8601 UTC."""

    moment: datetime | None
    now: datetime


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, whole seconds: 2026-11-23T10:00:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(span: timedelta) -> str:
    """A span in its largest sensible unit: 45 s, 12 min, 3 h, 2 d."""
    seconds = abs(span.total_seconds())
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86_400)} d"


def relative(moment: datetime, now: datetime) -> str:
    if abs(moment - now) < timedelta(seconds=1):
        return "now"
    return f"in {duration(moment - now)}" if moment > now else f"{duration(now - moment)} ago"


class Output:
    """Where a command writes. `quiet` silences talk, never data or errors."""

    def __init__(self, *, quiet: bool = False, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self.quiet = quiet

    @property
    def terminal(self) -> bool:
        return self._stdout.isatty()

    @property
    def colour(self) -> bool:
        return self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    # --- data -------------------------------------------------------------------------------------------------

    def json(self, **document: Any) -> None:
        """One JSON document on stdout: `schema` and the given fields."""
        text = json.dumps({"schema": JSON_SCHEMA, **document}, default=_plain, ensure_ascii=False, indent=2)
        self._write("".join(f"{escaped(line)}\n" for line in text.split("\n")))

    def line(self, text: str = "") -> None:
        """One line of data."""
        self._write(printable(text, limit=100_000) + "\n")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str = "nothing to show") -> None:
        """Rows under headers. A cell may be None, a datetime, an `Ago`, a bool, a number or text."""
        if not rows:
            self.say(empty)
            return
        cells = [[self._cell(value) for value in row] for row in rows]
        if self.terminal:
            self._rich_table(headers, rows, cells)
        else:
            self._plain_table(headers, cells)

    def fields(self, pairs: Mapping[str, Any]) -> None:
        """One thing in full: a name and a value a line; empty values are left out."""
        shown = [(name, self._cell(value)) for name, value in pairs.items() if value is not None and value != ""]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self._write(f"{name:<{width}}  {value}\n")

    def _cell(self, value: Any) -> str:
        match value:
            case None:
                return "-"
            case bool():
                return "yes" if value else "no"
            case Ago(moment=None):
                return "never"
            case Ago(moment=datetime() as moment, now=now):
                return relative(moment, now) if self.terminal else iso(moment)
            case datetime():
                return iso(value)
            case float():
                return f"{value:.1f}"
            case _:
                return printable(str(value))

    def _plain_table(self, headers: Sequence[str], cells: list[list[str]]) -> None:
        lines = [[h.upper() for h in headers], *cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
        for line in lines:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self._write("  ".join(padded).rstrip() + "\n")

    def _rich_table(self, headers: Sequence[str], rows: Sequence[Sequence[Any]], cells: list[list[str]]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for index, header in enumerate(headers):
            numbers = all(
                isinstance(row[index], int | float | None) and not isinstance(row[index], bool) for row in rows
            )
            table.add_column(header, justify="right" if numbers else "left", overflow="fold")
        for line in cells:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in line))
        Console(file=self._stdout, no_color=not self.colour, highlight=False, markup=False).print(table)

    def _write(self, text: str) -> None:
        streams.write(self._stdout, text.encode("utf-8", "replace").decode("utf-8"))

    # --- talk -------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A remark for the person: on stderr, silenced by --quiet."""
        if not self.quiet:
            streams.write(self._stderr, printable(text) + "\n")

    def error(self, exc: ArchisyncError) -> None:
        """`error: what happened`, then `hint: the command to type`."""
        told = f"error: {printable(redact(exc.message))}\n"
        if exc.hint:
            told += f"hint: {printable(redact(exc.hint))}\n"
        streams.write(self._stderr, told)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Ago):
        return iso(value.moment) if value.moment else None
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
