"""CSV that is neither UTF-8 nor cp1252: another code page is held until it is named, and western text never is."""

from pathlib import Path

import pytest

from archisync.base.errors import ExportError
from archisync.formats import RawRow, open_table
from archisync.rules.config import CSV_ENCODINGS, DETECT, CsvDialect
from archisync.sources import Export

CZECH = "Příliš žluťoučký kůň; úpěl ďábelské ódy; Dvořák; běžný účet; dům; děti; mě; pět; měsíční přehled; štěstí; žádný výběr"
POLISH = "Łódź; Paweł Wałęsa; książka; małżeństwo; dział sprzedaży"
SLOVENE = "račun; čebela; žena; šola; Kovačič Škerlj Žerjal; večerja; številka; začetek; mačka"
HUNGARIAN = "Győr; erdő; vevő; szállító; fűtő; előző; időszak; új székhely; körút; bőrönd; főkönyvelő"
TURKISH = "Beyoğlu; Kadıköy; Şişli; başlangıç; müşteri; sipariş; ağaç; değişken; yağmur; görüş"
OTHERS = [
    ("Caffè;città", "cp850", "the letters of DOS rather than those", "cp850"),
    ("Perché;Città;Nicolò", "mac-roman", "the letters of an old Mac rather than those", "mac-roman"),
    ("Bäcker;Müller;Köln", "mac-roman", "the letters of an old Mac rather than those", "mac-roman"),
    ("Иван;Ёлка", "cp1251", "letters of another alphabet than that", "cp1251 or cp1253"),
    *[
        (text, page, "letters of Central Europe (Czech, Polish …) rather than those", "cp1250 or iso-8859-2")
        for text, page in [
            (POLISH, "cp1250"), (SLOVENE, "cp1250"), (HUNGARIAN, "cp1250"),
            (CZECH.replace("ť", ""), "cp1250"), ("București; Timişoara; creşă; naşi".replace("ș", "ş"), "cp1250"),
            (POLISH, "iso-8859-2"),
        ]
    ],
    (TURKISH, "cp1254", "letters of Turkish or a Baltic language rather than those", "cp1254 or cp1257"),
]  # fmt: skip
WESTERN = [
    "Città di Forlì; più caffè; lunedì; perché; Cantù; m³ di gas; 1¼ pollici; N³; à; balìa",
    "Müßiggänger; Größe; Øresund; Ærø; smörgåsbord; Åse; Škoda; Žižka; Šimek",
    "créée; où; père; mère; Citroën; œuvre; Ÿ; L’Haÿ-les-Roses; août; Škoda; très; après; élève",
    "¿Qué?; año; ª; Mª José; nº 5; CŒUR; HAŸ; TŠEHHI; auto‡; 1º; España; pingüino; corazón; ¡Olé!",
    "coração; põe; aviões; não; São João; mãe; três; à; avô",
    "Þórður; Guðrún; Jón; Ísafjörður; Reykjavík; þýðing; Óðinn; Æsa; Sæmundur; Snæfellsjökull",
    "però; això; cafè; València; mòdul; col·legi; què; l’èxit",
    "“virgolette”; auto…; •un punto; 10 €; per—; O’Neil; £20; ½; §3",
]


def _export(tmp_path: Path, content: bytes) -> Export:
    path = tmp_path / "spooled"
    path.write_bytes(content)
    return Export(path=path, origin="x", suffix=".csv", size_bytes=len(content), sha256="")


def _lines(text: str) -> str:
    return "name\n" + "".join(f"{word.strip()}\n" for word in text.split(";"))


def _words(export: Export, dialect: CsvDialect = DETECT) -> list[str | None]:
    return [row.cells[0] for row in open_table(export, dialect).rows() if isinstance(row, RawRow)]


@pytest.mark.parametrize(("text", "page", "what", "named"), OTHERS)
def test_another_code_page_is_refused_until_it_is_named(
    tmp_path: Path, text: str, page: str, what: str, named: str
) -> None:
    export = _export(tmp_path, _lines(text).encode(page))
    with pytest.raises(ExportError, match=r"^the export is not UTF-8") as refused:
        open_table(export)
    assert refused.value.message.endswith(f"and has {what} of cp1252")
    assert (
        refused.value.hint
        == f"export it as UTF-8, or set ARCHISYNC_CSV_ENCODING to {named}, or to cp1252 if it is that"
    )
    assert set(named.split(" or ")) <= set(CSV_ENCODINGS)
    assert _words(export, CsvDialect(encoding=page)) == [word.strip() for word in text.split(";")]


@pytest.mark.parametrize("text", [*WESTERN, "; ".join(WESTERN)])
def test_western_text_is_read_as_cp1252(tmp_path: Path, text: str) -> None:
    assert _words(_export(tmp_path, _lines(text).encode("cp1252"))) == [word.strip() for word in text.split(";")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_refused_until_it_is_named(tmp_path: Path, encoding: str) -> None:
    export = _export(tmp_path, "name\nCittà\n".encode(encoding))
    with pytest.raises(ExportError) as refused:
        open_table(export)
    setting = f"ARCHISYNC_CSV_ENCODING={encoding}"
    assert refused.value.message == f"the export is UTF-16 without a byte order mark: set {setting}"
    assert _words(export, CsvDialect(encoding=encoding)) == ["Città"]


def test_bytes_that_are_neither_utf8_nor_cp1252_are_refused(tmp_path: Path) -> None:
    for content, page in ((b"a,b\n1,\x81\n", "cp1252"), (b"\xef\xbb\xbfa,b\n1,\xff\n", "utf-8")):
        with pytest.raises(ExportError, match=f"^the export is not valid {page} text$"):
            open_table(_export(tmp_path, content))
