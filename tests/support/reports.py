"""Draws the ERP's paged wide reports from the cells that must be read from them; and writes other PDF files object by object."""

import string
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import reportlab
from reportlab.lib.utils import simpleSplit
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

STYLES = ("rects", "fills", "lines", "path", "form", "words", "frame")
STANDARD_FONT = "Helvetica"
EMBEDDED_FONT = "Vera"

_SIZE = 7
_LEADING = 9
_MARGIN = 30
_PADDING = 2


def write_report(
    path: Path,
    slices: Sequence[Sequence[int]],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    rows_per_page: int = 20,
    style: str = "rects",
    font: str = STANDARD_FONT,
    column_width: float = 90,
    drop_pages: Sequence[int] = (),
    shorten_pages: Sequence[int] = (),
    short_of_a_record: Sequence[int] = (),
    footer_everywhere: bool = False,
    footer: bool = False,
) -> int:
    """Draw a page for the columns of each slice, for each block of rows. Returns the number of pages of the whole report.

    `drop_pages` are left out, `shorten_pages` lack their last row, and `short_of_a_record` their second; pages count from 0.
    """
    if font == EMBEDDED_FONT and font not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(TTFont(font, str(Path(reportlab.__file__).parent / "fonts" / "Vera.ttf")))
    canvas = Canvas(str(path), pageCompression=1)
    blocks = [rows[i : i + rows_per_page] for i in range(0, max(len(rows), 1), rows_per_page)]
    number = 0
    for block_number, block in enumerate(blocks):
        for slice_number, columns in enumerate(slices):
            drawn = [[header[c] for c in columns]] + [[row[c] for c in columns] for row in block]
            if number in short_of_a_record:
                del drawn[2]
            if footer and block_number == len(blocks) - 1 and (slice_number == 0 or footer_everywhere):
                drawn.append([f"Count={len(rows)}" if slice_number == 0 else ""] + [""] * (len(columns) - 1))
            if number in shorten_pages:
                drawn.pop()
            if number not in drop_pages:
                _draw_page(canvas, drawn, number, style, font, column_width)
                canvas.showPage()
            number += 1
    canvas.save()
    return number


def cut(columns: int, *sizes: int) -> list[list[int]]:
    """Column numbers of slices of those sizes; the last slice has the rest of the columns."""
    found, at = [], 0
    for size in sizes:
        found.append(list(range(at, min(at + size, columns))))
        at += size
    if at < columns:
        found.append(list(range(at, columns)))
    return [columns_of for columns_of in found if columns_of]


def write_objects(path: Path, *objects: bytes) -> None:
    """Write a PDF of these objects, numbered from 1; the first is the catalog."""
    out = bytearray(b"%PDF-1.4\n")
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for number, body in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(out))
    path.write_bytes(bytes(out) + table + trailer)


def stream(data: bytes, about: bytes = b"") -> bytes:
    """An object that holds the data."""
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), about, data)


def _draw_page(canvas: Canvas, drawn: list[list[str]], number: int, style: str, font: str, width: float) -> None:
    lines = [[simpleSplit(cell, font, _SIZE, width - 2 * _PADDING) or [""] for cell in row] for row in drawn]
    heights = [max(len(cell) for cell in row) * _LEADING + 4 for row in lines]
    columns = len(drawn[0])
    page_width, page_height = columns * width + 2 * _MARGIN, sum(heights) + 2 * _MARGIN + 20
    canvas.setPageSize((page_width, page_height))
    canvas.setFont(font, _SIZE)
    canvas.drawString(_MARGIN, page_height - 20, "Elenco stampato")
    canvas.drawRightString(page_width - _MARGIN, 12, f"Pagina {number + 1}")
    xs = [_MARGIN + i * width for i in range(columns + 1)]
    ys: list[float] = [page_height - _MARGIN]
    for height in heights:
        ys.append(ys[-1] - height)
    if style == "form":
        canvas.beginForm(f"page{number}", 0, 0, page_width, page_height)
        canvas.setFont(font, _SIZE)
    _RULES.get(style, _draw_rects)(canvas, xs, ys)
    canvas.setFillGray(0)
    for row, top in zip(lines, ys, strict=False):
        for cell, left in zip(row, xs, strict=False):
            _draw_cell(canvas, cell, left, top, style, font, width)
    if style == "form":
        canvas.endForm()
        canvas.doForm(f"page{number}")
    if style == "frame":
        canvas.rect(10, 5, page_width - 20, page_height - 10)


def _draw_cell(canvas: Canvas, cell: list[str], left: float, top: float, style: str, font: str, width: float) -> None:
    for i, line in enumerate(cell):
        base = top - (i + 1) * _LEADING + 1
        if style == "words":
            x = left + _PADDING
            for word in line.split(" "):
                canvas.drawString(x, base, word)
                x += pdfmetrics.stringWidth(word + " ", font, _SIZE)
        elif line and line[-1] in string.digits and len(cell) == 1 and line[:1] in string.digits:
            canvas.drawRightString(left + width - _PADDING, base, line)
        else:
            canvas.drawString(left + _PADDING, base, line)


def _draw_rects(canvas: Canvas, xs: list[float], ys: list[float]) -> None:
    canvas.setLineWidth(0.5)
    for left, right in pairwise(xs):
        for top, bottom in pairwise(ys):
            canvas.rect(left, bottom, right - left, top - bottom)


def _draw_lines(canvas: Canvas, xs: list[float], ys: list[float]) -> None:
    for x in xs:
        canvas.line(x, ys[0], x, ys[-1])
    for y in ys:
        canvas.line(xs[0], y, xs[-1], y)


def _draw_fills(canvas: Canvas, xs: list[float], ys: list[float]) -> None:
    for i, (top, bottom) in enumerate(pairwise(ys)):
        canvas.setFillGray(0.8 if i == 0 else 0.95 if i % 2 else 1)
        canvas.rect(xs[0], bottom, xs[-1] - xs[0], top - bottom, stroke=0, fill=1)
    canvas.setLineWidth(1)
    _draw_lines(canvas, xs, ys)


def _draw_path(canvas: Canvas, xs: list[float], ys: list[float]) -> None:
    path: Any = canvas.beginPath()
    for x in xs:
        path.moveTo(x, ys[0])
        path.lineTo(x, ys[-1])
    for y in ys:
        path.moveTo(xs[0], y)
        path.lineTo(xs[-1], y)
    canvas.drawPath(path)


_RULES = {"fills": _draw_fills, "lines": _draw_lines, "path": _draw_path, "form": _draw_lines}
