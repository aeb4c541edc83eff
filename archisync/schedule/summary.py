"""What one tick did."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from archisync.base.errors import ArchisyncError


@dataclass(kw_only=True, slots=True)
class Summary:
    """What one tick did so far. `skipped`: pairs past their slot that were not queued, by reason; with `skipped_more`, there are more than
    were counted. `duration_ms`: of the whole tick; a heartbeat has the time until it was written."""

    begun: float = field(default_factory=monotonic)
    reaped: int = 0
    due: int = 0
    enqueued: int = 0
    redelivered: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_more: bool = False
    pruned: int = 0
    duration_ms: int = 0
    error: ArchisyncError | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the tick began."""
        return monotonic() - self.begun

    def line(self) -> str:
        """The sentence that `archisync tick` prints."""
        skipped = ", ".join(f"{n} {reason}" for reason, n in self.skipped.items()) or "0"
        if self.skipped_more:
            skipped = f"at least {skipped}"
        text = f"due {self.due}, enqueued {self.enqueued}, redelivered {self.redelivered}, skipped {skipped}"
        if self.reaped:
            text += f", taken back {self.reaped}"
        return f"{text}; {self.duration_ms} ms"
