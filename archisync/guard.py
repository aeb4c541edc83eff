"""May this export be applied? Pure: evidence in, verdict out. It judges all six types alike; small tables are not exempt.

A hold is a question to a person, not a failure: nothing is written, the export's sha256 and the numbers are kept, and
`archisync held accept` answers for exactly that export. There is no switch that turns the guard off. Where the export can't be read
at all, formats and records raise ExportError instead, which holds the run too but can't be accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_DROP_PERCENT = 50
"""More than this share fewer rows than known holds the export (DESIGN, section 5). Per-type settings come with `guard set`."""


class Rule(StrEnum):
    """The guard's words. The first six can't be accepted: nobody can say what a broken export would have held."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    MISSING_COLUMN = "missing-column"
    ALL_REJECTED = "all-rejected"
    DUPLICATE_KEYS = "duplicate-keys"
    ZERO_ROWS = "zero-rows"
    ROW_DROP = "row-drop"

    @property
    def acceptable(self) -> bool:
        return self in (Rule.ZERO_ROWS, Rule.ROW_DROP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known before anything is written. `valid`: rows with distinct keys that parsed; `known`: rows of the last
    applied export, None before the first; `conflicting`: keys that stand in the export with different values."""

    seen: int
    valid: int
    quarantined: int
    conflicting: int
    known: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    rule: Rule
    message: str


def judge(evidence: Evidence, *, max_drop_percent: int = MAX_DROP_PERCENT) -> Hold | None:
    """The reason to hold the export, or None: it may be applied."""
    known = evidence.known or 0
    if evidence.conflicting:
        return Hold(
            rule=Rule.DUPLICATE_KEYS,
            message=f"{evidence.conflicting} key(s) stand in the export more than once with different values",
        )
    if evidence.seen and not evidence.valid:
        return Hold(rule=Rule.ALL_REJECTED, message=f"all {evidence.seen} rows of the export were rejected")
    if not evidence.valid and known:
        return Hold(rule=Rule.ZERO_ROWS, message=f"the export has no rows, {known} are known")
    if (known - evidence.valid) * 100 > known * max_drop_percent:
        percent = (known - evidence.valid) * 100 // known
        bad = f" ({evidence.quarantined} more were rejected)" if evidence.quarantined else ""
        return Hold(
            rule=Rule.ROW_DROP,
            message=f"the export has {evidence.valid} rows{bad}, {known} are known: {percent} % fewer "
            f"(at most {max_drop_percent} % are applied unasked)",
        )
    return None
