"""The table of a PDF's page, read from the page's drawing instructions (ISO 32000-1, annex A): several times as fast as PDFium,
and only where there is no doubt.

Fonts that explain themselves, upright text, lines and rectangles: anything else, and any text so near to a ruled line or to
another text that a different way of measuring could decide otherwise, raises `Unsure`. The page is then PDFium's.
"""

import os
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from archisync.formats.pdf import fonts as pdffonts
from archisync.formats.pdf.file import HEX, NAME, SPACE, STRING, File, Stream, Unsure, unescaped
from archisync.formats.pdf.grid import NEAR, SIMPLE_PATH, THIN, Box, Piece, Point, Rulings

Rows = list[list[str]]

DOUBTS = (
    Unsure, LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError, RecursionError, OSError,
    zlib.error, struct.error,
)  # fmt: skip
"""What reading raises for a page, or a file, that is PDFium's: malformed values end in one of Python's own exceptions."""
_LARGEST_CONTENT = 512 * 1024
"""Bytes of a page's instructions; a page of a report has some ten thousand."""
_KEPT = 4096
_KEPT_PLACES = 16
_KEPT_DRAWN = 1024  # boxes of a grid that is worth keeping
_KEPT_SIZE = 80  # bytes of operands that are worth keeping
_MOST_SAVED = 64  # graphics states

_WIDEST = THIN - NEAR  # points: a line is not wider
_OVERHANG = 0.9  # points: by which a glyph may reach over a line, for certain
_BEARING = 0.08  # of the font size: by which ink may differ from the advance width
_BELOW, _ABOVE = 0.25, 0.6  # of the font size, from the base line: where the middle of any ink is
_SAME_BASE = 0.05  # of the font size: base lines of one line of text
_LEADING = 0.85  # of the font size: base lines of two lines are at least that far apart
_NO_BLANK, _BLANK = 0.1, 0.22  # of the font size: room between two texts that is none, and that is a blank
_OVERLAP = -0.08  # of the font size: more than kerning
_KERNING = 0.1  # of the font size: a shift within an array of strings that is no blank
_JUMP = 0.8  # of the font size: a shift that begins another text

# Runs of digits and blanks, which is faster than numbers; `float` refuses what is none.
_NUMBERS = rb"[-+0-9.\0\t\n\f\r ]++"
_SOME = rb"[-+0-9.\0\t\n\f\r ]*+"
_ARRAY = rb"\[(?:" + _NUMBERS + rb"|" + STRING + rb"|" + HEX + rb")*+\]"
_SHOWN = STRING + rb"|" + HEX + rb"|" + _ARRAY
_OPERATION = re.compile(
    rb"""%(space)b*+ (?: (n) %(space)b++ )?
    (?:
      # What tables are made of, most of all, in one match each: a rectangle that is painted,
      ( %(numbers)b %(begin)b re %(space)b++ (?: S | f\*? | B\*? ) %(end)b )
      # and one text.
    | BT %(space)b++ (?: ( %(name)b ) ( %(numbers)b ) %(begin)b Tf %(space)b++ )?
      ( %(numbers)b ) %(begin)b Tm %(space)b*+
      (?: \( ( [^()\\\r]*+ ) \) | ( %(shown)b ) ) %(space)b*+ T[jJ] %(space)b++ (?: T\* %(space)b++ )? ET %(end)b
      # Any other operation: numbers, one operand of another kind, numbers, operator.
    | ( %(some)b ) ( %(shown)b | %(name)b (?: %(space)b*+ <<[^<>()\[\]{}%%]*+>> )? )? ( %(some)b )
      %(begin)b ( [A-Za-z'\"][A-Za-z0-9*]*+ ) (?! [\x80-\xff] )
    | (.++) | \Z
    )"""
    % {
        b"space": SPACE,
        b"numbers": _NUMBERS,
        b"some": _SOME,
        b"name": NAME,
        b"shown": _SHOWN,
        b"begin": rb"(?<![-+0-9.])",
        b"end": rb"(?=" + SPACE + rb"|\Z)",
    },
    re.DOTALL | re.VERBOSE,
)
_PART = re.compile(rb"(" + STRING + rb"|" + HEX + rb")|([-+0-9.]++)")


# Base line, left, right, font size, text, whether there is a blank before it, and after it.
_Text = tuple[float, float, float, float, str, bool, bool]
_Placed = tuple[float, float, float, float]  # base line, left, width and height of the font size


class _State(NamedTuple):
    """The graphics state that is saved and restored; of the matrix only scale and place, as nothing is turned."""

    matrix: tuple[float, float, float, float] = (1.0, 1.0, 0.0, 0.0)  # x scale, y scale, x, y
    line_width: float = 1.0
    font: pdffonts.Font | None = None
    size: float = 0.0
    spacing: float = 0.0
    word_spacing: float = 0.0
    stretch: float = 1.0
    leading: float = 0.0


class Document:
    """The pages of a file. Raises one of DOUBTS, and so does `rows`."""

    def __init__(self, path: str, standard_widths: Callable[[str], list[float]]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._standard_widths = standard_widths
        self._fonts: dict[int, pdffonts.Font | None] = {}
        self._met: dict[object, dict[bytes, Any]] = {}
        self.grids: dict[tuple[object, ...] | None, tuple[list[float], list[float]]] = {}
        """Positions of the ruled lines, by the paper's size and all that is drawn on it."""
        try:
            self.file = File(self._descriptor)
            self._pages = self.file.pages()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self._pages)

    def met(self, where: object) -> dict[bytes, Any]:
        """What operands meant in that place when they were met before: the pages of a report repeat their positions."""
        known = self._met.get(where)
        if known is None:
            if len(self._met) >= _KEPT_PLACES:
                self._met.clear()
            known = self._met[where] = {}
        elif len(known) >= _KEPT:
            known.clear()
        return known

    def rows(self, number: int) -> tuple[Rows, set[int]]:
        """The page's table, top row first, and the numbers of the fonts that it is written in."""
        reference, inherited = self._pages[number]
        about = {**inherited, **self.file.read(reference)}
        if about["Type"] != "Page" or self.file.get(about.get("Rotate", 0)) % 360 or "UserUnit" in about:
            raise Unsure("page")
        page = _Page(self, self.file.get(about["Resources"]), _paper(self.file, about))
        page.run(self._content(about["Contents"]))
        return page.rows(), page.fonts

    def font(self, number: int) -> pdffonts.Font:
        """The font of that object."""
        if number not in self._fonts:
            if len(self._fonts) > _KEPT:
                raise Unsure("fonts")
            try:
                self._fonts[number] = pdffonts.load(self.file, self.file.read(number), self._standard_widths)
            except DOUBTS:
                self._fonts[number] = None
        font = self._fonts[number]
        if font is None:
            raise Unsure("font")
        return font

    def _content(self, contents: Any) -> bytes:
        if not isinstance(contents, list):
            contents = self.file.read(contents)
        streams = [contents] if isinstance(contents, Stream) else [self.file.read(part) for part in contents]
        return b"\n".join([self.file.content(stream) for stream in streams])


def _paper(file: File, about: dict[str, Any]) -> tuple[float, float]:
    """Width and height of what is shown of the page."""
    left, bottom, right, top = _box(file, about["MediaBox"])
    if "CropBox" in about:
        crop = _box(file, about["CropBox"])
        left, bottom, right, top = max(left, crop[0]), max(bottom, crop[1]), min(right, crop[2]), min(top, crop[3])
    if right <= left or top <= bottom:
        raise Unsure("paper")
    return right - left, top - bottom


def _box(file: File, value: Any) -> Box:
    one, two, three, four = (float(file.get(number)) for number in file.get(value))
    return min(one, three), min(two, four), max(one, three), max(two, four)


class _Page:
    """One page while its instructions are followed."""

    def __init__(self, document: Document, resources: dict[str, Any], paper: tuple[float, float]) -> None:
        self._document, self._file, self._resources = document, document.file, resources
        self.fonts: set[int] = set()
        self._paper, self._rulings = paper, Rulings(*paper)
        self._boxes: list[Box] = []
        self._only_boxes = True
        self._texts: list[_Text] = []
        self._saved: list[_State] = []
        self._enter(_State())
        self._points: list[Point] = []
        self._pieces: list[Piece] = []
        self._start: Point = (0.0, 0.0)
        self._at: Point = (0.0, 0.0)
        self._moved = False  # the last point is nothing but a beginning
        self._curved = False
        self._in_text = False
        self._line = self._here = (1.0, 1.0, 0.0, 0.0)  # text matrices: x scale, y scale, x, y

    def run(self, content: bytes) -> None:
        """Follow the instructions."""
        if len(content) > _LARGEST_CONTENT:
            raise Unsure("size")
        texts, boxes = self._texts, self._boxes
        known_boxes, known_places, decode = self._known_boxes, self._known_places, self._decode
        for found in _OPERATION.findall(content):
            end, rectangle, name, size, matrix, plain, shown, before, operand, after, operator, odd = found
            if end and (self._points or self._curved):
                self._end_path()
            if rectangle:
                if self._points:
                    self._painted_within_path(rectangle)
                else:
                    boxes.append(known_boxes.get(rectangle) or self._painted_rectangle(rectangle))
            elif matrix:
                if name:
                    self._set_font(name, _numbers(size))
                    known_places, decode = self._known_places, self._decode
                placed = known_places.get(matrix) or self._placed(matrix)
                if not shown and decode is not None:
                    text, width = decode(plain)
                    if text and text == text.strip():
                        base, left, scale, height = placed
                        texts.append((base, left, left + width * scale, height, text, False, False))
                        continue
                self._place(*_numbers(matrix))
                self._show(shown or b"(%s)" % plain)
            elif operator:
                act = _ACTIONS.get(operator)
                if act is None:
                    raise Unsure("operator")
                act(self, _numbers(before), operand, _numbers(after), operator)
                known_boxes, known_places, decode = self._known_boxes, self._known_places, self._decode
            elif odd:
                raise Unsure("syntax")

    # Paths

    def _painted_within_path(self, operation: bytes) -> None:
        *operands, _, paint = operation.split()
        self._rectangle(*map(float, operands))
        self._paint(paint)

    def _painted_rectangle(self, operation: bytes) -> Box:
        *operands, _, paint = operation.split()
        x, y, width, height = map(float, operands)
        one, other = self._point(x, y), self._point(x + width, y + height)
        self._check_line_width(paint)
        box = (min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1]))
        if len(operation) <= _KEPT_SIZE:
            self._document.met((self._state.matrix, self._state.line_width))[operation] = box
        return box

    def _check_line_width(self, paint: bytes) -> None:
        """A line's width says nothing of where it is, unless it is so wide that it is a surface."""
        across, up = self._state.matrix[:2]
        if paint in _STROKED and self._state.line_width * max(abs(across), abs(up)) > _WIDEST:
            raise Unsure("wide lines")

    def _point(self, x: float, y: float) -> Point:
        across, up, right, above = self._state.matrix
        return across * x + right, up * y + above

    def _move(self, x: float, y: float) -> None:
        if self._moved:
            self._points.pop()
        self._start = self._at = self._point(x, y)
        self._points.append(self._at)
        self._moved = True

    def _straight(self, x: float, y: float) -> None:
        if not self._points:
            raise Unsure("no current point")
        there = self._point(x, y)
        self._pieces.append((self._at, there))
        self._points.append(there)
        self._at, self._moved = there, False

    def _close(self) -> None:
        if self._points and not self._moved:
            self._pieces.append((self._at, self._start))
            self._at = self._start

    def _rectangle(self, x: float, y: float, width: float, height: float) -> None:
        self._move(x, y)
        for corner in ((x + width, y), (x + width, y + height), (x, y + height), (x, y)):
            self._straight(*corner)

    def _curve(self) -> None:
        self._curved = True

    def _paint(self, operator: bytes) -> None:
        if self._curved:
            raise Unsure("curves")
        if operator in (b"s", b"b", b"b*"):
            self._close()
        if self._moved:
            self._points.pop()
        if len(self._points) > 1:
            self._check_line_width(operator)
            xs, ys = [point[0] for point in self._points], [point[1] for point in self._points]
            box = (min(xs), min(ys), max(xs), max(ys))
            if len(self._points) <= SIMPLE_PATH:
                self._boxes.append(box)
            else:
                pieces = self._pieces
                self._rulings.add_path(box, len(self._points), lambda: pieces)
                self._only_boxes = False
        self._end_path()

    def _end_path(self) -> None:
        self._points, self._pieces = [], []
        self._curved = self._moved = False

    # State

    def _save(self) -> None:
        if len(self._saved) >= _MOST_SAVED:
            raise Unsure("saved states")
        self._saved.append(self._state)

    def _restore(self) -> None:
        self._enter(self._saved.pop())

    def _transform(self, a: float, b: float, c: float, d: float, e: float, f: float) -> None:
        if b or c or not a or not d:
            raise Unsure("turned")
        across, up, right, above = self._state.matrix
        self._set(matrix=(across * a, up * d, across * e + right, up * f + above))

    def _set(self, **values: Any) -> None:
        self._enter(self._state._replace(**values))

    def _enter(self, state: _State) -> None:
        self._state = state
        self._known_boxes: dict[bytes, Box] = self._document.met((state.matrix, state.line_width))
        self._known_places: dict[bytes, _Placed] = self._document.met((state.matrix, state.size, state.stretch))
        # Of strings that are nothing but their characters, where nothing is put between these.
        spaced = state.spacing or state.word_spacing
        self._decode = None if state.font is None or spaced else state.font.decode

    def _set_font(self, name: bytes, size: tuple[float, ...]) -> None:
        number = self._resource("Font", name)
        self.fonts.add(number)
        (points,) = size
        self._set(font=self._document.font(number), size=points)

    def _resource(self, kind: str, name: bytes) -> int:
        number = self._file.get(self._resources[kind])[name[1:].decode("latin-1")]
        if not isinstance(number, int):
            raise Unsure("resource without a number")
        return number

    def _set_extended(self, name: bytes) -> None:
        """A set of parameters, most of them colours' and transparency's."""
        about = self._file.get(self._file.get(self._resources["ExtGState"])[name[1:].decode("latin-1")])
        if "Font" in about or "LW" in about:
            raise Unsure("parameters")

    def _draw_object(self, name: bytes) -> None:
        drawn = self._file.get(self._file.get(self._resources["XObject"])[name[1:].decode("latin-1")])
        if drawn.about["Subtype"] != "Image":
            raise Unsure("form")

    # Text

    def _begin_text(self) -> None:
        self._in_text = True
        self._line = self._here = (1.0, 1.0, 0.0, 0.0)

    def _end_text(self) -> None:
        self._in_text = False

    def _place(self, a: float, b: float, c: float, d: float, e: float, f: float) -> None:
        if b or c:
            raise Unsure("turned text")
        self._line = self._here = (a, d, e, f)

    def _move_line(self, x: float, y: float) -> None:
        a, d, e, f = self._line
        self._line = self._here = (a, d, e + a * x, f + d * y)

    def _next_line(self) -> None:
        self._move_line(0.0, -self._state.leading)

    def _placed(self, matrix: bytes) -> "_Placed":
        """A text alone between BT and ET."""
        if self._in_text:
            raise Unsure("text within text")
        self._place(*_numbers(matrix))
        placed = self._scaled()
        if len(matrix) <= _KEPT_SIZE:
            self._known_places[matrix] = placed
        return placed

    def _scaled(self) -> "_Placed":
        state = self._state
        a, d, x, y = self._here
        across, up, right, above = state.matrix
        scale, height = across * a * state.size * state.stretch, up * d * state.size
        if height <= 0 or not 0.5 <= scale / height <= 2:
            raise Unsure("text")
        return up * y + above, across * x + right, scale, height

    def _show(self, shown: bytes) -> None:
        state = self._state
        font = state.font
        base, left, scale, height = self._scaled()
        if font is None or abs(state.spacing) > _KERNING / 2 * state.size:
            raise Unsure("text")
        if shown[:1] == b"[":
            end = self._show_array(shown, font, left, base, scale, height)
        else:
            text, width = self._decoded(font, shown)
            end = left + width * scale
            self._add(font, shown, text, left, end, base, scale, height)
        a, d, x, y = self._here
        self._here = (a, d, x + (end - left) / state.matrix[0], y)

    def _decoded(self, font: pdffonts.Font, literal: bytes) -> pdffonts.Decoded:
        plain = literal[:1] == b"(" and b"\\" not in literal and b"\r" not in literal
        raw = literal[1:-1] if plain else unescaped(literal)
        text, width = font.decode(raw)
        state = self._state
        if state.spacing:
            width += state.spacing / state.size * len(raw) / (1 if font.single else 2)
        if state.word_spacing and font.single:
            width += state.word_spacing / state.size * raw.count(b" ")
        return text, width

    def _show_array(
        self, shown: bytes, font: pdffonts.Font, left: float, base: float, scale: float, height: float
    ) -> float:
        """Strings with shifts between them, in thousandths of the font size; where they end."""
        literals: list[bytes] = []
        begin = at = left
        for literal, number in _PART.findall(shown):
            shift = 0.0 if literal else -float(number) / 1000
            if literal:
                literals.append(literal)
                at += self._decoded(font, literal)[1] * scale
            elif shift >= _JUMP or not literals:
                self._add_joined(font, literals, begin, at, base, scale, height)
                literals = []
                begin = at = at + shift * scale
            elif -3 * _KERNING <= shift <= _KERNING:
                at += shift * scale
            else:
                raise Unsure("shift")
        self._add_joined(font, literals, begin, at, base, scale, height)
        return at

    def _add_joined(
        self,
        font: pdffonts.Font,
        literals: list[bytes],
        left: float,
        right: float,
        base: float,
        scale: float,
        height: float,
    ) -> None:
        if not literals:
            return
        text = "".join([self._decoded(font, literal)[0] for literal in literals])
        if text != text.strip() and len(literals) > 1 and text.strip():
            raise Unsure("blanks around an array")
        self._add(font, literals[0], text, left, right, base, scale, height)

    def _add(
        self,
        font: pdffonts.Font,
        literal: bytes,
        text: str,
        left: float,
        right: float,
        base: float,
        scale: float,
        height: float,
    ) -> None:
        """Keep a text; blanks around it are no part of it."""
        stripped = text.strip()
        if len(stripped) == len(text):
            if text:
                self._texts.append((base, left, right, height, text, False, False))
            return
        if not stripped:
            return
        raw, step = unescaped(literal), 1 if font.single else 2
        if len(raw) != len(text) * step or self._state.spacing or self._state.word_spacing:
            raise Unsure("blanks")
        leading = len(text) - len(text.lstrip())
        trailing = len(text) - leading - len(stripped)
        left += font.decode(raw[: leading * step])[1] * scale
        right -= font.decode(raw[len(raw) - trailing * step :])[1] * scale
        self._texts.append((base, left, right, height, stripped, leading > 0, trailing > 0))

    # The table

    def _grid(self) -> tuple[list[float], list[float]]:
        """Positions of the ruled lines. Pages with rows of the same height share it, and it is a fifth of the work."""
        drawn = (self._paper, *self._boxes) if self._only_boxes else None
        known = self._document.grids.get(drawn)
        if known:
            return known
        rulings = self._rulings
        rulings.add_boxes(self._boxes)
        xs, ys = rulings.grid()
        if rulings.close_call or len(xs) < 2 or len(ys) < 2:
            raise Unsure("grid")
        if drawn and len(drawn) <= _KEPT_DRAWN:
            if len(self._document.grids) >= _KEPT_PLACES:
                self._document.grids.clear()
            self._document.grids[drawn] = xs, ys
        return xs, ys

    def rows(self) -> Rows:
        """The cells between the ruled lines, top row first."""
        if self._points or self._saved:
            raise Unsure("unfinished")
        xs, ys = self._grid()
        columns, lines = len(xs) - 1, len(ys) - 1
        cells: list[list[_Text]] = [[] for _ in range(columns * lines)]
        for text in self._texts:
            base, left, right, size = text[:4]
            low = bisect_right(ys, base - _BELOW * size)
            if low != bisect_right(ys, base + _ABOVE * size):
                raise Unsure("between rows")
            bearing = _BEARING * size
            if not 0 < low <= lines or right + bearing <= xs[0] or left - bearing >= xs[-1]:
                continue  # outside the table
            column = bisect_right(xs, (left + right) / 2) - 1
            room = _OVERHANG - bearing
            if not (
                0 <= column < columns
                and left >= xs[column] - room
                and right <= xs[column + 1] + room
                and left + 1.0 + bearing < xs[column + 1]
            ):
                raise Unsure("between columns")
            cells[(lines - low) * columns + column].append(text)
        joined = [_joined(texts) if texts else "" for texts in cells]
        return [joined[start : start + columns] for start in range(0, columns * lines, columns)]


def _numbers(text: bytes) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


def _joined(texts: list[_Text]) -> str:
    """The texts of one cell: lines from the top, each from the left."""
    if len(texts) == 1:
        return " ".join(texts[0][4].split())
    lines: list[list[_Text]] = []
    for text in sorted(texts, key=lambda text: -text[0]):
        base, _, _, size, *_ = text
        step = lines[-1][0][0] - base if lines else 0.0
        size = max(size, lines[-1][0][3]) if lines else size
        if not lines or step >= _LEADING * size:
            lines.append([text])
        elif step <= _SAME_BASE * size:
            lines[-1].append(text)
        else:
            raise Unsure("between lines")
    return " ".join(" ".join(_in_one_line(line).split()) for line in lines)


def _in_one_line(texts: list[_Text]) -> str:
    texts.sort(key=lambda text: text[1])
    parts = [texts[0][4]]
    for (_, _, end, size_before, _, _, blank_after), (_, left, _, size, text, blank_before, _) in pairwise(texts):
        room = (left - end) / max(size_before, size)
        if room < _OVERLAP or (_NO_BLANK < room < _BLANK):
            raise Unsure("between texts")
        if room >= _BLANK:
            parts.append(" ")
        elif blank_after or blank_before:
            raise Unsure("blank in no room")
        parts.append(text)
    return "".join(parts)


_STROKED = frozenset((b"S", b"s", b"B", b"B*", b"b", b"b*"))
_Action = Callable[[_Page, tuple[float, ...], bytes, tuple[float, ...], bytes], None]
"""Takes the numbers before, the operand of another kind, the numbers after it, and the operator."""


def _nothing(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
    """Colours, clipping, marks: what moves neither a text nor a line."""


def _with_numbers(method: Callable[..., None]) -> _Action:
    def act(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
        _refuse(operand or after)
        method(page, *before)

    return act


def _with_operand(method: Callable[[_Page, bytes], None]) -> _Action:
    def act(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
        _refuse(before or after)
        method(page, operand)

    return act


def _setting(name: str, factor: float = 1.0) -> _Action:
    def act(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
        _refuse(operand or after)
        (value,) = before
        page._set(**{name: value * factor})

    return act


def _refuse(more: object) -> None:
    """Operands that the operator doesn't take: PDFium takes the last ones."""
    if more:
        raise Unsure("operands")


def _shown(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
    if not page._in_text or (operand[:1] == b"[") != (operator == b"TJ"):
        raise Unsure("text")
    if operator == b'"':
        word_spacing, spacing = before
        page._set(word_spacing=word_spacing, spacing=spacing)
    else:
        _refuse(before)
    _refuse(after)
    if operator in (b"'", b'"'):
        page._next_line()
    page._show(operand)


def _move_and_lead(
    page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes
) -> None:
    _refuse(operand or after)
    x, y = before
    page._set(leading=-y)
    page._move_line(x, y)


def _font(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
    _refuse(before)
    page._set_font(operand, after)


def _mark(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
    """Marked content; it may be hidden, or stand for another text."""
    if b"ActualText" in operand or operand.startswith(b"/OC"):
        raise Unsure("marked content")


def _paint(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
    _refuse(before or operand or after)
    page._paint(operator)


def _mode(page: _Page, before: tuple[float, ...], operand: bytes, after: tuple[float, ...], operator: bytes) -> None:
    _refuse(before != (0.0,) or operand or after)


_ACTIONS: dict[bytes, _Action] = {
    **dict.fromkeys(b"g G rg RG k K cs CS sc SC scn SCN ri i d j J M W W* EMC BMC MP sh".split(), _nothing),
    **dict.fromkeys(b"S s f F f* B B* b b*".split(), _paint),
    **dict.fromkeys((b"Tj", b"TJ", b"'", b'"'), _shown),
    **dict.fromkeys((b"c", b"v", b"y"), lambda page, *_: page._curve()),
    b"BDC": _mark,
    b"n": _with_numbers(_Page._end_path),
    b"m": _with_numbers(_Page._move),
    b"l": _with_numbers(_Page._straight),
    b"h": _with_numbers(_Page._close),
    b"re": _with_numbers(_Page._rectangle),
    b"q": _with_numbers(_Page._save),
    b"Q": _with_numbers(_Page._restore),
    b"cm": _with_numbers(_Page._transform),
    b"w": _setting("line_width"),
    b"gs": _with_operand(_Page._set_extended),
    b"Do": _with_operand(_Page._draw_object),
    b"BT": _with_numbers(_Page._begin_text),
    b"ET": _with_numbers(_Page._end_text),
    b"Tf": _font,
    b"Tm": _with_numbers(_Page._place),
    b"Td": _with_numbers(_Page._move_line),
    b"TD": _move_and_lead,
    b"T*": _with_numbers(_Page._next_line),
    b"TL": _setting("leading"),
    b"Tc": _setting("spacing"),
    b"Tw": _setting("word_spacing"),
    b"Tz": _setting("stretch", 0.01),
    b"Tr": _mode,
}
