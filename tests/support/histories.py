"""A company's old exports, one day after the other, and what the guard's rules about values would have said of each."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from archisync.rules.declarations import parse_toml, read
from archisync.rules.guard import Hold
from archisync.rules.labels import fold_label
from archisync.rules.reasons import COLUMN_SHARES, Limits
from archisync.rules.synctypes import SyncType
from archisync.rules.values import BadValueError, parse
from tests.support.tables import Row
from tests.support.weighing import verdict

ZONE = ZoneInfo("Europe/Rome")
_OF_VALUES = Limits(drop=100, delete=100, rewrite=100)
"""A sheet of share prices changes most of its fields each day: only the rules about values are tried here."""


class Day(NamedTuple):
    """An export that changed something, and why it would be held."""

    export: str
    hold: Hold | None


def replay(folder: Path) -> Iterator[Day]:
    """The exports `*.csv` of a folder in the order of their names, each against the one before. `type.toml` declares their type."""
    sync_type = read(parse_toml((folder / "type.toml").read_bytes(), "type.toml"), file="type.toml")
    before: list[Row] = []
    for export in sorted(folder.glob("*.csv")):
        rows = rows_of(export, sync_type)
        if before and rows and rows != before:
            hold = verdict(sync_type, before, rows, blank={}, limits=_OF_VALUES)
            yield Day(export.name, hold if hold and hold.rule in COLUMN_SHARES else None)
        before = rows or before


def rows_of(export: Path, sync_type: SyncType) -> list[Row]:
    """The rows that could be read; one with an unclear value or without a key is left out, as a sync would."""
    fields = {fold_label(label): field for field in sync_type.fields for label in (field.name, *field.aliases)}
    found: dict[tuple[object, ...], Row] = {}
    with export.open(encoding="utf-8", errors="replace", newline="") as lines:
        for cells in csv.DictReader(lines):
            known = {
                fields[fold_label(name)]: text or ""
                for name, text in cells.items()
                if name and fold_label(name) in fields
            }
            try:
                row: Row = {field.name: parse(field.kind, text, "iso", ZONE) for field, text in known.items()}
            except BadValueError:
                continue
            key = tuple(row.get(name) for name in sync_type.key)
            if None not in key:
                found[key] = row
    return list(found.values())
