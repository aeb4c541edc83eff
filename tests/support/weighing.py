"""The guard's verdict on old and new rows, without a database: an oracle for what `archisync.sync.evidence` counts there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any

from archisync.rules.changedrows import Among, Base, ChangedRows
from archisync.rules.guard import Evidence, Hold, Plan, Weighed, judge
from archisync.rules.reasons import Limits
from archisync.rules.suspicions import suspect
from archisync.rules.synctypes import SYNC_TYPES, SyncType
from archisync.rules.values import Value

Row = Mapping[str, Value]
NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)


def verdict(
    named: str | SyncType,
    old: Sequence[Row],
    new: Sequence[Row],
    *,
    limits: Limits | None = None,
    now: datetime = NOON,
    zone: tzinfo = UTC,
    blank: Mapping[str, int] | None = None,
) -> Hold | None:
    """What the guard says of `new` where `old` is known. `blank`: empty cells of boolean columns; by default each lost yes is one."""
    type_ = SYNC_TYPES[named] if isinstance(named, str) else named
    known, coming = {_key(type_, row): row for row in old}, {_key(type_, row): row for row in new}
    fields = [field for field in type_.fields if field.name in new[0]] if new else []
    pairs = [(known[key], row) for key, row in coming.items() if key in known]
    changed = [(a, b) for a, b in pairs if any(a.get(f.name) != b[f.name] for f in fields)]
    found = suspect(
        ChangedRows(
            fields=fields,
            rows=[([a.get(f.name) for f in fields], [b[f.name] for f in fields]) for a, b in changed],
            changed=len(changed),
            known=len(known),
            now=now,
            zone=zone,
            blank={f.name: len(changed) for f in fields} if blank is None else blank,
        )
    ).suspicions
    staying = [a for a, _ in pairs]
    weighed = [
        Weighed(suspicion=seen, whole=sum(sum(_counts(base, row) for row in staying) for base in seen.bases))
        for seen in found
    ]
    evidence = Evidence(
        seen=len(new),
        valid=len(coming),
        quarantined=0,
        conflicting=0,
        known=len(known) or None,
        plan=Plan(
            known=len(known),
            vanishing=len(known.keys() - coming.keys()),
            changed=len(changed),
            rewritten=sum(_rewritten(type_, a, b) for a, b in changed),
            new=len(coming.keys() - known.keys()),
        ),
        suspicions=weighed,
    )
    return judge(evidence, limits or Limits())


def _key(type_: SyncType, row: Row) -> tuple[Value, ...]:
    return tuple(row[name] for name in type_.key)


def _rewritten(type_: SyncType, old: Row, new: Row) -> bool:
    names = [name for name in new if name not in type_.key]
    filled = sum(old.get(name) is not None for name in names)
    lost = sum(old.get(name) is not None and old.get(name) != new[name] for name in names)
    return lost > 1 and lost * 2 > filled


def _counts(base: Base, row: Row) -> bool:
    value: Any = row.get(base.column)
    if value is None or base.among is Among.EMPTY:
        return value is None and base.among is Among.EMPTY
    match base.among:
        case Among.FILLED:
            return True
        case Among.TRUE:
            return value is True
        case Among.ACCENTED:
            return not str(value).isascii()
        case Among.MARKED:
            return any(sign in str(value) for sign in "&<>\"'")
        case Among.LONGER:
            return len(str(value)) > base.length
        case Among.ZEROS:
            return str(value).isdigit() and str(value)[0] == "0" and str(value).strip("0") != ""
        case Among.FRACTIONS:
            return bool(value % 1)
        case Among.EXCHANGEABLE:
            return isinstance(value, date) and value.day <= 12 and value.day != value.month
        case Among.BOTH:
            other: Any = row.get(base.other)
            zero = isinstance(value, int | Decimal) and (not value or not other)
            return other is not None and bool(other != value) and not zero
