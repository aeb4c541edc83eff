"""PostgreSQL and Redis drop connections between two requests, during one, and for a while. Each page and each request of the API is then
answered right, or says who is away, and the next one is right again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import cycle, product

import httpx
import psycopg
import pytest

from archisync.base.errors import UnreachableError
from archisync.rules.config import Config
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store import settings
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from archisync.web import workforce
from archisync.web.api.table import ROUTES
from archisync.web.app import CONTRACT, application
from archisync.web.connections import PLACES, Connections
from tests.support import site
from tests.support.panel import TOKEN, TOKENS, inside
from tests.support.proxy import Proxy
from tests.support.rows import count
from tests.web.pages.test_every_page import addresses

MARIO = "mario.bassi"
QUERIES = {"/api/v1/why": f"?type=orders&agent={MARIO}"}
WITHOUT_POSTGRESQL = {"/metrics", "/api/v1/doctor", "/api/v1/me"}
"""What is answered all the same; the first two say that it is away."""
OF_REDIS = {"/plan", "/api/v1/plan", "/api/v1/workers"}
FAR = 10**9
SQL_END = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'archisync web%%' and datname = %s"


def paths(db: Database) -> list[str]:
    """Each page, each request that only reads, and what other programs ask for."""
    run, held = (
        count(db, f"select max({name})")
        for name in ("id) from system.sync_runs --", "run_id) from system.held_exports --")
    )
    parts = {"runs/{run}": f"runs/{run}", "held/{run}": f"held/{held}", "{agent}": MARIO, "{type}": "orders"}
    found = [f"/api/v1{route.path}" for route in ROUTES if route.method == "GET"]
    found += [path for method, path, _, _ in CONTRACT if method == "GET"]
    for part, value in parts.items():
        found = [path.replace(part, value) for path in found]
    return [*addresses(db, MARIO), *(path + QUERIES.get(path, "") for path in found), "/metrics", "/readyz"]


def environment(database_url: str, redis_url: str) -> dict[str, str]:
    return {**TOKENS, "ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url}


def is_right(path: str, answer: httpx.Response, *, away: str) -> bool:
    """Whether it is answered; else it must say who is away, in the form of that path."""
    if answer.status_code == 200:
        return True
    kind = "json" if path.startswith("/api/") else "plain" if path == "/readyz" else "html"
    assert (answer.status_code, away in answer.text, kind in answer.headers["content-type"]) == (503, True, True), (
        path,
        answer.text,
    )
    return False


@pytest.fixture
def troubled(connection: Database) -> Database:
    site.plant(connection)
    return connection


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    with Proxy.of(database_url) as found:
        yield found


def sent(proxy: Proxy, act: Callable[[], object]) -> int:
    """The bytes that `act` sends to the server."""
    proxy.after(FAR, lambda: None)
    act()
    return proxy.sent


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_connection_that_breaks_during_a_request_is_said_and_the_next_one_is_right(
    everywhere: bool, troubled: Database, database_url: str, redis_url: str, proxy: Proxy, admin: psycopg.Connection
) -> None:
    def end() -> None:
        admin.execute(SQL_END, [troubled.info.dbname])

    ways = list(product((proxy.reset, end), (0, 0.3, 0.5, 0.7, 0.9, 1)))
    each = cycle(ways)
    answered = []

    async def ask() -> None:
        async with inside(
            application(Config(environment=environment(proxy.url(database_url), redis_url))), TOKEN
        ) as client:
            for path in paths(troubled):
                assert (await client.get(path)).status_code == 200, path
                proxy.after(FAR, lambda: None)
                await client.get(path)
                whole = proxy.sent
                for act, share in ways if everywhere else [next(each)]:
                    proxy.after(max(1, round(share * whole)), act)
                    answered.append(is_right(path, await client.get(path), away="PostgreSQL"))
                    proxy.resume()
                    assert (await client.get(path)).status_code == 200, path

    asyncio.run(ask())
    assert set(answered) == {True, False}


def test_a_connection_that_breaks_while_it_is_made_is_said(
    database_url: str, connection: Database, proxy: Proxy
) -> None:
    config = Config(environment={"ARCHISYNC_DATABASE_URL": proxy.url(database_url)})

    def connect() -> None:
        connections = Connections(config)
        with connections.database():
            pass
        connections.close()

    whole = sent(proxy, connect)
    for place in range(1, whole, 40):  # libpq tries anew where the server may not have liked its first words
        proxy.after(place, proxy.reset)
        with suppress(UnreachableError):
            connect()
    proxy.after(whole, proxy.reset)
    with pytest.raises(UnreachableError, match="PostgreSQL is out of reach"):
        connect()


def test_when_one_free_connection_is_lost_the_others_are_not_tried_one_by_one(
    database_url: str, connection: Database
) -> None:
    """Each of them may take ten seconds to say that the server has gone."""
    connections = Connections(Config(environment={"ARCHISYNC_DATABASE_URL": database_url}))
    with ExitStack() as at_once:
        for _ in range(PLACES):
            at_once.enter_context(connections.database())
    assert connections._free.qsize() == PLACES
    lost = connections._free.queue[-1].info.backend_pid
    assert count(connection, f"select pg_terminate_backend({lost}, 10000)::int") == 1
    with connections.database() as db:
        assert count(db, "select 1") == 1
    assert connections._free.qsize() == 1
    connections.close()


def test_what_is_asked_for_is_done_wholly_or_not_at_all(
    troubled: Database, database_url: str, redis_url: str, proxy: Proxy
) -> None:
    """A request that queues a run loses PostgreSQL or Redis at any place; sent again, it joins."""
    unfinished = f"select count(*) from system.queued_runs where agent_id = '{MARIO}' and sync_type = 'ddt'"

    async def ask() -> None:
        with Proxy.of(redis_url) as to_redis:
            urls = environment(proxy.url(database_url), to_redis.url(redis_url))
            async with inside(application(Config(environment=urls)), TOKEN) as client:

                async def force() -> httpx.Response:
                    return await client.post("/api/v1/runs", json={"type": "ddt", "agents": [MARIO]})

                for lost, share in product((proxy, to_redis), (0, 0.2, 0.4, 0.6, 0.8, 1)):
                    troubled.execute("delete from system.queued_runs")
                    lost.after(FAR, lambda: None)
                    assert (await force()).status_code == 202
                    whole = lost.sent
                    troubled.execute("delete from system.queued_runs")
                    lost.after(max(1, round(share * whole)), lost.reset)
                    answer = await force()
                    assert (answer.status_code in (202, 503), "bug" in answer.text) == (True, False), answer.text
                    assert count(troubled, unfinished) in ((1,) if answer.status_code == 202 else (0, 1))
                    lost.resume()
                    again = await force()
                    assert again.status_code == 202, again.text
                    assert count(troubled, unfinished) == 1

    asyncio.run(ask())


@pytest.mark.slow
def test_servers_that_stop_and_start_again_are_named_while_they_are_away(
    own_postgres: EmbeddedPostgres, own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workforce, "STAFF_FRESH_S", -1.0)
    with connected(own_postgres.url, purpose="test") as db:
        migrate(db, {})
        site.plant(db)
        every = paths(db)

    async def ask(client: httpx.AsyncClient, away: str) -> set[str]:
        """The paths that are not answered."""
        return {path for path in every if not is_right(path, await client.get(path), away=away)}

    async def follow() -> None:
        app = application(Config(environment=environment(own_postgres.url, own_valkey.url)))
        async with inside(app, TOKEN) as client:
            assert await ask(client, "nobody") == set()
            own_valkey.kill()
            assert await ask(client, "Redis") == OF_REDIS
            assert "workers: Redis is out of reach" in (await client.get("/")).text
            own_valkey.start()
            own_postgres.kill()
            assert await ask(client, "PostgreSQL") == {*every} - WITHOUT_POSTGRESQL
            own_postgres.start()
            with connected(own_postgres.url, purpose="test") as db:
                settings.pause(db, sync_type="ddt", agent_id=None, until=None, reason="a new one", by="anna")
            assert "a new one" in (await client.get("/")).text
            assert await ask(client, "nobody") == set()

    asyncio.run(follow())
