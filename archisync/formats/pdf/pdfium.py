"""A page's table read by PDFium: slower than `archisync.formats.pdf.content`, and for every page that a viewer can show.

A cell is what lies between four ruled lines, however these were drawn: as lines, as rectangles, as edges of fills or as one long
path. Texts go into the cell that they stand in; texts outside the table (titles, page numbers) don't count.

Source of the functions: PDFium's public headers (fpdfview.h, fpdf_edit.h, fpdf_text.h). A page takes hundreds of calls, so they
are called with plain addresses: pypdfium2's own declarations, which check pointer types, take twice as long.
"""

import ctypes
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pypdfium2.raw as pdfium

from archisync.base.errors import ExportError
from archisync.formats.pdf.grid import THIN, Box, Piece, Point, Rulings

Rows = list[list[str]]

_OVERHANG = 1.0  # points: glyphs may reach over a line by a hair
_PADDING = 8.0  # points between a cell's edge and a text aligned to it
_ROOM = 0.14  # of the line's height: room between two texts that is a blank
_SAME_PLACE = 1.0  # points: a text drawn again that near is the same text in bold
_LINE_END_HYPHEN = "\x02"  # what PDFium makes of a hyphen at the end of a line
_MAX_DEPTH = 8  # forms within forms


def _function(name: str, result: Any, *arguments: Any) -> Any:
    address = ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value
    assert address is not None
    return ctypes.CFUNCTYPE(result, *arguments)(address)


_ADDRESS, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
_BOX = (_ADDRESS,) * 4
_load_document = _function("FPDF_LoadDocument", _ADDRESS, ctypes.c_char_p, ctypes.c_char_p)
_close_document = _function("FPDF_CloseDocument", None, _ADDRESS)
_count_pages = _function("FPDF_GetPageCount", _INT, _ADDRESS)
_new_document = _function("FPDF_CreateNewDocument", _ADDRESS)
_load_page = _function("FPDF_LoadPage", _ADDRESS, _ADDRESS, _INT)
_close_page = _function("FPDF_ClosePage", None, _ADDRESS)
_page_width = _function("FPDF_GetPageWidthF", _FLOAT, _ADDRESS)
_page_height = _function("FPDF_GetPageHeightF", _FLOAT, _ADDRESS)
_page_rotation = _function("FPDFPage_GetRotation", _INT, _ADDRESS)
_count_objects = _function("FPDFPage_CountObjects", _INT, _ADDRESS)
_get_object = _function("FPDFPage_GetObject", _ADDRESS, _ADDRESS, _INT)
_get_type = _function("FPDFPageObj_GetType", _INT, _ADDRESS)
_get_bounds = _function("FPDFPageObj_GetBounds", _INT, _ADDRESS, *_BOX)
_get_matrix = _function("FPDFPageObj_GetMatrix", _INT, _ADDRESS, _ADDRESS)
_count_form_objects = _function("FPDFFormObj_CountObjects", _INT, _ADDRESS)
_get_form_object = _function("FPDFFormObj_GetObject", _ADDRESS, _ADDRESS, ctypes.c_ulong)
_get_draw_mode = _function("FPDFPath_GetDrawMode", _INT, _ADDRESS, _ADDRESS, _ADDRESS)
_get_stroke_width = _function("FPDFPageObj_GetStrokeWidth", _INT, _ADDRESS, _ADDRESS)
_count_segments = _function("FPDFPath_CountSegments", _INT, _ADDRESS)
_get_segment = _function("FPDFPath_GetPathSegment", _ADDRESS, _ADDRESS, _INT)
_segment_point = _function("FPDFPathSegment_GetPoint", _INT, _ADDRESS, _ADDRESS, _ADDRESS)
_segment_type = _function("FPDFPathSegment_GetType", _INT, _ADDRESS)
_segment_closes = _function("FPDFPathSegment_GetClose", _INT, _ADDRESS)
_load_text = _function("FPDFText_LoadPage", _ADDRESS, _ADDRESS)
_close_text = _function("FPDFText_ClosePage", None, _ADDRESS)
_get_text = _function("FPDFTextObj_GetText", ctypes.c_ulong, _ADDRESS, _ADDRESS, _ADDRESS, ctypes.c_ulong)
_load_standard_font = _function("FPDFText_LoadStandardFont", _ADDRESS, _ADDRESS, ctypes.c_char_p)
_close_font = _function("FPDFFont_Close", None, _ADDRESS)
_glyph_width = _function("FPDFFont_GetGlyphWidth", _INT, _ADDRESS, ctypes.c_uint, _FLOAT, _ADDRESS)
_count_characters = _function("FPDFText_CountChars", _INT, _ADDRESS)
_owner_of_character = _function("FPDFText_GetTextObject", _ADDRESS, _ADDRESS, _INT)
_box_of_character = _function("FPDFText_GetCharBox", _INT, _ADDRESS, _INT, *_BOX)
_loose_box_of_character = _function("FPDFText_GetLooseCharBox", _INT, _ADDRESS, _INT, _ADDRESS)
_character = _function("FPDFText_GetUnicode", ctypes.c_uint, _ADDRESS, _INT)


class _Text(NamedTuple):
    """A text, or a part of one, and its ink. `item` is the text object that it is the whole of, else 0."""

    left: float
    bottom: float
    right: float
    top: float
    text: str
    item: int = 0


class _Character(NamedTuple):
    """A character, its ink, and the place that it takes in its line."""

    ink: Box
    place: Box
    text: str


class Document:
    """An open file. Raises ExportError when it, or a page, can't be read."""

    def __init__(self, path: str) -> None:
        document = _load_document(path.encode(), None)
        if not document:
            if pdfium.FPDF_GetLastError() == pdfium.FPDF_ERR_PASSWORD:
                raise ExportError("the PDF is protected by a password", hint="print the report without protection")
            raise ExportError(
                "the PDF can't be opened: it is damaged", hint="open it in a viewer, print the report again"
            )
        self._document = int(document)

    def close(self) -> None:
        _close_document(self._document)

    def __len__(self) -> int:
        return int(_count_pages(self._document))

    def rows(self, number: int) -> Rows:
        """The rows of the table of a page, top row first; pages are counted from 0."""
        page = _load_page(self._document, number)
        if not page:
            raise ExportError(
                f"page {number + 1} of the PDF can't be read: it is damaged", hint="print the report again"
            )
        try:
            rows = _rows(page, number)
        finally:
            _close_page(page)
        if not rows:
            raise ExportError(
                f"page {number + 1} of the PDF has no ruled table",
                hint="print the report as a grid, with lines between its cells and as text, not as an image",
            )
        return rows


def standard_widths(name: str) -> list[float]:
    """How wide the 256 characters of cp1252 are in one of the fonts that need not be in a file, in units of the font size;
    nan for none."""
    document = _new_document()
    font = _load_standard_font(document, name.encode())
    try:
        return [_width_of(font, bytes((code,)).decode("cp1252", "ignore")) for code in range(256)]
    finally:
        if font:
            _close_font(font)
        _close_document(document)


def _width_of(font: int, character: str) -> float:
    width = ctypes.c_float()
    if not font or not character or not _glyph_width(font, ord(character), 1.0, ctypes.addressof(width)):
        return float("nan")
    return width.value


def _rows(page: int, number: int) -> Rows:
    text_page = _load_text(page)
    if not text_page:
        raise ExportError(f"the text of page {number + 1} of the PDF can't be read", hint="print the report again")
    try:
        return _Page(page, text_page).rows()
    finally:
        _close_text(text_page)


_Transform = tuple[float, float, float, float, float, float]
_TURNED: tuple[_Transform | None, ...] = (None, (0, -1, 1, 0, 0, 0), (-1, 0, 0, -1, 0, 0), (0, 1, -1, 0, 0, 0))
"""What turns a page as it is shown, by its quarter turns clockwise."""


class _Page:
    """One page while it is read."""

    def __init__(self, page: int, text_page: int) -> None:
        self._text_page = text_page
        self._rulings = Rulings(_page_width(page), _page_height(page))
        self._texts: list[tuple[float, float, float, float, int]] = []
        self._buffer = (ctypes.c_ushort * 1024)()
        self._characters: dict[int, list[_Character]] | None = None
        self._turned = _TURNED[_page_rotation(page) % 4]
        self._collect([_get_object(page, i) for i in range(_count_objects(page))], self._turned, 0)

    def _collect(self, objects: list[int], transform: _Transform | None, depth: int) -> None:
        floats = (ctypes.c_float * 4)()
        at = ctypes.addressof(floats)
        text_kind, path_kind, form_kind = (
            pdfium.FPDF_PAGEOBJ_TEXT,
            pdfium.FPDF_PAGEOBJ_PATH,
            pdfium.FPDF_PAGEOBJ_FORM,
        )
        texts = self._texts
        for item in objects:
            kind = _get_type(item)
            if kind in (text_kind, path_kind):
                if not _get_bounds(item, at, at + 4, at + 8, at + 12):
                    continue
                left, bottom, right, top = floats
                if kind == path_kind:
                    left, bottom, right, top = _without_stroke(item, left, bottom, right, top)
                if transform:
                    left, bottom, right, top = _moved((left, bottom, right, top), transform)
                if kind == text_kind:
                    texts.append((left, bottom, right, top, item))
                else:
                    self._add_path(item, (left, bottom, right, top), transform)
            elif kind == form_kind and depth < _MAX_DEPTH:
                inner = [_get_form_object(item, i) for i in range(_count_form_objects(item))]
                self._collect(inner, _combined(_matrix(item), transform), depth + 1)

    def _add_path(self, path: int, box: Box, transform: _Transform | None) -> None:
        points = _count_segments(path)
        self._rulings.add_path(box, points, lambda: self._pieces(path, points, _combined(_matrix(path), transform)))

    def _pieces(self, path: int, points: int, transform: _Transform) -> Iterator[Piece]:
        """The straight pieces of a path that draws many lines or rectangles at once."""
        point = (ctypes.c_float * 2)()
        at = ctypes.addressof(point)
        start: Point = (0.0, 0.0)
        here = start
        for i in range(points):
            segment = _get_segment(path, i)
            _segment_point(segment, at, at + 4)
            there = _point(point[0], point[1], transform)
            kind = _segment_type(segment)
            if kind == pdfium.FPDF_SEGMENT_MOVETO:
                start = there
            elif kind == pdfium.FPDF_SEGMENT_LINETO:
                yield here, there
            here = there
            if _segment_closes(segment):
                yield here, start
                here = start

    def rows(self) -> Rows:
        """The cells between the ruled lines, top row first; empty without a table."""
        xs, ys = self._rulings.grid()
        return self._fill(xs, ys) if len(xs) > 1 and len(ys) > 1 else []

    def _fill(self, xs: list[float], ys: list[float]) -> Rows:
        columns, lines = len(xs) - 1, len(ys) - 1
        cells: list[list[_Text]] = [[] for _ in range(columns * lines)]
        for left, bottom, right, top, item in self._texts:
            row = lines - bisect_right(ys, (bottom + top) / 2)
            if not 0 <= row < lines:
                continue
            if right <= xs[0] + _OVERHANG or left >= xs[-1] - _OVERHANG:
                continue
            column = bisect_right(xs, min(left + _OVERHANG, (left + right) / 2)) - 1
            if 0 <= column < columns and right - _OVERHANG <= xs[column + 1]:
                if text := self._text(item):
                    cells[row * columns + column].append(_Text(left, bottom, right, top, text, item))
                continue
            for part_column, part in self._parts(_Text(left, bottom, right, top, "", item), xs):
                if 0 <= part_column < columns:
                    cells[row * columns + part_column].append(part)
        joined = [self._joined(texts) if texts else "" for texts in cells]
        return [joined[start : start + columns] for start in range(0, columns * lines, columns)]

    def _text(self, item: int) -> str:
        buffer = self._buffer
        size = 2 * len(buffer)
        needed = _get_text(item, self._text_page, ctypes.addressof(buffer), size)
        if needed > size:
            self._buffer = buffer = (ctypes.c_ushort * (needed // 2))()
            _get_text(item, self._text_page, ctypes.addressof(buffer), needed)
        return (
            ctypes.string_at(buffer, max(needed - 2, 0))
            .decode("utf-16-le", "replace")
            .replace(_LINE_END_HYPHEN, "-")
            .strip()
        )

    def _parts(self, box: _Text, xs: list[float]) -> Iterator[tuple[int, _Text]]:
        """A text that reaches over a ruled line: several cells drawn as one text are cut where they leave a gap at the
        line; a text too long for its cell stays whole and belongs where it is aligned. Blanks around it don't count."""
        parts = _cut(self._characters_of(box.item), xs)
        if len(parts) > 1:
            for part in parts:
                yield bisect_right(xs, (part.left + part.right) / 2) - 1, part
            return
        text = self._text(box.item)
        if not text:
            return
        left, right = (parts[0].left, parts[0].right) if parts else (box.left, box.right)
        if right <= xs[0] + _OVERHANG or left >= xs[-1] - _OVERHANG:
            return
        first = bisect_right(xs, min(left + _OVERHANG, (left + right) / 2)) - 1
        last = min(bisect_right(xs, right - _OVERHANG) - 1, len(xs) - 2)
        aligned_left = first == last or first < 0 or left - xs[first] <= _PADDING
        yield max(first, 0) if aligned_left else last, box._replace(left=left, right=right, text=text)

    def _characters_of(self, item: int) -> list[_Character]:
        if self._characters is None:
            self._characters = {}
            sides, loose = (ctypes.c_double * 4)(), (ctypes.c_float * 4)()
            at, loose_at = ctypes.addressof(sides), ctypes.addressof(loose)
            for i in range(_count_characters(self._text_page)):
                owner = _owner_of_character(self._text_page, i)
                if not owner or not _box_of_character(self._text_page, i, at, at + 8, at + 16, at + 24):
                    continue
                _loose_box_of_character(self._text_page, i, loose_at)
                ink, place = (sides[0], sides[2], sides[1], sides[3]), (loose[0], loose[3], loose[2], loose[1])
                if self._turned:
                    ink, place = _moved(ink, self._turned), _moved(place, self._turned)
                character = chr(_character(self._text_page, i)).replace(_LINE_END_HYPHEN, "-")
                self._characters.setdefault(owner, []).append(_Character(ink, place, character))
        return self._characters.get(item, [])

    def _joined(self, texts: list[_Text]) -> str:
        """The texts of one cell: lines from the top, each from the left; blanks where the drawing leaves room for one."""
        if len(texts) == 1:
            return " ".join(texts[0].text.split())
        lines: list[list[_Text]] = []
        for text in sorted(texts, key=lambda t: -(t.top + t.bottom)):
            middle = (text.top + text.bottom) / 2
            if lines and any(other.bottom - 1.0 <= middle <= other.top + 1.0 for other in lines[-1]):
                lines[-1].append(text)
            else:
                lines.append([text])
        return " ".join(" ".join(self._in_one_line(line).split()) for line in lines)

    def _in_one_line(self, texts: list[_Text]) -> str:
        if len(texts) == 1:
            return texts[0].text
        placed = sorted((self._place(text), text.text) for text in texts)
        parts = [placed[0][1]]
        for (before, text_before), (place, text) in pairwise(placed):
            if text == text_before and place[0] - before[0] < _SAME_PLACE:
                continue
            if place[0] - before[2] > _ROOM * max(before[3] - before[1], place[3] - place[1]):
                parts.append(" ")
            parts.append(text)
        return "".join(parts)

    def _place(self, text: _Text) -> Box:
        """The place that a text takes in its line: its ink leaves room at its sides that is none between words."""
        places = [c.place for c in self._characters_of(text.item) if not c.text.isspace()] if text.item else []
        if not places:
            return text.left, text.bottom, text.right, text.top
        return (
            min(place[0] for place in places),
            min(place[1] for place in places),
            max(place[2] for place in places),
            max(place[3] for place in places),
        )


def _cut(characters: list[_Character], xs: list[float]) -> list[_Text]:
    """Characters in drawing order, put together to one text for each cell; blanks between cells belong to none."""
    parts: list[_Text] = []
    column = None
    for (left, bottom, right, top), _, text in characters:
        if text.isspace():
            if parts:
                parts[-1] = parts[-1]._replace(text=parts[-1].text + " ")
            continue
        at = bisect_right(xs, (left + right) / 2) - 1
        if parts and (at == column or left - parts[-1].right < 1.0):
            last = parts[-1]
            parts[-1] = _Text(last.left, min(last.bottom, bottom), right, max(last.top, top), last.text + text)
        else:
            parts.append(_Text(left, bottom, right, top, text))
        column = at
    return [part._replace(text=part.text.strip()) for part in parts]


def _without_stroke(path: int, left: float, bottom: float, right: float, top: float) -> Box:
    """PDFium adds to a path's box, on each side, the whole width of the line that it is drawn with, and half a point for one
    of no width. That is no part of where the line is; of one so wide that it is a surface, half the width is."""
    mode, width = (ctypes.c_int * 2)(), ctypes.c_float()
    _get_draw_mode(path, ctypes.addressof(mode), ctypes.addressof(mode) + 4)
    if not mode[1]:
        return left, bottom, right, top
    _get_stroke_width(path, ctypes.addressof(width))
    a, b, c, d, _, _ = _matrix(path)
    across, up = width.value * (abs(a) + abs(c)), width.value * (abs(b) + abs(d))
    if not width.value:
        across = up = 0.5
    across, up = (across / 2 if across > THIN else across), (up / 2 if up > THIN else up)
    return left + across, bottom + up, right - across, top - up


def _matrix(item: int) -> _Transform:
    matrix = (ctypes.c_float * 6)()
    _get_matrix(item, ctypes.addressof(matrix))
    a, b, c, d, e, f = matrix
    return a, b, c, d, e, f


def _combined(inner: _Transform, outer: _Transform | None) -> _Transform:
    """What applies `inner` first (PDF 32000-1, 8.3.4)."""
    if outer is None:
        return inner
    a, b, c, d, e, f = inner
    A, B, C, D, E, F = outer
    return a * A + b * C, a * B + b * D, c * A + d * C, c * B + d * D, e * A + f * C + E, e * B + f * D + F


def _point(x: float, y: float, transform: _Transform) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * x + c * y + e, b * x + d * y + f


def _moved(box: Box, transform: _Transform) -> Box:
    (x0, y0), (x1, y1) = _point(box[0], box[1], transform), _point(box[2], box[3], transform)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
