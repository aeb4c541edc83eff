"""One small table, drawn in the ways that printing programs draw tables."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import reportlab
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

XS = (40.0, 140.0, 240.0, 360.0)
YS = (260.0, 240.0, 220.0, 190.0, 170.0)
SIZE = 8
TABLE = [
    ["ID", "NOME", "IMPORTO"],
    ["70.962", "Città ABC-", "1.234,56"],
    ["70.963", "due righe", "-3,10"],
    ["0", "", "x (1)"],
]
FONTS = ("Helvetica", "Vera")
pdfmetrics.registerFont(TTFont("Vera", str(Path(reportlab.__file__).parent / "fonts" / "Vera.ttf")))


def cells() -> Iterator[tuple[float, float, str]]:
    """The left edge, the base line and the text of each cell that is not empty."""
    for top, texts in zip(YS, TABLE, strict=False):
        for left, text in zip(XS, texts, strict=False):
            if text:
                yield left, top - 12, text


def areas() -> Iterator[tuple[float, float, float, float]]:
    """Left, bottom, width and height of each cell."""
    for top, bottom in pairwise(YS):
        for left, right in pairwise(XS):
            yield left, bottom, right - left, top - bottom


def rules(canvas: Canvas) -> None:
    for y in YS:
        canvas.line(XS[0], y, XS[-1], y)
    for x in XS:
        canvas.line(x, YS[0], x, YS[-1])


def texts(canvas: Canvas, *, padding: float = 2) -> None:
    for left, base, text in cells():
        canvas.drawString(left + padding, base, text)


def lines(canvas: Canvas, font: str) -> None:
    rules(canvas)
    texts(canvas)


def wide_lines(canvas: Canvas, font: str) -> None:
    canvas.setLineWidth(2)
    lines(canvas, font)


def dotted_lines_of_no_width(canvas: Canvas, font: str) -> None:
    canvas.setLineWidth(0)
    canvas.setDash(1, 2)
    lines(canvas, font)


def bands_of_colour(canvas: Canvas, font: str) -> None:
    """Every second row is a line as wide as the row."""
    canvas.setLineWidth(20)
    canvas.setStrokeGray(0.9)
    canvas.line(40, 230, 360, 230)
    canvas.setLineWidth(1)
    lines(canvas, font)


def fills_and_clipped_texts(canvas: Canvas, font: str) -> None:
    """Borders are thin fills, and each text is clipped to its cell."""
    for left, bottom, width, height in areas():
        canvas.setFillGray(0.9)
        canvas.rect(left, bottom, width, height, stroke=0, fill=1)
        canvas.setFillGray(0)
        canvas.rect(left, bottom, width, 0.75, stroke=0, fill=1)
        canvas.rect(left, bottom, 0.75, height, stroke=0, fill=1)
    canvas.line(XS[-1], YS[0], XS[-1], YS[-1])
    canvas.line(XS[0], YS[0], XS[-1], YS[0])
    for left, base, text in cells():
        canvas.saveState()
        path = canvas.beginPath()
        path.rect(left, base - 5, 100, 17)
        canvas.clipPath(path, stroke=0)
        canvas.drawString(left + 2, base, text)
        canvas.restoreState()


def from_the_top_down(canvas: Canvas, font: str) -> None:
    canvas.transform(1, 0, 0, -1, 0, 300)
    for left, bottom, width, height in areas():
        canvas.rect(left, 300 - bottom - height, width, height)
    for left, base, text in cells():
        shown = canvas.beginText()
        shown.setTextTransform(1, 0, 0, -1, left + 2, 300 - base)
        shown.textOut(text)
        canvas.drawText(shown)


def in_tenths_of_a_point(canvas: Canvas, font: str) -> None:
    canvas.scale(0.1, 0.1)
    canvas.setLineWidth(5)
    canvas.setFont(font, 10 * SIZE)
    for area in areas():
        canvas.rect(*(10 * value for value in area))
    for left, base, text in cells():
        canvas.drawString(10 * left + 20, 10 * base, text)


def one_text_for_all(canvas: Canvas, font: str) -> None:
    """Everything between one BT and its ET, and a cell of two lines."""
    rules(canvas)
    shown = canvas.beginText()
    for left, base, text in cells():
        shown.setTextOrigin(left + 2, base + 3)
        for word in text.split(" "):
            shown.textLine(word)
    canvas.drawText(shown)


def one_string_for_a_row(canvas: Canvas, font: str) -> None:
    """Shifts within the string lead from one cell to the next. Always Helvetica, as reportlab can't draw this."""
    rules(canvas)
    for top, row in zip(YS, TABLE, strict=False):
        parts, end = [], XS[0] + 2
        for left, text in zip(XS, row, strict=False):
            if text:
                parts.append(f"{(end - left - 2) * 1000 / SIZE:.2f} {literal(text)}")
                end = left + 2 + stringWidth(text, "Helvetica", SIZE)
        canvas.addLiteral(f"BT /F1 {SIZE} Tf 1 0 0 1 {XS[0] + 2} {top - 12} Tm [{' '.join(parts)}] TJ ET")


def kerned(canvas: Canvas, font: str) -> None:
    rules(canvas)
    for left, base, text in cells():
        pairs = " ".join(f"{literal(character)} {-40 if i % 2 else 55}" for i, character in enumerate(text))
        canvas.addLiteral(f"BT /F1 {SIZE} Tf 1 0 0 1 {left + 2} {base} Tm [{pairs}] TJ ET")


def literal(text: str) -> str:
    """A string of Helvetica in hexadecimal digits; reportlab writes it in WinAnsi."""
    return f"<{text.encode('cp1252').hex()}>"


def characters(canvas: Canvas, font: str) -> None:
    """Each character for itself, also the blanks."""
    rules(canvas)
    for left, base, text in cells():
        for at, character in enumerate(text):
            canvas.drawString(left + 2 + stringWidth(text[:at], font, SIZE), base, character)


def words(canvas: Canvas, font: str) -> None:
    rules(canvas)
    for left, base, text in cells():
        x = left + 2
        for word in text.split(" "):
            canvas.drawString(x, base, word)
            x += stringWidth(word + " ", font, SIZE)


def halves_of_words(canvas: Canvas, font: str) -> None:
    """The second half in another size, as bold or coloured parts are drawn."""
    rules(canvas)
    for left, base, text in cells():
        half = len(text) // 2
        canvas.setFont(font, SIZE)
        canvas.drawString(left + 2, base, text[:half])
        canvas.setFont(font, SIZE - 1)
        canvas.drawString(left + 2 + stringWidth(text[:half], font, SIZE), base, text[half:])


def blanks_around(canvas: Canvas, font: str) -> None:
    """The blanks reach over the cell's edges."""
    rules(canvas)
    for left, base, text in cells():
        canvas.drawString(left + 2 - stringWidth("  ", font, SIZE), base, f"  {text}" + 40 * " ")


def aligned_right_without_room(canvas: Canvas, font: str) -> None:
    rules(canvas)
    for left, base, text in cells():
        canvas.drawRightString(XS[XS.index(left) + 1], base, text)


def spaced(canvas: Canvas, font: str) -> None:
    rules(canvas)
    for left, base, text in cells():
        shown = canvas.beginText(left + 2, base)
        shown.setCharSpace(0.2)
        shown.setWordSpace(1)
        shown.setHorizScale(105)
        shown.textOut(text)
        canvas.drawText(shown)


def invisible_texts(canvas: Canvas, font: str) -> None:
    """As a scanner puts over its picture."""
    rules(canvas)
    for left, base, text in cells():
        canvas.drawString(left + 2, base, text, mode=3)


def texts_beside(canvas: Canvas, font: str) -> None:
    """Texts outside the table, some at the height of its rows, are none of its cells."""
    lines(canvas, font)
    canvas.drawString(20, 280, "Elenco")
    for top in YS[:-1]:
        canvas.drawString(20, top - 12, "1")
        canvas.drawString(370, top - 12, "2")


def bold_by_drawing_twice(canvas: Canvas, font: str) -> None:
    lines(canvas, font)
    texts(canvas, padding=2.25)


def coloured_paper(canvas: Canvas, font: str) -> None:
    canvas.setFillColorRGB(1, 1, 0.9)
    canvas.rect(0, 0, 400, 300, stroke=0, fill=1)
    canvas.setFillGray(0, alpha=0.5)
    lines(canvas, font)


def polygons(canvas: Canvas, font: str) -> None:
    for left, bottom, width, height in areas():
        path = canvas.beginPath()
        path.moveTo(left, bottom)
        path.lineTo(left + width, bottom)
        path.lineTo(left + width, bottom + height)
        path.lineTo(left, bottom + height)
        path.close()
        canvas.drawPath(path)
    texts(canvas)


def rectangles_in_one_path(canvas: Canvas, font: str) -> None:
    canvas.setLineWidth(2)
    path = canvas.beginPath()
    for area in areas():
        path.rect(*area)
    canvas.drawPath(path)
    texts(canvas)


def rounded_frame(canvas: Canvas, font: str) -> None:
    canvas.roundRect(20, 20, 370, 260, 10)
    lines(canvas, font)


def forms_within_forms(canvas: Canvas, font: str) -> None:
    canvas.beginForm("inner")
    canvas.setFont(font, SIZE)
    canvas.translate(10, 20)
    lines(canvas, font)
    canvas.endForm()
    canvas.beginForm("outer")
    canvas.translate(-5, -10)
    canvas.doForm("inner")
    canvas.endForm()
    canvas.translate(-5, -10)
    canvas.doForm("outer")


DRAWINGS = (
    lines,
    wide_lines,
    dotted_lines_of_no_width,
    bands_of_colour,
    fills_and_clipped_texts,
    from_the_top_down,
    in_tenths_of_a_point,
    one_text_for_all,
    one_string_for_a_row,
    kerned,
    characters,
    words,
    halves_of_words,
    blanks_around,
    aligned_right_without_room,
    spaced,
    invisible_texts,
    texts_beside,
    bold_by_drawing_twice,
    coloured_paper,
    polygons,
    rectangles_in_one_path,
    rounded_frame,
    forms_within_forms,
)
Draw = Callable[[Canvas, str], None]
