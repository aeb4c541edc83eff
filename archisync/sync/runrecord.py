"""What is known of a run so far: counts, the export, the time of each step, warnings. It survives a failure half-way."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from archisync.base.text import counted, printable
from archisync.store.endings import Report
from archisync.store.runs import Counts
from archisync.sync.comparison import Comparison
from archisync.sync.copying import Staged
from archisync.sync.labels import Layout
from archisync.sync.records import RecordReader

_SHOWN_LABELS = 20
_SHOWN_LABEL_CHARS = 80
_WORTH_TELLING = frozenset({"quarantined", "lacking-rows", "lost-columns"})


@dataclass(kw_only=True)
class RunRecord:
    """`export` is what the history shows of the export; empty until there is one. `steps` are milliseconds."""

    export: dict[str, Any] = field(default_factory=dict)
    counts: Counts | None = None
    steps: dict[str, int] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=monotonic)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step, also one that fails."""
        begun = monotonic()
        try:
            yield
        finally:
            self.steps[name] = _ms_since(begun)

    @property
    def changed(self) -> bool:
        """Whether the run has changed the table."""
        return self.counts is not None and self.counts.changed

    @property
    def worth_telling(self) -> bool:
        """Whether a warning is one that a person should read, and not only find."""
        return any(warning["code"] in _WORTH_TELLING for warning in self.warnings)

    def in_words(self) -> str:
        """The counts that are not 0, without the rows seen: `1 updated, 40 unchanged`."""
        counts = self.counts.as_dict() if self.counts else {}
        return ", ".join(f"{number} {name}" for name, number in counts.items() if number and name != "seen")

    def report(self) -> Report:
        """What goes into the run's row."""
        steps = self.steps | {"total": _ms_since(self.started)}
        return Report(
            counts=self.counts,
            export=self.export or None,
            steps=steps,
            warnings=[{name: value for name, value in w.items() if name != "rows"} for w in self.warnings],
            quarantined_rows=[row for warning in self.warnings for row in warning.get("rows", [])],
        )

    def warn(self, code: str, message: str, count: int, **more: Any) -> None:
        self.warnings.append({"code": code, "message": message, "count": count, **more})

    def warn_about_columns(self, layout: Layout) -> None:
        if number := len(layout.ignored):
            names = [printable(name, limit=_SHOWN_LABEL_CHARS) for name in layout.ignored[:_SHOWN_LABELS]]
            self.warn("ignored-columns", f"{counted(number, 'unknown column')} ignored", number, columns=names)

    def warn_about_lost(self, lost: Collection[str], layout: Layout) -> None:
        """`lost`: fields that earlier exports had."""
        if not lost:
            return
        owned = {field.name for field in layout.columns}  # of JSON, also those that no object has
        of_json = owned.issuperset(lost)
        what = "no object has {} any more: empty now" if of_json else "{} left the export: the rows keep the old values"
        names = ", ".join(lost)
        self.warn("lost-columns", what.format(names), len(lost), columns=list(lost))

    def warn_about_rows(self, staged: Staged, records: RecordReader) -> None:
        """After the export is read."""
        self.export["detected"] = records.detected
        if staged.quarantined:
            message = f"{counted(staged.quarantined, 'row')} quarantined"
            if staged.keyless:
                message += f"; {staged.keyless} without a key"
            if staged.unkeyed:
                message += (
                    f"; {staged.unkeyed} without a readable key, so rows that are missing are deleted only after a week"
                )
            self.warn("quarantined", message, staged.quarantined, rows=staged.quarantine_sample)
        if staged.missing:
            message = (
                f"the report announces {counted(staged.missing, 'more row')} than it has, so no row counts as absent"
            )
            self.warn("lacking-rows", message, staged.missing)
        if staged.repeated:
            self.warn("repeated-rows", f"{counted(staged.repeated, 'identical row')} left out", staged.repeated)
        if records.skipped:
            what = counted(records.skipped, "row that is no record", "rows that are no records")
            self.warn("skipped-rows", f"{what} skipped", records.skipped)
        if removed := records.control_characters_removed:
            self.warn("control-characters", f"{counted(removed, 'control character')} removed", removed)

    def warn_about_values(self, comparison: Comparison) -> None:
        """After the export is written."""
        if unknown := comparison.unknown_orders():
            what = counted(unknown, "row names an order that is", "rows name orders that are")
            self.warn("unknown-orders", f"{what} not known yet", unknown)
        for name, repeated in comparison.repeated_values().items():
            what = counted(repeated, f"value of {name} is", f"values of {name} are")
            self.warn("repeated-values", f"{what} in several rows", repeated, field=name)


def _ms_since(moment: float) -> int:
    return round((monotonic() - moment) * 1000)
