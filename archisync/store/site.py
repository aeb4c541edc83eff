"""Which site this is: whoever shares a Redis by mistake is told apart by its database."""

from __future__ import annotations

import psycopg

from archisync.store.database import Database, one

# Purpose: a name for this database that no other one has, also not its copy on another server. Caller: site_of. No locks.
SQL_SITE = """
select left(md5(concat_ws(' ', c.system_identifier, d.oid)), 16) as site
  from pg_control_system() c cross join pg_database d where d.datname = current_database()
"""


def site_of(db: Database) -> str | None:
    """The database's name among all others; None where a provider does not let this role ask. `db` must be in autocommit mode."""
    try:
        return str(one(db, SQL_SITE)["site"])
    except psycopg.errors.InsufficientPrivilege:
        return None
