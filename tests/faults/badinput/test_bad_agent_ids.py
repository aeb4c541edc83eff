"""A bad agent id is refused wherever it is typed, and shown harmlessly where somebody has written it into the registry."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable

import psycopg
import pytest

from archisync.cli.output import Output
from archisync.store import agents, history, runs
from archisync.store.database import Database
from tests.conftest import Cli
from tests.faults.badinput.agent_ids import AGENT_IDS, BadId
from tests.faults.badinput.site import Said, assert_harmless
from tests.support.said import refusal
from tests.support.samples import SAMPLES

COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "add": lambda value: ["agent", "add", "--allow", "--", value],
    "run": lambda value: ["run", "orders", "--inline", f"--agent={value}"],
    "why": lambda value: ["why", "orders", "--", value],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", AGENT_IDS, ids=lambda case: case.id)
def test_a_bad_agent_id_is_refused_wherever_it_is_typed(
    case: BadId, command: str, db: Database, typed: Callable[..., Said]
) -> None:
    before = db.execute("select count(*) as n, (select count(*) from system.runs) as r from agents.users").fetchone()
    arguments = COMMANDS[command](case.value)
    said = typed(*arguments)
    expected = case.said_by_why if command == "why" and case.said_by_why else case.said
    expected = expected.replace("argument {}", f"argument {len(arguments)}")
    assert said.stderr.splitlines()[0] == f"error: {expected}"
    assert said.stderr.splitlines()[1].startswith("hint: ")
    assert (said.code, said.stdout) == (2, "")
    assert len(said.stderr) < 1000
    assert_harmless(said.stderr)
    after = db.execute("select count(*) as n, (select count(*) from system.runs) as r from agents.users").fetchone()
    assert after == before


REAL: dict[str, tuple[list[str | bytes], str]] = {
    "bytes that are not UTF-8": (["agent", "add", b"anna\xff\xfe"], "argument 3 is not valid UTF-8"),
    "bytes in an option": ([b"--\xff"], "argument 1 is not valid UTF-8"),
    "a reason that is not UTF-8": (["run", "orders", "--reason", b"\xff"], "argument 4 is not valid UTF-8"),
    "-rf": (["agent", "add", "-rf"], "No such option: -r"),
    "an option with an escape": (["run", "--\x1b[31m"], "No such option: --\\x1b[31m"),
    "a word too many with an escape": (["tick", "\x1b]0;x\x07"], "Got unexpected extra argument(s) (\\x1b]0;x\\x07)"),
    "a command with a right-to-left override": (["x\u202ey"], "No such command 'x\\u202ey'."),
    "a type with an escape": (["run", "\x1b[31m"], "there is no sync type '\\x1b[31m'"),
    "an id of 100,000 letters": (["agent", "add", "a" * 100_000], f"'{'a' * 40}'… is not an agent id"),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_command_refuses_hostile_arguments_with_one_line(name: str, shared_url: str) -> None:
    arguments, message = REAL[name]
    command = [sys.executable, "-m", "archisync", *arguments]
    env = {"ARCHISYNC_DATABASE_URL": shared_url, "ARCHISYNC_REDIS_URL": "redis://nowhere", "PATH": os.environ["PATH"]}
    said = subprocess.run(command, env=env, capture_output=True, check=False)
    assert (said.returncode, said.stdout) == (2, b"")
    assert refusal(said.stderr.decode()).message == message
    assert_harmless(said.stderr.decode())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


GOOD_AGENTS = ("anna.bianchi", "luca.ferrari")


def test_bad_ids_in_the_registry_fail_alone_and_are_shown_harmlessly(
    cli: Cli, connection: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody inserts every bad id that PostgreSQL takes, whitelisted, with SQL."""
    env = {"ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv"}
    connection.execute("update system.sync_settings set enabled = sync_type = 'orders'")
    bad = {case.value: case.said for case in AGENT_IDS if case.in_sql}
    for agent in (*bad, *GOOD_AGENTS):
        connection.execute("insert into agents.users (id, whitelisted) values (%s, true)", (agent,))
    ticked = cli("tick", "--json", env=env)
    assert (ticked.returncode, json.loads(ticked.stdout)["tick"]["enqueued"]) == (0, len(bad) + len(GOOD_AGENTS))
    worked = cli("worker", "--single", "--burst", env=env)
    assert worked.returncode == 0

    found = history.newest(connection, sync_type="orders", limit=1000)
    assert {run.agent_id: run.state for run in found if run.agent_id in GOOD_AGENTS} == dict.fromkeys(
        GOOD_AGENTS, runs.State.SUCCEEDED
    )
    ended = {run.agent_id: (run.state, run.reason, run.message) for run in found if run.agent_id not in GOOD_AGENTS}
    assert ended == {value: (runs.State.FAILED, "invalid-agent-id", said) for value, said in bad.items()}
    assert_harmless(worked.stdout, worked.stderr, *(run.message or "" for run in found))

    for command in ("status", "history --limit 1000", "agent list", "tick --dry-run", "tick"):
        for arguments in (command.split(), [*command.split(), "--json"]):
            said = cli(*arguments, env=env)
            assert said.returncode == 0, said.stderr
            assert_harmless(said.stdout, said.stderr)
    listed = json.loads(cli("agent", "list", "--json").stdout)["agents"]
    assert {agent["agent_id"] for agent in listed} == {*bad, *GOOD_AGENTS}  # escaped, not lost
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    Output(stdout=screen).table(["agent"], [["[red]anna[/red]"], ["anna\u202eihcnaib"]])
    assert "[red]anna[/red]" in screen.getvalue()
    assert "\u202e" not in screen.getvalue()


@pytest.mark.parametrize("value", ["\x1b[31manna", "anna\u202eihcnaib", "-rf", "", "[red]anna[/red]", "anna\nforged"])
def test_an_operator_can_look_at_a_bad_id_and_take_it_off_the_whitelist(
    value: str, db: Database, typed: Callable[..., Said]
) -> None:
    db.execute("insert into agents.users (id, whitelisted) values (%s, true)", (value,))
    for command in (["why", "orders"], ["agent", "show"], ["agent", "pause"], ["agent", "resume"], ["agent", "deny"]):
        if command[0] == "why" and not value:
            continue  # the one id that `why` can't be asked about
        said = typed(*command, "--", value)
        assert said.code == 0, said.stderr
        assert_harmless(said.stdout, said.stderr)
    assert not agents.agent(db, value).whitelisted
    db.execute("delete from agents.users where id = %s", (value,))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("select 'anna' || chr(0)", "null character not permitted"),
        ("select convert_from(decode('616e6e61ff', 'hex'), 'utf8')", "invalid byte sequence"),
        ("select string_agg(md5(g::text), '') from generate_series(1, 312500) g", "index row requires 10000016 bytes"),
    ],
)
def test_postgresql_itself_refuses_what_no_id_column_can_hold(db: Database, statement: str, words: str) -> None:
    count = "select count(*) as n from system.sync_state"
    before = db.execute(count).fetchone()
    with pytest.raises(psycopg.Error, match=re.escape(words)):
        db.execute(f"insert into agents.users (id, whitelisted) select ({statement}), true")
    assert db.execute(count).fetchone() == before
