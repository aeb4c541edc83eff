"""Which column of a table holds which field of a sync type.

Columns are found by their labels, so a moved or added column changes nothing. The export does not own a field without a column. Two
columns for one field hold the export: nobody knows which of them is right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from archisync.base.errors import ConfigurationError, ExportError
from archisync.rules.labels import fold_label
from archisync.rules.synctypes import Field, SyncType

_SHOWN_LABELS = 40
_SHOWN_CHARS = 40
_NO_ALIASES: Mapping[str, str] = {}


class MissingColumnError(ExportError):
    """The export has no column for a field that the sync type requires."""

    reason = "missing-column"


@lru_cache(maxsize=512)
def required_places(
    labels: tuple[str, ...], sync_type: SyncType, aliases: tuple[tuple[str, str], ...]
) -> tuple[int, ...] | None:
    """The places of the columns that each row must fill; None when one of them has no column."""
    try:
        layout = map_labels(labels, sync_type, dict(aliases))
    except MissingColumnError:
        return None
    except ExportError:  # two columns for one field: a header, and reading it says what is wrong with it
        return ()
    columns = zip(layout.columns, layout.positions, strict=True)
    return tuple(place for field, place in columns if needs_column(field, sync_type))


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which column of the table holds which field.

    `columns` are all key fields in key order, then the other fields that have a column, in the type's order. `positions[i]` is the
    table column of `columns[i]`, or -1 for a field without one: a part of the key, or one that is `owned`. `ignored` are unknown labels.
    `alike` says which labels were understood although no known label is written so, as in `CITTA' for city`.
    """

    columns: tuple[Field, ...]
    positions: tuple[int, ...]
    ignored: tuple[str, ...]
    alike: tuple[str, ...] = ()

    @property
    def found(self) -> list[str]:
        """The fields that have a column."""
        return [field.name for field, place in zip(self.columns, self.positions, strict=True) if place >= 0]

    def in_file_order(self, width: int) -> list[Field | None]:
        """The field of each of the table's `width` columns; None for a column that is ignored."""
        fields: list[Field | None] = [None] * width
        for field, position in zip(self.columns, self.positions, strict=True):
            if position >= 0:
                fields[position] = field
        return fields


def map_labels(
    labels: Sequence[str],
    sync_type: SyncType,
    extra_aliases: Mapping[str, str] = _NO_ALIASES,
    owned: Collection[str] = (),
) -> Layout:
    """Find the type's fields among the labels.

    `owned`: names of fields that the export owns even if no row has them; they are empty then.

    `extra_aliases` is label → field name and wins over the type's own aliases; an empty field name ignores the column. A column without
    a label is ignored and not listed. `sync_type.same_label` names the field of the second of two columns with the same label.

    Raises MissingColumnError, ExportError (two columns for one field) and ConfigurationError (unknown field).
    """
    names = _names_by_label(sync_type, extra_aliases)
    after = dict(sync_type.same_label)
    found: dict[str, int] = {}
    ignored: list[str] = []
    for position, label in enumerate(labels):
        name = names.get(fold_label(label))
        if not name:
            ignored.extend([label] if label.strip() else [])
        elif name in found and name in after and after[name] not in found and _same(labels[found[name]], label):
            found[after[name]] = position
        elif name in found:
            raise _twice(labels[found[name]], label, name)
        else:
            found[name] = position
    _require_columns(labels, sync_type, found)
    columns = _ordered(sync_type, {*found, *owned})
    return Layout(
        columns=columns,
        positions=tuple(found.get(field.name, -1) for field in columns),
        ignored=tuple(ignored),
        alike=_alike(labels, found, sync_type, extra_aliases),
    )


def _alike(
    labels: Sequence[str], found: Mapping[str, int], sync_type: SyncType, extra_aliases: Mapping[str, str]
) -> tuple[str, ...]:
    known = {label.casefold() for field in sync_type.fields for label in (field.name, *field.aliases)}
    known.update(label.casefold() for label in extra_aliases)
    written = {name: " ".join(labels[place].split()) for name, place in found.items()}
    return tuple(f"{label} for {name}" for name, label in written.items() if label.casefold() not in known)


def _names_by_label(sync_type: SyncType, extra_aliases: Mapping[str, str]) -> dict[str, str]:
    """Folded label → field name."""
    names = {fold_label(label): field.name for field in sync_type.fields for label in (field.name, *field.aliases)}
    known = {field.name for field in sync_type.fields}
    for label, name in extra_aliases.items():
        if name and name not in known:
            raise ConfigurationError(
                f"the column {_shown(label)} is assigned to {name!r}, which is no field of {sync_type.name}",
                hint="fields: " + ", ".join(field.name for field in sync_type.fields),
            )
        names[fold_label(label)] = name
    return names


def _same(first: str, second: str) -> bool:
    return fold_label(first) == fold_label(second)


def _twice(first: str, second: str, name: str) -> ExportError:
    hint = "remove one of them from the ERP's export"
    if _same(first, second):
        return ExportError(f"the export has two columns {_shown(second)}", hint=hint)
    return ExportError(f"columns {_shown(first)} and {_shown(second)} both stand for {name}", hint=hint)


def _require_columns(labels: Sequence[str], sync_type: SyncType, found: Mapping[str, int]) -> None:
    missing = [field.name for field in sync_type.fields if needs_column(field, sync_type) and field.name not in found]
    if not missing:
        return
    shown = ", ".join(_shown(label) for label in labels[:_SHOWN_LABELS])
    if len(labels) > _SHOWN_LABELS:
        shown += f" and {len(labels) - _SHOWN_LABELS} more"
    raise MissingColumnError(
        f"the export has no column for {', '.join(missing)}; its columns are {shown}",
        hint="make the column visible in the ERP's export, or give its label as an alias",
    )


def needs_column(field: Field, sync_type: SyncType) -> bool:
    """Whether the field must have a column, and every row a value in it: it is required, or a part of the key without a default."""
    if field.required:
        return True
    return field.name in sync_type.key and field.empty is None and field.name not in sync_type.nullable_key


def _ordered(sync_type: SyncType, found: Collection[str]) -> tuple[Field, ...]:
    key = tuple(sync_type.field(name) for name in sync_type.key)
    return key + tuple(field for field in sync_type.fields if field.name in found and field.name not in sync_type.key)


def _shown(label: str) -> str:
    return repr(label[:_SHOWN_CHARS]) + ("…" if len(label) > _SHOWN_CHARS else "")
