"""Which thresholds of the guard a type has: three of rows, and one for each rule about values, for every column or for one."""

from __future__ import annotations

from archisync.base.errors import UsageError
from archisync.rules.reasons import ROW_SHARES, SHARES
from archisync.rules.synctypes import SyncType


def check_threshold(share: str, column: str, type_: SyncType) -> None:
    """Raise UsageError when the type has no such threshold. `column` is "" for one of rows, or of every column."""
    if share not in SHARES:
        raise UsageError(f"there is no threshold {ascii(share)[:60]}", hint="allowed: " + ", ".join(SHARES))
    if column and share in ROW_SHARES:
        raise UsageError(f"{share} is a share of rows, not of a column", hint="leave out the column")
    names = [field.name for field in type_.fields]
    if column and column not in names:
        raise UsageError(f"{type_.name} has no column {ascii(column)[:60]}", hint="allowed: " + ", ".join(names))
