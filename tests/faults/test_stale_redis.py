"""Whatever has been left in Redis, every due run is done without an operator."""

import json
import zlib
from collections.abc import Callable

import pytest
import redis

from archisync.queue.foreignkeys import queue_key_types
from archisync.queue.workers import live_workers
from archisync.rules.config import Config
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.queued import (
    INTERMEDIATE_KEY,
    QUEUE_KEY,
    env_of,
    events,
    one_due_pair,
    push_due_run,
    succeeded,
)
from tests.support.rows import count

Stale = Callable[[redis.Redis, str], None]
"""Leaves something in Redis; it gets the id of the job that was pushed for the run."""


def two_ticks(cli: Cli, connection: Database, config: Config) -> None:
    """A tick and a worker in each minute, twice at most. The delivery was late in its minute: the first tick comes 50 s after it."""
    for later_s in (50, 110):
        tick = cli("tick", env=env_of(config, later_s=later_s))
        assert (tick.returncode, "Traceback" in tick.stderr) == (0, False), tick.stderr
        worker = cli("worker", "--single", "--burst", "--single", env=env_of(config, later_s=later_s))
        assert (worker.returncode, "Traceback" in worker.stderr) == (0, False), worker.stderr
        if succeeded(connection):
            return


# --- the run is queued in PostgreSQL, but its job has left the queue's list ---------------------------------------

STATUSES = ["queued", "started", "finished", "failed", "deferred", "scheduled", "stopped", "canceled"]


def leave_status(status: str) -> Stale:
    def leave(client: redis.Redis, job_id: str) -> None:
        client.delete(QUEUE_KEY)
        client.hset(f"rq:job:{job_id}", "status", status)

    return leave


def in_intermediate(client: redis.Redis, job_id: str) -> None:
    """The worker died between taking the id and starting the job."""
    client.lmove(QUEUE_KEY, INTERMEDIATE_KEY)


def in_intermediate_without_a_hash(client: redis.Redis, job_id: str) -> None:
    client.lmove(QUEUE_KEY, INTERMEDIATE_KEY)
    client.delete(f"rq:job:{job_id}")


def in_registry(registry: str, member: str = "{}") -> Stale:
    def leave(client: redis.Redis, job_id: str) -> None:
        client.delete(QUEUE_KEY)
        client.zadd(f"rq:{registry}:archisync", {member.format(job_id): 1})

    return leave


def in_started_registry_for_ever(client: redis.Redis, job_id: str) -> None:
    client.delete(QUEUE_KEY)
    client.hset(f"rq:job:{job_id}", "status", "started")
    client.zadd("rq:wip:archisync", {f"{job_id}:execution": "+inf"})
    client.hset(
        f"rq:execution:{job_id}:execution", mapping={"job_id": job_id, "created_at": "1", "last_heartbeat": "1"}
    )


def dead_worker(client: redis.Redis, job_id: str) -> None:
    client.delete(QUEUE_KEY)
    name = "archisync.gone.7"
    client.hset(
        f"rq:worker:{name}", mapping={"birth": "2026-01-01T00:00:00.000000Z", "current_job": job_id, "pid": "7"}
    )
    client.sadd("rq:workers", f"rq:worker:{name}")
    client.sadd("rq:workers:archisync", f"rq:worker:{name}")


def leftover_locks(client: redis.Redis, job_id: str) -> None:
    client.delete(QUEUE_KEY)
    for lock in ("clean_registries:archisync", "scheduler-lock:archisync", "clean_groups", f"unique:{job_id}"):
        client.set(f"rq:{lock}", "somebody")


def suspended_workers(client: redis.Redis, job_id: str) -> None:
    client.set("rq:suspended", "1")


def the_list_says_twice(client: redis.Redis, job_id: str) -> None:
    client.rpush(QUEUE_KEY, job_id, job_id)


def the_list_has_foreign_ids(client: redis.Redis, job_id: str) -> None:
    client.delete(QUEUE_KEY)
    client.rpush(QUEUE_KEY, b"\xff\xfe", "not ours", "another-application")


LEFT: dict[str, Stale] = {
    **{f"a job hash that is {status}": leave_status(status) for status in STATUSES},
    "an id in :intermediate": in_intermediate,
    "an id in :intermediate without a hash": in_intermediate_without_a_hash,
    "an id in the started registry": in_registry("wip", "{}:execution"),
    "a garbage id in the started registry": in_registry("wip", "what is this"),
    "a running job in the started registry for ever": in_started_registry_for_ever,
    "an id in the failed registry": in_registry("failed"),
    "an id in the scheduled registry": in_registry("scheduled"),
    "a dead worker's keys": dead_worker,
    "leftover locks": leftover_locks,
    "suspended workers": suspended_workers,
    "an id twice in the queue's list": the_list_says_twice,
    "foreign ids in the queue's list": the_list_has_foreign_ids,
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT.keys())
def test_a_delivered_run_is_done_within_two_ticks_whatever_is_left_in_redis(
    cli: Cli, connection: Database, config: Config, client: redis.Redis, left: Stale
) -> None:
    push_due_run(connection, config)
    [job_id] = client.lrange(QUEUE_KEY, 0, -1)
    left(client, bytes(job_id).decode())  # type: ignore[arg-type]
    two_ticks(cli, connection, config)
    assert succeeded(connection) == 1
    assert count(connection, "select count(*) from system.runs") == 1


# --- another application uses RQ's keys ---------------------------------------------------------------------------


def a_string(client: redis.Redis, key: str) -> None:
    client.set(key, "not a list")


def a_hash(client: redis.Redis, key: str) -> None:
    client.hset(key, "a", "b")


OUR_KEYS = sorted(queue_key_types("archisync"))


@pytest.mark.parametrize(("type_", "make"), [("string", a_string), ("hash", a_hash)])
@pytest.mark.parametrize("key", [QUEUE_KEY, INTERMEDIATE_KEY, "rq:workers:archisync", "rq:wip:archisync"])
def test_a_foreign_key_is_moved_aside_and_the_run_is_done_at_once(
    cli: Cli,
    connection: Database,
    config: Config,
    client: redis.Redis,
    key: str,
    type_: str,
    make: Callable[[redis.Redis, str], None],
) -> None:
    make(client, key)
    before = client.dump(key)
    one_due_pair(connection)
    tick = cli("tick", env=env_of(config))
    [moved] = events(tick, "key-moved-aside")
    assert (moved["key"], moved["type"]) == (key, type_)
    assert client.dump(moved["to"]) == before, "the other application loses nothing"
    assert tick.returncode == 0
    cli("worker", "--single", "--burst", "--single", env=env_of(config))
    assert succeeded(connection) == 1


def test_every_key_of_ours_may_be_foreign_at_once(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    for key in OUR_KEYS:
        client.set(key, "foreign")
    one_due_pair(connection)
    tick = cli("tick", env=env_of(config))
    assert sorted(e["key"] for e in events(tick, "key-moved-aside")) == OUR_KEYS
    cli("worker", "--single", "--burst", "--single", env=env_of(config))
    assert succeeded(connection) == 1


def test_a_starting_worker_moves_foreign_keys_aside_too(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    push_due_run(connection, config)
    client.set("rq:workers:archisync", "foreign")
    worker = cli("worker", "--single", "--burst", "--single", env=env_of(config))
    assert [e["key"] for e in events(worker, "key-moved-aside")] == ["rq:workers:archisync"]
    assert (worker.returncode, succeeded(connection)) == (0, 1)


def test_a_list_that_was_overwritten_after_the_delivery_is_replaced_by_the_second_tick(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    push_due_run(connection, config)
    client.set(QUEUE_KEY, "overwritten")
    two_ticks(cli, connection, config)
    assert succeeded(connection) == 1


SHARED_BY_ALL = {
    "rq:queues": "rq:queue:other",
    "rq:workers": "rq:worker:other",
    "rq:groups": "of-theirs",
    "rq:rl-keys": "of-theirs",
}
"""RQ's keys that every application of a server shares."""


def test_another_applications_rq_queue_is_left_alone(
    cli: Cli, connection: Database, client: redis.Redis, config: Config
) -> None:
    data = zlib.compress(json.dumps(["other.application", None, [], {}]).encode())
    client.hset(
        "rq:job:theirs", mapping={"data": data, "status": "queued", "created_at": "2026-01-01T00:00:00.000000Z"}
    )
    client.rpush("rq:queue:other", "theirs")
    for key, member in SHARED_BY_ALL.items():
        client.sadd(key, member)
    before = {key: client.dump(key) for key in map(bytes, client.scan_iter())}
    one_due_pair(connection)
    cli("tick", env=env_of(config))
    client.rpush(QUEUE_KEY, "theirs")  # somebody who may write to our list names a job of theirs
    cli("worker", "--single", "--burst", "--single", env=env_of(config))
    assert succeeded(connection) == 1
    assert {key: client.dump(key) for key in before} == before
    assert client.ttl("rq:job:theirs") == -1
    assert client.keys("*foreign*") == []


WORKER_KEY = "rq:worker:archisync.host-1.7.abcd"
ODD_WORKERS: dict[str, tuple[str | bytes, Callable[[redis.Redis], object]]] = {
    "not the key of a worker": ("foo", lambda _: None),
    "not UTF-8": (b"\xff\xfe", lambda _: None),
    "not UTF-8, with a hash": (
        b"rq:worker:\xff",
        lambda client: client.hset(b"rq:worker:\xff", "state", b"\xff") and None,
    ),
    "a string": (WORKER_KEY, lambda client: client.set(WORKER_KEY, "hello")),
    "a bad birth": (WORKER_KEY, lambda client: client.hset(WORKER_KEY, "birth", "yesterday")),
    "a bad process id": (WORKER_KEY, lambda client: client.hset(WORKER_KEY, "pid", "seven")),
    "a field that is not UTF-8": (WORKER_KEY, lambda client: client.hset(WORKER_KEY, b"\xff", b"\xfe")),
}
COUNTED = {"not UTF-8, with a hash", "a bad birth", "a bad process id", "a field that is not UTF-8"}
"""Entries that count as workers, because there is a hash under a worker's key."""


@pytest.mark.parametrize("odd", ODD_WORKERS)
def test_an_odd_entry_among_the_workers_breaks_no_command_that_counts_them(
    cli: Cli, client: redis.Redis, config: Config, odd: str
) -> None:
    member, leave = ODD_WORKERS[odd]
    client.sadd("rq:workers:archisync", member)
    leave(client)
    alive = int(odd in COUNTED)
    metrics = cli("metrics", env=env_of(config))
    assert (metrics.returncode, metrics.stderr) == (0, "")
    assert f'archisync_workers{{queue="archisync"}} {alive}.0\n' in metrics.stdout
    plan = cli("plan", "--json", env=env_of(config))
    assert (plan.returncode, json.loads(plan.stdout)["workers"]) == (0, alive)
    doctor = cli("doctor", "--only", "workers", "--only", "worker-here", env=env_of(config))
    assert (doctor.returncode, doctor.stderr) == (1, "")
    line = "ok       workers      1 alive" if alive else "failed   workers      no worker is alive"
    assert doctor.stdout.startswith(line)
    assert len(live_workers(client, config.queue)) == alive


def test_a_job_that_still_waits_in_the_list_is_not_pushed_again(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    one_due_pair(connection)
    for later_s in (0, 60, 120, 3600):
        cli("tick", env=env_of(config, later_s=later_s))
    assert client.llen(QUEUE_KEY) == 1
