"""What a person types and reads: settings, agents, pauses, errors, start-up cost."""

import json
import re
import subprocess
import sys

import pytest

from archisync.base.errors import EXIT_CODE_MEANING, ExitCode
from archisync.rules.config import Config
from archisync.store import agents, settings
from archisync.store.database import Database
from tests.conftest import Cli

NEVER_ON_AN_IDLE_TICK = ("archisync.schedule.steps", "redis", "rq", "rich.table", "rich.console", "httpx", "pypdfium2")


def intervals(db: Database) -> dict[str, int]:
    return {s.sync_type: s.interval_minutes for s in settings.all_settings(db)}


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (("orders", "3"), "the interval 3 is out of range", "allowed: a whole number of minutes from 5 to 1440"),
        (
            ("orders", "ten"),
            "the interval 'ten' is not a whole number",
            "allowed: a whole number of minutes from 5 to 1440",
        ),
        (
            ("order", "10"),
            "there is no sync type 'order'",
            "did you mean orders? allowed: orders, customers, products, prices, ddt, invoices",
        ),
    ],
)
def test_a_wrong_interval_is_told_and_changes_nothing(
    cli: Cli, connection: Database, words: tuple[str, str], error: str, hint: str
) -> None:
    before = intervals(connection)
    said = cli("interval", "set", *words)
    assert (said.returncode, said.stdout, said.stderr) == (2, "", f"error: {error}\nhint: {hint}\n")
    assert intervals(connection) == before


def test_an_interval_changes_alone_and_resets(cli: Cli, connection: Database) -> None:
    before = intervals(connection)
    assert cli("interval", "set", "orders", "30").stdout == "orders: every 30 min\n"
    assert intervals(connection) == before | {"orders": 30}
    cli("interval", "reset", "orders")
    assert intervals(connection) == before


def test_agents_are_added_allowed_and_denied(cli: Cli, connection: Database) -> None:
    cli("agent", "add", "anna", "--name", "Anna")
    assert not agents.agent(connection, "anna").whitelisted
    cli("agent", "allow", "anna")
    assert agents.agent(connection, "anna").whitelisted
    cli("agent", "deny", "anna")
    listed = json.loads(cli("agent", "list", "--json").stdout)
    assert (listed["schema"], listed["agents"][0]["whitelisted"]) == (1, False)
    assert cli("agent", "allow", "nobody").returncode == 5


def test_a_hostile_agent_id_is_refused_without_echoing_it(cli: Cli) -> None:
    said = cli("agent", "add", "\x1b[31m../../etc/passwd")
    assert said.returncode == 2
    assert "\x1b" not in said.stderr


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ([("disable", "orders")], "the type orders is disabled"),
        (
            [("pause", "--agent", "anna", "--reason", "holiday")],
            "the agent anna is paused until somebody resumes (holiday)",
        ),
        ([("pause",)], "everything is paused until somebody resumes"),
        ([("agent", "deny", "anna")], "the agent anna is not on the whitelist"),
        ([], "it is due: it has never been scheduled"),
        ([("tick",)], "run 2 is queued since"),
    ],
)
def test_why_answers(cli: Cli, connection: Database, prepare: list[tuple[str, ...]], words: str) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    for command in prepare:
        assert cli(*command, env={"ARCHISYNC_SOURCE": "/x/{agent}/{type}.csv"}).returncode == 0
    assert words in cli("why", "orders", "anna").stdout


def test_why_of_an_unknown_agent_exits_5(cli: Cli) -> None:
    said = cli("why", "orders", "ghost")
    assert (said.returncode, "there is no agent ghost" in said.stdout) == (5, True)


def test_why_tells_that_nobody_calls_tick(cli: Cli, connection: Database) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    assert "note: no tick has ever run: is cron calling archisync tick?" in cli("why", "orders", "anna").stdout


def test_pause_and_resume_tell_what_still_stands(cli: Cli) -> None:
    cli("pause", "--type", "orders")
    cli("pause", "--until", "2h")
    said = cli("resume")
    assert said.stdout == "everything: resumed\n"
    assert said.stderr == "note: the type orders is still paused\n"


@pytest.mark.parametrize("name", ["ARCHISYNC_DATABASE_URL", "ARCHISYNC_REDIS_URL"])
def test_missing_configuration_exits_3_with_a_hint(cli: Cli, name: str) -> None:
    said = cli("tick", env={name: ""})
    assert said.returncode == 3
    assert said.stderr.startswith(f"error: {name} is not set\nhint: export {name}=")


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("user:pw@host:6379/0", "can't be read as a Redis URL", "it begins with redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix://"),  # noqa: E501
        ("redis://:p/w@host", "has a /, ? or # before its @", "in a password, write %2F for /, %3F for ?, %23 for # and %40 for @"),
    ],
)  # fmt: skip
def test_a_wrong_redis_url_is_told_without_showing_it(cli: Cli, url: str, message: str, hint: str) -> None:
    said = cli("tick", env={"ARCHISYNC_REDIS_URL": url})
    assert (said.returncode, said.stderr) == (3, f"error: ARCHISYNC_REDIS_URL {message}\nhint: {hint}\n")


@pytest.mark.parametrize(
    "url",
    ["redis://user:p@ss@{}/0", "redis://{}/0?password=a@b", "redis://{}/0?username=u&password=a/@b", "redis://{}/0#x"],
)
def test_an_at_sign_where_a_redis_url_may_have_one_is_no_fault(url: str) -> None:
    wanted = url.format("127.0.0.1:1")
    assert Config.from_environment({"ARCHISYNC_REDIS_URL": wanted}).redis_url == wanted


def test_a_missing_schema_exits_3_and_names_the_command(cli: Cli, empty_database_url: str) -> None:
    said = cli("status", env={"ARCHISYNC_DATABASE_URL": empty_database_url})
    assert (said.returncode, said.stderr) == (
        3,
        "error: the database schema is missing or not current\nhint: archisync db migrate\n",
    )


@pytest.mark.parametrize("command", ["status", "history", "held list", "agent list", "interval list", "tick --dry-run"])
def test_every_showing_command_prints_json_with_a_schema_number(cli: Cli, command: str) -> None:
    assert json.loads(cli(*command.split(), "--json").stdout)["schema"] == 1


def test_help_and_an_idle_tick_import_nothing_heavy(cli: Cli, database_url: str, redis_url: str) -> None:
    code = (
        "import sys\nfrom archisync.__main__ import main\nmain()\n"
        "print(','.join(m for m in sys.modules), file=sys.stderr)"
    )
    env = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url, "PATH": "/usr/bin:/bin"}
    cli("disable", "products")
    cli("disable", "prices")
    for args, by_typer in ((["--help"], True), (["--version"], False), (["tick"], False), (["tick", "--json"], False)):
        done = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, check=True)
        loaded = set(done.stderr.splitlines()[-1].split(","))
        assert ("typer" in loaded, "psycopg" in loaded) == (by_typer, args[0] == "tick")
        assert not loaded & set(NEVER_ON_AN_IDLE_TICK)


@pytest.mark.parametrize("words", [["tick"], ["tick", "--json"]])
def test_a_tick_says_the_same_with_and_without_the_command_line_library(cli: Cli, words: list[str]) -> None:
    """`--debug` is taken off before; `--quiet` is typer's."""
    cli("tick")
    plainly, by_typer = cli(*words), cli("--quiet", *words)
    shown = [re.sub(r"[0-9]+(?= ms)|(?<=duration_ms\": )[0-9]+", "…", done.stdout) for done in (plainly, by_typer)]
    assert shown[0] == shown[1] != ""
    unset = {"ARCHISYNC_REDIS_URL": ""}
    refused = [cli(*start, *words, env=unset) for start in ([], ["--quiet"])]
    assert [(done.returncode, done.stderr) for done in refused] == [(3, refused[0].stderr)] * 2
    assert refused[0].stderr.startswith("error: ARCHISYNC_REDIS_URL is not set\n")


def test_every_exit_code_has_a_meaning() -> None:
    assert set(EXIT_CODE_MEANING) == set(ExitCode)


def test_a_decision_needs_a_reason(cli: Cli) -> None:
    for verb in ("accept", "reject"):
        said = cli("held", verb, "1", "--why", " ")
        assert (said.returncode, said.stderr.splitlines()[0]) == (2, "error: --why is empty")
