"""The rule of slots in Python, as an oracle: production has it once, in SQL (`store.queued_runs.SQL_INSERT_DUE`)."""

from datetime import datetime, timedelta


def next_slot(last: datetime | None, every: timedelta, now: datetime) -> datetime:
    """The slot of a run that becomes due at `now`: one interval after the last, so that jitter does not add up; after a
    gap of more than an interval, `now`, so that there is one catch-up run and not a burst."""
    if last is not None and last + every > now - every:
        return last + every
    return now
