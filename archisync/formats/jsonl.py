"""JSON exports: one object a line (JSON Lines), or one array of objects, always in UTF-8. Numbers keep their source text and never
become a float.

The labels are the keys of all objects, so the file is read twice. A key of an object in an object is a label with a dot: `customer.id`.
A last line without a line end is complete when it is valid JSON, and truncated when it isn't; an array must be closed.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from archisync.base.errors import ExportError, TruncatedError
from archisync.base.text import printable
from archisync.formats.rows import (
    CUT_OFF_HINT,
    BadRow,
    NestedText,
    NumberText,
    RawRow,
    RequiredPlaces,
    nothing_required,
)

MAX_LINE_BYTES = 2 * 1024 * 1024
"""25 cells of 64 KiB are 1.6 MiB. In memory, a line that is a list of numbers takes 55 times its size."""
MAX_LABELS = 4096  # memory stays bounded when each line has new keys,
MAX_LABEL_CHARS = 1024  # and when keys are long
MAX_DEPTH = 4
"""Objects in objects, below which their keys are no labels."""
_BLOCK_BYTES = 256 * 1024
_CUT_CHARS = 12  # a literal or number that is cut
_BLANKS = re.compile(r"[ \t\n\r]*")
_ARRAY_INSIDE = re.compile(
    r'\s*\{(?:\s*"[^"\\]*"\s*:\s*(?:\{|(?:"(?:[^"\\]|\\.)*"|[-+.\w]+)\s*,))*\s*"([^"\\]*)"\s*:\s*\[\s*\{'
)
_UTF8_BOM = b"\xef\xbb\xbf"


class _BadLineError(ValueError):
    """Its message is the reason of a BadRow."""


class _InvalidJsonError(_BadLineError):
    """The line is not JSON: as a last line without a line end it means a truncated file."""


class _NoNumber(NamedTuple):
    """NaN or an infinity. It is an error only after the whole line is read, because the line may be cut after it."""

    name: str


class _Pairs(list[tuple[str, object]]):
    """A JSON object whose keys may repeat."""


class JsonlTable:
    """A JSON Lines file or a JSON array. Raises ExportError when there is no object with a key."""

    skipped = missing = 0

    def __init__(self, path: Path, required: RequiredPlaces = nothing_required) -> None:
        self._path = path
        self._is_array = is_json_array(path)
        self.labels = self._read_labels(required)
        self.detected = {"format": "json" if self._is_array else "jsonl", "encoding": "utf-8"}
        if not self.labels:
            raise ExportError(
                "the export has no JSON object with a key",
                hint="write one object a line (JSON Lines), or an array of objects",
            )

    def rows(self) -> Iterator[RawRow | BadRow]:
        """One row an object. A missing key and null are None. Raises TruncatedError."""
        for line, found in self._objects():
            if isinstance(found, _BadLineError):
                yield BadRow(line, str(found))
                continue
            try:
                yield RawRow(line, self._cells(found))
            except _BadLineError as exc:
                yield BadRow(line, str(exc))

    def _cells(self, pairs: _Pairs) -> tuple[str | None, ...]:
        values = {key: _cell(value) for key, value in _flat(pairs)}
        return tuple(map(values.get, self.labels))

    def _read_labels(self, required: RequiredPlaces) -> tuple[str, ...]:
        """The keys of all objects in the order in which they first occur."""
        labels: dict[str, None] = {}
        whole, inside = 0, None if self._is_array else _rows_inside(self._path)
        for _, found in self._objects():
            if isinstance(found, _BadLineError):
                if inside and not whole and isinstance(found, _InvalidJsonError):
                    raise inside  # the first line is a part of it
                continue  # `rows` gives the reason
            whole += 1
            labels.update(dict.fromkeys(key for key, _ in _flat(found)))
            if len(labels) > MAX_LABELS:
                raise ExportError(
                    f"the export has more than {MAX_LABELS} different keys", hint="an object's keys are its columns"
                )
        if inside and whole == 1 and required(tuple(labels)) is None:
            raise inside
        return tuple(labels)

    def _objects(self) -> Iterator[tuple[int, _Pairs | _BadLineError]]:
        """Each object with the line in which it begins, or what is wrong with it."""
        with self._path.open("rb") as file:
            if file.read(len(_UTF8_BOM)) != _UTF8_BOM:
                file.seek(0)
            yield from _elements(file) if self._is_array else _line_objects(file)


def is_json_array(path: Path) -> bool:
    """Whether the file begins with the bracket of an array of objects or arrays, or of an empty one."""
    with path.open("rb") as file:
        return re.match(rb"\s*\[\s*[\[{\]]", file.read(1024).removeprefix(_UTF8_BOM)) is not None


def _rows_inside(path: Path) -> ExportError | None:
    """The refusal of a file that may be one object with the rows in it, as many services answer."""
    with path.open("rb") as file:
        found = _ARRAY_INSIDE.match(file.read(_BLOCK_BYTES).removeprefix(_UTF8_BOM).decode("utf-8", "replace"))
    return found and ExportError(
        f"the export is a JSON object with the rows in it, in {printable(found[1], limit=60)!r}",
        hint="let a program take them out, for example jq -c '.value[]'; an OData service is read by odata+https://",
    )


def _flat(pairs: _Pairs, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """The keys and values, with the objects in them followed by their own keys: `customer`, `customer.id`."""
    for key, value in pairs:
        yield prefix + key, value
        if isinstance(value, _Pairs) and depth < MAX_DEPTH:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)


def _line_objects(file: BinaryIO) -> Iterator[tuple[int, _Pairs | _BadLineError]]:
    for line, text in _bounded_lines(file):
        try:
            yield line, _object(text)
        except _InvalidJsonError as exc:
            if not text.endswith(b"\n"):
                raise TruncatedError(
                    f"truncated: line {line}, the last one, is not complete", hint=CUT_OFF_HINT
                ) from exc
            yield line, exc
        except _BadLineError as exc:
            yield line, exc


def _elements(file: BinaryIO) -> Iterator[tuple[int, _Pairs | _BadLineError]]:
    """The elements of an array, parsed one by one as the file is read."""
    text = _Text(file)
    text.take("[")
    if text.take("]"):
        text.require_end()
        return
    while True:
        line, value = text.value()
        try:
            yield line, _checked(value)
        except _BadLineError as exc:
            yield line, exc
        if text.take("]"):
            text.require_end()
            return
        if not text.take(","):
            raise text.invalid("" if text.is_over else "there is no comma after an object")


class _Text:
    """The rest of a JSON document, of which only a part is in memory. `line`: the one that it begins in."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._place = 0
        self._ended = False
        self.line = 1

    def take(self, sign: str) -> bool:
        """Whether the sign comes next; it is taken then."""
        self._skip_blanks()
        if not self._text.startswith(sign, self._place):
            return False
        self._place += 1
        return True

    def value(self) -> tuple[int, object]:
        """The next value, and the line in which it begins."""
        self._skip_blanks()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except RecursionError as exc:
                raise self.invalid("it is nested too deeply") from exc
            except json.JSONDecodeError as exc:
                if not self._read():
                    cut = "Unterminated" in exc.msg or len(self._text) - exc.pos < _CUT_CHARS
                    raise self.invalid("" if cut else exc.msg) from exc
                continue
            if end == len(self._text) and self._read():  # a number may go on
                continue
            line = self.line
            self._go_to(end)
            return line, value

    def require_end(self) -> None:
        self._skip_blanks()
        if not self.is_over:
            raise ExportError(
                f"the export goes on after its JSON array, in line {self.line}", hint="write one array, or JSON Lines"
            )

    @property
    def is_over(self) -> bool:
        """Whether the file has ended here."""
        return self._place == len(self._text)

    def invalid(self, why: str) -> ExportError:
        """The error at this place; `why` is empty when the file ends too early."""
        if not why and self._ended:
            return TruncatedError(
                f"truncated: the JSON array is not closed, and its last object begins in line {self.line}",
                hint=CUT_OFF_HINT,
            )
        why = why or f"an object is longer than {MAX_LINE_BYTES} characters"
        return ExportError(f"the JSON array can't be read from line {self.line} on: {why}", hint="look at that line")

    def _skip_blanks(self) -> None:
        while True:
            found = _BLANKS.match(self._text, self._place)
            self._go_to(found.end() if found else self._place)
            if self._place < len(self._text) or not self._read():
                return

    def _go_to(self, place: int) -> None:
        self.line += self._text.count("\n", self._place, place)
        self._place = place

    def _read(self) -> bool:
        """Read on; False at the end of the file, and when too much is in memory already."""
        if self._ended or len(self._text) - self._place > MAX_LINE_BYTES:
            return False
        block = self._file.read(_BLOCK_BYTES)
        self._ended = not block
        try:
            self._text = self._text[self._place :] + self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as exc:
            raise ExportError("the export is not valid utf-8 text", hint="JSON is always UTF-8") from exc
        self._place = 0
        return not self._ended


def _bounded_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The number and the bytes, with the line end, of each line that is not blank."""
    line = 0
    while text := file.readline(MAX_LINE_BYTES + 1):
        line += 1
        if len(text) > MAX_LINE_BYTES:
            raise ExportError(
                f"line {line} is longer than {MAX_LINE_BYTES} bytes", hint="JSON Lines is one object a line"
            )
        if not text.isspace():
            yield line, text


def _object(text: bytes) -> _Pairs:
    """The object in the line. Raises _BadLineError when there is something else."""
    try:
        value = _DECODER.decode(text.decode("utf-8").strip())
    except UnicodeDecodeError as exc:
        raise _InvalidJsonError("is not valid UTF-8") from exc
    except json.JSONDecodeError as exc:
        raise _InvalidJsonError(f"is not valid JSON ({exc.msg}, column {exc.colno})") from exc
    except RecursionError:
        raise _BadLineError("is nested too deeply") from None
    return _checked(value)


def _checked(value: object) -> _Pairs:
    """The value if it is an object whose keys can be labels. Raises _BadLineError."""
    if not isinstance(value, _Pairs):
        raise _BadLineError("is not a JSON object")
    if any(len(key) > MAX_LABEL_CHARS for key, _ in value):
        raise _BadLineError(f"has a key of more than {MAX_LABEL_CHARS} characters")
    if len({key for key, _ in value}) < len(value):
        raise _BadLineError("has a key twice")
    return value


def _cell(value: object) -> str | None:
    match value:
        case None | str():
            return value
        case True:
            return "true"
        case False:
            return "false"
        case _NoNumber():
            raise _BadLineError(f"has {value.name}, which is not a JSON number")
    return NestedText("an object or array")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_int=NumberText, parse_float=NumberText, parse_constant=_NoNumber
)
