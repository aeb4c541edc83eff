"""PDF reports: every cell is read, cycles are found from the headers, and a part of a report is never taken for all of it."""

import random
import zlib
from pathlib import Path

import pdfplumber
import pytest
from reportlab.pdfgen.canvas import Canvas

from archisync.base.errors import ExportError, TransientSourceError, TruncatedError
from archisync.formats import BadRow, RawRow, open_table
from archisync.formats.pdf.cycles import Cycles, announced
from archisync.formats.pdf.pages import read_pages
from archisync.formats.pdf.table import PdfTable
from archisync.rules.config import ReaderLimits
from archisync.rules.synctypes import SYNC_TYPES, SyncType
from archisync.sources.interface import Export
from archisync.sync.reports import PrintedTable, split_tracking
from tests.support.builtintypes import DDT
from tests.support.reports import EMBEDDED_FONT, STANDARD_FONT, STYLES, cut, stream, write_objects, write_report

_WORDS = ("Rossi", "S.r.l.", "Città", "perché", "Via", "Garibaldi", "12/A", "Müller & Söhne", "n°", "(PV)", "-", "€")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.pdf"


def _header(sync_type: SyncType) -> list[str]:
    return [field.aliases[0] if field.aliases else field.name.upper() for field in sync_type.fields]


def _rows(sync_type: SyncType, count: int, seed: int = 1) -> list[list[str]]:
    """Made-up cells: identifiers, numbers, words, long cells that are wrapped, empty cells."""
    chosen = random.Random(seed)
    rows = []
    for i in range(count):
        cells = [str(70000 + i)]
        for _ in sync_type.fields[1:]:
            kind = chosen.randrange(6)
            cells.append(
                {
                    0: "",
                    1: f"{chosen.randrange(10**6)}",
                    2: f"{chosen.randrange(1, 29):02}/11/2026",
                    3: f"1.{chosen.randrange(100, 999)},{chosen.randrange(10, 99)}",
                    4: " ".join(chosen.choices(_WORDS, k=12)),
                }.get(kind, chosen.choice(_WORDS))
            )
        rows.append(cells)
    return rows


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Labels and records, read in this process."""
    cycles = Cycles(read_pages(str(path)))
    return cycles.labels, list(cycles)


@pytest.mark.parametrize("font", [STANDARD_FONT, EMBEDDED_FONT])
@pytest.mark.parametrize("style", STYLES)
def test_every_cell_is_read_however_the_table_is_drawn(path: Path, style: str, font: str) -> None:
    header, rows = _header(DDT), _rows(DDT, 45)
    write_report(path, cut(len(header), 5, 6), header, rows, style=style, font=font)
    assert _read(path) == (header, rows)


@pytest.mark.parametrize("sync_type", SYNC_TYPES.values(), ids=lambda sync_type: sync_type.name)
def test_every_type_is_read_from_any_number_of_slices(path: Path, sync_type: SyncType) -> None:
    header, rows = _header(sync_type), _rows(sync_type, 23)
    for sizes in ([len(header)], [1], [3, 3], [2] * 12):
        slices = cut(len(header), *sizes)
        write_report(path, slices, header, rows, rows_per_page=10)
        cycles = Cycles(read_pages(str(path)))
        assert (cycles.labels, list(cycles)) == (header, rows)
        assert (cycles.slices, cycles.cycles) == (len(slices), 3)


def test_the_child_process_hands_over_every_cell(path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 45)
    pages = write_report(path, cut(len(header), 5, 6), header, rows)
    table = PdfTable(path, ReaderLimits())
    assert list(table.labels) == header
    assert list(table.rows()) == [RawRow(number, tuple(row)) for number, row in enumerate(rows, 1)]
    assert table.detected == {"format": "pdf", "pages": str(pages), "slices": "3", "cycles": "3"}


def test_pdfplumber_reads_the_same_cells(path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 12)
    write_report(path, [list(range(6))], header, rows)
    with pdfplumber.open(path) as document:
        tables = [page.extract_table() for page in document.pages]
    oracle = [[" ".join((cell or "").split()) for cell in row] for table in tables for row in table or []]
    assert _read(path) == (oracle[0], oracle[1:])


def test_a_report_of_one_cycle_is_read(path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 3)
    write_report(path, cut(len(header), 7), header, rows)
    assert _read(path) == (header, rows)


def test_slices_and_columns_may_have_another_order(path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 23)
    order = [[9, 2, 0], [4, 1], [3, 5, 6, 7, 8]]
    write_report(path, order, header, rows, rows_per_page=10)
    flat = [column for columns in order for column in columns]
    assert _read(path) == ([header[c] for c in flat], [[row[c] for c in flat] for row in rows])


def test_a_text_too_long_for_its_cell_stays_whole_and_in_its_cell(path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 4)
    rows[1][5] = "una.parola.lunghissima.senza.alcuno.spazio@esempio.it"
    rows[2][5] = ""
    write_report(path, cut(len(header), 8), header, rows)
    assert _read(path)[1] == rows


def test_a_full_disk_is_a_transient_error(tmp_path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 40)
    write_report(tmp_path / "r.pdf", cut(len(header), 8), header, rows)
    (tmp_path / "r.pdf.records").symlink_to("/dev/full")
    with pytest.raises(TransientSourceError) as refused:
        PdfTable(tmp_path / "r.pdf", ReaderLimits())
    assert refused.value.message == f"cannot write to the spool directory {tmp_path}: No space left on device"
    assert refused.value.hint.startswith(f"df -h {tmp_path.parent}; ")


def test_a_report_without_records_has_its_labels(path: Path) -> None:
    header = _header(DDT)
    write_report(path, cut(len(header), 5), header, [])
    assert _read(path) == (header, [])


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_footer_is_not_a_record_in_one_slice_or_in_all(path: Path, everywhere: bool) -> None:
    header, rows = _header(DDT), _rows(DDT, 23)
    slices = cut(len(header), 5, 6)
    write_report(path, slices, header, rows, rows_per_page=10, footer=True, footer_everywhere=everywhere)
    table = PrintedTable(PdfTable(path, ReaderLimits()), DDT, {})
    assert len(list(table.rows())) == sum(row[0] != "" and row[1] not in ("", "0") for row in rows)


@pytest.mark.parametrize("page", [6, 7, 8])
def test_the_footer_does_not_hide_a_missing_row(path: Path, page: int) -> None:
    """One slice lacks a record and has the footer instead, so it has as many rows as the others."""
    header, rows = _header(DDT), _rows(DDT, 23)
    write_report(path, cut(len(header), 5, 6), header, rows, rows_per_page=10, footer=True, short_of_a_record=[page])
    with pytest.raises(TruncatedError, match=r"page \d of the report has \d rows"):
        PdfTable(path, ReaderLimits())


@pytest.mark.parametrize(
    ("cells", "rows"),
    [
        (("", "Count=17", None), 17),
        (("Count= 5",), 5),
        (("Count=12.345",), 12345),
        (("Count=", ""), 0),
        (("Count=1.5",), 0),
    ],
)
def test_the_footer_announces_a_number_of_rows(cells: tuple[str | None, ...], rows: int) -> None:
    assert announced(cells) == rows


def test_rows_without_an_id_are_skipped_and_counted(path: Path) -> None:
    header, rows = _header(SYNC_TYPES["customers"]), _rows(SYNC_TYPES["customers"], 10)
    rows[3][0], rows[7][0] = "", "0"
    write_report(path, cut(len(header), 9), header, rows)
    table = PrintedTable(PdfTable(path, ReaderLimits()), SYNC_TYPES["customers"], {})
    found = [row.cells for row in table.rows() if not isinstance(row, BadRow)]
    assert [list(cells) for cells in found] == [row for row in rows if row[0] not in ("", "0")]
    assert table.skipped == 2


@pytest.mark.parametrize("page", range(9))
def test_a_report_without_one_of_its_pages_is_refused(path: Path, page: int) -> None:
    header, rows = _header(DDT), _rows(DDT, 23)
    write_report(path, cut(len(header), 5, 6), header, rows, rows_per_page=10, drop_pages=[page])
    with pytest.raises(
        ExportError, match=r"other columns|ends after \d of \d pages|page \d of the report has \d+ rows"
    ):
        _read(path)


@pytest.mark.parametrize("page", range(9))
def test_a_report_with_a_page_of_fewer_rows_is_refused(path: Path, page: int) -> None:
    header, rows = _header(DDT), _rows(DDT, 23)
    write_report(path, cut(len(header), 5, 6), header, rows, rows_per_page=10, shorten_pages=[page])
    with pytest.raises(TruncatedError, match=r"page \d of the report has \d+ rows, page \d of the same cycle has"):
        _read(path)


def test_a_cut_file_is_truncated_wherever_it_is_cut(tmp_path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 23)
    write_report(tmp_path / "r.pdf", cut(len(header), 5, 6), header, rows, rows_per_page=10)
    whole = (tmp_path / "r.pdf").read_bytes()
    for part in range(1, 20):
        (tmp_path / "cut.pdf").write_bytes(whole[: len(whole) * part // 20])
        with pytest.raises(TruncatedError):
            PdfTable(tmp_path / "cut.pdf", ReaderLimits())
    (tmp_path / "cut.pdf").write_bytes(whole[:5000] + whole[6000:])
    with pytest.raises(TruncatedError):
        PdfTable(tmp_path / "cut.pdf", ReaderLimits())


@pytest.mark.parametrize("seed", range(8))
def test_a_report_with_damaged_bytes_gives_rows_or_an_export_error(path: Path, seed: int) -> None:
    header, rows = _header(DDT), _rows(DDT, 23)
    write_report(path, cut(len(header), 5, 6), header, rows, rows_per_page=10)
    chosen, content = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(2**seed):
        content[chosen.randrange(len(content))] = chosen.randrange(256)
    path.write_bytes(content)
    try:
        table = PdfTable(path, ReaderLimits())
    except ExportError as exc:
        assert exc.hint
    else:
        assert all(isinstance(row, RawRow) for row in table.rows())


def _export(path: Path) -> Export:
    return Export(path=path, origin=path.name, suffix=".pdf", size_bytes=path.stat().st_size, sha256="", details={})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<html><body>Login</body></html>", "login page"), (b"", "empty"), (b"a;b\n1;2\n", "not a PDF")],
)
def test_a_file_that_is_not_a_pdf_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ExportError, match=message):
        open_table(_export(path))


def test_a_page_without_a_table_is_refused(path: Path) -> None:
    canvas = Canvas(str(path))
    canvas.drawString(100, 100, "nothing here")
    canvas.save()
    with pytest.raises(ExportError, match="page 1 of the PDF has no ruled table"):
        PdfTable(path, ReaderLimits())


def test_reading_stops_at_the_memory_limit(path: Path) -> None:
    packed = zlib.compressobj(1)
    spaces = b"".join(packed.compress(b" " * (1 << 20)) for _ in range(200)) + packed.flush()
    write_objects(
        path,
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 300] /Contents 4 0 R /Resources << >> >>",
        stream(spaces, b"/Filter /FlateDecode"),
    )
    with pytest.raises(ExportError) as refused:
        PdfTable(path, ReaderLimits(memory_bytes=1 << 28))
    assert refused.value.message == "the PDF needs more than 256 MiB to be read"
    assert refused.value.hint == "raise ARCHISYNC_READER_MEMORY_BYTES if the export is as large as that"


def test_reading_stops_at_the_time_limit(path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 20)
    write_report(path, cut(len(header), 5), header, rows)
    with pytest.raises(ExportError, match="could not be read within 0 s"):
        PdfTable(path, ReaderLimits(timeout_s=0))


def test_reading_stops_at_the_output_limit(path: Path) -> None:
    header, rows = _header(DDT), _rows(DDT, 20)
    write_report(path, cut(len(header), 5), header, rows)
    with pytest.raises(ExportError, match="more than the largest export"):
        PdfTable(path, ReaderLimits(output_bytes=100))


@pytest.mark.parametrize(
    ("cell", "courier", "number", "in_url"),
    [
        ("", None, None, None),
        ("445291888246", None, "445291888246", None),
        ("FedEx 445291888246", "fedex", "445291888246", "445291888246"),
        ('<a href="https://evil.example/?x=1" target="_blank">UPS 1Zabc 99</a>', "ups", "1Zabc99", "1Zabc99"),
        ("<a href='x'>gls M1&amp;2</a>", "gls", "M1&2", "M1%262"),
        ("DHL EXPRESS 1234567890", "dhl", "1234567890", "=1234567890"),
        ("TNT Italy: AB12 34", "tnt", "AB1234", "=AB1234"),
        ("GLS ABCDE", "gls", "ABCDE", "=ABCDE"),
        ("BRT", None, "BRT", None),
        ("upside 12", None, "upside 12", None),
    ],
)
def test_a_tracking_cell_is_split(cell: str, courier: str | None, number: str | None, in_url: str | None) -> None:
    found = split_tracking(cell)
    assert found[:2] == (courier, number)
    assert (found[2] is None) == (in_url is None)
    if in_url and found[2]:
        assert found[2].startswith("https://")
        assert found[2].endswith(in_url)
        assert "evil" not in found[2]
