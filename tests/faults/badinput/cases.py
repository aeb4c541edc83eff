"""A bad export as data: what is given, and what must become of it.

The exports of all cases begin with four good rows, which the agent's table already holds, and most end with the row `good`. So a run that
quarantined one row differs from a run that refused the export.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, repeat
from pathlib import Path

MIB = 1024 * 1024
Place = Callable[[Path], None]
"""Puts a bad export at that path, when it is more than a few bytes."""


class Outcome(StrEnum):
    """How the run ends. HELD, FAILED and RETRIED leave every table as it was."""

    QUARANTINED = "quarantined"  # one row is left out, the other rows are applied
    CLEANED = "cleaned"  # read completely, with a warning
    HELD = "held"
    FAILED = "failed"
    RETRIED = "queued"


@dataclass(frozen=True, kw_only=True, slots=True)
class BadExport:
    """`words` are part of the run's message; where a row is quarantined, they are the whole reason.

    `reason` is the run's machine-readable word. A `heavy` case runs in a process of its own, which is measured.
    """

    id: str
    form: str
    given: bytes | Place
    outcome: Outcome
    words: str
    reason: str = "applied-with-warnings"
    line: int | None = None
    field: str | None = None
    sync_type: str = "customers"
    suffix: str = ".csv"
    locale: str = "iso"
    heavy: bool = False

    @property
    def name(self) -> str:
        """Also the id of the case's agent."""
        return f"{self.form}-{self.id}"


LABELS = {
    "customers": ("customer_id", "name", "phone", "orders_count", "sales_amount", "last_order_date"),
    "orders": ("order_id", "created_at", "total_amount"),
    "invoices": ("invoice_number", "order_number", "closed"),
}
_GOOD = {
    "customers": "{id},Name,055 1,3,12.50,2026-01-31",
    "orders": "{id},2026-01-31 10:00:00,12.50",
    "invoices": "{id},ord-1,yes",
}
KNOWN_KEYS = ("k1", "k2", "k3", "k4")
CASE_LINE = 6  # the line of a case's own row, in CSV
CASE_JSON_LINE = 5


def good_row(sync_type: str, key: str) -> str:
    return _GOOD[sync_type].format(id=key) + "\n"


def head(sync_type: str = "customers") -> str:
    return ",".join(LABELS[sync_type]) + "\n"


def known_rows(sync_type: str = "customers") -> str:
    """The export that the agent's table holds before the case."""
    return head(sync_type) + "".join(good_row(sync_type, key) for key in KNOWN_KEYS)


def with_row(row: str, sync_type: str = "customers") -> str:
    return known_rows(sync_type) + row + good_row(sync_type, "good")


LONGEST_LINE = 2 * MIB - 100


def held(
    name: str,
    given: bytes | str | Place,
    words: str,
    *,
    reason: str = "unreadable",
    form: str = "csv",
    suffix: str = ".csv",
    heavy: bool = False,
) -> BadExport:
    content = given.encode() if isinstance(given, str) else given
    return BadExport(
        id=name, form=form, given=content, outcome=Outcome.HELD, words=words, reason=reason, suffix=suffix, heavy=heavy
    )


def written(pieces: Callable[[], Iterable[bytes]]) -> Place:
    def place(path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(pieces())

    return place


def long_file(start: str, unit: bytes, end: bytes = b"\n") -> Place:
    """A file of 200 MiB: the unit again and again between start and end."""
    return written(lambda: chain([start.encode()], repeat(unit * (MIB // len(unit)), 200), [end]))


def just_below_the_limit(start: str, unit: str, end: str) -> Place:
    """A line of almost 2 Mi characters of the unit between start and end."""
    return written(lambda: [start.encode(), (unit * (LONGEST_LINE // len(unit))).encode(), end.encode()])
