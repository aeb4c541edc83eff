"""JSON Lines exports: one object a line, always in UTF-8. Numbers keep their source text and never become a float.

The labels are the keys of all objects, so the file is read twice. A last line without a line end is complete when it is valid
JSON, and truncated when it isn't.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from archisync.base.errors import ExportError, TruncatedError
from archisync.formats.rows import CUT_OFF_HINT, BadRow, NestedText, NumberText, RawRow

MAX_LINE_BYTES = 2 * 1024 * 1024
"""25 cells of 64 KiB are 1.6 MiB. In memory, a line that is a list of numbers takes 55 times its size."""
MAX_LABELS = 4096  # memory stays bounded when each line has new keys,
MAX_LABEL_CHARS = 1024  # and when keys are long
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
    """A JSON Lines file. Raises ExportError when no line is an object with a key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.labels = self._read_labels()
        self.detected = {"format": "jsonl", "encoding": "utf-8"}
        if not self.labels:
            raise ExportError(
                "the export has no JSON object with a key",
                hint="JSON Lines is one object a line, without an array around them",
            )

    def rows(self) -> Iterator[RawRow | BadRow]:
        """One row a line, without blank lines. A missing key and null are None. Raises TruncatedError."""
        for line, text in self._lines():
            try:
                yield RawRow(line, self._cells(_object(text)))
            except _InvalidJsonError as exc:
                if not text.endswith(b"\n"):
                    raise TruncatedError(
                        f"truncated: line {line}, the last one, is not complete",
                        hint=CUT_OFF_HINT,
                    ) from exc
                yield BadRow(line, str(exc))
            except _BadLineError as exc:
                yield BadRow(line, str(exc))

    def _cells(self, pairs: _Pairs) -> tuple[str | None, ...]:
        values = {key: _cell(value) for key, value in pairs}
        return tuple(map(values.get, self.labels))

    def _read_labels(self) -> tuple[str, ...]:
        """The keys of all objects in the order in which they first occur."""
        labels: dict[str, None] = {}
        for _, text in self._lines():
            try:
                labels.update(dict.fromkeys(key for key, _ in _object(text)))
            except _BadLineError:
                continue  # `rows` gives the reason
            if len(labels) > MAX_LABELS:
                raise ExportError(
                    f"the export has more than {MAX_LABELS} different keys", hint="an object's keys are its columns"
                )
        return tuple(labels)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self._path.open("rb") as file:
            if file.read(len(_UTF8_BOM)) != _UTF8_BOM:
                file.seek(0)
            yield from _bounded_lines(file)


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
