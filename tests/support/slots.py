"""The rule of slots in Python, to compare with: archisync has it once, in SQL (`store.queued_runs.SQL_INSERT_DUE`)."""

from datetime import datetime, timedelta


def next_slot(last: datetime | None, every: timedelta, now: datetime) -> datetime:
    """The slot of a run that becomes due at `now`. It is one interval after the last one, so that jitter does not add up. After a gap of
    more than an interval it is `now`, so that one run catches up, not a burst."""
    if last is not None and last + every > now - every:
        return last + every
    return now
