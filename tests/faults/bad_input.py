"""Bad input, as data: what is given, through which door it comes, and what must become of it.

`test_bad_input.py` runs every case. All exports of a case begin with the four good rows of `KNOWN`, which the agent's
table already holds, and end with `good`, so that a quarantined row can be told from an export that was refused.
"""

import gzip
import json
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, repeat
from pathlib import Path

MIB = 1024 * 1024
Place = Callable[[Path], None]
"""Puts what is bad at that path; for what is more than a few bytes."""


class Outcome(StrEnum):
    """What becomes of the run. HELD, FAILED and RETRIED leave every table as it was."""

    QUARANTINED = "quarantined"  # one row is left out, the rows around it are applied
    CLEANED = "cleaned"  # read completely, with a warning
    HELD = "held"
    FAILED = "failed"
    RETRIED = "queued"


@dataclass(frozen=True, kw_only=True, slots=True)
class BadId:
    """An agent id that is refused with exit code 2 on the command line. `said`: how the message begins.

    `{}` stands for the argument's number. `in_sql`: PostgreSQL takes it into agents.users.
    """

    id: str
    value: str
    said: str
    in_sql: bool
    said_by_why: str | None = None  # where `why` has other words for it


@dataclass(frozen=True, kw_only=True, slots=True)
class BadExport:
    """A file that is no good export. `words` are in the run's message, or are the whole reason of the quarantine.

    `reason` is the run's machine-readable word. `heavy` cases run in a process of their own, which is measured.
    """

    id: str
    kind: str
    given: bytes | Place
    outcome: Outcome
    words: str
    reason: str = "applied-with-warnings"
    line: int | None = None
    field: str | None = None
    sync_type: str = "customers"
    suffix: str = ".csv"
    locale: str = "iso"
    heavy: bool = False


# -- agent ids


def _bad_id(name: str, value: str, shown: str | None = None, *, in_sql: bool = True) -> BadId:
    said = f"{repr(value) if shown is None else shown} is not an agent id"
    return BadId(id=name, value=value, said=said, in_sql=in_sql)


AGENT_IDS: tuple[BadId, ...] = (
    BadId(
        id="empty",
        value="",
        said="'' is not an agent id",
        in_sql=True,
        said_by_why="orders are fetched for each agent: which one?",
    ),
    _bad_id("blank", " "),
    _bad_id("blanks-and-tab", " \t ", "' \\t '"),
    _bad_id("leading-blank", " anna"),
    _bad_id("trailing-blank", "anna "),
    _bad_id("inner-blank", "anna bianchi"),
    _bad_id("no-break-space", "anna\u00a0bianchi", "'anna\\xa0bianchi'"),
    _bad_id("zero-width-space", "anna\u200bbianchi", "'anna\\u200bbianchi'"),
    _bad_id("parent", "../../etc/passwd"),
    _bad_id("parent-alone", ".."),
    _bad_id("dot", "."),
    _bad_id("two-dots-inside", "anna..bianchi"),
    _bad_id("absolute", "/etc/passwd"),
    _bad_id("slash", "anna/orders"),
    _bad_id("backslash", "..\\..\\windows", "'..\\\\..\\\\windows'"),
    _bad_id("home", "~root"),
    _bad_id("percent-encoded", "%2e%2e%2fetc"),
    _bad_id("placeholder", "{type}"),
    _bad_id("file-address", "file:///etc/passwd"),
    _bad_id("line-feed", "anna\nerror: forged", "'anna\\nerror: forged'"),
    _bad_id("trailing-line-feed", "anna\n", "'anna\\n'"),
    _bad_id("carriage-return", "anna\rforged", "'anna\\rforged'"),
    _bad_id("carriage-return-line-feed", "anna\r\nX-Forged: 1", "'anna\\r\\nX-Forged: 1'"),
    _bad_id("line-separator", "anna\u2028forged", "'anna\\u2028forged'"),
    _bad_id("escape-colour", "\x1b[31manna", "'\\x1b\\x5b31manna'"),
    _bad_id("escape-title", "\x1b]0;owned\x07anna", "'\\x1b]0;owned\\x07anna'"),
    _bad_id("c1-csi", "\x9b2Janna", "'\\x9b2Janna'"),
    _bad_id("delete-and-backspace", "anna\x7f\x08", "'anna\\x7f\\x08'"),
    _bad_id("right-to-left-override", "anna\u202eihcnaib", "'anna\\u202eihcnaib'"),
    _bad_id("isolate", "\u2066anna\u2069", "'\\u2066anna\\u2069'"),
    _bad_id("composed", "niccol\u00f2", "'niccol\\xf2'"),
    _bad_id("decomposed-twin", "niccolo\u0300", "'niccolo\\u0300'"),
    _bad_id("cyrillic-twin", "\u0430nna", "'\\u0430nna'"),
    _bad_id("full-width-digits", "\uff11\uff12", "'\\uff11\\uff12'"),
    _bad_id("emoji", "anna\U0001f600", "'anna\\U0001f600'"),
    _bad_id("rich-markup", "[red]anna[/red]", "'\\x5bred]anna\\x5b/red]'"),
    _bad_id("rich-link", "[link=http://x]anna[/]", "'\\x5blink=http://x]anna\\x5b/]'"),
    _bad_id("html", "<script>alert(1)</script>", "'\\x3cscript>alert(1)\\x3c/script>'"),
    _bad_id("option", "-rf"),
    _bad_id("long-option", "--all"),
    _bad_id("glob", "*"),
    _bad_id("brackets", "anna[0-9]?", "'anna\\x5b0-9]?'"),
    _bad_id("single-quote", "o'hara", '"o\'hara"'),
    _bad_id("sql", "'; drop table agents.users; --", '"\'; drop table agents.users; --"'),
    _bad_id("double-quote", 'an"na'),
    _bad_id("shell", "$(reboot)"),
    _bad_id("comma", "anna,luca"),
    _bad_id("leading-dot", ".hidden"),
    _bad_id("one-too-long", "a" * 129, f"'{'a' * 40}'…"),
    _bad_id("100-thousand-letters", "a" * 100_000, f"'{'a' * 40}'…"),
    _bad_id("10-million-letters", "a" * 10_000_000, f"'{'a' * 40}'…", in_sql=False),
    BadId(id="nul", value="anna\0", said="argument {} has a NUL character", in_sql=False),
    BadId(id="not-utf-8", value=os.fsdecode(b"anna\xff\xfe"), said="argument {} is not valid UTF-8", in_sql=False),
    BadId(id="lone-surrogate", value="\ud800", said="argument {} is not valid UTF-8", in_sql=False),
)


# -- exports: the good rows, and how a case is put between them

LABELS = {
    "customers": ("customer_id", "name", "phone", "orders_count", "sales_amount", "last_order_date"),
    "orders": ("order_id", "created_at", "total_amount"),
    "invoices": ("invoice_number", "order_number", "closed"),
}
_GOOD = {
    "customers": "{id},Name,055 1,3,12.50,2026-01-31",
    "orders": "{id},2026-01-31 10:00:00,12.50",
    "invoices": "{id},ord-1,yes",
}
KNOWN_KEYS = ("k1", "k2", "k3", "k4")
FIRST_LINE = 6  # the physical line of a case's own row, in CSV
FIRST_JSON_LINE = 5


def good_row(sync_type: str, key: str) -> str:
    return _GOOD[sync_type].format(id=key) + "\n"


def _head(sync_type: str = "customers") -> str:
    return ",".join(LABELS[sync_type]) + "\n"


def known_rows(sync_type: str = "customers") -> str:
    """The export that the agent's table holds before the case."""
    return _head(sync_type) + "".join(good_row(sync_type, key) for key in KNOWN_KEYS)


def _with_row(row: str, sync_type: str = "customers") -> str:
    return known_rows(sync_type) + row + good_row(sync_type, "good")


def _bad_row(
    name: str, row: str, words: str, *, field: str | None = None, outcome: Outcome = Outcome.QUARANTINED
) -> BadExport:
    """A CSV row in line 6."""
    given = _with_row(row).encode("utf-8", "surrogateescape")
    return BadExport(id=name, kind="csv", given=given, outcome=outcome, words=words, line=FIRST_LINE, field=field)


def _held(
    name: str,
    given: bytes | str | Place,
    words: str,
    *,
    reason: str = "unreadable",
    kind: str = "csv",
    suffix: str = ".csv",
    heavy: bool = False,
) -> BadExport:
    content = given.encode() if isinstance(given, str) else given
    return BadExport(
        id=name, kind=kind, given=content, outcome=Outcome.HELD, words=words, reason=reason, suffix=suffix, heavy=heavy
    )


_FINAL_LINE_END = "truncated: the final line end is missing, so the last row may be cut off"


def _written(pieces: Callable[[], Iterable[bytes]]) -> Place:
    def place(path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(pieces())

    return place


def _long(start: str, unit: bytes, end: bytes = b"\n") -> Place:
    """200 MiB of the unit between start and end."""
    return _written(lambda: chain([start.encode()], repeat(unit * (MIB // len(unit)), 200), [end]))


def _just_below_the_limit(start: str, unit: str, end: str) -> Place:
    """A line of almost 2 Mi characters of the unit between start and end."""
    return _written(lambda: [start.encode(), (unit * (_NEARLY // len(unit))).encode(), end.encode()])


_NEARLY = 2 * MIB - 100
_CSV_ROWS = (
    _bad_row("short-row", "bad,Short\n", "has 2 cells, the header has 6"),
    _bad_row("long-row", "bad,Long,,1,1,,,\n", "has 8 cells, the header has 6"),
    _bad_row("one-cell", "Count=4\n", "has 1 cell, the header has 6"),
    _bad_row("another-delimiter", "bad;Due;055;1;1;\n", "has 1 cell, the header has 6"),
    _bad_row("html-in-the-middle", "<p>Session expired</p>\n", "has 1 cell, the header has 6"),
    _bad_row("row-of-delimiters", ",,,,,\n", "is empty", field="customer_id"),
    _bad_row("no-key", ",Nobody,,1,1,\n", "is empty", field="customer_id"),
    _bad_row("blank-key", " \t ,Nobody,,1,1,\n", "is empty", field="customer_id"),
    _bad_row("nul-as-key", "\0,Nobody,,1,1,\n", "is empty", field="customer_id"),
    _bad_row("control-characters-as-key", "\x1b\x07,Nobody,,1,1,\n", "is empty", field="customer_id"),
    _bad_row("no-name", "bad,,,1,1,\n", "is empty", field="name"),
    _bad_row(
        "header-again",
        _head(),
        "'last_order_date' is not a date (YYYY-MM-DD or DD/MM/YYYY)",
        field="last_order_date",
    ),
    _bad_row(
        "second-bom",
        "\ufeff" + _head(),
        "'last_order_date' is not a date (YYYY-MM-DD or DD/MM/YYYY)",
        field="last_order_date",
    ),
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
_CSV_FILES = (
    _held("empty-file", b"", "the export is empty (0 bytes)"),
    _held("blank-lines-only", b"\n \n\n", "the export has no header line that can be read"),
    _held("header-only", _head(), "the export has no rows, 4 are known", reason="zero-rows"),
    _held("empty-header", ",,,,,\n" + "1,2,3,4,5,6\n", "no column for customer_id, name", reason="missing-column"),
    _held("empty-label", known_rows().replace("name,", ",", 1), "no column for name", reason="missing-column"),
    _held("duplicate-label", known_rows().replace("phone", "name", 1), "the export has two columns 'name'"),
    _held("two-aliases", known_rows().replace("phone", "NOME", 1), "columns 'name' and 'NOME' both stand for name"),
    _held("escape-in-a-label", "customer_id,\x1b]0x\x07\nk1,x\n", r"'\x1b]0x\x07'", reason="missing-column"),
    _held("ambiguous-delimiter", "customer_id;name,phone\nk1;a,b\n", "comma and semicolon both give 2 columns"),
    _held("bom-twice", b"\xef\xbb\xbf" * 2 + known_rows().encode(), r"'\ufeffcustomer_id'", reason="missing-column"),
    _held("bom-then-cp1252", b"\xef\xbb\xbf" + known_rows().encode() + b"k5,Citt\xe0,,1,1,\n", "not valid utf-8 text"),
    _held("utf-16-without-bom", known_rows().encode("utf-16-le"), "the export is binary data, not text"),
    _held("utf-16-cut-in-a-character", known_rows().encode("utf-16")[:-1], _FINAL_LINE_END, reason="truncated"),
    _held(
        "utf-16-lone-surrogate",
        known_rows().encode("utf-16") + b"\x00\xd8\x0a\x00",
        "the export is not valid utf-16 text",
    ),
    _held("utf-32", known_rows().encode("utf-32"), _FINAL_LINE_END, reason="truncated"),
    _held(
        "one-damaged-byte",
        _with_row("k5,Città di Castello,,1,1,\n").encode() + b"k6,\xff,,1,1,\n",
        "the export is UTF-8 text with 1 damaged bytes",
    ),
    _held("undefined-in-cp1252", known_rows().encode() + b"k5,\x81,,1,1,\n", "the export is not valid cp1252 text"),
    _held("nul-in-the-header", b"customer_id,na\0me\nk1,x\n", "the export is binary data, not text"),
    _held(
        "unclosed-quote",
        _with_row('k5,"Due,,1,1,\n'),
        "truncated: quoted cell opened in line 6 is never closed",
        reason="truncated",
    ),
    _held(
        "unclosed-quote-in-the-header",
        '"' + known_rows(),
        "truncated: quoted cell opened in line 1 is never closed",
        reason="truncated",
    ),
    _held("damaged-quotes", _with_row('"k5 "x" y","Due\n",,1,1,\n'), "damaged quotes in line 6"),
    _held("no-final-line-end", known_rows()[:-1], _FINAL_LINE_END, reason="truncated"),
    _held("short-last-row", known_rows() + "k5,Due\n", "the last row, line 6, has 2 cells", reason="truncated"),
    _held("lone-cr-line-ends-cut", known_rows().replace("\n", "\r")[:-1], _FINAL_LINE_END, reason="truncated"),
    _held(
        "same-key-twice",
        known_rows() + good_row("customers", "k4").replace("055", "06"),
        "the export has 1 key more than once",
        reason="duplicate-keys",
    ),
    _held("every-row-bad", _head() + ",,,,,\n" * 4, "all 4 rows of the export were rejected", reason="all-rejected"),
    _held(
        "half-of-the-rows-bad", _head() + good_row("customers", "k1") + ",,,,,\n" * 3, "75 % fewer", reason="row-drop"
    ),
    _held("login-page", "<!DOCTYPE html>\n<html>Login</html>\n", "looks like an HTML page, probably a login page"),
    _held("pdf", b"%PDF-1.7\n", "truncated: the PDF has no end", reason="truncated"),
    _held("spreadsheet", b"PK\x03\x04rest\n", "a zip archive or a spreadsheet"),
    _held("line-of-200-mib", _long(known_rows() + "k5,", b"x"), "line 6 is longer than 2097152 characters", heavy=True),
    _held(
        "header-of-200-mib", _long("customer_id,name,", b"x"), "line 1 is longer than 2097152 characters", heavy=True
    ),
    _held(
        "label-upon-label", _long("customer_id,name,", b"xyz,"), "line 1 is longer than 2097152 characters", heavy=True
    ),
    _held(
        "quoted-cell-of-200-mib",
        _long(known_rows() + 'k5,"', b"x\n", b'",,1,1,\n'),
        "a cell of the row in line 6 is longer than 1048576 characters",
        heavy=True,
    ),
    _held(
        "row-of-quoted-line-ends",
        _long(known_rows() + "k5,", b'"\n",', b"1\n"),
        "the row in line 6 is longer than 2097152 characters",
        heavy=True,
    ),
    *(
        BadExport(
            id=f"row-of-many-cells-{name}",
            kind="csv",
            given=_just_below_the_limit(known_rows(), unit, "\n" + good_row("customers", "good")),
            outcome=Outcome.QUARANTINED,
            words=f"has {_NEARLY // len(unit) + 1} cells, the header has 6",
            line=FIRST_LINE,
            heavy=True,
        )
        for name, unit in (("empty", ","), ("latin", "abc,"), ("euro", "€x,"), ("emoji", "\U0001f600,"))
    ),
)

# -- JSON Lines


def _json_row(key: str) -> str:
    row: dict[str, object] = {"customer_id": key, "name": "Name", "phone": "055 1", "orders_count": 3}
    return json.dumps(row | {"sales_amount": "12.50", "last_order_date": "2026-01-31"}) + "\n"


_JSON_KNOWN = "".join(_json_row(key) for key in KNOWN_KEYS)


def _json(
    name: str,
    line: str | bytes | Place,
    words: str,
    *,
    field: str | None = None,
    outcome: Outcome = Outcome.QUARANTINED,
    heavy: bool = False,
) -> BadExport:
    """A line of JSON Lines, the fifth."""
    if isinstance(line, str):
        line = line.encode()
    given = _JSON_KNOWN.encode() + line + b"\n" + _json_row("good").encode() if isinstance(line, bytes) else line
    return BadExport(
        id=name, kind="jsonl", given=given, outcome=outcome, words=words, line=FIRST_JSON_LINE, field=field,
        suffix=".jsonl", heavy=heavy,
    )  # fmt: skip


def _json_cell(name: str, cell: str, words: str, field: str = "sales_amount") -> BadExport:
    return _json(name, f'{{"customer_id": "bad", "name": "Due", "{field}": {cell}}}', words, field=field)


def _json_held(
    name: str,
    given: str | bytes | Place,
    words: str,
    *,
    reason: str = "unreadable",
    heavy: bool = False,
) -> BadExport:
    return _held(name, given, words, reason=reason, kind="jsonl", suffix=".jsonl", heavy=heavy)


_DEEP = 100_000
_JSONL = (
    _json("nan", '{"customer_id": "bad", "name": "x", "sales_amount": NaN}', "has NaN, which is no JSON number"),
    _json("infinity", '{"customer_id": "bad", "sales_amount": Infinity}', "has Infinity, which is no JSON number"),
    _json(
        "minus-infinity", '{"customer_id": "bad", "sales_amount": -Infinity}', "has -Infinity, which is no JSON number"
    ),
    _json("key-twice", '{"customer_id": "bad", "name": "a", "name": "b"}', "has a key twice"),
    _json("key-twice-escaped", r'{"customer_id": "bad", "name": "a", "n\u0061me": "b"}', "has a key twice"),
    _json("array-at-the-top", '["bad"]', "is not a JSON object"),
    _json("string-at-the-top", '"bad"', "is not a JSON object"),
    _json("number-at-the-top", "17", "is not a JSON object"),
    _json("null-at-the-top", "null", "is not a JSON object"),
    _json("array-as-a-value", '{"customer_id": "bad", "name": ["a"]}', "is an object or array", field="name"),
    _json("object-as-a-value", '{"customer_id": "bad", "name": {"a": 1}}', "is an object or array", field="name"),
    _json("object-as-the-key", '{"customer_id": {}, "name": "a"}', "is an object or array", field="customer_id"),
    _json("missing-key", '{"name": "Due"}', "is empty", field="customer_id"),
    _json("null-key", '{"customer_id": null, "name": "Due"}', "is empty", field="customer_id"),
    _json("nul-as-key", r'{"customer_id": "\u0000", "name": "Due"}', "is empty", field="customer_id"),
    _json("surrogate-as-key", r'{"customer_id": "\ud800", "name": "Due"}', "is empty", field="customer_id"),
    _json("half-an-object", '{"customer_id": "bad", "name"', "is not valid JSON (Expecting ':' delimiter, column 30)"),
    _json("two-objects-in-a-line", '{"customer_id": "bad"} {}', "is not valid JSON (Extra data, column 24)"),
    _json(
        "trailing-comma",
        '{"customer_id": "bad",}',
        "is not valid JSON (Expecting property name enclosed in double quotes, column 23)",
    ),
    _json(
        "single-quotes",
        "{'customer_id': 'bad'}",
        "is not valid JSON (Expecting property name enclosed in double quotes, column 2)",
    ),
    _json(
        "raw-control-character",
        '{"customer_id": "bad", "name": "\x1b[31m"}',
        "is not valid JSON (Invalid control character at, column 33)",
    ),
    _json("not-utf-8", b'{"customer_id": "bad", "name": "\xff"}', "is not valid UTF-8"),
    _json(
        "utf-16-line",
        '{"customer_id": "bad"}'.encode("utf-16-le"),
        "is not valid JSON (Expecting property name enclosed in double quotes, column 2)",
    ),
    _json("csv-line", "bad,Due,,1,1,", "is not valid JSON (Expecting value, column 1)"),
    _json(
        "label-of-2000-letters",
        f'{{"customer_id": "bad", "{"l" * 2000}": 1}}',
        "has a key of more than 1024 characters",
    ),
    _json(
        "identifier-as-a-float",
        '{"customer_id": 54.28, "name": "Due"}',
        "'54.28' is an identifier written as a number that is not whole",
        field="customer_id",
    ),
    _json(
        "identifier-of-5000-digits",
        f'{{"customer_id": {"7" * 5000}, "name": "Due"}}',
        f"'{'7' * 40}'… is longer than 256 characters",
        field="customer_id",
    ),
    _json_cell("5000-digits", "7" * 5000, f"'{'7' * 40}'… is not a number"),
    _json_cell("integer-of-5000-digits", "7" * 5000, f"'{'7' * 40}'… is not a number", "orders_count"),
    _json_cell("1e400", "1e400", "'1e400' has more than 30 digits or 12 decimals"),
    _json_cell("boolean-as-a-number", "true", "'true' is not a number"),
    _json_cell("fraction-as-an-integer", "1.5", "'1.5' is not a whole number", "orders_count"),
    _json_cell(
        "date-as-a-number", "20260131", "'20260131' is not a date (YYYY-MM-DD or DD/MM/YYYY)", "last_order_date"
    ),
    _json(
        "depth-100-thousand",
        _written(
            lambda: [
                _JSON_KNOWN.encode(),
                b'{"customer_id": ' + b"[" * _DEEP + b"]" * _DEEP + b"}\n",
                _json_row("good").encode(),
            ]
        ),
        "is nested too deeply",
        heavy=True,
    ),
    _json(
        "depth-100-thousand-objects",
        _written(
            lambda: [_JSON_KNOWN.encode(), b'{"a":' * _DEEP + b"1" + b"}" * _DEEP + b"\n", _json_row("good").encode()]
        ),
        "is nested too deeply",
        heavy=True,
    ),
    *(
        _json(
            f"array-of-a-million-{name}",
            _just_below_the_limit(_JSON_KNOWN + '{"customer_id": [', f"{cell},", f"{cell}]}}\n" + _json_row("good")),
            "is an object or array",
            field="customer_id",
            heavy=True,
        )
        for name, cell in (("numbers", "1"), ("arrays", "[]"), ("objects", "{}"), ("texts", '"abc"'))
    ),
    _json(
        "hostile-labels",
        '{"customer_id": "k5", "name": "Due", "\\u0000a": 1, "\\u001b[31m": 1, "\\ud800": 1, "\\u202e": 1}',
        "4 unknown columns ignored",
        outcome=Outcome.CLEANED,
    ),
    _json(
        "control-characters-in-text",
        r'{"customer_id": "k5", "name": "\u001b[31mDue\u0000"}',
        "2 control characters removed",
        outcome=Outcome.CLEANED,
    ),
    _json_held(
        "half-a-last-line",
        _JSON_KNOWN + '{"customer_id": "k5", "na',
        "truncated: line 5, the last one, is not complete",
        reason="truncated",
    ),
    _json_held(
        "half-a-last-character",
        _JSON_KNOWN.encode() + b'{"customer_id": "k5\xc3',
        "truncated: line 5, the last one, is not complete",
        reason="truncated",
    ),
    _json_held(
        "one-array",
        json.dumps([{"customer_id": "k1", "name": "Name"}]) + "\n",
        "the export has no JSON object with a key",
    ),
    _json_held(
        "pretty-printed", '{\n  "customer_id": "k1",\n  "name": "Name"\n}\n', "the export has no JSON object with a key"
    ),
    _json_held("empty-objects", "{}\n" * 4, "the export has no JSON object with a key"),
    _json_held("5000-labels", "".join(f'{{"l{n}": 1}}\n' for n in range(5000)), "more than 4096 different keys"),
    _json_held(
        "100-thousand-labels",
        _written(lambda: [b"{" + b", ".join(b'"%x": 1' % number for number in range(100_000)) + b"}\n"]),
        "more than 4096 different keys",
        heavy=True,
    ),
    _json_held(
        "line-of-200-mib",
        _long(_JSON_KNOWN + '{"customer_id": "', b"x", b'"}\n'),
        "line 5 is longer than 2097152 bytes",
        heavy=True,
    ),
)

# -- values, each in a row of its own


def _value(
    name: str, field: str, text: str, words: str, *, sync_type: str = "customers", locale: str = "iso"
) -> BadExport:
    """A row whose cells are good but for one."""
    cells = dict(zip(LABELS[sync_type], good_row(sync_type, "bad").rstrip("\n").split(","), strict=True))
    row = ",".join(f'"{cell}"' for cell in (cells | {field: text}).values()) + "\n"
    content = _with_row(row, sync_type)
    if locale == "it":  # the good rows in that locale
        content = content.replace(",12.50,", ',"12,50",')
    return BadExport(
        id=name, kind="value", given=content.encode(), outcome=Outcome.QUARANTINED, words=f"{text!r} {words}",
        line=FIRST_LINE, field=field, sync_type=sync_type, locale=locale,
    )  # fmt: skip


def _number(name: str, text: str, words: str = "is not a number", locale: str = "iso") -> BadExport:
    return _value(name, "sales_amount", text, words, locale=locale)


def _integer(name: str, text: str, words: str = "is not a number", locale: str = "iso") -> BadExport:
    return _value(name, "orders_count", text, words, locale=locale)


def _date(name: str, text: str, words: str = "is not a date (YYYY-MM-DD or DD/MM/YYYY)") -> BadExport:
    return _value(name, "last_order_date", text, words)


def _time(name: str, text: str, words: str = "is not a time (YYYY-MM-DD or DD/MM/YYYY)") -> BadExport:
    return _value(name, "created_at", text, words, sync_type="orders")


_ISO = "is not a number with a decimal point"
_IT = "is not a number with a decimal comma"
_SIGNS = "is not a number: its signs contradict each other"
_DIGITS = "has more than 30 digits or 12 decimals"
_IMPOSSIBLE = "is an impossible date or time"

_VALUES = (
    _number("arabic-digits", "١٢٣"),
    _number("full-width-digits", "１２"),
    _number("underscore", "1_000"),
    _number("nan", "NaN"),
    _number("infinity", "Infinity"),
    _number("inf", "-inf"),
    _number("hexadecimal", "0x1F"),
    _number("fraction-sign", "½"),
    _number("words", "dodici"),
    _number("formula", "=1+1"),
    _number("excel-error", "#N/A"),
    _number("decimal-comma-under-iso", "12,50", _ISO),
    _number("thousands-comma-under-iso", "1,234.56", _ISO),
    _number("two-points", "1.2.3", _ISO),
    _number("point-at-the-end", "5.", _ISO),
    _number("decimal-point-under-it", "1234.56", _IT, "it"),
    _number("exponent-under-it", "1E+3", _IT, "it"),
    _number("misplaced-thousands-under-it", "12.34,5", _IT, "it"),
    _number("two-signs", "-5-", _SIGNS),
    _number("open-bracket", "(5", _SIGNS),
    _number("sign-alone", "-"),
    _number("currency-alone", "€"),
    _number("dollar", "$5"),
    _number("10-to-the-400", "1E400", _DIGITS),
    _number("10-to-the-minus-400", "1E-400", _DIGITS),
    _number("exponent-of-four-digits", "1E1000"),
    _number("31-digits", "1" * 31, _DIGITS),
    _number("13-decimals", "0." + "1" * 13, _DIGITS),
    _integer("int64-overflow", "9223372036854775808", "is too large for a 64-bit integer"),
    _integer("int64-underflow", "-9223372036854775809", "is too large for a 64-bit integer"),
    _integer("fraction", "1.5", "is not a whole number"),
    _integer(
        "thousands-point-under-iso",
        "1.895",
        "may have a thousands dot, which is not clear where the dot is the decimal sign",
    ),
    _integer("fraction-under-it", "1,5", "is not a whole number", "it"),
    _integer("yes-as-an-integer", "yes"),
    _date("31-february", "31/02/2026", _IMPOSSIBLE),
    _date("29-february", "2026-02-29", _IMPOSSIBLE),
    _date("month-first", "01/31/2026", _IMPOSSIBLE),
    _date("month-zero", "2026-00-10", _IMPOSSIBLE),
    _date("year-zero", "0000-01-01", "is before the year 1900"),
    _date("year-1899", "31/12/1899", "is before the year 1900"),
    _date("year-10000", "10000-01-01"),
    _date("two-digit-year", "31/01/26"),
    _date("one-digit-day", "1/2/2026"),
    _date("excel-serial", "46053"),
    _date("dots", "31.01.2026"),
    _date("month-name", "31 gennaio 2026"),
    _date("arabic-date", "٢٠٢٦-٠١-٣١"),
    _date("infinity-date", "infinity"),
    _time("hour-24", "2026-01-31 24:00:00", _IMPOSSIBLE),
    _time("second-60", "2026-12-31 23:59:60", _IMPOSSIBLE),
    _time("offset-beyond", "2026-01-31T10:00:00+25:00"),
    _time("beyond-year-9999", "9999-12-31T23:59:59-10:00", "is out of range"),
    _time("twelve-hours", "01/31/2026 10:00 PM"),
    _time("now", "now"),
    _value("boolean-word", "closed", "maybe", "is not yes or no", sync_type="invoices"),
    _value("boolean-number", "closed", "2", "is not yes or no", sync_type="invoices"),
)

# -- files


def _file(
    name: str,
    place: Place | bytes,
    words: str,
    *,
    outcome: Outcome = Outcome.FAILED,
    reason: str = "source-refused",
    heavy: bool = False,
) -> BadExport:
    return BadExport(id=name, kind="file", given=place, outcome=outcome, words=words, reason=reason, heavy=heavy)


def _link(path: Path) -> None:
    target = path.with_name("elsewhere.csv")
    target.write_text(known_rows())
    path.symlink_to(target)


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _device(path: Path) -> None:
    """/dev/zero under another name, which only root can make."""
    os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 5))


def _file_as_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("x")


def _gzip_bomb() -> Iterator[bytes]:
    """4 GiB of zeros in 4 MiB: the members of a gzip file follow each other."""
    yield gzip.compress(known_rows().encode())
    yield from repeat(gzip.compress(bytes(64 * MIB)), 64)


_PACKED = gzip.compress(known_rows().encode(), mtime=0)
_FILES = (
    _file("missing", lambda path: None, "no export at {path}, nor at customers.csv.gz beside it", reason="no-export"),
    _file("link", _link, "{path} is a symbolic link, which is not followed"),
    _file("dangling-link", lambda path: path.symlink_to("nowhere"), "{path} is a symbolic link, which is not followed"),
    _file("link-to-itself", lambda path: path.symlink_to(path), "{path} is a symbolic link, which is not followed"),
    _file("link-to-a-secret", lambda path: path.symlink_to("/etc/passwd"), "{path} is a symbolic link, which is not followed"),
    _file("fifo", os.mkfifo, "{path} is a FIFO, not a regular file"),
    _file("folder", Path.mkdir, "{path} is a directory, not a regular file"),
    _file("socket", _socket, "{path} is a socket or device, not a regular file"),
    _file("device", _device, "{path} is a device, not a regular file"),
    _file("file-in-place-of-the-folder", _file_as_folder, "a part of the path is not a directory", reason="no-export"),
    _file("packed-and-cut", _PACKED[:-9], "the gzip data is truncated or damaged", outcome=Outcome.HELD, reason="truncated"),
    _file(
        "packed-and-damaged", _PACKED[:-8] + b"\0" * 8, "the gzip data is truncated or damaged",
        outcome=Outcome.HELD, reason="truncated",
    ),
    _file(
        "packed-and-followed-by-rubbish", _PACKED + b"rubbish", "the gzip data is truncated or damaged",
        outcome=Outcome.HELD, reason="truncated",
    ),
    _file(
        "packed-twice", gzip.compress(_PACKED), "the export is compressed twice", outcome=Outcome.HELD,
        reason="unreadable",
    ),
    _file(
        "gzip-bomb", _written(_gzip_bomb), "bytes, 200 times its size", outcome=Outcome.HELD, reason="unreadable", heavy=True,
    ),
)  # fmt: skip
# Files that need somebody beside the run (an unreadable one, one that is written meanwhile) have tests of their own.

EXPORTS: tuple[BadExport, ...] = (*_CSV_ROWS, *_CSV_FILES, *_JSONL, *_VALUES, *_FILES)
