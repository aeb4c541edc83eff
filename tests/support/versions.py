"""An export in numbered versions."""

from pathlib import Path

from archisync.store.database import Database

AGENT = "anna.bianchi"
ROWS = 500


class Versions:
    """Exports of customers. All versions have the same keys; each has its own name and phone in every row."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / AGENT / "customers.csv"
        self._path.parent.mkdir(parents=True)
        self.template = f"{folder}/{{agent}}/{{type}}.csv"

    def write(self, version: int, rows: int = ROWS) -> None:
        lines = (f"{n:06},Customer {n} version {version},{version},Roma,RM,Italia\n" for n in range(rows))
        self._path.write_text("customer_id,name,phone,city,region,country\n" + "".join(lines), "utf-8")


def only_customers(db: Database) -> None:
    db.execute("update system.sync_settings set enabled = sync_type = 'customers'")
