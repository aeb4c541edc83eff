"""A push leaves in Redis exactly what RQ itself writes: the two are compared field by field, and RQ reads the jobs back.

A release of RQ that writes another format fails here; in production, `push_delivery` then lets RQ write every job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.queue import EnqueueData
from rq.serializers import JSONSerializer

from archisync.queue import joblist
from archisync.queue.joblist import missing_jobs, rq_queue
from archisync.queue.push import push_delivery
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, claims, deliveries, queued_runs
from archisync.store.database import Database
from archisync.store.deliveries import Delivery
from tests.support.queued import config_for
from tests.support.rows import count

NAME = "archisync"
TIMEOUT_S = 2160
RUNS = [(11, 1), (12, 3), (9_876_543_210, 1)]
SCHEDULED = Delivery(delivery_id=7, forced=False, runs=RUNS)
FORCED = Delivery(delivery_id=8, forced=True, runs=[(21, 1), (22, 1), (23, 1)])
TIMES = (b"created_at", b"enqueued_at")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def enqueue_by_rq(q: Queue, delivery: Delivery) -> None:
    """One call for each run, as RQ's documentation shows it."""
    for run_id, fence in reversed(delivery.runs) if delivery.forced else delivery.runs:
        q.enqueue(
            "archisync.work.job.sync",
            run_id,
            fence,
            job_id=f"run-{run_id}-{fence}-{delivery.delivery_id}",
            job_timeout=TIMEOUT_S,
            result_ttl=0,
            failure_ttl=3600,
            description=f"archisync run {run_id}",
            at_front=delivery.forced,
        )


def contents(client: redis.Redis) -> dict[Any, Any]:
    """Every key with its type, its time to live and its value. Times are checked for their format and left out."""
    found: dict[Any, Any] = {}
    for key in client.keys("*"):
        type_ = client.type(key)
        held: Any
        if type_ == b"hash":
            held = client.hgetall(key)
            held[b"data"] = zlib.decompress(held[b"data"])
            for name in TIMES:
                assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", held.pop(name))
        else:
            held = client.lrange(key, 0, -1) if type_ == b"list" else client.smembers(key)
        found[key] = (type_, client.ttl(key), held)
    return found


@pytest.mark.parametrize("delivery", [SCHEDULED, FORCED], ids=["scheduled", "forced"])
def test_a_push_writes_field_by_field_what_rq_writes(client: redis.Redis, delivery: Delivery) -> None:
    enqueue_by_rq(rq_queue(client, NAME), delivery)
    by_rq = contents(client)
    client.flushall()
    push_delivery(rq_queue(client, NAME), delivery, timeout_s=TIMEOUT_S)
    assert contents(client) == by_rq
    assert len(by_rq) == len(delivery.runs) + 2


def test_the_script_writes_the_jobs_and_not_rq(client: redis.Redis) -> None:
    """Otherwise the comparison above compares RQ with itself."""
    before = client.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"]
    push_delivery(rq_queue(client, NAME), SCHEDULED, timeout_s=TIMEOUT_S)
    assert client.info("commandstats")["cmdstat_eval"]["calls"] == before + 1


def test_rq_reads_each_job_back(client: redis.Redis) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=1)
    push_delivery(rq_queue(client, NAME), SCHEDULED, timeout_s=TIMEOUT_S)
    for run_id, fence in RUNS:
        job = Job.fetch(f"run-{run_id}-{fence}-7", connection=client, serializer=JSONSerializer)
        assert (job.func_name, job.args, job.kwargs) == ("archisync.work.job.sync", [run_id, fence], {})
        assert (job.origin, job.timeout, job.result_ttl, job.failure_ttl) == (NAME, TIMEOUT_S, 0, 3600)
        assert (job.get_status(), job.description) == (JobStatus.QUEUED, f"archisync run {run_id}")
        assert job.enqueued_at is not None
        assert begun <= job.created_at.replace(tzinfo=UTC) <= job.enqueued_at.replace(tzinfo=UTC) <= datetime.now(UTC)
    assert [q.name for q in Queue.all(connection=client)] == [NAME]


def rq_command(*words: str, environment: Mapping[str, str]) -> str:
    """What the command `rq` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "rq.cli", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_rq_info_counts_the_jobs(client: redis.Redis, redis_url: str) -> None:
    push_delivery(rq_queue(client, NAME), SCHEDULED, timeout_s=TIMEOUT_S)
    assert "3 jobs total" in rq_command("info", "--url", redis_url, environment={})


def test_a_plain_rq_worker_does_the_runs(
    connection: Database, client: redis.Redis, database_url: str, redis_url: str
) -> None:
    config = config_for(database_url, redis_url)
    agents.add(connection, "anna.bianchi", name=None, whitelisted=True)
    assert tick(connection, config).enqueued == 6
    words = ["worker", "--burst", "--url", redis_url, "--serializer", "json", NAME]
    rq_command(*words, environment=config.environment)
    assert count(connection, "select count(*) from system.sync_runs where state = 'succeeded'") == 6
    assert client.keys("rq:job:*") == []


def test_a_delivery_pushed_twice_is_queued_once(client: redis.Redis) -> None:
    q = rq_queue(client, NAME)
    push_delivery(q, SCHEDULED, timeout_s=TIMEOUT_S)
    once = contents(client)
    push_delivery(q, SCHEDULED, timeout_s=TIMEOUT_S)
    assert contents(client) == once


def test_only_the_lost_jobs_of_a_delivery_are_queued_again(client: redis.Redis) -> None:
    q = rq_queue(client, NAME)
    push_delivery(q, SCHEDULED, timeout_s=TIMEOUT_S)
    client.delete("rq:job:run-12-3-7")
    client.lrem(q.key, 0, "run-12-3-7")
    push_delivery(q, SCHEDULED, timeout_s=TIMEOUT_S)
    assert q.get_job_ids() == ["run-11-1-7", "run-9876543210-1-7", "run-12-3-7"]


def test_a_later_delivery_of_a_run_has_a_job_of_its_own(client: redis.Redis) -> None:
    q = rq_queue(client, NAME)
    for delivery_id in (7, 9):
        push_delivery(q, Delivery(delivery_id=delivery_id, forced=False, runs=RUNS[:1]), timeout_s=TIMEOUT_S)
    assert q.get_job_ids() == ["run-11-1-7", "run-11-1-9"]


def test_forced_runs_go_to_the_front_and_keep_their_order(client: redis.Redis) -> None:
    q = rq_queue(client, NAME)
    for delivery in (SCHEDULED, FORCED):
        push_delivery(q, delivery, timeout_s=TIMEOUT_S)
    assert q.get_job_ids()[:4] == ["run-21-1-8", "run-22-1-8", "run-23-1-8", "run-11-1-7"]


class LaterQueue(Queue):
    """A release of RQ that does more for each job than `push_delivery` expects."""

    def enqueue_many(self, job_datas: Iterable[EnqueueData], pipeline: Any = None, group_id: Any = None) -> list[Job]:
        jobs = list(job_datas)
        done = super().enqueue_many(jobs, pipeline=pipeline, group_id=group_id)
        for job in jobs:
            (self.connection if pipeline is None else pipeline).sadd("rq:all-jobs", str(job.job_id))
        return done


def test_a_release_of_rq_that_does_more_for_a_job_pushes_every_job_itself(client: redis.Redis) -> None:
    q = LaterQueue(NAME, connection=client, serializer=JSONSerializer)
    push_delivery(q, SCHEDULED, timeout_s=TIMEOUT_S)
    assert client.scard("rq:all-jobs") == len(RUNS)
    assert q.get_job_ids() == [f"run-{run_id}-{fence}-7" for run_id, fence in RUNS]


def test_a_tick_after_one_that_died_between_push_and_commit_queues_nothing_twice(
    connection: Database, client: redis.Redis, redis_url: str
) -> None:
    config = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})
    for number in range(30):
        agents.add(connection, f"agent-{number}", name=None, whitelisted=True)
    queued_runs.insert_due(connection, limit=1000, batch=50)
    q = rq_queue(client, NAME)
    for _ in range(2):
        with connection.transaction(force_rollback=True):
            delivery = deliveries.lock_next(connection)
            assert delivery is not None
            assert len(delivery.runs) == 50
            push_delivery(q, delivery, timeout_s=TIMEOUT_S)
    assert tick(connection, config).enqueued == 122
    ids = q.get_job_ids()
    assert (len(ids), len(set(ids))) == (122, 122)
    assert count(connection, "select count(*) from system.deliveries where delivered_at is null") == 0


def test_a_delivery_is_deleted_when_its_runs_are_done(
    connection: Database, client: redis.Redis, redis_url: str
) -> None:
    config = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})
    assert tick(connection, config).enqueued == 2
    assert count(connection, "select count(*) from system.deliveries") == 1
    for row in connection.execute("select id, fence from system.sync_runs").fetchall():
        assert claims.claim(connection, row["id"], row["fence"], worker="test", lease_s=120) is not None
        connection.execute(
            "update system.sync_runs set state = 'succeeded', finished_at = system.clock() where id = %s", [row["id"]]
        )
    tick(connection, config)
    assert count(connection, "select count(*) from system.deliveries") == 0
    assert count(connection, "select count(*) from system.sync_runs where delivered_at is not null") == 2


QUEUED, BATCH = 1000, 50
QUEUE_STATEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "the next delivery": (deliveries.SQL_LOCK_NEXT, {}),
    "delivered long ago": (deliveries.SQL_LONG_DELIVERED, {"after_s": 0, "limit": BATCH}),
    "deliveries to delete": (deliveries.SQL_FORGET, {"limit": 1000}),
    "an agent's next run": (queued_runs.SQL_NEXT_OF_AGENT, {"agent_id": "a7"}),
}


def rows_read(plan: dict[str, Any]) -> Iterator[float]:
    """The rows that each scan of the runs read each time."""
    if plan.get("Relation Name") == "sync_runs":
        yield plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    for part in plan.get("Plans", ()):
        yield from rows_read(part)


@pytest.mark.parametrize("statement_name", QUEUE_STATEMENTS)
def test_no_statement_reads_the_whole_queue_with_statistics_of_an_empty_one(
    connection: Database, statement_name: str
) -> None:
    """If the statistics say that no run is queued, the planner finds every index of queued runs equally good, because empty."""
    connection.execute(
        "insert into system.sync_runs (sync_type, agent_id, state, trigger, delivery_id, finished_at)"
        " select 'orders', 'a' || n, 'succeeded', 'scheduled', n / 50, system.clock() from generate_series(1, 5000) n"
    )
    connection.execute("vacuum analyze system.sync_runs, system.deliveries")
    connection.execute(
        "insert into agents.users (id, whitelisted) select 'a' || n, true from generate_series(1, %s) n", [QUEUED // 4]
    )
    queued_runs.insert_due(connection, limit=QUEUED, batch=BATCH)
    connection.execute("update system.deliveries set delivered_at = system.clock() where id % 2 = 0")
    statement, params = QUEUE_STATEMENTS[statement_name]
    row = connection.execute("explain (analyze, format json) " + statement, params or None).fetchone()
    assert row is not None
    [explained] = row["QUERY PLAN"]
    read = list(rows_read(explained["Plan"]))
    assert read
    assert max(read) <= BATCH


def test_no_secret_is_in_redis(connection: Database, client: redis.Redis, redis_url: str) -> None:
    """A payload is a run's id and fence."""
    config = Config.from_environment(
        {
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_DATABASE_URL": "postgresql://archisync:secret-of-ours@db/archisync",
            "ARCHISYNC_SOURCE": "https://erp.example/{agent}?token=secret-of-ours",
            "ARCHISYNC_HTTP_TOKEN": "secret-of-ours",
        }
    )
    assert tick(connection, config).enqueued == 2
    for job_id in rq_queue(client, NAME).get_job_ids():
        job = Job.fetch(job_id, connection=client, serializer=JSONSerializer)
        assert [type(part) for part in job.args] == [int, int]
    assert "secret" not in str(contents(client))
    assert "service-account" not in str(contents(client))


def test_missing_jobs_are_those_outside_the_list_however_long_it_is(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joblist, "_PAGE", 3)
    listed = [f"job-{number}" for number in range(8)]
    for length in range(9):
        client.delete("rq:queue:archisync")
        if length:
            client.rpush("rq:queue:archisync", *listed[:length])
        assert missing_jobs(client, NAME, listed) == set(listed[length:])
