"""Commands on the PostgreSQL that the operating system has, as it is installed: JIT on, no statistics of our tables. And what is done for
many agents at once.

Whole processes, against a process that only imports psycopg, connects and selects; and against the same command on the embedded server.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median
from urllib.parse import urlsplit

from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import history
from archisync.store.database import connected
from archisync.store.migrations import migrate
from tests.benchmarks.figures import Figure, Settings, side_by_side, spread, timed
from tests.support.systempostgres import PROGRAMS, system_postgres

BARE = "import psycopg; psycopg.connect({url!r}, autocommit=True).execute('select 1').fetchall()"
AGENTS = "insert into agents.users (id, whitelisted) select %(prefix)s || n, true from generate_series(1, %(n)s) n"
MANY = 2_000
"""Agents: 8,002 pairs."""
CROWD = 20_000
COMMANDS: dict[str, float | None] = {
    "status": 2.5, "metrics": 4, "tick": None, "history": None, "plan": None, "agent list": None, "held list": None,
    "why orders a1": None, "interval list": None, "rest list": None, "audit list": None,
}  # fmt: skip
"""Each with the most that it may take, in times of the bare process."""
MOST_OF_EMBEDDED = 2.0
AS_INSTALLED = ("autovacuum=off",)
"""No statistics come by themselves in the first minute."""


class Site:
    """A migrated database with so many agents, all of whose pairs are queued, and commands on it."""

    def __init__(self, server_url: str, valkey_url: str, agents: int) -> None:
        name = f"installed_{agents}"
        with connected(server_url, purpose="bench") as db:
            db.execute(f"create database {name}")
        self.url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
        self._environment = os.environ | {
            "ARCHISYNC_DATABASE_URL": self.url, "ARCHISYNC_REDIS_URL": valkey_url, "ARCHISYNC_SOURCE": "/none/{agent}/{type}.csv",
        }  # fmt: skip
        with connected(self.url, purpose="bench") as db:
            migrate(db, {})
            db.execute(AGENTS, {"prefix": "a", "n": agents})
        self.seconds("tick")

    def seconds(self, command: str) -> float:
        """The time of the whole process."""
        return self._timed("-m", "archisync", *command.split())

    def bare_s(self) -> float:
        return self._timed("-c", BARE.format(url=self.url))

    def _timed(self, *words: str) -> float:
        def run() -> None:
            subprocess.run([sys.executable, *words], env=self._environment, check=True, capture_output=True)

        return timed(run)


def figures(settings: Settings) -> Iterator[Figure]:
    with (
        ExitStack() as stack,
        temporary_folder() as folder,
        EmbeddedPostgres(folder, durable=False) as embedded,
        EmbeddedValkey(folder, durable=False) as valkey,
    ):
        here = [Site(embedded.url, valkey.url, agents) for agents in (1, MANY)]
        yield from _many_at_once(here[1], settings)
        if PROGRAMS is None:
            print(" no PostgreSQL of the operating system", file=sys.stderr)
            return
        installed = stack.enter_context(system_postgres(*AS_INSTALLED))
        there = [Site(installed, valkey.url, agents) for agents in (1, MANY)]
        for command, most in COMMANDS.items():
            for agents, other, same in zip((1, MANY), there, here, strict=True):
                yield from _command(command, most, agents, other, same, settings)


def _command(
    command: str, most: float | None, agents: int, there: Site, here: Site, settings: Settings
) -> Iterator[Figure]:
    ours, bare, embedded = side_by_side(
        settings.rounds, lambda: there.seconds(command), there.bare_s, lambda: here.seconds(command)
    )
    print(f" {command}, {agents} agents: {ours:.3f} s, bare {bare:.3f} s, embedded {embedded:.3f} s", file=sys.stderr)
    size = f"{agents:,} agent{'s' if agents > 1 else ''}"
    for against, peer, target in (
        ("a process that connects and selects", bare, most),
        ("the embedded server", embedded, MOST_OF_EMBEDDED),
    ):
        if target is not None:
            yield Figure(
                name=f"archisync {command}, system's PostgreSQL, {size}", unit="ms", ours=ours * 1000, against=against,
                peer=peer * 1000, ratio=ours / peer, target=target, at_most=True,
            )  # fmt: skip


def _within(name: str, unit: str, values: list[float], limit: float) -> Figure:
    return Figure(
        name=name, unit=unit, ours=median(values), against="the limit", peer=limit, ratio=median(values) / limit, target=1,
        at_most=True, note=spread(values),
    )  # fmt: skip


def _many_at_once(site: Site, settings: Settings) -> Iterator[Figure]:
    with connected(site.url, purpose="bench") as db:
        forced, polled = [], []
        for _ in range(settings.rounds):
            db.execute("truncate system.queued_runs, system.claims, system.deliveries")
            db.execute("update system.sync_state set unfinished_run_id = null")
            forced.append(site.seconds("run all"))
            ids = [row["id"] for row in db.execute("select id from system.queued_runs").fetchall()]
            polled.append(timed(lambda ids=ids: history.ended(db, ids)) * 1000)  # type: ignore[misc]
        yield _within(f"archisync run all, {len(ids):,} pairs, whole process", "s", forced, 3)
        yield _within(f"a look of run --wait at {len(ids):,} runs, of which none has ended", "ms", polled, 20)
        denied, allowed = [], []
        db.execute(AGENTS, {"prefix": "b", "n": CROWD})
        for _ in range(settings.rounds):
            denied.append(timed(lambda: db.execute("update agents.users set whitelisted = false where id like 'b%'")))
            allowed.append(timed(lambda: db.execute("update agents.users set whitelisted = true where id like 'b%'")))
        yield _within(f"one update that denies {CROWD:,} agents", "s", denied, 2)
        yield _within(f"one update that allows {CROWD:,} agents", "s", allowed, 2)
