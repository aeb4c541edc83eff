"""A run as a row of `system.sync_runs`: its states, what triggered it, and its columns.

queued ──claim──▶ running ──▶ succeeded | held | failed | skipped
  ▲                  │
  └── retry, lease expired (attempt + 1, fence + 1)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    HELD = "held"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def unfinished(self) -> bool:
        return self in (State.QUEUED, State.RUNNING)


class Trigger(StrEnum):
    SCHEDULED = "scheduled"
    FORCED = "forced"


@dataclass(kw_only=True, slots=True)
class Counts:
    """Rows of one run: `seen` in the export, `restored` after an absence, `quarantined` because a value could not be read."""

    seen: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    absent: int = 0
    restored: int = 0
    deleted: int = 0
    quarantined: int = 0

    @property
    def changed(self) -> bool:
        return bool(self.inserted or self.updated or self.absent or self.restored or self.deleted)

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNT_NAMES}


COUNT_NAMES = ("seen", "inserted", "updated", "unchanged", "absent", "restored", "deleted", "quarantined")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run, unfinished or finished. Times are UTC-aware; counts are None until the run has seen an export."""

    run_id: int
    sync_type: str
    agent_id: str
    state: State
    reason: str | None
    message: str | None
    hint: str | None
    trigger: Trigger
    requested_by: str | None
    request_reason: str | None
    slot_at: datetime | None
    attempt: int
    fence: int | None
    not_before: datetime | None
    queued_at: datetime
    delivered_at: datetime | None
    started_at: datetime | None
    lease_until: datetime | None
    worker: str | None
    finished_at: datetime | None
    counts: Counts | None
    export: dict[str, Any] | None
    steps: dict[str, int] | None
    warnings: list[dict[str, Any]]

    @property
    def duration_s(self) -> float | None:
        if self.steps and "total" in self.steps:
            return self.steps["total"] / 1000
        if self.started_at and self.finished_at:
            return (self.finished_at - self.started_at).total_seconds()
        return None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Run:
        """The run from all columns of its row, and `quarantined_rows` where that was read: the warning about them then has them."""
        counts = None
        if row["rows_seen"] is not None:
            counts = Counts(**{name: row[f"rows_{name}"] or 0 for name in COUNT_NAMES})
        rows = row.get("quarantined_rows")
        warnings = [{**w, "rows": rows} if rows and w["code"] == "quarantined" else w for w in row["warnings"]]
        special: dict[str, Any] = {
            "run_id": row["id"],
            "warnings": warnings,
            "state": State(row["state"]),
            "trigger": Trigger(row["trigger"]),
            "counts": counts,
        }
        return cls(**special, **{name: row[name] for name in cls.__dataclass_fields__ if name not in special})
