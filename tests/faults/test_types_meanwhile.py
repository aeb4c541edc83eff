"""Types are declared, changed and removed while ticks and workers go on, each a process: nothing is lost, no run fails because of it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from archisync import __version__
from archisync.base.errors import ExitCode
from archisync.rules.config import Config
from archisync.rules.synctypes import SHARED_AGENT, SYNC_TYPES, Scope
from archisync.store import agents
from archisync.store.database import Database, connected
from tests.conftest import Cli
from tests.faults import oracle
from tests.support.queued import env_of
from tests.support.rows import count

AGENTS = ("anna", "bruno", "carla")
NOTES = 4
"""Columns that are added one after the other; the exports have them all from the beginning."""
KEYS = {
    "orders": "order_id,order_number,created_at,description\n{n},O{n},2026-01-01,{text}\n",
    "customers": "customer_id,name\n{n},{text}\n",
    "ddt": "ddt_number,order_number,description\n{n},O{n},{text}\n",
    "invoices": "invoice_number,order_number,billing_name\n{n},O{n},{text}\n",
    "products": "product_id,name\n{n},{text}\n",
    "prices": "product_id,unit_price,product_name\n{n},1.5,{text}\n",
    "returns": "return_number,text,note_1,note_2,note_3,note_4\n{n},{text},a,b,c,d\n",
}
ROWS = 6


def declaration(notes: int, *more: str, first: int = 1) -> str:
    """Returns with the columns note_`first` … note_`notes`."""
    lines = [
        'name = "returns"',
        'scope = "agent"',
        "interval = 5",
        'after = ["orders"]',
        'key = ["return_number"]',
        *more,
    ]
    return "\n".join([*lines, "[fields]", 'return_number = "identifier"', 'text = "text"',
                      *(f'note_{n} = "text"' for n in range(first, notes + 1))]) + "\n"  # fmt: skip


def write_exports(folder: Path, day: int) -> None:
    """The exports of that day: one row in six differs from the day before."""
    for name, text in KEYS.items():
        header, row = text.splitlines()
        shared = name in SYNC_TYPES and SYNC_TYPES[name].scope is Scope.SHARED
        for agent in [SHARED_AGENT] if shared else AGENTS:
            lines = [row.format(n=n, text=f"day {day}" if n == 1 else f"of {agent}") for n in range(1, ROWS + 1)]
            path = folder / agent / f"{name}.csv"
            path.parent.mkdir(exist_ok=True)
            new = path.with_suffix(".new")
            new.write_text("\n".join([header, *lines]) + "\n", "utf-8")
            new.replace(path)


class Traffic:
    """Two workers that are processes, and a thread that writes exports and has a tick queue every pair, again and again."""

    def __init__(self, cli: Cli, config: Config, exports: Path) -> None:
        self._cli, self._config, self._exports = cli, config, exports
        self._over = threading.Event()
        self._ticks: list[int] = []
        self._ticker = threading.Thread(target=self._keep_ticking, name="ticker")
        self.days = 0

    @contextmanager
    def going(self) -> Iterator["Traffic"]:
        self.workers = subprocess.Popen(
            [sys.executable, "-m", "archisync", "worker", "--processes", "2"],
            env=os.environ | dict(self._config.environment),
            stderr=subprocess.DEVNULL,
        )
        self._ticker.start()
        try:
            yield self
        finally:
            self._over.set()
            self._ticker.join()
            self.workers.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.workers.wait(60)
            self.workers.kill()
            self.workers.wait()

    def _keep_ticking(self) -> None:
        with connected(self._config.database_url, purpose="traffic") as db:
            while not self._over.is_set():
                self.day(db)

    def day(self, db: Database) -> None:
        self.days += 1
        write_exports(self._exports, self.days)
        db.execute("update system.sync_state set last_slot_at = null where unfinished_run_id is null")
        self._ticks.append(self._cli("tick", env=env_of(self._config)).returncode)

    def end(self, db: Database) -> None:
        """No tick any more, and nothing queued; then one day more, which everything reaches."""
        self._over.set()
        self._ticker.join()
        assert set(self._ticks) == {0}
        self.until(lambda: count(db, "select count(*) from system.queued_runs") == 0)
        self.day(db)
        self.until(lambda: count(db, "select count(*) from system.queued_runs") == 0)

    def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            assert self.workers.poll() is None, "the workers have ended"


@pytest.fixture
def config(database_url: str, redis_url: str, exports: Path) -> Config:
    return Config.from_environment(
        {
            "ARCHISYNC_DATABASE_URL": database_url,
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv",
        }
    )


def filled(db: Database, column: str, day: int) -> bool:
    """Whether each agent has its rows of that day or a later one, with that column."""
    found = count(
        db,
        f"select count(*) from (select agent_id from agents.returns group by 1 having count({column}) = {ROWS}"
        f" and max(substr(text, 5)::int) filter (where return_number = '1') >= {day}) x",
    )
    return found == len(AGENTS)


def removed(cli: Cli, *more: str) -> None:
    """Remove the type, again as long as a tick or a worker is faster. Each refusal says so."""
    while (done := cli("type", "remove", "returns", "--yes", *more)).returncode != 0:
        assert (done.returncode, done.stdout) == (ExitCode.BUSY, ""), done.stderr
        assert "\nhint: " in done.stderr


@pytest.mark.slow
def test_types_come_change_and_go_while_ticks_and_workers_go_on(
    cli: Cli, connection: Database, config: Config, exports: Path
) -> None:
    oracle.watch(connection)
    for agent in AGENTS:
        agents.add(connection, agent, name=None, whitelisted=True)
    with Traffic(cli, config, exports).going() as traffic:
        traffic.until(lambda: count(connection, "select count(*) from system.sync_runs") > 10)

        def applied(text: str) -> str:
            """What one of two that apply the declaration at once did; the other found it done."""
            with ThreadPoolExecutor(2) as pool:
                both = list(pool.map(lambda _: cli("type", "apply", "-", stdin=text), range(2)))
            assert [done.returncode for done in both] == [0, 0], [done.stderr for done in both]
            nothing, did = sorted((done.stdout for done in both), key=lambda said: "nothing:" not in said)
            assert nothing == "returns: nothing: the database has this declaration\n"
            return did

        assert applied(declaration(1)) == "returns: table agents.returns with 3 fields\n"
        for notes in range(2, NOTES + 1):
            day = traffic.days
            traffic.until(lambda day=day, notes=notes: filled(connection, f"note_{notes - 1}", day))  # type: ignore[misc]
            assert applied(declaration(notes)) == f"returns: 1 column added: note_{notes}\n"
        assert cli("db", "migrate").returncode == 0
        traffic.until(lambda: filled(connection, f"note_{NOTES}", traffic.days - 1))
        assert applied(declaration(NOTES, first=2)) == "returns: no longer written, and kept: note_1\n"
        removed(cli, "--drop-table")
        assert applied(declaration(NOTES, first=2)) == "returns: table agents.returns with 5 fields\n"
        day = traffic.days
        traffic.until(lambda: filled(connection, f"note_{NOTES}", day))
        removed(cli)
        last = count(connection, "select max(id) from system.sync_runs")
        fresh = f"select count(distinct (sync_type, agent_id)) from system.sync_runs where state = 'succeeded' and id > {last}"
        traffic.until(lambda: count(connection, fresh) == 4 * len(AGENTS) + 2)
        said = applied(declaration(NOTES, "adopt = true"))  # with note_1, which the table lacks
        assert said == "returns: table agents.returns adopted: nothing is dropped\n"
        traffic.end(connection)

    ends = connection.execute(
        "select sync_type, state, reason, attempt, message from system.sync_runs"
        " where (state, attempt) <> ('succeeded', 1) and (state, sync_type) <> ('cancelled', 'returns')"
    ).fetchall()
    assert ends == []
    assert oracle.violations(connection) == {}
    for name in KEYS:
        table = f"{'shared' if name in ('products', 'prices') else 'agents'}.{name}"
        text = KEYS[name].splitlines()[0].split(",")[-1] if name != "returns" else "text"
        owners = 1 if name in ("products", "prices") else len(AGENTS)
        assert count(connection, f"select count(*) from {table}") == ROWS * owners
        assert count(connection, f"select count(*) from {table} where {text} = 'day {traffic.days}'") == owners, name
    acts = [row["action"] for row in connection.execute("select action from system.audit order by id").fetchall()]
    assert acts == ["type apply"] * (NOTES + 1) + ["type remove", "type apply"] * 2


def test_a_worker_of_an_older_version_fails_the_runs_of_the_type_that_it_can_t_read_and_does_the_others(
    cli: Cli, connection: Database, config: Config, exports: Path
) -> None:
    env = env_of(config)
    for agent in AGENTS:
        agents.add(connection, agent, name=None, whitelisted=True)
    write_exports(exports, 1)
    assert cli("type", "apply", "-", stdin=declaration(1)).returncode == 0
    connection.execute(
        "update system.sync_types set sha256 = 'newer', declaration = json_build_object('name', 'returns', 'from', '9.0')"
        " where sync_type = 'returns'"
    )
    assert cli("tick", env=env).returncode == 0
    assert cli("worker", "--single", "--burst", env=env).returncode == 0
    ends = connection.execute(
        "select state, reason, message, hint, count(*)::int as runs from system.sync_runs group by 1, 2, 3, 4 order by 1"
    ).fetchall()
    told = f"archisync {__version__} can't read it: install here the version that declared it"
    assert [tuple(end.values()) for end in ends if end["state"] == "failed"] == [
        ("failed", "configuration", "the type returns: from: an unknown key", told, len(AGENTS))
    ]
    assert sum(end["runs"] for end in ends if end["state"] == "succeeded") == 4 * len(AGENTS) + 2
    assert cli("status").returncode == 0
    doctor = cli("doctor")
    assert "the type returns: from: an unknown key" in doctor.stdout
    assert told in doctor.stdout
