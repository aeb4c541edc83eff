"""Whatever is understood of an export is in the run's record: how its file, its labels and its values are written."""

from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from archisync.formats import open_table
from archisync.rules.values import Locale
from archisync.sources import Export
from archisync.sync.labels import required_places
from archisync.sync.records import RecordReader, read_records
from tests.support.builtintypes import PRODUCTS
from tests.sync.conftest import Deliver

ROME = ZoneInfo("Europe/Rome")
PLAIN = "product_id;name;discontinued;unit_price;modified_at\n1;a;true;1.50;2025-12-31T10:00:00Z\n"
USUAL = {"format", "delimiter", "quoting", "encoding"}


def _read(path: Path, content: bytes, locale: Locale) -> RecordReader:
    path.write_bytes(content)
    export = Export(path=path, origin="x", suffix=".csv", size_bytes=len(content), sha256="")
    required = partial(required_places, sync_type=PRODUCTS, aliases=())
    return read_records(open_table(export, required=required), PRODUCTS, locale=locale, zone=ROME)


def _cell(label: str, text: str) -> str:
    """An export whose one row has that cell."""
    return f"product_id;name;{label}\n1;a;{text}\n"


@pytest.mark.parametrize(
    ("content", "locale", "recorded"),
    [
        (PLAIN, "iso", {}),
        (_cell("unit_price", "1.234,50"), "it", {}),
        (_cell("unit_price", "-1234,50"), "it", {}),
        (_cell("modified_at", "31/12/2025"), "iso", {}),
        # the file
        ("Listino\n\n" + PLAIN, "iso", {"title_lines": "2"}),
        ("sep=;\n" + PLAIN, "iso", {"sep_line": "yes"}),
        (PLAIN.replace("_at\n", "_at;\n"), "iso", {"trailing_delimiter": "header"}),
        (PLAIN.replace("Z\n", "Z;\n") + "2;b;;;;\n", "iso", {"trailing_delimiter": "rows"}),
        (PLAIN + "\x1a", "iso", {"line_end": "Ctrl-Z"}),
        (PLAIN.replace("\n", "\r\r\n"), "iso", {"line_end": "CR CR LF"}),
        (PLAIN.replace("\n", "\r"), "iso", {"line_end": "CR"}),
        (PLAIN.rstrip("\n"), "iso", {"final_line_end": "missing"}),
        (PLAIN.encode("utf-32"), "iso", {"encoding": "utf-32"}),
        (PLAIN.encode("utf-16"), "iso", {"encoding": "utf-16"}),
        (PLAIN.replace(";a;", ";è;").encode("cp1252"), "iso", {"encoding": "cp1252"}),
        # the cells
        (PLAIN.replace("1;a", '="1";=("a")'), "iso", {"cells": '="text"'}),
        (PLAIN.replace(";a;", '; "a";'), "iso", {"cells": "blanks around quotes"}),
        (PLAIN.replace(";a;", ';"a" ;'), "iso", {"cells": "blanks around quotes"}),
        # the labels
        (_cell("QUANTITA' MINIMA", "1"), "iso", {"labels": "QUANTITA' MINIMA for min_quantity"}),
        # the values
        (_cell("discontinued", "Vero") + "2;b;Falso\n", "iso", {"notations": "falso, vero"}),
        (_cell("discontinued", "S") + "2;b;N\n", "iso", {"notations": "n, s"}),
        (_cell("discontinued", "X"), "iso", {"notations": "x"}),
        (_cell("discontinued", "Sì"), "iso", {"notations": "si"}),
        (_cell("modified_at", "31-OTT-2025"), "iso", {"notations": "31-DIC-2025"}),
        (_cell("modified_at", "31/OTT/2025"), "iso", {"notations": "31-DIC-2025"}),
        (_cell("modified_at", "20251231"), "iso", {"notations": "20251231"}),
        (_cell("modified_at", "31.12.2025"), "iso", {"notations": "31.12.2025"}),
        (_cell("unit_price", "1\N{NO-BREAK SPACE}234,50"), "it", {"notations": "blanks in numbers"}),
        (_cell("unit_price", "1\N{NARROW NO-BREAK SPACE}234.50"), "iso", {"notations": "blanks in numbers"}),
        (_cell("unit_price", "1\N{THIN SPACE}234,50"), "it", {"notations": "blanks in numbers"}),
        (_cell("unit_price", "\N{MINUS SIGN}1,50"), "it", {"notations": "Unicode minus"}),
        (_cell("unit_price", "1.50-"), "iso", {"notations": "minus behind a number"}),
        (_cell("unit_price", "(1.50)"), "iso", {"notations": "brackets for a minus"}),
        (_cell("unit_price", "€1,50"), "it", {"notations": "currency"}),
        (_cell("unit_price", "1E+3"), "iso", {"notations": "exponent"}),
        (PLAIN.replace("1;a", "70.962;a"), "iso", {"notations": "thousands dots in identifiers"}),
    ],
)  # fmt: skip
def test_what_is_understood_is_recorded(
    tmp_path: Path, content: str | bytes, locale: Locale, recorded: dict[str, str]
) -> None:
    raw = content.encode() if isinstance(content, str) else content
    ways = []
    for name in ("batches", "__iter__"):  # lines that PostgreSQL can read as they are; every line parsed
        records = _read(tmp_path / "x", raw, locale)
        list(getattr(records, name)())
        ways.append(records.detected)
    assert ways[0] == ways[1]
    assert records.quarantined == 0
    assert {name: what for name, what in ways[0].items() if name not in USUAL or name in recorded} == recorded


def test_the_run_records_it(deliver: Deliver) -> None:
    header = "sep=;\r\nClienti\r\ncustomer_id;name;CITTA';last_order_date\r\n"
    run = deliver(header + '="007"; "a";Forlì;20251231\r\n8;b;;31.12.2025\r\n\x1a')
    assert run.export is not None
    assert run.export["detected"] == {
        "format": "csv",
        "encoding": "utf-8",
        "delimiter": "semicolon",
        "quoting": "double",
        "sep_line": "yes",
        "title_lines": "1",
        "line_end": "Ctrl-Z",
        "cells": '="text", blanks around quotes',
        "labels": "CITTA' for city",
        "notations": "20251231, 31.12.2025",
    }
    held = deliver(header + "7;c;;20251231\r\n\x1a")
    assert (held.state, held.export and held.export["detected"]["notations"]) == ("held", "20251231")
