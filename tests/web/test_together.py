"""Those who ask the same at the same time share an answer, which is never older than a question."""

from __future__ import annotations

import asyncio

import pytest

from archisync.rules.config import Config
from archisync.store.database import Database
from archisync.web.api.table import ROUTES
from archisync.web.app import CONTRACT, PERSONAL, application
from archisync.web.together import Together
from tests.support.panel import OPERATOR_TOKEN, READ_TOKEN, TOKENS, Panel, inside
from tests.support.rows import count

ASKERS = 12
SQL_WAITING = "select count(*) from pg_locks where relation = 'system.ticks'::regclass and not granted"


def test_an_answer_is_begun_after_its_question_and_shared_by_all_who_asked_before() -> None:
    async def ask() -> None:
        together, begun = Together[int](), 0
        goes_on = [asyncio.Event() for _ in range(3)]

        async def find() -> int:
            nonlocal begun
            begun += 1
            number = begun
            await goes_on[number - 1].wait()
            return number

        first = [asyncio.create_task(together.answer("page", find)) for _ in range(ASKERS)]
        while begun < 1:
            await asyncio.sleep(0)
        late = [asyncio.create_task(together.answer("page", find)) for _ in range(ASKERS)]
        other = asyncio.create_task(together.answer("another", find))
        while begun < 2:
            await asyncio.sleep(0)
        goes_on[1].set()
        assert await other == 2  # another question waits for nobody
        goes_on[0].set()
        assert await asyncio.gather(*first) == [1] * ASKERS
        goes_on[2].set()
        assert await asyncio.gather(*late) == [3] * ASKERS
        assert together._begun == together._next == {}  # what is answered is forgotten

    asyncio.run(ask())


def test_whoever_stops_waiting_takes_the_answer_from_nobody() -> None:
    async def ask() -> None:
        together, goes_on = Together[str](), asyncio.Event()

        async def find() -> str:
            await goes_on.wait()
            return "found"

        gone, waiting = (asyncio.create_task(together.answer("page", find)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        goes_on.set()
        assert await waiting == "found"

    asyncio.run(ask())


def test_many_who_ask_the_same_at_once_ask_postgresql_once(site: Database, database_url: str, redis_url: str) -> None:
    """The table is locked until all have asked. The one answer also has what was written after the first of them asked."""
    environment = {**TOKENS, "ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url}

    async def ask() -> None:
        async with inside(application(Config(environment=environment))) as client:
            tokens = [READ_TOKEN, OPERATOR_TOKEN] * (ASKERS // 2)
            with site.transaction():
                site.execute("lock table system.ticks in access exclusive mode")
                asked = [
                    asyncio.create_task(client.get("/api/v1/ticks", headers={"Authorization": f"Bearer {token}"}))
                    for token in tokens
                ]
                stranger = await client.get("/api/v1/ticks")
                while not count(site, SQL_WAITING):
                    await asyncio.sleep(0)
                assert count(site, SQL_WAITING) == 1
                site.execute("update system.ticks set host = 'written meanwhile'")
            answers = await asyncio.gather(*asked)
            assert stranger.status_code == 401
            assert {answer.json()["ticks"][0]["host"] for answer in answers} == {"written meanwhile"}

    asyncio.run(ask())


def test_what_is_shared_is_the_same_for_everybody(running: Panel, site: Database) -> None:
    site.execute(
        f"alter database {site.info.dbname} set archisync.now = '2026-11-23 10:00+00'"
    )  # of the panel's connections
    every = [(route.method, f"/api/v1{route.path}") for route in ROUTES]
    every += [(method, path) for method, path, _, _ in CONTRACT]
    with running.client(READ_TOKEN) as reader, running.client() as admin:
        for path in (path.format(type="orders", agent="anna", run=1) for method, path in every if method == "GET"):
            if "doctor" not in path and path not in PERSONAL:
                asked = f"{path}?type=orders&agent=anna" if path.endswith("/why") else path
                mine, others = (client.get(asked) for client in (reader, admin))
                assert (mine.status_code, mine.text) == (others.status_code, others.text), path
        assert reader.get("/api/v1/me").json()["role"] != admin.get("/api/v1/me").json()["role"]
