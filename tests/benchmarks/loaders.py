"""A whole sync as a process, from start to exit, against tools with which people load a CSV file into PostgreSQL.

Each tool does what it is made for with 10,000 customers: dlt merges by key, sling loads incrementally by key, pandas replaces the table by
COPY. None of them checks the export, marks absent rows or records a run. A tool that is not installed is left out and named.

The floor is measured too: the least that a Python program with the same libraries does. It imports them, copies the file to a temporary
table, upserts and commits. No sync that does more can be faster.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from tests.benchmarks.datapath import AGENT, COLUMNS, Case, cases, write
from tests.benchmarks.figures import Figure, Settings, side_by_side, timed
from tests.support.rows import forget_exports

_DLT = """
import csv, os, sys
import dlt
rows = csv.DictReader(open(sys.argv[1], encoding="utf-8"))
pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(sys.argv[2]), dataset_name="dlt_bench", pipelines_dir=sys.argv[3])
pipeline.run(rows, table_name="customers", write_disposition="merge", primary_key="customer_id").raise_on_failed_jobs()
"""
_PANDAS = """
import csv, io, sys
import pandas, sqlalchemy
def copy(table, connection, keys, rows):
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    with connection.connection.cursor() as cursor:
        with cursor.copy(f"copy {table.schema}.{table.name} ({', '.join(keys)}) from stdin (format csv)") as sink:
            sink.write(buffer.getvalue())
frame = pandas.read_csv(sys.argv[1], dtype=str)
engine = sqlalchemy.create_engine(sys.argv[2].replace("postgresql://", "postgresql+psycopg://"))
with engine.begin() as connection:
    connection.exec_driver_sql("create schema if not exists pandas_bench")
    frame.to_sql("customers", connection, schema="pandas_bench", if_exists="replace", index=False, method=copy)
    connection.exec_driver_sql("alter table pandas_bench.customers add primary key (customer_id)")
"""
_FLOOR = """
import gc, os, sys
gc.set_threshold(100_000)
import psycopg, typer
names = open(sys.argv[1], encoding="utf-8").readline().strip().split(",")
mine, new = (", ".join(f"{table}.{name}" for name in names[1:]) for table in ("t", "excluded"))
with psycopg.connect(sys.argv[2]) as connection:
    connection.execute(f"create temp table stage on commit drop as select {', '.join(names)} from public.floor with no data")
    with connection.cursor() as cursor, cursor.copy("copy stage from stdin (format csv, header)") as sink:
        with open(sys.argv[1], "rb") as file:
            while block := file.read(1 << 18):
                sink.write(block)
    connection.execute(
        f"insert into public.floor as t select * from stage on conflict (customer_id) do update"
        f" set {', '.join(f'{name} = excluded.{name}' for name in names[1:])} where ({mine}) is distinct from ({new})"
    )
os._exit(0)
"""


class Loaders:
    """The server, the export, and each tool as a command."""

    def __init__(self, db: Database, url: str, tcp_url: str, folder: Path) -> None:
        self._db, self._url, self._folder = db, url, folder
        self._tcp_url = tcp_url
        self.path = folder / AGENT / "customers.csv"
        self.path.parent.mkdir()
        self._environment = os.environ | {
            "ARCHISYNC_DATABASE_URL": url,
            "ARCHISYNC_SOURCE": f"{folder}/{{agent}}/{{type}}.csv",
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "ERROR",
            "SLING_DISABLE_TELEMETRY": "true",
            "BENCH": self._tcp_url,
        }
        agents.add(db, AGENT, name=None, whitelisted=True)

    def tools(self) -> dict[str, tuple[float, Callable[[], None] | None, str]]:
        """Name → target of the ratio, how to run the tool (None: it can't run), and why it can't."""
        return {
            "dlt (merge)": (10, self._python(_DLT, "dlt"), "dlt is not installed"),
            "sling (incremental)": (
                3,
                self._sling(),
                "sling is not on the PATH; its licence keeps it out of the extra",
            ),
            "pandas to_sql with COPY": (1.5, self._python(_PANDAS, "pandas", "sqlalchemy"), "pandas is not installed"),
        }

    def ours(self) -> None:
        program = Path(sys.executable).with_name("archisync")
        self._run([str(program), "--quiet", "run", "customers", "--agent", AGENT, "--inline"])

    def floor(self) -> None:
        self._run([sys.executable, "-c", _FLOOR, str(self.path), self._url])

    def begin(self) -> None:
        """Empty every table."""
        self._db.execute("truncate agents.customers")
        forget_exports(self._db)
        for schema in ("dlt_bench", "dlt_bench_staging", "sling_bench", "pandas_bench"):
            self._db.execute(f"drop schema if exists {schema} cascade")
        shutil.rmtree(self._folder / "dlt", ignore_errors=True)
        self._db.execute("drop table if exists public.floor")
        self._db.execute(f"create table public.floor as select {', '.join(COLUMNS)} from agents.customers with no data")
        self._db.execute("alter table public.floor add primary key (customer_id)")

    def case_s(self, case: Case, tool: Callable[[], None]) -> float:
        """The seconds that the tool takes over the case's export, after it has loaded the case's base."""
        self.begin()
        if case.base is not None:
            write(self.path, case.base)
            tool()
        write(self.path, case.records)
        self._db.execute("checkpoint")
        return timed(tool)

    def _python(self, script: str, *modules: str) -> Callable[[], None] | None:
        if any(importlib.util.find_spec(module) is None for module in modules):
            return None
        command = [sys.executable, "-c", script, str(self.path), self._tcp_url, str(self._folder / "dlt")]
        return lambda: self._run(command)

    def _sling(self) -> Callable[[], None] | None:
        program = shutil.which("sling")
        if program is None:
            return None
        command = [
            program, "run", "--src-stream", self.path.as_uri(), "--tgt-conn", "BENCH", "--tgt-object", "sling_bench.customers",
            "--mode", "incremental", "--primary-key", "customer_id",
        ]  # fmt: skip
        return lambda: self._run(command)

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{command[:3]} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")


def figures(settings: Settings) -> Iterator[Figure]:
    """Each tool in each case."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with (
        temporary_folder() as servers,
        EmbeddedPostgres(servers, durable=True, settings={"listen_addresses": "127.0.0.1", "port": port}) as server,
        connected(server.url, purpose="bench", answer_timeout_s=600) as db,
        tempfile.TemporaryDirectory() as folder,
    ):
        migrate(db, {})
        # Some tools can't connect to a socket in a folder.
        tcp_url = f"postgresql://postgres:unused@127.0.0.1:{port}/archisync?sslmode=disable"
        loaders = Loaders(db, server.url, tcp_url, Path(folder))
        rows = 1_000 if settings.quick else 10_000
        by_name = {case.name: case for case in cases(rows)}
        for name in ("first load", "unchanged, rows reordered", "1 % changed, 1 % new, 1 % gone"):
            for tool, (target, run, why_not) in loaders.tools().items():
                print(f" {name}, {tool}", file=sys.stderr)
                yield _figure(loaders, by_name[name], tool, target, run, why_not, rows=rows, rounds=settings.rounds)


def _figure(
    loaders: Loaders,
    case: Case,
    tool: str,
    target: float,
    run: Callable[[], None] | None,
    why_not: str,
    *,
    rows: int,
    rounds: int,
) -> Figure:
    ours_s = peer_s = None
    note = why_not
    if run is not None:
        ours_s, peer_s, floor_s = side_by_side(
            rounds,
            lambda: loaders.case_s(case, loaders.ours),
            lambda: loaders.case_s(case, run),
            lambda: loaders.case_s(case, loaders.floor),
        )
        note = f"the floor: {peer_s / floor_s:.3g}"
    return Figure(
        name=f"whole process, {rows:,} customers: {case.name}",
        unit="rows/s",
        ours=rows / ours_s if ours_s else None,
        against=tool,
        peer=rows / peer_s if peer_s else None,
        ratio=peer_s / ours_s if ours_s and peer_s else None,
        target=target,
        note=note,
    )
