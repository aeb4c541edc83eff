"""The objects of a PDF file (ISO 32000-1, 7.2 to 7.5): as much of the format as machines that print reports use.

Whatever else it meets raises `Unsure`, and the page is left to PDFium; so does damage. Nothing here repairs or guesses.

Why our own: PDFium doesn't give a page's instructions as they stand, pypdf takes about as long to find them as we take for the
whole page, and the fast library for it, pikepdf, is under a licence (MPL-2.0) that asks more of a distributor than ours.
"""

import os
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

SPACE = rb"[\0\t\n\f\r ]"
STRING = rb"\((?:[^()\\]++|\\.|\((?:[^()\\]++|\\.)*+\))*+\)"  # parentheses nest once
HEX = rb"<[0-9A-Fa-f\0\t\n\f\r ]*+>"
NAME = rb"/[^\0\t\n\f\r ()<>\[\]{}/%#]*+"
NUMBER = rb"[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)"

LARGEST_STREAM = 16 * 1024 * 1024
"""Bytes; a page of a report has some ten thousand."""
_LARGEST_TABLE = 16 * 1024 * 1024  # bytes of a cross-reference table; it has 20 for each object
_MOST_OBJECTS = 500_000
_MOST_NODES = 10_000  # of the page tree
_MOST_UPDATES = 64
_MOST_FILTERS = 4
_DEEPEST = 32  # arrays and dictionaries in each other
_KEPT_OBJECTS = 1024
_KEPT_CONTAINERS = 8
_TAIL = 2048
_TOKEN = re.compile(
    rb"(?:" + SPACE + rb"++|%[^\r\n]*+)*+"
    rb"(?:(?P<ref>[0-9]++"
    + SPACE
    + rb"++[0-9]++"
    + SPACE
    + rb"++R\b)|(?P<name>"
    + NAME
    + rb")|(?P<number>"
    + NUMBER
    + rb")"
    rb"|(?P<open><<|\[)|(?P<close>>>|\])|(?P<string>" + STRING + rb"|" + HEX + rb")|(?P<word>[A-Za-z]++))",
    re.DOTALL,
)
_HEAD = re.compile(SPACE + rb"*+([0-9]++)" + SPACE + rb"++([0-9]++)" + SPACE + rb"++obj\b")
_DATA = re.compile(SPACE + rb"*+stream\r?\n")
_DATA_END = re.compile(SPACE + rb"*+endstream\b")
_SECTION = re.compile(SPACE + rb"*+([0-9]++)" + SPACE + rb"++([0-9]++)" + SPACE + rb"*?\r?\n")
_TRAILER = re.compile(SPACE + rb"*+trailer\b")
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|\r\n|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f", b"\n": b"", b"\r": b"", b"\r\n": b""}
_WORDS = {b"true": True, b"false": False, b"null": None}


class Unsure(Exception):
    """Something that this reader does not know for certain."""


class Ref(int):
    """The number of an indirect object."""


class Name(str):
    """A name, without its slash."""

    __slots__ = ()


class Stream(NamedTuple):
    """A stream as it stands in the file."""

    about: dict[str, Any]
    data: bytes


class File:
    """The objects of an open file; reads only what it is asked for. Raises Unsure.

    Values are int, float, bool, None, bytes (a string), Name, Ref, list, dict and Stream.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._offsets: dict[int, int] = {}  # of objects in the file, by number
        self._packed: dict[int, int] = {}  # containers of objects in object streams, by number
        self.trailer: dict[str, Any] = {}
        self._kept: dict[int, Any] = {}
        self._containers: dict[int, tuple[bytes, dict[int, int]]] = {}
        starts = self._read_tables()
        self._starts = sorted({*self._offsets.values(), *starts, self._size})
        if "Encrypt" in self.trailer:
            raise Unsure("encrypted")

    def get(self, value: Any) -> Any:
        """What the value refers to, or itself."""
        if not isinstance(value, Ref):
            return value
        if value in self._kept:
            return self._kept[value]
        found = self.read(value)
        if not isinstance(found, Stream):
            if len(self._kept) >= _KEPT_OBJECTS:
                self._kept.clear()
            self._kept[value] = found
        return found

    def read(self, number: int) -> Any:
        """An object, which is not kept."""
        offset = self._offsets.get(number)
        if offset is not None:
            return self._read_at(offset, number)
        if number not in self._packed:
            raise Unsure("no such object")
        data, places = self._container(self._packed[number])
        return _parse(data, places[number])[0]

    def content(self, stream: Stream) -> bytes:
        """A stream's data without its filters."""
        filters, settings = self.get(stream.about.get("Filter")), self.get(stream.about.get("DecodeParms"))
        names = filters if isinstance(filters, list) else [] if filters is None else [filters]
        options = settings if isinstance(settings, list) else [settings] * len(names)
        data = stream.data
        if len(names) > _MOST_FILTERS:
            raise Unsure("filters")
        for name, option in zip(names, options, strict=True):
            if name == "FlateDecode":
                data = _unpredicted(_inflated(data), self.get(option) or {})
            elif name == "ASCII85Decode":
                data = from_ascii85(data)
            else:
                raise Unsure("filter")
        return data

    def pages(self) -> list[tuple[int, dict[str, Any]]]:
        """The number of each page's object, in order, with what it inherits."""
        root = self.get(self.trailer["Root"])["Pages"]
        return list(self._leaves(root, {}, set()))

    def _leaves(self, number: int, inherited: dict[str, Any], seen: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        node = self.get(Ref(number))
        if node["Type"] != "Pages" or number in seen or len(seen) > _MOST_NODES:
            raise Unsure("page tree")
        seen.add(number)
        inherited = {**inherited, **{k: node[k] for k in ("Resources", "MediaBox", "CropBox", "Rotate") if k in node}}
        kids = self.get(node["Kids"])
        if len(kids) > _MOST_OBJECTS or not all(isinstance(kid, Ref) for kid in kids):
            raise Unsure("page tree")
        if self.get(node["Count"]) == len(kids) and self.get(kids[0])["Type"] == "Page":
            yield from ((kid, inherited) for kid in kids)  # whoever reads one makes sure that it is a page
            return
        for kid in kids:
            if self.get(kid)["Type"] == "Page":
                yield kid, inherited
            else:
                yield from self._leaves(kid, inherited, seen)

    def _bytes(self, start: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, start)

    def _read_at(self, offset: int, number: int) -> Any:
        end = self._starts[bisect_right(self._starts, offset)]
        if end - offset > LARGEST_STREAM:
            raise Unsure("size")
        data = self._bytes(offset, end - offset)
        head = _HEAD.match(data)
        if not head or int(head[1]) != number:
            raise Unsure("object")
        return self._value(data, head.end())

    def _value(self, data: bytes, at: int) -> Any:
        value, at = _parse(data, at)
        begin = _DATA.match(data, at)
        if not begin:
            return value
        size = self.get(value["Length"])
        end = begin.end() + size
        if not 0 <= size <= len(data) or not _DATA_END.match(data, end):
            raise Unsure("stream")
        return Stream(value, data[begin.end() : end])

    def _container(self, number: int) -> tuple[bytes, dict[int, int]]:
        if number not in self._containers:
            if len(self._containers) >= _KEPT_CONTAINERS:
                self._containers.pop(next(iter(self._containers)))
            stream = self._read_at(self._offsets[number], number)
            if not isinstance(stream, Stream) or stream.about["Type"] != "ObjStm":
                raise Unsure("object stream")
            data, first = self.content(stream), self.get(stream.about["First"])
            numbers = list(map(int, data[:first].split()))
            self._containers[number] = data, {n: first + at for n, at in zip(numbers[::2], numbers[1::2], strict=True)}
        return self._containers[number]

    def _read_tables(self) -> list[int]:
        """Fill the offsets from the cross-reference tables, newest first; where these begin."""
        tail = self._bytes(max(self._size - _TAIL, 0), _TAIL)
        at: Any = int(tail[tail.rindex(b"startxref") + 9 : tail.rindex(b"%%EOF")])
        seen: list[int] = []
        while at is not None:
            if at in seen or len(seen) > _MOST_UPDATES or not 0 < self._size - at <= _LARGEST_TABLE:
                raise Unsure("cross-reference")
            seen.append(at)
            data = self._bytes(at, self._size - at)
            trailer = self._read_table(data) if data.lstrip().startswith(b"xref") else self._read_table_stream(data)
            self.trailer = self.trailer or trailer
            at = trailer.get("Prev")
        return seen

    def _read_table(self, data: bytes) -> dict[str, Any]:
        at = data.index(b"xref") + 4
        while section := _SECTION.match(data, at):
            first, count, at = int(section[1]), int(section[2]), section.end()
            for number in range(first, first + self._allowed(count)):
                if data[at + 17 : at + 18] == b"n":
                    self._add(number, int(data[at : at + 10]))
                elif data[at + 17 : at + 18] == b"f":
                    self._add(number, None)
                else:
                    raise Unsure("cross-reference")
                at += 20
        end = _TRAILER.match(data, at)
        trailer = _parse(data, end.end())[0] if end else None
        if not isinstance(trailer, dict) or "XRefStm" in trailer:
            raise Unsure("trailer")
        return trailer

    def _read_table_stream(self, data: bytes) -> dict[str, Any]:
        head = _HEAD.match(data)
        stream = self._value(data, head.end()) if head else None
        if not isinstance(stream, Stream) or stream.about["Type"] != "XRef":
            raise Unsure("cross-reference")
        about, rows = stream.about, self.content(stream)
        sizes = about["W"]
        index = about.get("Index", [0, about["Size"]])
        at = 0
        for first, count in zip(index[::2], index[1::2], strict=True):
            for number in range(first, first + self._allowed(count)):
                kind, one = (int.from_bytes(rows[at + a : at + b], "big") for a, b in _first_two(sizes))
                at += sum(sizes)
                kind = kind if sizes[0] else 1
                self._add(number, one if kind < 2 and kind else None, one if kind == 2 else None)
        if at > len(rows):
            raise Unsure("cross-reference")
        return about

    def _allowed(self, count: int) -> int:
        if len(self._offsets) + len(self._packed) + count > _MOST_OBJECTS:
            raise Unsure("objects")
        return count

    def _add(self, number: int, offset: int | None, container: int | None = None) -> None:
        """An entry of a table, unless a newer one has it; without a place it is free."""
        if number in self._offsets or number in self._packed:
            return
        if container is not None:
            self._packed[number] = container
        else:
            self._offsets[number] = self._size if offset is None else offset


def unescaped(literal: bytes) -> bytes:
    """The bytes of a string in parentheses or in hexadecimal digits, an odd number of which raises ValueError."""
    inner = literal[1:-1]
    if literal[:1] == b"<":
        return bytes.fromhex(inner.translate(None, b"\0\t\n\f\r ").decode())
    if b"\r" in inner:
        raise Unsure("end of line in a string")
    return _ESCAPE.sub(_unescape, inner) if b"\\" in inner else inner


def from_ascii85(data: bytes) -> bytes:
    """`base64.a85decode` of a stream's data, several times as fast. Raises Unsure."""
    data = data.translate(None, b"\0\t\n\f\r ").removeprefix(b"<~").removesuffix(b"~>").replace(b"z", b"!!!!!")
    short = -len(data) % 5
    if short == 4 or data.translate(None, _DIGITS):
        raise Unsure("base 85")
    # All groups of five digits at once: a long number has room for a group's 32 bits in each five of its bytes.
    groups = (len(data) + short) // 5
    number = int.from_bytes((data + b"u" * short).translate(_VALUES), "big")
    lowest = int.from_bytes(b"\0\0\0\0\xff" * groups, "big")
    total = sum(((number >> (8 * place)) & lowest) * 85**place for place in range(5))
    found = bytearray(total.to_bytes(5 * groups, "big"))
    if any(found[::5]):
        raise Unsure("base 85")
    del found[::5]
    return bytes(found[:-short] if short else found)


_DIGITS = bytes(range(33, 118))
_VALUES = bytes(max(byte - 33, 0) for byte in range(256))


def _unescape(match: re.Match[bytes]) -> bytes:
    what = match[1]
    return bytes((int(what, 8) & 255,)) if what[:1].isdigit() and what < b"8" else _ESCAPED.get(what, what)


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, LARGEST_STREAM)
    if not inflater.eof:
        raise Unsure("compressed data")
    return found


def _unpredicted(data: bytes, options: dict[str, Any]) -> bytes:
    """Undo the predictor of cross-reference and object streams: rows kept as they are, or as differences to the row above."""
    predictor = options.get("Predictor", 1)
    if predictor == 1:
        return data
    if predictor < 10 or options.get("Colors", 1) != 1 or options.get("BitsPerComponent", 8) != 8:
        raise Unsure("predictor")
    width = options.get("Columns", 1)
    above, found = bytes(width), []
    for at in range(0, len(data), width + 1):
        kind, row = data[at], data[at + 1 : at + 1 + width]
        if kind not in (0, 2) or len(row) != width:
            raise Unsure("predictor")
        above = bytes((a + b) & 255 for a, b in zip(above, row, strict=True)) if kind else row
        found.append(above)
    return b"".join(found)


def _first_two(sizes: list[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, sizes[0]), (sizes[0], sizes[0] + sizes[1])


def _parse(data: bytes, at: int, depth: int = 0) -> tuple[Any, int]:
    """The value that begins there, and where it ends."""
    match = _TOKEN.match(data, at)
    if not match or depth > _DEEPEST:
        raise Unsure("syntax")
    kind, text, at = match.lastgroup, match[match.lastgroup or 0], match.end()
    if kind == "open":
        return _parse_dictionary(data, at, depth) if text == b"<<" else _parse_array(data, at, depth, b"]")
    if kind == "name":
        return Name(text[1:].decode("latin-1")), at
    if kind == "ref":
        return Ref(text.split()[0]), at
    if kind == "number":
        return float(text) if b"." in text else int(text), at
    if kind == "string":
        return unescaped(text), at
    if text not in _WORDS:
        raise Unsure("syntax")
    return _WORDS[text], at


def _parse_array(data: bytes, at: int, depth: int, end: bytes) -> tuple[list[Any], int]:
    values: list[Any] = []
    while True:
        match = _TOKEN.match(data, at)
        if match and match["close"]:
            if match["close"] != end:
                raise Unsure("syntax")
            return values, match.end()
        value, at = _parse(data, at, depth + 1)
        values.append(value)


def _parse_dictionary(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    values, at = _parse_array(data, at, depth, b">>")
    keys = values[::2]
    if not all(type(key) is Name for key in keys) or len(set(keys)) != len(keys):
        raise Unsure("syntax")
    return dict(zip(map(str, keys), values[1::2], strict=True)), at
