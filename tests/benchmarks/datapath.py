"""The data path: a whole sync, from the CSV file to the commit. Its peers are a plain COPY of the file into an empty table with the
same columns and key, and select + insert / update row by row, on the same server in the same run. WAL and memory too."""

from __future__ import annotations

import gc
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from archisync.__main__ import GARBAGE_THRESHOLD
from archisync.rules.config import Config
from archisync.standalone.folders import temporary_folder
from archisync.standalone.postgres import EmbeddedPostgres
from archisync.store import agents, history, queued_runs
from archisync.store.database import Database, connected
from archisync.store.migrations import migrate
from tests.benchmarks.figures import Figure, Settings, side_by_side, timed
from tests.support.rows import do_job, forget_exports, job_of

AGENT = "anna.bianchi"
ROWS = 100_000
COLUMNS = (
    *(
        "customer_id",
        "name",
        "account_number",
        "vat_number",
        "fiscal_code",
        "sdi_code",
        "pec",
        "email",
        "phone",
        "mobile",
    ),
    *("fax", "url", "contact", "street", "postal_code", "city", "region", "country", "delivery_terms", "customer_type"),
    *("last_order_date", "orders_count", "sales_amount"),
)
CITIES = (
    "Roma",
    "Milano",
    "Napoli",
    "Torino",
    "Palermo",
    "Genova",
    "Bologna",
    "Firenze",
    "Reggio nell'Emilia",
    "Forlì",
)


def customer(number: int, version: int = 0) -> list[str]:
    """A record; each version has another phone, amount and date."""
    pick = random.Random(number)
    city = CITIES[number % len(CITIES)]
    return [
        f"C{number:07}",
        f"Ditta {city} {number} S.r.l.",
        f"{pick.randrange(10**6):06}",
        f"IT{pick.randrange(10**11):011}",
        f"{pick.randrange(10**11):011}",
        f"{pick.randrange(36**5):07}",
        f"ditta{number}@pec.example",
        f"info@ditta{number}.example",
        f"+39 06 {pick.randrange(10**7) + version}",
        f"+39 333 {pick.randrange(10**7)}",
        "",
        f"https://ditta{number}.example",
        "Ufficio acquisti",
        f"Via Garibaldi {number % 300}",
        f"{pick.randrange(10**5):05}",
        city,
        "RM",
        "Italia",
        "Porto franco",
        "B2B",
        f"2020-{1 + number % 12:02}-{1 + (number + version) % 28:02}",
        str(number % 500),
        f"{pick.randrange(10**8) / 100 + version:.2f}",
    ]


def write(path: Path, records: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        file.writelines(",".join(record) + "\n" for record in records)


# The peak of the process's own memory; the figure of `wait4` includes the parent's memory at the time of the fork.
PEAK = """
import re, sys
from archisync.__main__ import main
try:
    sys.exit(main())
finally:
    print(int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1]) * 1024, file=sys.stderr)
"""


class Peers:
    """The server, and the measurements."""

    def __init__(self, db: Database, url: str, folder: Path) -> None:
        self._db = db
        self.path = folder / AGENT / "customers.csv"
        self.path.parent.mkdir()
        self._config = Config.from_environment(
            {"ARCHISYNC_DATABASE_URL": url, "ARCHISYNC_SOURCE": f"{folder}/{{agent}}/{{type}}.csv"}
        )
        agents.add(db, AGENT, name=None, whitelisted=True)

    def empty(self) -> None:
        self._db.execute("truncate agents.customers")
        forget_exports(self._db)
        self._db.execute("vacuum analyze agents.customers")

    def settle(self) -> None:
        """Do what autovacuum and the checkpointer do between two syncs of a real day."""
        self._db.execute("vacuum analyze agents.customers")
        self._db.execute("checkpoint")

    def copy_s(self) -> float:
        """The seconds of a committed COPY into an empty table with the same columns and key."""
        self._db.execute("drop table if exists public.peer")
        self._db.execute(
            "create table public.peer as select " + ", ".join(COLUMNS) + " from agents.customers with no data"
        )
        self._db.execute("alter table public.peer add primary key (customer_id)")
        self._db.execute("checkpoint")

        return timed(lambda: self._copy_into("public.peer"))

    def _copy_into(self, table: str) -> None:
        with (
            self.path.open("rb") as file,
            self._db.cursor() as cursor,
            cursor.copy(f"copy {table} from stdin (format csv, header)") as sink,
        ):
            while block := file.read(1 << 18):
                sink.write(block)

    def bare_update_s(self, case: Case) -> float:
        """The seconds of the least that a sync can do that changes every row: COPY to a temporary table and one UPDATE, in one transaction.
        It checks nothing: no duplicate keys, no missing rows, no guard."""
        self.prepare(case)
        names = ", ".join(COLUMNS)
        assign = ", ".join(f"{name} = s.{name}" for name in COLUMNS[1:])

        def update() -> None:
            with self._db.transaction():
                # as applying does
                self._db.execute("select set_config('archisync.sync_type', 'customers', true)")
                self._db.execute("set local enable_nestloop = off; set local work_mem = '64MB'")
                self._db.execute(
                    f"create temp table floor on commit drop as select {names} from agents.customers with no data"
                )
                self._copy_into("floor")
                updated = self._db.execute(
                    f"update agents.customers t set {assign}, updated_at = now(), run_id = 0 from floor s"
                    " where t.customer_id = s.customer_id"
                ).rowcount
            assert updated == len(case.records)

        return timed(update)

    def prepare(self, case: Case) -> None:
        """Sync the case's base, then put its export in place."""
        self.empty()
        if case.base is not None:
            write(self.path, case.base)
            self.sync_s({"inserted": len(case.base)}, trigger="forced")
        write(self.path, case.records)
        self.settle()

    def case_s(self, case: Case) -> float:
        self.prepare(case)
        return self.sync_s(case.expected)

    def row_by_row_s(self, case: Case) -> float:
        """The seconds of the loop with which such systems begin: look up each row, then insert or update it, in one transaction."""
        self._db.execute("drop table if exists public.peer")
        self._db.execute(
            "create table public.peer as select " + ", ".join(COLUMNS) + " from agents.customers with no data"
        )
        self._db.execute("alter table public.peer add primary key (customer_id)")
        if case.base is not None:
            self._row_by_row(case.base)
        return timed(lambda: self._row_by_row(case.records))

    def _row_by_row(self, records: Sequence[Sequence[str]]) -> None:
        values = ", ".join(["%s"] * len(COLUMNS))
        select = f"select {', '.join(COLUMNS)} from public.peer where customer_id = %s"
        insert = f"insert into public.peer ({', '.join(COLUMNS)}) values ({values})"
        update = f"update public.peer set {', '.join(f'{name} = %s' for name in COLUMNS[1:])} where customer_id = %s"
        with self._db.transaction():
            for record in records:
                typed = [cell or None for cell in record]
                found = self._db.execute(select, [record[0]]).fetchone()
                if found is None:
                    self._db.execute(insert, typed)
                elif [None if value is None else str(value) for value in found.values()] != typed:
                    self._db.execute(update, [*typed[1:], record[0]])
            keys = {record[0] for record in records}
            known = [row["customer_id"] for row in self._db.execute("select customer_id from public.peer").fetchall()]
            for key in known:
                if key not in keys:
                    self._db.execute("delete from public.peer where customer_id = %s", [key])

    def wal_bytes(self) -> int:
        row = self._db.execute("select pg_current_wal_insert_lsn() - '0/0' as bytes").fetchone()
        assert row is not None
        return int(row["bytes"])

    def peak_bytes(self, rows: int) -> int:
        """The peak memory of `archisync run --inline`: of a first load or of a sync with half of the rows changed, the larger one."""
        self.empty()
        peaks = []
        for version in (0, 1):
            with self.path.open("w", encoding="utf-8") as file:
                file.write(",".join(COLUMNS) + "\n")
                file.writelines(",".join(customer(n, version=version * (n % 2))) + "\n" for n in range(rows))
            command = ["run", "customers", "--agent", AGENT, "--inline", "--json"]
            done = subprocess.run(
                [sys.executable, "-c", PEAK, *command],
                env=os.environ | dict(self._config.environment),
                check=True,
                capture_output=True,
                text=True,
            )
            peaks.append(int(done.stderr.splitlines()[-1]))
        return max(peaks)

    def sync_s(self, expected: dict[str, int], *, trigger: str = "scheduled") -> float:
        """The seconds of a sync. Its counts must be as expected: the speed of a wrong sync means nothing."""
        forced = queued_runs.force(self._db, "customers", AGENT, by="bench", why=None)
        self._db.execute("update system.queued_runs set trigger = %s where id = %s", (trigger, forced.run_id))
        job = job_of(self._db, forced.run_id)
        assert job is not None
        seconds = timed(lambda: do_job(self._db, self._config, job))
        run = history.get(self._db, forced.run_id)
        counts = run.counts.as_dict() if run.counts else {}
        seen = {name: counts.get(name) for name in expected}
        if run.state != "succeeded" or seen != expected:
            raise AssertionError(f"the sync ended {run.state} ({run.message}), counts {counts}, expected {expected}")
        print(f"   {seconds:.3f} s  {run.steps}", file=sys.stderr)
        return seconds


@contextmanager
def new_peers() -> Iterator[Peers]:
    """The peers on a server of their own. Garbage is collected as in the command, whose functions are called here."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    with (
        temporary_folder() as servers,
        EmbeddedPostgres(servers, durable=True) as server,
        connected(server.url, purpose="bench", answer_timeout_s=600) as db,
        tempfile.TemporaryDirectory() as folder,
    ):
        migrate(db, {})
        yield Peers(db, server.url, Path(folder))


def figures(settings: Settings) -> Iterator[Figure]:
    with new_peers() as peers:
        yield from _against_copy(peers, settings)
        yield from _against_rows(peers, settings)
        yield _wal(peers, settings)
        yield _memory(peers, settings)


class Case(NamedTuple):
    """A sync after a first load of `base` (None: a first load itself). `expected`: the counts that it must have."""

    name: str
    base: Sequence[Sequence[str]] | None
    records: Sequence[Sequence[str]]
    expected: dict[str, int]


def cases(rows: int) -> list[Case]:
    base = [customer(n) for n in range(rows)]
    part = rows // 100
    shuffled = base[:]
    random.Random(1).shuffle(shuffled)
    mixed = [customer(n, version=int(n % 100 == 0)) for n in range(part, rows)]
    mixed += [customer(n) for n in range(rows, rows + part)]
    mixed_counts = {"updated": (rows - part) // 100, "inserted": part, "absent": part}
    return [
        Case("first load", None, base, {"inserted": rows}),
        Case("unchanged, rows reordered", base, shuffled, {"unchanged": rows}),
        Case("byte-identical", base, base, {"unchanged": rows}),
        Case("every row changed", base, [customer(n, version=1) for n in range(rows)], {"updated": rows}),
        Case("1 % changed, 1 % new, 1 % gone", base, mixed, mixed_counts),
    ]


def _against_copy(peers: Peers, settings: Settings) -> Iterator[Figure]:
    rows = 5_000 if settings.quick else ROWS
    for case, target in zip(cases(rows), (0.5, 1.5, 8.0, 0.3, 1.0), strict=True):
        print(f" {case.name}", file=sys.stderr)
        works = [lambda case=case: peers.case_s(case), peers.copy_s]  # type: ignore[misc]
        if case.name == "every row changed":
            works.append(lambda case=case: peers.bare_update_s(case))  # type: ignore[misc]
        ours_s, peer_s, *floor_s = side_by_side(settings.rounds, *works)
        yield Figure(
            name=f"whole sync, {rows:,} customers: {case.name}",
            unit="rows/s",
            ours=rows / ours_s,
            against="plain COPY of the same file",
            peer=rows / peer_s,
            ratio=peer_s / ours_s,
            target=target,
            note="".join(f"COPY and one UPDATE, nothing checked: {peer_s / seconds:.3g}" for seconds in floor_s),
        )


def _against_rows(peers: Peers, settings: Settings) -> Iterator[Figure]:
    rows = 1_000 if settings.quick else 10_000
    by_name = {case.name: case for case in cases(rows)}
    targets = {"first load": 50, "unchanged, rows reordered": 20, "1 % changed, 1 % new, 1 % gone": 15}
    for name, target in targets.items():
        print(f" row by row: {name}", file=sys.stderr)
        case = by_name[name]
        ours_s, peer_s = side_by_side(
            min(settings.rounds, 3),
            lambda case=case: peers.case_s(case),  # type: ignore[misc]
            lambda case=case: peers.row_by_row_s(case),  # type: ignore[misc]
        )
        yield Figure(
            name=f"whole sync, {rows:,} customers: {name}",
            unit="rows/s",
            ours=rows / ours_s,
            against="select + insert / update row by row",
            peer=rows / peer_s,
            ratio=peer_s / ours_s,
            target=target,
        )


def _wal(peers: Peers, settings: Settings) -> Figure:
    rows = 5_000 if settings.quick else ROWS
    print(" WAL", file=sys.stderr)
    case = cases(rows)[1]
    written = []
    for _ in range(min(settings.rounds, 3)):
        peers.prepare(case)
        before = peers.wal_bytes()
        peers.sync_s(case.expected, trigger="forced")  # a forced run compares every row
        written.append(peers.wal_bytes() - before)
    median = statistics.median(written) / 2**20
    return Figure(
        name=f"WAL of an unchanged re-sync of {rows:,} rows, every row compared",
        unit="MiB",
        ours=median,
        against="nothing",
        peer=None,
        ratio=median,
        target=1,
        at_most=True,
    )


def _memory(peers: Peers, settings: Settings) -> Figure:
    small, large = (1_000, 20_000) if settings.quick else (10_000, 1_000_000)
    print(" memory", file=sys.stderr)
    peaks = [peers.peak_bytes(rows) / 2**20 for rows in (small, large)]
    return Figure(
        name=f"peak client memory, first load and changed re-sync of {large:,} rows",
        unit="MiB",
        ours=peaks[1],
        against=f"{small:,} rows",
        peer=peaks[0],
        ratio=peaks[1] - peaks[0],
        target=32,
        at_most=True,
        note="the ratio is the difference in MiB",
    )
