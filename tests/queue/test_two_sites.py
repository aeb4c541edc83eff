"""Two sites on one Redis with the same queue: nobody takes the other's jobs, and both are told."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import redis

from archisync.base.errors import ConfigurationError, ExitCode
from archisync.queue.workers import LiveWorker, live_workers, require_own_queue
from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents
from archisync.store.database import Database, connected
from archisync.store.site import site_of
from tests.conftest import Cli, migrated_copy
from tests.support.doctor import only
from tests.support.queued import config_for
from tests.support.rows import count

OTHER = "archisync.elsewhere.7.abcd"
SAID = "another site's worker takes jobs from the queue {} on this Redis: elsewhere:7"


@pytest.fixture
def other_site(
    admin: psycopg.Connection, session_postgres: EmbeddedPostgres, template: str, database_names: Iterator[str]
) -> Iterator[str]:
    """The site of a second database, made from the same template."""
    with migrated_copy(admin, session_postgres, template, next(database_names)) as url:
        with connected(url, purpose="test") as db:
            site = site_of(db)
        assert site is not None
        yield site


def register(redis_url: str, site: str | None, *, queue: str = "archisync") -> None:
    """A worker of that site, as RQ and ours write it."""
    with redis.Redis.from_url(redis_url) as client:
        client.sadd(f"rq:workers:{queue}", f"rq:worker:{OTHER}")
        client.hset(f"rq:worker:{OTHER}", mapping={"state": "idle", **({"site": site} if site else {})})


def test_a_tick_pushes_nothing_into_the_queue_of_another_site(
    connection: Database, database_url: str, redis_url: str, other_site: str
) -> None:
    agents.add(connection, "anna.bianchi", name=None, whitelisted=True)
    config = config_for(database_url, redis_url)
    register(redis_url, other_site)
    error = tick(connection, config).error
    assert isinstance(error, ConfigurationError)
    assert (error.message, error.hint) == (
        SAID.format("archisync"),
        "give each site a queue of its own: ARCHISYNC_QUEUE, where its ticks and its workers run",
    )
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("rq:queue:archisync") == 0
    assert count(connection, "select count(*) from system.queued_runs") == 6  # it waits
    own = Config.from_environment({**config.environment, "ARCHISYNC_QUEUE": "anna"})
    assert tick(connection, own).enqueued == 6


def test_a_worker_does_not_start_beside_another_site_s(cli: Cli, redis_url: str, other_site: str) -> None:
    register(redis_url, other_site)
    done = cli("worker", "--burst")
    assert done.returncode == ExitCode.CONFIGURATION
    assert SAID.format("archisync") in done.stderr
    assert cli("worker", "--burst", env={"ARCHISYNC_QUEUE": "anna"}).returncode == 0


def test_a_worker_says_which_site_it_is_and_works_beside_its_own(
    cli: Cli, connection: Database, redis_url: str
) -> None:
    site = site_of(connection)
    register(redis_url, site)
    assert cli("worker", "--burst").returncode == 0
    with redis.Redis.from_url(redis_url) as client:
        assert [worker.site for worker in live_workers(client, "archisync")] == [site]


def test_doctor_names_the_workers_of_two_sites(cli: Cli, connection: Database, redis_url: str, other_site: str) -> None:
    register(redis_url, other_site)
    with redis.Redis.from_url(redis_url) as client:
        client.sadd("rq:workers:archisync", "rq:worker:archisync.here.8.abcd")
        client.hset("rq:worker:archisync.here.8.abcd", mapping={"state": "idle", "site": site_of(connection) or ""})
    code, finding = only(cli, "workers")
    assert (code, finding[0]) == (ExitCode.CONFIGURATION, "failed")
    assert finding[1] == "workers of 2 sites take jobs from the queue archisync: elsewhere:7, here:8"


@pytest.mark.parametrize(("mine", "theirs"), [("a", None), (None, "b"), (None, None), ("a", "a")])
def test_who_says_nothing_is_not_taken_for_another_site(redis_url: str, mine: str | None, theirs: str | None) -> None:
    register(redis_url, theirs)
    with redis.Redis.from_url(redis_url) as client:
        require_own_queue(client, "archisync", mine)
        assert [type(worker) for worker in live_workers(client, "archisync")] == [LiveWorker]


def test_a_role_with_few_rights_may_ask_which_site_it_is(connection: Database, database_url: str) -> None:
    connection.execute("create role site_reader login")
    try:
        with connected(database_url.replace("postgres@", "site_reader@"), purpose="test") as db:
            assert site_of(db) == site_of(connection)
    finally:
        connection.execute("drop role site_reader")
