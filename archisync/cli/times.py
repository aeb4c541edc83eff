"""Times as people type them: ISO 8601, or a span like 30m, 2h, 90d."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from archisync.base.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_ALLOWED = "allowed: a span like 30m, 2h, 1d, or a time like 2026-01-31T08:00:00Z"


def parse_span(text: str) -> timedelta:
    """30s, 30m, 2h, 90d. Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    if match is None:
        raise UsageError(
            f"{ascii(text)[:40]} is not a span of time", hint="allowed: a number and s, m, h or d, as in 90d"
        )
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def parse_moment(text: str, now: datetime, *, sign: int) -> datetime:
    """An ISO time (UTC unless it names a zone), or a span from `now`: forwards with sign 1, backwards with -1."""
    try:
        if re.fullmatch(r"[0-9]{1,6}[smhd]", text.strip()):
            return now + sign * parse_span(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{ascii(text)[:40]} is not a time", hint=_ALLOWED) from None
