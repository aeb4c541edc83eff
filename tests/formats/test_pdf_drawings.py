"""One small table, drawn in the ways that printing programs draw tables: its cells are read whatever the way."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import reportlab
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from archisync.base.errors import ExportError
from archisync.formats.pdf.pages import read_pages
from tests.support.reports import stream, write_objects

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.pdf"


def read(path: Path) -> list[list[str]]:
    (rows,) = read_pages(str(path))
    return rows


def draw(path: Path, drawing: Draw, font: str = "Helvetica") -> None:
    canvas = Canvas(str(path), pagesize=(400, 300))
    canvas.setFont(font, SIZE)
    drawing(canvas, font)
    canvas.save()


@pytest.mark.parametrize("font", FONTS)
@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.__name__)
def test_every_drawing_has_the_same_cells(path: Path, drawing: Draw, font: str) -> None:
    draw(path, drawing, font)
    assert read(path) == TABLE


@pytest.mark.parametrize(
    "drawing", [lines, one_string_for_a_row, characters, in_tenths_of_a_point, blanks_around, forms_within_forms]
)
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_page_is_read_as_it_is_shown(path: Path, quarters: int, drawing: Draw) -> None:
    canvas = Canvas(str(path), pagesize=(300, 400) if quarters % 2 else (400, 300))
    canvas.setPageRotation(90 * quarters)
    canvas.setFont("Helvetica", SIZE)
    canvas.transform(*{1: (0, 1, -1, 0, 300, 0), 2: (-1, 0, 0, -1, 400, 300), 3: (0, -1, 1, 0, 0, 400)}[quarters])
    drawing(canvas, "Helvetica")
    canvas.save()
    assert read(path) == TABLE


def test_a_cropped_page_is_read(path: Path) -> None:
    canvas = Canvas(str(path), pagesize=(800, 600), cropBox=(20, 100, 380, 290))
    canvas.setFont("Helvetica", SIZE)
    lines(canvas, "Helvetica")
    canvas.save()
    assert read(path) == TABLE


@pytest.mark.parametrize(
    ("first", "second", "cell"),
    [
        ("x A", "B", "x אב"),
        ("xxA", "B", "xxאב"),  # in PDFium's text of the page, B is between the characters of the first object
        ("abA", "Bcd", "abאבcd"),
        ("x E", "ab", "x 😀ab"),
        ("aNb", "c", "abc"),  # a character without Unicode
    ],
)
def test_every_character_stays_with_the_object_that_draws_it(path: Path, first: str, second: str, cell: str) -> None:
    ruled = "".join(f"{x} 100 m {x} 140 l S " for x in (40, 140, 240)) + "".join(
        f"40 {y} m 240 {y} l S " for y in (100, 120, 140)
    )
    end = 42 + stringWidth(first, "Helvetica", SIZE)
    texts = "".join(
        f"BT /F1 {SIZE} Tf {x} {y} Td ({text}) Tj ET "
        for x, y, text in ((42, 128, first), (end, 128, second), (142, 128, "altro testo"), (42, 108, "1"))
    )
    meaning = b"4 beginbfchar <41> <05D0> <42> <05D1> <45> <D83DDE00> <4E> <0000> endbfchar"
    write_objects(
        path,
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 300] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        stream((ruled + texts).encode()),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding /ToUnicode 6 0 R >>",
        stream(b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange %s endcmap" % meaning),
    )
    assert read(path) == [[cell, "altro testo"], ["1", ""]]


def test_pages_are_read_in_their_order(path: Path) -> None:
    canvas = Canvas(str(path), pagesize=(400, 300))
    for number in range(10):
        canvas.setFont("Helvetica", SIZE)
        lines(canvas, "Helvetica")
        canvas.drawString(142, 178, f"{number}")
        canvas.showPage()
    canvas.save()
    assert list(read_pages(str(path))) == [[*TABLE[:-1], ["0", f"{number}", "x (1)"]] for number in range(10)]


def test_a_file_with_a_password_is_refused(path: Path) -> None:
    canvas = Canvas(str(path), encrypt=StandardEncryption("secret"))
    lines(canvas, "Helvetica")
    canvas.save()
    with pytest.raises(ExportError, match="the PDF is protected by a password") as refused:
        read(path)
    assert refused.value.hint == "print the report without protection"


def test_a_file_that_is_only_protected_from_changes_is_read(path: Path) -> None:
    canvas = Canvas(str(path), pagesize=(400, 300), encrypt=StandardEncryption("", "secret", canModify=0, canCopy=0))
    canvas.setFont("Helvetica", SIZE)
    lines(canvas, "Helvetica")
    canvas.save()
    assert read(path) == TABLE


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (b"<< /Type /Pages /Count 2 /Kids [2 0 R 2 0 R] >>", "page 1 of the PDF can't be read: it is damaged"),
        (b"<< /Type /Pages /Count 9 /Kids [] >>", "page 1 of the PDF can't be read: it is damaged"),
        (b"<< /Type /Pages /Count 1 /Kids 2 0 R >>", "page 1 of the PDF can't be read: it is damaged"),
        (b"<< /Type /Pages /Count 0 /Kids [] >>", "the PDF has no pages"),
        (b"2 0 R", "the PDF has no pages"),
        (b"[" * 10_000, "the PDF has no pages"),
        (b"<< /A " * 10_000, "page 1 of the PDF has no ruled table"),
    ],
)
def test_a_damaged_page_tree_is_refused(path: Path, tree: bytes, message: str) -> None:
    write_objects(path, b"<< /Type /Catalog /Pages 2 0 R >>", tree)
    with pytest.raises(ExportError) as refused:
        read(path)
    assert refused.value.message == message


@pytest.mark.parametrize("instruction", ["1 ", "(", "[", "[ ] ", "q ", "q Q ", "/F1 "])
def test_endless_instructions_after_the_table_change_nothing(path: Path, instruction: str) -> None:
    def drawing(canvas: Canvas, font: str) -> None:
        lines(canvas, font)
        canvas.addLiteral(200_000 * instruction)

    draw(path, drawing)
    assert read(path) == TABLE
