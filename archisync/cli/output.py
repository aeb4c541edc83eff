"""Everything that archisync prints: data to stdout, talk to stderr.

On a terminal: tables, colour, "3 min ago". In a pipe: plain columns, no colour, no wrapping, ISO 8601 UTC. With `--json`: one JSON
document with a `schema` number. Text from the database, the ERP or the command line first goes through `printable`, so that a hostile name
can't move the cursor. rich is imported only to draw a table on a terminal.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from archisync.base import jsontext, stdio
from archisync.base.errors import ArchisyncError, UsageError
from archisync.base.log import EventLog, logging_command
from archisync.base.text import escaped, iso, printable, redact, relative

if TYPE_CHECKING:
    from archisync.cli.tablefit import Fit

STYLES = {
    "succeeded": "green", "healthy": "green", "running": "cyan", "queued": "blue", "held": "yellow", "failed": "red",
    "degraded": "red", "stale": "yellow", "failing": "yellow", "paused": "magenta", "disabled": "dim", "skipped": "dim",
}  # fmt: skip


class Ago(NamedTuple):
    """A time in a table: a terminal shows it relative to `now` (PostgreSQL's clock), a pipe gets it as ISO 8601 UTC."""

    moment: datetime | None
    now: datetime


class Output:
    """Where a command writes. `quiet` silences talk, but never data or errors."""

    def __init__(self, *, quiet: bool = False, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self.quiet = quiet
        if not self.unicode and isinstance(self._stdout, io.TextIOWrapper):
            self._stdout.reconfigure(errors="replace")  # a character that the locale lacks must not end the command

    @property
    def unicode(self) -> bool:
        """Whether standard output takes any character. In an old locale (ISO-8859-1, or C without Python's UTF-8 mode) it does not."""
        return (self._stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"

    @property
    def terminal(self) -> bool:
        return self._stdout.isatty()

    @property
    def has_reader(self) -> bool:
        """Whether somebody may still read standard output: no pipe was found closed, no disk full."""
        return not stdio.is_discarded(self._stdout)

    @property
    def columns(self) -> int:
        """The width of the terminal; 80 without one."""
        return shutil.get_terminal_size().columns

    @property
    def colour(self) -> bool:
        return self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    # --- data -------------------------------------------------------------------------------------------------

    def json(self, **document: Any) -> None:
        """One JSON document on stdout: `schema` and the given fields."""
        text = jsontext.document(document, ascii_only=not self.unicode)
        self._write("".join(f"{escaped(line)}\n" for line in text.split("\n")))

    def json_line(self, **document: Any) -> None:
        """The same on one line, where more documents follow, or for a log."""
        self._write(escaped(jsontext.document(document, ascii_only=not self.unicode, indent=None)) + "\n")

    def line(self, text: str = "") -> None:
        """One line of data, however long: whoever reads it wants all of it."""
        self._write(printable(text, limit=len(text)) + "\n")

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        empty: str = "nothing to show",
        less: Sequence[str] = (),
        folds: str | None = None,
        columns: str | None = None,
    ) -> None:
        """Rows under headers, or the remark `empty`. A cell may be None, a datetime, an `Ago`, a bool, a number or text. `columns`: what
        --columns names; raises UsageError if it names one that there isn't.

        On a narrow terminal, the column `folds` breaks its text into several lines, and columns named in `less` are left out, the first
        one first; see `archisync.cli.tablefit`. A pipe always gets every column.
        """
        if columns is not None:
            chosen = named_columns(headers, columns)
            headers, rows, less = [headers[i] for i in chosen], [[row[i] for i in chosen] for row in rows], ()
        if not rows:
            self.say(empty)
            return
        cells = [[self._cell(value) for value in row] for row in rows]
        if self.terminal:
            self._terminal_table(headers, rows, cells, less, folds)
        else:
            self._plain_table(headers, cells)

    def fields(self, pairs: Mapping[str, Any]) -> None:
        """One thing in full, a name and a value on each line. Empty values are left out."""
        self._fields([(name, self._cell(value)) for name, value in pairs.items() if value is not None and value != ""])

    def _fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self._write(f"{name:<{width}}  {value}\n")

    def moment(self, moment: datetime, now: datetime) -> str:
        """The time as text: relative on a terminal, exact in a pipe."""
        return relative(moment, now) if self.terminal else iso(moment)

    def _cell(self, value: Any) -> str:
        match value:
            case None:
                return "-"
            case bool():
                return "yes" if value else "no"
            case Ago(moment=None):
                return "never"
            case Ago(moment=datetime() as moment, now=now):
                return self.moment(moment, now)
            case datetime():
                return iso(value)
            case float():
                return f"{value:.1f}" if value >= 1 or not value else f"{value:.3f}"
            case _:
                return printable(str(value))

    def _plain_table(self, headers: Sequence[str], cells: list[list[str]]) -> None:
        lines = [[h.upper() for h in headers], *cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
        for line in lines:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self._write("  ".join(padded).rstrip() + "\n")

    def _terminal_table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[Any]],
        cells: list[list[str]],
        less: Sequence[str],
        folds: str | None,
    ) -> None:
        from rich.cells import cell_len

        from archisync.cli.tablefit import fit, shortened

        def fitted(lines: list[list[str]]) -> Fit:
            widths = [max(cell_len(line[i]) for line in [headers, *lines]) for i in range(len(headers))]
            return fit(headers, widths, room=self.columns, less=less, folds=folds)

        found = fitted(cells)
        if found.left_out or found.records:  # one very long id must not cost everybody else's columns
            short = [
                [cell if h == folds else shortened(cell) for h, cell in zip(headers, line, strict=True)]
                for line in cells
            ]
            found = fitted(short)
            cells = cells if found.records else short
        if found.records:
            self._records(headers, cells)
            return
        numeric = [_numeric([row[i] for row in rows]) for i in range(len(headers))]
        self._rich_table(headers, cells, numeric, found, folds)
        if found.left_out:
            self.say(f"no room for {', '.join(found.left_out)} (a wider terminal or --json shows them)")

    def _records(self, headers: Sequence[str], cells: list[list[str]]) -> None:
        for number, line in enumerate(cells):
            if number:
                self._write("\n")
            self._fields(list(zip(headers, line, strict=True)))

    def _rich_table(
        self, headers: Sequence[str], cells: list[list[str]], numeric: list[bool], found: Fit, folds: str | None
    ) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        for i in found.shown:
            folding = headers[i] == folds
            table.add_column(
                headers[i],
                justify="right" if numeric[i] else "left",
                no_wrap=not folding,
                width=found.folded_width if folding else None,
                overflow="fold",
            )
        for line in cells:
            table.add_row(*(Text(line[i], style=STYLES.get(line[i], "")) for i in found.shown))
        console = Console(
            file=self._stdout, no_color=not self.colour, highlight=False, markup=False, width=self.columns
        )
        console.print(table)

    def _write(self, text: str) -> None:
        stdio.write_data(self._stdout, text.encode("utf-8", "replace").decode("utf-8"))

    # --- talk -------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A remark for a person, on stderr; --quiet silences it. One log event where standard error is a log."""
        if self.quiet:
            return
        if (command := self._logging_command()) is not None:
            EventLog(self._stderr).event("command-said", command=command, message=text)
        else:
            stdio.write(self._stderr, printable(text) + "\n")

    def _logging_command(self) -> str | None:
        """The command, if its standard error is a log now."""
        return None if self._stderr.isatty() else logging_command(sys.argv[1:])

    def ask(self, question: str) -> bool | None:
        """Ask a person, on stderr: the answer, no if it is anything but yes. None without a terminal."""
        if not (self.terminal and sys.stdin.isatty()):
            return None
        stdio.write(self._stderr, printable(question) + " [y/N] ")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def error(self, exc: ArchisyncError, *, traceback: str | None = None) -> None:
        """`error: what happened`, then `hint: the command to type`; one log event where standard error is a log.

        `traceback`: comes first, without the passwords that libraries put into their messages.
        """
        if (command := self._logging_command()) is not None:
            EventLog(self._stderr).event(
                "command-failed",
                command=command,
                message=exc.message,
                hint=exc.hint,
                exit_code=int(exc.exit_code),
                traceback=traceback,
            )
            return
        for line in redact(traceback or "").splitlines():
            stdio.write(self._stderr, printable(line) + "\n")
        text = f"error: {printable(redact(exc.message))}\n"
        if exc.hint:
            text += f"hint: {printable(redact(exc.hint))}\n"
        stdio.write(self._stderr, text)


def named_columns(headers: Sequence[str], names: str) -> list[int]:
    """The indices of the columns that a list such as `run,type,next due` names, in its order. Raises UsageError."""
    places = {header.casefold(): i for i, header in enumerate(headers)}
    wanted = [" ".join(name.replace("_", " ").split()).casefold() for name in names.split(",")]
    for name in wanted:
        if name not in places:
            raise UsageError(f"there is no column {ascii(name)[:40]}", hint="allowed: " + ", ".join(headers))
    return [places[name] for name in dict.fromkeys(wanted)]


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float | None) and not isinstance(value, bool) for value in values)
