"""What the fault tests look at in the tables of agent data: nothing but the data itself."""

from archisync.database import Database
from archisync.synctypes import SYNC_TYPES, SyncType

BOOKKEEPING = ("inserted_at", "updated_at", "run_id", "absent_since")


def every_table() -> tuple[str, ...]:
    return tuple(kind.table for kind in SYNC_TYPES.values())


def fingerprint(db: Database, *kinds: SyncType) -> str:
    """A hash over every row of the types' tables (default: all), whatever run wrote it and when; whether a row is marked
    absent counts, since when does not."""
    parts = []
    for kind in kinds or tuple(SYNC_TYPES.values()):
        row = db.execute(
            f"""
            select md5(coalesce(string_agg(line, chr(10) order by line), '')) as hash
              from (select ((to_jsonb(t) - %(bookkeeping)s::text[])
                            || jsonb_build_object('absent', t.absent_since is not null))::text as line
                      from {kind.table} t) lines
            """,
            {"bookkeeping": list(BOOKKEEPING)},
        ).fetchone()
        assert row is not None
        parts.append(f"{kind.name}:{row['hash']}")
    return " ".join(parts)
