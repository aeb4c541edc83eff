"""The header line of a CSV file: which line it is, and the delimiter that it is written with.

It is the first line, unless a line further down has the columns that the sync type requires: then the lines above it are titles.
`sep=;`, which Excel writes and reads, names the delimiter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import NamedTuple, TypeAlias

from archisync.base.errors import ExportError, TruncatedError
from archisync.formats.csv.lines import Lines
from archisync.formats.csv.records import records
from archisync.formats.rows import RequiredPlaces, may_be_row, title_or_row
from archisync.rules.config import CSV_DELIMITERS, CsvDialect

DELIMITERS = {delimiter: name for name, delimiter in CSV_DELIMITERS.items()}
_MOST_TITLES = 30
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
OpenLines: TypeAlias = Callable[[], AbstractContextManager[Lines]]


class Header(NamedTuple):
    """`line` is the number of its first line. `titles` are the lines above it, without the one that says `sep=`."""

    delimiter: str
    labels: tuple[str, ...]
    line: int
    titles: int = 0
    sep_line: bool = False


def find_header(open_lines: OpenLines, dialect: CsvDialect, required: RequiredPlaces) -> Header:
    """The header. `open_lines` opens the file anew.

    Raises ExportError when no line can be the header, or several delimiters may be meant.
    """
    first, delimiter = _start(open_lines, dialect)
    delimiters = [delimiter] if delimiter else list(DELIMITERS)
    sep_line = first > dialect.title_lines + 1
    at_top = _first_records(open_lines, delimiters, first, dialect.quoted, required)
    known = [header for header in at_top if required(header.labels) is not None]
    if not known and not dialect.title_lines:
        known = [header for sign in delimiters if (header := _below_titles(open_lines, sign, first, dialect, required))]
    best = _clearest(known or at_top)
    return best._replace(titles=best.line - 1 - sep_line, sep_line=sep_line)


def skip_to(lines: Lines, number: int) -> None:
    """The next line is the one of that number."""
    while lines.number < number - 1 and next(lines, None) is not None:
        pass


def _start(open_lines: OpenLines, dialect: CsvDialect) -> tuple[int, str | None]:
    """The first line that may be the header, and the delimiter if it is known."""
    with open_lines() as lines:
        skip_to(lines, dialect.title_lines + 1)
        found = _SEP_LINE.fullmatch(next(lines, "").strip(" \r\n"))
    if found is None:
        return dialect.title_lines + 1, dialect.delimiter
    if found[1] not in DELIMITERS and dialect.delimiter is None:
        raise ExportError(
            f"the export names {found[1]!r} as its delimiter (sep=), which is not one of {', '.join(CSV_DELIMITERS)}",
            hint="export it with one of these",
        )
    return lines.number + 1, dialect.delimiter or found[1]


def _first_records(
    open_lines: OpenLines, delimiters: Sequence[str], first: int, quoted: bool, required: RequiredPlaces
) -> list[Header]:
    """The first record under each delimiter; only the one that gives several required columns, as no second one can.

    A delimiter under which the file can't be read is left out, unless all are.
    """
    found: list[Header] = []
    refusals: list[ExportError] = []
    for delimiter in delimiters:
        try:
            with open_lines() as lines:
                skip_to(lines, first)
                line, cells = next(records(lines, delimiter, quoted=quoted), (first, ""))
                header = Header(delimiter, _labels(cells), line)
            if len(required(header.labels) or ()) > 1:
                return [header]
            found.append(header)
        except TruncatedError:
            raise
        except ExportError as exc:  # quotes look damaged when the delimiter is wrong
            refusals.append(exc)
    if not found:
        raise refusals[0]
    return found


def _below_titles(
    open_lines: OpenLines, delimiter: str, first: int, dialect: CsvDialect, required: RequiredPlaces
) -> Header | None:
    """The first record with the required columns. Raises ExportError if it is not clear that all above it are titles."""
    above: list[tuple[str, ...]] = []
    header = Header(delimiter, (), first)
    places: Sequence[int] | None = None
    try:
        with open_lines() as lines:
            skip_to(lines, first)
            for line, cells in islice(records(lines, delimiter, quoted=dialect.quoted), _MOST_TITLES + 1):
                header = Header(delimiter, _labels(cells), line)
                places = required(header.labels)
                if places is not None:
                    break
                above.append(header.labels)
    except ExportError:
        return None
    if places is not None and any(may_be_row(row, header.labels, places) for row in above):
        raise title_or_row(header.line)
    return header if places is not None else None


def _labels(cells: list[str] | str) -> tuple[str, ...]:
    return () if isinstance(cells, str) else tuple(cells)


def _clearest(found: Sequence[Header]) -> Header:
    """The header with the most labels. Raises ExportError when several have as many."""
    most = max(len(header.labels) for header in found)
    best = [header for header in found if len(header.labels) == most]
    if most == 0:
        raise ExportError("the export has no header line that can be read", hint="the first line must name the columns")
    if most > 1 and len(best) > 1:
        names = " and ".join(DELIMITERS[header.delimiter] for header in best)
        raise ExportError(
            f"the delimiter is not clear: {names} both give {most} columns",
            hint="set ARCHISYNC_CSV_DELIMITER, or quote the labels in the header line",
        )
    return best[0]
