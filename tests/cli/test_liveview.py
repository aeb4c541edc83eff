"""`status --watch` on a pseudo-terminal that an emulator reads: what is on the screen, and what is left afterwards."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from archisync.cli.liveview import sparkline
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, migrations
from archisync.store.activity import Point
from archisync.store.database import Database
from tests.conftest import REPOSITORY, Cli
from tests.support.rows import add_run
from tests.support.screen import Screen


class Watched:
    """A running `status --watch` and the screen that it draws."""

    def __init__(self, env: dict[str, str], columns: int, rows: int, term: str) -> None:
        self.screen = Screen(columns, rows)
        self.raw = b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "archisync", "status", "--watch", "--every", "0.5"],
            cwd=REPOSITORY, env=env | {"TERM": term, "LANG": "C.UTF-8", "PATH": os.environ["PATH"]},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.slave = slave

    def text(self) -> str:
        return self.screen.text()

    def until(self, there: Callable[[str], Any]) -> str:
        """Read until the screen is as wanted. If that never comes, the test's time limit ends it."""
        while not there(self.text()):
            part = os.read(self.master, 65536)
            self.raw += part
            self.screen.feed(part)
        return self.text()

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        """The exit code, after everything that was written has been read."""
        os.set_blocking(self.master, False)
        while True:
            over = self.process.poll() is not None
            try:
                while part := os.read(self.master, 65536):
                    self.raw += part
            except BlockingIOError:
                pass
            if over:
                return self.process.returncode


@contextmanager
def watching(env: dict[str, str], columns: int = 80, rows: int = 24, term: str = "xterm-256color") -> Iterator[Watched]:
    watched = Watched(env, columns, rows, term)
    try:
        yield watched
    finally:
        watched.process.kill()
        watched.process.wait()
        os.close(watched.master)
        os.close(watched.slave)


@pytest.fixture
def env(database_url: str, redis_url: str) -> dict[str, str]:
    return {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url}


@pytest.fixture
def troubled(connection: Database) -> Database:
    """One of everything: a healthy type, a running run, a held export, a resting pair, a pause, a tick."""
    agents.add(connection, "anna", name=None, whitelisted=True)
    connection.execute("update system.sync_state set last_success_at = system.clock(), last_slot_at = system.clock()")
    connection.execute(
        "update system.sync_state set consecutive_failures = 4, backoff_until = system.clock() + interval '40 min'"
        " where sync_type = 'ddt'"
    )
    for state in ("succeeded", "failed", "held", "succeeded"):
        add_run(connection, state, worker="host-1:7", steps='{"total": 1500}')
    add_run(connection, "running", worker="host-1:7", started_at=datetime.now(UTC))
    connection.execute(
        "insert into system.held_exports (run_id, sync_type, agent_id, rule, message, acceptable, rows_valid, data_version)"
        " values (3, 'orders', 'anna', 'row-drop', 'far too few rows', true, 1, 0)"
    )
    connection.execute("insert into system.pauses (sync_type, reason) values ('prices', 'ERP maintenance')")
    connection.execute(
        "insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped)"
        " values (system.clock(), 5, 'host-1', 0, 0, 0, 0, '{}')"
    )
    return connection


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
def test_everything_that_matters_is_on_the_screen(
    troubled: Database, env: dict[str, str], columns: int, rows: int
) -> None:
    with watching(env, columns, rows) as watched:
        text = watched.until(lambda t: "q ends" in t)
        watched.type(b"q")
        assert watched.end() == 0
    assert re.search(r"^archisync  [0-9-]{10} [0-9:]{8} UTC  last tick \d+ s ago on host-1$", text, re.M)
    assert "queue 0, workers 0: 0 busy, 0 idle" in text
    assert re.search(r"^orders +held +.*█x!█", text, re.M)
    assert re.search(r"^ddt +degraded", text, re.M)
    assert re.search(r"^prices +paused", text, re.M)
    assert re.search(r"^customers +healthy", text, re.M)
    assert re.search(r"^running  orders of anna for .* on host-1:7 \(run 5\)$", text, re.M)
    assert "held     orders of anna (archisync held show 3): far too few rows" in text
    assert re.search(r"^resting  ddt of anna: 4 failures, next in (40|39) min, last ok ", text, re.M)
    assert "paused   prices: ERP maintenance" in text
    assert re.search(r"^orders .* (now|[0-9]+ s ago) +1\.5 s ", text, re.M)  # the last success, and how long it took
    assert ("degraded  resting" in text) == (columns == 200)
    assert not troubled.closed


def test_each_worker_and_what_it_does_is_shown(troubled: Database, env: dict[str, str]) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "archisync", "worker", "--single"], cwd=REPOSITORY, stderr=subprocess.DEVNULL,
        env=os.environ | env | {"ARCHISYNC_SOURCE": "/nowhere/{agent}/{type}.csv"},
    )  # fmt: skip
    try:
        with watching(env) as watched:
            text = watched.until(lambda t: "workers 1: 0 busy, 1 idle" in t)
            watched.type(b"q")
            assert watched.end() == 0
    finally:
        worker.terminate()
        worker.wait()
    assert f"\nidle     {os.uname().nodename}:{worker.pid}\n" in text
    assert re.search(r"^running  orders of anna for .* on host-1:7 \(run 5\)$", text, re.M)
    assert max(len(line) for line in text.splitlines()) <= 80


def test_changes_are_drawn_without_clearing_and_the_terminal_is_restored(
    troubled: Database, env: dict[str, str]
) -> None:
    with watching(env) as watched:
        watched.until(lambda t: "q ends" in t)
        first = len(watched.raw)
        troubled.execute("delete from system.pauses")
        troubled.execute("delete from system.claims; delete from system.queued_runs")
        watched.until(lambda t: re.search(r"prices +healthy", t) and "running  " not in t)
        assert b"\x1b[2J" not in watched.raw[first:]
        watched.type(b"x")  # any other key changes nothing
        troubled.execute("insert into system.pauses (sync_type) values ('orders')")
        watched.until(lambda t: re.search(r"orders +paused", t))
        watched.type(b"xQQ")
        assert watched.end() == 0
        assert termios.tcgetattr(watched.slave) == watched.before
    assert watched.raw.count(b"\x1b[?1049h") == watched.raw.count(b"\x1b[?1049l") == 1
    frames = re.findall(rb"\x1b\[\?2026h(.*?)\x1b\[\?2026l", watched.raw, re.S)  # each is shown at once
    assert sum(b"q ends" in frame for frame in frames) == watched.raw.count(b"q ends") >= 3
    assert watched.raw.rindex(b"\x1b[?25h") > watched.raw.rindex(b"\x1b[?25l")  # the cursor is shown again


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_ctrl_c_and_sigterm_restore_the_terminal(env: dict[str, str], how: str) -> None:
    with watching(env) as watched:
        watched.until(lambda t: "q ends" in t)
        if how == "Ctrl-C":
            watched.type(b"\x03")
        else:
            watched.process.send_signal(signal.SIGTERM)
        assert watched.end() == 130
        assert termios.tcgetattr(watched.slave) == watched.before
    assert b"Traceback" not in watched.raw
    assert watched.raw.count(b"\x1b[?1049l") == 1


def test_a_restart_of_postgresql_is_a_line_on_the_screen(own_postgres: EmbeddedPostgres, redis_url: str) -> None:
    from archisync.store.database import connected

    with connected(own_postgres.url, purpose="test") as db:
        migrations.migrate(db, {})
    env = {"ARCHISYNC_DATABASE_URL": own_postgres.url, "ARCHISYNC_REDIS_URL": redis_url}
    with watching(env, 120) as watched:
        watched.until(lambda t: "q ends" in t)
        own_postgres.kill()
        text = watched.until(lambda t: "PostgreSQL is out of reach" in t)
        assert "orders" in text
        own_postgres.start()
        watched.until(lambda t: "out of reach" not in t)
        watched.type(b"q")
        assert watched.end() == 0


def test_without_redis_everything_else_is_shown(env: dict[str, str]) -> None:
    with watching(env | {"ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0"}, 120) as watched:
        text = watched.until(lambda t: "q ends" in t)
        watched.type(b"q")
        assert watched.end() == 0
    assert "Redis is out of reach: " in text
    assert "customers" in text


def test_a_long_list_ends_with_how_many_more_there_are(troubled: Database, env: dict[str, str]) -> None:
    for number in range(60):
        agents.add(troubled, f"agent-{number}", name=None, whitelisted=True)
    with watching(env, 80, 24) as watched:
        text = watched.until(lambda t: "q ends" in t)
        watched.type(b"q")
        watched.end()
    assert re.search(r"^… and \d+ more$", text, re.M)
    assert text.startswith("archisync  ")


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ([], "--watch needs a terminal", "archisync status   (or archisync metrics --serve 9464)"),
        (["--json"], "--watch and --json exclude each other", "watch -n 5 archisync status --json"),
    ],
)
def test_without_a_terminal_there_is_no_live_view(cli: Cli, args: list[str], message: str, hint: str) -> None:
    done = cli("status", "--watch", *args)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\nhint: {hint}\n")


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_no_escape_sequences(env: dict[str, str], term: str) -> None:
    with watching(env, term=term) as watched:
        code = watched.end()
    assert (code, watched.raw) == (
        2,
        b"error: --watch needs a terminal that can move its cursor (TERM)\r\n"
        b"hint: archisync status   (or set TERM, to xterm for example)\r\n",
    )


def test_a_trend_shows_the_length_and_outcome_of_each_run() -> None:
    points = [Point(state=s, seconds=n) for s, n in (("succeeded", 0), ("failed", 9), ("succeeded", 5), ("held", 1), ("succeeded", 10))]  # fmt: skip # noqa: E501
    assert sparkline(points).plain == "▁x▅!█"
    assert sparkline([]).plain == ""
