"""Bytes to rows: opens an export as a table of the format that its name or its first bytes show.

Formats are imported where they are used: the child process of one must not wait for the others.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from archisync.base.errors import ExportError
from archisync.formats.rows import (
    BadRow,
    LineTable,
    NumberText,
    PlainLines,
    RawRow,
    RequiredPlaces,
    Table,
    nothing_required,
    unmarked_utf16,
)
from archisync.rules.config import DEFAULT_READER_LIMITS, DETECT, CsvDialect, ReaderLimits

if TYPE_CHECKING:
    from archisync.sources.interface import Export

__all__ = [
    "BadRow",
    "LineTable",
    "NumberText",
    "PlainLines",
    "RawRow",
    "Table",
    "open_table",
    "open_tables",
]

_HEAD_BYTES = 64 * 1024
_MARKUP_BYTES = 4096
_ZIP = b"PK\x03\x04"
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"
_PDF_MAGIC = b"%PDF-"
_PDF_MAGIC_WITHIN = 1024
"""The first line of a PDF is within these bytes (ISO 32000-1, annex H)."""
_CSV_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
_JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
_TEXT_SUFFIXES = _CSV_SUFFIXES | _JSONL_SUFFIXES
_JSON_ARRAY = re.compile(rb"\s*\[\s*[{\[]")
_JSON = re.compile(rb"\s*(?:\{|\[\s*[{\[\]])")
_UTF8_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# The first bytes of files that people put in an export folder by mistake.
_FOREIGN = {
    _ZIP: "a zip archive",
    b"\x1f\x8b": "compressed twice",
    b"BZh": "compressed with bzip2",
    b"PAR1": "a Parquet file",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
}
_UNMARKED = {"utf-16-le": 1, "utf-16-be": 0}
"""Which bytes of an ASCII text are NUL: every second one, from here on."""
_FORMAT_HINT = "export it as CSV, JSON Lines or a workbook (the first two may be gzipped), or print it as a PDF report"
_CONVERT_HINT = "export it as CSV, or let a program convert it: ARCHISYNC_SOURCE='exec:/path/to/program {agent} {type}'"
_HTML = re.compile(
    r"<!doctype html|<html|<(?:head|body|script|meta|title|table|div|p|center|form|br|font)\b", re.IGNORECASE
)


def open_tables(
    export: Export,
    dialect: CsvDialect = DETECT,
    limits: ReaderLimits = DEFAULT_READER_LIMITS,
    required: RequiredPlaces = nothing_required,
    *,
    sheet: str = "",
) -> Table:
    """The same of an export of several files, as one table. Raises ExportError when they don't belong together."""
    if not export.parts:
        return open_table(export, dialect, limits, required, sheet=sheet)
    from archisync.formats.joined import joined

    return joined(
        lambda path: open_table(replace(export, path=path), dialect, limits, required, sheet=sheet),
        [export.path, *export.parts],
    )


def open_table(
    export: Export,
    dialect: CsvDialect = DETECT,
    limits: ReaderLimits = DEFAULT_READER_LIMITS,
    required: RequiredPlaces = nothing_required,
    *,
    sheet: str = "",
) -> Table:
    """Open a fetched export and read its labels. `dialect` applies if it is CSV, `limits` apply if it is a PDF or a workbook,
    `sheet` names the workbook's sheet. `required` tells the header from lines above it.

    Raises ExportError when it is empty, is not a table (a login page, binary data), or is visibly truncated.
    """
    with export.path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if _PDF_MAGIC in head[: 0 if export.suffix in _TEXT_SUFFIXES else _PDF_MAGIC_WITHIN] or head.startswith(_PDF_MAGIC):
        from archisync.formats.pdf.table import PdfTable

        return PdfTable(export.path, limits)
    if _is_workbook(export.path, head):
        from archisync.formats.workbook.table import WorkbookTable

        return WorkbookTable(export.path, limits, sheet, dialect, required)
    is_jsonl = _is_jsonl(export.suffix, head)
    _refuse_foreign(head, None if is_jsonl else dialect.encoding)
    if export.suffix == ".pdf":
        raise ExportError(
            "the export is named .pdf and is not a PDF", hint="look into the file; print the report again"
        )
    if not is_jsonl and _JSON_ARRAY.match(head.removeprefix(_UTF8_BOM)):
        raise ExportError("the export is a JSON array, though it is named like CSV", hint="name it .json")
    if is_jsonl:
        from archisync.formats.jsonl import JsonlTable

        return JsonlTable(export.path, required)
    from archisync.formats.csv.table import CsvTable

    return CsvTable(export.path, dialect, required)


def _is_workbook(path: Path, head: bytes) -> bool:
    """Whether it is a workbook: an old Office document, or a zip archive with the parts of a workbook."""
    if head.startswith(_OLD_OFFICE):
        return True
    if not head.startswith(_ZIP):
        return False
    from archisync.sources.archive import is_workbook

    return is_workbook(path)


def _is_jsonl(suffix: str, head: bytes) -> bool:
    if suffix in _JSONL_SUFFIXES:
        return True
    return suffix not in _CSV_SUFFIXES and _JSON.match(head.removeprefix(_UTF8_BOM)) is not None


def _refuse_foreign(head: bytes, encoding: str | None) -> None:
    """Raise ExportError for what is not an export. `encoding`: what is configured for CSV, as text in UTF-16 looks binary."""
    if not head:
        raise ExportError("the export is empty (0 bytes)", hint="look whether the ERP's export job ran to its end")
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise ExportError(f"the export is {what}", hint=_FORMAT_HINT)
    encoding = next((name for bom, name in _WIDE_BOMS.items() if head.startswith(bom)), encoding)
    for name in filter(None, ("utf-8-sig", encoding)):
        _refuse_markup(head[:_MARKUP_BYTES].decode(name, errors="replace").lstrip())
    # A NUL in a cell is removed and counted. In the header line it means that the file is not text.
    line = head.split(b"\n", 1)[0]
    if not (encoding or "").startswith(("utf-16", "utf-32")) and b"\0" in line:
        for name, odd in _UNMARKED.items():
            if not line[odd::2].strip(b"\0") and b"\0" not in line[1 - odd :: 2]:  # of UTF-32 three of four are
                raise unmarked_utf16(name)
        raise ExportError("the export is binary data, not text", hint=_FORMAT_HINT)


def _refuse_markup(text: str) -> None:
    """Raise ExportError for a beginning that is XML or HTML."""
    if text.startswith("<") and not _HTML.search(text):
        raise ExportError("the export is XML", hint=_CONVERT_HINT)
    if text.startswith("<"):
        if "<table" in text.lower() and "password" not in text.lower():
            raise ExportError("the export is an HTML page with a table", hint=_CONVERT_HINT)
        raise ExportError(
            "the export looks like an HTML page, probably a login page",
            hint="check the credentials and the session of whatever fetches the export",
        )
