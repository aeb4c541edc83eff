"""A column that leaves the exports is told of for a week. What one row says does not depend on the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, health
from archisync.store.database import Database
from archisync.store.runs import Run
from archisync.sync import inmemory
from archisync.sync.preview import preview
from tests.support.rows import sync

AGENT = "anna.bianchi"


class Rounds:
    """One agent's customers, with a clock that stands still."""

    def __init__(self, db: Database, config: Config, export: Path) -> None:
        self.db, self.config, self.export = db, config, export
        agents.add(db, AGENT, name=None, whitelisted=True)
        self.on("2026-05-01")

    def on(self, day: str) -> None:
        self.db.execute("select set_config('archisync.now', %s, false)", [f"{day}T12:00:00Z"])

    def write(self, *rows: dict[str, str | None], form: str = "jsonl") -> None:
        if form == "csv":
            lines = [",".join(rows[0]), *(",".join(value or "" for value in row.values()) for row in rows)]
            self.export.write_text("\n".join(lines) + "\n")
        elif form == "json":
            self.export.write_text(json.dumps(rows))
        else:
            self.export.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, *rows: dict[str, str | None], form: str = "jsonl") -> Run:
        self.write(*rows, form=form)
        return sync(self.db, self.config, "customers", AGENT, trigger="scheduled")

    def faxes(self) -> dict[str, str | None]:
        rows = self.db.execute("select customer_id, fax from agents.customers order by 1").fetchall()
        return {row["customer_id"]: row["fax"] for row in rows}

    def told(self) -> list[list[str]]:
        """What `status` says."""
        return [warned.messages for warned in health.warned_pairs(self.db, limit=5)]


@pytest.fixture(params=[2_000, 0], ids=["in memory", "through the stage"])
def rounds(
    request: pytest.FixtureRequest,
    connection: Database,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Rounds:
    monkeypatch.setattr(inmemory, "MOST_ROWS", request.param)
    export = tmp_path / "customers"
    variables = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": str(export)}
    return Rounds(connection, Config.from_environment(variables), export)


def customer(number: int, **more: str | None) -> dict[str, str | None]:
    return {"customer_id": f"{number}", "name": f"Bar {number}", **more}


def warnings(run: Run) -> list[tuple[str, str]]:
    return [(warning["code"], warning["message"]) for warning in run.warnings]


EMPTY = [("lost-columns", "no object has fax any more: empty now")]
KEPT = [("lost-columns", "fax left the export: the rows keep the old values")]


@pytest.mark.parametrize("form", ["json", "jsonl"])
@pytest.mark.parametrize("other_has_it", [True, False])
def test_an_object_without_the_key_says_the_same_whatever_the_others_have(
    rounds: Rounds, form: str, other_has_it: bool
) -> None:
    rounds.run(customer(1, fax="055 1"), customer(2, fax="055 2"), form=form)
    other = customer(2, fax="055 2") if other_has_it else customer(2)
    run = rounds.run(customer(1), other, form=form)
    assert rounds.faxes() == {"1": None, "2": "055 2" if other_has_it else None}
    assert warnings(run) == ([] if other_has_it else EMPTY)
    again = rounds.run(customer(1), customer(3), form=form)
    assert rounds.faxes()["3"] is None
    assert ("lost-columns", "no object has fax any more: empty now") in warnings(again)


def test_a_key_that_comes_back_is_read_again_and_nothing_is_told_any_more(rounds: Rounds) -> None:
    rounds.run(customer(1, fax="055 1"))
    rounds.run(customer(1))
    assert rounds.told() == [["no object has fax any more: empty now"]]
    assert warnings(rounds.run(customer(1, fax="055 9"))) == []
    assert (rounds.faxes(), rounds.told()) == ({"1": "055 9"}, [])


def test_a_key_that_no_export_ever_had_is_nobody_s(rounds: Rounds) -> None:
    rounds.run(customer(1))
    rounds.db.execute("update agents.customers set fax = 'mine'")
    assert warnings(rounds.run(customer(1), customer(2))) == []
    assert rounds.faxes() == {"1": "mine", "2": None}


def test_the_rows_keep_what_a_csv_column_had_and_it_is_told_for_a_week(rounds: Rounds) -> None:
    rounds.run(customer(1, fax="055 1"), form="csv")
    assert warnings(rounds.run(customer(1), form="csv")) == KEPT
    assert (rounds.faxes(), rounds.told()) == ({"1": "055 1"}, [[KEPT[0][1]]])
    rounds.run(customer(1), form="csv")  # the same bytes: nothing is compared, and it is still told
    assert rounds.told() == [[KEPT[0][1]]]
    rounds.on("2026-05-07")
    assert warnings(rounds.run(customer(1), customer(2), form="csv")) == KEPT
    rounds.on("2026-05-08")
    assert warnings(rounds.run(customer(1), customer(3), form="csv")) == []
    assert rounds.told() == []


def test_diff_tells_and_shows_what_a_sync_would_do(rounds: Rounds) -> None:
    rounds.run(customer(1, fax="055 1"))
    rounds.write(customer(1))
    found = preview(rounds.db, rounds.config, SYNC_TYPES["customers"], AGENT)
    assert [(warning["code"], warning["message"]) for warning in found.warnings] == EMPTY
    assert found.outlook.changes == [{"key": ["1"], "fields": {"fax": ["055 1", None]}}]


def test_quarantined_rows_are_told_until_an_export_is_good(rounds: Rounds) -> None:
    rounds.run(customer(1), {"customer_id": "2", "name": None})
    assert rounds.told() == [["1 row quarantined"]]
    rounds.run(customer(1), customer(2))
    assert rounds.told() == []
