"""Random types and random exports of them: after each sync the table has what an independent reading of the exports says."""

import csv
import io
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from archisync.actions import types
from archisync.rules.config import Config
from archisync.rules.synctypes import SHARED_AGENT, Field, Kind, Scope, SyncType
from archisync.store import agents
from archisync.store.audit import Actor, Via
from archisync.store.database import Database
from archisync.store.runs import State
from tests.support.declarations import sync_types
from tests.support.properties import examples
from tests.support.rows import sync

ACTOR = Actor(name="paolo@web1", via=Via.CLI)
WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=6)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: WORDS,
    Kind.IDENTIFIER: WORDS,
    Kind.NUMBER: st.decimals(-9999, 9999, places=2),
    Kind.INTEGER: st.integers(-10_000, 10_000),
    Kind.DATE: st.dates(date(1990, 1, 1), date(2040, 1, 1)),
    Kind.TIMESTAMP: st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)).map(  # noqa: DTZ001 - it gets its zone here
        lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
    ),
    Kind.BOOLEAN: st.booleans(),
}
Row = tuple[Any, ...]


def written(value: Any) -> str:
    """The cell that an ERP writes for the value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return value.isoformat() if isinstance(value, date) else str(value)


def stored(field: Field, value: Any) -> Any:
    """What the table must have for it."""
    if value is not None:
        return value
    if field.empty is None:
        return False if field.kind is Kind.BOOLEAN else None
    convert: Callable[[str], Any] = {Kind.NUMBER: Decimal, Kind.INTEGER: int}.get(field.kind, str)
    return convert(field.empty)


def rows_of(type_: SyncType) -> st.SearchStrategy[list[Row]]:
    """Rows with different keys. What must be filled is."""
    cells = []
    for field in type_.fields:
        values = VALUES[field.kind]
        may_be_empty = field.name in type_.nullable_key or not field.required
        cells.append(st.none() | values if may_be_empty else values)
    key = [number for number, field in enumerate(type_.fields) if field.name in type_.key]

    def identity(row: Row) -> Row:
        return tuple(stored(type_.fields[n], row[n]) for n in key)

    some_cell = st.tuples(*cells).filter(lambda row: any(map(written, row)))  # a row of empty cells is no row
    return st.lists(some_cell, min_size=1, max_size=6, unique_by=identity)


def export(type_: SyncType, rows: list[Row], order: list[int], labels: list[str]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([labels[n] for n in order])
    writer.writerows([[written(row[n]) for n in order] for row in rows])
    return out.getvalue().encode()


def table_rows(db: Database, type_: SyncType) -> set[Row]:
    columns = sql.SQL(", ").join(sql.Identifier(field.name) for field in type_.fields)
    statement = sql.SQL("select {} from {}").format(columns, sql.Identifier(*type_.table.split(".")))
    return {tuple(row.values()) for row in db.execute(statement).fetchall()}


@pytest.mark.slow
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    max_examples=examples(10),
    phases=[Phase.explicit, Phase.generate],
)
@given(type_=sync_types(max_fields=6), data=st.data())
def test_any_type_is_synced_as_its_exports_say(
    connection: Database, tmp_path: Path, type_: SyncType, data: st.DataObject
) -> None:
    agent = SHARED_AGENT if type_.scope is Scope.SHARED else "anna"
    path = tmp_path / "export.csv"
    config = Config(environment={"ARCHISYNC_SOURCE": str(path), "ARCHISYNC_LOCALE": "iso"})
    agents.add(connection, "anna", name=None, whitelisted=True)
    types.apply(connection, ACTOR, type_, config, file="x.toml")
    try:
        for rows in _days(type_, data):
            order = data.draw(st.permutations(range(len(type_.fields))))
            labels = [data.draw(st.sampled_from([f.name, *filter(_is_plain, f.aliases)])) for f in type_.fields]
            path.write_bytes(export(type_, rows, order, labels))
            run = sync(connection, config, type_.name, agent)
            assert run.state is State.SUCCEEDED, (run.reason, run.message)
            assert run.counts is not None
            assert not run.counts.quarantined
            assert table_rows(connection, type_) == {
                tuple(stored(f, v) for f, v in zip(type_.fields, row, strict=True)) for row in rows
            }
    finally:
        types.remove(connection, ACTOR, type_.name, drop_table=True)


def _is_plain(label: str) -> bool:
    """A file that begins with < is taken for XML, and one with other signs for one of another delimiter."""
    return label.replace(" ", "").isalnum()


def _days(type_: SyncType, data: st.DataObject) -> Iterator[list[Row]]:
    """An export, the same with one row more or changed, the same again: nothing that the guard would ask about."""
    rows = data.draw(rows_of(type_))
    yield rows
    key = [n for n, field in enumerate(type_.fields) if field.name in type_.key]
    known = {tuple(stored(type_.fields[n], row[n]) for n in key) for row in rows}
    more = [r for r in data.draw(rows_of(type_)) if tuple(stored(type_.fields[n], r[n]) for n in key) not in known][:1]
    yield rows + more
    yield list(reversed(rows + more))
