"""The data path: a whole sync, from the CSV file to the commit, against plain COPY of the same file into an empty table with the
same columns and key, in the same server and the same run."""

from __future__ import annotations

import io
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from archisync.config import Config
from archisync.database import Database, connected
from archisync.embedded import EmbeddedPostgres, temporary_folder
from archisync.log import EventLog
from archisync.serve import serve
from archisync.store import agents, runs
from archisync.store.migrations import migrate
from tests.benchmarks.figures import Figure, Settings, side_by_side, timed

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
    """One record; another version has another phone, amount and date."""
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
        f"20{20 + version % 5:02}-{1 + number % 12:02}-{1 + number % 28:02}",
        str(number % 500),
        f"{pick.randrange(10**8) / 100 + version:.2f}",
    ]


def write(path: Path, records: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        file.writelines(",".join(record) + "\n" for record in records)


class Peers:
    """The server, and what is measured on it."""

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
        self._db.execute(
            "update system.sync_state set known_rows = null, high_rows = '{}', applied_sha256 = null, applied_source = null"
        )
        self._db.execute("vacuum analyze agents.customers")

    def settle(self) -> None:
        """What autovacuum and the checkpointer do between two syncs of a real day."""
        self._db.execute("vacuum analyze agents.customers")
        self._db.execute("checkpoint")

    def copy_s(self) -> float:
        """Seconds of COPY into an empty table with the same columns and key, committed."""
        self._db.execute("drop table if exists public.peer")
        self._db.execute(
            "create table public.peer as select " + ", ".join(COLUMNS) + " from agents.customers with no data"
        )
        self._db.execute("alter table public.peer add primary key (customer_id)")
        self._db.execute("checkpoint")

        def copy() -> None:
            with (
                self.path.open("rb") as file,
                self._db.cursor() as cursor,
                cursor.copy("copy public.peer from stdin (format csv, header)") as sink,
            ):
                while block := file.read(1 << 18):
                    sink.write(block)

        return timed(copy)

    def sync_s(self, expected: dict[str, int], *, trigger: str = "scheduled") -> float:
        """Seconds of a sync, whose counts must be as expected: a fast wrong sync is no figure."""
        forced = runs.force(self._db, "customers", AGENT, by="bench", why=None)
        self._db.execute("update system.sync_runs set trigger = %s where id = %s", (trigger, forced.run_id))
        fence = runs.get(self._db, forced.run_id).fence
        seconds = timed(lambda: serve(self._db, self._config, EventLog(io.StringIO()), forced.run_id, fence))
        run = runs.get(self._db, forced.run_id)
        counts = run.counts.as_dict() if run.counts else {}
        seen = {name: counts.get(name) for name in expected}
        if run.state != "succeeded" or seen != expected:
            raise AssertionError(f"the sync ended {run.state} ({run.message}), counts {counts}, expected {expected}")
        print(f"   {seconds:.3f} s  {run.steps}", file=sys.stderr)
        return seconds


def figures(settings: Settings) -> Iterator[Figure]:
    rows = 5_000 if settings.quick else ROWS
    with (
        temporary_folder() as servers,
        EmbeddedPostgres(servers, durable=True) as server,
        connected(server.url, purpose="bench") as db,
        tempfile.TemporaryDirectory() as folder,
    ):
        migrate(db, {})
        peers = Peers(db, server.url, Path(folder))
        base = [customer(n) for n in range(rows)]
        part = rows // 100
        shuffled = base[:]
        random.Random(1).shuffle(shuffled)
        changed = [customer(n, version=1) for n in range(rows)]
        mixed = [customer(n, version=int(n % 100 == 0)) for n in range(part, rows)]
        mixed += [customer(n) for n in range(rows, rows + part)]

        def case(
            records: Sequence[Sequence[str]], expected: dict[str, int], *, first: bool = False
        ) -> Callable[[], float]:
            def measure() -> float:
                peers.empty()
                if not first:
                    write(peers.path, base)
                    peers.sync_s({"inserted": rows}, trigger="forced")
                write(peers.path, records)
                peers.settle()
                return peers.sync_s(expected)

            return measure

        cases = {
            "first load": (case(base, {"inserted": rows}, first=True), 0.5),
            "unchanged, rows reordered": (case(shuffled, {"unchanged": rows}), 1.5),
            "byte-identical": (case(base, {"unchanged": rows}), 8.0),
            "every row changed": (case(changed, {"updated": rows}), 0.3),
            "1 % changed, 1 % new, 1 % gone": (
                case(mixed, {"updated": (rows - part) // 100, "inserted": part, "absent": part}),
                1.0,
            ),
        }
        for name, (work, target) in cases.items():
            print(f" {name}", file=sys.stderr)
            ours_s, peer_s = side_by_side(settings.rounds, work, peers.copy_s)
            yield Figure(
                name=f"whole sync, {rows:,} customers: {name}",
                unit="rows/s",
                ours=rows / ours_s,
                against="plain COPY of the same file",
                peer=rows / peer_s,
                ratio=peer_s / ours_s,
                target=target,
            )
