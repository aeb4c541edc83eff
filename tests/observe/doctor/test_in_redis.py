"""`doctor` in Redis: each check is made to fail on a real server."""

import os
from pathlib import Path

import redis

from archisync.base.errors import ExitCode
from archisync.observe.doctor.in_redis import judge_eviction, judge_persistence, judge_redis_version
from archisync.queue.acl import User, acl_commands
from archisync.standalone.valkey import EmbeddedValkey
from tests.conftest import Cli
from tests.support.doctor import examine, only, working
from tests.support.redisservers import server

HOST = os.uname().nodename


def test_redis_fails_with_4_when_it_is_out_of_reach(cli: Cli, own_valkey: EmbeddedValkey) -> None:
    own_valkey.kill()
    code, found = examine(cli, "--only", "workers", env={"ARCHISYNC_REDIS_URL": own_valkey.url})
    assert (code, list(found)) == (ExitCode.UNREACHABLE, ["redis"])
    assert found["redis"][0].message.startswith("Redis is out of reach: ")


def test_an_old_redis_fails() -> None:
    assert [judge_redis_version(v).level for v in ("6.0.16", "6.2.0", "9.1.0")] == ["failed", "ok", "ok"]
    assert judge_redis_version("6.0.16").hint == "Redis 6.2 or newer is needed"


def test_eviction_fails_for_a_policy_that_drops_jobs(cli: Cli, own_valkey: EmbeddedValkey) -> None:
    env = {"ARCHISYNC_REDIS_URL": own_valkey.url}
    message = "Redis may drop queued jobs: maxmemory-policy is allkeys-lru"
    hint = "CONFIG SET maxmemory-policy noeviction   (and in redis.conf, or in the provider's console)"
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert only(cli, "eviction", env) == (
            0,
            ("warning", message, hint),
        )  # without a memory limit nothing is evicted
        client.config_set("maxmemory", "100mb")
        assert only(cli, "eviction", env) == (3, ("failed", message, hint))
    assert judge_eviction("volatile-lru", 100).level == "warning"


def test_persistence_warns_unless_redis_keeps_its_data(cli: Cli, own_valkey: EmbeddedValkey) -> None:
    env = {"ARCHISYNC_REDIS_URL": own_valkey.url}
    hint = "nothing is lost (the next ticks deliver again); to keep the queue: CONFIG SET appendonly yes"
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("save", "")
        warning = ("warning", "Redis forgets the queue when it restarts", hint)
        assert only(cli, "persistence", env) == (0, warning)
        client.config_set("save", "60 1")
        assert only(cli, "persistence", env) == (0, ("ok", "Redis keeps its data (snapshots)", ""))


def test_workers_fails_when_none_is_alive(cli: Cli) -> None:
    assert only(cli, "workers") == (
        1,
        ("failed", "no worker is alive on the queue archisync", "archisync worker --processes 2"),
    )


def test_worker_here_fails_once_the_worker_of_this_host_has_ended(cli: Cli, database_url: str, redis_url: str) -> None:
    with working(redis_url, database_url, "--single"):
        assert only(cli, "worker-here") == (0, ("ok", f"a worker of {HOST} is alive", ""))
    assert only(cli, "worker-here") == (1, ("failed", f"no worker of {HOST} is alive", "archisync worker"))


def test_worker_here_fails_for_a_killed_worker_that_redis_still_lists(
    cli: Cli, database_url: str, redis_url: str
) -> None:
    with working(redis_url, database_url, "--single") as process, redis.Redis.from_url(redis_url) as client:
        process.kill()
        process.wait()
        [key] = client.smembers("rq:workers:archisync")
        assert only(cli, "workers")[0] == 0
        assert only(cli, "worker-here") == (1, ("failed", f"no worker of {HOST} is alive", "archisync worker"))
        client.hset(key, "pid_namespace", "pid:[1]")  # of another container with this host's name: only Redis can tell
        assert only(cli, "worker-here")[0] == 0
        client.hdel(key, "pid_namespace")
        assert only(cli, "worker-here")[0] == 0


def test_redis_access_warns_of_a_user_that_may_do_more_than_it_needs(cli: Cli, tmp_path: Path) -> None:
    with server(tmp_path / "server", {}) as running, running.client() as client:
        for line in acl_commands("archisync"):
            client.execute_command(*line.split())
        assert only(cli, "redis-access", {"ARCHISYNC_REDIS_URL": f"redis://127.0.0.1:{running.port}/0"}) == (
            0,
            (
                "warning",
                "the Redis user may do more than archisync needs: read and change other applications' keys, "
                "empty the server (FLUSHALL), read passwords and change settings (CONFIG)",
                "archisync redis acl   (commands that make users with few rights; ARCHISYNC_REDIS_URL then names one)",
            ),
        )
        for user in User:
            client.acl_setuser(f"archisync_{user}", enabled=True, passwords=["+secret"])
            url = f"redis://archisync_{user}:secret@127.0.0.1:{running.port}/0"
            narrow = only(cli, "redis-access", {"ARCHISYNC_REDIS_URL": url})
            assert narrow == (0, ("ok", "the Redis user has few rights", ""))
        denied = {entry["username"] for entry in client.acl_log()}
        assert "archisync_tick" not in denied, "asking looks like no attack"


def test_a_user_that_may_not_ask_for_snapshots_is_told_what_is_known() -> None:
    found = judge_persistence(append_only=False, snapshots=None)
    said = "Redis has no append-only file; whether it makes snapshots, this user may not ask"
    assert (found.level, found.message) == ("ok", said)
