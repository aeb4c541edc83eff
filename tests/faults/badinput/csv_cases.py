"""Bad CSV exports."""

from tests.faults.badinput.cases import (
    CASE_LINE,
    LONGEST_LINE,
    BadExport,
    Outcome,
    good_row,
    head,
    held,
    just_below_the_limit,
    known_rows,
    long_file,
    with_row,
)


def _bad_row(
    name: str, row: str, words: str, *, field: str | None = None, outcome: Outcome = Outcome.QUARANTINED
) -> BadExport:
    """A CSV row in line 6."""
    given = with_row(row).encode("utf-8", "surrogateescape")
    return BadExport(id=name, form="csv", given=given, outcome=outcome, words=words, line=CASE_LINE, field=field)


_FINAL_LINE_END = "the final line end is missing, so the last row may be cut off"


ROWS = (
    _bad_row("short-row", "bad,Short\n", "has 2 cells, the header has 6"),
    _bad_row("long-row", "bad,Long,,1,1,,,\n", "has 8 cells, the header has 6"),
    _bad_row("one-cell", "Count=4\n", "has 1 cell, the header has 6"),
    _bad_row("another-delimiter", "bad;Due;055;1;1;\n", "has 1 cell, the header has 6"),
    _bad_row("html-in-the-middle", "<p>Session expired</p>\n", "has 1 cell, the header has 6"),
    _bad_row("no-key", ",Nobody,,1,1,\n", "is empty", field="customer_id"),
    _bad_row("blank-key", " \t ,Nobody,,1,1,\n", "is empty", field="customer_id"),
    _bad_row("nul-as-key", "\0,Nobody,,1,1,\n", "is empty", field="customer_id"),
    _bad_row("control-characters-as-key", "\x1b\x07,Nobody,,1,1,\n", "is empty", field="customer_id"),
    _bad_row("no-name", "bad,,,1,1,\n", "is empty", field="name"),
    _bad_row("text-after-a-quote", 'bad,"Due"x,,1,1,\n', "has text after a closing quote"),
    _bad_row("lone-carriage-return", "bad\rDue,,,1,1,\n", "has a carriage return outside quotes"),
    _bad_row("cell-above-64-kib", f"bad,{'x' * 65_537},,1,1,\n", "is longer than 64 KiB", field="name"),
    _bad_row(
        "key-of-3000-letters",
        f"{'bad' * 1000},Due,,1,1,\n",
        f"'{('bad' * 14)[:40]}'… is longer than 256 characters",
        field="customer_id",
    ),
    _bad_row("nul-inside-a-cell", "k5\0,Du\0e,,1,1,\n", "2 control characters removed", outcome=Outcome.CLEANED),
    _bad_row(
        "escape-inside-a-cell", "k5,\x1b[31mDue\x07,,1,1,\n", "2 control characters removed", outcome=Outcome.CLEANED
    ),
)
FILES = (
    held("empty-file", b"", "the export is empty (0 bytes)"),
    held("blank-lines-only", b"\n \n\n", "the export has no header line that can be read"),
    held("header-only", head(), "the export has no rows, 4 are known", reason="zero-rows"),
    held("empty-header", ",,,,,\n" + "1,2,3,4,5,6\n", "no column for customer_id, name", reason="missing-column"),
    held("empty-label", known_rows().replace("name,", ",", 1), "no column for name", reason="missing-column"),
    held("duplicate-label", known_rows().replace("phone", "name", 1), "the export has two columns 'name'"),
    held("two-aliases", known_rows().replace("phone", "NOME", 1), "columns 'name' and 'NOME' both stand for name"),
    held("escape-in-a-label", "customer_id,\x1b]0x\x07\nk1,x\n", r"'\x1b]0x\x07'", reason="missing-column"),
    held("ambiguous-delimiter", "customer_id;name,phone\nk1;a,b\n", "comma and semicolon both give 2 columns"),
    held("bom-then-cp1252", b"\xef\xbb\xbf" + known_rows().encode() + b"k5,Citt\xe0,,1,1,\n", "not valid utf-8 text"),
    held("utf-16-without-bom", known_rows().encode("utf-16-le"), "set ARCHISYNC_CSV_ENCODING=utf-16-le"),
    held(
        "utf-16-cut-in-a-character",
        known_rows().encode("utf-16")[:-1],
        "the last character is cut off",
        reason="truncated",
    ),
    held(
        "utf-16-lone-surrogate",
        known_rows().encode("utf-16") + b"\x00\xd8\x0a\x00",
        "the export is not valid utf-16 text",
    ),
    held(
        "utf-32-cut-in-a-character",
        known_rows().encode("utf-32")[:-1],
        "the last character is cut off",
        reason="truncated",
    ),
    held("utf-32-without-bom", known_rows().encode("utf-32-le"), "the export is binary data, not text"),
    held("xml", "<?xml version='1.0'?>\n<customers/>\n", "the export is XML"),
    held("json-array", '[{"customer_id": "k1"}]\n', "the export is a JSON array"),
    held(
        "one-damaged-byte",
        with_row("k5,Città di Castello,,1,1,\n").encode() + b"k6,\xff,,1,1,\n",
        "the export is UTF-8 text with 1 damaged byte",
    ),
    held("undefined-in-cp1252", known_rows().encode() + b"k5,\x81,,1,1,\n", "the export is not valid cp1252 text"),
    held("nul-in-the-header", b"customer_id,na\0me\nk1,x\n", "the export is binary data, not text"),
    held(
        "unclosed-quote",
        with_row('k5,"Due,,1,1,\n'),
        "truncated: quoted cell opened in line 6 is never closed",
        reason="truncated",
    ),
    held(
        "unclosed-quote-in-the-header",
        '"' + known_rows(),
        "truncated: quoted cell opened in line 1 is never closed",
        reason="truncated",
    ),
    held("damaged-quotes", with_row('"k5 "x" y","Due\n",,1,1,\n'), "damaged quotes in line 6"),
    held("no-final-line-end", known_rows()[:-1], _FINAL_LINE_END, reason="no-final-line-end"),
    held("short-last-row", known_rows() + "k5,Due\n", "the last row, line 6, has 2 cells", reason="truncated"),
    held("lone-cr-line-ends-cut", known_rows().replace("\n", "\r")[:-1], _FINAL_LINE_END, reason="no-final-line-end"),
    held(
        "same-key-twice",
        known_rows() + good_row("customers", "k4").replace("055", "06"),
        "the export has 1 key more than once",
        reason="duplicate-keys",
    ),
    held("every-row-bad", head() + ",Due,,1,1,\n" * 4, "all 4 rows of the export were rejected", reason="all-rejected"),
    held(
        "half-of-the-rows-bad",
        head() + good_row("customers", "k1") + ",Due,,1,1,\n" * 3,
        "3 of 4 rows of the export were rejected: 75 %",
        reason="quarantined",
    ),
    held("login-page", "<!DOCTYPE html>\n<html>Login</html>\n", "looks like an HTML page, probably a login page"),
    held("pdf", b"%PDF-1.7\n", "truncated: the PDF has no end", reason="truncated"),
    held("cut-zip", b"PK\x03\x04rest\n", "the zip archive is truncated or damaged", reason="truncated"),
    held(
        "line-of-200-mib", long_file(known_rows() + "k5,", b"x"), "line 6 is longer than 2097152 characters", heavy=True
    ),
    held(
        "header-of-200-mib",
        long_file("customer_id,name,", b"x"),
        "line 1 is longer than 2097152 characters",
        heavy=True,
    ),
    held(
        "label-upon-label",
        long_file("customer_id,name,", b"xyz,"),
        "line 1 is longer than 2097152 characters",
        heavy=True,
    ),
    held(
        "quoted-cell-of-200-mib",
        long_file(known_rows() + 'k5,"', b"x\n", b'",,1,1,\n'),
        "a cell of the row in line 6 is longer than 1048576 characters",
        heavy=True,
    ),
    held(
        "row-of-quoted-line-ends",
        long_file(known_rows() + "k5,", b'"\n",', b"1\n"),
        "the row in line 6 is longer than 2097152 characters",
        heavy=True,
    ),
    *(
        BadExport(
            id=f"row-of-many-cells-{name}",
            form="csv",
            given=just_below_the_limit(known_rows() + "k5,", unit, "\n" + good_row("customers", "good")),
            outcome=Outcome.QUARANTINED,
            words=f"has {LONGEST_LINE // len(unit) + 2} cells, the header has 6",
            line=CASE_LINE,
            heavy=True,
        )
        for name, unit in (("empty", ","), ("latin", "abc,"), ("euro", "€x,"), ("emoji", "\U0001f600,"))
    ),
)
