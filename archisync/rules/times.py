"""Spans and times as people type them, at a terminal or into the API."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from archisync.base.errors import UsageError

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")


def parse_span(text: str) -> timedelta:
    """30s, 30m, 2h or 90d as a timedelta. Raises UsageError."""
    span = _span(text)
    if span is None:
        raise UsageError(
            f"{ascii(text)[:40]} is not a span of time", hint="allowed: a number and s, m, h or d, as in 90d"
        )
    return span


def parse_moment(text: str, now: datetime, *, sign: int) -> datetime:
    """An ISO 8601 time (in UTC unless it names a zone), or a span from `now`: ahead with sign 1, back with -1. Raises UsageError."""
    try:
        if (span := _span(text)) is not None:
            return now + sign * span
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{ascii(text)[:40]} is not a time",
            hint="allowed: a span like 30m, 2h, 1d, or a time like 2026-01-31T08:00:00Z",
        ) from None


def _span(text: str) -> timedelta | None:
    found = _SPAN.fullmatch(text.strip())
    return timedelta(seconds=int(found[1]) * _UNIT_S[found[2]]) if found else None
