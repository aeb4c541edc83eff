"""The guard's rules: the reasons for which an export is held, and the share of its rows at which each one holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

DEFAULT_PERCENT = 50
"""Missing, deleted, rewritten and rejected rows, until `archisync guard set` changes it."""


class Rule(StrEnum):
    """Why an export is held, in the order in which one is named where several hold. The first five can't be accepted: nobody knows what a
    broken export should have contained."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    MISSING_COLUMN = "missing-column"
    ALL_REJECTED = "all-rejected"
    DUPLICATE_KEYS = "duplicate-keys"
    OLDER_FILE = "older-file"
    OTHER_NOTATION = "other-notation"
    QUARANTINED = "quarantined"
    ANOTHER_AGENTS = "another-agents"
    ROW_GROWTH = "row-growth"
    COLUMNS_SWAPPED = "columns-swapped"
    GARBLED = "garbled"
    CUT_VALUES = "cut-values"
    RESCALED = "rescaled"
    DATES_SWAPPED = "dates-swapped"
    DATES_MOVED = "dates-moved"
    ROWS_SHUFFLED = "rows-shuffled"
    EMPTIED = "emptied"
    CONSTANT = "constant"
    REPLACED = "replaced"
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

COLUMN_SHARES: Mapping[Rule, int] = MappingProxyType(
    {
        Rule.COLUMNS_SWAPPED: 20,
        Rule.GARBLED: 20,
        Rule.CUT_VALUES: 20,
        Rule.RESCALED: 10,
        Rule.DATES_SWAPPED: 20,
        Rule.DATES_MOVED: 10,
        Rule.ROWS_SHUFFLED: 20,
        Rule.EMPTIED: 50,
        Rule.CONSTANT: 50,
        Rule.REPLACED: 50,
    }
)
"""The rules that look at one column, and the percentage of its known values above which each holds. Those with a signature that daily life
does not have (most changed dates are the old ones with day and month exchanged) hold at few rows; a column that people may clear or fill
at once, at half of them. `make bench` shows how many ruined exports are held so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Shares in percent; more than that holds the export. 100 switches a rule off.

    `drop`: fewer rows than the last applied export, or than the largest one of the last seven days; and rejected rows, of those in the
    export. `delete`: known rows that are not in the export (new keys may hide them from the count). `rewrite`: known rows in which more
    than half of the filled fields, and more than one, change at once, which is what a shifted column does. A new price or status alone is
    no rewrite, in however many rows.

    `columns`: what differs from COLUMN_SHARES, by rule and column, or by rule and "" for every column.
    """

    drop: int = DEFAULT_PERCENT
    delete: int = DEFAULT_PERCENT
    rewrite: int = DEFAULT_PERCENT
    columns: Mapping[tuple[Rule, str], int] = field(default_factory=dict)

    @property
    def of_rows(self) -> dict[str, int]:
        """The three shares of rows, by name."""
        return {"drop": self.drop, "delete": self.delete, "rewrite": self.rewrite}

    @property
    def of_columns(self) -> dict[str, int]:
        """What `columns` has, by the rule's name, or by rule and column with a blank between."""
        return {f"{rule} {column}".rstrip(): percent for (rule, column), percent in sorted(self.columns.items())}

    def with_columns(self, percents: Mapping[str, int]) -> Limits:
        """The same, with what `of_columns` gives. A rule that this version does not have is left out."""
        split = {name.partition(" "): percent for name, percent in percents.items()}
        known = {(Rule(rule), column): percent for (rule, _, column), percent in split.items() if rule in COLUMN_SHARES}
        return replace(self, columns=known) if known or self.columns else self

    def changed(self, changes: Changes) -> Limits:
        """The same, but for these. Each passes `thresholds.check_threshold`."""
        rows, columns = self.of_rows, dict(self.columns)
        for (share, column), percent in changes.items():
            if share in ROW_SHARES:
                rows[share] = DEFAULT_PERCENT if percent is None else percent
            elif percent is None:
                columns.pop((Rule(share), column), None)
            else:
                columns[Rule(share), column] = percent
        return Limits(**rows, columns=columns)

    def share(self, rule: Rule, column: str) -> int:
        """The percentage of a column's known values above which this rule, one of COLUMN_SHARES, holds."""
        found = self.columns.get((rule, column), self.columns.get((rule, "")))
        return COLUMN_SHARES[rule] if found is None else found


ROW_SHARES = tuple(Limits().of_rows)
SHARES = (*ROW_SHARES, *map(str, COLUMN_SHARES))
"""The names of all thresholds."""
Changes = Mapping[tuple[str, str], int | None]
"""Thresholds by share and column ("" for one of rows, or of every column). None: back to the default."""
