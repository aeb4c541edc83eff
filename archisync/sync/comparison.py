"""An export compared with its table: what applying it would do, and doing it.

Two ways give the same result. A small difference is found and held in memory (archisync.sync.inmemory). A large one is found by PostgreSQL,
with the export in a temporary table (StagedComparison).
"""

from __future__ import annotations

from typing import Protocol

from psycopg import sql

from archisync.rules.guard import Plan
from archisync.store.database import Params
from archisync.store.runs import Counts
from archisync.sync import apply, planning, references
from archisync.sync.copying import Staged
from archisync.sync.planning import ChangedSample, Places
from archisync.sync.suppressed import check
from archisync.sync.target import Target


class Comparison(Protocol):
    """An export that has been read, and compared as far as needed. `staged`: what was read of it."""

    staged: Staged

    def plan(self) -> Plan:
        """What `write` would do; after a first load, what that has done."""
        ...

    def changed_rows(self, most: int) -> ChangedSample:
        """Old and new values of known rows that would change; so many at the most, where they must be fetched. After `plan`."""
        ...

    def decimals(self, name: str) -> int:
        """Numbers of this column, of rows of the export that are not in the table, whose decimals prove the notation that they were read
        in: three may be thousands of the other one."""
        ...

    def digests(self) -> tuple[sql.Composable, Params]:
        """A query of the digests of the export's lines, of an export that is the pair's first."""
        ...

    def staying(self) -> tuple[sql.Composable, Params]:
        """The condition, with its parameters, for known rows `t` that the export has."""
        ...

    def sample_changes(self) -> list[dict[str, object]]:
        """Some rows that would change: the key, and for each changed field the old and the new value as text."""
        ...

    def sample_vanishing(self) -> list[list[str]]:
        """The keys of some known rows that the export does not have."""
        ...

    def write(self, plan: Plan) -> Counts:
        """Make the table what the export says. The caller commits. Raises WriteMismatchError."""
        ...

    def renew_digests(self) -> None:
        """Give each row the digest of the line that it was compared with. Every row must have been compared."""
        ...

    def unknown_orders(self) -> int:
        """Rows that name an order which this agent does not have (yet). After `write`."""
        ...

    def repeated_values(self) -> dict[str, int]:
        """How many values several rows of the export share, by field. After `write`."""
        ...


def check_written(target: Target, plan: Plan, counts: Counts) -> None:
    """Raise WriteMismatchError unless what was written is what was planned."""
    planned = {
        "inserted": plan.new, "updated": plan.changed, "absent": plan.vanishing, "deleted": plan.deleted, "restored": plan.restored,
    }  # fmt: skip
    for name, number in planned.items():
        check(target, name, planned=number, written=getattr(counts, name))


class StagedComparison:
    """The export is in the stage, or was loaded straight into the table."""

    def __init__(self, target: Target, staged: Staged) -> None:
        self._target = target
        self.staged = staged
        self._changed: Places | None = None

    def plan(self) -> Plan:
        plan, self._changed = planning.make_plan(self._target, self.staged)
        return plan

    def changed_rows(self, most: int) -> ChangedSample:
        return planning.changed_rows(self._target, self._changed, most) if self._changed else ChangedSample()

    def decimals(self, name: str) -> int:
        return 0 if self.staged.loaded else planning.decimals(self._target, name)

    def digests(self) -> tuple[sql.Composable, Params]:
        if self.staged.loaded:
            return self._target.statement("select t.line_digest from {table} t where {mine}"), self._target.params
        return self._target.statement("select s.line_digest from {stage} s where s.ok"), {}

    def staying(self) -> tuple[sql.Composable, Params]:
        return sql.SQL("true") if self.staged.missing else self._target.staying(), {}

    def sample_changes(self) -> list[dict[str, object]]:
        return planning.sample_changes(self._target, self.staged)

    def sample_vanishing(self) -> list[list[str]]:
        return planning.sample_vanishing(self._target, self.staged)

    def write(self, plan: Plan) -> Counts:
        counts = apply.write(self._target, self.staged, plan)
        check_written(self._target, plan, counts)
        return counts

    def renew_digests(self) -> None:
        apply.renew_digests(self._target, self.staged)

    def unknown_orders(self) -> int:
        return references.unknown_orders(self._target, references.good_rows(self._target, self.staged))

    def repeated_values(self) -> dict[str, int]:
        return references.repeated_values(self._target, references.good_rows(self._target, self.staged))
