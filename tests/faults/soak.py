"""A soak: real ticks and workers under random faults, more than a hundred a minute, and an account of the outcome.

    python -m tests.faults.soak --seconds 3600        an hour, as `make soak` does; `make test` takes twenty seconds

The database's clock is CLOCK_SPEED times as fast as the host's (system.clock() is replaced in this database), so an interval of five
minutes takes ten seconds. The ERP is a program that locks the agent while it works, so it notices when two runs of an agent talk to it at
once. It writes the exports of LOCAL types to files now and then, and prints the others on request: a job has unchanged exports and changed
ones. The oracle looks all the time (tests.faults.oracle).
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import redis

from archisync.rules.synctypes import SYNC_TYPES, Scope
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import agents, migrations
from archisync.store.database import Database, connected
from tests.faults import oracle

CLOCK_SPEED = 30
INTERVAL_MINUTES = 5
INTERVAL_S = INTERVAL_MINUTES * 60 / CLOCK_SPEED
TICK_EVERY_S = 60 / CLOCK_SPEED
FAULT_EVERY_S = 0.35  # about 170 a minute
LOOK_EVERY_S = 0.01
NEW_FAULT_CHANCE = 0.03
"""Of a fault that has not happened yet, at each look: a short soak has each fault, even if there is a child to kill for moments only."""
LONGEST_STOP_S = 7.0  # beyond the lease of LEASE_S / CLOCK_SPEED
AGENTS = ("anna", "bruno", "carla", "dario")
LOCAL = ("customers", "invoices", "products")
NEW_FILE_CHANCE = 0.005
"""At each look: a file changes every other second, so most exports of LOCAL types are unchanged."""
CHECK_EVERY_S = 2.0
WORKERS = 2
SETTINGS = {
    "ARCHISYNC_LEASE_S": "120",
    "ARCHISYNC_REDELIVER_AFTER_S": "30",
    "ARCHISYNC_RETRY_DELAY_S": "30",
    "ARCHISYNC_MAX_ATTEMPTS": "20",
    "ARCHISYNC_RUN_TIMEOUT_S": "60",
}

SQL_FAST_CLOCK = """
create or replace function system.clock() returns timestamptz language sql stable parallel safe as $$
  select date_trunc('second', timestamptz '{start}' + (statement_timestamp() - timestamptz '{start}') * {speed})
$$
"""

ERP = r"""#!/bin/sh
# The ERP: one session an agent at a time; every export that it prints differs from the last.
exec 9>>"$3/$1.lock"
if ! flock --nonblock 9; then echo "$1 $2" >>"$3/overlaps"; exit 1; fi
sleep 0.05
now=$(date +%s%N)
case $2 in
  orders) printf 'order_id,order_number,created_at,description\n1,O1,2026-01-01,%s\n2,O2,2026-01-02,stays\n' "$now" ;;
  ddt) printf 'ddt_number,order_number,description\nD1,O1,%s\nD2,O2,stays\n' "$now" ;;
  prices) printf 'product_id,account_code,valid_from,quantity_from,unit_price,product_name\nP1,,,,1.5,%s\nP2,,,,2,stays\n' "$now" ;;
esac
"""


FILES = {
    "customers": "customer_id,name\n1,{}\n2,stays\n",
    "invoices": "invoice_number,order_number,billing_name\nI1,O1,{}\nI2,O2,stays\n",
    "products": "product_id,name\nP1,{}\nP2,stays\n",
}


def _owners(sync_type: str) -> tuple[str, ...]:
    return AGENTS if SYNC_TYPES[sync_type].scope is Scope.AGENT else ("service-account",)


@dataclass(kw_only=True)
class Figures:
    """The account of a soak. `violations` must be empty."""

    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    ticks: Counter[str] = field(default_factory=Counter)
    states: dict[str, int] = field(default_factory=dict)
    unchanged: int = 0
    attempts: int = 0
    lost: int = 0
    overlapping: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    fresh_after_intervals: float | None = None

    @property
    def violations(self) -> dict[str, object]:
        found = {"lost": self.lost, "overlapping": self.overlapping}
        bad: dict[str, object] = {name: count for name, count in found.items() if count} | dict(self.broken)
        if self.fresh_after_intervals is None or self.fresh_after_intervals > 3:
            bad["not fresh within three intervals"] = self.fresh_after_intervals
        return bad

    def __str__(self) -> str:
        faults = sum(self.faults.values())
        by_name = ", ".join(f"{n} {name}" for name, n in sorted(self.faults.items()))
        states = ", ".join(f"{n} {state}" for state, n in sorted(self.states.items()))
        ticks = ", ".join(f"{n} {end}" for end, n in sorted(self.ticks.items()))
        fresh = "never" if self.fresh_after_intervals is None else f"{self.fresh_after_intervals:.1f} intervals"
        return (
            f"soak of {self.seconds:.0f} s: {faults} faults ({faults * 60 / max(self.seconds, 1):.0f} a minute: {by_name})\n"
            f"  runs: {states}, {self.unchanged} of them unchanged; {self.attempts} attempts; ticks: {ticks}\n"
            f"  lost {self.lost}, overlapping {self.overlapping}, broken {self.broken or 'nothing'}; "
            f"every pair fresh {fresh} after the last fault"
        )


class Soak:
    """A soak with its own servers. Everything happens in one thread, because the servers die with the thread that started them."""

    def __init__(self, *, seconds: float, seed: int) -> None:
        self._seconds = seconds
        self._random = random.Random(seed)
        self.figures = Figures(seconds=seconds)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._ticks: list[subprocess.Popen[bytes]] = []
        self._stopped: list[tuple[float, int]] = []
        self._valkey_back_at: float | None = None
        self._next_tick = self._next_check = 0.0
        self._faults: dict[str, tuple[int, Callable[[float], bool]]] = {
            "tick killed": (4, lambda _: self._kill(self._ticks)),
            "worker killed": (3, lambda _: self._kill(self._workers)),
            "worker asked to stop": (2, lambda _: self._kill(self._workers, signal.SIGTERM)),
            "child killed": (5, self._kill_child),
            "process stopped": (4, self._stop_one),
            "FLUSHALL": (2, lambda _: self._redis(lambda client: client.flushall())),
            "Redis connections cut": (
                2,
                lambda _: self._redis(lambda client: client.client_kill_filter(_type="normal")),
            ),
            "Valkey killed": (1, self._kill_valkey),
            "PostgreSQL connection cut": (4, self._cut_postgres),
        }

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        folder = self._stack.enter_context(temporary_folder())
        self._postgres = self._stack.enter_context(
            EmbeddedPostgres(folder, durable=False, settings={"synchronous_commit": "on"})
        )
        self._valkey = self._stack.enter_context(EmbeddedValkey(folder, durable=False))
        self._erp = self._stack.enter_context(temporary_folder())
        script = self._erp / "erp.sh"
        script.write_text(ERP, "utf-8")
        script.chmod(0o755)
        self._db = self._stack.enter_context(connected(self._postgres.url, purpose="soak"))
        self._prepare(self._db)
        for name in LOCAL:
            for agent in _owners(name):
                self._write(agent, name)
        self._environment = os.environ | {
            "ARCHISYNC_DATABASE_URL": self._postgres.url,
            "ARCHISYNC_REDIS_URL": self._valkey.url,
            "ARCHISYNC_SOURCE": f"exec:{script} {{agent}} {{type}} {self._erp}",
            **{f"ARCHISYNC_SOURCE_{name.upper()}": f"{self._erp}/{{agent}}/{{type}}.csv" for name in LOCAL},
            **SETTINGS,
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._continue_all()
        for process in (*self._workers, *self._ticks):
            process.kill()
            process.wait()
        self._stack.close()

    def _prepare(self, db: Database) -> None:
        migrations.migrate(db, {})
        db.execute(f"update system.sync_settings set interval_minutes = {INTERVAL_MINUTES}")
        row = db.execute("select now()::text as now").fetchone()
        assert row is not None
        db.execute(SQL_FAST_CLOCK.format(start=row["now"], speed=CLOCK_SPEED))
        oracle.watch(db)
        for agent in AGENTS:
            agents.add(db, agent, name=None, whitelisted=True)

    # --- the run ---------------------------------------------------------------------------------------------

    def run(self) -> Figures:
        begun = time.monotonic()
        next_fault = begun + 2 * TICK_EVERY_S  # there must be something to break first
        while (now := time.monotonic()) < begun + self._seconds:
            self._keep_going(now)
            if now >= next_fault:
                next_fault = now + self._random.expovariate(1 / FAULT_EVERY_S)
                self._break_something(now, self._faults)
            elif self._random.random() < NEW_FAULT_CHANCE:
                self._break_something(now, sorted(self._faults.keys() - self.figures.faults.keys()))
            time.sleep(LOOK_EVERY_S)
        self._continue_all()
        self._valkey_returns()
        self._recover()
        self._account()
        return self.figures

    def _keep_going(self, now: float) -> None:
        """Do what cron, systemd or Kubernetes do: start a tick each minute (of the clock), and workers that have ended."""
        for when, pid in [s for s in self._stopped if s[0] <= now]:
            self._stopped.remove((when, pid))
            _signal(pid, signal.SIGCONT)
        if self._valkey_back_at is not None and self._valkey_back_at <= now:
            self._valkey_returns()
        if self._random.random() < NEW_FILE_CHANCE:
            name = self._random.choice(LOCAL)
            self._write(self._random.choice(_owners(name)), name)
        if now >= self._next_check:
            self._next_check = now + CHECK_EVERY_S
            self.figures.broken.update(oracle.violations(self._db))
        if now >= self._next_tick:
            self._next_tick = now + TICK_EVERY_S * self._random.uniform(0.7, 1.3)
            self._ticks.append(self._start("tick"))
        for tick in [t for t in self._ticks if t.poll() is not None]:
            self._ticks.remove(tick)
            self.figures.ticks[f"ended {tick.returncode}" if tick.returncode >= 0 else "killed"] += 1
        self._workers = [w for w in self._workers if w.poll() is None]
        while len(self._workers) < WORKERS:
            self._workers.append(self._start("worker", "--single"))

    def _write(self, agent: str, sync_type: str) -> None:
        """A new version of an export in its file, which a worker reads whole or not at all."""
        path = self._erp / agent / f"{sync_type}.csv"
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(FILES[sync_type].format(self._random.random()), "utf-8")
        new.rename(path)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "archisync", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    # --- faults ----------------------------------------------------------------------------------------------

    def _break_something(self, now: float, names: Iterable[str]) -> None:
        """One of these faults, by chance. A fault that finds nothing to break gives way to another."""
        weights = {name: self._faults[name][0] for name in names}
        while weights:
            (name,) = self._random.choices(list(weights), list(weights.values()))
            if self._faults[name][1](now):
                self.figures.faults[name] += 1
                return
            del weights[name]

    def _kill(self, processes: list[subprocess.Popen[bytes]], number: signal.Signals = signal.SIGKILL) -> bool:
        alive = [p for p in processes if p.poll() is None]
        return bool(alive) and _signal(self._random.choice(alive).pid, number)

    def _children(self) -> list[int]:
        return [child for worker in self._workers if worker.poll() is None for child in _children(worker.pid)]

    def _kill_child(self, _now: float) -> bool:
        children = self._children()
        return bool(children) and _signal(self._random.choice(children), signal.SIGKILL)

    def _stop_one(self, now: float) -> bool:
        """SIGSTOP, and SIGCONT later: up to and beyond the lease. A worker may stop with or without its child."""
        pids = [p.pid for p in (*self._workers, *self._ticks) if p.poll() is None] + self._children()
        if not pids:
            return False
        pid = self._random.choice(pids)
        self._stopped.append((now + self._random.uniform(0.1, LONGEST_STOP_S), pid))
        return _signal(pid, signal.SIGSTOP)

    def _redis(self, command: Callable[[redis.Redis], object]) -> bool:
        with suppress(redis.RedisError), redis.Redis.from_url(self._valkey.url, socket_timeout=2) as client:
            command(client)
            return True
        return False

    def _kill_valkey(self, now: float) -> bool:
        if self._valkey_back_at is not None:
            return False
        self._valkey.kill()
        self._valkey_back_at = now + self._random.uniform(0.1, 2.0)
        return True

    def _valkey_returns(self) -> None:
        if self._valkey_back_at is not None:
            self._valkey.start()
            self._valkey_back_at = None

    def _cut_postgres(self, _now: float) -> bool:
        row = self._db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            " and application_name like 'archisync %' order by random() limit 1"
        ).fetchone()
        return row is not None

    def _continue_all(self) -> None:
        for _, pid in self._stopped:
            _signal(pid, signal.SIGCONT)
        self._stopped.clear()

    # --- the account -----------------------------------------------------------------------------------------

    def _number(self, statement: str, **params: object) -> int:
        row = self._db.execute(statement, params).fetchone()
        assert row is not None
        return int(next(iter(row.values())))

    def _recover(self) -> None:
        """Go on without faults until every pair has succeeded with a newer export, for four intervals at most."""
        ended = time.monotonic()
        newest = self._number("select coalesce(max(id), 0) from system.runs")
        while (passed := (time.monotonic() - ended) / INTERVAL_S) < 4:
            self._keep_going(time.monotonic())
            fresh = self._number(
                "select count(distinct (sync_type, agent_id)) from system.sync_runs"
                " where state = 'succeeded' and trigger = 'scheduled' and id > %(newest)s",
                newest=newest,
            )
            if fresh == self._number("select count(*) from system.sync_state where active"):
                self.figures.fresh_after_intervals = passed
                return
            time.sleep(0.05)

    def _account(self) -> None:
        figures = self.figures
        rows = self._db.execute("select state, count(*) as n from system.sync_runs group by state").fetchall()
        figures.states = {row["state"]: row["n"] for row in rows}
        figures.attempts = self._number("select sum(attempt) from system.runs")
        figures.unchanged = self._number("select count(*) from system.sync_runs where reason = 'unchanged-at-source'")
        figures.lost = self._number(
            "select count(*) from system.unfinished_runs where queued_at < system.clock() - %(bound)s * interval '1 minute'",
            bound=4 * INTERVAL_MINUTES,
        )
        figures.broken.update(oracle.violations(self._db))
        overlaps = self._erp / "overlaps"
        figures.overlapping = len(overlaps.read_text("utf-8").splitlines()) if overlaps.exists() else 0


def _signal(pid: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description="random faults against real ticks and workers")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    if shutil.which("flock") is None:
        parser.error("the ERP of the soak needs flock (util-linux)")
    print(f"seed {arguments.seed}", flush=True)
    with Soak(seconds=arguments.seconds, seed=arguments.seed) as soak:
        figures = soak.run()
    print(figures, figures.violations or "no violations", sep="\n")
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
