"""Texts of dates and times: what is read, in which zone, and what is refused with which message."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.rules.synctypes import Kind
from archisync.rules.values import BadValueError, parse

ROME = ZoneInfo("Europe/Rome")


def refusal(kind: Kind, text: str) -> str:
    with pytest.raises(BadValueError) as refused:
        parse(kind, text, "iso", ROME)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-03-04", date(2026, 3, 4)),
        ("04/03/2026", date(2026, 3, 4)),
        ("04/03/2026 23:59:59", date(2026, 3, 4)),
        ("2026-03-04T23:30:00Z", date(2026, 3, 5)),  # in Rome it is half past midnight
        ("2026-03-04 10:00", date(2026, 3, 4)),
        ("29/02/2024", date(2024, 2, 29)),
        ("1900-01-01", date(1900, 1, 1)),
        ("9999-12-31", date(9999, 12, 31)),
        ("20251231", date(2025, 12, 31)),
        ("31.12.2025", date(2025, 12, 31)),
        ("31.12.2025 23:59", date(2025, 12, 31)),
        ("31-OTT-2025", date(2025, 10, 31)),
        ("31 ottobre 2025", date(2025, 10, 31)),
        ("30-Set-2025", date(2025, 9, 30)),
        ("30-SEP-2025 14:30", date(2025, 9, 30)),
        ("01.mag.2025", date(2025, 5, 1)),
    ],
)
def test_dates_with_slashes_begin_with_the_day(text: str, value: date) -> None:
    assert parse(Kind.DATE, text, "iso", ROME) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("31/02/2026", "is an impossible date or time"),
        ("12/31/2026", "is an impossible date or time"),
        ("2026-13-01", "is an impossible date or time"),
        ("2026-01-01 24:00", "is an impossible date or time"),
        ("0000-01-01", "is before the year 1900"),
        ("1899-12-31", "is before the year 1900"),
        ("9999-12-31T23:59:59Z", "is out of range"),
        ("1/2/2026", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
        ("01-02-2026", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
        ("2026/01/02", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
        ("31122025", "is an impossible date or time"),
        ("12012025", "is before the year 1900"),
        ("2026010203", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
        ("01.02/2026", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
        ("01-MAI-2026", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
        ("31-OTT-25", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
        ("٢٠٢٦-٠١-٠٢", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
        ("today", "is not a date (YYYY-MM-DD or DD/MM/YYYY)"),
    ],
)
def test_unclear_dates_are_refused(text: str, why: str) -> None:
    assert refusal(Kind.DATE, text) == f"{text!r} {why}"


@given(st.dates(min_value=date(1900, 1, 1)))
def test_every_date_is_read_back_in_both_notations(day: date) -> None:
    assert parse(Kind.DATE, day.isoformat(), "iso", ROME) == day
    assert parse(Kind.DATE, day.strftime("%d/%m/") + f"{day.year:04d}", "it", ROME) == day


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-31 10:00:00", datetime(2026, 1, 31, 9, tzinfo=UTC)),
        ("2026-07-31T10:00", datetime(2026, 7, 31, 8, tzinfo=UTC)),
        ("31/07/2026 10:00:30", datetime(2026, 7, 31, 8, 0, 30, tzinfo=UTC)),
        ("31/01/2026", datetime(2026, 1, 30, 23, tzinfo=UTC)),
        ("2026-01-31T10:00:00+05:30", datetime(2026, 1, 31, 4, 30, tzinfo=UTC)),
        ("2026-01-31T10:00:00-08", datetime(2026, 1, 31, 18, tzinfo=UTC)),
        ("2026-01-31T10:00:00.1234567Z", datetime(2026, 1, 31, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2026-10-25 02:30:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),  # twice on that day: the first one
        ("2026-03-29 02:30:00", datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),  # skipped: with the offset before
    ],
)
def test_times_are_returned_in_utc(text: str, value: datetime) -> None:
    found = parse(Kind.TIMESTAMP, text, "iso", ROME)
    assert isinstance(found, datetime)
    assert (found, found.utcoffset()) == (value, timedelta(0))


@pytest.mark.parametrize(
    "text", ["2026-01-31T10", "2026-01-31 10:00:00+25:00", "2026-01-31 10:00:00 CET", "31/01/2026T10:00", "10:00"]
)
def test_unclear_times_are_refused(text: str) -> None:
    assert refusal(Kind.TIMESTAMP, text) == f"{text!r} is not a time (YYYY-MM-DD or DD/MM/YYYY)"


@given(st.dates(date(1900, 1, 2), date(9999, 12, 30)), st.times())
def test_every_time_is_read_back(day: date, clock: time) -> None:
    moment = datetime.combine(day, clock, UTC)
    assert parse(Kind.TIMESTAMP, moment.isoformat(), "iso", ROME) == moment
