"""The ruled table of each page of a PDF, as rows of cell texts. Only the child process of `archisync.formats.pdf` imports this.

A cell is what lies between four ruled lines, however these were drawn: as lines, as rectangles, as edges of fills or as one long
path. Texts go into the cell that they stand in; texts outside the table (titles, page numbers) don't count.

Source of the functions: PDFium's public headers (fpdfview.h, fpdf_edit.h, fpdf_text.h). A page takes hundreds of calls, so they
are called with plain addresses: pypdfium2's own declarations, which check pointer types, take twice as long.
"""

import ctypes
import fcntl
import marshal
import os
import signal
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import IO, Any, NamedTuple, NoReturn

import pypdfium2.raw as pdfium

from archisync.errors import ExportError
from archisync.processes import die_with_parent

Rows = list[list[str]]

REOPEN_AFTER = 256
"""Pages after which the document is opened anew: PDFium keeps what it has parsed until the document is closed."""
SHARED_FROM = 48
"""Pages from which on a second process pays; it costs a fork and the transport of its rows."""
SHARE = 128
"""Pages that one of two processes reads at a time."""
PIPE_BYTES = 1 << 20
_THIN = 2.5  # points: anything thinner is a line
_SAME_LINE = 3.0  # points: two ruled lines nearer than this are one
_COVERAGE = 0.45  # of the table's height or width that a ruled line covers at least; a footer row may span all columns
_SIMPLE_PATH = 6  # segments; a rectangle has up to five
_OVERHANG = 1.0  # points: glyphs may reach over a line by a hair
_PADDING = 8.0  # points between a cell's edge and a text aligned to it
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
_load_page = _function("FPDF_LoadPage", _ADDRESS, _ADDRESS, _INT)
_close_page = _function("FPDF_ClosePage", None, _ADDRESS)
_page_width = _function("FPDF_GetPageWidthF", _FLOAT, _ADDRESS)
_page_height = _function("FPDF_GetPageHeightF", _FLOAT, _ADDRESS)
_count_objects = _function("FPDFPage_CountObjects", _INT, _ADDRESS)
_get_object = _function("FPDFPage_GetObject", _ADDRESS, _ADDRESS, _INT)
_get_type = _function("FPDFPageObj_GetType", _INT, _ADDRESS)
_get_bounds = _function("FPDFPageObj_GetBounds", _INT, _ADDRESS, *_BOX)
_get_matrix = _function("FPDFPageObj_GetMatrix", _INT, _ADDRESS, _ADDRESS)
_count_form_objects = _function("FPDFFormObj_CountObjects", _INT, _ADDRESS)
_get_form_object = _function("FPDFFormObj_GetObject", _ADDRESS, _ADDRESS, ctypes.c_ulong)
_count_segments = _function("FPDFPath_CountSegments", _INT, _ADDRESS)
_get_segment = _function("FPDFPath_GetPathSegment", _ADDRESS, _ADDRESS, _INT)
_segment_point = _function("FPDFPathSegment_GetPoint", _INT, _ADDRESS, _ADDRESS, _ADDRESS)
_segment_type = _function("FPDFPathSegment_GetType", _INT, _ADDRESS)
_segment_closes = _function("FPDFPathSegment_GetClose", _INT, _ADDRESS)
_load_text = _function("FPDFText_LoadPage", _ADDRESS, _ADDRESS)
_close_text = _function("FPDFText_ClosePage", None, _ADDRESS)
_get_text = _function("FPDFTextObj_GetText", ctypes.c_ulong, _ADDRESS, _ADDRESS, _ADDRESS, ctypes.c_ulong)
_count_characters = _function("FPDFText_CountChars", _INT, _ADDRESS)
_owner_of_character = _function("FPDFText_GetTextObject", _ADDRESS, _ADDRESS, _INT)
_box_of_character = _function("FPDFText_GetCharBox", _INT, _ADDRESS, _INT, *_BOX)
_character = _function("FPDFText_GetUnicode", ctypes.c_uint, _ADDRESS, _INT)


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

    def add(self, position: float, length: float, start: float, end: float) -> None:
        known = self.at.get(position)
        if known is None:
            self.at[position] = [length, start, end]
            return
        known[0] += length
        known[1] = min(known[1], start)
        known[2] = max(known[2], end)

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


def read_pages(path: str, *, processes: int | None = None) -> Iterator[Rows]:
    """The rows of each page's table, the header row first. Raises ExportError when the file or a page can't be read.

    `processes`: a report of many pages is read by a forked process too (default: when there is a second processor).
    """
    document = _open(path)
    try:
        total = _count_pages(document)
    finally:
        _close_document(document)
    if total < 1:
        raise ExportError("the PDF has no pages", hint="print the report again")
    processes = processes or len(os.sched_getaffinity(0))
    if processes == 1 or total < SHARED_FROM:
        for start in range(0, total, REOPEN_AFTER):
            yield from _read_range(path, start, min(start + REOPEN_AFTER, total))
        return
    yield from _shared(path, total)


def _shared(path: str, total: int) -> Iterator[Rows]:
    """Every second share of the pages comes from a helper, in order; it waits when it is ahead of us by what a pipe holds."""
    share = min(SHARE, -(-total // 4))
    out, into = os.pipe()
    helper = os.fork()
    if helper == 0:
        _help(path, total, share, into, out)
    os.close(into)
    try:
        with os.fdopen(out, "rb") as shares:
            for start in range(0, total, 2 * share):
                yield from _read_range(path, start, min(start + share, total))
                for _ in range(start + share, min(start + 2 * share, total)):
                    yield _received(shares)
    finally:
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)


def _help(path: str, total: int, share: int, into: int, out: int) -> NoReturn:
    """What the helper does; it never returns into the caller's frames."""
    code = 1
    try:
        os.close(out)
        die_with_parent(os.getppid())
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with os.fdopen(into, "wb") as shares:
            try:
                for start in range(share, total, 2 * share):
                    for rows in _read_range(path, start, min(start + share, total)):
                        marshal.dump(rows, shares)
                    shares.flush()
            except ExportError as exc:
                marshal.dump([exc.message, exc.hint], shares)
        code = 0
    finally:
        os._exit(code)


def _received(shares: IO[bytes]) -> Rows:
    try:
        received = marshal.load(shares)  # noqa: S302 - from our own process
    except (EOFError, ValueError, TypeError):
        raise ExportError(
            "the PDF can't be read: a process that read it ended",
            hint="open it in a viewer; ARCHISYNC_PDF_MEMORY_BYTES",
        ) from None
    if isinstance(received[0], str):
        raise ExportError(received[0], hint=received[1])
    rows: Rows = received
    return rows


def _read_range(path: str, start: int, end: int) -> Iterator[Rows]:
    document = _open(path)
    try:
        for number in range(start, end):
            yield _read_page(document, number)
    finally:
        _close_document(document)


def _open(path: str) -> int:
    document = _load_document(path.encode(), None)
    if not document:
        if pdfium.FPDF_GetLastError() == pdfium.FPDF_ERR_PASSWORD:
            raise ExportError("the PDF is protected by a password", hint="print the report without protection")
        raise ExportError("the PDF can't be opened: it is damaged", hint="open it in a viewer, print the report again")
    return int(document)


def _read_page(document: int, number: int) -> Rows:
    page = _load_page(document, number)
    if not page:
        raise ExportError(f"page {number + 1} of the PDF can't be read: it is damaged", hint="print the report again")
    try:
        text_page = _load_text(page)
        if not text_page:
            raise ExportError(f"the text of page {number + 1} of the PDF can't be read", hint="print the report again")
        try:
            rows = _Page(page, text_page).rows()
        finally:
            _close_text(text_page)
    finally:
        _close_page(page)
    if not rows:
        raise ExportError(
            f"page {number + 1} of the PDF has no ruled table",
            hint="print the report as a grid, with lines between its cells and as text, not as an image",
        )
    return rows


_Transform = tuple[float, float, float, float, float, float]
_Box = tuple[float, float, float, float]  # left, bottom, right, top


class _Page:
    """One page while it is read."""

    def __init__(self, page: int, text_page: int) -> None:
        self._text_page = text_page
        self._width, self._height = _page_width(page), _page_height(page)
        self._vertical, self._horizontal = _Edges(), _Edges()
        self._columns: dict[tuple[float, float], list[float]] = {}  # rectangles: (left, right) → as in _Edges
        self._rows: dict[tuple[float, float], list[float]] = {}  # (bottom, top) → the same
        self._texts: list[tuple[float, float, float, float, int]] = []
        self._buffer = (ctypes.c_ushort * 1024)()
        self._characters: dict[int, list[_Text]] | None = None
        self._collect([_get_object(page, i) for i in range(_count_objects(page))], None, 0)
        for (left, right), edge in self._columns.items():
            self._vertical.add(left, *edge)
            self._vertical.add(right, *edge)
        for (bottom, top), edge in self._rows.items():
            self._horizontal.add(bottom, *edge)
            self._horizontal.add(top, *edge)

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
                if transform:
                    left, bottom, right, top = _moved((left, bottom, right, top), transform)
                if kind == text_kind:
                    texts.append((left, bottom, right, top, item))
                else:
                    self._add_path(item, left, bottom, right, top, transform)
            elif kind == form_kind and depth < _MAX_DEPTH:
                inner = [_get_form_object(item, i) for i in range(_count_form_objects(item))]
                self._collect(inner, _combined(_matrix(item), transform), depth + 1)

    def _add_path(
        self, path: int, left: float, bottom: float, right: float, top: float, transform: _Transform | None
    ) -> None:
        width, height = right - left, top - bottom
        if width <= _THIN:
            if height > _THIN:
                self._vertical.add((left + right) / 2, height, bottom, top)
        elif height <= _THIN:
            self._horizontal.add((bottom + top) / 2, width, left, right)
        elif width >= self._width - 2 * _SAME_LINE and height >= self._height - 2 * _SAME_LINE:
            return  # the paper's own colour
        elif _count_segments(path) > _SIMPLE_PATH:
            self._add_segments(path, _combined(_matrix(path), transform))
        else:
            _add_rectangle(self._columns, left, right, bottom, top)
            _add_rectangle(self._rows, bottom, top, left, right)

    def _add_segments(self, path: int, transform: _Transform) -> None:
        """The straight pieces of a path that draws many lines or rectangles at once."""
        point = (ctypes.c_float * 2)()
        at = ctypes.addressof(point)
        start = here = (0.0, 0.0)
        for i in range(_count_segments(path)):
            segment = _get_segment(path, i)
            _segment_point(segment, at, at + 4)
            there = _point(point[0], point[1], transform)
            kind = _segment_type(segment)
            if kind == pdfium.FPDF_SEGMENT_MOVETO:
                start = there
            elif kind == pdfium.FPDF_SEGMENT_LINETO:
                self._add_straight(here, there)
            here = there
            if _segment_closes(segment):
                self._add_straight(here, start)
                here = start

    def _add_straight(self, one: tuple[float, float], other: tuple[float, float]) -> None:
        width, height = abs(one[0] - other[0]), abs(one[1] - other[1])
        if width <= _THIN < height:
            self._vertical.add((one[0] + other[0]) / 2, height, min(one[1], other[1]), max(one[1], other[1]))
        elif height <= _THIN < width:
            self._horizontal.add((one[1] + other[1]) / 2, width, min(one[0], other[0]), max(one[0], other[0]))

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
        cells: list[list[_Text]] = [[] for _ in range(columns * lines)]
        for left, bottom, right, top, item in self._texts:
            row = lines - bisect_right(ys, (bottom + top) / 2)
            if not 0 <= row < lines:
                continue
            column = bisect_right(xs, left + _OVERHANG) - 1
            if 0 <= column < columns and right - _OVERHANG <= xs[column + 1]:
                if text := self._text(item):
                    cells[row * columns + column].append(_Text(left, bottom, right, top, text))
                continue
            for part_column, part in self._parts(_Text(left, bottom, right, top, ""), item, xs):
                if 0 <= part_column < columns:
                    cells[row * columns + part_column].append(part)
        joined = [_joined(texts) if texts else "" for texts in cells]
        return [joined[start : start + columns] for start in range(0, columns * lines, columns)]

    def _text(self, item: int) -> str:
        buffer = self._buffer
        size = 2 * len(buffer)
        needed = _get_text(item, self._text_page, ctypes.addressof(buffer), size)
        if needed > size:
            self._buffer = buffer = (ctypes.c_ushort * (needed // 2))()
            _get_text(item, self._text_page, ctypes.addressof(buffer), needed)
        return ctypes.string_at(buffer, max(needed - 2, 0)).decode("utf-16-le", "replace").strip()

    def _parts(self, box: _Text, item: int, xs: list[float]) -> Iterator[tuple[int, _Text]]:
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
        first = bisect_right(xs, box.left + _OVERHANG) - 1
        if first < 0 or box.left - xs[first] <= _PADDING:
            yield max(first, 0), box._replace(text=text)
        else:
            yield min(bisect_right(xs, box.right - _OVERHANG) - 1, len(xs) - 2), box._replace(text=text)

    def _characters_of(self, item: int) -> list[_Text]:
        if self._characters is None:
            self._characters = {}
            sides = (ctypes.c_double * 4)()
            at = ctypes.addressof(sides)
            for i in range(_count_characters(self._text_page)):
                owner = _owner_of_character(self._text_page, i)
                if not owner or not _box_of_character(self._text_page, i, at, at + 8, at + 16, at + 24):
                    continue
                left, right, bottom, top = sides
                character = chr(_character(self._text_page, i))
                self._characters.setdefault(owner, []).append(_Text(left, bottom, right, top, character))
        return self._characters.get(item, [])


def _add_rectangle(
    known: dict[tuple[float, float], list[float]], one: float, other: float, start: float, end: float
) -> None:
    edge = known.get((one, other))
    if edge is None:
        known[one, other] = [end - start, start, end]
        return
    edge[0] += end - start
    if start < edge[1]:
        edge[1] = start
    if end > edge[2]:
        edge[2] = end


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


def _moved(box: tuple[float, float, float, float], transform: _Transform) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = _point(box[0], box[1], transform), _point(box[2], box[3], transform)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
