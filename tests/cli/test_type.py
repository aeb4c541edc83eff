"""`archisync type`: from a stranger's export to a synced table in three commands."""

import json
from pathlib import Path

import pytest
import xlsxwriter

from archisync.base.errors import ExitCode
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents
from archisync.store.database import Database
from archisync.store.runs import State
from tests.conftest import REPOSITORY, Cli
from tests.support.rows import sync

PATH_HINT = "hint: check the path, and that this account may read it"
EXAMPLES = REPOSITORY / "examples" / "types"
ROWS = [
    ["Pos", "Artikel", "Preis", "Gültig ab", "Text"],
    ["001", "A-1", "12,50", "29.10.2025", 'sagt "ja"'],
    ["002", "A-2", "1234,99", "01.11.2025", "zwei\nZeilen"],
    ["003", "A-1", "0,05", "", "Größe; 5"],
]


def quoted(cell: str, delimiter: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if {'"', "\n", delimiter} & set(cell) else cell


def csv_bytes(delimiter: str, encoding: str, line_end: str, *, dots: bool) -> bytes:
    rows = [[cell.replace(",", ".") if dots and place == 2 else cell for place, cell in enumerate(row)] for row in ROWS]
    text = line_end.join(delimiter.join(quoted(c, delimiter) for c in row) for row in rows) + line_end
    return text.encode(encoding)


def jsonl_bytes() -> bytes:
    rows = [dict(zip(ROWS[0], row, strict=True)) for row in ROWS[1:]]
    for row in rows:
        row["Preis"] = row["Preis"].replace(",", ".")
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def workbook(path: Path) -> None:
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate(ROWS):
            for place, cell in enumerate(row):
                number_cell = place == 2 and number
                sheet.write(number, place, float(cell.replace(",", ".")) if number_cell else cell)


@pytest.fixture
def anna(connection: Database) -> Database:
    agents.add(connection, "anna", name=None, whitelisted=True)
    return connection


@pytest.mark.parametrize("make", ["excel-de", "pandas", "unix-tabs", "utf-16", "jsonl", "xlsx"])
def test_a_stranger_s_export_is_synced_in_three_commands(cli: Cli, anna: Database, tmp_path: Path, make: str) -> None:
    suffix = {"jsonl": "jsonl", "xlsx": "xlsx", "unix-tabs": "tsv"}.get(make, "csv")
    export = tmp_path / f"preise.{suffix}"
    match make:
        case "jsonl":
            export.write_bytes(jsonl_bytes())
        case "xlsx":
            workbook(export)
        case "excel-de":
            export.write_bytes(csv_bytes(";", "cp1252", "\r\n", dots=False))
        case "pandas":
            export.write_bytes(csv_bytes(",", "utf-8", "\n", dots=True))
        case "unix-tabs":
            export.write_bytes(csv_bytes("\t", "utf-8", "\n", dots=True))
        case _:
            export.write_bytes(csv_bytes(";", "utf-16", "\r\n", dots=False))
    env = {"ARCHISYNC_SOURCE": str(tmp_path / f"{{type}}.{suffix}")}
    drafted = cli("type", "draft", "preise", "--from", str(export))
    assert (drafted.returncode, drafted.stderr) == (0, "")
    if "set ARCHISYNC_LOCALE_PREISE=it" in drafted.stdout:
        env["ARCHISYNC_LOCALE_PREISE"] = "it"
    (tmp_path / "preise.toml").write_text(drafted.stdout)
    applied = cli("type", "apply", str(tmp_path / "preise.toml"))
    assert (applied.returncode, applied.stdout) == (0, "preise: table agents.preise with 5 fields\n")
    done = cli("run", "preise", "--agent", "anna", "--inline", env=env)
    assert done.returncode == 0, done.stderr
    rows = anna.execute(
        "select pos, preis::text, gultig_ab::text as day, text from agents.preise order by pos"
    ).fetchall()
    assert [(r["preis"].rstrip("0"), r["day"]) for r in rows] == [
        ("12.5", "2025-10-29"), ("1234.99", "2025-11-01"), ("0.05", None),
    ]  # fmt: skip
    assert [r["text"] for r in rows] == ['sagt "ja"', "zwei Zeilen", "Größe; 5"]
    for words in (
        ["status"],
        ["metrics"],
        ["interval", "list"],
        ["report", "--html", "-"],
        ["guard", "list"],
        ["plan"],
    ):
        shown = cli(*words)
        assert "preise" in shown.stdout, words
    complete = cli(env={"_ARCHISYNC_COMPLETE": "complete_bash", "COMP_WORDS": "archisync run pr", "COMP_CWORD": "2"})
    assert complete.stdout.split() == ["products", "prices", "preise"]
    assert cli("type", "diff", str(tmp_path / "preise.toml")).returncode == 0


def test_an_export_without_a_last_line_end_is_synced_with_the_setting_that_the_draft_names(
    cli: Cli, anna: Database, tmp_path: Path
) -> None:
    (tmp_path / "comuni.csv").write_text("codice;comune\n001;Roma\n002;Bari")
    source = {"ARCHISYNC_SOURCE": str(tmp_path / "{type}.csv")}
    text = cli("type", "draft", "comuni", "--from", str(tmp_path / "comuni.csv")).stdout
    setting = "ARCHISYNC_CSV_FINAL_LINE_END_COMUNI=optional"
    assert f"# Note: the last line has no line end: if the ERP always writes it so, set {setting}.\n" in text
    assert cli("type", "apply", "-", stdin=text).returncode == 0
    run = ("run", "comuni", "--agent", "anna", "--inline")
    assert cli(*run, env=source).returncode == ExitCode.HELD
    assert cli(*run, env=source | dict([setting.split("=")])).returncode == 0
    assert anna.execute("select comune from agents.comuni order by 1").fetchall() == [
        {"comune": "Bari"},
        {"comune": "Roma"},
    ]


@pytest.mark.parametrize("name", ["returns", "stock", "targets"])
def test_the_examples_are_synced(cli: Cli, anna: Database, name: str) -> None:
    agents.add(anna, "anna.bianchi", name=None, whitelisted=True)
    agents.set_whitelisted(anna, ["anna"], False)
    env = {"ARCHISYNC_SOURCE": f"{EXAMPLES}/exports/{{agent}}/{{type}}.csv", "ARCHISYNC_LOCALE": "iso"}
    assert cli("type", "apply", f"{EXAMPLES}/{name}.toml").returncode == 0
    done = cli("run", name, "--inline", env=env)
    assert done.returncode == 0, done.stderr
    table = f"{'shared' if name == 'stock' else 'agents'}.{name}"
    [row] = anna.execute(f"select count(*) as n from {table}".encode()).fetchall()
    assert row["n"] == {"returns": 2, "stock": 3, "targets": 3}[name]


def test_the_declaration_that_is_shown_is_the_one_that_was_applied(cli: Cli, anna: Database, tmp_path: Path) -> None:
    assert cli("type", "apply", f"{EXAMPLES}/targets.toml").returncode == 0
    shown = cli("type", "show", "targets", "--toml").stdout
    (tmp_path / "targets.toml").write_text(shown)
    assert cli("type", "diff", str(tmp_path / "targets.toml")).returncode == 0
    assert cli("type", "diff", "-", stdin=shown.replace("1440", "60")).returncode == 1


def test_the_statements_are_what_apply_executes(cli: Cli, anna: Database) -> None:
    text = cli("type", "apply", f"{EXAMPLES}/returns.toml", "--sql").stdout
    assert (text.splitlines()[0], text.splitlines()[-1]) == ("begin;", "commit;")
    anna.execute(text.encode())
    assert cli("type", "diff", f"{EXAMPLES}/returns.toml").returncode == 0
    assert cli("type", "apply", f"{EXAMPLES}/returns.toml", "--sql").stdout == ""


@pytest.mark.parametrize(
    ("words", "stdin", "code", "message"),
    [
        (("check", "-"), "name = 5\n", 3, "error: standard input: name: 5 is no text"),
        (("apply", "/nowhere/x.toml"), "", 2, f"error: '/nowhere/x.toml' can't be read: No such file or directory\n{PATH_HINT}"),
        (("apply", "/tmp"), "", 2, f"error: '/tmp' can't be read: Is a directory\n{PATH_HINT}"),
        (("diff", f"{EXAMPLES}/stock.toml"), "", 5, "error: the database has no type stock"),
        (("show", "retruns"), "", 2, "error: there is no sync type 'retruns'"),
        (("remove", "orders", "--yes"), "", 2, "error: orders comes with archisync"),
        (("remove", "returns"), "", 2, "error: that would remove the type returns; nothing was done"),
        (("draft", "x", "--from", "/nowhere.csv"), "", 2, f"error: '/nowhere.csv' can't be read: No such file or directory\n{PATH_HINT}"),
        (("draft", "x", "--from", "/dev/null"), "", 2, f"error: '/dev/null' is no file\n{PATH_HINT}"),
        (("draft", "Order", "--from", f"{EXAMPLES}/exports/anna.bianchi/returns.csv"), "", 3, "error: the draft: name: 'Order'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_a_hint(
    cli: Cli, words: tuple[str, ...], stdin: str, code: ExitCode, message: str
) -> None:
    done = cli("type", *words, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert "\nhint: " in done.stderr


def test_without_a_database_a_file_can_be_checked(cli: Cli) -> None:
    done = cli("type", "check", f"{EXAMPLES}/returns.toml", env={"ARCHISYNC_DATABASE_URL": ""})
    assert (done.returncode, done.stdout) == (
        0, "returns: right; without a database it is not known what apply would do\n",
    )  # fmt: skip


def test_a_worker_knows_a_new_and_a_changed_declaration_with_its_next_run(
    cli: Cli, anna: Database, tmp_path: Path
) -> None:
    """The worker is this process, and the types are declared by others."""
    declaration = (EXAMPLES / "returns.toml").read_text("utf-8")
    (tmp_path / "returns.csv").write_text("NUMERO RESO,NUMERO ORDINE,CORRIERE\nR1,O1,UPS\n")
    config = Config(environment={"ARCHISYNC_SOURCE": str(tmp_path / "{type}.csv")})
    assert cli("type", "apply", "-", stdin=declaration).returncode == 0
    assert "returns" not in SYNC_TYPES
    assert sync(anna, config, "returns", "anna", trigger="scheduled").state is State.SUCCEEDED
    changed = declaration + 'carrier = { labels = ["CORRIERE"] }\n'
    assert cli("type", "apply", "-", stdin=changed).returncode == 0
    assert sync(anna, config, "returns", "anna", trigger="scheduled").state is State.SUCCEEDED
    assert anna.execute("select carrier from agents.returns").fetchall() == [{"carrier": "UPS"}]
