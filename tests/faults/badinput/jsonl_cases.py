"""Bad JSON Lines exports."""

import json
import sys

from tests.faults.badinput.cases import (
    CASE_JSON_LINE,
    KNOWN_KEYS,
    BadExport,
    Outcome,
    Place,
    held,
    just_below_the_limit,
    long_file,
    written,
)


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
        id=name, form="jsonl", given=given, outcome=outcome, words=words, line=CASE_JSON_LINE, field=field,
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
    return held(name, given, words, reason=reason, form="jsonl", suffix=".jsonl", heavy=heavy)


_DEEP = 100_000
JSONL = (
    _json("nan", '{"customer_id": "bad", "name": "x", "sales_amount": NaN}', "has NaN, which is not a JSON number"),
    _json("infinity", '{"customer_id": "bad", "sales_amount": Infinity}', "has Infinity, which is not a JSON number"),
    _json(
        "minus-infinity",
        '{"customer_id": "bad", "sales_amount": -Infinity}',
        "has -Infinity, which is not a JSON number",
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
        "is not valid JSON (Illegal trailing comma before end of object, column 22)"
        if sys.version_info >= (3, 13)
        else "is not valid JSON (Expecting property name enclosed in double quotes, column 23)",
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
        "'54.28' is an identifier written as a number that is not whole; write it as text",
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
    _json_cell("date-as-a-number", "2026013", "'2026013' is not a date (YYYY-MM-DD or DD/MM/YYYY)", "last_order_date"),
    _json(
        "depth-100-thousand",
        written(
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
        written(
            lambda: [_JSON_KNOWN.encode(), b'{"a":' * _DEEP + b"1" + b"}" * _DEEP + b"\n", _json_row("good").encode()]
        ),
        "is nested too deeply",
        heavy=True,
    ),
    *(
        _json(
            f"array-of-a-million-{name}",
            just_below_the_limit(_JSON_KNOWN + '{"customer_id": [', f"{cell},", f"{cell}]}}\n" + _json_row("good")),
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
        "array-cut", '[{"customer_id": "k1", "name": "Name"},\n', "the JSON array is not closed", reason="truncated"
    ),
    _json_held(
        "pretty-printed", '{\n  "customer_id": "k1",\n  "name": "Name"\n}\n', "the export has no JSON object with a key"
    ),
    _json_held("empty-objects", "{}\n" * 4, "the export has no JSON object with a key"),
    _json_held("5000-labels", "".join(f'{{"l{n}": 1}}\n' for n in range(5000)), "more than 4096 different keys"),
    _json_held(
        "100-thousand-labels",
        written(lambda: [b"{" + b", ".join(b'"%x": 1' % number for number in range(100_000)) + b"}\n"]),
        "more than 4096 different keys",
        heavy=True,
    ),
    _json_held(
        "line-of-200-mib",
        long_file(_JSON_KNOWN + '{"customer_id": "', b"x", b'"}\n'),
        "line 5 is longer than 2097152 bytes",
        heavy=True,
    ),
)
