"""`system.notices`: the outbox of the notification hook. Triggers write it (third migration); a tick delivers and prunes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from archisync.store.database import Database
from archisync.store.ticks import KEPT_DAYS

EXPIRE_AFTER_HOURS = 24
"""Nobody wants yesterday's notices, least all of them at once when a hook is set up or mended."""
FIRST_RETRY_S = 60
LONGEST_RETRY_S = 3600
"""No attempt is further away: one beyond 61 minutes was written by a wrong clock (here, and in `ticks.SQL_ANYTHING_TO_DO`)."""

# Purpose: is there anything to tell? Caller: tick. No locks. Both ends of an index range.
SQL_ANY_WAITING = """
select exists (select from system.notices where done_at is null and next_attempt_at <= system.clock())
    or exists (select from system.notices where done_at is null and next_attempt_at > system.clock() + interval '61 minutes') as some
"""
# Purpose: notices of a clock that was wrong are of now, or they would be sent, expire and be pruned when that time comes. Caller: tick,
# before it delivers. Locks: those rows (normally none), SKIP LOCKED.
SQL_MEND_CLOCK = """
update system.notices set next_attempt_at = system.clock(), created_at = least(created_at, system.clock())
 where id in (select id from system.notices
               where done_at is null and next_attempt_at > system.clock() + interval '61 minutes' for update skip locked)
"""
SQL_EXPIRE = """
update system.notices set done_at = system.clock(), outcome = 'expired'
 where done_at is null and created_at < system.clock() - make_interval(hours => %(hours)s)
"""
# Purpose: one notice for this transaction alone, oldest first. Caller: notify.send_notices, which calls the hook while it holds the
# row: an overlapping tick takes another one, and a tick that is killed leaves it for the next.
SQL_LOCK_NEXT = """
select id, event, sync_type, agent_id, run_id, message, created_at, attempts, outcome from system.notices
 where done_at is null and next_attempt_at <= system.clock()
 order by id limit 1 for update skip locked
"""
SQL_DELIVERED = """
update system.notices set done_at = system.clock(), attempts = attempts + 1, outcome = 'delivered' where id = %(id)s
"""
SQL_REFUSED = """
update system.notices
   set attempts = attempts + 1, outcome = %(outcome)s,
       next_attempt_at = system.clock() + make_interval(
         secs => least(%(first_s)s::int * power(2, least(attempts, 10)), %(longest_s)s::int))
 where id = %(id)s
"""
# Purpose: what has not been sent, and what no tick would send, if none mended it. Caller: doctor. No locks.
SQL_COUNT_WAITING = """
select count(*) as waiting, count(*) filter (where next_attempt_at > system.clock() + interval '61 minutes') as of_a_wrong_clock
  from (select next_attempt_at from system.notices where done_at is null order by next_attempt_at desc limit 1000) n
"""
# Purpose: what the hook did not take. Caller: doctor. No locks.
SQL_LIST_REFUSED = """
select id, event, sync_type, agent_id, run_id, message, created_at, attempts, outcome from system.notices
 where done_at is null and attempts > 0 order by id limit 1000
"""
SQL_PRUNE = """
delete from system.notices where id in
  (select id from system.notices where created_at < system.clock() - make_interval(days => %(days)s)
    order by created_at limit %(limit)s)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """`event`: held, degraded or recovered. `outcome`: why the last attempt to deliver it failed."""

    id: int
    event: str
    sync_type: str
    agent_id: str
    run_id: int | None
    message: str
    created_at: datetime
    attempts: int
    outcome: str | None

    @property
    def subject(self) -> str:
        return f"{self.sync_type} of {self.agent_id}"


def any_waiting(db: Database) -> bool:
    row = db.execute(SQL_ANY_WAITING).fetchone()
    return bool(row and row["some"])


def mend_clock(db: Database) -> int:
    return db.execute(SQL_MEND_CLOCK).rowcount


def expire(db: Database) -> int:
    return db.execute(SQL_EXPIRE, {"hours": EXPIRE_AFTER_HOURS}).rowcount


def lock_next(db: Database) -> Notice | None:
    row = db.execute(SQL_LOCK_NEXT).fetchone()
    return Notice(**row) if row else None


def mark_delivered(db: Database, notice: Notice) -> None:
    db.execute(SQL_DELIVERED, {"id": notice.id})


def mark_refused(db: Database, notice: Notice, outcome: str) -> None:
    """To be tried again, after a delay that doubles."""
    params = {"id": notice.id, "outcome": outcome, "first_s": FIRST_RETRY_S, "longest_s": LONGEST_RETRY_S}
    db.execute(SQL_REFUSED, params)


def count_waiting(db: Database) -> tuple[int, int]:
    """Notices that have not been sent, and those of them that a wrong clock wrote; at most 1000."""
    row = db.execute(SQL_COUNT_WAITING).fetchone()
    assert row is not None
    return int(row["waiting"]), int(row["of_a_wrong_clock"])


def refused(db: Database) -> list[Notice]:
    """Oldest first."""
    return [Notice(**row) for row in db.execute(SQL_LIST_REFUSED).fetchall()]


def prune(db: Database, *, limit: int) -> int:
    return db.execute(SQL_PRUNE, {"days": KEPT_DAYS, "limit": limit}).rowcount
