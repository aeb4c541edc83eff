"""Whether an export may be applied. Pure: evidence in, verdict out. All six types are judged alike, small tables too.

A hold is a question to a person, not a failure: nothing is written, the export's sha256 and the numbers are kept, and
`archisync held accept` answers for exactly that export. Nothing turns the guard off. An export that can't be read at all is held too, but
can't be accepted: formats and records raise ExportError for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from archisync.base.text import counted

DEFAULT_PERCENT = 50
"""Every share of every type, until `archisync guard set` changes it."""
HIGH_WATER_DAYS = 7
LEAST_QUARANTINED = 3
"""Fewer rejected rows don't hold an export: in a table of three rows, one bad cell is daily life."""
GROWTH_FACTOR = 10
GROWTH_ROWS = 1000
"""A table may grow to this many rows from any number; above, only to GROWTH_FACTOR times the known rows."""


class Rule(StrEnum):
    """Why an export is held. The first five can't be accepted: nobody knows what a broken export should have contained."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    MISSING_COLUMN = "missing-column"
    ALL_REJECTED = "all-rejected"
    DUPLICATE_KEYS = "duplicate-keys"
    QUARANTINED = "quarantined"
    ROW_GROWTH = "row-growth"
    NO_FINAL_LINE_END = "no-final-line-end"
    ZERO_ROWS = "zero-rows"
    ROW_DROP = "row-drop"
    HIGH_WATER = "high-water"
    PLANNED_DELETES = "planned-deletes"
    PLANNED_REWRITES = "planned-rewrites"

    @property
    def acceptable(self) -> bool:
        """Whether a person may accept the export: it could be read, and only looks unlikely."""
        return self not in _NEVER_ACCEPTABLE


_NEVER_ACCEPTABLE = frozenset(
    {Rule.UNREADABLE, Rule.TRUNCATED, Rule.MISSING_COLUMN, Rule.ALL_REJECTED, Rule.DUPLICATE_KEYS}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Shares in percent of the known rows; more than that holds the export. 100 switches a rule off.

    `drop`: fewer rows than the last applied export, or than the largest one of the last seven days; and rejected rows, of those in the
    export. `delete`: known rows that are not in
    the export (new keys may hide them from the count). `rewrite`: known rows in which more than half of the filled fields, and more than
    one, change at once, which is what a shifted column does. A new price or status alone is no rewrite, in however many rows.
    """

    drop: int = DEFAULT_PERCENT
    delete: int = DEFAULT_PERCENT
    rewrite: int = DEFAULT_PERCENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What applying the export would do to the table.

    `known`: rows that are not marked absent; of these, `vanishing` would be marked, and `rewritten` are a part of the `changed`. `deleted`
    and `restored`: rows that an earlier export marked, which was judged at that time, and that this export lacks or has.
    """

    known: int = 0
    vanishing: int = 0
    deleted: int = 0
    restored: int = 0
    changed: int = 0
    rewritten: int = 0
    new: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known before anything is written.

    `valid`: rows that could be read, with distinct keys. `known`: rows of the last applied export, None before the first one; `high`: rows
    of the largest one in the last seven days. `conflicting`: keys that the export has more than once, with different values.
    `newly_open`: the last line lacks its line end, and that of the last applied export had one.
    """

    seen: int
    valid: int
    quarantined: int
    conflicting: int
    known: int | None
    high: int | None = None
    plan: Plan = Plan()
    newly_open: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """`hint`: what would make the export a good one, where its error said so."""

    rule: Rule
    message: str
    hint: str | None = None


_OPEN = "the final line end is missing, so the last row may be cut off"


def exceeds(part: int, whole: int, percent: int) -> bool:
    """Whether `part` is more than `percent` of `whole`, exactly: the numbers are whole."""
    return part * 100 > whole * percent


def judge(evidence: Evidence, limits: Limits = Limits()) -> Hold | None:
    """The reason to hold the export; None when it may be applied."""
    if broken := _broken(evidence):
        return broken
    unlikely = (
        _rejected(evidence, limits) or _more(evidence) or _fewer(evidence, limits) or _planned(evidence.plan, limits)
    )
    if not evidence.newly_open:
        return unlikely
    if unlikely:
        return Hold(rule=unlikely.rule, message=f"{unlikely.message}; {_OPEN}")
    return Hold(rule=Rule.NO_FINAL_LINE_END, message=f"{_OPEN}; if the ERP always writes it so, accept it once")


def _broken(evidence: Evidence) -> Hold | None:
    if evidence.conflicting:
        return Hold(
            rule=Rule.DUPLICATE_KEYS,
            message=f"the export has {counted(evidence.conflicting, 'key')} more than once, with different values",
        )
    if evidence.seen and not evidence.valid:
        return Hold(rule=Rule.ALL_REJECTED, message=f"all {evidence.seen} rows of the export were rejected")
    return None


def _rejected(evidence: Evidence, limits: Limits) -> Hold | None:
    bad = evidence.quarantined
    if bad < LEAST_QUARANTINED or not exceeds(bad, evidence.seen, limits.drop):
        return None
    return Hold(
        rule=Rule.QUARANTINED,
        message=f"{bad} of {evidence.seen} rows of the export were rejected: {_share(bad, evidence.seen)} "
        f"(at most {limits.drop} % are applied unasked)",
    )


def _more(evidence: Evidence) -> Hold | None:
    """A pair without known rows has no history that makes a number unlikely."""
    if not evidence.known or evidence.valid <= max(GROWTH_ROWS, GROWTH_FACTOR * evidence.known):
        return None
    return Hold(
        rule=Rule.ROW_GROWTH,
        message=f"the export has {evidence.valid} rows, {evidence.known} are known: more than {GROWTH_FACTOR} times as many",
    )


def _fewer(evidence: Evidence, limits: Limits) -> Hold | None:
    known, high = evidence.known or 0, evidence.high or 0
    if not evidence.valid and known:
        return Hold(rule=Rule.ZERO_ROWS, message=f"the export has no rows, {known} are known")
    bad = f" ({evidence.quarantined} more were rejected)" if evidence.quarantined else ""
    if exceeds(known - evidence.valid, known, limits.drop):
        return Hold(
            rule=Rule.ROW_DROP,
            message=f"the export has {evidence.valid} rows{bad}, {known} are known: {_share(known - evidence.valid, known)} fewer "
            f"(at most {limits.drop} % are applied unasked)",
        )
    if exceeds(high - evidence.valid, high, limits.drop):
        return Hold(
            rule=Rule.HIGH_WATER,
            message=f"the export has {evidence.valid} rows{bad}, {high} were known within {HIGH_WATER_DAYS} days: "
            f"{_share(high - evidence.valid, high)} fewer (at most {limits.drop} % are applied unasked)",
        )
    return None


def _planned(plan: Plan, limits: Limits) -> Hold | None:
    if exceeds(plan.vanishing, plan.known, limits.delete):
        return Hold(
            rule=Rule.PLANNED_DELETES,
            message=f"{plan.vanishing} of {plan.known} known rows would vanish: {_share(plan.vanishing, plan.known)} "
            f"(at most {limits.delete} % are applied unasked)",
        )
    if exceeds(plan.rewritten, plan.known, limits.rewrite):
        return Hold(
            rule=Rule.PLANNED_REWRITES,
            message=f"{plan.rewritten} of {plan.known} known rows would change in more than half of their fields: "
            f"{_share(plan.rewritten, plan.known)} (at most {limits.rewrite} % are applied unasked)",
        )
    return None


def _share(part: int, whole: int) -> str:
    return f"{part * 100 // whole} %"
