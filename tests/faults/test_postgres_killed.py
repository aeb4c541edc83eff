"""PostgreSQL is killed, and connections are reset, at points all along a tick and an apply: the table is as before or as after, and the
next tick repairs the rest."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from archisync.base.errors import UnreachableError
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.schedule.tick import tick
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, queued_runs
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from tests.faults import oracle
from tests.support.proxy import Proxy
from tests.support.rows import count, drain, fingerprint
from tests.support.versions import AGENT, Versions

ORDERS = "order_id,order_number,created_at\n1,O1,2026-01-01\n"
KILLS = 20
KILLS_AFTER_A_RUN = 5
RESETS = 30
VARYING_BYTES = 32
"""How much shorter than the first round a later one may be: durations have more digits or fewer. No point may lie beyond its end."""
END_BYTES = 5000
"""The conversation from the end of a run on: its commit, and what a worker asks afterwards."""


class Rounds:
    """Each round is one hour: a tick, and a job in which the orders are unchanged and a new version of the customers is applied. It can be
    broken anywhere along their conversation. `forced`: a person waits for the customers, so the commit of that run waits for the disk."""

    def __init__(self, url: str, redis_url: str, folder: Path, proxy: Proxy | None = None, *, forced: bool) -> None:
        self._url, self._proxy, self._forced = url, proxy, forced
        self._versions = Versions(folder)
        self._config = Config.from_environment(
            {
                "ARCHISYNC_DATABASE_URL": url,
                "ARCHISYNC_REDIS_URL": redis_url,
                "ARCHISYNC_SOURCE": self._versions.template,
            }
        )
        self._hour = 0
        with connected(url, purpose="test") as db:
            oracle.watch(db)
            agents.add(db, AGENT, name=None, whitelisted=True)
            db.execute("update system.sync_settings set enabled = sync_type in ('customers', 'orders')")
        (folder / AGENT / "orders.csv").write_text(ORDERS, "utf-8")

    def next(self) -> None:
        """All that was committed is on the disk, and there is a new version."""
        with connected(self._url, purpose="test") as db:
            if self._forced:
                queued_runs.force(db, "customers", AGENT, by="test", why=None)
            db.execute("checkpoint")
        self._hour += 1
        self._versions.write(1000 + self._hour)  # always four digits, so that all rounds have the same length

    def through_proxy(self) -> None:
        """Raises UnreachableError when the connection is broken."""
        assert self._proxy is not None
        with connected(self._proxy.url(self._url), purpose="broken") as db:
            self.work(db)

    def work(self, db: Database) -> None:
        self._set_clock(db, 0)
        tick(db, self._config)
        drain(db, self._config)

    def _set_clock(self, db: Database, minute: int) -> None:
        db.execute(f"set archisync.now = '2026-05-{1 + self._hour // 24:02}T{self._hour % 24:02}:{minute:02}:00Z'")

    def hash(self) -> str:
        with connected(self._url, purpose="test") as db:
            return fingerprint(db, SYNC_TYPES["customers"])

    def applied(self) -> int:
        with connected(self._url, purpose="test") as db:
            return count(
                db, "select count(*) from system.sync_runs where reason = 'applied' and sync_type = 'customers'"
            )

    def mend(self) -> None:
        """Do what the next ticks and workers do, once the lease of a broken run has expired."""
        with connected(self._url, purpose="test") as db:
            self._set_clock(db, 14)
            tick(db, self._config)
            drain(db, self._config)
            assert count(db, "select count(*) from system.unfinished_runs") == 0
            assert oracle.violations(db) == {}

    def break_at_each_part(self, parts: int, action: Callable[[], object], repair: Callable[[], object]) -> list[str]:
        """Whether the table was as "before" or as "after" once everything was up again, for each round; "third" is a bug."""
        assert self._proxy is not None
        for _ in range(2):  # the first load is a longer conversation than the ones that follow
            self.next()
            self._proxy.after(1 << 40, lambda: None)
            self.through_proxy()
        length, before, found = self._proxy.sent - VARYING_BYTES, self.hash(), []
        for at in _points(length, parts):
            self.next()
            broken = Event()

            def spoil(broken: Event = broken) -> None:
                action()
                broken.set()

            self._proxy.after(at, spoil)
            with suppress(UnreachableError):
                self.through_proxy()
            assert broken.wait(10)
            repair()
            seen = self.hash()
            self.mend()
            after = self.hash()
            found.append("before" if seen == before else "after" if seen == after else "third")
            assert before != after
            assert self.applied() == self._hour  # each version was applied once
            before = after
        return found


def _points(length: int, count: int) -> list[int]:
    """`count` points: half of them evenly along the conversation, half around the commit and what follows it."""
    half = count // 2
    along = [length * (2 * part + 1) // (2 * half) for part in range(half)]
    return along + [length - END_BYTES * part // half for part in range(count - half)]


@pytest.fixture
def own_url(own_postgres: EmbeddedPostgres) -> str:
    with connected(own_postgres.url, purpose="test") as db:
        migrate(db, {})
    return own_postgres.url


@pytest.fixture
def proxy(own_url: str) -> Iterator[Proxy]:
    with Proxy.of(own_url) as proxy:
        yield proxy


@pytest.mark.slow
def test_postgresql_killed_twenty_times_leaves_each_table_as_before_or_as_after(
    own_postgres: EmbeddedPostgres, own_url: str, redis_url: str, tmp_path: Path, proxy: Proxy
) -> None:
    rounds = Rounds(own_url, redis_url, tmp_path, proxy, forced=True)
    found = rounds.break_at_each_part(KILLS, own_postgres.kill, own_postgres.start)
    assert set(found) == {"before", "after"}, found
    assert len(found) == KILLS


@pytest.mark.slow
@pytest.mark.parametrize("forced", [False, True])
def test_postgresql_killed_right_after_a_run_keeps_its_data_and_its_end_or_forgets_both(
    own_postgres: EmbeddedPostgres, own_url: str, redis_url: str, tmp_path: Path, *, forced: bool
) -> None:
    """Somebody may wait for a forced run: it is never forgotten."""
    rounds = Rounds(own_url, redis_url, tmp_path, forced=forced)
    kept = 0
    for done in range(KILLS_AFTER_A_RUN):
        rounds.next()
        before = rounds.hash()
        with connected(own_url, purpose="test") as db:
            rounds.work(db)
            assert rounds.hash() != before
            own_postgres.kill()
        own_postgres.start()
        seen, ended = rounds.hash(), rounds.applied()
        assert (seen, ended) == (before, done) or (seen != before and ended == done + 1)
        kept += ended - done
        rounds.mend()
        assert rounds.applied() == done + 1
        assert seen in (before, rounds.hash())
    assert kept == KILLS_AFTER_A_RUN if forced else kept < KILLS_AFTER_A_RUN


@pytest.mark.slow
def test_a_connection_reset_after_any_number_of_bytes_leaves_each_table_as_before_or_as_after(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with Proxy.of(database_url) as proxy:
        rounds = Rounds(database_url, redis_url, tmp_path, proxy, forced=False)
        found = rounds.break_at_each_part(RESETS, proxy.reset, proxy.resume)
    assert set(found) == {"before", "after"}, found
