"""The ruled table of each page of a PDF, as rows of cell texts. Only the child process of `archisync.formats.pdf` imports this.

A cell is what lies between four ruled lines, however these were drawn: as lines, as rectangles, as edges of fills or as one long
path. Texts go into the cell that they stand in; texts outside the table (titles, page numbers) don't count.
Source of the functions: the public headers of PDFium (fpdf_edit.h, fpdf_text.h), through pypdfium2's raw bindings.
"""

import ctypes
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pypdfium2.raw as pdfium

from archisync.errors import ExportError

Rows = list[list[str]]

REOPEN_AFTER = 256
"""Pages after which the document is opened anew: PDFium keeps what it has parsed until the document is closed."""
_THIN = 2.5  # points: anything thinner is a line
_SAME_LINE = 3.0  # points: two ruled lines nearer than this are one
_COVERAGE = 0.45  # of the table's height or width that a ruled line covers at least; a footer row may span all columns
_SIMPLE_PATH = 6  # segments; a rectangle has up to five
_PADDING = 8.0  # points between a cell's edge and a text aligned to it
_MAX_DEPTH = 8  # forms within forms


class _Text(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float
    text: str


class _Edges:
    """Ruled lines of one direction: position → [total length, start, end]."""

    def __init__(self) -> None:
        self.at: dict[float, list[float]] = {}

    def add(self, position: float, start: float, end: float) -> None:
        position = round(position, 1)
        known = self.at.get(position)
        if known is None:
            self.at[position] = [end - start, start, end]
            return
        known[0] += end - start
        if start < known[1]:
            known[1] = start
        if end > known[2]:
            known[2] = end

    def lines(self) -> list["_Line"]:
        """The lines in order of their position, edges that lie together taken as one."""
        groups: list[list[tuple[float, list[float]]]] = []
        for item in sorted(self.at.items()):
            if groups and item[0] - groups[-1][-1][0] <= _SAME_LINE:
                groups[-1].append(item)
            else:
                groups.append([item])
        return [_line(group) for group in groups]


class _Line(NamedTuple):
    """A ruled line: its position, the total length of its pieces (pieces drawn twice count twice), and its ends."""

    at: float
    total: float
    start: float
    end: float


def _line(group: list[tuple[float, list[float]]]) -> _Line:
    total = sum(edge[0] for _, edge in group)
    middle = sum(position * edge[0] for position, edge in group) / total
    return _Line(middle, total, min(edge[1] for _, edge in group), max(edge[2] for _, edge in group))


def read_pages(path: str) -> Iterator[Rows]:
    """The rows of each page's table, the header row first. Raises ExportError when the file or a page can't be read."""
    done, total = 0, 1
    while done < total:
        document = _open(path)
        try:
            total = pdfium.FPDF_GetPageCount(document)
            if total < 1:
                raise ExportError("the PDF has no pages", hint="print the report again")
            for number in range(done, min(done + REOPEN_AFTER, total)):
                yield _read_page(document, number)
                done += 1
        finally:
            pdfium.FPDF_CloseDocument(document)


def _open(path: str) -> Any:
    document = pdfium.FPDF_LoadDocument(path.encode(), None)
    if not document:
        if pdfium.FPDF_GetLastError() == pdfium.FPDF_ERR_PASSWORD:
            raise ExportError("the PDF is protected by a password", hint="print the report without protection")
        raise ExportError("the PDF can't be opened: it is damaged", hint="open it in a viewer, print the report again")
    return document


def _read_page(document: Any, number: int) -> Rows:
    page = pdfium.FPDF_LoadPage(document, number)
    if not page:
        raise ExportError(f"page {number + 1} of the PDF can't be read: it is damaged", hint="print the report again")
    try:
        text_page = pdfium.FPDFText_LoadPage(page)
        if not text_page:
            raise ExportError(f"the text of page {number + 1} of the PDF can't be read", hint="print the report again")
        try:
            rows = _Page(page, text_page).rows()
        finally:
            pdfium.FPDFText_ClosePage(text_page)
    finally:
        pdfium.FPDF_ClosePage(page)
    if not rows:
        raise ExportError(
            f"page {number + 1} of the PDF has no ruled table",
            hint="print the report as a grid, with lines between its cells and as text, not as an image",
        )
    return rows


_Transform = tuple[float, float, float, float, float, float]


class _Page:
    """One page while it is read."""

    def __init__(self, page: Any, text_page: Any) -> None:
        self._text_page = text_page
        self._width = pdfium.FPDF_GetPageWidthF(page)
        self._height = pdfium.FPDF_GetPageHeightF(page)
        self._vertical, self._horizontal = _Edges(), _Edges()
        self._texts: list[tuple[float, float, float, float, Any]] = []
        self._buffer = (ctypes.c_ushort * 1024)()
        self._characters: dict[int, list[_Text]] | None = None
        count = pdfium.FPDFPage_CountObjects(page)
        get = pdfium.FPDFPage_GetObject
        self._collect([get(page, i) for i in range(count)], None, 0)

    def _collect(self, objects: list[Any], transform: _Transform | None, depth: int) -> None:
        floats = [ctypes.c_float() for _ in range(4)]
        left, bottom, right, top = floats
        references = [ctypes.byref(f) for f in floats]
        get_type, get_bounds = pdfium.FPDFPageObj_GetType, pdfium.FPDFPageObj_GetBounds
        for item in objects:
            kind = get_type(item)
            if kind == pdfium.FPDF_PAGEOBJ_TEXT:
                if get_bounds(item, *references):
                    box = left.value, bottom.value, right.value, top.value
                    self._texts.append((*(_moved(box, transform) if transform else box), item))
            elif kind == pdfium.FPDF_PAGEOBJ_PATH:
                if get_bounds(item, *references):
                    box = left.value, bottom.value, right.value, top.value
                    self._add_path(item, _moved(box, transform) if transform else box, transform)
            elif kind == pdfium.FPDF_PAGEOBJ_FORM and depth < _MAX_DEPTH:
                count = pdfium.FPDFFormObj_CountObjects(item)
                inner = [pdfium.FPDFFormObj_GetObject(item, i) for i in range(count)]
                self._collect(inner, _combined(_matrix(item), transform), depth + 1)

    def _add_path(self, path: Any, box: tuple[float, float, float, float], transform: _Transform | None) -> None:
        left, bottom, right, top = box
        width, height = right - left, top - bottom
        if width <= _THIN:
            if height > _THIN:
                self._vertical.add((left + right) / 2, bottom, top)
        elif height <= _THIN:
            self._horizontal.add((bottom + top) / 2, left, right)
        elif width >= self._width - 2 * _SAME_LINE and height >= self._height - 2 * _SAME_LINE:
            return  # the paper's own colour
        elif pdfium.FPDFPath_CountSegments(path) <= _SIMPLE_PATH:
            self._vertical.add(left, bottom, top)
            self._vertical.add(right, bottom, top)
            self._horizontal.add(bottom, left, right)
            self._horizontal.add(top, left, right)
        else:
            self._add_segments(path, _combined(_matrix(path), transform))

    def _add_segments(self, path: Any, transform: _Transform) -> None:
        """The straight pieces of a path that draws many lines or rectangles at once."""
        x, y = ctypes.c_float(), ctypes.c_float()
        start = here = (0.0, 0.0)
        for i in range(pdfium.FPDFPath_CountSegments(path)):
            segment = pdfium.FPDFPath_GetPathSegment(path, i)
            pdfium.FPDFPathSegment_GetPoint(segment, x, y)
            there = _point(x.value, y.value, transform)
            kind = pdfium.FPDFPathSegment_GetType(segment)
            if kind == pdfium.FPDF_SEGMENT_MOVETO:
                start = there
            elif kind == pdfium.FPDF_SEGMENT_LINETO:
                self._add_straight(here, there)
            here = there
            if pdfium.FPDFPathSegment_GetClose(segment):
                self._add_straight(here, start)
                here = start

    def _add_straight(self, one: tuple[float, float], other: tuple[float, float]) -> None:
        if abs(one[0] - other[0]) <= _THIN < abs(one[1] - other[1]):
            self._vertical.add((one[0] + other[0]) / 2, min(one[1], other[1]), max(one[1], other[1]))
        elif abs(one[1] - other[1]) <= _THIN < abs(one[0] - other[0]):
            self._horizontal.add((one[1] + other[1]) / 2, min(one[0], other[0]), max(one[0], other[0]))

    def rows(self) -> Rows:
        """The cells between the ruled lines, top row first; empty without a table."""
        xs, ys = self._grid()
        return self._fill(xs, ys) if len(xs) > 1 and len(ys) > 1 else []

    def _grid(self) -> tuple[list[float], list[float]]:
        """Positions of the vertical lines from the left and of the horizontal ones from the bottom."""
        vertical, horizontal = _drawn(self._vertical), _drawn(self._horizontal)
        while _drop_outsiders(vertical, horizontal) or _drop_outsiders(horizontal, vertical):
            pass
        return _long(vertical), _long(horizontal)

    def _fill(self, xs: list[float], ys: list[float]) -> Rows:
        columns, lines = len(xs) - 1, len(ys) - 1
        cells: dict[tuple[int, int], list[_Text]] = {}
        for left, bottom, right, top, item in self._texts:
            row = bisect_right(ys, (bottom + top) / 2) - 1
            if not 0 <= row < lines:
                continue
            first, last = bisect_right(xs, left + 1.0) - 1, bisect_right(xs, right - 1.0) - 1
            if first >= last:
                column = bisect_right(xs, (left + right) / 2) - 1
                if 0 <= column < columns and (text := self._text(item)):
                    cells.setdefault((row, column), []).append(_Text(left, bottom, right, top, text))
                continue
            for column, part in self._parts(_Text(left, bottom, right, top, ""), item, xs):
                if 0 <= column < columns:
                    cells.setdefault((row, column), []).append(part)
        rows = []
        for row in range(lines - 1, -1, -1):
            cell_texts = [cells.get((row, column)) for column in range(columns)]
            rows.append([_joined(texts) if texts else "" for texts in cell_texts])
        return rows

    def _text(self, item: Any) -> str:
        size = len(self._buffer)
        needed = pdfium.FPDFTextObj_GetText(item, self._text_page, self._buffer, size * 2) // 2
        if needed > size:
            self._buffer = (ctypes.c_ushort * needed)()
            pdfium.FPDFTextObj_GetText(item, self._text_page, self._buffer, needed * 2)
        if needed <= 1:
            return ""
        return ctypes.string_at(self._buffer, (needed - 1) * 2).decode("utf-16-le", "replace").strip()

    def _parts(self, box: _Text, item: Any, xs: list[float]) -> Iterator[tuple[int, _Text]]:
        """A text that reaches over a ruled line: several cells drawn as one text are cut where they leave a gap at the
        line; a text too long for its cell stays whole and belongs where it is aligned."""
        parts = _cut(self._characters_of(item), xs)
        if len(parts) > 1:
            for part in parts:
                yield bisect_right(xs, (part.left + part.right) / 2) - 1, part
            return
        text = self._text(item)
        if not text:
            return
        first = bisect_right(xs, box.left + 1.0) - 1
        if first < 0 or box.left - xs[first] <= _PADDING:
            yield max(first, 0), box._replace(text=text)
        else:
            yield min(bisect_right(xs, box.right - 1.0) - 1, len(xs) - 2), box._replace(text=text)

    def _characters_of(self, item: Any) -> list[_Text]:
        if self._characters is None:
            self._characters = {}
            boxes = [ctypes.c_double() for _ in range(4)]
            references = [ctypes.byref(d) for d in boxes]
            for i in range(pdfium.FPDFText_CountChars(self._text_page)):
                owner = pdfium.FPDFText_GetTextObject(self._text_page, i)
                if not owner or not pdfium.FPDFText_GetCharBox(self._text_page, i, *references):
                    continue
                left, right, bottom, top = (d.value for d in boxes)
                character = chr(pdfium.FPDFText_GetUnicode(self._text_page, i))
                self._characters.setdefault(_address(owner), []).append(_Text(left, bottom, right, top, character))
        return self._characters.get(_address(item), [])


def _drawn(edges: _Edges) -> list[_Line]:
    """Lines that are drawn over a good part of their length."""
    return [line for line in edges.lines() if line.total >= _COVERAGE * (line.end - line.start)]


def _drop_outsiders(lines: list[_Line], across: list[_Line]) -> bool:
    """Take away an outermost line that most lines across don't reach: a frame around the table, a rule beside it."""
    for index in (0, -1):
        if not lines:
            return False
        at = lines[index].at
        reaching = sum(line.start - _SAME_LINE <= at <= line.end + _SAME_LINE for line in across)
        if 2 * reaching <= len(across):
            del lines[index]
            return True
    return False


def _long(lines: list[_Line]) -> list[float]:
    """Where the lines are that go over a good part of the table."""
    longest = max((line.end - line.start for line in lines), default=0.0)
    return [line.at for line in lines if line.total >= _COVERAGE * longest]


def _cut(characters: list[_Text], xs: list[float]) -> list[_Text]:
    """Characters in drawing order, put together to one text for each cell; blanks between cells belong to none."""
    parts: list[_Text] = []
    column = None
    for c in characters:
        if c.text.isspace():
            if parts:
                parts[-1] = parts[-1]._replace(text=parts[-1].text + " ")
            continue
        at = bisect_right(xs, (c.left + c.right) / 2) - 1
        if parts and (at == column or c.left - parts[-1].right < 1.0):
            last = parts[-1]
            parts[-1] = _Text(last.left, min(last.bottom, c.bottom), c.right, max(last.top, c.top), last.text + c.text)
        else:
            parts.append(c)
        column = at
    return [part._replace(text=part.text.strip()) for part in parts]


def _joined(texts: list[_Text]) -> str:
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
    return " ".join(" ".join(_in_one_line(line).split()) for line in lines)


def _in_one_line(texts: list[_Text]) -> str:
    texts.sort()
    room = 0.2 * max(text.top - text.bottom for text in texts)
    parts = [texts[0].text]
    for before, text in pairwise(texts):
        if text.left - before.right > room:
            parts.append(" ")
        parts.append(text.text)
    return "".join(parts)


def _address(item: Any) -> int:
    return ctypes.cast(item, ctypes.c_void_p).value or 0


def _matrix(item: Any) -> _Transform:
    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFPageObj_GetMatrix(item, matrix)
    return matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f


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


def _moved(box: tuple[float, float, float, float], transform: _Transform) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = _point(box[0], box[1], transform), _point(box[2], box[3], transform)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
