"""What may change when a type is declared anew, and what that means for its table: pure. What can't be done safely is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archisync.base.errors import ConfigurationError
from archisync.base.text import counted
from archisync.rules.synctypes import Field, SyncType

_NEW_TYPE = "give the type another name, or: archisync type remove {name} --yes, then apply it anew   (adopt = true keeps the table)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """From one declaration to the next. `added`: fields without a column yet. `loosened`: columns that may be empty from now on, of fields
    that are no longer required or that left. `indexed`: fields that become distinct. `sentences` say all of it."""

    added: tuple[Field, ...] = ()
    loosened: tuple[str, ...] = ()
    indexed: tuple[Field, ...] = ()
    sentences: tuple[str, ...] = ()


def changes_between(old: SyncType, new: SyncType, *, file: str) -> Changes:
    """What turns `old` into `new`. Raises ConfigurationError for what would need other rows; `file` is named in the message."""
    _check_same(old, new, file)
    before, after = {f.name: f for f in old.fields}, {f.name: f for f in new.fields}
    for name in before.keys() & after.keys():
        _check_field(before[name], after[name], file)
    added = tuple(f for f in new.fields if f.name not in before)
    gone = [f for f in old.fields if f.name not in after]
    freed = [f for f in old.fields if f.name in after and f.required and not after[f.name].required]
    indexed = tuple(f for f in new.fields if f.distinct and not (f.name in before and before[f.name].distinct))
    return Changes(
        added=added,
        loosened=tuple(f.name for f in [*gone, *freed] if f.required),
        indexed=indexed,
        sentences=tuple(_sentences(old, new, added, gone)),
    )


def _check_same(old: SyncType, new: SyncType, file: str) -> None:
    facts = {
        "scope": (old.scope, new.scope),
        "table": (old.table, new.table),
        "key": (", ".join(old.key), ", ".join(new.key)),
        "nullable_key": (", ".join(old.nullable_key), ", ".join(new.nullable_key)),
    }
    for key, (was, becomes) in facts.items():
        if was != becomes:
            raise ConfigurationError(
                f"{file}: {key}: it can't change from {was or 'nothing'} to {becomes or 'nothing'}",
                hint=_NEW_TYPE.format(name=old.name),
            )


def _check_field(old: Field, new: Field, file: str) -> None:
    where = f"{file}: fields.{old.name}"
    if old.kind is not new.kind:
        raise ConfigurationError(
            f"{where}.kind: it can't change from {old.kind} to {new.kind}",
            hint=f"add a field with another name and the same labels, and leave {old.name} out; its column stays",
        )
    if old.empty != new.empty:
        raise ConfigurationError(
            f"{where}.empty: a part of the key can't change its meaning",
            hint="leave it as it was; archisync type show --toml",
        )


def _sentences(old: SyncType, new: SyncType, added: tuple[Field, ...], gone: list[Field]) -> Iterator[str]:
    if added:
        yield f"{counted(len(added), 'column')} added: {', '.join(f.name for f in added)}"
    if gone:
        yield f"no longer written, and kept: {', '.join(f.name for f in gone)}"
    if old.default_interval_minutes != new.default_interval_minutes:
        yield f"every {new.default_interval_minutes} min instead of {old.default_interval_minutes}"
    if old.after != new.after:
        yield f"after {', '.join(new.after) or 'nothing'} instead of {', '.join(old.after) or 'nothing'}"
    before = {f.name: f for f in old.fields}
    if other := [f.name for f in new.fields if f.name in before and before[f.name] != f]:
        yield f"read in another way: {', '.join(other)}"
    rest = ("order_reference", "same_label", "report_ids", "tracking", "adopt")
    if differ := [name for name in rest if getattr(old, name) != getattr(new, name)]:
        yield f"changed: {', '.join(differ)}"
