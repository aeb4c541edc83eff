"""What holds for every command alike: a closed pipe, a full disk, NO_COLOR, --quiet, Ctrl-C, and an argument that is not UTF-8.

`CALLS` has a call of each command that ends by itself; a command that is new must be added to it.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from archisync.base.errors import ExitCode
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents
from archisync.store.database import connected
from tests.conftest import REPOSITORY, _clean_environment, migrated_copy
from tests.examples.test_readme import COMMANDS
from tests.support.samples import SAMPLES

AGENT = "anna.bianchi"
HELD = "1"
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
    "prune": "prune --older-than 30d",
    "diff": f"diff customers --agent {AGENT}",
    "clear": f"clear orders --agent {AGENT} --yes",
    "interval list": "interval list",
    "interval set": "interval set orders 20",
    "interval reset": "interval reset orders",
    "agent list": "agent list",
    "agent show": f"agent show {AGENT}",
    "agent add": "agent add luca.ferrari",
    "agent allow": f"agent allow {AGENT}",
    "agent deny": f"agent deny {AGENT}",
    "agent pause": f"agent pause {AGENT}",
    "agent resume": f"agent resume {AGENT}",
    "held list": "held list",
    "held show": f"held show {HELD}",
    "held accept": f"held accept {HELD} --why test",
    "held reject": f"held reject {HELD} --why test",
    "guard list": "guard list",
    "guard set": "guard set orders drop 60",
    "guard reset": "guard reset orders",
    "db migrate": "db migrate",
    "db status": "db status",
    "db grants": "db grants",
    "redis acl": "redis acl",
}
RUN_UNTIL_STOPPED = {"demo", "up"}
"""They start servers of their own: tried at the end."""
WITHOUT_SERVER = {"db grants", "redis acl"}
LEFT_WITH_1 = {"doctor"}
"""No tick has ever run in this installation, and no worker."""
COLOUR = re.compile(r"\x1b\[[0-9;]*?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
EVERY = pytest.mark.parametrize("name", CALLS)


def test_every_command_has_a_call_here() -> None:
    assert {words.removeprefix("archisync ") for words, _ in COMMANDS} == set(CALLS) | RUN_UNTIL_STOPPED


@pytest.fixture(scope="module")
def prepared(admin: psycopg.Connection, session_postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The name of a database to copy: one agent, whose export of orders is held as run 1."""
    with migrated_copy(admin, session_postgres, template, "prepared") as url:
        with connected(url, purpose="test") as db:
            agents.add(db, AGENT, name=None, whitelisted=True)
            db.execute("update system.sync_state set known_rows = 100000 where sync_type = 'orders'")
        done = subprocess.run(
            command("run", "orders", "--agent", AGENT, "--inline"), env=environment(url, "redis://127.0.0.1:9/0"),
            cwd=REPOSITORY, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == ExitCode.HELD
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
    mine = {name: value for name, value in _clean_environment().items() if name != "TERM"}
    return mine | own


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "archisync", *words]


def usual_code(name: str) -> int:
    return 1 if name in LEFT_WITH_1 else 0


def run_unread(words: list[str], env: dict[str, str], *, both: bool) -> tuple[int, str]:
    """Exit code and what was said, when nobody reads standard output, or standard error either (`2>&1 | true`)."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command(*words), env=env, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=writer,
        stderr=writer if both else subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    return done.returncode, done.stderr or ""


@EVERY
def test_a_reader_that_has_gone_changes_nothing_about_the_outcome(name: str, env: dict[str, str]) -> None:
    """As with `| head -1`: whatever the command does it has done, and it says nothing of the pipe."""
    code, said = run_unread(CALLS[name].split(), env, both=False)
    assert code == usual_code(name), said
    for word in ("Traceback", "BrokenPipe", "Broken pipe", "Exception ignored", "a bug"):
        assert word not in said


@pytest.mark.parametrize(
    "words", ["tick", "status --json", "worker --burst", f"run customers --agent {AGENT} --inline"]
)
def test_a_reader_of_both_that_has_gone_changes_nothing_either(words: str, env: dict[str, str]) -> None:
    assert run_unread(words.split(), env, both=True)[0] == 0


def test_the_outcome_of_a_resync_is_told_though_nobody_reads(env: dict[str, str]) -> None:
    words = f"run orders --agent {AGENT} --inline".split()
    assert run_unread(words, env, both=True)[0] == ExitCode.HELD


@pytest.mark.parametrize("words", ["--help", "held --help", "tick --help", "--version"])
def test_help_that_nobody_reads_is_no_error(words: str, env: dict[str, str]) -> None:
    assert run_unread(words.split(), env, both=False) == (0, "")


FULL = "/dev/full"
UNWRITTEN = (
    "error: standard output can't be written: No space left on device\n"
    "hint: df -h   (the command itself has done its work)\n"
)
SHOWS_NOTHING = {"worker"}
"""On standard output."""


def run_on_full_disk(
    words: list[str], env: dict[str, str], *, out: str | None = None, err: str | None = None
) -> tuple[int, str]:
    """Exit code and what was said, with standard output or standard error on a disk without room."""
    with Path(out or os.devnull).open("w") as stdout, Path(err or os.devnull).open("w") as stderr:
        done = subprocess.run(
            command(*words), env=env, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=stderr if err else subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    return done.returncode, done.stderr or ""


@EVERY
def test_a_full_disk_under_standard_output_is_told_when_all_else_is_done(name: str, env: dict[str, str]) -> None:
    code, said = run_on_full_disk(CALLS[name].split(), env, out=FULL)
    for word in ("Traceback", "OSError", "Exception ignored", "a bug"):
        assert word not in said
    told = said.endswith(UNWRITTEN)
    assert told or name in SHOWS_NOTHING
    assert code == (usual_code(name) or (ExitCode.OUTPUT if told else ExitCode.DONE))


@pytest.mark.parametrize("name", ["tick", "run", "worker", "status", "doctor"])
def test_a_full_disk_under_standard_error_changes_nothing_about_the_outcome(name: str, env: dict[str, str]) -> None:
    assert run_on_full_disk(CALLS[name].split(), env, err=FULL)[0] == usual_code(name)


@pytest.mark.parametrize("words", ["--help", "held --help", "tick --help", "--version"])
def test_help_that_finds_no_room_is_told_like_any_data(words: str, env: dict[str, str]) -> None:
    assert run_on_full_disk(words.split(), env, out=FULL) == (ExitCode.OUTPUT, UNWRITTEN)


@pytest.mark.parametrize("words", ["nope", "--debug run nope", "agent"])
def test_an_error_that_finds_no_room_keeps_its_exit_code(words: str, env: dict[str, str]) -> None:
    assert run_on_full_disk(words.split(), env, out=FULL, err=FULL)[0] == ExitCode.USAGE


def test_a_sync_s_exit_code_outlives_the_loss_of_all_that_is_said(env: dict[str, str]) -> None:
    words = f"run orders --agent {AGENT} --inline".split()
    assert run_on_full_disk(words, env, out=FULL, err=FULL)[0] == ExitCode.HELD
    assert run_on_full_disk(words, env, err=FULL)[0] == ExitCode.HELD


def test_a_worker_whose_log_finds_no_room_does_its_runs(env: dict[str, str]) -> None:
    with connected(env["ARCHISYNC_DATABASE_URL"], purpose="test") as db:
        db.execute("update system.sync_settings set enabled = sync_type in ('customers', 'ddt')")
        assert run_on_full_disk(["tick"], env, out=FULL, err=FULL)[0] == ExitCode.OUTPUT
        assert run_on_full_disk(["worker", "--burst", "--single"], env, out=FULL, err=FULL)[0] == ExitCode.DONE
        rows = db.execute("select state, attempt from system.sync_runs where sync_type <> 'orders'").fetchall()
    assert [(row["state"], row["attempt"]) for row in rows] == [("succeeded", 1), ("succeeded", 1)]


@EVERY
def test_quiet_leaves_data_and_takes_talk(name: str, env: dict[str, str]) -> None:
    done = subprocess.run(
        command(*CALLS[name].split(), "-q"), env=env, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == usual_code(name)
    for line in done.stderr.splitlines():  # what a worker and a run log are events, not talk
        assert json.loads(line)["event"]
    talkers = {"run", "worker"}
    assert bool(done.stderr) == (name in talkers)


def on_a_terminal(words: list[str], env: dict[str, str]) -> str:
    """What the command writes to a terminal of 100 columns."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        command(*words), env={"TERM": "xterm-256color", "COLUMNS": "100"} | env, cwd=REPOSITORY,
        stdin=slave, stdout=slave, stderr=slave,
    ) as process:  # fmt: skip
        os.close(slave)
        written = b""
        try:
            while part := os.read(master, 65536):
                written += part
        except OSError:  # Linux tells so that the other side is closed
            pass
        process.wait()
    os.close(master)
    return written.decode()


@EVERY
def test_no_color_is_obeyed_on_a_terminal(name: str, env: dict[str, str]) -> None:
    written = on_a_terminal(CALLS[name].split(), env | {"NO_COLOR": "1"})
    assert written
    assert not COLOUR.search(written)
    assert "Traceback" not in written


def test_without_no_color_a_terminal_gets_colours(env: dict[str, str]) -> None:
    assert COLOUR.search(on_a_terminal(["status"], env))
    assert not COLOUR.search(on_a_terminal(["status"], env | {"TERM": "dumb"}))
    assert COLOUR.search(on_a_terminal(["status"], env | {"NO_COLOR": ""}))  # no-color.org: empty counts as unset


@pytest.mark.parametrize("name", [name for name in CALLS if name not in WITHOUT_SERVER])
def test_ctrl_c_ends_it_without_a_traceback(name: str) -> None:
    """While PostgreSQL has taken the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            command(*CALLS[name].split()), env=environment(f"postgresql://x@{where}/x", f"redis://{where}/0"), cwd=REPOSITORY,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)  # it has spoken: it waits for the answer now
            process.send_signal(signal.SIGINT)
            _, said = process.communicate()
    assert process.returncode == (ExitCode.DONE if name == "worker" else ExitCode.INTERRUPTED), said
    for word in ("Traceback", "KeyboardInterrupt", "a bug", "error:"):
        assert word not in said


@EVERY
def test_an_argument_that_is_not_utf_8_is_wrong_usage(name: str, env: dict[str, str]) -> None:
    words = CALLS[name].split()
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [os.fsencode(word) for word in command(*words)] + [b"Citt\xe0"],
        env=env,
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.USAGE,
        b"",
        f"error: argument {len(words) + 1} is not valid UTF-8\nhint: type it in UTF-8\n".encode(),
    )


@pytest.mark.parametrize(
    ("words", "running", "code"),
    [
        ("demo", "$ archisync tick\n", ExitCode.INTERRUPTED),
        ("up --folder FOLDER/data", "running in ", ExitCode.DONE),  # "until Ctrl-C" is how it is meant to end
    ],
)
def test_ctrl_c_ends_what_brings_its_own_servers_and_leaves_none(words: str, running: str, code: ExitCode) -> None:
    with temporary_folder() as folder:
        folder.chmod(0o777)  # PostgreSQL's account makes its socket inside
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


OLD_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""As with an ISO-8859-1 or C locale of old: standard output takes ASCII only."""


def test_a_name_that_the_locale_can_t_spell_ends_no_command(env: dict[str, str]) -> None:
    with connected(env["ARCHISYNC_DATABASE_URL"], purpose="test") as db:
        agents.add(db, "a.rossi", name="Niccolò", whitelisted=True)
    old = env | OLD_LOCALE
    table = subprocess.run(
        command("agent", "list"), env=old, cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "Niccol?" in table.stdout
    document = subprocess.run(command("agent", "list", "--json"), env=old, cwd=REPOSITORY, capture_output=True, check=True)  # fmt: skip
    assert json.loads(document.stdout)["agents"][0]["name"] == "Niccolò"


def test_a_chart_is_drawn_in_ascii_where_the_locale_has_nothing_else(env: dict[str, str]) -> None:
    shown = on_a_terminal(["plan", "--for", "3d", "--workers", "2"], env | OLD_LOCALE | {"NO_COLOR": "1"})
    assert "####" in shown
    assert "a bug" not in shown


def test_a_folder_that_can_t_be_made_is_no_bug(env: dict[str, str]) -> None:
    done = subprocess.run(
        command("up", "--folder", "/proc/nowhere"), env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        ExitCode.USAGE,
        "",
        "error: the folder /proc/nowhere can't be made: No such file or directory\nhint: archisync up --folder ~/archisync\n",
    )
