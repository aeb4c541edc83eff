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
from archisync.queue.job import job_id
from archisync.queue.joblist import missing_jobs, rq_queue
from archisync.queue.push import push_delivery
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.store import agents, claims, deliveries, queued_runs
from archisync.store.database import Database
from archisync.store.deliveries import Delivery, JobKey
from tests.support.queued import config_for
from tests.support.rows import count, end_queued

NAME = "archisync"
TIMEOUT_S = 2160
DELIVERY = 9_876_543_210
JOBS = [JobKey(DELIVERY, number) for number in (0, 1, 999)]
SCHEDULED = Delivery(delivery_id=DELIVERY, forced=False, jobs=JOBS, runs=7)
FORCED = Delivery(delivery_id=8, forced=True, jobs=[JobKey(8, number) for number in range(3)], runs=3)
TIMES = (b"created_at", b"enqueued_at")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def enqueue_by_rq(q: Queue, delivery: Delivery) -> None:
    """One call for each job, as RQ's documentation shows it."""
    for job in reversed(delivery.jobs) if delivery.forced else delivery.jobs:
        q.enqueue(
            "archisync.work.job.sync",
            *job,
            job_id=f"agent-{delivery.delivery_id}-{job.job_no}",
            job_timeout=TIMEOUT_S,
            result_ttl=0,
            failure_ttl=3600,
            description=f"archisync delivery {delivery.delivery_id}",
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
    assert len(by_rq) == len(delivery.jobs) + 2


def test_the_script_writes_the_jobs_and_not_rq(client: redis.Redis) -> None:
    """Otherwise the comparison above compares RQ with itself."""
    before = client.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"]
    push_delivery(rq_queue(client, NAME), SCHEDULED, timeout_s=TIMEOUT_S)
    assert client.info("commandstats")["cmdstat_eval"]["calls"] == before + 1


def test_rq_reads_each_job_back(client: redis.Redis) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=1)
    push_delivery(rq_queue(client, NAME), SCHEDULED, timeout_s=TIMEOUT_S)
    for delivery_id, job_no in JOBS:
        job = Job.fetch(f"agent-{delivery_id}-{job_no}", connection=client, serializer=JSONSerializer)
        assert (job.func_name, job.args, job.kwargs) == ("archisync.work.job.sync", [delivery_id, job_no], {})
        assert (job.origin, job.timeout, job.result_ttl, job.failure_ttl) == (NAME, TIMEOUT_S, 0, 3600)
        assert (job.get_status(), job.description) == (JobStatus.QUEUED, f"archisync delivery {delivery_id}")
        assert job.enqueued_at is not None
        assert begun <= job.created_at.replace(tzinfo=UTC) <= job.enqueued_at.replace(tzinfo=UTC) <= datetime.now(UTC)
    assert Queue.all(connection=client) == [], "the list of all applications' queues is left alone"


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


def test_rq_info_counts_the_jobs_of_the_queue_that_it_is_asked_for(client: redis.Redis, redis_url: str) -> None:
    push_delivery(rq_queue(client, NAME), SCHEDULED, timeout_s=TIMEOUT_S)
    assert "3 jobs total" in rq_command("info", "--url", redis_url, NAME, environment={})


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
    first, lost, last = map(job_id, JOBS)
    client.delete(f"rq:job:{lost}")
    client.lrem(q.key, 0, lost)
    push_delivery(q, SCHEDULED, timeout_s=TIMEOUT_S)
    assert q.get_job_ids() == [first, last, lost]


def test_a_later_delivery_of_an_agent_has_a_job_of_its_own(
    connection: Database, client: redis.Redis, redis_url: str
) -> None:
    """Otherwise the hash that is left of an earlier job would keep the later one from being pushed."""
    config = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})
    q = rq_queue(client, NAME)
    assert tick(connection, config).enqueued == 2
    pushed = q.get_job_ids()
    client.delete(q.key)
    later = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url, "ARCHISYNC_REDELIVER_AFTER_S": "30"})
    connection.execute("update system.deliveries set delivered_at = delivered_at - interval '1 hour'")
    assert tick(connection, later).redelivered == 2
    assert len(pushed) == len(q.get_job_ids()) == 1
    assert pushed != q.get_job_ids()


def test_the_jobs_of_a_delivery_are_its_agents_each_with_all_that_it_has_queued(
    connection: Database, client: redis.Redis, redis_url: str
) -> None:
    config = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})
    for number in range(3):
        agents.add(connection, f"agent-{number}", name=None, whitelisted=True)
    assert tick(connection, config).enqueued == 14
    runs = connection.execute("select delivery_id, job_no, agent_id from system.queued_runs").fetchall()
    by_job = {job_id(JobKey(row["delivery_id"], row["job_no"])): row["agent_id"] for row in runs}
    assert sorted(by_job.values()) == ["agent-0", "agent-1", "agent-2", "service-account"]
    assert sorted(rq_queue(client, NAME).get_job_ids()) == sorted(by_job)


def test_forced_runs_go_to_the_front_and_keep_their_order(client: redis.Redis) -> None:
    q = rq_queue(client, NAME)
    for delivery in (SCHEDULED, FORCED):
        push_delivery(q, delivery, timeout_s=TIMEOUT_S)
    assert q.get_job_ids() == [*map(job_id, FORCED.jobs), *map(job_id, JOBS)]


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
    assert client.scard("rq:all-jobs") == len(JOBS)
    assert q.get_job_ids() == [job_id(job) for job in JOBS]


def test_a_tick_after_one_that_died_between_push_and_commit_queues_nothing_twice(
    connection: Database, client: redis.Redis, redis_url: str
) -> None:
    config = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})
    for number in range(30):
        agents.add(connection, f"agent-{number}", name=None, whitelisted=True)
    queued_runs.insert_due(connection, limit=1000, batch=20)
    q = rq_queue(client, NAME)
    for _ in range(2):
        with connection.transaction(force_rollback=True):
            delivery = deliveries.lock_next(connection)
            assert delivery is not None
            assert len(delivery.jobs) == 20
            push_delivery(q, delivery, timeout_s=TIMEOUT_S)
    assert tick(connection, config).enqueued == 122
    ids = q.get_job_ids()
    assert (len(ids), len(set(ids))) == (31, 31)
    assert count(connection, "select count(*) from system.deliveries where delivered_at is null") == 0


def test_a_delivery_is_deleted_when_its_runs_are_done(
    connection: Database, client: redis.Redis, redis_url: str
) -> None:
    config = Config.from_environment({"ARCHISYNC_REDIS_URL": redis_url})
    assert tick(connection, config).enqueued == 2
    assert count(connection, "select count(*) from system.deliveries") == 1
    assert end_queued(connection) == 2
    tick(connection, config)
    assert count(connection, "select count(*) from system.deliveries") == 0
    assert count(connection, "select count(*) from system.sync_runs where delivered_at is not null") == 2


QUEUED, BATCH = 1000, 50
WORKER = {"worker": "test", "lease_s": 120}
QUEUE_STATEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "the next delivery": (deliveries.SQL_LOCK_NEXT, {}),
    "delivered long ago": (deliveries.SQL_LONG_DELIVERED, {"after_s": 0, "limit": BATCH}),
    "deliveries to delete": (deliveries.SQL_FORGET, {"limit": 1000}),
    "a job's agent and its runs": (claims.SQL_CLAIM, WORKER | {"delivery_id": 2, "job_no": 7}),
    "an agent's next runs": (claims.SQL_CLAIM_AGENT, WORKER | {"agent_id": "a7"}),
    "an agent that is locked": (claims.SQL_PUT_OFF, {"agent_id": "a7", "delay_s": 15}),
    "lost jobs": (deliveries.SQL_MARK_UNDELIVERED, {"delivery_ids": [2, 2], "job_nos": [7, 8]}),
    "silent workers": (claims.SQL_REAP, {**claims.SILENT, "max_attempts": 3, "limit": 1000}),
}


def rows_read(plan: dict[str, Any]) -> Iterator[float]:
    """The rows that each scan of the queue read each time."""
    if plan.get("Relation Name") == "queued_runs":
        yield plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    for part in plan.get("Plans", ()):
        yield from rows_read(part)


@pytest.mark.parametrize("statement_name", QUEUE_STATEMENTS)
def test_no_statement_reads_the_whole_queue_with_statistics_of_an_empty_one(
    connection: Database, statement_name: str
) -> None:
    """If the statistics say that no run is queued, the planner finds every index of the queue equally good, because empty."""
    connection.execute("vacuum analyze system.queued_runs, system.claims, system.deliveries")
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
    assert max(read) <= 4 * BATCH  # a delivery's runs


def test_no_secret_is_in_redis(connection: Database, client: redis.Redis, redis_url: str) -> None:
    """A payload is a delivery's id and the job's number there."""
    config = Config.from_environment(
        {
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_DATABASE_URL": "postgresql://archisync:secret-of-ours@db/archisync",
            "ARCHISYNC_SOURCE": "https://erp.example/{agent}?token=secret-of-ours",
            "ARCHISYNC_HTTP_TOKEN": "secret-of-ours",
        }
    )
    assert tick(connection, config).enqueued == 2
    for id_ in rq_queue(client, NAME).get_job_ids():
        job = Job.fetch(id_, connection=client, serializer=JSONSerializer)
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
