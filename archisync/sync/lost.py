"""Columns that have left a pair's exports."""

from __future__ import annotations

from datetime import date, timedelta

from archisync.store.applied_exports import Begun
from archisync.sync.labels import Layout

REMEMBERED = timedelta(days=7)
"""So long a column that has gone is told of. After that the exports are as they are."""


def lost_columns(layout: Layout, before: Begun) -> dict[str, date]:
    """The fields that this export lacks and earlier ones had, each with the day since which it is gone."""
    since = {name: date.fromisoformat(day) for name, day in before.lost.items()}
    gone = {name: since.get(name, before.today) for name in [*before.columns, *since] if name not in layout.found}
    return {name: day for name, day in gone.items() if before.today - day < REMEMBERED}
