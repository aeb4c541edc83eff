"""`pause` and `resume`: each says what it did, and a refused one changes nothing."""

import subprocess

import pytest

from archisync.base.errors import ExitCode
from archisync.store import settings
from archisync.store.database import Database
from tests.cli.rows import AT_NOON
from tests.conftest import Cli

TYPES = "orders, customers, products, prices, ddt, invoices"


def pauses(db: Database) -> list[tuple[object, ...]]:
    rows = db.execute("select sync_type, agent_id, until, reason from system.pauses order by id").fetchall()
    return [tuple(row.values()) for row in rows]


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def test_several_are_paused_and_resumed_at_once_or_none(cli: Cli, noon: Database) -> None:
    noon.execute("insert into agents.users (id) values ('marco')")
    several = ["--type", "orders", "--type", "ddt", "--agent", "anna", "--agent", "marco"]
    pairs = ["orders of anna", "orders of marco", "ddt of anna", "ddt of marco"]
    would = "".join(f"{pair}: would be paused until somebody resumes\n" for pair in pairs)
    assert said(cli("pause", *several, "--dry-run")) == (0, would, "nothing was done (dry run)\n")
    assert said(cli("pause", "--dry-run"))[:2] == (0, "everything: would be paused until somebody resumes\n")
    assert cli("pause", *several, "--agent", "nobody").returncode == ExitCode.NOT_FOUND
    assert pauses(noon) == []
    assert cli("pause", *several).returncode == 0
    assert len(pauses(noon)) == 4
    assert said(cli("resume", *several, "--dry-run"))[1] == "".join(f"{pair}: would be resumed\n" for pair in pairs)
    assert len(pauses(noon)) == 4
    assert said(cli("resume", *several)) == (0, "".join(f"{pair}: resumed\n" for pair in pairs), "")
    assert pauses(noon) == []


def test_several_agents_are_paused_allowed_and_denied_and_a_dry_run_says_so_only(cli: Cli, noon: Database) -> None:
    noon.execute("insert into agents.users (id) values ('marco')")
    assert cli("agent", "pause", "anna", "marco").stdout.count("paused until somebody resumes") == 2
    assert cli("agent", "resume", "anna", "marco", "--dry-run").stdout.count("would be resumed") == 2
    assert cli("agent", "resume", "anna", "marco").stdout == "the agent anna: resumed\nthe agent marco: resumed\n"
    done = cli("agent", "allow", "anna", "marco", "--dry-run")
    assert done.stdout == "anna: would be on the whitelist\nmarco: would be on the whitelist\n"
    assert cli("agent", "deny", "anna", "nobody", "--dry-run").returncode == ExitCode.NOT_FOUND
    rows = noon.execute("select whitelisted from agents.users order by id").fetchall()
    assert [row["whitelisted"] for row in rows] == [True, False]


def test_pause_without_a_scope_pauses_everything(cli: Cli, connection: Database) -> None:
    assert said(cli("pause", "--all", "--reason", "ERP maintenance")) == (
        0,
        "everything: paused until somebody resumes\n",
        "",
    )
    assert pauses(connection) == [(None, None, None, "ERP maintenance")]


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
def test_until_is_a_span_from_postgresql_s_clock_or_a_time_in_utc(
    cli: Cli, connection: Database, until: str, iso: str
) -> None:
    assert said(cli("pause", "--all", "--until", until, env=AT_NOON)) == (0, f"everything: paused until {iso}\n", "")
    row = connection.execute("select until = %s::timestamptz as same from system.pauses", [iso]).fetchone()
    assert row == {"same": True}


@pytest.mark.parametrize("until", ["2026-03-01T12:00:00Z", "2026-03-01T12:30:00+01:00", "0s"])
def test_a_pause_until_a_past_time_is_refused(cli: Cli, connection: Database, until: str) -> None:
    done = cli("pause", "--all", "--until", until, env=AT_NOON)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.endswith(" is in the past\nhint: it is 2026-03-01T12:00:00Z now\n")
    assert pauses(connection) == []


@pytest.mark.parametrize(
    "until", ["tomorrow", "", "-2h", "2w", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]
)
def test_a_wrong_time_is_refused_with_what_is_allowed(cli: Cli, connection: Database, until: str) -> None:
    assert said(cli("pause", "--all", f"--until={until}")) == (
        ExitCode.USAGE,
        "",
        f"error: '{until}' is not a time\n"
        "hint: allowed: a span like 30m, 2h, 1d, or a time like 2026-01-31T08:00:00Z\n",
    )
    assert pauses(connection) == []


def test_a_pause_of_an_unknown_agent_or_type_is_refused(cli: Cli, connection: Database) -> None:
    assert said(cli("pause", "--agent", "nobody")) == (
        ExitCode.NOT_FOUND,
        "",
        "error: there is no agent 'nobody'\nhint: archisync agent list\n",
    )
    assert said(cli("pause", "--type", "order")) == (
        ExitCode.USAGE,
        "",
        f"error: there is no sync type 'order'\nhint: did you mean orders? allowed: {TYPES}\n",
    )
    assert pauses(connection) == []


@pytest.mark.parametrize(("option", "code"), [("--agent", ExitCode.NOT_FOUND), ("--type", ExitCode.USAGE)])
def test_an_empty_scope_is_refused_and_does_not_mean_everything(
    cli: Cli, connection: Database, option: str, code: ExitCode
) -> None:
    assert cli("pause", option, "").returncode == code
    assert pauses(connection) == []


def test_a_shared_type_can_be_paused_by_its_agent_id(cli: Cli, connection: Database) -> None:
    assert said(cli("pause", "--type", "products", "--agent", "service-account")) == (
        0,
        "products of service-account: paused until somebody resumes\n",
        "",
    )
    assert pauses(connection) == [("products", "service-account", None, None)]


def test_a_second_pause_of_a_scope_replaces_the_first(cli: Cli, connection: Database) -> None:
    cli("pause", "--type", "orders", "--reason", "one")
    cli("pause", "--type", "orders", "--reason", "two")
    assert pauses(connection) == [("orders", None, None, "two")]


def test_resume_ends_exactly_one_pause_and_names_those_that_still_apply(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--allow")
    cli("pause", "--all")
    cli("pause", "--type", "orders")
    cli("pause", "--agent", "anna")
    assert said(cli("resume")) == (
        0,
        "everything: resumed\n",
        "note: the agent anna is still paused\nnote: the type orders is still paused\n",
    )
    assert pauses(connection) == [("orders", None, None, None), (None, "anna", None, None)]


def test_resume_without_a_pause_says_so_and_names_those_that_apply(cli: Cli, connection: Database) -> None:
    assert said(cli("resume")) == (0, "everything: was not paused\n", "")
    cli("agent", "add", "anna", "luca", "--allow")
    cli("pause", "--type", "orders")
    cli("pause", "--type", "products")
    cli("pause", "--agent", "luca")
    cli("pause", "--agent", "anna", "--type", "ddt")
    assert said(cli("resume", "--type", "ddt")) == (
        0,
        "the type ddt: was not paused\n",
        "note: the agent luca is still paused\nnote: ddt of anna is still paused\n",
    )
    assert said(cli("agent", "resume", "anna")) == (
        0,
        "the agent anna: was not paused\n",
        "note: ddt of anna is still paused\nnote: the type orders is still paused\n",
    )
    assert len(pauses(connection)) == 4


def test_resume_names_ten_pauses_at_most(cli: Cli, connection: Database) -> None:
    for number in range(12):
        settings.pause(connection, sync_type=None, agent_id=f"agent.{number:02}", until=None, reason=None, by="test")
    message = cli("resume").stderr.splitlines()
    assert message[-2:] == ["note: the agent agent.09 is still paused", "note: and 2 more (archisync status)"]
    assert len(message) == 11


@pytest.mark.parametrize(
    "typed",
    [["resume", "-a", "mario.basi"], ["resume", "-t", "ddt", "-a", "mario.basi"], ["agent", "resume", "mario.basi"]],
)
def test_resume_of_a_mistyped_agent_names_the_right_one(cli: Cli, connection: Database, typed: list[str]) -> None:
    cli("agent", "add", "mario.bassi", "--allow")
    cli("pause", "-a", "mario.bassi")
    assert said(cli(*typed)) == (
        ExitCode.NOT_FOUND,
        "",
        "error: there is no agent 'mario.basi'\nhint: did you mean mario.bassi? archisync agent list\n",
    )
    assert len(pauses(connection)) == 1


def test_the_pause_of_an_agent_that_is_gone_can_be_ended(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--allow")
    cli("pause", "-a", "anna")
    connection.execute("delete from agents.users where id = 'anna'")
    assert said(cli("resume", "-a", "anna")) == (0, "the agent anna: resumed\n", "")
    assert pauses(connection) == []


@pytest.mark.parametrize(
    ("type_name", "agent", "message"),
    [
        ("products", "anna", "products is shared by all agents"),
        ("orders", "service-account", "orders is not a type of service-account"),
    ],
)
def test_an_impossible_pair_is_not_paused(
    cli: Cli, connection: Database, type_name: str, agent: str, message: str
) -> None:
    cli("agent", "add", "anna", "--allow")
    for verb in ("pause", "resume"):
        assert said(cli(verb, "-t", type_name, "-a", agent)) == (
            ExitCode.USAGE,
            "",
            f"error: {message}\nhint: leave out the agent, for all of {type_name}\n",
        )
    assert pauses(connection) == []


def test_a_pause_whose_time_is_over_is_no_pause(cli: Cli) -> None:
    cli("pause", "--all", "--until", "30m", env=AT_NOON)
    later = {"PGOPTIONS": "-c archisync.now=2026-03-01T12:30:00Z"}
    assert said(cli("resume", env=later)) == (0, "everything: was not paused\n", "")


def test_a_tick_forgets_pauses_that_are_over_and_no_others(cli: Cli, connection: Database) -> None:
    connection.execute(
        "insert into system.pauses (sync_type, until) values ('orders', now() - interval '1 s'), ('ddt', now() + interval '1 h'),"
        " ('products', null)"
    )
    assert cli("tick").returncode == 0
    assert [scope for scope, *_ in pauses(connection)] == ["ddt", "products"]
