"""One small table, drawn in the ways that printing programs draw tables: its cells are read whatever the way."""

from pathlib import Path

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas

from archisync.base.errors import ExportError
from archisync.formats.pdf.pages import read_pages
from tests.support.drawings import (
    DRAWINGS,
    FONTS,
    SIZE,
    TABLE,
    Draw,
    blanks_around,
    characters,
    forms_within_forms,
    in_tenths_of_a_point,
    lines,
    one_string_for_a_row,
)
from tests.support.reports import stream, write_objects


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
