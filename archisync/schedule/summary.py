"""What one tick did."""

from __future__ import annotations

from archisync.base.errors import ArchisyncError


class Summary:
    """What one tick did. `skipped`: pairs past their slot that were not queued, by reason; `skipped_more`: not all were counted.
    `duration_ms`: until it ended; in its heartbeat until that was written."""

    def __init__(self) -> None:
        self.reaped = 0
        self.due = 0
        self.enqueued = 0
        self.redelivered = 0
        self.skipped: dict[str, int] = {}
        self.skipped_more = False
        self.pruned = 0
        self.duration_ms = 0
        self.error: ArchisyncError | None = None

    def line(self) -> str:
        skipped = ", ".join(f"{n} {reason}" for reason, n in self.skipped.items()) or "0"
        if self.skipped_more:
            skipped = f"at least {skipped}"
        text = f"due {self.due}, enqueued {self.enqueued}, redelivered {self.redelivered}, skipped {skipped}"
        if self.reaped:
            text += f", taken back {self.reaped}"
        return f"{text}; {self.duration_ms} ms"
