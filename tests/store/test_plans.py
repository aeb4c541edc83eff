"""The plans of what archisync does all day, read from the server's own log: whatever the planner knows about the tables, no statement of a
tick, a claim, a run, its end, `status`, `why`, `history` or `metrics` walks over all pairs or all runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from archisync.rules.config import Config
from archisync.schedule.tick import tick
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, health
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from archisync.web.app import application
from tests.benchmarks import company
from tests.conftest import Cli, roomy_memory
from tests.support.panel import inside
from tests.support.rows import count, drain
from tests.support.systempostgres import needs_system_postgres, system_postgres

MANY = 10_000
A_MILLION = 1_000_000
RUNS_AN_AGENT = 6
DUE = 12
"""Agents that are due at once, and more often on one connection than a prepared statement is planned anew."""
READ_AT_MOST = 7 * (health.COUNTED + 1)
"""Rows that one step of a plan may read: a count stops at health.COUNTED, and may have to pass as many that it doesn't count."""
LOGGED = {
    "shared_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "log_filename": "plans",
    "log_file_mode": "0644",
    "log_rotation_size": "0",
    "autovacuum": "off",
    "jit": "on",
    "jit_above_cost": "0",
}


PAGES = (
    "/", "/types/orders", "/failing", "/runs", "/runs?reason=rare", "/runs?since=1h", "/agents", "/held", "/audit",
    "/pair?type=orders&agent=agent-00000042", "/agent?id=agent-00000042", "/api/v1/pairs", "/api/sync/monitoring/status",
)  # fmt: skip
"""What people look at in the panel. (Searches for agents have a test of their own; the plan reads a sample.)"""


class Step(NamedTuple):
    """A step of a plan that reads, the rows that it looked at, and the statement."""

    what: str
    rows: int
    statement: str


class Server(NamedTuple):
    url: str
    log: Path


@contextmanager
def embedded(folder: Path) -> Iterator[Server]:
    with EmbeddedPostgres(folder, durable=False, settings=LOGGED | {"log_directory": str(folder / "log")}) as server:
        yield Server(server.url, folder / "log" / "plans.json")


@contextmanager
def of_the_system(folder: Path) -> Iterator[Server]:
    settings = [f"{name}={value}" for name, value in LOGGED.items()]
    with system_postgres(*settings, f"log_directory={folder / 'log'}") as url:
        yield Server(url, folder / "log" / "plans.json")


@pytest.fixture(params=[embedded], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with temporary_folder(roomy_memory()) as folder:
        folder.chmod(0o711)
        (folder / "log").mkdir()
        (folder / "log").chmod(0o777)  # PostgreSQL may be another account
        with request.param(folder) as started:
            yield started


def fresh(db: Database, agents: int) -> None:
    company.found(db, agents=agents, runs=agents * RUNS_AN_AGENT)


def old(db: Database, agents: int) -> None:
    """The tables were looked at when they were as good as empty."""
    migrate(db, {})
    db.execute("analyze")
    company.fill(db, agents=agents, runs=agents * RUNS_AN_AGENT)


def none(db: Database, agents: int) -> None:
    """Nobody ever looked at the tables."""
    migrate(db, {})
    company.fill(db, agents=agents, runs=agents * RUNS_AN_AGENT)


STATISTICS: tuple[Callable[[Database, int], None], ...] = (fresh, old, none)
OLDER = [needs_system_postgres, pytest.mark.check]
CASES = [
    *((embedded, statistics) for statistics in STATISTICS),
    pytest.param(of_the_system, none, marks=OLDER),
    *(pytest.param(of_the_system, statistics, marks=[*OLDER, pytest.mark.soak]) for statistics in (fresh, old)),
]
ON_EACH = pytest.mark.parametrize(("server", "statistics"), CASES, indirect=["server"], ids=lambda f: f.__name__)


class Site:
    """A company on a server, and what the server logs of the statements."""

    def __init__(self, server: Server, name: str, redis_url: str, exports: Path) -> None:
        self._log = server.log
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(f'create database "{name}"')
            # Its clock stands, so that nothing is due but what a test makes due.
            admin.execute(f"alter database \"{name}\" set archisync.now = '{datetime.now(UTC).isoformat()}'")
        self.url = psycopg.conninfo.make_conninfo(server.url, dbname=name)
        self._name = name
        self.environment = {
            "ARCHISYNC_DATABASE_URL": self.url,
            "ARCHISYNC_REDIS_URL": redis_url,
            "ARCHISYNC_SOURCE": f"{exports}/{{agent}}/{{type}}.csv",
        }
        self.config = Config.from_environment(self.environment)

    def read(self, act: Callable[[], object]) -> list[Step]:
        """What the statements of `act` read, in this database."""
        self._until_written("the act begins", since=self._log.stat().st_size)  # so is what was done before
        begin = self._log.stat().st_size
        act()
        text = self._until_written("the act is over", since=begin)
        entries = [
            json.loads(line) for line in text.splitlines() if line.startswith("{")
        ]  # the first one may be the end of a line
        mine = [entry["message"] for entry in entries if entry.get("dbname") == self._name]
        plans = [json.loads(message.split("plan:", 1)[1]) for message in mine if "plan:" in message]
        return [step for plan in plans for step in steps(plan["Plan"], plan["Query Text"])]

    def _until_written(self, mark: str, *, since: int) -> str:
        """The log from there on, once it has this mark: it is written in order, and a little later."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"do $$ begin raise log '{mark}'; end $$".encode())
        while not (text := self._from(since)).endswith("}\n") or mark not in text:
            continue
        return text

    def _from(self, begin: int) -> str:
        with self._log.open("rb") as log:
            log.seek(begin)
            return log.read().decode()


def steps(plan: Mapping[str, Any], statement: str) -> Iterator[Step]:
    if plan["Node Type"].endswith("Scan"):
        removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        rows = plan["Actual Loops"] * (plan["Actual Rows"] + removed)
        about = [plan[key] for key in ("Index Name", "Relation Name", "CTE Name") if key in plan]
        yield Step(" ".join([plan["Node Type"], *about]), round(rows), statement)
    for part in plan.get("Plans", ()):
        yield from steps(part, statement)


def export(folder: Path, agent: str, rows: int, version: int) -> None:
    (folder / agent).mkdir(exist_ok=True)
    lines = [f"{agent}-{n},Ditta {n},{version}\n" for n in range(rows)]
    (folder / agent / "customers.csv").write_text("customer_id,name,phone\n" + "".join(lines), "utf-8")


def make_due(db: Database, ids: list[str]) -> None:
    db.execute(
        "update system.sync_state set last_slot_at = system.clock() - interval '1 day' where agent_id = any(%s)", [ids]
    )


def day(site: Site, cli: Cli, exports: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What people and machines do, in order."""
    ids = [f"agent-{n:08}" for n in range(1, DUE + 1)]
    with connected(site.url, purpose="test") as db:
        yield "an idle tick", lambda: tick(db, site.config)
        for version in (1, 2, 2):  # a first load, changes, unchanged
            for agent in ids:
                export(exports, agent, 20, version)
            make_due(db, ids)
            yield f"tick {version}", lambda: tick(db, site.config)
            assert DUE <= count(db, "select count(*) from system.queued_runs") <= 4 * DUE
            yield f"runs {version}", lambda: drain(db, site.config)
        make_due(db, ids)
        yield "tick before status", lambda: tick(db, site.config)
        for command in (
            "status",
            "status --json",
            f"why customers {ids[0]}",
            f"why orders {ids[-1]}",
            "history",
            "history --state failed",
            "history prices",
            f"history --agent {ids[0]}",
            "metrics",
            "held list",
        ):
            yield command, lambda command=command: works(cli(*command.split(), env=site.environment))  # type: ignore[misc]
    for path in PAGES:
        yield path, lambda path=path: asyncio.run(get(site, path))  # type: ignore[misc]


async def get(site: Site, path: str) -> None:
    async with inside(application(site.config)) as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text


def works(done: Any) -> None:
    assert done.returncode == 0, done.stderr


def walks(site: Site, cli: Cli, exports: Path) -> list[str]:
    """The steps that read too much."""
    return [
        f"{name}: {step.rows} rows by {step.what} in: {' '.join(step.statement.split())[:300]}"
        for name, act in day(site, cli, exports)
        for step in site.read(act)
        if step.rows > READ_AT_MOST
    ]


@pytest.mark.slow
@ON_EACH
def test_no_statement_walks_over_all_pairs_or_runs(
    server: Server, statistics: Callable[[Database, int], None], redis_url: str, cli: Cli, exports: Path
) -> None:
    site = Site(server, statistics.__name__, redis_url, exports)
    with connected(site.url, purpose="load") as db:
        statistics(db, MANY)
    found = walks(site, cli, exports)
    assert not found, "\n".join(found)


@pytest.mark.soak
@ON_EACH
def test_no_statement_walks_over_a_million_agents(
    server: Server, statistics: Callable[[Database, int], None], redis_url: str, cli: Cli, exports: Path
) -> None:
    site = Site(server, f"{statistics.__name__} of a million", redis_url, exports)
    with connected(site.url, purpose="load", statement_timeout_s=3_600, answer_timeout_s=3_600) as db:
        statistics(db, A_MILLION)
    found = walks(site, cli, exports)
    assert not found, "\n".join(found)


REGISTRIES = {
    "ours": "select",
    "of numbers": "create schema agents; create table agents.users (id bigint primary key, full_name text, whitelisted boolean)",
}
SQL_NUMBERS = "insert into agents.users select n, 'Agente ' || n, true from generate_series(1, %(agents)s) n"


@pytest.mark.parametrize("number", [2 * MANY, pytest.param(A_MILLION, marks=pytest.mark.soak)])
@pytest.mark.parametrize("registry", REGISTRIES)
@ON_EACH
def test_a_search_for_agents_looks_through_a_bounded_number_of_ids(
    server: Server, statistics: Callable[[Database, int], None], registry: str, number: int, redis_url: str, exports: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Neither an id that nobody has nor a registry without statistics makes it read, or sort, all ids."""
    monkeypatch.setattr(agents, "LOOKED_THROUGH", MANY)
    site = Site(server, f"{registry}, {number}, {statistics.__name__}", redis_url, exports)
    with connected(site.url, purpose="test", answer_timeout_s=600) as db:
        db.execute(REGISTRIES[registry])
        migrate(db, {})
        if statistics is old:
            db.execute("analyze")
        db.execute("set session_replication_role = replica")
        db.execute(SQL_NUMBERS if registry == "of numbers" else company.SQL_AGENTS, {"agents": number})
        if statistics is fresh:
            db.execute("vacuum (analyze, freeze)")
        for search in ({"part": "nobody"}, {"part": "7777"}, {"whitelisted": False}, {"after": "4"}, {}):
            read = site.read(lambda search=search: agents.page(db, limit=50, **search))  # type: ignore[misc]
            looked_at = max(step.rows for step in read)
            assert looked_at <= MANY + MANY // agents.STEP, (search, read)
        assert looked_at <= READ_AT_MOST  # a page of all needs no search
        assert agents.page(db, limit=50, part="nobody").next is not None  # it does not say that there is none


def test_a_walk_is_found(server: Server, redis_url: str, exports: Path) -> None:
    site = Site(server, "walked", redis_url, exports)
    with connected(site.url, purpose="load") as db:
        none(db, MANY)
        read = site.read(lambda: db.execute("select count(*) from system.sync_state where known_rows is null"))
    assert max(step.rows for step in read) > READ_AT_MOST
