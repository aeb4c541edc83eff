"""One small table, drawn in every way that printing programs have: both readers, and the usual one, must find the same cells.

`quick` says whether the fast reader takes such a page; where it doesn't, PDFium reads it, so the cells are right all the same.
"""

import base64
import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pdfplumber
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reportlab.pdfbase.pdfmetrics import stringWidth

from archisync.formats.pdf import content as pdfcontent
from archisync.formats.pdf import pdfium
from archisync.formats.pdf.file import Name, Stream, Unsure, from_ascii85
from archisync.formats.pdf.pages import BATCH, SHARED_FROM, Reader, read_pages
from tests.support.pdfwriter import SHIFT, WIDTHS, PdfFile, write_pages

XS = (40.0, 140.0, 240.0, 360.0)
YS = (260.0, 240.0, 220.0, 190.0, 170.0)
SIZE = 8
TABLE = [
    ["ID", "NOME", "IMPORTO"],
    ["70.962", "Città ABC-", "1.234,56"],
    ["70.963", "due righe", "-3,10"],
    ["0", "", "x (1)"],
]
FONTS = ("F1", "F2", "F3")


def encoded(text: str, font: str) -> bytes:
    """A string operand."""
    codes = text.encode("cp1252")
    if font == "F2":
        return b"<%s>" % b"".join(b"%04x" % (code + SHIFT) for code in codes)
    if font == "F3":
        codes = bytes(code + SHIFT for code in codes)
    return b"(%s)" % re.sub(rb"[\\()]", rb"\\\g<0>", codes)


def width(text: str, font: str) -> float:
    """In points."""
    if font == "F1":
        return float(stringWidth(text, "Helvetica", SIZE))
    return sum(WIDTHS[code] for code in text.encode("cp1252")) * SIZE / 1000


def cells() -> Iterator[tuple[int, int, str]]:
    """Row, column, text of the cells that are not empty."""
    for row, texts in enumerate(TABLE):
        for column, text in enumerate(texts):
            if text:
                yield row, column, text


def rules() -> bytes:
    """Long lines."""
    across = [b"%g %g m %g %g l S\n" % (XS[0], y, XS[-1], y) for y in YS]
    return b"".join([*across, *(b"%g %g m %g %g l S\n" % (x, YS[0], x, YS[-1]) for x in XS)])


def texts(font: str, *, before: bytes = b"", after: bytes = b"", padding: float = 2) -> bytes:
    """Each text for itself."""
    return b"".join(
        b"%sBT /%s %d Tf 1 0 0 1 %g %g Tm %s Tj ET%s\n"
        % (before, font.encode(), SIZE, XS[column] + padding, YS[row] - 12, encoded(text, font), after)
        for row, column, text in cells()
    )


def lines(font: str) -> bytes:
    return rules() + texts(font)


def wide_lines(font: str) -> bytes:
    return b"2 w " + lines(font)


def wide_outlines(font: str) -> bytes:
    return b"2 w " + rectangles_in_one_path(font).replace(b" re\n", b" re S\n")


def dots_as_lines(font: str) -> bytes:
    """Of no width, and dotted."""
    return b"0 w [1 2] 0 d " + lines(font)


def bands(font: str) -> bytes:
    """Wide strokes that colour every second row."""
    return b"q .9 G 20 w 40 230 m 360 230 l S Q\n" + lines(font)


def cell_by_cell(font: str) -> bytes:
    """Each cell is clipped, its borders are thin fills."""
    out = []
    for row in range(4):
        for column in range(3):
            left, bottom = XS[column], YS[row + 1]
            w, h = XS[column + 1] - left, YS[row] - bottom
            out.append(b"0.9 g %g %g %g %g re f 0 g\n" % (left, bottom, w, h))
            out.append(b"%g %g %g 0.75 re f %g %g 0.75 %g re f\n" % (left, bottom, w, left, bottom, h))
            out.append(b"q %g %g %g %g re W n\nBT\n" % (left, bottom, w, h))
            out.append(b"/%s %d Tf\n%g %g Td\n" % (font.encode(), SIZE, left + 2, YS[row] - 12))
            out.append(b"%s Tj\nET\nQ\n" % encoded(TABLE[row][column], font))
    return b"".join(out) + b"%g %g m %g %g l S %g %g m %g %g l S\n" % (
        XS[-1], YS[0], XS[-1], YS[-1], XS[0], YS[0], XS[-1], YS[0],
    )  # fmt: skip


def flipped(font: str) -> bytes:
    """From the top down, as screens are drawn."""
    out = [b"1 0 0 -1 0 300 cm\n"]
    for row in range(4):
        for column in range(3):
            w, h = XS[column + 1] - XS[column], YS[row] - YS[row + 1]
            out.append(b"%g %g %g %g re S\n" % (XS[column], 300 - YS[row], w, h))
    for row, column, text in cells():
        out.append(b"BT /%s %d Tf 1 0 0 -1 %g %g Tm %s Tj ET\n" % (
            font.encode(), SIZE, XS[column] + 2, 300 - YS[row] + 12, encoded(text, font),
        ))  # fmt: skip
    return b"".join(out)


def scaled(font: str) -> bytes:
    """In tenths of a point, the size in the matrix."""
    out = [b"q .1 0 0 .1 0 0 cm 5 w\n"]
    for row in range(4):
        for column in range(3):
            w, h = XS[column + 1] - XS[column], YS[row] - YS[row + 1]
            out.append(b"%g %g %g %g re B\n" % (10 * XS[column], 10 * YS[row + 1], 10 * w, 10 * h))
    for row, column, text in cells():
        out.append(b"0 g BT /%s 1 Tf %d 0 0 %d %g %g Tm %s Tj ET 1 g\n" % (
            font.encode(), SIZE * 10, SIZE * 10, 10 * XS[column] + 20, 10 * YS[row] - 120, encoded(text, font),
        ))  # fmt: skip
    return b"".join(out) + b"Q\n"


def one_text_object(font: str) -> bytes:
    """All texts between one BT and its ET, moved from one to the next."""
    out, x, y = [rules(), b"BT /%s %d Tf 8 TL\n" % (font.encode(), SIZE)], 0.0, 0.0
    for row, column, text in cells():
        there = XS[column] + 2, YS[row] - 9
        first, _, rest = text.partition(" ")
        out.append(b"%g %g Td %s Tj\n" % (there[0] - x, there[1] - y, encoded(first, font)))
        x, y = there
        if rest:
            out.append(b"T* %s Tj\n" % encoded(rest, font))
            y -= 8
    return b"".join([*out, b"ET\n"])


def apostrophes(font: str) -> bytes:
    """Lines with the operator that moves to the next one."""
    out = [rules(), b"/%s %d Tf 8.5 TL\n" % (font.encode(), SIZE)]
    for row, column, text in cells():
        out.append(b"BT 1 0 0 1 %g %g Tm\n" % (XS[column] + 2, YS[row]))
        out += [b"%s '\n" % encoded(word, font) for word in text.split(" ")]
        out.append(b"ET\n")
    return b"".join(out)


def kerned(font: str) -> bytes:
    out = [rules()]
    for row, column, text in cells():
        pairs = b"".join(encoded(character, font) + b"%d" % (-40 if i % 2 else 55) for i, character in enumerate(text))
        out.append(b"BT /%s %d Tf 1 0 0 1 %g %g Tm [%s] TJ ET\n" % (
            font.encode(), SIZE, XS[column] + 2, YS[row] - 12, pairs,
        ))  # fmt: skip
    return b"".join(out)


def one_array_a_row(font: str) -> bytes:
    """Shifts lead from one cell to the next."""
    out = [rules()]
    for row, row_texts in enumerate(TABLE):
        parts, end = [], XS[0] + 2
        for column, text in enumerate(row_texts):
            if text:
                parts.append(b"%.2f %s" % ((end - XS[column] - 2) * 1000 / SIZE, encoded(text, font)))
                end = XS[column] + 2 + width(text, font)
        out.append(b"BT /%s %d Tf 1 0 0 1 %g %g Tm [%s] TJ ET\n" % (
            font.encode(), SIZE, XS[0] + 2, YS[row] - 12, b" ".join(parts),
        ))  # fmt: skip
    return b"".join(out)


def characters(font: str) -> bytes:
    """Each character for itself, also the blanks."""
    out = [rules(), b"BT /%s %d Tf\n" % (font.encode(), SIZE)]
    for row, column, text in cells():
        out.append(b"1 0 0 1 %g %g Tm\n" % (XS[column] + 2, YS[row] - 12))
        out += [b"%s Tj\n" % encoded(character, font) for character in text]
    return b"".join([*out, b"ET\n"])


def words(font: str) -> bytes:
    out = [rules()]
    for row, column, text in cells():
        x = XS[column] + 2
        for word in text.split(" "):
            out.append(b"BT /%s %d Tf 1 0 0 1 %g %g Tm %s Tj ET\n" % (
                font.encode(), SIZE, x, YS[row] - 12, encoded(word, font),
            ))  # fmt: skip
            x += width(word + " ", font)
    return b"".join(out)


def blanks_around(font: str) -> bytes:
    out = [rules()]
    for row, column, text in cells():
        out.append(b"BT /%s %d Tf 1 0 0 1 %g %g Tm %s Tj ET\n" % (
            font.encode(), SIZE, XS[column] + 2 - width("  ", font), YS[row] - 12, encoded(f"  {text}" + 40 * " ", font),
        ))  # fmt: skip
    return b"".join(out)


def aligned_right_without_room(font: str) -> bytes:
    """The texts end at the very line."""
    out = [rules()]
    for row, column, text in cells():
        out.append(b"BT /%s %d Tf 1 0 0 1 %g %g Tm %s Tj ET\n" % (
            font.encode(), SIZE, XS[column + 1] - width(text, font), YS[row] - 12, encoded(text, font),
        ))  # fmt: skip
    return b"".join(out)


def spaced(font: str) -> bytes:
    return rules() + b".2 Tc 1 Tw 105 Tz\n" + texts(font)


def marked(font: str) -> bytes:
    return rules() + texts(font, before=b"/P <</MCID 0>> BDC ", after=b" EMC")


def decorated(font: str) -> bytes:
    """The paper has a colour, there is a picture, the texts are see-through."""
    return (
        b"1 1 .9 rg 0 0 400 300 re f 0 g\nq 30 0 0 30 340 268 cm /Im1 Do Q\n/G1 gs\n" + rules()
        + b".2 0 0 rg\n" + texts(font) + b"BT /F1 8 Tf 1 0 0 1 20 280 Tm (Elenco) Tj ET\n"
    )  # fmt: skip


def numbers_beside(font: str) -> bytes:
    """Texts left and right of the table, in the height of its rows, are none of its cells."""
    beside = [
        b"BT /%s %d Tf 1 0 0 1 %d %g Tm %s Tj ET\n" % (font.encode(), SIZE, x, YS[row] - 12, encoded(str(row), font))
        for row in range(4)
        for x in (20, 370)
    ]
    return lines(font) + b"".join(beside)


def bold_by_drawing_twice(font: str) -> bytes:
    return rules() + texts(font) + texts(font, padding=2.25)


def polygons(font: str) -> bytes:
    """Cells as closed paths."""
    out = []
    for row in range(4):
        for column in range(3):
            left, right, top, bottom = XS[column], XS[column + 1], YS[row], YS[row + 1]
            out.append(b"%g %g m %g %g l %g %g l %g %g l h S\n" % (left, bottom, right, bottom, right, top, left, top))
    return b"".join(out) + texts(font)


def rectangles_in_one_path(font: str) -> bytes:
    out = []
    for row in range(4):
        for column in range(3):
            w, h = XS[column + 1] - XS[column], YS[row] - YS[row + 1]
            out.append(b"%g %g %g %g re\n" % (XS[column], YS[row + 1], w, h))
    return b"".join([*out, b"S\n"]) + texts(font)


def rounded_frame(font: str) -> bytes:
    return lines(font) + b"20 20 m 380 20 l 390 20 390 30 390 40 c 390 280 l 20 280 l h S\n"


@dataclass(frozen=True)
class Drawing:
    """`peer`: pdfplumber finds the same cells with its usual settings."""

    draw: Callable[[str], bytes]
    quick: bool = True
    peer: bool = True


DRAWINGS = {
    drawing.draw.__name__: drawing
    for drawing in (
        *map(
            Drawing,
            (
                lines,
                wide_lines,
                wide_outlines,
                dots_as_lines,
                cell_by_cell,
                flipped,
                scaled,
                one_text_object,
                apostrophes,
                kerned,
                one_array_a_row,
            ),
        ),
        *map(Drawing, (characters, aligned_right_without_room, spaced, marked, decorated, numbers_beside, polygons)),
        Drawing(rectangles_in_one_path),
        Drawing(bands, quick=False, peer=False),
        Drawing(words, peer=False),
        Drawing(blanks_around, peer=False),
        Drawing(bold_by_drawing_twice, quick=False, peer=False),
        Drawing(rounded_frame, quick=False),
    )
}


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """How a page lies and is stored. `turn` is what its content is drawn through so that it is upright again."""

    page: bytes = b"/MediaBox [0 0 400 300]"
    turn: bytes = b""
    parts: int = 1
    compress: bool = True
    packed: bool = False
    quick: bool = True


SHEETS = {
    "turned by 90": Sheet(page=b"/MediaBox [0 0 300 400] /Rotate 90", turn=b"0 1 -1 0 300 0 cm\n", quick=False),
    "turned by 180": Sheet(page=b"/MediaBox [0 0 400 300] /Rotate 180", turn=b"-1 0 0 -1 400 300 cm\n", quick=False),
    "turned by 270": Sheet(page=b"/MediaBox [0 0 300 400] /Rotate 270", turn=b"0 -1 1 0 0 400 cm\n", quick=False),
    "cropped": Sheet(page=b"/MediaBox [0 0 800 600] /CropBox [20 100 380 290]"),
    "below zero": Sheet(page=b"/MediaBox [-400 -300 0 0]", turn=b"1 0 0 1 -400 -300 cm\n"),
    "in parts": Sheet(parts=5),
    "not compressed": Sheet(compress=False),
    "packed": Sheet(packed=True),
}


def write(path: Path, drawing: Drawing, font: str, sheet: Sheet) -> None:
    content = sheet.turn + drawing.draw(font)
    write_pages(path, [content], page=sheet.page, parts=sheet.parts, compress=sheet.compress, packed=sheet.packed)


def oracle(path: Path) -> list[list[str]]:
    """What pdfplumber finds, blanks collapsed."""
    with pdfplumber.open(path) as document:
        return [[" ".join((cell or "").split()) for cell in row] for row in document.pages[0].extract_table() or []]


def quickly(path: Path) -> list[list[str]] | None:
    """What the fast reader finds; None when it refuses."""
    try:
        document = pdfcontent.Document(str(path), pdfium.standard_widths)
    except pdfcontent.DOUBTS:
        return None
    try:
        return document.rows(0)[0]
    except pdfcontent.DOUBTS:
        return None
    finally:
        document.close()


def carefully(path: Path) -> list[list[str]]:
    document = pdfium.Document(str(path))
    try:
        return document.rows(0)
    finally:
        document.close()


@pytest.mark.parametrize("font", FONTS)
@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_has_the_same_cells(tmp_path: Path, name: str, font: str) -> None:
    drawing, path = DRAWINGS[name], tmp_path / "d.pdf"
    write(path, drawing, font, Sheet())
    assert carefully(path) == TABLE
    assert quickly(path) == (TABLE if drawing.quick else None)
    assert not drawing.peer or oracle(path) == TABLE


@pytest.mark.parametrize("drawing", ["lines", "one_array_a_row", "characters", "scaled", "blanks_around"])
@pytest.mark.parametrize("name", SHEETS)
def test_every_sheet_has_the_same_cells(tmp_path: Path, name: str, drawing: str) -> None:
    sheet, path = SHEETS[name], tmp_path / "d.pdf"
    write(path, DRAWINGS[drawing], "F1", sheet)
    assert carefully(path) == TABLE
    assert quickly(path) == (TABLE if sheet.quick else None)
    assert not DRAWINGS[drawing].peer or oracle(path) == TABLE


def numbered(number: int, font: str = "F1") -> bytes:
    """The table with the page's number in it."""
    return lines(font) + b"BT /%s 8 Tf 1 0 0 1 142 178 Tm (%s) Tj ET\n" % (
        font.encode(),
        encoded(f"{number}", font)[1:-1],
    )


def numbered_table(number: int) -> list[list[str]]:
    return [*TABLE[:-1], ["0", f"{number}", "x (1)"]]


class Lying(pdfcontent.Document):
    """Reads a cell wrongly from a page on."""

    first_lie = 0

    def rows(self, number: int) -> tuple[list[list[str]], set[int]]:
        rows, fonts = super().rows(number)
        return ([*rows[:-1], ["lie", *rows[-1][1:]]] if number >= self.first_lie else rows), fonts


@pytest.mark.parametrize("first_lie", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH - 1])
def test_where_the_two_readers_differ_the_whole_batch_is_pdfiums(tmp_path: Path, first_lie: int) -> None:
    pages = 3 * BATCH
    write_pages(tmp_path / "d.pdf", [numbered(number) for number in range(pages)])

    def quick(*arguments: Any) -> Lying:
        document = Lying(*arguments)
        document.first_lie = first_lie
        return document

    reader = Reader(str(tmp_path / "d.pdf"), quick)
    found = list(reader.pages(0, pages))
    reader.close()
    assert found == [numbered_table(number) for number in range(pages)]
    assert reader.careful >= pages - (first_lie // BATCH) * BATCH


def test_the_last_page_of_a_batch_is_read_by_both(tmp_path: Path) -> None:
    pages = 3 * BATCH + 1
    write_pages(tmp_path / "d.pdf", [numbered(number) for number in range(pages)])
    reader = Reader(str(tmp_path / "d.pdf"))
    found = list(reader.pages(0, pages))
    reader.close()
    assert found == [numbered_table(number) for number in range(pages)]
    assert reader.careful == 1 + 4


def test_the_first_page_in_a_font_is_read_by_both(tmp_path: Path) -> None:
    contents = [lines("F1"), lines("F1"), lines("F3"), lines("F3"), lines("F2"), lines("F1")]
    write_pages(tmp_path / "d.pdf", contents)
    reader = Reader(str(tmp_path / "d.pdf"))
    assert list(reader.pages(0, len(contents))) == [TABLE] * len(contents)
    reader.close()
    assert reader.careful == 3 + 1


def test_pages_that_leave_doubt_are_pdfiums(tmp_path: Path) -> None:
    contents = [rounded_frame("F1") if number % 2 else lines("F1") for number in range(100)]
    write_pages(tmp_path / "d.pdf", contents)
    reader = Reader(str(tmp_path / "d.pdf"))
    assert list(reader.pages(0, 100)) == [TABLE] * 100
    reader.close()
    assert reader.careful == 50 + 1 + 2


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_share_the_pages_of_a_long_report(tmp_path: Path, processes: int) -> None:
    contents = [rounded_frame("F1") if number % 7 == 3 else numbered(number) for number in range(SHARED_FROM + 9)]
    write_pages(tmp_path / "d.pdf", contents)
    expected = [TABLE if number % 7 == 3 else numbered_table(number) for number in range(len(contents))]
    assert list(read_pages(str(tmp_path / "d.pdf"), processes=processes)) == expected


def damaged(content: bytes, chosen: random.Random) -> bytes:
    """A byte changed, bytes left out, put in or repeated; or an operation that changes what the others mean."""
    at, other = chosen.randrange(len(content)), chosen.randrange(len(content))
    operations = (
        b"q;Q;ET;BT;W n;2 w;1 0 0 1 3 3 cm;T*;5 Ts;3 Tr;50 Tz;3 Tc;h;10 10 m;90 90 l;n;5 5 50 2 re f;0 w".split(b";")
    )
    line = content.find(b"\n", at) + 1
    return chosen.choice(
        (
            content[:at] + bytes((chosen.randrange(256),)) + content[at + 1 :],
            content[:at] + content[at + chosen.randrange(1, 6) :],
            content[:at] + bytes(chosen.choices(b" 0123456789.-()<>[]/BTETmqQnWfSre\\\n", k=2)) + content[at:],
            content[:at] + content[other : other + chosen.randrange(40)] + content[at:],
            content[:line] + b" " + chosen.choice(operations) + b" " + content[line:],
        )
    )


@pytest.mark.parametrize("font", FONTS)
@pytest.mark.parametrize("name", DRAWINGS)
def test_damaged_instructions_are_read_as_pdfium_reads_them_or_refused(tmp_path: Path, name: str, font: str) -> None:
    chosen, content = random.Random(name + font), DRAWINGS[name].draw(font)
    write_pages(tmp_path / "d.pdf", [damaged(content, chosen) for _ in range(40)])
    quick, careful = (
        pdfcontent.Document(str(tmp_path / "d.pdf"), pdfium.standard_widths),
        pdfium.Document(str(tmp_path / "d.pdf")),
    )
    for number in range(40):
        try:
            rows, _ = quick.rows(number)
        except pdfcontent.DOUBTS:
            continue
        assert rows == careful.rows(number)
    quick.close()
    careful.close()


HOSTILE_CONTENTS = {
    "numbers without end": b"1 " * 200_000,
    "open strings": b"(" * 100_000,
    "open arrays": b"[" * 100_000,
    "arrays of nothing": b"[ ] " * 100_000,
    "saved states": b"q " * 100_000,
    "much": b"q Q " * 1_000_000,
    "names": b"/F1 " * 100_000,
    "marks": b"/P << " * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE_CONTENTS)
def test_hostile_instructions_are_refused(tmp_path: Path, name: str) -> None:
    write_pages(tmp_path / "d.pdf", [lines("F1") + HOSTILE_CONTENTS[name]])
    assert quickly(tmp_path / "d.pdf") is None


def hostile(
    path: Path, *, pages: bytes = b"", catalog: bytes = b"<< /Type /Catalog /Pages 1 0 R >>", more: bytes = b"null"
) -> None:
    """Objects 1 (page tree), 2 (catalog) and 3."""
    file = PdfFile()
    file.add(pages)
    file.add(catalog)
    file.add(more)
    file.save(path, 2)


@pytest.mark.parametrize(
    "pages",
    [
        b"<< /Type /Pages /Count 2 /Kids [1 0 R 1 0 R] >>",
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        b"<< /Type /Pages /Count 9 /Kids [] >>",
        b"<< /Type /Pages /Count 1 /Kids [2 0 R] >>",
        b"<< /Type /Pages /Count 1 /Kids 1 0 R >>",
        b"1 0 R",
        b"[" * 10_000,
        b"<< /A " * 10_000,
        b"<< /Length 1 0 R >>\nstream\nx\nendstream",
    ],
)
def test_hostile_page_trees_are_refused(tmp_path: Path, pages: bytes) -> None:
    hostile(tmp_path / "d.pdf", pages=pages, more=b"<< /Type /Pages /Count 1 /Kids [1 0 R] >>")
    assert quickly(tmp_path / "d.pdf") is None


def test_data_that_grows_without_bounds_is_refused(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(64 * 1024 * 1024), 9)
    write_pages(tmp_path / "d.pdf", [lines("F1")])
    document = pdfcontent.Document(str(tmp_path / "d.pdf"), pdfium.standard_widths)
    with pytest.raises(Unsure, match="compressed data"):
        document.file.content(Stream({"Filter": Name("FlateDecode")}, bomb))
    document.close()


@given(st.binary(max_size=300))
def test_base_85_is_what_the_standard_library_makes_of_it(data: bytes) -> None:
    assert from_ascii85(base64.a85encode(data) + b"~>") == data
    assert from_ascii85(base64.a85encode(data, wrapcol=20, adobe=True)) == data


@pytest.mark.parametrize("text", [b's8W-"~>', b"!!!!\x7f~>", b"!~>", b"uuuuu~>"])
def test_base_85_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(Unsure, match="base 85"):
        from_ascii85(text)
