"""Whatever anyone with access to Redis writes there, no worker runs it and no worker stops because of it."""

import json
import os
import pickle
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis

from archisync.rules.config import Config
from archisync.store.database import Database
from tests.conftest import Cli
from tests.support.queued import (
    INTERMEDIATE_KEY,
    QUEUE,
    QUEUE_KEY,
    env_of,
    events,
    push_due_run,
    succeeded,
)
from tests.support.rows import count

Payload = bytes | list[object]
NOW = "2026-03-01T12:00:00.000000Z"
FUNCTION = "archisync.work.job.sync"
OURS: list[object] = [FUNCTION, None, [1, 1], {}]
FORGED = "agent-900-0"
"""An id like ours: of any other job not even the hash is read."""


def write_job(
    client: redis.Redis, job_id: str, payload: Payload, extra: Mapping[str, str | bytes] | None = None
) -> None:
    """Put a job as RQ writes it into the queue's list. A payload that is a list is written as JSON."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    fields: dict[Any, Any] = {"status": "queued", "created_at": NOW, "origin": QUEUE, "timeout": "60"}
    client.hset(f"rq:job:{job_id}", mapping=fields | {"data": zlib.compress(data)} | dict(extra or {}))
    client.rpush(QUEUE_KEY, job_id)


def run_behind(cli: Cli, connection: Database, config: Config) -> subprocess.CompletedProcess[str]:
    """Queue a real run behind whatever is in the list, and let one worker empty the list."""
    push_due_run(connection, config)
    return cli("worker", "--single", "--burst", "--single", env=env_of(config))


class Touch:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def foreign_functions(marker: Path) -> list[Payload]:
    touch = f"touch {marker}"
    return [
        ["os.system", None, [touch], {}],
        ["posix.system", None, [touch], {}],
        ["subprocess.check_call", None, [["touch", str(marker)]], {}],
        ["builtins.exec", None, [f"open({str(marker)!r}, 'w')"], {}],
        ["exec", None, [f"open({str(marker)!r}, 'w')"], {}],
        ["builtins.open", None, [str(marker), "w"], {}],
    ]


def pickles(marker: Path) -> list[Payload]:
    touch = Touch(marker)
    return [pickle.dumps(touch), pickle.dumps((touch, None, (), {})), pickle.dumps(("os.system", None, ("",), touch))]


def names_like_ours(marker: Path) -> list[Payload]:
    touch = f"touch {marker}"
    return [
        ["archisync.work.job.os.system", None, [touch], {}],
        ["archisync.work.worker.os.system", None, [touch], {}],
        ["archisync.work.job.sync.__globals__", None, [1, 1], {}],
        ["archisync.work.job.sync ", None, [1, 1], {}],
        [[FUNCTION], None, [1, 1], {}],
        [None, None, [1, 1], {}],
    ]


def arguments_not_ours(marker: Path) -> list[Payload]:
    return [
        [FUNCTION, None, [], {}],
        [FUNCTION, None, [1], {}],
        [FUNCTION, None, [1, 1, 1], {}],
        [FUNCTION, None, [True, True], {}],
        [FUNCTION, None, ["1", "1"], {}],
        [FUNCTION, None, "11", {}],
        [FUNCTION, None, [[1], {"a": 1}], {}],
        [FUNCTION, None, [1.0, 1.0], {}],
        [FUNCTION, None, {"run_id": 1, "fence": 1}, {}],
        [FUNCTION, None, [1, 1], {"run_id": 1}],
        [FUNCTION, None, [1, 1], []],
        [FUNCTION, None, [1, 1], None],
        [FUNCTION, None, [1, 1]],
        {},  # type: ignore[list-item]
        [],
    ]


def methods(marker: Path) -> list[Payload]:
    touch = f"touch {marker}"
    return [
        ["system", "os", [touch], {}],
        [FUNCTION, {"py/object": "os.system"}, [1, 1], {}],
        ["__call__", ["os.system"], [touch], {}],
        [FUNCTION, 0, [1, 1], {}],
    ]


def oversized(marker: Path) -> list[Payload]:
    return [os.urandom(10_000), b"[" * 900_000, json.dumps([FUNCTION, None, [1, 1], {}, "x"]).encode()]


FORGERIES = [foreign_functions, pickles, names_like_ours, arguments_not_ours, methods, oversized]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_payload_runs_nothing_and_the_run_behind_it_is_done(
    cli: Cli,
    connection: Database,
    config: Config,
    client: redis.Redis,
    tmp_path: Path,
    forge: Callable[[Path], list[Payload]],
) -> None:
    marker = tmp_path / "marker"
    forged = forge(marker)
    for number, payload in enumerate(forged):
        write_job(client, f"agent-900-{number}", payload)
    done = run_behind(cli, connection, config)
    assert not marker.exists()
    assert [e["job"] for e in events(done, "job-set-aside")] == [f"agent-900-{n}" for n in range(len(forged))]
    assert len(events(done, "run-started")) == succeeded(connection) == 1
    assert count(connection, "select count(*) from system.runs") == 1
    assert client.llen(INTERMEDIATE_KEY) == 0
    assert 0 < client.ttl(f"rq:job:{FORGED}") <= 3600


def test_a_forged_pickle_would_make_the_marker(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Touch(marker)))  # noqa: S301 - the proof that the forgery above works
    assert marker.exists()


CALLBACKS = {
    "success callback name": {"success_callback_name": "os.abort"},
    "failure callback name": {"failure_callback_name": "os.abort"},
    "stopped callback name": {"stopped_callback_name": "os.abort"},
    "dependency ids": {"dependency_ids": '["other"]'},
    "rate limit key": {"rate_limit_key": "other"},
    "repeats left": {"repeats_left": "5", "repeat_intervals": "[0]"},
    "retries left": {"retries_left": "5"},
}


@pytest.mark.parametrize("what", CALLBACKS)
def test_our_job_with_more_than_a_run_is_set_aside(
    cli: Cli, connection: Database, config: Config, client: redis.Redis, what: str
) -> None:
    write_job(client, FORGED, OURS, CALLBACKS[what])
    done = run_behind(cli, connection, config)
    assert [e["because"] for e in events(done, "job-set-aside")] == [f"ForeignJobError: it brings {what}"]
    assert succeeded(connection) == 1


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A web server's URL and the requests that came."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", requests
        server.shutdown()
        thread.join()


def test_our_job_with_a_webhook_sends_nothing(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    with listening() as (url, requests):
        hook = json.dumps([{"url": url, "job_status": "finished", "method": "POST", "headers": {}, "timeout": 5}])
        write_job(client, FORGED, OURS, {"webhooks": hook})
        done = run_behind(cli, connection, config)
    assert [e["because"] for e in events(done, "job-set-aside")] == ["ForeignJobError: it brings webhooks"]
    assert requests == []
    assert succeeded(connection) == 1


def test_housekeeping_does_not_call_what_an_abandoned_job_names(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    """RQ calls the failure callback of a job that is in the started registry for too long."""
    write_job(
        client,
        FORGED,
        ["os.system", None, ["true"], {}],
        {"status": "started", "failure_callback_name": "os.abort"},
    )
    client.delete(QUEUE_KEY)
    client.zadd("rq:wip:archisync", {f"{FORGED}:execution": 1})
    done = run_behind(cli, connection, config)
    assert [e["because"] for e in events(done, "job-set-aside")] == ["ForeignJobError: it is not a run of archisync"]
    assert events(done, "maintenance-failed") == []
    assert client.zcard("rq:wip:archisync") == 0
    assert succeeded(connection) == 1


# --- damaged job hashes -------------------------------------------------------------------------------------------


def no_hash(client: redis.Redis) -> None:
    client.rpush(QUEUE_KEY, FORGED)


def a_hash_without_data(client: redis.Redis) -> None:
    write_job(client, FORGED, OURS)
    client.hdel(f"rq:job:{FORGED}", "data")


def a_string_instead(client: redis.Redis) -> None:
    client.set(f"rq:job:{FORGED}", "hello")
    client.rpush(QUEUE_KEY, FORGED)


def a_list_instead(client: redis.Redis) -> None:
    client.rpush(f"rq:job:{FORGED}", "hello")
    client.rpush(QUEUE_KEY, FORGED)


def garbage_data(client: redis.Redis) -> None:
    write_job(client, FORGED, OURS, {"data": b"\x00\xff\xfe garbage"})


def truncated_data(client: redis.Redis) -> None:
    write_job(client, FORGED, OURS, {"data": zlib.compress(json.dumps(OURS).encode())[:-9]})


def a_bad_time(client: redis.Redis) -> None:
    write_job(client, FORGED, OURS, {"created_at": "yesterday"})


def an_unknown_status(client: redis.Redis) -> None:
    write_job(client, FORGED, OURS, {"status": "garbage"})


def a_timeout_that_is_no_number(client: redis.Redis) -> None:
    write_job(client, FORGED, OURS, {"timeout": "soon"})


def a_field_that_is_not_utf8(client: redis.Redis) -> None:
    write_job(client, FORGED, OURS, {"origin": b"\xff\xfe"})


def a_field_name_that_is_not_utf8(client: redis.Redis) -> None:
    write_job(client, FORGED, OURS)
    client.hset(f"rq:job:{FORGED}", b"\xff\xfe", "x")


DAMAGES: list[Callable[[redis.Redis], None]] = [
    no_hash,
    a_hash_without_data,
    a_string_instead,
    a_list_instead,
    garbage_data,
    truncated_data,
    a_bad_time,
    an_unknown_status,
    a_timeout_that_is_no_number,
    a_field_that_is_not_utf8,
    a_field_name_that_is_not_utf8,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_job_is_set_aside_and_the_run_behind_it_is_done(
    cli: Cli, connection: Database, config: Config, client: redis.Redis, damage: Callable[[redis.Redis], None]
) -> None:
    damage(client)
    done = run_behind(cli, connection, config)
    assert [e["job"] for e in events(done, "job-set-aside")] == [FORGED]
    assert succeeded(connection) == 1
    assert client.llen(INTERMEDIATE_KEY) == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("job_id", "shown"), [(b"\xff\xfe", r"\xff\xfe"), (b"a b", "a b"), (b"", "")])
def test_a_job_id_that_is_not_ours_is_set_aside(
    cli: Cli, connection: Database, config: Config, client: redis.Redis, job_id: bytes, shown: str
) -> None:
    client.rpush(QUEUE_KEY, job_id)
    done = run_behind(cli, connection, config)
    assert [e["job"] for e in events(done, "job-set-aside")] == [shown]
    assert succeeded(connection) == 1
    assert client.llen(INTERMEDIATE_KEY) == 0


def test_a_damaged_delivery_is_pushed_again(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    push_due_run(connection, config)
    [job_id] = client.lrange(QUEUE_KEY, 0, -1)
    client.hset(b"rq:job:" + bytes(job_id), "data", b"garbage")  # type: ignore[arg-type]
    done = cli("worker", "--single", "--burst", "--single", env=env_of(config))
    assert len(events(done, "job-set-aside")) == 1
    assert succeeded(connection) == 0
    again = cli("tick", env=env_of(config, later_s=60))
    assert "redelivered 1" in again.stdout
    cli("worker", "--single", "--burst", "--single", env=env_of(config, later_s=60))
    assert succeeded(connection) == 1


@pytest.mark.parametrize("status", ["finished", "started", "failed", "canceled", "stopped", "deferred", "scheduled"])
def test_a_delivery_counts_whatever_status_its_hash_claims(
    cli: Cli, connection: Database, config: Config, client: redis.Redis, status: str
) -> None:
    """PostgreSQL decides whether the run is still to be done."""
    push_due_run(connection, config)
    [job_id] = client.lrange(QUEUE_KEY, 0, -1)
    client.hset(b"rq:job:" + bytes(job_id), "status", status)  # type: ignore[arg-type]
    cli("worker", "--single", "--burst", "--single", env=env_of(config))
    assert succeeded(connection) == 1


def test_a_stale_or_invented_run_id_does_nothing(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    for number, args in enumerate(([1, 0], [1, 2], [-1, 1], [99, 1], [10**30, 1], [2**63, 2**63])):
        write_job(client, f"agent-900-{number}", [FUNCTION, None, args, {}])
    done = run_behind(cli, connection, config)
    assert len(events(done, "delivery-ignored")) == 6
    assert len(events(done, "run-started")) == succeeded(connection) == 1
    assert "Traceback" not in done.stderr


def test_invented_and_repeated_ids_of_our_form_do_no_run_twice(
    cli: Cli, connection: Database, config: Config, client: redis.Redis
) -> None:
    """A child takes the jobs after its first one by their ids alone."""
    push_due_run(connection, config)
    [job_id] = client.lrange(QUEUE_KEY, 0, -1)
    repeated = job_id.decode()  # type: ignore[union-attr]
    invented = ["agent-99-0", f"agent-{'9' * 18}-{'9' * 9}", "agent-0-0", repeated.replace("agent-", "agent-0")]
    client.rpush(QUEUE_KEY, repeated, *invented)
    done = cli("worker", "--burst", "--single", env=env_of(config))
    assert len(events(done, "delivery-ignored")) == 5
    assert len(events(done, "run-started")) == succeeded(connection) == 1
    assert "Traceback" not in done.stderr
    assert client.keys("rq:job:*") == []
