"""CSV exports: encoding, delimiter and line end are detected; a truncated file is never taken for a complete one.

A CSV file has no end mark. What is checked instead: the last byte is a line end, every quoted cell is closed, the last
row has all its cells. So the only cut that can't be seen is one exactly after a row (and the guard counts rows).

Lines end with LF or CR LF, or, when the header line ends with a lone CR, with CR throughout.
"""

import codecs
import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from archisync.config import CSV_DELIMITERS, DETECT, CsvDialect
from archisync.errors import ExportError, TruncatedError
from archisync.formats.interface import BadRow, PlainLines, RawRow
from archisync.plainlines import MAX_LINE_CHARS as MAX_PLAIN_LINE_CHARS

MAX_LINE_CHARS = 2 * 1024 * 1024  # 25 cells of 64 KiB are 1.6 MiB; short cells take thirty times their size in memory
MAX_CELL_CHARS = 1024 * 1024  # far above the 64 KiB that a cell may have; values.py refuses those row by row
DELIMITERS = {delimiter: name for name, delimiter in CSV_DELIMITERS.items()}
_BLOCK_BYTES = 256 * 1024
_BLOCK_CHARS = 128 * 1024
_AGAIN_HINT = "the transfer or the ERP's export job was cut off; export it again"


class CsvTable:
    """A CSV file. What the dialect leaves open is detected. Raises ExportError when it is visibly truncated, not text, or has
    no clear header line."""

    def __init__(self, path: Path, dialect: CsvDialect = DETECT) -> None:
        # A setting of the whole process: raised only, so that nobody else's larger limit is undone.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
        self._path = path
        self._line_end = _check_line_ends(path)
        self._quoted = dialect.quoted
        self._encoding = _known_encoding(path, dialect.encoding) if dialect.encoding else _detect_encoding(path)
        self.delimiter, self.labels = self._read_header(dialect.delimiter)
        self.detected = {"format": "csv", "encoding": self._encoding, "delimiter": DELIMITERS[self.delimiter]}
        self.detected["quoting"] = "double" if dialect.quoted else "none"
        if dialect != DETECT:
            given = {"delimiter": dialect.delimiter, "encoding": dialect.encoding, "quoting": not dialect.quoted}
            self.detected["configured"] = ", ".join(name for name, value in given.items() if value)

    def rows(self) -> Iterator[RawRow | BadRow]:
        """The rows after the header; blank lines are skipped, a row with too few or too many cells is a BadRow.

        Raises ExportError when a quoted cell is never closed, the last row is short, or damaged quotes make it
        impossible to tell where the next row starts.
        """
        for row in self._read(None):
            assert not isinstance(row, PlainLines)
            yield row

    def rows_and_lines(self, plain: re.Pattern[str]) -> Iterator[RawRow | BadRow | PlainLines]:
        """The same, with the lines that match the pattern unparsed. The pattern must refuse quotes, and ends with a line end."""
        return self._read(plain if self._line_end == "\n" else None)

    def _read(self, plain: re.Pattern[str] | None) -> Iterator[RawRow | BadRow | PlainLines]:
        short: BadRow | None = None  # held back: as the last row it would mean a truncated file
        with self._open() as file:
            lines = _Lines(file, quoted=self._quoted)
            records = _records(lines, self.delimiter, quoted=self._quoted)
            next(records)  # the header
            while True:
                if plain:
                    for found in lines.plain(plain):
                        if short is not None:
                            yield short
                            short = None
                        yield found
                line, cells = next(records, (0, None))
                if cells is None:
                    break
                if short is not None:
                    yield short
                    short = None
                row = self._row(line, cells)
                if isinstance(row, BadRow) and len(cells) < len(self.labels) and not isinstance(cells, str):
                    short = row
                else:
                    yield row
        if short is not None:
            raise TruncatedError(f"truncated: the last row, line {short.line}, {short.reason}", hint=_AGAIN_HINT)

    def _row(self, line: int, cells: list[str] | str) -> RawRow | BadRow:
        if isinstance(cells, str):
            return BadRow(line, cells)
        if len(cells) == len(self.labels):
            return RawRow(line, tuple(cells))
        return BadRow(line, f"has {_cells(len(cells))}, the header has {len(self.labels)}")

    def _open(self) -> TextIO:
        return self._path.open(encoding=self._encoding, newline=self._line_end)

    def _read_header(self, known: str | None) -> tuple[str, tuple[str, ...]]:
        """The delimiter that is known, or cuts the header into the most labels, and these labels."""
        found: list[tuple[str, tuple[str, ...]]] = []
        refusals: list[ExportError] = []
        for delimiter in [known] if known else DELIMITERS:
            try:
                found.append((delimiter, self._labels_by(delimiter)))
            except TruncatedError:
                raise
            except ExportError as exc:  # quotes look damaged under a wrong delimiter
                refusals.append(exc)
        if not found:
            raise refusals[0]
        most = max(len(labels) for _, labels in found)
        best = [(delimiter, labels) for delimiter, labels in found if len(labels) == most]
        if most == 0:
            raise ExportError(
                "the export has no header line that can be read", hint="the first line must name the columns"
            )
        if most > 1 and len(best) > 1:
            names = " and ".join(DELIMITERS[delimiter] for delimiter, _ in best)
            raise ExportError(
                f"the delimiter is not clear: {names} both give {most} columns",
                hint="set ARCHISYNC_CSV_DELIMITER, or quote the labels in the header line",
            )
        return best[0]

    def _labels_by(self, delimiter: str) -> tuple[str, ...]:
        """The header's cells under that delimiter; none when it can't be read so."""
        with self._open() as file:
            lines = _Lines(file, quoted=self._quoted)
            _, cells = next(_records(lines, delimiter, quoted=self._quoted), (0, ""))
        return () if isinstance(cells, str) else tuple(cells)


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


class _Lines:
    """The physical lines of a file, bounded, and what is known about the quotes of the record being read."""

    def __init__(self, file: TextIO, *, quoted: bool) -> None:
        self._file = file
        self._quoted = quoted
        self._ahead: deque[str] = deque()  # lines of the last block that were not plain, and what follows them
        self.number = 0
        self.ended = False
        self.start_record()

    def start_record(self) -> None:
        self.first = self.number + 1
        self.chars = 0
        self.quotes = 0
        self.opened: int | None = None  # the line whose quotes left a cell open, by counting

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else self._file.readline(MAX_LINE_CHARS + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if len(line) > MAX_LINE_CHARS:
            raise ExportError(
                f"line {self.number} is longer than {MAX_LINE_CHARS} characters",
                hint="look whether the export is a CSV file",
            )
        self.chars += len(line)
        if self.chars > MAX_LINE_CHARS:  # cells with line ends in them: one row over any number of lines
            raise ExportError(
                f"the row in line {self.first} is longer than {MAX_LINE_CHARS} characters",
                hint="look for a quote that is never closed",
            )
        if not self._quoted:
            return line
        quotes = line.replace('""', "").count('"')  # a doubled quote neither opens nor closes
        self.quotes += line.count('"')
        if quotes % 2:
            self.opened = None if self.opened else self.number
        elif quotes and self.opened:
            self.opened = self.number  # closed and opened again in this line
        return line

    def plain(self, pattern: re.Pattern[str]) -> Iterator[PlainLines]:
        """The lines from here on that match, as long as they do; the next line needs care then, or there is none."""
        while True:
            if not self._ahead:
                text = self._file.read(_BLOCK_CHARS)
                if text and text[-1] != "\n":
                    text += self._file.readline(MAX_LINE_CHARS + 1)
                if not text:
                    return
                lines = _split(text)
                if len(max(lines, key=len)) <= MAX_PLAIN_LINE_CHARS and all(map(pattern.fullmatch, lines)):
                    yield self._found(text, len(lines))
                    continue
                self._ahead.extend(lines)
            matching = []
            while self._ahead and pattern.fullmatch(self._ahead[0]) and len(self._ahead[0]) <= MAX_PLAIN_LINE_CHARS:
                matching.append(self._ahead.popleft())
            if matching:
                yield self._found("".join(matching), len(matching))
            if self._ahead:
                return

    def _found(self, text: str, count: int) -> PlainLines:
        self.number += count
        return PlainLines(self.number - count + 1, count, text)


def _split(text: str) -> list[str]:
    """Lines with their line ends; `str.splitlines` would split at other characters too."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def _records(lines: _Lines, delimiter: str, *, quoted: bool) -> Iterator[tuple[int, list[str] | str]]:
    """First line and cells of each record that is not blank; the reason in place of the cells when it is malformed."""
    reader = csv.reader(
        lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    )
    while True:
        lines.start_record()
        cells: list[str] | str
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            cells = _malformed(exc, lines)
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield lines.first, cells


def _malformed(exc: csv.Error, lines: _Lines) -> str:
    """Why the record is bad; raises ExportError when one can't tell where the next record starts.

    Only one pair of quotes, opened and closed, is sure to leave the next line outside quotes: with more of them, a wrong
    reading of the damage would take the rest of a quoted cell for a row.
    """
    opened = lines.opened or lines.first
    if lines.ended:
        raise TruncatedError(
            f"truncated: quoted cell opened in line {opened} is never closed", hint=_AGAIN_HINT
        ) from exc
    if "field limit" in str(exc):
        raise ExportError(
            f"a cell of the row in line {lines.first} is longer than {MAX_CELL_CHARS} characters",
            hint="look for a quote that is never closed",
        ) from exc
    if lines.opened is not None or lines.quotes > 2:
        raise ExportError(
            f"damaged quotes in line {lines.number}: it is not clear where the next row starts",
            hint="a quote inside a quoted cell must be doubled",
        ) from exc
    if "new-line" in str(exc):
        return "has a carriage return outside quotes"
    return "has text after a closing quote"


def _check_line_ends(path: Path) -> str:
    """The character that ends a line; raises ExportError when it doesn't end the file."""
    # Latin-1 finds the line ends of every encoding but UTF-16, whatever else the bytes mean.
    with path.open("rb") as raw:
        wide = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if wide else "latin-1"
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        line_end = "\r" if file.readline(MAX_LINE_CHARS).endswith("\r") else "\n"
    if not _ends_with(path, line_end, wide=wide):
        raise TruncatedError(
            "truncated: the final line end is missing, so the last row may be cut off", hint=_AGAIN_HINT
        )
    return line_end


def _ends_with(path: Path, line_end: str, *, wide: bool) -> bool:
    with path.open("rb") as file:
        bom = file.read(2)
        size_bytes = path.stat().st_size
        width = 2 if wide else 1
        if size_bytes < width or size_bytes % width:
            return False
        file.seek(size_bytes - width)
        last = file.read()
    return last == line_end.encode(("utf-16-le" if bom == codecs.BOM_UTF16_LE else "utf-16-be") if wide else "ascii")


def _detect_encoding(path: Path) -> str:
    """By the byte order mark, else UTF-8 when the whole file is, else cp1252. Raises ExportError for neither."""
    with path.open("rb") as file:
        head = file.read(3)
        file.seek(0)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return _verified(file, "utf-16")
        if head == codecs.BOM_UTF8:
            return _verified(file, "utf-8-sig")
        if _decodes(file, "utf-8"):
            return "utf-8"
        _refuse_damaged_utf8(file)
        return _verified(file, "cp1252")


def _known_encoding(path: Path, encoding: str) -> str:
    with path.open("rb") as file:
        return _verified(file, "utf-8-sig" if encoding == "utf-8" else encoding)


def _verified(file: BinaryIO, encoding: str) -> str:
    if _decodes(file, encoding):
        return encoding
    name = encoding.removesuffix("-sig")
    raise ExportError(f"the export is not valid {name} text", hint="export it as UTF-8, or set ARCHISYNC_CSV_ENCODING")


def _decodes(file: BinaryIO, encoding: str) -> bool:
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while block := file.read(_BLOCK_BYTES):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _refuse_damaged_utf8(file: BinaryIO) -> None:
    """One damaged byte must not turn every accent of a UTF-8 file into two cp1252 characters.

    In cp1252 text, accented letters that form a valid UTF-8 sequence are rare; in UTF-8 text they are the rule.
    """
    file.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    valid = invalid = 0
    while block := file.read(_BLOCK_BYTES):
        text = decoder.decode(block)
        decodable = text.encode("utf-8", "ignore").decode("utf-8")
        invalid += len(text) - len(decodable)
        valid += len(decodable) - len(decodable.encode("ascii", "ignore"))
    if valid >= max(invalid, 1):
        raise ExportError(
            f"the export is UTF-8 text with {invalid} damaged bytes", hint="export it again, all of it as UTF-8"
        )
