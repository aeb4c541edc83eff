"""The configuration of CSV exports overrides detection, is recorded with the run, and is refused when it is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from archisync.base.errors import ConfigurationError
from archisync.rules.config import Config
from archisync.store import agents, runs
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.builtintypes import CUSTOMERS, DDT
from tests.support.rows import sync as sync_now
from tests.support.said import as_text

Deliver = Callable[..., runs.Run]


@pytest.fixture
def deliver(connection: Database, database_url: str, exports: Path) -> Deliver:
    """Sync bytes as anna's customers with these environment variables."""
    agents.add(connection, "anna", name=None, whitelisted=True)
    (exports / "anna").mkdir()

    def run(content: bytes, **variables: str) -> runs.Run:
        (exports / "anna" / "customers.csv").write_bytes(content)
        config = Config.from_environment(
            {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv"}
            | variables
        )
        return sync_now(connection, config, "customers", "anna")

    return run


def names(db: Database) -> list[str]:
    return [row["name"] for row in db.execute("select name from agents.customers order by customer_id").fetchall()]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_byte_order_mark_is_read_if_it_is_configured(
    deliver: Deliver, connection: Database, encoding: str
) -> None:
    content = "customer_id;name\n1;Città\n".encode(encoding)
    held = deliver(content, ARCHISYNC_CSV_ENCODING="utf-16")
    assert (held.state, held.message) == (
        "held",
        f"the export is UTF-16 without a byte order mark: set ARCHISYNC_CSV_ENCODING={encoding}",
    )
    assert deliver(content, ARCHISYNC_CSV_ENCODING=encoding).state == "succeeded"
    assert names(connection) == ["Città"]


def test_the_run_records_what_was_detected(deliver: Deliver) -> None:
    run = deliver("customer_id;name\n1;Città\n".encode("cp1252"))
    assert run.export is not None
    assert run.export["detected"] == {
        "format": "csv",
        "encoding": "cp1252",
        "delimiter": "semicolon",
        "quoting": "double",
    }


def test_a_configured_encoding_overrides_a_wrong_guess(deliver: Deliver, connection: Database) -> None:
    content = "customer_id;name;phone;city\n1;Società;06;Roma\n".encode("cp850")
    deliver(content)
    assert names(connection) == ["Societ…"]  # read as cp1252, the last guess
    run = deliver(content, ARCHISYNC_CSV_ENCODING_CUSTOMERS="CP850", ARCHISYNC_CSV_ENCODING="utf-8")
    assert names(connection) == ["Società"]
    assert run.export is not None
    assert run.export["detected"]["encoding"] == "cp850"
    assert run.export["detected"]["configured"] == "encoding"


def test_a_configured_encoding_that_does_not_fit_holds_the_export(deliver: Deliver) -> None:
    run = deliver("customer_id;name\n1;Società\n".encode("cp1252"), ARCHISYNC_CSV_ENCODING="utf-8")
    assert (run.state, run.reason, run.message) == ("held", "unreadable", "the export is not valid utf-8 text")


def test_a_configured_delimiter_decides_when_detection_is_not_clear(deliver: Deliver, connection: Database) -> None:
    content = b"customer_id;name,surname\n1;Rossi, Anna\n"
    unclear = deliver(content)
    assert (unclear.state, unclear.reason) == ("held", "unreadable")
    aliases = json.dumps({"name,surname": "name"})
    run = deliver(content, ARCHISYNC_CSV_DELIMITER="semicolon", ARCHISYNC_ALIASES_CUSTOMERS=aliases)
    assert (run.state, names(connection)) == ("succeeded", ["Rossi, Anna"])


def test_quotes_are_plain_characters_if_quoting_is_none(deliver: Deliver, connection: Database) -> None:
    content = b'customer_id;name\n1;"Da Gino" srl\n2;19" rack\n'
    deliver(content)
    run = deliver(content, ARCHISYNC_CSV_QUOTING="none")
    assert (run.state, names(connection)) == ("succeeded", ['"Da Gino" srl', '19" rack'])


def test_aliases_name_columns_and_ignore_them(deliver: Deliver, connection: Database) -> None:
    aliases = json.dumps({"Kundennr.": "customer_id", "Firma": "name", "EMAIL": ""})
    run = deliver(b"KUNDENNR.,firma,email\n1,Uno,x@y\n", ARCHISYNC_ALIASES_CUSTOMERS=aliases)
    assert (run.state, names(connection)) == ("succeeded", ["Uno"])
    row = connection.execute("select email from agents.customers").fetchone()
    assert row == {"email": None}


def test_a_changed_setting_reads_an_unchanged_export_again(deliver: Deliver, connection: Database) -> None:
    content = b"customer_id,name,email\n1,Uno,x@y\n"
    deliver(content)
    ignoring = json.dumps({"email": "", "name": "name", "EMAIL": "contact"})
    run = deliver(content, ARCHISYNC_ALIASES_CUSTOMERS=ignoring)
    assert run.counts is not None
    assert run.counts.updated == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ARCHISYNC_CSV_DELIMITER", ";", "ARCHISYNC_CSV_DELIMITER is ';'"),
        ("ARCHISYNC_CSV_ENCODING_DDT", "utf-7", "ARCHISYNC_CSV_ENCODING_DDT is 'utf-7'"),
        ("ARCHISYNC_CSV_QUOTING", "single", "ARCHISYNC_CSV_QUOTING is 'single'"),
        ("ARCHISYNC_ALIASES_DDT", "{", "ARCHISYNC_ALIASES_DDT is not JSON"),
        ("ARCHISYNC_ALIASES_DDT", "[]", "ARCHISYNC_ALIASES_DDT must be an object whose values are fields of ddt"),
        (
            "ARCHISYNC_ALIASES_DDT",
            '{"X": "colour"}',
            "ARCHISYNC_ALIASES_DDT must be an object whose values are fields of ddt",
        ),
    ],
)
def test_a_wrong_setting_is_a_configuration_error_before_anything_runs(
    cli: Cli, exports: Path, name: str, value: str, said: str
) -> None:
    done = cli(
        "worker", "--single", "--burst", env={"ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv", name: value}
    )
    refused = as_text(done.stderr)
    assert (done.returncode, said in refused, "hint: " in refused) == (3, True, True)


def test_a_type_without_its_own_setting_has_the_common_one() -> None:
    config = Config.from_environment({"ARCHISYNC_CSV_DELIMITER": "tab", "ARCHISYNC_CSV_DELIMITER_DDT": "pipe"})
    assert (config.csv_dialect(CUSTOMERS).delimiter, config.csv_dialect(DDT).delimiter) == ("\t", "|")
    with pytest.raises(ConfigurationError):
        Config.from_environment({"ARCHISYNC_ALIASES_DDT": "1"}).aliases(DDT)
