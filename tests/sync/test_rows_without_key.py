"""Rows without a key: a blank row is no row, one with an empty key is told and stops nothing, one whose key can't be read delays deletions
by a week; in every format, whichever way the export is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store import agents
from archisync.store.database import Database
from archisync.store.runs import Run
from archisync.sync import inmemory
from tests.support.rows import sync

AGENT = "anna.bianchi"
HEADER = "customer_id,name,city\n"
BOTH = "1,Bar,Milano\n2,Osteria,Torino\n"
ONE = "1,Bar,Milano\n"


@pytest.fixture(params=[2_000, 0], ids=["in memory", "through the stage"])
def most_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inmemory, "MOST_ROWS", request.param)


class Rounds:
    """One agent's customers, with a clock that stands still."""

    def __init__(self, db: Database, config: Config, export: Path) -> None:
        self.db, self.config, self.export = db, config, export
        agents.add(db, AGENT, name=None, whitelisted=True)
        self.at("2026-05-01T12:00:00Z")

    def at(self, moment: str) -> None:
        self.db.execute("select set_config('archisync.now', %s, false)", [moment])

    def run(self, text: str) -> Run:
        self.export.write_text(text)
        return sync(self.db, self.config, "customers", AGENT, trigger="scheduled")

    def kept(self) -> dict[str, bool]:
        """Which customers there are, and whether they are marked absent."""
        rows = self.db.execute("select customer_id, absent_since is not null as gone from agents.customers order by 1")
        return {row["customer_id"]: row["gone"] for row in rows.fetchall()}


@pytest.fixture
def rounds(connection: Database, database_url: str, tmp_path: Path, most_rows: None) -> Rounds:
    export = tmp_path / "customers"
    variables = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": str(export)}
    return Rounds(connection, Config.from_environment(variables), export)


BLANK = [",,", " , ,", '"","",""', ",", ",,,,,", "\u00a0,\t,"]


@pytest.mark.parametrize("blank", BLANK)
def test_a_blank_row_is_no_row(rounds: Rounds, blank: str) -> None:
    rounds.run(HEADER + BOTH)
    run = rounds.run(f"{HEADER}{ONE}{blank}\n{blank}\n")
    assert run.counts is not None
    assert (run.counts.seen, run.counts.quarantined, run.counts.absent, run.reason) == (1, 0, 1, "applied")
    rounds.run(f"{HEADER}{blank}\n{ONE}")
    assert rounds.kept() == {"1": False}


@pytest.mark.parametrize("blank", ["{}", '{"customer_id": null, "name": ""}', '{"city": "  ", "name": null}'])
def test_a_blank_object_is_no_row(rounds: Rounds, blank: str) -> None:
    one = '{"customer_id": "1", "name": "Bar", "city": "Milano"}\n'
    run = rounds.run(f"{one}{blank}\n{one.replace('1', '2')}")
    assert run.counts is not None
    assert (run.counts.seen, run.counts.inserted, run.counts.quarantined) == (2, 2, 0)


@pytest.mark.parametrize("total", [",TOTALE,9", '"","Totale generale",', " ,x,y"])
def test_a_row_with_an_empty_key_is_told_and_stops_no_deletion(rounds: Rounds, total: str) -> None:
    rounds.run(f"{HEADER}{BOTH}{total}\n")
    marked = rounds.run(f"{HEADER}{ONE}{total}\n")
    assert marked.counts is not None
    assert (marked.counts.seen, marked.counts.quarantined, marked.counts.absent) == (2, 1, 1)
    assert [warning["message"] for warning in marked.warnings] == ["1 row quarantined; 1 without a key"]
    assert rounds.kept() == {"1": False, "2": True}
    deleted = rounds.run(f"{HEADER}{ONE}{total}\n")
    assert deleted.counts is not None
    assert deleted.counts.deleted == 1
    assert rounds.kept() == {"1": False}


UNREADABLE = ["x" * 300 + ",Osteria,", "Totale: 9"]


@pytest.mark.parametrize("row", UNREADABLE)
def test_a_row_whose_key_cannot_be_read_delays_deletions_by_a_week(rounds: Rounds, row: str) -> None:
    text = f"{HEADER}{row}\n{ONE}"
    rounds.run(f"{HEADER}{row}\n{BOTH}")
    told = rounds.run(text)
    assert [warning["message"] for warning in told.warnings] == [
        "1 row quarantined; 1 without a readable key, so rows that are missing are deleted only after a week"
    ]
    for moment in ("2026-05-01T12:15:00Z", "2026-05-08T11:59:59Z"):
        rounds.at(moment)
        rounds.run(text)
        assert rounds.kept() == {"1": False, "2": True}
    rounds.at("2026-05-08T12:00:00Z")
    assert rounds.run(text).state == "succeeded"
    assert rounds.kept() == {"1": False}


def test_a_row_that_could_be_read_again_within_the_week_is_restored(rounds: Rounds) -> None:
    rounds.run(HEADER + BOTH)
    rounds.run(f"{HEADER}{UNREADABLE[0]}\n{ONE}")
    rounds.run(HEADER + BOTH)
    assert rounds.kept() == {"1": False, "2": False}


def test_without_an_unreadable_key_what_was_marked_is_deleted_at_once(rounds: Rounds) -> None:
    rounds.run(HEADER + BOTH)
    rounds.run(f"{HEADER}{UNREADABLE[0]}\n{ONE}")
    rounds.run(HEADER + ONE)
    assert rounds.kept() == {"1": False}
