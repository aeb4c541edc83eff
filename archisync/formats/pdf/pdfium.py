"""PDFium: the texts and paths that are drawn on a page, and where they are.

The functions are described in PDFium's public headers (fpdfview.h, fpdf_edit.h, fpdf_text.h). A page takes more than a thousand
calls, and pypdfium2's declarations, which check each argument, make a call three times as long. So a handle becomes a pointer
once, and each function is called for all objects of a page in a row. Nothing is checked: only pass the handles of this module.
"""

import ctypes
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby, repeat
from typing import Any

import pypdfium2.raw as pdfium

from archisync.base.errors import ExportError
from archisync.formats.pdf.cells import Character, Text
from archisync.formats.pdf.grid import SIMPLE_PATH, THIN, Box, Path, Piece, Point

_MAX_DEPTH = 8  # forms within forms
_WORD = re.compile(r"\S+")
_NO_UNICODE, _LINE_END_HYPHEN = "\0", "\x02"  # in place of a character
_UNCLEAR = "\ufffe"  # either of them, in the text of a page
_ODD = re.compile(
    f"[{_NO_UNICODE}\ud800-\udfff"  # halves of a character in UTF-16
    "\u0590-\u08ff\u200f\u202b\u202e\u2067\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]"  # right to left
)

_Handle = Any
_pointer: Callable[[int | None], _Handle] = ctypes.c_void_p.from_param


def _function(name: str, result: Any = ctypes.c_int) -> Any:
    """A function of PDFium. It takes handles, numbers as C's int, bytes and `byref`, and keeps the interpreter's lock."""
    return ctypes.PYFUNCTYPE(result)(ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value or 0)


_load_document = _function("FPDF_LoadDocument", ctypes.c_void_p)
_close_document = _function("FPDF_CloseDocument", None)
_count_pages = _function("FPDF_GetPageCount")
_load_page = _function("FPDF_LoadPage", ctypes.c_void_p)
_close_page = _function("FPDF_ClosePage", None)
_page_width = _function("FPDF_GetPageWidthF", ctypes.c_float)
_page_height = _function("FPDF_GetPageHeightF", ctypes.c_float)
_page_rotation = _function("FPDFPage_GetRotation")
_count_objects = _function("FPDFPage_CountObjects")
_get_object = _function("FPDFPage_GetObject", ctypes.c_void_p)
_get_type = _function("FPDFPageObj_GetType")
_count_form_objects = _function("FPDFFormObj_CountObjects")
_get_form_object = _function("FPDFFormObj_GetObject", ctypes.c_void_p)
_count_segments = _function("FPDFPath_CountSegments")
_get_segment = _function("FPDFPath_GetPathSegment", ctypes.c_void_p)
_segment_point = _function("FPDFPathSegment_GetPoint")
_segment_type = _function("FPDFPathSegment_GetType")
_segment_closes = _function("FPDFPathSegment_GetClose")
_load_text = _function("FPDFText_LoadPage", ctypes.c_void_p)
_close_text = _function("FPDFText_ClosePage", None)
_count_characters = _function("FPDFText_CountChars")
_get_text = _function("FPDFText_GetText")
_get_owner = _function("FPDFText_GetTextObject", ctypes.c_void_p)
_get_character = _function("FPDFText_GetUnicode", ctypes.c_uint)
_get_ink = _function("FPDFText_GetCharBox")
_get_place = _function("FPDFText_GetLooseCharBox")


class _ForEach:
    """A function that writes values about an object, called for many objects; returns all values, one after the other.

    `values` describes the values of one object in the notation of `struct`; the function takes that many `addresses` for them.
    """

    def __init__(self, name: str, values: str, addresses: int) -> None:
        self._function = _function(name)
        self._size, self._addresses = struct.calcsize(values), addresses
        self._make_room(256)

    def __call__(self, handles: Sequence[_Handle]) -> bytes:
        if len(handles) > len(self._targets[0]):
            self._make_room(2 * len(handles))
        deque(map(self._function, handles, *self._targets), maxlen=0)
        return bytes(memoryview(self._memory)[: self._size * len(handles)])

    def _make_room(self, objects: int) -> None:
        self._memory = (ctypes.c_char * (self._size * objects))()
        starts = range(0, self._size * objects, self._size)
        self._targets = [[ctypes.byref(self._memory, at + 4 * i) for at in starts] for i in range(self._addresses)]


_BOUNDS, _MATRIX, _DRAW_MODE, _STROKE_WIDTH = "4f", "6f", "2i", "f"
_get_bounds = _ForEach("FPDFPageObj_GetBounds", _BOUNDS, 4)
_get_matrices = _ForEach("FPDFPageObj_GetMatrix", _MATRIX, 1)
_get_draw_modes = _ForEach("FPDFPath_GetDrawMode", _DRAW_MODE, 2)
_get_stroke_widths = _ForEach("FPDFPageObj_GetStrokeWidth", _STROKE_WIDTH, 1)


class Document:
    """An open file. Raises ExportError when it, or a page, can't be read."""

    def __init__(self, path: str) -> None:
        self._document = _pointer(_load_document(path.encode(), None))
        if not self._document:
            if pdfium.FPDF_GetLastError() == pdfium.FPDF_ERR_PASSWORD:
                raise ExportError("the PDF is protected by a password", hint="print the report without protection")
            raise ExportError(
                "the PDF can't be opened: it is damaged", hint="open it in a viewer, print the report again"
            )

    def close(self) -> None:
        _close_document(self._document)

    def __len__(self) -> int:
        return int(_count_pages(self._document))

    @contextmanager
    def page(self, number: int) -> "Iterator[Page]":
        """A page, counted from 0; it is open within the block."""
        page = _pointer(_load_page(self._document, number))
        if not page:
            raise ExportError(
                f"page {number + 1} of the PDF can't be read: it is damaged", hint="print the report again"
            )
        text_page = _pointer(_load_text(page))
        try:
            if not text_page:
                raise ExportError(
                    f"the text of page {number + 1} of the PDF can't be read", hint="print the report again"
                )
            yield Page(page, text_page)
        finally:
            _close_text(text_page)
            _close_page(page)


_Transform = tuple[float, float, float, float, float, float]
_TURNED: tuple[_Transform | None, ...] = (None, (0, -1, 1, 0, 0, 0), (-1, 0, 0, -1, 0, 0), (0, 1, -1, 0, 0, 0))
"""What turns a page as it is shown, by the number of quarter turns clockwise."""


class Page:
    """What is drawn on an open page, in points and turned as the page is shown.

    `boxes` are the outlines of simple paths, `paths` the paths that draw several lines or rectangles.
    """

    def __init__(self, page: _Handle, text_page: _Handle) -> None:
        self.size = (_page_width(page), _page_height(page))
        self.texts: list[Text] = []
        self.boxes: list[Box] = []
        self.paths: list[Path] = []
        self._text_page = text_page
        self._turn = _TURNED[_page_rotation(page) % 4]
        self._strings = _Strings(text_page)
        self._collect(list(map(_get_object, repeat(page), range(_count_objects(page)))), self._turn, 0)

    def characters(self, item: int) -> list[Character]:
        """The characters of a text object in drawing order."""
        ink, place = (ctypes.c_double * 4)(), (ctypes.c_float * 4)()
        sides = [ctypes.byref(ink, 8 * i) for i in range(4)]
        found = []
        for at in self._strings.places(item):
            if not _get_ink(self._text_page, at, *sides):
                continue
            _get_place(self._text_page, at, ctypes.byref(place))
            boxes = (ink[0], ink[2], ink[1], ink[3]), (place[0], place[3], place[2], place[1])
            if self._turn:
                boxes = _moved(boxes[0], self._turn), _moved(boxes[1], self._turn)
            found.append(Character(*boxes, self._strings.text[at].replace(_NO_UNICODE, "")))
        return found

    def _collect(self, items: list[int], transform: _Transform | None, depth: int) -> None:
        handles = list(map(_pointer, items))
        kinds = list(map(_get_type, handles))
        self._add_texts(
            _of(pdfium.FPDF_PAGEOBJ_TEXT, kinds, items), _of(pdfium.FPDF_PAGEOBJ_TEXT, kinds, handles), transform
        )
        self._add_paths(_of(pdfium.FPDF_PAGEOBJ_PATH, kinds, handles), transform)
        for form in _of(pdfium.FPDF_PAGEOBJ_FORM, kinds, handles) if depth < _MAX_DEPTH else ():
            numbers = map(ctypes.c_ulong, range(_count_form_objects(form)))
            (matrix,) = struct.iter_unpack(_MATRIX, _get_matrices([form]))
            self._collect(list(map(_get_form_object, repeat(form), numbers)), _combined(matrix, transform), depth + 1)

    def _add_texts(self, items: list[int], handles: list[_Handle], transform: _Transform | None) -> None:
        boxes: list[Box] = list(struct.iter_unpack(_BOUNDS, _get_bounds(handles)))
        if transform:
            boxes = [_moved(box, transform) for box in boxes]
        texts = zip(boxes, map(self._strings.of.get, items, repeat("")), items, strict=True)
        self.texts += map(Text._make, texts)

    def _add_paths(self, paths: list[_Handle], transform: _Transform | None) -> None:
        matrices = _get_matrices(paths)
        boxes = _outlines(_get_bounds(paths), _get_draw_modes(paths), _get_stroke_widths(paths), matrices, transform)
        points = list(map(_count_segments, paths))
        if max(points, default=0) <= SIMPLE_PATH:
            self.boxes += boxes
            return
        for path, total, box, matrix in zip(paths, points, boxes, struct.iter_unpack(_MATRIX, matrices), strict=True):
            if total <= SIMPLE_PATH:
                self.boxes.append(box)
            else:
                self.paths.append((box, tuple(_pieces(path, total, _combined(matrix, transform)))))


class _Strings:
    """The texts of a page: `text` is all of it, `of` the text of each text object."""

    def __init__(self, text_page: _Handle) -> None:
        self.text = text = _whole_text(text_page)
        spans = [word.span() for word in _WORD.finditer(text)]
        owners = list(map(_get_owner, repeat(text_page), [start for start, _ in spans]))
        # To ask for the owner of two characters a word is faster than for all. That is enough when one object draws the whole
        # word and PDFium keeps the characters of an object together, as it does in scripts that run from left to right.
        lasts = map(_get_owner, repeat(text_page), [end - 1 for _, end in spans])
        odd = owners != list(lasts) or _ODD.search(text)
        if odd:
            spans = [(at, at + 1) for at in range(len(text))]
            owners = list(map(_get_owner, repeat(text_page), range(len(text))))
        self.of: dict[int, str] = {}
        self._runs: dict[int, list[range]] = {}
        last = 0
        for owner, run in groupby(owners):
            first, last = last, last + len(list(run))
            start, end = spans[first][0], spans[last - 1][1]
            self._runs.setdefault(owner, []).append(range(start, end))
            self.of[owner] = self.of.get(owner, "") + text[start:end]
        if odd:
            self.of = {owner: _as_unicode(text).strip() for owner, text in self.of.items()}

    def places(self, item: int) -> list[int]:
        """The places of a text object's characters in `text`."""
        return [at for run in self._runs.get(item, ()) for at in run]


def _whole_text(text_page: _Handle) -> str:
    """The page's text, with one character for each that PDFium counts."""
    total = _count_characters(text_page)
    buffer = (ctypes.c_ushort * (2 * total + 2))()
    written = _get_text(text_page, 0, total, buffer)
    text = ctypes.string_at(buffer, 2 * max(written - 1, 0)).decode("utf-16-le", "replace")
    if len(text) != total or _UNCLEAR in text:  # beyond 16 bits PDFium counts two characters, and here it has one
        text = "".join([chr(_get_character(text_page, at)) for at in range(total)])
    return text.replace(_LINE_END_HYPHEN, "-")


def _as_unicode(text: str) -> str:
    return text.replace(_NO_UNICODE, "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _of(kind: int, kinds: list[int], values: list[Any]) -> list[Any]:
    return [value for value, its in zip(values, kinds, strict=True) if its == kind]


@lru_cache(maxsize=16)
def _outlines(
    bounds: bytes, draw_modes: bytes, stroke_widths: bytes, matrices: bytes, transform: _Transform | None
) -> list[Box]:
    """The outlines of paths, without the width of their lines. The last results are kept, as the pages of a report repeat them."""
    found = []
    for box, (_, stroked), (width,), matrix in zip(
        struct.iter_unpack(_BOUNDS, bounds),
        struct.iter_unpack(_DRAW_MODE, draw_modes),
        struct.iter_unpack(_STROKE_WIDTH, stroke_widths),
        struct.iter_unpack(_MATRIX, matrices),
        strict=True,
    ):
        if stroked:
            left, bottom, right, top = box
            across, up = _stroke(width, matrix)
            box = left + across, bottom + up, right - across, top - up
        found.append(_moved(box, transform) if transform else box)
    return found


def _stroke(width: float, matrix: _Transform) -> tuple[float, float]:
    """What PDFium adds to each side of a path's box beyond the line itself.

    It adds the whole width of the line, or half a point when the width is 0. Of a line so wide that it is a surface, half the
    width belongs to what is drawn.
    """
    a, b, c, d, _, _ = matrix
    across, up = width * (abs(a) + abs(c)), width * (abs(b) + abs(d))
    if not width:
        across = up = 0.5
    return (across / 2 if across > THIN else across), (up / 2 if up > THIN else up)


def _pieces(path: _Handle, points: int, transform: _Transform) -> Iterator[Piece]:
    """The straight pieces of a path."""
    point = (ctypes.c_float * 2)()
    x, y = ctypes.byref(point), ctypes.byref(point, 4)
    start: Point = (0.0, 0.0)
    here = start
    for i in range(points):
        segment = _pointer(_get_segment(path, i))
        _segment_point(segment, x, y)
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


def _combined(inner: _Transform, outer: _Transform | None) -> _Transform:
    """The transform that applies `inner` first (ISO 32000-1, 8.3.4)."""
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
