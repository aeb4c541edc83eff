"""An export in numbered versions, and the proof that its table holds exactly one of them."""

import io
from pathlib import Path

from archisync.config import Config
from archisync.database import Database
from archisync.log import EventLog
from archisync.serve import serve

AGENT = "anna.bianchi"
ROWS = 500


class Versions:
    """Exports of customers: every version has the same keys and other values in every row."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / AGENT / "customers.csv"
        self._path.parent.mkdir(parents=True)
        self.template = f"{folder}/{{agent}}/{{type}}.csv"

    def write(self, version: int, rows: int = ROWS) -> None:
        lines = (f"{n:06},Customer {n} version {version},{version}\n" for n in range(rows))
        self._path.write_text("customer_id,name,phone\n" + "".join(lines), "utf-8")


def only_customers(db: Database) -> None:
    db.execute("update system.sync_settings set enabled = sync_type = 'customers'")


def number(db: Database, statement: str) -> int:
    row = db.execute(statement).fetchone()
    assert row is not None
    return int(next(iter(row.values())))


def table_hash(db: Database) -> str:
    """Of what the export says; when and by which run a row was written is left out."""
    row = db.execute(
        "select md5(string_agg((to_jsonb(c) - '{inserted_at,updated_at,run_id}'::text[])::text, ',' order by customer_id))"
        " as hash from agents.customers c"
    ).fetchone()
    assert row is not None
    return str(row["hash"])


def drain(db: Database, config: Config) -> None:
    """Serve what is queued in this process."""
    while row := db.execute(
        "select id, fence from system.sync_runs where state = 'queued' order by id limit 1"
    ).fetchone():
        serve(db, config, EventLog(io.StringIO()), row["id"], row["fence"])
