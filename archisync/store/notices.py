"""`system.notices`: the outbox of the notification hook. Triggers write it; a tick delivers and prunes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from archisync.store.database import Database, one
from archisync.store.ticks import KEPT_DAYS

EXPIRE_AFTER_HOURS = 24
"""Nobody wants yesterday's notices, least of all every one at once when a hook is set up or repaired."""
FIRST_RETRY_S = 60
LONGEST_RETRY_S = 3600
"""An attempt more than 61 minutes away was written by a wrong clock (here, and in `ticks.SQL_ANYTHING_TO_DO`)."""

# Purpose: is there anything to deliver? The two ends of an index range. Caller: any_waiting. No locks.
SQL_ANY_WAITING = """
select exists (select from system.notices where done_at is null and next_attempt_at <= system.clock())
    or exists (select from system.notices where done_at is null and next_attempt_at > system.clock() + interval '61 minutes') as some
"""
# Purpose: date notices of a wrong clock now; otherwise they would be sent, expire and be pruned when that time comes. Caller: mend_clock.
# Locks: those rows (normally none), SKIP LOCKED.
SQL_MEND_CLOCK = """
update system.notices set next_attempt_at = system.clock(), created_at = least(created_at, system.clock())
 where id in (select id from system.notices
               where done_at is null and next_attempt_at > system.clock() + interval '61 minutes' for update skip locked)
"""
# Purpose: give up notices that are too old. Caller: expire. Locks: those rows.
SQL_EXPIRE = """
update system.notices set done_at = system.clock(), outcome = 'expired'
 where done_at is null and created_at < system.clock() - make_interval(hours => %(hours)s)
"""
# Purpose: the oldest notice, for this transaction alone. Caller: lock_next. Locks: the row, SKIP LOCKED, while the hook is called: an
# overlapping tick takes another one, and a tick that is killed leaves it for the next.
SQL_LOCK_NEXT = """
select id, event, sync_type, agent_id, run_id, message, hint, created_at, attempts, outcome from system.notices
 where done_at is null and next_attempt_at <= system.clock()
 order by id limit 1 for update skip locked
"""
# Purpose: the hook has taken the notice. Caller: mark_delivered. Locks: the row, already ours.
SQL_DELIVERED = """
update system.notices set done_at = system.clock(), attempts = attempts + 1, outcome = 'delivered' where id = %(id)s
"""
# Purpose: try the notice again later, after a delay that doubles. Caller: mark_refused. Locks: the row, already ours.
SQL_REFUSED = """
update system.notices
   set attempts = attempts + 1, outcome = %(outcome)s,
       next_attempt_at = system.clock() + make_interval(
         secs => least(%(first_s)s::int * power(2, least(attempts, 10)), %(longest_s)s::int))
 where id = %(id)s
"""
# Purpose: how many notices wait, and how many of them a wrong clock wrote. Caller: count_waiting. No locks.
SQL_COUNT_WAITING = """
select count(*) as waiting, count(*) filter (where next_attempt_at > system.clock() + interval '61 minutes') as of_a_wrong_clock
  from (select next_attempt_at from system.notices where done_at is null order by next_attempt_at desc limit 1000) n
"""
# Purpose: the notices that the hook has refused so far. Caller: refused. No locks.
SQL_LIST_REFUSED = """
select id, event, sync_type, agent_id, run_id, message, hint, created_at, attempts, outcome from system.notices
 where done_at is null and attempts > 0 order by id limit 1000
"""
# Purpose: delete a batch of old notices. Caller: prune. Locks: those rows.
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
    hint: str | None
    created_at: datetime
    attempts: int
    outcome: str | None

    @property
    def subject(self) -> str:
        return f"{self.sync_type} of {self.agent_id}"


def any_waiting(db: Database) -> bool:
    return bool(one(db, SQL_ANY_WAITING)["some"])


def mend_clock(db: Database) -> int:
    """Date the notices of a wrong clock now; their number. A tick does it before it delivers."""
    return db.execute(SQL_MEND_CLOCK).rowcount


def expire(db: Database) -> int:
    """Give up notices older than EXPIRE_AFTER_HOURS; their number."""
    return db.execute(SQL_EXPIRE, {"hours": EXPIRE_AFTER_HOURS}).rowcount


def lock_next(db: Database) -> Notice | None:
    """The oldest notice, locked for this transaction; None when there is none, or other ticks have all of them."""
    row = db.execute(SQL_LOCK_NEXT).fetchone()
    return Notice(**row) if row else None


def mark_delivered(db: Database, notice: Notice) -> None:
    db.execute(SQL_DELIVERED, {"id": notice.id})


def mark_refused(db: Database, notice: Notice, outcome: str) -> None:
    """Have it tried again, after a delay that doubles."""
    params = {"id": notice.id, "outcome": outcome, "first_s": FIRST_RETRY_S, "longest_s": LONGEST_RETRY_S}
    db.execute(SQL_REFUSED, params)


def count_waiting(db: Database) -> tuple[int, int]:
    """Notices that wait, and how many of them a wrong clock wrote; at most 1000."""
    row = one(db, SQL_COUNT_WAITING)
    return int(row["waiting"]), int(row["of_a_wrong_clock"])


def refused(db: Database) -> list[Notice]:
    """Notices that the hook has refused so far, oldest first."""
    return [Notice(**row) for row in db.execute(SQL_LIST_REFUSED).fetchall()]


def prune(db: Database, *, limit: int) -> int:
    """Delete up to `limit` notices older than KEPT_DAYS; the number of rows."""
    return db.execute(SQL_PRUNE, {"days": KEPT_DAYS, "limit": limit}).rowcount
