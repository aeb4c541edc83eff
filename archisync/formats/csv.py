"""CSV exports: encoding, delimiter and line end are detected; a truncated file is never taken for a complete one.

A CSV file has no end mark. What is checked instead: the last byte is a line end, every quoted cell is closed, the last
row has all its cells. So the only cut that can't be seen is one exactly after a row (and the guard counts rows).

Lines end with LF or CR LF, or, when the header line ends with a lone CR, with CR throughout.
"""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from archisync.base.errors import ExportError, TruncatedError
from archisync.formats.copylines import PlainLine
from archisync.formats.knownlines import LineDigests, SpanningRecordError
from archisync.formats.rows import BadRow, PlainLines, RawRow
from archisync.rules.config import CSV_DELIMITERS, DETECT, CsvDialect

MAX_LINE_CHARS = 2 * 1024 * 1024  # 25 cells of 64 KiB are 1.6 MiB; short cells take thirty times their size in memory
MAX_CELL_CHARS = 1024 * 1024  # far above the 64 KiB that a cell may have; values.py refuses those row by row
DELIMITERS = {delimiter: name for name, delimiter in CSV_DELIMITERS.items()}
MAX_LINE_BYTES = 4 * MAX_LINE_CHARS
_FIRST_BLOCK_BYTES = 8 * 1024
_BLOCK_BYTES = 256 * 1024
_BLOCK_CHARS = 128 * 1024
_UTF16_BOMS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
_UTF16_BY_BOM = {bom: encoding for encoding, bom in _UTF16_BOMS.items()}
_AGAIN_HINT = "the transfer or the ERP's export job was cut off; export it again"


class CsvTable:
    """A CSV file. What the dialect leaves open is detected. Raises ExportError when it is visibly truncated, not text, or has
    no clear header line."""

    def __init__(self, path: Path, dialect: CsvDialect = DETECT) -> None:
        # A setting of the whole process: raised only, so that nobody else's larger limit is undone.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
        self._path = path
        known = _known_encoding(path, dialect.encoding) if dialect.encoding else None
        self._line_end = _check_line_ends(path, known)
        self.quoted = dialect.quoted
        self._encoding = _all_of(path, known) if known else _detect_encoding(path)
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
        for row in self._read(None, None):
            assert not isinstance(row, PlainLines)
            yield row

    def rows_and_lines(
        self, plain: PlainLine | None, digests: LineDigests | None
    ) -> Iterator[RawRow | BadRow | PlainLines]:
        """The same, with the lines that are plain unparsed, and each line's digest with the row that it is; lines whose digest is
        known are left out. Raises SpanningRecordError instead of leaving out a part of a row."""
        return self._read(plain if self._line_end == "\n" else None, digests)

    def _read(self, plain: PlainLine | None, digests: LineDigests | None) -> Iterator[RawRow | BadRow | PlainLines]:
        short: BadRow | None = None  # held back: as the last row it would mean a truncated file
        with self._open() as blocks:
            lines = _Lines(blocks, quoted=self.quoted)
            records = _records(lines, self.delimiter, quoted=self.quoted)
            next(records)  # the header
            lines.take_digests(digests)
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
                row = self._row(line, cells, lines.digest)
                if isinstance(row, BadRow) and len(cells) < len(self.labels) and not isinstance(cells, str):
                    short = row
                else:
                    yield row
            if short is not None and short.line < lines.last_left_out:
                yield short
                short = None
        if short is not None:
            raise TruncatedError(f"truncated: the last row, line {short.line}, {short.reason}", hint=_AGAIN_HINT)

    def _row(self, line: int, cells: list[str] | str, digest: bytes | None) -> RawRow | BadRow:
        if isinstance(cells, str):
            return BadRow(line, cells)
        if len(cells) == len(self.labels):
            return RawRow(line, tuple(cells), digest)
        return BadRow(line, f"has {_cells(len(cells))}, the header has {len(self.labels)}")

    @contextmanager
    def _open(self) -> Iterator[Iterator[_Block]]:
        """The file's lines as UTF-8, many at a time."""
        if self._encoding in ("utf-8", "utf-8-sig"):
            with self._path.open("rb") as raw:
                if raw.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8 or self._encoding == "utf-8":
                    raw.seek(0)
                yield _blocks(_raw_pieces(raw, self._line_end.encode()), self._line_end)
            return
        with self._path.open(encoding=self._encoding, newline=self._line_end) as file:
            yield _blocks(_text_pieces(file), self._line_end)

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
        with self._open() as blocks:
            lines = _Lines(blocks, quoted=self.quoted)
            _, cells = next(_records(lines, delimiter, quoted=self.quoted), (0, ""))
        return () if isinstance(cells, str) else tuple(cells)


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


class _Block(NamedTuple):
    """Consecutive lines of the file, or those of them that are not left out. `numbers` are their places in the file, counted from 1;
    `end` is the line end of each; `digests` is empty when none are wanted."""

    numbers: Sequence[int]
    lines: list[bytes]
    end: str
    digests: list[bytes]


class _Line(NamedTuple):
    number: int
    raw: bytes
    end: str
    digest: bytes | None


def _raw_pieces(file: BinaryIO, line_end: bytes) -> Iterator[bytes]:
    """The file in pieces that end with a line, unless that is too long anyway. The first one is small: the header is in it."""
    rest = b""
    size = _FIRST_BLOCK_BYTES
    while block := file.read(size):
        size = _BLOCK_BYTES
        cut = block.rfind(line_end) + 1
        if cut or len(rest) + len(block) > MAX_LINE_BYTES:
            yield rest + block[: cut or len(block)]
            rest = block[cut:] if cut else b""
        else:
            rest += block
    if rest:
        yield rest


def _text_pieces(file: TextIO) -> Iterator[bytes]:
    size = _FIRST_BLOCK_BYTES
    while text := file.read(size):
        size = _BLOCK_CHARS
        yield (text + file.readline(MAX_LINE_CHARS + 1)).encode("utf-8", "surrogatepass")


def _blocks(pieces: Iterator[bytes], line_end: str) -> Iterator[_Block]:
    first = 1
    for piece in pieces:
        end, text = line_end, piece
        if line_end == "\n" and b"\r" in text and text.count(b"\r\n") == text.count(b"\n"):
            end, text = "\r\n", text.replace(b"\r\n", b"\n")
        lines = text.removesuffix(line_end.encode()).split(line_end.encode())
        yield _Block(range(first, first + len(lines)), lines, end, [])
        first += len(lines)


class _Lines:
    """The physical lines of a file, bounded, and what is known about the quotes of the record being read. Lines whose digest is
    known are left out."""

    def __init__(self, blocks: Iterator[_Block], *, quoted: bool) -> None:
        self._blocks = blocks
        self._quoted = quoted
        self._ahead: deque[_Line] = deque()  # lines of the last block that were not plain, and what follows them
        self._digests: LineDigests | None = None
        self.digest: bytes | None = None  # of the record just read, if it is one line
        self.last_left_out = 0  # its number
        self.number = 0
        self.ended = False
        self.start_record()

    def take_digests(self, digests: LineDigests | None) -> None:
        """From here on each line has its digest, and is left out when that is known."""
        self._digests = digests
        if digests is not None and self._ahead:
            rest = list(self._ahead)
            self._ahead.clear()
            self._take(self._new(_Block([x.number for x in rest], [x.raw for x in rest], rest[0].end, [])))

    def start_record(self) -> None:
        self.first = self.number + 1
        self.lines = 0
        self.chars = 0
        self.quotes = 0
        self.opened: int | None = None  # the line whose quotes left a cell open, by counting

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        while not self._ahead:
            block = next(self._blocks, None)
            if block is None:
                self.ended = True
                raise StopIteration
            self._take(self._new(block))
        self.number, raw, end, digest = self._ahead.popleft()
        line = raw.decode("utf-8", "surrogatepass") + end if len(raw) <= MAX_LINE_BYTES else ""
        if not line or len(line) > MAX_LINE_CHARS:
            raise ExportError(
                f"line {self.number} is longer than {MAX_LINE_CHARS} characters",
                hint="look whether the export is a CSV file",
            )
        self._count(digest)
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

    def _count(self, digest: bytes | None) -> None:
        """One line more of the record. A digest of a part of one is nobody's."""
        self.lines += 1
        if self.lines == 1:
            self.first, self.digest = self.number, digest
            return
        self.digest = None
        if self._digests is not None and self._digests.leaves_out:
            raise SpanningRecordError

    def _take(self, block: _Block) -> None:
        digests: Sequence[bytes | None] = block.digests or [None] * len(block.lines)
        for number, raw, digest in zip(block.numbers, block.lines, digests, strict=True):
            self._ahead.append(_Line(number, raw, block.end, digest))

    def _new(self, block: _Block) -> _Block:
        """The block with digests, without the lines that are known."""
        if self._digests is None:
            return block
        numbers, lines, end, _ = block
        digests = self._digests.of(lines)
        new = self._digests.new(digests)
        if len(new) == len(lines):
            return _Block(numbers, lines, end, digests)
        last = len(lines) - 1
        for place in reversed(new):
            if place != last:
                break
            last -= 1
        self.last_left_out = numbers[last]
        return _Block([numbers[i] for i in new], [lines[i] for i in new], end, [digests[i] for i in new])

    def plain(self, pattern: PlainLine) -> Iterator[PlainLines]:
        """The lines from here on that match, as long as they do; the next line needs care then, or there is none."""
        while True:
            if not self._ahead:
                block = next(self._blocks, None)
                if block is None:
                    return
                block = self._new(block)
                if not block.lines:
                    continue
                if pattern.match(block.lines):
                    self.number = block.numbers[-1]
                    yield PlainLines(block.numbers[0], block.lines, block.digests)
                    continue
                self._take(block)
            matching: list[_Line] = []
            while self._ahead and pattern.match([self._ahead[0].raw]):
                matching.append(self._ahead.popleft())
            if matching:
                self.number = matching[-1].number
                digests = [line.digest for line in matching if line.digest is not None]
                yield PlainLines(matching[0].number, [line.raw for line in matching], digests)
            if self._ahead:
                return


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


def _check_line_ends(path: Path, known: str | None) -> str:
    """The character that ends a line; raises ExportError when it doesn't end the file. `known`: the encoding, if it is."""
    # Latin-1 finds the line ends of every encoding but UTF-16, whatever else the bytes mean.
    encoding = _UTF16_BY_BOM.get(_head(path)) or (known if known in _UTF16_BOMS else "latin-1")
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        line_end = "\r" if file.readline(MAX_LINE_CHARS).endswith("\r") else "\n"
    if not _ends_with(path, line_end.encode(encoding)):
        raise TruncatedError(
            "truncated: the final line end is missing, so the last row may be cut off", hint=_AGAIN_HINT
        )
    return line_end


def _ends_with(path: Path, line_end: bytes) -> bool:
    size_bytes, width = path.stat().st_size, len(line_end)
    if size_bytes < width or size_bytes % width:
        return False
    with path.open("rb") as file:
        file.seek(size_bytes - width)
        return file.read() == line_end


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


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
    """The codec for the encoding that is configured, with or without a byte order mark. Raises ExportError for UTF-16 of which
    nothing says in which order its bytes are."""
    head = _head(path)
    if encoding == "utf-16" and head not in _UTF16_BY_BOM:
        if b"\0" not in head:
            raise _invalid(encoding)
        found = "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
        raise ExportError(  # a hold keeps the message, and no hint
            f"the export is UTF-16 without a byte order mark: set ARCHISYNC_CSV_ENCODING={found}",
            hint="or export it with the mark, or as UTF-8",
        )
    if encoding in _UTF16_BOMS and head in _UTF16_BY_BOM:
        if _UTF16_BY_BOM[head] != encoding:
            raise _invalid(encoding)
        return "utf-16"  # which leaves the mark out
    return "utf-8-sig" if encoding == "utf-8" else encoding


def _all_of(path: Path, encoding: str) -> str:
    with path.open("rb") as file:
        return _verified(file, encoding)


def _verified(file: BinaryIO, encoding: str) -> str:
    if _decodes(file, encoding):
        return encoding
    raise _invalid(encoding.removesuffix("-sig"))


def _invalid(encoding: str) -> ExportError:
    return ExportError(
        f"the export is not valid {encoding} text", hint="export it as UTF-8, or set ARCHISYNC_CSV_ENCODING"
    )


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
