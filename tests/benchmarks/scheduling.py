"""The tick: the cost of an idle one, as a process and in the database, and how fast a tick queues and delivers due runs, against other ways
to queue as many jobs. Writes the plans of the due query to `plans.md` and the cost of an idle tick to `idle-tick.svg`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import redis

from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.schedule.deliver import DELIVERY_JOBS
from archisync.schedule.queueing import QUEUE_BATCH
from archisync.schedule.tick import tick
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import agents, queued_runs, ticks
from archisync.store import settings as store_settings
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from tests.benchmarks import registry
from tests.benchmarks.datapath import PEAK
from tests.benchmarks.figures import Figure, Settings, side_by_side, timed
from tests.benchmarks.peers import PEERS, MissingPeerError, Peer, Servers
from tests.benchmarks.plot import line_chart
from tests.support.rows import forget_runs

FOLDER = Path(__file__).parent
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
QUICK_SIZES = (100, 1_000)
PAIRS_AT_ONCE = 100_000
IDLE_TICKS = 15
MOST_TICKS = 10
LONGEST_TICK_S = 50
MOST_MEMORY_MIB = 200


class Place:
    """The two servers, and a database for each number of agents."""

    def __init__(self, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, folder: Path) -> None:
        self._postgres, self.valkey, self.folder = postgres, valkey, folder

    def url(self, name: str) -> str:
        return self._postgres.url.replace("/archisync?", f"/{name}?")

    def empty_database(self, name: str) -> None:
        with connected(self._postgres.url, purpose="bench", answer_timeout_s=600) as db:
            db.execute(f"drop database if exists {name} with (force)".encode())
            db.execute(f"create database {name}".encode())

    def registered(self, count: int) -> None:
        self.empty_database(f"agents_{count}")
        with self.database(count) as db:
            migrate(db, {})
            registry.load(db, count)

    @contextmanager
    def database(self, count: int) -> Iterator[Database]:
        with connected(self.url(f"agents_{count}"), purpose="bench", answer_timeout_s=600) as db:
            yield db

    def config(self, count: int) -> Config:
        return Config.from_environment(
            {
                "ARCHISYNC_DATABASE_URL": self.url(f"agents_{count}"),
                "ARCHISYNC_REDIS_URL": self.valkey.url,
                "ARCHISYNC_SOURCE": "/none/{agent}/{type}.csv",
            }
        )

    @contextmanager
    def emptied_valkey(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()
            yield client

    def idle_s(self, count: int) -> float:
        """The seconds of an idle tick, on a connection of its own."""

        def work() -> None:
            with self.database(count) as db:
                summary = tick(db, self.config(count))
                assert summary.due == summary.enqueued == 0

        return statistics.median(timed(work) for _ in range(IDLE_TICKS))

    def due_s(self, count: int, pairs: int) -> float:
        """The seconds of a tick with that many pairs due. Each must be queued once in PostgreSQL and once in Redis.

        Slots that are all the same have no order, so two runs of an agent may be in two jobs: the first one takes both."""
        with self.database(count) as db, self.emptied_valkey() as client:
            registry.make_due(db, pairs)
            seconds = timed(lambda: tick(db, self.config(count)))
            found = delivered(db, client)
            assert found.runs == pairs, found
            assert pairs // registry.AGENT_TYPES <= found.jobs < pairs // 2, found
        return seconds


class Delivered(NamedTuple):
    """Runs that are marked as delivered and whose job is in Redis exactly once; jobs in Redis. A job is an agent with its runs."""

    runs: int
    jobs: int


def delivered(db: Database, client: redis.Redis) -> Delivered:
    listed = Counter(bytes(job_id).decode() for job_id in client.lrange("rq:queue:archisync", 0, -1))  # type: ignore[arg-type]
    rows = db.execute(
        "select 'agent-' || q.delivery_id || '-' || q.job_no as job, count(*) as runs from system.queued_runs q"
        " join system.deliveries d on d.id = q.delivery_id where d.delivered_at is not null group by 1"
    ).fetchall()
    return Delivered(sum(row["runs"] for row in rows if listed[row["job"]] == 1), listed.total())


def figures(settings: Settings) -> Iterator[Figure]:
    sizes = QUICK_SIZES if settings.quick else SIZES
    with (
        temporary_folder() as folder,
        EmbeddedPostgres(folder, durable=True) as postgres,
        EmbeddedValkey(folder, durable=False) as valkey,
    ):
        place = Place(postgres, valkey, folder)
        for count in dict.fromkeys((*sizes, 1_000, 25_000)):
            print(f" loading {count:,} agents", file=sys.stderr)
            place.registered(count)
        yield from _starting(place, settings)
        yield from _idle(place, settings, sizes)
        yield from _share(place, settings, sizes[-1])
        yield from _at_once(place, settings)
        yield from _all_at_once(place, settings, sizes[-1])
        yield from _edits(place, sizes[-1])


# --- a process --------------------------------------------------------------------------------------------------------


def _starting(place: Place, settings: Settings) -> Iterator[Figure]:
    print(" start-up", file=sys.stderr)
    script = Path(sys.executable).with_name("archisync")
    archisync = [str(script)] if script.exists() else [sys.executable, "-m", "archisync"]
    environment = os.environ | dict(place.config(100).environment)
    ask = "; connection = psycopg.connect({!r}); connection.execute('select 1').fetchone(); connection.close()".format(
        place.url("agents_100")
    )
    programs = {
        "tick": [*archisync, "tick"],
        "version": [*archisync, "--version"],
        "help": [*archisync, "--help"],
        "pass": [sys.executable, "-c", "pass"],
        "psycopg": [sys.executable, "-c", f"import psycopg{ask}"],
        "all": [sys.executable, "-c", f"import typer, psycopg, redis, rq{ask}"],
    }

    def seconds(command: list[str]) -> Callable[[], float]:
        return lambda: timed(lambda: subprocess.run(command, env=environment, check=True, capture_output=True))

    measured = side_by_side(settings.rounds * 3, *map(seconds, programs.values()))
    took = dict(zip(programs, measured, strict=True))
    for name, ours, peer, against, target in (
        ("idle `archisync tick`", "tick", "psycopg", "`python -c` that imports psycopg, connects, selects once", 1.3),
        ("idle `archisync tick`", "tick", "all", "the same that imports typer, psycopg, redis and rq first", 0.55),
        ("`archisync --version`", "version", "pass", "`python -c pass`", 6),
        ("`archisync --help`", "help", "pass", "`python -c pass`", 12),
    ):
        yield Figure(
            name=f"{name}, whole process",
            unit="ms",
            ours=took[ours] * 1000,
            against=against,
            peer=took[peer] * 1000,
            ratio=took[ours] / took[peer],
            target=target,
            at_most=True,
        )


# --- an idle tick -----------------------------------------------------------------------------------------------------


def _idle(place: Place, settings: Settings, sizes: tuple[int, ...]) -> Iterator[Figure]:
    print(" idle ticks", file=sys.stderr)
    works = [lambda count=count: place.idle_s(count) for count in sizes]
    measured = [seconds * 1000 for seconds in side_by_side(settings.rounds, *works)]
    if not settings.quick:
        (FOLDER / "plans.md").write_text(_plans(place, (sizes[0], sizes[-1])), "utf-8")
        chart = line_chart(
            "An idle tick (connect, decide, leave a heartbeat)",
            "whitelisted agents",
            "ms",
            list(zip(sizes, measured, strict=True)),
        )
        (FOLDER / "idle-tick.svg").write_text(chart, "utf-8")
    yield Figure(
        name=f"idle tick, {sizes[-1]:,} whitelisted agents",
        unit="ms",
        ours=measured[-1],
        against=f"{sizes[0]:,} agents",
        peer=measured[0],
        ratio=measured[-1] / measured[0],
        target=1.2,
        at_most=True,
    )


def _plans(place: Place, sizes: tuple[int, ...]) -> str:
    parts = [
        "# Plans of a tick with nothing to do\n",
        "`EXPLAIN (ANALYZE, BUFFERS)`, as `make bench` saw them, of the question whether there is anything to do, which is all that an idle"
        " tick asks, and of the statement that queues what is due, which comes after it when there is. What to look for:"
        " `sync_state_by_slot` is asked at its ends for each type, and the number of buffers does not depend on the number of agents.\n",
    ]
    statements = {
        "is there anything to do?": (
            ticks.SQL_ANYTHING_TO_DO,
            {"history_days": 90, "kept_days": ticks.KEPT_DAYS, "hook": False},
        ),
        "queue what is due": (queued_runs.SQL_INSERT_DUE, {"limit": QUEUE_BATCH, "batch": DELIVERY_JOBS}),
    }
    for title, (statement, params) in statements.items():
        for count in sizes:
            with place.database(count) as db, db.transaction(force_rollback=True):
                lines = db.execute(f"explain (analyze, buffers) {statement}", params).fetchall()
            plan = "\n".join(str(line["QUERY PLAN"]) for line in lines)
            parts.append(f"## {count:,} agents: {title}\n\n```\n{plan}\n```\n")
    return "\n".join(parts)


# --- a tick with much to do ---------------------------------------------------------------------------------------------


def _share(place: Place, settings: Settings, largest: int) -> Iterator[Figure]:
    print(" 1 % due", file=sys.stderr)
    small, large = 1_000, max(largest * registry.AGENT_TYPES // 100, registry.AGENT_TYPES)
    place.due_s(1_000, small)  # imports redis and rq
    ours, peer = side_by_side(
        settings.rounds, lambda: place.due_s(largest, large) / large, lambda: place.due_s(1_000, small) / small
    )
    yield Figure(
        name=f"tick with {large:,} of {largest * registry.AGENT_TYPES + 2:,} pairs due: time for each",
        unit="µs",
        ours=ours * 1e6,
        against=f"{small:,} due of {1_000 * registry.AGENT_TYPES + 2:,}",
        peer=peer * 1e6,
        ratio=ours / peer,
        target=1.2,
        at_most=True,
    )


def _at_once(place: Place, settings: Settings) -> Iterator[Figure]:
    pairs = 4_000 if settings.quick else PAIRS_AT_ONCE
    missing: dict[str, str] = {}

    def ours() -> float:
        return pairs / place.due_s(25_000, pairs)

    def theirs(peer: Peer) -> Callable[[], float]:
        def rate() -> float:
            place.empty_database("peer")
            with place.emptied_valkey():
                servers = Servers(database_url=place.url("peer"), redis_url=place.valkey.url, folder=place.folder)
                try:
                    return peer.rate(servers, pairs)
                except MissingPeerError as exc:
                    missing[peer.name] = str(exc)
                    return float("nan")

        return rate

    print(f" {pairs:,} due, and peers", file=sys.stderr)
    our_rate, *rates = side_by_side(settings.rounds, ours, *map(theirs, PEERS))
    for peer, rate in zip(PEERS, rates, strict=True):
        away = missing.get(peer.name)
        yield Figure(
            name=f"tick with {pairs:,} due: inserted, delivered and marked",
            unit="runs/s",
            ours=our_rate,
            against=peer.name,
            peer=None if away else rate,
            ratio=None if away else our_rate / rate,
            target=peer.target,
            note=away or f"{pairs // registry.AGENT_TYPES:,} jobs: an agent's runs are one",
        )


def _all_at_once(place: Place, settings: Settings, largest: int) -> Iterator[Figure]:
    pairs = largest
    print(f" {pairs:,} due at once", file=sys.stderr)
    environment = os.environ | dict(place.config(largest).environment)
    took, peaks = [], []
    with place.database(largest) as db, place.emptied_valkey() as client:
        registry.make_due(db, pairs)
        for _ in range(MOST_TICKS):
            command = [sys.executable, "-c", PEAK, "tick"]
            ended: list[subprocess.CompletedProcess[str]] = []
            took.append(
                timed(
                    lambda ended=ended, command=command: ended.append(  # type: ignore[misc]
                        subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                    )
                )
            )
            peaks.append(int(ended[0].stderr.splitlines()[-1]) / 2**20)
            if "due 0, enqueued 0" in ended[0].stdout:
                break
        found = delivered(db, client)
    common = {"against": "nothing", "peer": None, "at_most": True}
    yield Figure(
        name=f"{pairs:,} due at once: the longest of {len(took)} ticks",
        unit="s",
        ours=max(took),
        ratio=max(took),
        target=LONGEST_TICK_S,
        note=f"{found.runs:,} runs queued, {found.jobs:,} jobs in the list",
        **common,  # type: ignore[arg-type]
    )
    yield Figure(
        name=f"{pairs:,} due at once: runs delivered twice or not at all",
        unit="",
        ours=float(abs(pairs - found.runs)),
        ratio=float(abs(pairs - found.runs)),
        target=0,
        **common,  # type: ignore[arg-type]
    )
    yield Figure(
        name=f"{pairs:,} due at once: peak memory of a tick",
        unit="MiB",
        ours=max(peaks),
        ratio=max(peaks),
        target=MOST_MEMORY_MIB,
        **common,  # type: ignore[arg-type]
    )


def _edits(place: Place, largest: int) -> Iterator[Figure]:
    """The next tick follows what a person has changed."""
    print(" edits", file=sys.stderr)
    config = place.config(largest)
    with place.database(largest) as db, place.emptied_valkey():
        forget_runs(db)
        db.execute("update system.sync_state set last_slot_at = system.clock() where last_slot_at <> system.clock()")
        registry.settle(db)
        agents.add(db, "a-newcomer", name=None, whitelisted=True)
        agents.add(db, "a-leaver", name=None, whitelisted=True)
        agents.set_whitelisted(db, ["a-leaver"], False)
        tick(db, config)
        found = db.execute(
            "select count(*) filter (where agent_id = 'a-newcomer') as new,"
            " count(*) filter (where agent_id <> 'a-newcomer') as others from system.queued_runs"
        ).fetchone()
        assert found is not None
        yield _count(f"newly whitelisted among {largest:,}: types not queued by the next tick", 4 - found["new"])
        yield _count(f"de-whitelisted among {largest:,}: types queued by the next tick", found["others"])
        some = 50
        db.execute(
            "update system.sync_state set last_slot_at = system.clock() - interval '1 hour' where sync_type = 'orders'"
            " and agent_id in (select id from agents.users where id like 'agent-%%' order by id limit %s)",
            [some],
        )
        with db.transaction():
            before = _updated_rows(db)
            store_settings.set_interval(db, SYNC_TYPES["orders"], 60)
            rewritten = _updated_rows(db) - before
        due = tick(db, config).due
        yield _count("interval changed: pairs that the next tick should have queued and did not", some - due)
        yield _count("interval changed: rows of state rewritten", rewritten)


def _updated_rows(db: Database) -> int:
    """The rows of `sync_state` that this session has updated; compare it with a later answer in the same transaction."""
    row = db.execute("select pg_stat_get_xact_tuples_updated('system.sync_state'::regclass) as n").fetchone()
    assert row is not None
    return int(row["n"])


def _count(name: str, found: int) -> Figure:
    """A count that must be 0."""
    return Figure(
        name=name,
        unit="",
        ours=float(found),
        against="nothing",
        peer=None,
        ratio=float(abs(found)),
        target=0,
        at_most=True,
    )
