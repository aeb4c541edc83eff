"""What a company's own sync types cost those who have none, and what two hundred of them cost an idle tick."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from archisync.actions import types
from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES, Field, Kind, Scope, SyncType
from archisync.schedule.tick import tick
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey
from archisync.store.audit import Actor, Via
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from tests.benchmarks import registry
from tests.benchmarks.figures import Figure, Settings, side_by_side, timed
from tests.benchmarks.scheduling import Place
from tests.support.rows import drain, forget_runs

ACTOR = Actor(name="bench", via=Via.CLI)
FEW, MANY = 6, 200
"""Own types of a usual company, and of a large one."""
AGENTS, MANY_AGENTS, SYNCED_AGENTS = 1_000, 10_000, 50
ROWS = 40
IDLE_TICKS = 7
WAIT_S = 1200


def own_type(number: int) -> SyncType:
    fields = (Field(name="code", kind=Kind.IDENTIFIER, required=True), *(Field(name=f"field_{n}") for n in range(10)))
    return SyncType(
        name=f"own_{number:03}",
        scope=Scope.AGENT,
        table=f"agents.own_{number:03}",
        default_interval_minutes=30,
        level=0,
        key=("code",),
        fields=fields,
    )


class Site:
    """A database with some own types and agents, none of whose pairs is due."""

    def __init__(self, place: Place, *, own: int, agents: int) -> None:
        self._place = place
        name = f"own_{own}_{agents}"
        place.empty_database(name)
        self._url = place.url(name)
        self.environment = {
            "ARCHISYNC_DATABASE_URL": self._url,
            "ARCHISYNC_REDIS_URL": place.valkey.url,
            "ARCHISYNC_SOURCE": f"{place.folder}/{{type}}.csv",
        }
        self.config = Config.from_environment(self.environment)
        with self.database() as db:
            migrate(db, {})
            for number in range(own):
                types.apply(db, ACTOR, own_type(number), self.config, file="bench")
            registry.load(db, agents)

    @contextmanager
    def database(self) -> Iterator[Database]:
        with connected(self._url, purpose="bench", answer_timeout_s=WAIT_S) as db:
            yield db

    def idle_s(self) -> float:
        """The seconds of an idle tick, on a connection of its own."""

        def work() -> None:
            with self.database() as db:
                assert tick(db, self.config).due == 0

        return statistics.median(timed(work) for _ in range(IDLE_TICKS))

    def idle_process_s(self) -> float:
        """The same as a process, as cron starts it."""
        command = [sys.executable, "-m", "archisync", "tick"]
        environment = os.environ | self.environment
        run = lambda: subprocess.run(command, env=environment, check=True, capture_output=True)  # noqa: E731
        return statistics.median(timed(run) for _ in range(IDLE_TICKS))

    def due_s(self, agents: int) -> float:
        """The seconds of a tick with the built-in types of so many agents due."""
        with self.database() as db, self._place.emptied_valkey():
            forget_runs(db)
            self._make_due(db, agents)
            summaries = []
            seconds = timed(lambda: summaries.append(tick(db, self.config)))
            assert summaries[0].due == agents * registry.AGENT_TYPES
        return seconds

    def unchanged_s(self, agents: int) -> float:
        """The seconds of so many agents' syncs of exports that have not changed since the last one."""
        with self.database() as db, self._place.emptied_valkey():
            forget_runs(db)
            self._make_due(db, agents)
            assert tick(db, self.config).due == agents * registry.AGENT_TYPES
            done: list[int] = []
            seconds = timed(lambda: done.append(drain(db, self.config)))
            assert done == [agents * registry.AGENT_TYPES]
        return seconds

    def _make_due(self, db: Database, agents: int) -> None:
        db.execute(
            "update system.sync_state set last_slot_at = system.clock() - make_interval(mins => %s) where sync_type = any (%s)"
            " and agent_id in (select id from agents.users order by id limit %s)",
            [registry.INTERVAL_MINUTES + 60, [*SYNC_TYPES.built_in], agents],
        )
        registry.settle(db)


def figures(settings: Settings) -> Iterator[Figure]:
    agents, many, many_agents = (100, 20, 200) if settings.quick else (AGENTS, MANY, MANY_AGENTS)
    synced = min(agents, SYNCED_AGENTS)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        postgres = stack.enter_context(EmbeddedPostgres(folder, durable=True, settings={"max_wal_size": "4GB"}))
        place = Place(postgres, stack.enter_context(EmbeddedValkey(folder, durable=False)), folder)
        write_exports(folder)
        none, few = Site(place, own=0, agents=agents), Site(place, own=FEW, agents=agents)
        for what, measure in _questions(agents, synced).items():
            print(f" {what}", file=sys.stderr)
            for site in (none, few):
                measure(site)  # imports, plans, and the first sync of exports that are then unchanged
            yield _figure(
                settings, f"{what}, {FEW} own types", [few, none], measure, "no own types", target=1.02
            )  # fmt: skip
        print(f" loading {many} own types of {many_agents:,} agents", file=sys.stderr)
        large, small = Site(place, own=many, agents=many_agents), Site(place, own=0, agents=many_agents)
        name = f"{many} own types, {many_agents:,} agents"
        for what, measure, target in (
            ("idle `archisync tick`, whole process", Site.idle_process_s, 1.1),
            ("idle tick (connect, decide, leave a heartbeat)", Site.idle_s, None),
        ):
            print(f" {what}", file=sys.stderr)
            yield _figure(settings, f"{what}, {name}", [large, small], measure, "no own types", target=target)


def _questions(agents: int, synced: int) -> dict[str, Callable[[Site], float]]:
    due = agents // 2
    return {
        "idle tick": Site.idle_s,
        f"tick with {due * registry.AGENT_TYPES:,} of the built-in types due": lambda site: site.due_s(due),
        f"{synced * registry.AGENT_TYPES} syncs of unchanged exports": lambda site: site.unchanged_s(synced),
    }


def _figure(
    settings: Settings, name: str, sites: Sequence[Site], measure: Callable[[Site], float], against: str,
    *, target: float | None,
) -> Figure:  # fmt: skip
    ours, peer = side_by_side(3 * settings.rounds, *(lambda site=site: measure(site) for site in sites))
    return Figure(
        name=name, unit="ms", ours=ours * 1000, against=against, peer=peer * 1000, ratio=ours / peer, target=target, at_most=True
    )  # fmt: skip


def write_exports(folder: Path) -> None:
    """One export a type for all agents, in ISO form: what it has matters less than that it stays as it is."""
    for name in SYNC_TYPES.built_in:
        type_ = SYNC_TYPES[name]
        cells = {Kind.IDENTIFIER: "K{n}", Kind.NUMBER: "{n}.5", Kind.INTEGER: "{n}", Kind.DATE: "2026-03-01",
                 Kind.TIMESTAMP: "2026-03-01T10:00:00Z", Kind.BOOLEAN: "Yes", Kind.TEXT: "text"}  # fmt: skip
        lines = [",".join(field.name for field in type_.fields)]
        lines += [",".join(cells[field.kind].format(n=n) for field in type_.fields) for n in range(ROWS)]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", "utf-8")
