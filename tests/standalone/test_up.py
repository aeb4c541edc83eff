"""`up`: a part that ends is started again, nothing outlives it, and stopping waits for a run however long it takes."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archisync.base.envfile import read_env_file, write_env_file
from archisync.base.errors import ExitCode
from archisync.store import agents
from archisync.store.database import connected
from tests.conftest import REPOSITORY, Cli, clean_environment
from tests.support.processes import GONE_TIMEOUT_S, wait_until_gone
from tests.support.rows import count
from tests.support.said import as_text

RUNNING = "select count(*) from system.runs where state = 'running'"
COMMAND = """
import sys
from archisync import __main__
from archisync.standalone import up
up.WORKER_RESTART_DELAY_S = 0.0
sys.exit(__main__.script())
"""
"""`archisync`, without the pause before the workers are started again."""


class Up:
    """`archisync up` in a folder. `first_line` is what it prints when everything runs."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.folder, self.process, self.stderr = folder, process, process.stderr
        self.first_line = self.line("running in ")
        self.settings = read_env_file(self.env_file, {})

    @property
    def env_file(self) -> Path:
        return self.folder / "archisync.env"

    def line(self, beginning: str) -> str:
        """The next line on standard error that begins so."""
        for line in map(as_text, self.stderr):
            if line.startswith(beginning):
                return line
        raise AssertionError(f"it ended with {self.process.wait()} and never said: {beginning}")

    def event(self, name: str) -> None:
        """Wait for the next log line of this event."""
        while f'"event": "{name}"' not in self.line('{"time"'):
            continue

    def child(self, words: str) -> int:
        """The process id of the child with these words in its command line, as soon as there is one."""
        while True:
            assert self.process.poll() is None
            for pid in children(self.process.pid):
                if words in command_line(pid):
                    return pid

    def end(self, *numbers: signal.Signals) -> int:
        """Send the signals. Returns the exit code."""
        for number in numbers:
            self.process.send_signal(number)
        self.stderr.read()
        return self.process.wait(GONE_TIMEOUT_S)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@contextmanager
def running(folder: Path, source: str | None = "/nowhere/{agent}/{type}.csv") -> Iterator[Up]:
    home = folder / "data"
    env = clean_environment() | ({"ARCHISYNC_SOURCE": source} if source else {})
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "up", "--folder", str(home), "--processes", "1"], cwd=REPOSITORY,
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Up(home, process)
        finally:
            left = children(process.pid)
            process.kill()
            for pid in left:
                wait_until_gone(pid)


def test_the_file_for_other_terminals_is_private_and_named(folder: Path) -> None:
    with running(folder) as up:
        assert stat.S_IMODE(up.env_file.stat().st_mode) == 0o600
        assert f"in other terminals: . {up.env_file}   (Ctrl-C stops everything)" in up.first_line
        assert up.end(signal.SIGTERM) == 0


def test_the_file_is_private_from_its_first_moment(folder: Path) -> None:
    before = os.umask(0)
    try:
        (folder / "archisync.env").write_text("left by one that was killed")
        write_env_file(folder / "archisync.env", {"ARCHISYNC_X": "a b"}, remark="ours")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "archisync.env").stat().st_mode) == 0o600
    assert (folder / "archisync.env").read_text() == "# ours\nexport ARCHISYNC_X='a b'\n"


def test_each_part_that_ends_is_started_again(folder: Path) -> None:
    with running(folder) as up:
        up.event("workers-started")
        for part, message in (
            ("/postgres -D", "PostgreSQL ended and is started again"),
            ("valkey", "Valkey ended and is started again"),
            ("archisync worker", "the workers ended with -9 and are started again"),
        ):
            killed = up.child(part)
            os.kill(killed, signal.SIGKILL)
            up.line(message)
            assert up.child(part) != killed
        up.event("workers-started")
        assert up.end(signal.SIGTERM) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not tell a process that its parent died")
def test_nothing_outlives_one_that_was_killed(folder: Path) -> None:
    with running(folder) as up:
        up.event("workers-started")
        supervisor = up.child("archisync worker")
        while not (workers := children(supervisor)):
            assert up.process.poll() is None
        pids = [supervisor, *workers, up.child("/postgres -D"), up.child("valkey")]
        up.process.kill()
        for pid in pids:
            wait_until_gone(pid)


@contextmanager
def in_a_run(cli: Cli, folder: Path) -> Iterator[tuple[Up, Path]]:
    """`up` while its worker fetches an export that comes when the test writes it into the named pipe."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    program = folder / "export"
    program.write_text(f"#!/bin/sh\ncat {fifo}\n")
    program.chmod(0o755)
    with running(folder, f"exec:{program} {{agent}}") as up:
        with connected(up.settings["ARCHISYNC_DATABASE_URL"], purpose="test") as db:
            agents.add(db, "anna", name=None, whitelisted=True)
            assert cli("run", "customers", "--agent", "anna", env=up.settings).returncode == 0
            while count(db, RUNNING) == 0:
                assert up.process.poll() is None
        yield up, fifo


def test_stopping_waits_for_the_current_run(cli: Cli, folder: Path) -> None:
    with in_a_run(cli, folder) as (up, fifo):
        up.process.send_signal(signal.SIGINT)
        up.line("stopping: workers finish their current run (Ctrl-C again cuts it off; a tick takes it back)")
        up.event("workers-stopping")
        fifo.write_text("customer_id,name\n1,Ditta\n")
        up.event("run-finished")
        assert up.end() == 0


def test_a_second_ctrl_c_does_not_wait_for_the_run(cli: Cli, folder: Path) -> None:
    with in_a_run(cli, folder) as (up, _):
        up.process.send_signal(signal.SIGINT)
        up.event("workers-stopping")
        assert up.end(signal.SIGINT) == 0


def test_addresses_and_settings_are_the_same_the_next_time(folder: Path) -> None:
    with running(folder) as up:
        first = up.settings
        assert up.end(signal.SIGTERM) == 0
    with running(folder, source=None) as up:
        assert up.settings == first
        assert up.end(signal.SIGTERM) == 0
    assert first["ARCHISYNC_SOURCE"] == "/nowhere/{agent}/{type}.csv"


@pytest.mark.parametrize("name", ["d" * 90, "with, and without=blanks"])
def test_addresses_are_the_same_where_sockets_are_elsewhere_and_after_it_was_killed(folder: Path, name: str) -> None:
    deep = folder / name
    deep.mkdir()
    with running(deep) as up:
        first = up.settings
        assert str(deep) not in first["ARCHISYNC_DATABASE_URL"]
        up.process.kill()
    with running(deep) as up:
        assert up.settings == first
        assert up.end(signal.SIGTERM) == 0


def test_a_new_folder_schedules_only_types_that_have_an_export(cli: Cli, folder: Path) -> None:
    exports = folder / "exports [new]"
    for name in ("anna/customers.csv", "service-account/prices.csv.gz"):
        (exports / name).parent.mkdir(parents=True)
        (exports / name).write_text("")
    with running(folder, f"{exports}/{{agent}}/{{type}}.csv") as up:
        scheduled = cli("interval", "list", "--columns", "type,enabled", env=up.settings).stdout.split()[2:]
        names, enabled = scheduled[::2], scheduled[1::2]
        assert {n for n, e in zip(names, enabled, strict=True) if e == "yes"} == {"customers", "prices"}
        audit = cli("audit", "list", "--columns", "what,on,why", env=up.settings).stdout.splitlines()[1:]
        assert {line.split(maxsplit=2)[1] for line in audit} == {"orders", "products", "ddt", "invoices"}
        assert all("there was no export when `archisync up` first ran" in line for line in audit)
        assert cli("enable", "orders", env=up.settings).returncode == 0
        assert up.end(signal.SIGTERM) == 0
    with running(folder, f"{exports}/{{agent}}/{{type}}.csv") as up:  # no longer new: what people decided stays
        found = cli("interval", "list", "--columns", "type,enabled", env=up.settings).stdout
        assert "orders     yes" in found
        assert up.end(signal.SIGTERM) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_a_folder_that_postgresql_can_t_reach_is_refused_before_anything_is_made(cli: Cli, folder: Path) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    done = cli("up", "--folder", str(home / "erp" / "data"))
    assert (done.returncode, as_text(done.stderr)) == (
        ExitCode.CONFIGURATION,
        f"error: root runs PostgreSQL as the user nobody, who may not enter {home}\n"
        "hint: archisync up --folder /var/lib/archisync   (everybody may enter the folders above it)\n",
    )
    assert list(home.iterdir()) == []
