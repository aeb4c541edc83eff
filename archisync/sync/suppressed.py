"""When PostgreSQL wrote other rows than planned: the error that ends the run, and who may have suppressed the rows."""

from __future__ import annotations

import psycopg

from archisync.base.errors import SyncError
from archisync.sync.target import Target

# Purpose: the row triggers that run before a write, which may drop or change it, and the rules of a table and its partitions. Caller:
# check. No locks.
SQL_SUPPRESSORS = """
with ours as (select %(table)s::text::regclass::oid as oid union select relid from pg_partition_tree(%(table)s::text::regclass))
select 'the trigger ' || t.tgname as name from pg_trigger t join ours on ours.oid = t.tgrelid
 where not t.tgisinternal and t.tgenabled <> 'D' and (t.tgtype & 3) = 3
union
select 'the rule ' || r.rulename from pg_rewrite r join ours on ours.oid = r.ev_class where r.rulename <> '_RETURN'
 order by 1 limit 5
"""


class WriteMismatchError(SyncError):
    """PostgreSQL wrote fewer or other rows than planned: nothing is committed."""

    reason = "writes-suppressed"


def check(target: Target, what: str, *, planned: int, written: int) -> None:
    """Raise WriteMismatchError unless as many rows were written as planned. `what`: "inserted", say."""
    if written == planned:
        return
    table = target.type.table
    names = [row["name"] for row in target.db.execute(SQL_SUPPRESSORS, {"table": table}).fetchall()]
    who = f" ({', '.join(names)} may have suppressed the others)" if names else ""
    raise WriteMismatchError(
        f"{written} of {planned} planned rows of {table} were {what}, so nothing was written{who}",
        hint=f"a trigger or rule of {table} must let each row pass: return new (or old), not null"
        if names
        else f"does another program write to {table} at the same time? the next sync compares again",
    )


def replaced(target: Target, exc: psycopg.Error) -> WriteMismatchError:
    """The error for a statement that PostgreSQL refuses because a rule of the table replaces it. The transaction is over, so nobody can
    ask which."""
    table = target.type.table
    return WriteMismatchError(
        f"a rule of {table} replaces what a sync writes, so nothing was written: {exc.diag.message_primary}",
        hint=f"psql: \\d {table} shows the rule; drop rule NAME on {table}",
    )
