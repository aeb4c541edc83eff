"""What is true of every command: a closed pipe, a full disk, NO_COLOR, --quiet, Ctrl-C, an argument that is not UTF-8.

`CALLS` has a call of each command that ends by itself. Add every new command to it. Each is run once from nothing, the other times warm.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from archisync.base.errors import ExitCode
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents
from archisync.store.database import connected
from tests.cli.conftest import Typed
from tests.conftest import COMMAND_TIMEOUT_S, REPOSITORY, clean_environment, migrated_copy
from tests.examples.test_readme import COMMANDS
from tests.support.said import as_text
from tests.support.samples import SAMPLES
from tests.support.terminal import run_on_terminal
from tests.support.warm import WarmCommand

AGENT = "anna.bianchi"
HELD = "1"
RETURNS = f"{REPOSITORY}/examples/types/returns.toml"
CALLS: dict[str, str] = {
    "tick": "tick",
    "run": f"run customers --agent {AGENT} --inline",
    "status": "status",
    "plan": "plan",
    "history": "history",
    "show": f"show {HELD}",
    "why": f"why orders {AGENT}",
    "enable": "enable orders",
    "disable": "disable orders",
    "pause": f"pause --agent {AGENT} --reason test",
    "resume": f"resume --agent {AGENT}",
    "doctor": "doctor",
    "metrics": "metrics",
    "report": "report --html -",
    "worker": "worker --burst",
    "worker list": "worker list",
    "prune": "prune --older-than 30d",
    "diff": f"diff customers --agent {AGENT}",
    "cancel": "cancel --all",
    "retry": "retry --failed",
    "rest list": "rest list",
    "rest end": "rest end --all",
    "audit list": "audit list",
    "clear": f"clear orders --agent {AGENT} --yes",
    "config list": "config list",
    "interval list": "interval list",
    "interval set": "interval set orders 20",
    "interval reset": "interval reset orders",
    "agent list": "agent list",
    "agent show": f"agent show {AGENT}",
    "agent add": "agent add luca.ferrari",
    "agent allow": f"agent allow {AGENT}",
    "agent deny": f"agent deny {AGENT}",
    "agent remove": f"agent remove {AGENT} --yes",
    "agent pause": f"agent pause {AGENT}",
    "agent resume": f"agent resume {AGENT}",
    "held list": "held list",
    "held show": f"held show {HELD}",
    "held accept": f"held accept {HELD} --why test",
    "held reject": f"held reject {HELD} --why test",
    "guard list": "guard list",
    "guard set": "guard set orders drop 60",
    "guard reset": "guard reset orders",
    "guard test": f"guard test customers --agent {AGENT} --export {SAMPLES / AGENT / 'customers.csv'}",
    "type list": "type list",
    "type show": "type show orders",
    "type draft": f"type draft returns --from {SAMPLES}/{AGENT}/orders.csv",
    "type check": f"type check {RETURNS}",
    "type diff": f"type diff {RETURNS}",
    "type apply": f"type apply {RETURNS}",
    "type remove": "type remove returns --yes",
    "db migrate": "db migrate",
    "db status": "db status",
    "db grants": "db grants",
    "redis acl": "redis acl",
}
RUN_UNTIL_STOPPED = {"demo", "up", "web"}
"""They start their own servers, and have tests of their own at the end."""
WITHOUT_SERVER = {"config list", "db grants", "redis acl", "type show", "type draft"}
LEFT_WITH_1 = {"doctor"}
"""No tick and no worker has ever run in this installation."""
COLOUR = re.compile(r"\x1b\[[0-9;]*?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
EVERY = pytest.mark.parametrize("name", CALLS)


def test_every_command_has_a_call_here() -> None:
    assert {words.removeprefix("archisync ") for words, _ in COMMANDS} == set(CALLS) | RUN_UNTIL_STOPPED


@pytest.fixture(scope="module")
def prepared(
    admin: psycopg.Connection, session_postgres: EmbeddedPostgres, template: str, warm_command: WarmCommand
) -> Iterator[str]:
    """The name of a database to copy: one agent, whose export of orders is held as run 1."""
    with migrated_copy(admin, session_postgres, template, "prepared") as url:
        with connected(url, purpose="test") as db:
            agents.add(db, AGENT, name=None, whitelisted=True)
            db.execute("update system.sync_state set known_rows = 100000 where sync_type = 'orders'")
        done = warm_command.run(
            ["run", "orders", "--agent", AGENT, "--inline"],
            env=environment(url, "redis://127.0.0.1:9/0"),
            timeout_s=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == ExitCode.HELD
        applied = warm_command.run(
            ["type", "apply", RETURNS], env=environment(url, "redis://127.0.0.1:9/0"), timeout_s=COMMAND_TIMEOUT_S
        )
        assert applied.returncode == ExitCode.DONE
        yield "prepared"


@pytest.fixture
def env(
    admin: psycopg.Connection,
    session_postgres: EmbeddedPostgres,
    prepared: str,
    database_names: Iterator[str],
    redis_url: str,
) -> Iterator[dict[str, str]]:
    with migrated_copy(admin, session_postgres, prepared, next(database_names)) as url:
        yield environment(url, redis_url)


def environment(database_url: str, redis_url: str) -> dict[str, str]:
    own = {
        "ARCHISYNC_DATABASE_URL": database_url,
        "ARCHISYNC_REDIS_URL": redis_url,
        "ARCHISYNC_SOURCE": f"{SAMPLES}/{{agent}}/{{type}}.csv",
    }
    mine = {name: value for name, value in clean_environment().items() if name != "TERM"}
    return mine | own


def usual_code(name: str) -> int:
    return 1 if name in LEFT_WITH_1 else 0


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(warm_command: WarmCommand, env: dict[str, str]) -> Run:
    """Runs a command: `run("tick", "-q")` is its exit code, standard output and standard error. Options as of `WarmCommand.run`."""

    def run(words: str, *more: str, env: Mapping[str, str] = env, **streams: Any) -> tuple[int, str, str]:
        done = warm_command.run([*words.split(), *more], env=env, timeout_s=COMMAND_TIMEOUT_S, **streams)
        return done.returncode, done.stdout, done.stderr

    return run


# --- output that nobody reads -------------------------------------------------------------------------------------


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe whose reader has gone, as with `| head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "archisync", *words]


@EVERY
def test_a_reader_that_has_gone_does_not_change_the_outcome(name: str, env: dict[str, str], unread: int) -> None:
    """A command that starts from nothing: Python, and only what the command imports."""
    done = subprocess.run(
        command(*CALLS[name].split()), env=env, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=unread, stderr=subprocess.PIPE,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == usual_code(name), done.stderr
    for word in ("Traceback", "BrokenPipe", "Broken pipe", "Exception ignored", "a bug"):
        assert word not in done.stderr


@pytest.mark.parametrize(
    "words", ["tick", "status --json", "worker --burst", f"run customers --agent {AGENT} --inline"]
)
def test_a_reader_of_both_streams_that_has_gone_does_not_change_the_outcome(words: str, run: Run, unread: int) -> None:
    """As with `2>&1 | true`."""
    assert run(words, stdout=unread, stderr=unread)[0] == 0


def test_a_held_export_exits_6_though_nobody_reads(run: Run, unread: int) -> None:
    assert run(f"run orders --agent {AGENT} --inline", stdout=unread, stderr=unread)[0] == ExitCode.HELD


@pytest.mark.parametrize("words", ["--help", "held --help", "tick --help", "--version"])
def test_help_that_nobody_reads_is_no_error(words: str, run: Run, unread: int) -> None:
    assert run(words, stdout=unread) == (0, "", "")


# --- a full disk --------------------------------------------------------------------------------------------------

UNWRITTEN = (
    "error: standard output can't be written: No space left on device\n"
    "hint: df -h   (the command itself has done its work)\n"
)
SHOWS_NOTHING = {"worker", "cancel", "retry", "rest list", "rest end", "type diff", "worker list"}
"""On standard output: here nothing is queued, and nothing has failed."""


@pytest.fixture
def full() -> Iterator[int]:
    """A file on a disk without room."""
    with Path("/dev/full").open("w") as file:
        yield file.fileno()


@EVERY
def test_a_full_disk_under_standard_output_is_reported_after_everything_is_done(name: str, run: Run, full: int) -> None:
    code, _, said = run(CALLS[name], stdout=full)
    said = as_text(said)
    for word in ("Traceback", "OSError", "Exception ignored", "a bug"):
        assert word not in said
    reported = said.endswith(UNWRITTEN)
    assert reported or name in SHOWS_NOTHING
    assert code == (usual_code(name) or (ExitCode.OUTPUT if reported else ExitCode.DONE))


@pytest.mark.parametrize("name", ["tick", "run", "worker", "status", "doctor"])
def test_a_full_disk_under_standard_error_does_not_change_the_outcome(name: str, run: Run, full: int) -> None:
    assert run(CALLS[name], stderr=full)[0] == usual_code(name)


@pytest.mark.parametrize("words", ["--help", "held --help", "tick --help", "--version"])
def test_help_on_a_full_disk_is_reported_like_any_data(words: str, run: Run, full: int) -> None:
    code, out, said = run(words, stdout=full)
    assert (code, out, as_text(said)) == (ExitCode.OUTPUT, "", UNWRITTEN)


@pytest.mark.parametrize("words", ["nope", "--debug run nope", "agent"])
def test_an_error_on_a_full_disk_keeps_its_exit_code(words: str, run: Run, full: int) -> None:
    assert run(words, stdout=full, stderr=full)[0] == ExitCode.USAGE


def test_a_held_export_exits_6_though_its_output_is_lost(run: Run, full: int) -> None:
    words = f"run orders --agent {AGENT} --inline"
    assert run(words, stdout=full, stderr=full)[0] == ExitCode.HELD
    assert run(words, stderr=full)[0] == ExitCode.HELD


def test_a_worker_does_its_runs_though_its_log_is_lost(run: Run, env: dict[str, str], full: int) -> None:
    with connected(env["ARCHISYNC_DATABASE_URL"], purpose="test") as db:
        db.execute("update system.sync_settings set enabled = sync_type in ('customers', 'ddt')")
        assert run("tick", stdout=full, stderr=full)[0] == ExitCode.OUTPUT
        assert run("worker --burst --single", stdout=full, stderr=full)[0] == ExitCode.DONE
        rows = db.execute("select state, attempt from system.sync_runs where sync_type <> 'orders'").fetchall()
    assert [(row["state"], row["attempt"]) for row in rows] == [("succeeded", 1), ("succeeded", 1)]


# --- --quiet, colours, locales ------------------------------------------------------------------------------------


@EVERY
def test_quiet_leaves_data_and_silences_talk(name: str, run: Run) -> None:
    code, _, said = run(CALLS[name], "-q")
    assert code == usual_code(name)
    for line in said.splitlines():  # what a worker and a run log are events, not talk
        assert re.match(r"\d\d:\d\d:\d\d run-", line) if name == "run" else json.loads(line)["event"]
    assert bool(said) == (name in {"run", "worker"})


@pytest.fixture
def on_a_terminal(warm_command: WarmCommand, env: dict[str, str]) -> Callable[..., str]:
    """Types a command on a terminal of 100 columns: what it writes."""

    def run(words: str, **more: str) -> str:
        whole = {"TERM": "xterm-256color"} | env | more
        return run_on_terminal(warm_command, words.split(), env=whole, columns=100, timeout_s=COMMAND_TIMEOUT_S)[1]

    return run


@EVERY
def test_no_color_is_obeyed_on_a_terminal(name: str, on_a_terminal: Callable[..., str]) -> None:
    written = on_a_terminal(CALLS[name], NO_COLOR="1")
    assert written
    assert not COLOUR.search(written)
    assert "Traceback" not in written


def test_without_no_color_a_terminal_gets_colours(on_a_terminal: Callable[..., str]) -> None:
    assert COLOUR.search(on_a_terminal("status"))
    assert not COLOUR.search(on_a_terminal("status", TERM="dumb"))
    assert COLOUR.search(on_a_terminal("status", NO_COLOR=""))  # no-color.org: empty counts as unset


OLD_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""As with an ISO-8859-1 or C locale of old: standard output takes ASCII only."""


def test_a_name_that_the_locale_can_t_spell_ends_no_command(run: Run, env: dict[str, str]) -> None:
    with connected(env["ARCHISYNC_DATABASE_URL"], purpose="test") as db:
        agents.add(db, "a.rossi", name="Niccolò", whitelisted=True)
    old = env | OLD_LOCALE
    assert "Niccol?" in run("agent list", env=old)[1]
    assert json.loads(run("agent list --json", env=old)[1])["agents"][0]["name"] == "Niccolò"


def test_a_chart_is_drawn_in_ascii_if_the_locale_has_nothing_else(on_a_terminal: Callable[..., str]) -> None:
    shown = on_a_terminal("plan --for 3d --workers 2", **OLD_LOCALE, NO_COLOR="1")
    assert "####" in shown
    assert "a bug" not in shown


# --- arguments ----------------------------------------------------------------------------------------------------


@EVERY
def test_an_argument_that_is_not_utf_8_is_wrong_usage(name: str, typed: Typed) -> None:
    number = len(CALLS[name].split()) + 1
    code, data, said = typed(*CALLS[name].split(), os.fsdecode(b"Citt\xe0"))
    assert (code, data, as_text(said)) == (
        ExitCode.USAGE,
        "",
        f"error: argument {number} is not valid UTF-8\nhint: type it in UTF-8\n",
    )


def test_a_folder_that_can_t_be_made_is_no_bug(run: Run) -> None:
    code, out, err = run("up --folder /proc/nowhere")
    assert (code, out, as_text(err)) == (
        ExitCode.USAGE,
        "",
        "error: the folder /proc/nowhere can't be made: No such file or directory\nhint: archisync up --folder ~/archisync\n",
    )


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CALLS if name not in WITHOUT_SERVER])
def test_ctrl_c_ends_a_command_without_a_traceback(name: str, warm_command: WarmCommand) -> None:
    """While PostgreSQL has accepted the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as until_the_end:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        silent.settimeout(COMMAND_TIMEOUT_S)

        def interrupt(pid: int) -> None:
            connection = until_the_end.enter_context(silent.accept()[0])
            connection.recv(1)  # the command has sent something, and waits for the answer
            os.kill(pid, signal.SIGINT)

        env = environment(f"postgresql://x@{where}/x", f"redis://{where}/0")
        done = warm_command.run(CALLS[name].split(), env=env, timeout_s=COMMAND_TIMEOUT_S, started=interrupt)
    assert done.returncode == (ExitCode.DONE if name == "worker" else ExitCode.INTERRUPTED), done.stderr
    for word in ("Traceback", "KeyboardInterrupt", "a bug", "error:"):
        assert word not in done.stderr


@pytest.mark.parametrize(
    ("words", "running", "code"),
    [
        ("demo", "$ archisync tick\n", ExitCode.INTERRUPTED),
        ("up --folder FOLDER/data", "running in ", ExitCode.DONE),  # "until Ctrl-C" is how it is meant to end
    ],
)
def test_ctrl_c_ends_demo_and_up_and_their_servers(words: str, running: str, code: ExitCode) -> None:
    with temporary_folder() as folder:
        folder.chmod(0o1777)  # PostgreSQL's account makes its socket inside
        env = environment("", "") | {"TMPDIR": str(folder)}
        with subprocess.Popen(
            command(*words.replace("FOLDER", str(folder)).split()), env=env, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            said = ""
            while running not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            children = servers_in(folder)
            assert children
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that run in it
            said += process.stdout.read()
        assert process.returncode == code, said
        for word in ("Traceback", "KeyboardInterrupt", "a bug"):
            assert word not in said
        assert servers_in(folder) == set()
        assert {path.name for path in folder.iterdir()} <= {"data"}


def servers_in(folder: Path) -> set[int]:
    """The servers whose command line names the folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.fsencode(folder) in (process / "cmdline").read_bytes():
                found.add(int(process.name))
    return found
