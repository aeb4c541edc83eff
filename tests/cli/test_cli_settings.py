"""`interval`, `enable`, `disable`, `pause`, `resume`: each says what it did, and a refused one changes nothing."""

import json
import subprocess

import pytest

from archisync.base.errors import ExitCode
from archisync.store import settings as store
from archisync.store.database import Database
from tests.conftest import Cli

ALLOWED = "hint: allowed: a whole number of minutes from 5 to 1440\n"
TYPES = "orders, customers, products, prices, ddt, invoices"
AT_NOON = {"PGOPTIONS": "-c archisync.now=2026-03-01T12:00:00Z"}


def _settings(db: Database) -> list[dict[str, object]]:
    return db.execute("select * from system.sync_settings order by sync_type").fetchall()


def _pauses(db: Database) -> list[tuple[object, ...]]:
    rows = db.execute("select sync_type, agent_id, until, reason from system.pauses order by id").fetchall()
    return [tuple(row.values()) for row in rows]


def _says(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


# --- interval -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_name", "minutes", "said"),
    [
        ("orders", "3", f"error: the interval 3 is out of range\n{ALLOWED}"),
        ("orders", "4", f"error: the interval 4 is out of range\n{ALLOWED}"),
        ("orders", "1441", f"error: the interval 1441 is out of range\n{ALLOWED}"),
        ("orders", "99999999999999999999", f"error: the interval 99999999999999999999 is out of range\n{ALLOWED}"),
        ("orders", "ten", f"error: the interval 'ten' is not a whole number\n{ALLOWED}"),
        ("orders", "10.5", f"error: the interval '10.5' is not a whole number\n{ALLOWED}"),
        ("orders", "", f"error: the interval '' is not a whole number\n{ALLOWED}"),
        ("orders", "١٠", f"error: the interval '\\u0661\\u0660' is not a whole number\n{ALLOWED}"),
        ("order", "10", f"error: there is no sync type 'order'\nhint: did you mean orders? allowed: {TYPES}\n"),
        ("", "10", f"error: there is no sync type ''\nhint: allowed: {TYPES}\n"),
    ],
)
def test_a_wrong_interval_names_what_is_allowed_and_changes_nothing(
    cli: Cli, connection: Database, type_name: str, minutes: str, said: str
) -> None:
    before = _settings(connection)
    assert _says(cli("interval", "set", type_name, minutes)) == (ExitCode.USAGE, "", said)
    assert _settings(connection) == before


@pytest.mark.parametrize("minutes", [5, 15, 1440])
def test_setting_an_interval_touches_no_other_type(cli: Cli, connection: Database, minutes: int) -> None:
    before = {row["sync_type"]: row for row in _settings(connection)}
    assert _says(cli("interval", "set", "orders", str(minutes))) == (0, f"orders: every {minutes} min\n", "")
    after = {row["sync_type"]: row for row in _settings(connection)}
    assert after.pop("orders")["interval_minutes"] == minutes
    del before["orders"]
    assert after == before


def test_reset_of_one_type_leaves_the_others(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_settings set interval_minutes = 77")
    assert _says(cli("interval", "reset", "orders")) == (0, "orders: every 10 min\n", "")
    minutes = {row["sync_type"]: row["interval_minutes"] for row in _settings(connection)}
    assert minutes == {"orders": 10, "customers": 77, "products": 77, "prices": 77, "ddt": 77, "invoices": 77}


def test_reset_without_a_type_resets_all_to_the_defaults_of_the_environment(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_settings set interval_minutes = 77")
    done = cli("interval", "reset", env={"ARCHISYNC_INTERVAL_ORDERS": "12"})
    assert done.stdout.splitlines() == [
        "orders: every 12 min",
        "customers: every 15 min",
        "products: every 30 min",
        "prices: every 60 min",
        "ddt: every 20 min",
        "invoices: every 20 min",
    ]
    minutes = {row["sync_type"]: row["interval_minutes"] for row in _settings(connection)}
    assert minutes == {"orders": 12, "customers": 15, "products": 30, "prices": 60, "ddt": 20, "invoices": 20}


def test_reset_with_an_empty_type_is_refused_and_does_not_mean_all(cli: Cli, connection: Database) -> None:
    connection.execute("update system.sync_settings set interval_minutes = 77")
    before = _settings(connection)
    said = f"error: there is no sync type ''\nhint: allowed: {TYPES}\n"
    assert _says(cli("interval", "reset", "")) == (ExitCode.USAGE, "", said)
    assert _settings(connection) == before


def test_intervals_are_listed_as_a_plain_table_and_as_json(cli: Cli) -> None:
    cli("interval", "set", "orders", "25")
    cli("disable", "prices")
    table = cli("interval", "list").stdout.splitlines()
    assert table[0].split() == ["TYPE", "MINUTES", "DEFAULT", "ENABLED", "CHANGED"]
    assert [line.split()[:4] for line in table[1:]] == [
        ["orders", "25", "10", "yes"],
        ["customers", "15", "15", "yes"],
        ["products", "30", "30", "yes"],
        ["prices", "60", "60", "no"],
        ["ddt", "20", "20", "yes"],
        ["invoices", "20", "20", "yes"],
    ]
    document = json.loads(cli("interval", "list", "--json").stdout)
    assert document["schema"] == 1
    assert [(i["sync_type"], i["interval_minutes"], i["enabled"]) for i in document["intervals"]][:4] == [
        ("orders", 25, True),
        ("customers", 15, True),
        ("products", 30, True),
        ("prices", 60, False),
    ]


def test_disable_and_enable_switch_one_type(cli: Cli, connection: Database) -> None:
    assert _says(cli("disable", "prices")) == (0, "prices: disabled\n", "")
    assert [row["sync_type"] for row in _settings(connection) if not row["enabled"]] == ["prices"]
    assert _says(cli("enable", "prices")) == (0, "prices: enabled\n", "")
    assert all(row["enabled"] for row in _settings(connection))


# --- pause and resume ---------------------------------------------------------------------------------------------


def test_pause_without_a_scope_pauses_everything(cli: Cli, connection: Database) -> None:
    assert _says(cli("pause", "--reason", "ERP maintenance")) == (0, "everything: paused until somebody resumes\n", "")
    assert _pauses(connection) == [(None, None, None, "ERP maintenance")]


@pytest.mark.parametrize(
    ("until", "iso"),
    [
        ("30m", "2026-03-01T12:30:00Z"),
        ("2h", "2026-03-01T14:00:00Z"),
        ("1d", "2026-03-02T12:00:00Z"),
        ("2026-03-01T13:00:00Z", "2026-03-01T13:00:00Z"),
        ("2026-03-01T13:00:00", "2026-03-01T13:00:00Z"),
        ("2026-03-01T14:30:00+01:00", "2026-03-01T13:30:00Z"),
    ],
)
def test_until_is_a_span_from_the_clock_of_postgresql_or_a_time_that_is_utc_unless_it_says(
    cli: Cli, connection: Database, until: str, iso: str
) -> None:
    assert _says(cli("pause", "--until", until, env=AT_NOON)) == (0, f"everything: paused until {iso}\n", "")
    row = connection.execute("select until = %s::timestamptz as same from system.pauses", [iso]).fetchone()
    assert row == {"same": True}


@pytest.mark.parametrize("until", ["2026-03-01T12:00:00Z", "2026-03-01T12:30:00+01:00", "0s"])
def test_a_pause_until_a_past_time_is_refused(cli: Cli, connection: Database, until: str) -> None:
    done = cli("pause", "--until", until, env=AT_NOON)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.endswith(" is in the past\nhint: it is 2026-03-01T12:00:00Z now\n")
    assert _pauses(connection) == []


@pytest.mark.parametrize(
    "until", ["tomorrow", "", "-2h", "2w", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_not_a_time_is_refused_with_what_is(cli: Cli, connection: Database, until: str) -> None:
    assert _says(cli("pause", f"--until={until}")) == (
        ExitCode.USAGE,
        "",
        f"error: '{until}' is not a time\n"
        "hint: allowed: a span like 30m, 2h, 1d, or a time like 2026-01-31T08:00:00Z\n",
    )
    assert _pauses(connection) == []


def test_a_pause_of_an_unknown_agent_or_type_is_refused(cli: Cli, connection: Database) -> None:
    assert _says(cli("pause", "--agent", "nobody")) == (
        ExitCode.NOT_FOUND,
        "",
        "error: there is no agent 'nobody'\nhint: archisync agent list\n",
    )
    assert _says(cli("pause", "--type", "order")) == (
        ExitCode.USAGE,
        "",
        f"error: there is no sync type 'order'\nhint: did you mean orders? allowed: {TYPES}\n",
    )
    assert _pauses(connection) == []


@pytest.mark.parametrize(("option", "code"), [("--agent", ExitCode.NOT_FOUND), ("--type", ExitCode.USAGE)])
def test_an_empty_scope_is_refused_and_does_not_mean_everything(
    cli: Cli, connection: Database, option: str, code: ExitCode
) -> None:
    assert cli("pause", option, "").returncode == code
    assert _pauses(connection) == []


def test_the_shared_account_can_be_paused(cli: Cli, connection: Database) -> None:
    assert _says(cli("pause", "--type", "products", "--agent", "service-account")) == (
        0,
        "products of service-account: paused until somebody resumes\n",
        "",
    )
    assert _pauses(connection) == [("products", "service-account", None, None)]


def test_a_second_pause_of_a_scope_replaces_the_first(cli: Cli, connection: Database) -> None:
    cli("pause", "--type", "orders", "--reason", "one")
    cli("pause", "--type", "orders", "--reason", "two")
    assert _pauses(connection) == [("orders", None, None, "two")]


def test_resume_lifts_exactly_one_scope_and_names_the_pauses_that_stand(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--allow")
    cli("pause")
    cli("pause", "--type", "orders")
    cli("pause", "--agent", "anna")
    assert _says(cli("resume")) == (
        0,
        "everything: resumed\n",
        "note: the agent anna is still paused\nnote: the type orders is still paused\n",
    )
    assert _pauses(connection) == [("orders", None, None, None), (None, "anna", None, None)]


def test_resume_of_what_is_not_paused_says_so_and_names_the_pauses_that_stand(cli: Cli, connection: Database) -> None:
    assert _says(cli("resume")) == (0, "everything: was not paused\n", "")
    cli("agent", "add", "anna", "luca", "--allow")
    cli("pause", "--type", "orders")
    cli("pause", "--type", "products")
    cli("pause", "--agent", "luca")
    cli("pause", "--agent", "anna", "--type", "ddt")
    assert _says(cli("resume", "--type", "ddt")) == (
        0,
        "the type ddt: was not paused\n",
        "note: the agent luca is still paused\nnote: ddt of anna is still paused\n",
    )
    assert _says(cli("agent", "resume", "anna")) == (
        0,
        "the agent anna: was not paused\n",
        "note: ddt of anna is still paused\nnote: the type orders is still paused\n",
    )
    assert len(_pauses(connection)) == 4


def test_resume_names_ten_pauses_at_most(cli: Cli, connection: Database) -> None:
    for number in range(12):
        store.pause(connection, sync_type=None, agent_id=f"agent.{number:02}", until=None, reason=None, by="test")
    said = cli("resume").stderr.splitlines()
    assert said[-2:] == ["note: the agent agent.09 is still paused", "note: and 2 more (archisync status)"]
    assert len(said) == 11


@pytest.mark.parametrize(
    "typed",
    [["resume", "-a", "mario.basi"], ["resume", "-t", "ddt", "-a", "mario.basi"], ["agent", "resume", "mario.basi"]],
)
def test_resume_of_a_mistyped_agent_names_the_right_one(cli: Cli, connection: Database, typed: list[str]) -> None:
    cli("agent", "add", "mario.bassi", "--allow")
    cli("pause", "-a", "mario.bassi")
    assert _says(cli(*typed)) == (
        ExitCode.NOT_FOUND,
        "",
        "error: there is no agent 'mario.basi'\nhint: did you mean mario.bassi? archisync agent list\n",
    )
    assert len(_pauses(connection)) == 1


def test_the_pause_of_an_agent_that_is_gone_can_be_lifted(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--allow")
    cli("pause", "-a", "anna")
    connection.execute("delete from agents.users where id = 'anna'")
    assert _says(cli("resume", "-a", "anna")) == (0, "the agent anna: resumed\n", "")
    assert _pauses(connection) == []


@pytest.mark.parametrize(
    ("kind", "agent", "told"),
    [
        ("products", "anna", "products is shared by all agents"),
        ("orders", "service-account", "orders is not a type of service-account"),
    ],
)
def test_a_pair_that_can_t_be_is_not_paused(cli: Cli, connection: Database, kind: str, agent: str, told: str) -> None:
    cli("agent", "add", "anna", "--allow")
    for verb in ("pause", "resume"):
        assert _says(cli(verb, "-t", kind, "-a", agent)) == (
            ExitCode.USAGE,
            "",
            f"error: {told}\nhint: leave out --agent, for all of {kind}\n",
        )
    assert _pauses(connection) == []


def test_a_pause_that_ended_by_itself_is_not_paused(cli: Cli) -> None:
    cli("pause", "--until", "30m", env=AT_NOON)
    later = {"PGOPTIONS": "-c archisync.now=2026-03-01T12:30:00Z"}
    assert _says(cli("resume", env=later)) == (0, "everything: was not paused\n", "")
