"""A company of many agents with small exports, on servers of its own: what `small` and its peers work on."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg

from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.standalone.valkey import EmbeddedValkey

TYPES: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "orders": (
        ("order_id",),
        (
            ("order_id", "text"), ("order_number", "text"), ("customer_id", "text"), ("created_at", "timestamptz"),
            ("description", "text"), ("total_amount", "numeric"),
        ),
    ),
    "customers": (
        ("customer_id",),
        (
            ("customer_id", "text"), ("name", "text"), ("vat_number", "text"), ("phone", "text"), ("street", "text"),
            ("city", "text"), ("sales_amount", "numeric"),
        ),
    ),
    "ddt": (
        ("ddt_number",),
        (
            ("ddt_number", "text"), ("order_number", "text"), ("delivery_date", "date"), ("customer_id", "text"),
            ("courier", "text"), ("quantity", "numeric"),
        ),
    ),
    "invoices": (
        ("invoice_number", "order_number"),
        (
            ("invoice_number", "text"), ("order_number", "text"), ("invoice_date", "date"), ("customer_id", "text"),
            ("net_amount", "numeric"), ("total_amount", "numeric"),
        ),
    ),
}  # fmt: skip
"""Sync type → the key, and the columns of its export with their types in PostgreSQL."""
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def make_naive_tables(connection: psycopg.Connection[Any]) -> None:
    """The tables of the peers that COPY and MERGE: the Celery task and the script."""
    connection.execute("drop schema if exists celery cascade; create schema celery")
    for name, (key, columns) in TYPES.items():
        definitions = ", ".join(f"{column} {kind}" for column, kind in columns)
        connection.execute(
            f"create table celery.{name} (agent text, {definitions}, primary key (agent, {', '.join(key)}))".encode()
        )


def line(sync_type: str, number: int, changed: int) -> str:
    """One record; another `changed` has another value in one column."""
    match sync_type:
        case "orders":
            return f"O{number:08},N{number:08},C{number % 50:05},2026-03-01T10:00:00Z,Ordine {number},{number + changed}.50"
        case "customers":
            return f"C{number:08},Cliente {number} S.r.l.,IT{number:011},02 {1000 + changed},Via Garibaldi {number},Milano,{number}.50"
        case "ddt":
            return f"D{number:08},N{number:08},2026-03-02,C{number % 50:05},Corriere {number % 7},{number + changed}"
        case _:
            return f"I{number:08},N{number:08},2026-03-03,C{number % 50:05},{number + changed}.00,{number}.50"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a round of `syncs` syncs took. CPU in seconds: of the workers, of PostgreSQL, of Valkey."""

    syncs: int
    seconds: float
    workers_s: float
    postgres_s: float
    valkey_s: float
    wal_bytes: int

    @property
    def per_second(self) -> float:
        return self.syncs / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Of all processes, for one sync."""
        return 1000 * (self.workers_s + self.postgres_s + self.valkey_s) / self.syncs

    def note(self) -> str:
        each = [1000 * part / self.syncs for part in (self.workers_s, self.postgres_s, self.valkey_s)]
        return f"CPU a sync: workers {each[0]:.2f}, PostgreSQL {each[1]:.2f}, Valkey {each[2]:.2f} ms"


class Site:
    """`agents` agents with four exports of `rows` rows each."""

    def __init__(
        self, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, folder: Path, agents: int, rows: int
    ) -> None:
        self._postgres, self._valkey = postgres, valkey
        self.url, self.redis_url = postgres.url, valkey.url
        self.folder, self.agents, self.rows = folder, agents, rows
        self._random = random.Random(1)
        self.ids = [f"agent-{number:05}" for number in range(agents)]
        for agent in self.ids:
            (folder / agent).mkdir()

    @property
    def pairs(self) -> int:
        return self.agents * len(TYPES)

    def path(self, agent: str, sync_type: str) -> Path:
        return self.folder / agent / f"{sync_type}.csv"

    def write(self, *, share_of_rows: float = 0.0, share_of_exports: float = 1.0) -> None:
        """Write the exports, each with records of its own: of a share of them, a share of the rows, at least one, gets a new value."""
        changed = self._random.randrange(1, 10**6)
        for first, agent in zip(count(step=self.rows), self.ids, strict=False):
            for sync_type, (_, columns) in TYPES.items():
                if self._random.random() >= share_of_exports:
                    continue
                those = set(self._random.sample(range(self.rows), ceil(share_of_rows * self.rows)))
                lines = [",".join(name for name, _ in columns)]
                lines += [line(sync_type, first + row, changed if row in those else 0) for row in range(self.rows)]
                self.path(agent, sync_type).write_text("\n".join(lines) + "\n", "utf-8")

    def measured(self, work: Callable[[], object], workers_s: Callable[[], float]) -> Cost:
        """The cost of the work over all pairs. `workers_s` tells the CPU seconds of whoever did it, when it is done."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            lsn = _one(connection, "select pg_current_wal_insert_lsn()")
            before = _tree_s(self._postgres.pid), _tree_s(self._valkey.pid)
            begun = perf_counter()
            work()
            seconds = perf_counter() - begun
            after = _tree_s(self._postgres.pid), _tree_s(self._valkey.pid)
            wal = int(_one(connection, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", [lsn]))
        return Cost(
            syncs=self.pairs, seconds=seconds, workers_s=workers_s(), postgres_s=after[0] - before[0],
            valkey_s=after[1] - before[1], wal_bytes=wal,
        )  # fmt: skip


def _one(connection: psycopg.Connection[Any], statement: str, params: Sequence[object] = ()) -> Any:
    row = connection.execute(statement.encode(), params).fetchone()
    assert row is not None
    return row[0]


def _tree_s(pid: int) -> float:
    """CPU seconds of a process, of its children, and of those of its children that have ended."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(entry.name) == pid:
            total += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            total += sum(map(int, fields[11:13]))
    return total / TICKS_A_SECOND


@contextmanager
def site(folder: Path, *, agents: int, rows: int) -> Iterator[Site]:
    """Servers with durable settings, and the site on them; the exports are not written yet."""
    with (
        temporary_folder() as servers,
        EmbeddedPostgres(
            servers, durable=True, settings={"shared_preload_libraries": "pg_stat_statements", "max_wal_size": "4GB"}
        ) as postgres,
        EmbeddedValkey(servers, durable=False) as valkey,
    ):
        yield Site(postgres, valkey, folder, agents, rows)


def say(text: str) -> None:
    print(f"   {text}", file=sys.stderr, flush=True)
