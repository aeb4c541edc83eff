"""An older file that lies beside the export which was applied last is held: the rows would go back without a word."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from archisync.rules.config import Config
from archisync.store import agents, held
from archisync.store.database import Database
from archisync.store.runs import Run
from tests.support.rows import sync

AGENT = "anna.bianchi"
OLD = "customer_id,name\n1,Bar Vecchio\n"
NEW = "customer_id,name\n1,Bar Nuovo\n"
HOUR = 3600
NOON = 1_777_636_800  # 2026-05-01T12:00:00Z


class Folder:
    def __init__(self, db: Database, config: Config, path: Path) -> None:
        self.db, self.config, self.path = db, config, path

    def write(self, text: str, *, at: int, name: str = "customers.csv") -> None:
        file = self.path / name
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        os.utime(file, (at, at))

    def run(self, trigger: str = "scheduled") -> Run:
        return sync(self.db, self.config, "customers", AGENT, trigger=trigger)

    def name(self) -> str:
        row = self.db.execute("select name from agents.customers").fetchone()
        assert row is not None
        return str(row["name"])


@pytest.fixture(params=["customers.csv", "customers-*.csv"])
def folder(request: pytest.FixtureRequest, connection: Database, database_url: str, tmp_path: Path) -> Folder:
    agents.add(connection, AGENT, name=None, whitelisted=True)
    variables = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_SOURCE": f"{tmp_path}/{request.param}"}
    return Folder(connection, Config.from_environment(variables), tmp_path)


WRITTEN = "the export was written at 2026-05-01T12:00:00Z, the one that was applied last at 2026-05-01T13:00:00Z"


@pytest.mark.parametrize("trigger", ["scheduled", "forced"])
@pytest.mark.parametrize("folder", ["customers.csv"], indirect=True)
def test_an_old_gz_beside_a_file_that_is_gone_is_held(folder: Folder, trigger: str) -> None:
    folder.write(OLD, at=NOON, name="customers.csv.gz")
    folder.write(NEW, at=NOON + HOUR)
    assert folder.run().state == "succeeded"
    (folder.path / "customers.csv").unlink()
    run = folder.run(trigger)
    assert (run.state, run.reason, run.message) == ("held", "older-file", WRITTEN)
    assert folder.name() == "Bar Nuovo"


@pytest.mark.parametrize("folder", ["customers-*.csv"], indirect=True)
def test_the_newest_but_one_file_is_held_when_the_newest_is_gone(folder: Folder) -> None:
    folder.write(OLD, at=NOON, name="customers-1.csv")
    folder.write(NEW, at=NOON + HOUR, name="customers-2.csv")
    assert folder.run().state == "succeeded"
    (folder.path / "customers-2.csv").unlink()
    assert folder.run().message == WRITTEN
    assert folder.name() == "Bar Nuovo"


@pytest.mark.parametrize("folder", ["customers.csv"], indirect=True)
def test_an_older_file_is_held_until_a_person_accepts_it_or_a_newer_one_comes(folder: Folder) -> None:
    folder.write(OLD, at=NOON, name="customers.csv.gz")
    folder.write(NEW, at=NOON + HOUR)
    folder.run()
    (folder.path / "customers.csv").unlink()
    run = folder.run()
    held.decide(folder.db, run.run_id, accept=True, by="test", why="the newer one was wrong")
    assert (folder.run().state, folder.name()) == ("succeeded", "Bar Vecchio")
    folder.write(NEW, at=NOON + HOUR // 2)  # newer than the one that was accepted
    assert (folder.run().state, folder.name()) == ("succeeded", "Bar Nuovo")


@pytest.mark.parametrize("folder", ["customers.csv"], indirect=True)
def test_a_row_that_a_person_corrects_in_the_file_is_applied_whatever_its_time(folder: Folder) -> None:
    folder.write(NEW, at=NOON + HOUR)
    assert folder.run().state == "succeeded"  # the first one is older than nothing
    folder.write(OLD, at=NOON)
    assert (folder.run().state, folder.name()) == ("succeeded", "Bar Vecchio")


def customers(*names: str) -> str:
    return "customer_id,name\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names, 1))


@pytest.mark.parametrize("folder", ["customers.csv"], indirect=True)
@pytest.mark.parametrize(
    ("then", "seconds", "state"),
    [
        (("Vecchio", "Antico", "Nuovo C", "Nuovo D"), HOUR, "succeeded"),
        (("Vecchio", "Antico", "Prisco", "Nuovo D"), HOUR, "held"),
        (("Vecchio", "Antico", "Prisco", "Nuovo D"), 1, "succeeded"),  # times are rounded
        (("Vecchio", "Antico", "Nuovo C"), HOUR, "held"),
        (("Nuovo A", "Nuovo B", "Nuovo C", "Nuovo D", "E", "F", "G"), HOUR, "succeeded"),  # nothing goes back
    ],
)
def test_an_older_file_in_the_same_place_is_held_where_three_rows_go_back(
    folder: Folder, then: tuple[str, ...], seconds: int, state: str
) -> None:
    folder.write(customers("Nuovo A", "Nuovo B", "Nuovo C", "Nuovo D"), at=NOON + HOUR)
    folder.run()
    folder.write(customers(*then), at=NOON + HOUR - seconds)
    run = folder.run()
    assert (run.state, run.reason == "older-file") == (state, state == "held")
    if state == "held":
        held.decide(folder.db, run.run_id, accept=True, by="test", why="taken from the backup")
        assert folder.run().state == "succeeded"
        folder.write(customers("Nuovo A", "Nuovo B", "Nuovo C", "Nuovo D"), at=NOON + HOUR // 2)
        assert folder.run().state == "succeeded"


@pytest.mark.parametrize("folder", ["customers.csv"], indirect=True)
def test_a_time_in_the_future_does_not_make_the_next_export_an_old_one(folder: Folder) -> None:
    folder.write(customers("A", "B", "C", "D"), at=4_000_000_000)
    folder.run()
    folder.write(customers("E", "F", "G", "H"), at=3_999_000_000)
    assert folder.run().state == "succeeded"


@pytest.mark.parametrize("folder", ["customers.csv"], indirect=True)
def test_the_same_bytes_with_an_older_time_are_unchanged(folder: Folder) -> None:
    folder.write(NEW, at=NOON + HOUR)
    folder.run()
    folder.write(NEW, at=NOON)
    assert folder.run().state == "succeeded"
    assert folder.run("forced").state == "succeeded"


@pytest.mark.parametrize("folder", ["customers.csv"], indirect=True)
def test_of_a_file_and_its_gz_the_newer_one_is_read(folder: Folder) -> None:
    folder.write(OLD, at=NOON)
    folder.run()
    folder.write(NEW, at=NOON + HOUR, name="customers.csv.gz")
    assert (folder.run().state, folder.name()) == ("succeeded", "Bar Nuovo")
    folder.write("customer_id,name\n1,Bar Nuovissimo\n", at=NOON + 2 * HOUR)
    assert (folder.run().state, folder.name()) == ("succeeded", "Bar Nuovissimo")
