"""The physical lines of a CSV file, read in blocks, and the quotes of the record that they belong to."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import BinaryIO, NamedTuple, TextIO

from archisync.base.errors import ExportError
from archisync.formats.csv.content import Content
from archisync.formats.csv.escapes import hidden
from archisync.formats.ignored import LinePattern
from archisync.formats.knownlines import LineDigests, SpanningRecordError
from archisync.formats.rows import PlainLines

MAX_LINE_CHARS = 2 * 1024 * 1024  # 25 cells of 64 KiB are 1.6 MiB; short cells take thirty times their size in memory
_MAX_LINE_BYTES = 4 * MAX_LINE_CHARS
_FIRST_BLOCK_BYTES = 8 * 1024  # the header is in it
_BLOCK_BYTES = 256 * 1024
_BLOCK_CHARS = 128 * 1024
_LONG_ENDS = ("\r\r\n", "\r\n")
"""CR CR LF is what a program writes that puts a CR before each LF of a text that has it already."""


@contextmanager
def open_lines(
    content: Content, encoding: str, line_end: str, *, quoted: bool, escaped: bool = False
) -> Iterator[Lines]:
    """The file's lines. `quoted`: whether cells may be in quotes; `escaped`: whether a backslash begins an escape."""
    if encoding in ("utf-8", "utf-8-sig"):
        with content.open() as raw:
            if raw.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8 or encoding == "utf-8":
                raw.seek(0)
            yield Lines(_blocks(_raw_pieces(raw, line_end.encode()), line_end), quoted=quoted, escaped=escaped)
        return
    with TextIOWrapper(content.open(), encoding, newline=line_end) as file:
        yield Lines(_blocks(_text_pieces(file), line_end), quoted=quoted, escaped=escaped)


class _Block(NamedTuple):
    """Lines in UTF-8 without their line `end`, and their `numbers` in the file, counted from 1.

    The numbers have gaps where known lines are left out. `digests` is empty when none are wanted.
    """

    numbers: Sequence[int]
    lines: list[bytes]
    end: str
    digests: list[bytes]

    def since(self, place: int) -> _Block:
        """The lines from that place on."""
        return _Block(self.numbers[place:], self.lines[place:], self.end, self.digests[place:])


_NO_LINES = _Block((), [], "\n", [])


class Lines:
    """The lines of a file as an iterator, and what is known about the record that is being read.

    Raises ExportError when a line or a record is too long.
    """

    def __init__(self, blocks: Iterator[_Block], *, quoted: bool, escaped: bool) -> None:
        self._blocks = blocks
        self._quoted = quoted
        self._escaped = escaped
        self._block = _NO_LINES  # the block that is being read
        self._place = 0  # of the next line in it
        self._digests: LineDigests | None = None
        self.digest: bytes | None = None  # of the last record, when it is one line
        self.has_backslash_quotes = False  # somewhere so far
        self.unusual: set[str] = set()  # what was understood in the records so far
        self.last_left_out = 0  # the number of the last line that was left out
        self.number = 0
        self.ended = False
        self.start_record()

    def take_digests(self, digests: LineDigests | None) -> None:
        """From the next line on, give each line its digest, and leave out the lines whose digest is known."""
        self._digests = digests
        if digests is not None and self._lines_left:
            self._take(self._without_known(self._block.since(self._place)))

    def start_record(self) -> None:
        """The next line begins a record."""
        self.first = self.number + 1
        self.lines = 0
        self.chars = 0
        self.quotes = 0
        self.excel = False  # whether a cell may be ="text"
        self.spaced = False  # whether a blank may be before a cell's quotes
        self.has_escapes = False
        self.text = ""  # of the last line of the record
        self.opened: int | None = None  # the line whose quotes left a cell open, by counting

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        while not self._lines_left:
            block = next(self._blocks, None)
            if block is None:
                self.ended = True
                raise StopIteration
            self._take(self._without_known(block))
        numbers, lines, end, digests = self._block
        place = self._place
        self._place += 1
        self.number, raw = numbers[place], lines[place]
        line = raw.decode("utf-8", "surrogatepass") + end if len(raw) <= _MAX_LINE_BYTES else ""
        if not line or len(line) > MAX_LINE_CHARS:
            raise ExportError(
                f"line {self.number} is longer than {MAX_LINE_CHARS} characters",
                hint="look whether the export is a CSV file",
            )
        if self._escaped and "\\" in line:
            line, self.has_escapes = hidden(line), True
        self.text = line
        self._add_to_record(line, digests[place] if digests else None)
        if self._quoted:
            self._count_quotes(line)
        return line

    def plain(self, pattern: LinePattern) -> Iterator[PlainLines]:
        """The lines from here on that match, up to the first that doesn't."""
        while True:
            if not self._lines_left:
                block = next(self._blocks, None)
                if block is None:
                    return
                block = self._without_known(block)
                if not block.lines:
                    continue
                if pattern.match(block.lines):
                    self.number = block.numbers[-1]
                    yield PlainLines(block.numbers[0], block.lines, block.digests)
                    continue
                self._take(block)
            numbers, lines, _, digests = self._block
            first = self._place
            while self._lines_left and pattern.match([lines[self._place]]):
                self._place += 1
            if first < self._place:
                self.number = numbers[self._place - 1]
                yield PlainLines(numbers[first], lines[first : self._place], digests[first : self._place])
            if self._lines_left:
                return

    @property
    def last_line(self) -> bytes:
        """The line that was read last, in UTF-8 and without its line end."""
        return self.text.rstrip("\r\n").encode("utf-8", "surrogatepass")

    @property
    def _lines_left(self) -> bool:
        return self._place < len(self._block.lines)

    def _add_to_record(self, line: str, digest: bytes | None) -> None:
        """Count one more line of the record. A record of several lines has no digest."""
        self.lines += 1
        self.chars += len(line)
        if self.lines == 1:
            self.first, self.digest = self.number, digest
            return
        self.digest = None
        if self._digests is not None and self._digests.leaves_out:
            raise SpanningRecordError
        if self.chars > MAX_LINE_CHARS:
            raise ExportError(
                f"the row in line {self.first} is longer than {MAX_LINE_CHARS} characters",
                hint="look for a quote that is never closed",
            )

    def _count_quotes(self, line: str) -> None:
        quotes = line.replace('""', "").count('"')  # a doubled quote neither opens nor closes a cell
        self.quotes += line.count('"')
        self.has_backslash_quotes = self.has_backslash_quotes or '\\"' in line
        self.excel = self.excel or '="' in line or '=("' in line
        self.spaced = self.spaced or ' "' in line
        if quotes % 2:
            self.opened = None if self.opened else self.number
        elif quotes and self.opened:
            self.opened = self.number  # closed and opened again

    def _take(self, block: _Block) -> None:
        self._block, self._place = block, 0

    def _without_known(self, block: _Block) -> _Block:
        """The block with digests and without the lines that are known; the same block when no digests are wanted."""
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


def _raw_pieces(file: BinaryIO, line_end: bytes) -> Iterator[bytes]:
    """The file in pieces that end with a line, unless the line is too long anyway."""
    rest = b""
    size = _FIRST_BLOCK_BYTES
    while block := file.read(size):
        size = _BLOCK_BYTES
        cut = block.rfind(line_end) + 1
        if cut or len(rest) + len(block) > _MAX_LINE_BYTES:
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
        if line_end == "\n" and b"\r" in text:
            number = text.count(b"\n")
            end = next((end for end in _LONG_ENDS if text.count(end.encode()) == number), end)
            text = text.replace(end.encode(), b"\n")
        lines = text.removesuffix(line_end.encode()).split(line_end.encode())
        yield _Block(range(first, first + len(lines)), lines, end, [])
        first += len(lines)
