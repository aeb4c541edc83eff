"""A sync of which little changes writes nothing to the catalog: no temporary table, which would cost a dozen rows and their vacuum."""

from __future__ import annotations

import pytest

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store.database import Database
from archisync.store.runs import Counts
from archisync.sync import inmemory
from tests.support.rows import count
from tests.sync.conftest import Deliver

SQL_CATALOG_WRITES = """
select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) from pg_stat_sys_tables
 where relname in ('pg_class', 'pg_attribute', 'pg_type', 'pg_depend')
"""


def catalog_writes(db: Database) -> int:
    """Rows that anybody has written to the catalog of this database."""
    db.execute("select pg_stat_force_next_flush()")
    db.execute("select pg_stat_clear_snapshot()")
    return count(db, SQL_CATALOG_WRITES)


def export(sync_type: str, version: int, rows: int) -> str:
    """`rows` rows, each with its own key; one text in each is the version's."""
    declared = SYNC_TYPES[sync_type]
    values = {"identifier": "1", "text": "a", "number": "0.5", "integer": "1", "date": "2026-03-01"}
    values |= {"timestamp": "2026-03-01 12:00:00", "boolean": "true"}
    cells = {
        f.name: "{n}" if f.name in declared.key and f.kind == "identifier" else values[f.kind] for f in declared.fields
    }
    changing = next(
        f.name for f in reversed(declared.fields) if f.name not in declared.key and f.kind in ("text", "number")
    )
    cells[changing] = f"{version}"
    lines = (",".join(cells.values()).format(n=n) for n in range(rows))
    return "\n".join([",".join(cells), *lines]) + "\n"


@pytest.mark.parametrize("sync_type", SYNC_TYPES)
def test_a_small_change_writes_nothing_to_the_catalog(deliver: Deliver, connection: Database, sync_type: str) -> None:
    agent = "service-account" if SYNC_TYPES[sync_type].scope == "shared" else "anna.bianchi"
    first, second = (export(sync_type, version, rows=50) for version in (1, 2))
    before = catalog_writes(connection)
    assert deliver(first, sync_type, agent=agent).counts == Counts(seen=50, inserted=50)
    assert deliver(second, sync_type, agent=agent).counts == Counts(seen=50, updated=50)
    assert deliver(second, sync_type, agent=agent).counts == Counts(seen=50, unchanged=50)
    assert deliver(second, sync_type, agent=agent, trigger="forced").counts == Counts(seen=50, unchanged=50)
    assert catalog_writes(connection) == before


def test_a_large_change_has_a_stage(deliver: Deliver, connection: Database) -> None:
    """So the counters count."""
    rows = inmemory.MOST_ROWS + 1
    deliver(export("customers", 1, rows))
    before = catalog_writes(connection)
    assert deliver(export("customers", 2, rows)).counts == Counts(seen=rows, updated=rows)
    assert catalog_writes(connection) > before
