"""`up`: what ends by itself is started again, nothing outlives it, and stopping waits for a run however long it takes."""

import os
import select
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from archisync.standalone.servers import temporary_folder
from archisync.standalone.up import _write_environment
from archisync.store import agents
from archisync.store.database import Database, connected
from tests.conftest import REPOSITORY, _clean_environment
from tests.support.rows import count

GONE_TIMEOUT_S = 30
RUNNING = "select count(*) from system.sync_runs where state = 'running'"


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


class Up:
    """`archisync up` in a folder whose name a shell must have quoted; `said`: its first line."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.folder, self.process, self.stderr = folder, process, process.stderr
        self.said = self.line("running in ")
        self.settings = dict(shlex.split(line)[1].split("=", 1) for line in self.env_file.read_text().splitlines())

    @property
    def env_file(self) -> Path:
        return self.folder / "archisync.env"

    def line(self, beginning: str) -> str:
        """The next line on standard error that begins so."""
        for line in self.stderr:
            if line.startswith(beginning):
                return line
        raise AssertionError(f"it ended with {self.process.wait()} and never said: {beginning}")

    def event(self, name: str) -> None:
        while f'"event": "{name}"' not in self.line('{"time"'):
            continue

    def child(self, words: str) -> int:
        """The process id of the child whose command line has the words, when there is one."""
        while True:
            assert self.process.poll() is None
            for pid in children(self.process.pid):
                if words in commandline(pid):
                    return pid


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def commandline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@contextmanager
def running(folder: Path, source: str = "/nowhere/{agent}/{type}.csv") -> Iterator[Up]:
    place = folder / "our data"
    with subprocess.Popen(
        [sys.executable, "-m", "archisync", "up", "--folder", str(place), "--processes", "1"], cwd=REPOSITORY,
        env=_clean_environment() | {"ARCHISYNC_SOURCE": source}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Up(place, process)
        finally:
            with watched(children(process.pid)) as left:
                process.kill()
                wait_gone(left)


@contextmanager
def watched(pids: Sequence[int]) -> Iterator[list[int]]:
    """Descriptors of the processes, which become readable when they have ended."""
    with ExitStack() as stack:
        found = []
        for pid in pids:
            found.append(os.pidfd_open(pid))
            stack.callback(os.close, found[-1])
        yield found


def wait_gone(left: Sequence[int]) -> None:
    for descriptor in left:
        assert select.select([descriptor], [], [], GONE_TIMEOUT_S)[0]


def end(up: Up, number: signal.Signals = signal.SIGTERM) -> int:
    up.process.send_signal(number)
    return ended(up)


def ended(up: Up) -> int:
    up.stderr.read()
    return up.process.wait(GONE_TIMEOUT_S)


def test_the_file_for_other_terminals_is_nobody_else_s_and_named_as_a_shell_takes_it(folder: Path) -> None:
    with running(folder) as up:
        assert stat.S_IMODE(up.env_file.stat().st_mode) == 0o600
        assert f"in other terminals: . '{up.env_file}'   (Ctrl-C stops everything)" in up.said
        assert end(up) == 0
        assert not up.env_file.exists()


def test_the_file_is_private_from_its_first_moment(folder: Path) -> None:
    before = os.umask(0)
    try:
        (folder / "archisync.env").write_text("left by one that was killed")
        _write_environment(folder / "archisync.env", {"ARCHISYNC_X": "a b", "HOME": "/"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "archisync.env").stat().st_mode) == 0o600
    assert (folder / "archisync.env").read_text() == "export ARCHISYNC_X='a b'\n"


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("/postgres -D", "PostgreSQL ended and is started again"),
        ("valkey", "Valkey ended and is started again"),
        ("archisync worker", "the workers ended with -9 and are started again"),
    ],
)
def test_a_part_that_ends_is_started_again(folder: Path, part: str, told: str) -> None:
    with running(folder) as up:
        up.event("workers-started")
        os.kill(up.child(part), signal.SIGKILL)
        up.line(told)
        if part == "archisync worker":
            up.event("workers-started")
        assert up.child(part)
        assert end(up) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a process that its parent has died")
def test_nothing_outlives_one_that_was_killed(folder: Path) -> None:
    with running(folder) as up:
        up.event("workers-started")
        supervisor = up.child("archisync worker")
        while not (workers := children(supervisor)):
            assert up.process.poll() is None
        pids = [supervisor, *workers, up.child("/postgres -D"), up.child("valkey")]
        with watched(pids) as left:
            up.process.kill()
            wait_gone(left)


@contextmanager
def in_a_run(folder: Path) -> Iterator[tuple[Up, Path]]:
    """`up` while its worker fetches an export that never comes until somebody opens the named pipe."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    program = folder / "export"
    program.write_text(f"#!/bin/sh\ncat {fifo}\n")
    program.chmod(0o755)
    with running(folder, f"exec:{program} {{agent}}") as up:
        with connected(up.settings["ARCHISYNC_DATABASE_URL"], purpose="test") as db:
            force_one(db, up)
            while count(db, RUNNING) == 0:
                assert up.process.poll() is None
        yield up, fifo


def force_one(db: Database, up: Up) -> None:
    agents.add(db, "anna", name=None, whitelisted=True)
    words = [sys.executable, "-m", "archisync", "run", "customers", "--agent", "anna"]
    subprocess.run(words, env=_clean_environment() | up.settings, cwd=REPOSITORY, check=True, capture_output=True)


def test_stopping_waits_for_the_current_run(folder: Path) -> None:
    with in_a_run(folder) as (up, fifo):
        up.process.send_signal(signal.SIGINT)
        up.line("stopping: workers finish their current run (Ctrl-C again cuts it off; a tick takes it back)")
        up.event("workers-stopping")
        assert up.env_file.exists()
        fifo.write_text("customer_id,name\n1,Ditta\n")
        up.event("run-finished")
        assert ended(up) == 0
        assert not up.env_file.exists()


def test_a_second_ctrl_c_does_not_wait(folder: Path) -> None:
    with in_a_run(folder) as (up, _):
        up.process.send_signal(signal.SIGINT)
        up.event("workers-stopping")
        assert end(up, signal.SIGINT) == 0
        assert not up.env_file.exists()
