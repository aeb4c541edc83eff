"""Other ways to queue many jobs, as their documentation shows them. Each gives jobs per second over `jobs` jobs.

Each gets an empty Valkey and a database of its own. A peer that is not installed raises `MissingPeerError` with the reason.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import redis

from archisync.queue.job import JOB_FUNCTION
from archisync.queue.joblist import rq_queue
from tests.benchmarks.figures import timed

BATCH = 1_000
LARGE_BATCH = 10_000
"""For peers that put a batch into one statement."""
SLOW_JOBS = 10_000
"""Enough for peers that need a round trip for each job."""
NPM_TIMEOUT_S = 120
_NAME = "peer"


class MissingPeerError(Exception):
    """The reason why a peer is left out."""


@dataclass(frozen=True, kw_only=True)
class Servers:
    """`database_url`: an empty database."""

    database_url: str
    redis_url: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`target`: how many times as fast archisync has to be."""

    name: str
    target: float
    rate: Callable[[Servers, int], float]


def _require(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise MissingPeerError(f"{package} is not installed (the extra `bench`)")


def rq_enqueue_many(servers: Servers, jobs: int) -> float:
    with redis.Redis.from_url(servers.redis_url) as client:
        q = rq_queue(client, _NAME)

        def enqueue() -> None:
            for start in range(0, jobs, BATCH):
                q.enqueue_many(
                    [
                        q.prepare_data(
                            JOB_FUNCTION, args=[number, 1], job_id=f"run-{number}", result_ttl=0, failure_ttl=3600
                        )
                        for number in range(start, min(start + BATCH, jobs))
                    ]
                )

        seconds = timed(enqueue)
        _counted(q.count, jobs)
    return jobs / seconds


def rq_unique(servers: Servers, jobs: int) -> float:
    jobs = min(jobs, SLOW_JOBS)
    with redis.Redis.from_url(servers.redis_url) as client:
        q = rq_queue(client, _NAME)

        def enqueue() -> None:
            for number in range(jobs):
                q.enqueue(JOB_FUNCTION, number, 1, job_id=f"run-{number}", unique=True)

        seconds = timed(enqueue)
        _counted(q.count, jobs)
    return jobs / seconds


def celery(servers: Servers, jobs: int) -> float:
    _require("celery")
    import celery as library

    jobs = min(jobs, SLOW_JOBS)
    app = library.Celery(_NAME, broker=servers.redis_url.replace("unix://", "redis+socket://").replace("?db=0", ""))
    app.conf.update(task_ignore_result=True, task_default_queue=_NAME)

    @app.task(name="archisync.work.job.sync")  # type: ignore[untyped-decorator]
    def task(run_id: int, fence: int) -> None:
        """Never run here."""

    def enqueue() -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for number in range(jobs):
                task.apply_async((number, 1), producer=producer)

    seconds = timed(enqueue)
    app.close()
    with redis.Redis.from_url(servers.redis_url) as client:
        _counted(int(client.llen(_NAME)), jobs)
    return jobs / seconds


def procrastinate(servers: Servers, jobs: int) -> float:
    _require("procrastinate", "psycopg_pool")
    import procrastinate as library
    from procrastinate.jobs import Job

    app = library.App(connector=library.SyncPsycopgConnector(conninfo=servers.database_url))
    with app.open():
        app.schema_manager.apply_schema()

        def enqueue() -> None:
            for start in range(0, jobs, BATCH):
                app.job_manager.batch_defer_jobs(
                    [
                        Job(
                            queue=_NAME,
                            lock=None,
                            queueing_lock=f"run-{number}",
                            task_name="archisync.work.job.sync",
                            task_kwargs={"run_id": number, "fence": 1},
                        )
                        for number in range(start, min(start + BATCH, jobs))
                    ]
                )

        seconds = timed(enqueue)
        _counted(sum(each["jobs_count"] for each in app.job_manager.list_queues()), jobs)
    return jobs / seconds


def pgqueuer(servers: Servers, jobs: int) -> float:
    _require("pgqueuer", "asyncpg")
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    async def enqueue() -> float:
        connection = await asyncpg.connect(servers.database_url)
        queries = Queries(AsyncpgDriver(connection))
        await queries.install()
        begun = asyncio.get_running_loop().time()
        for start in range(0, jobs, LARGE_BATCH):
            numbers = range(start, min(start + LARGE_BATCH, jobs))
            await queries.enqueue(
                ["archisync.work.job.sync"] * len(numbers),
                [b"[%d, 1]" % number for number in numbers],
                [0] * len(numbers),
                dedupe_key=[f"run-{number}" for number in numbers],
                on_conflict="skip",
            )
        seconds = asyncio.get_running_loop().time() - begun
        _counted(sum(each.count for each in await queries.queue_size()), jobs)
        await connection.close()
        return seconds

    return jobs / asyncio.run(enqueue())


_BULLMQ = """
const { Queue } = require('bullmq');
const [address, jobs, batch] = JSON.parse(process.argv[2]);
(async () => {
  const queue = new Queue('peer', { connection: address });
  await queue.waitUntilReady();
  const begun = process.hrtime.bigint();
  for (let start = 0; start < jobs; start += batch) {
    const some = [];
    for (let n = start; n < Math.min(start + batch, jobs); n++)
      some.push({ name: 'sync', data: [n, 1], opts: { deduplication: { id: `run-${n}` }, removeOnComplete: true } });
    await queue.addBulk(some);
  }
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  console.log(JSON.stringify([seconds, (await queue.getJobCounts('waiting')).waiting]));
  await queue.close();
})();
"""


def bullmq(servers: Servers, jobs: int) -> float:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise MissingPeerError("Node.js is not on this machine")
    folder = servers.folder / "bullmq"
    if not (folder / "node_modules" / "bullmq").is_dir():
        folder.mkdir(exist_ok=True)
        command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", "bullmq", "ioredis"]
        if subprocess.run(command, check=False, capture_output=True, timeout=NPM_TIMEOUT_S).returncode:
            raise MissingPeerError("npm can't install bullmq here")
    (folder / "bench.js").write_text(_BULLMQ, "utf-8")
    address = {"path": unquote(urlsplit(servers.redis_url).path)}
    done = subprocess.run(
        [node, str(folder / "bench.js"), json.dumps([address, jobs, BATCH])], check=True, capture_output=True, text=True
    )
    seconds, waiting = json.loads(done.stdout.splitlines()[-1])
    _counted(waiting, jobs)
    return jobs / float(seconds)


def _counted(found: int, expected: int) -> None:
    """The speed of a queue that lost a job means nothing."""
    if found != expected:
        raise AssertionError(f"{found} jobs are queued, not {expected}")


PEERS = (
    Peer(name="RQ `enqueue_many`, delivery only", target=3, rate=rq_enqueue_many),
    Peer(name="RQ `enqueue(…, unique=True)` in a loop, delivery only", target=10, rate=rq_unique),
    Peer(name="Celery `apply_async`, producer reused", target=15, rate=celery),
    Peer(name="procrastinate `batch_defer` with queueing locks", target=2.5, rate=procrastinate),
    Peer(name="BullMQ `addBulk` with deduplication", target=1.8, rate=bullmq),
    Peer(name="pgqueuer bulk enqueue with deduplication", target=0.6, rate=pgqueuer),
)
