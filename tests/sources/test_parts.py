"""`all=1`: all files of the newest date are one export, each read once and in order; for files, SFTP and buckets, and in runs."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from archisync.base.errors import ConfigurationError, ExportError, NoExportError, TransientSourceError
from archisync.rules.config import Config
from archisync.sources import Export, Fetched, Unchanged, check_template, fetch, put_away
from archisync.sources.interface import Request
from archisync.sources.parts import MAX_PARTS, fetch_parts
from archisync.store import agents
from archisync.store.database import Database
from archisync.store.runs import Counts, Run
from tests.support.fetching import request_of
from tests.support.places import Place
from tests.support.rows import count, sync

HEADER = b"order_id,created_at\n"
NAME = "{type}_{date:%Y%m%d}_*.csv?all=1"
Ask = Callable[..., Fetched]


@pytest.fixture
def ask(tmp_path: Path, place: Place) -> Ask:
    def ask(name: str = NAME, known: Mapping[str, str] | None = None) -> Fetched:
        template = f"{place.root}/{{agent}}/{name}"
        return fetch(request_of(tmp_path, template, max_bytes=10**6, validators=known, **place.variables))

    return ask


def _contents(found: Fetched) -> list[bytes]:
    assert isinstance(found, Export)
    return [path.read_bytes() for path in (found.path, *found.parts)]


def test_all_files_of_the_greatest_date_are_read_in_order(place: Place, ask: Ask) -> None:
    for name in ("20260101_1", "20260102_10", "20260102_9", "20260102_b", "20260102", "2026010_1"):
        place.put(f"agent-1/orders_{name}.csv", HEADER + name.encode() + b",2026-01-02\n")
    export = ask()
    assert _contents(export) == [
        HEADER + name + b",2026-01-02\n" for name in (b"20260102_9", b"20260102_10", b"20260102_b")
    ]
    assert isinstance(export, Export)
    assert export.origin == f"{place.root}/agent-1/orders_{{date:%Y%m%d}}_*.csv (3 files)"
    assert export.size_bytes == sum(map(len, _contents(export)))
    assert export.details == {"files": ["orders_20260102_9.csv", "orders_20260102_10.csv", "orders_20260102_b.csv"]}
    with pytest.raises(NoExportError, match=r"^no export nothing_\{date:%Y\}_\*.csv in "):
        ask("nothing_{date:%Y}_*.csv?all=1")


@pytest.mark.parametrize("place", ["sftp", "s3"], indirect=True)
def test_files_that_are_the_applied_ones_are_not_read_again(place: Place, ask: Ask) -> None:
    place.put("agent-1/orders_20260102_1.csv", HEADER)
    place.put("agent-1/orders_20260102_2.csv", HEADER + b"1,2026-01-02\n")
    export = ask()
    assert isinstance(export, Export)
    assert set(export.validators) == {"files"}
    assert isinstance(ask(NAME, export.validators), Unchanged)
    place.put("agent-1/orders_20260102_3.csv", HEADER)
    assert len(_contents(ask(NAME, export.validators))) == 3


def test_files_are_moved_together_and_one_that_comes_later_joins_them(tmp_path: Path, place: Place, ask: Ask) -> None:
    name = f"{NAME}&done=read"
    place.put("agent-1/orders_20260102_1.csv", HEADER)
    place.put("agent-1/orders_20260102_2.csv", HEADER + b"2,2026-01-02\n")
    export = ask(name)
    put_away(
        request_of(tmp_path, f"{place.root}/{{agent}}/{name}", max_bytes=1, validators=None, **place.variables),
        export.originals,
    )
    assert sorted(place.names()) == ["agent-1/read/orders_20260102_1.csv", "agent-1/read/orders_20260102_2.csv"]
    place.put("agent-1/orders_20260102_3.csv", HEADER + b"3,2026-01-02\n")
    assert [content[len(HEADER) :] for content in _contents(ask(name))] == [b"", b"2,2026-01-02\n", b"3,2026-01-02\n"]


def _parts(tmp_path: Path, find: Callable[[], list[int]], sizes: Mapping[int, int], max_bytes: int = 100) -> Export:
    def fetch_one(one: int, request: Request) -> Export:
        if sizes[one] > request.max_bytes:
            raise ExportError("too large")
        path = request.spool_dir / str(one)
        path.write_bytes(b"x" * sizes[one])
        return Export(
            path=path,
            origin=f"/in/{one}",
            suffix=f".{'csv' if one < 5 else 'jsonl'}",
            size_bytes=sizes[one],
            sha256=str(one),
        )

    return fetch_parts(find, fetch_one, request_of(tmp_path, "/in", max_bytes=max_bytes), shown="/in/*")


def test_a_list_that_changes_meanwhile_is_read_again_and_nothing_is_left(tmp_path: Path) -> None:
    lists = iter([[1, 2], [1, 2, 3]])
    with pytest.raises(TransientSourceError, match="other files are there"):
        _parts(tmp_path, lambda: next(lists), {1: 1, 2: 1, 3: 1})
    with pytest.raises(ExportError, match="too large"):  # in all, not each
        _parts(tmp_path, lambda: [1, 2], {1: 60, 2: 60})
    with pytest.raises(ExportError, match="different formats"):
        _parts(tmp_path, lambda: [1, 5], {1: 1, 5: 1})
    with pytest.raises(ExportError, match=f"{MAX_PARTS + 1} files belong together"):
        _parts(tmp_path, lambda: [1] * (MAX_PARTS + 1), {1: 1})
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    "template", ["/in/orders.csv?all=1", "/in/orders_*.csv?all=1", "/in/orders_{date:%Y}_*.csv?all=1&newest=mtime"]
)
def test_what_belongs_together_must_be_said_by_a_date(template: str) -> None:
    with pytest.raises(ConfigurationError, match="all=1 without a date"):
        check_template(template)


# --- runs ---------------------------------------------------------------------------------------------------------

AGENT = "anna.bianchi"
LABELS = "customer_id,name,phone,city\n"


class Runs:
    def __init__(self, db: Database, url: str, folder: Path) -> None:
        self.db, self.folder = db, folder
        agents.add(db, AGENT, name=None, whitelisted=True)
        source = f"{folder}/{{type}}_{{date:%Y%m%d}}_*.csv?all=1"
        self.config = Config.from_environment({"ARCHISYNC_DATABASE_URL": url, "ARCHISYNC_SOURCE": source})

    def write(self, *texts: str | bytes, day: int = 2) -> None:
        for number, text in enumerate(texts, 1):
            content = text if isinstance(text, bytes) else text.encode()
            (self.folder / f"customers_202601{day:02}_{number}.csv").write_bytes(content)

    def run(self, trigger: str = "scheduled") -> Run:
        return sync(self.db, self.config, "customers", AGENT, trigger=trigger)


@pytest.fixture
def runs(connection: Database, database_url: str, tmp_path: Path) -> Runs:
    return Runs(connection, database_url, tmp_path)


def _customers(first: int, last: int, city: str = "Roma") -> str:
    return "".join(f"C{n},Name {n},06 {n},{city}\n" for n in range(first, last))


def test_the_files_are_one_export_for_the_run(runs: Runs) -> None:
    runs.write(LABELS + _customers(0, 50), LABELS + _customers(50, 90), LABELS)
    first = runs.run()
    assert (first.state, first.counts) == ("succeeded", Counts(seen=90, inserted=90))
    assert runs.run().reason == "unchanged"
    runs.write(LABELS + _customers(0, 50), LABELS + _customers(50, 89) + "C89,Name 89,06 89,Torino\n", LABELS)
    assert runs.run().counts == Counts(seen=90, updated=1, unchanged=89)
    runs.write(LABELS + _customers(40, 89), LABELS + _customers(0, 40), LABELS + "C89,Name 89,06 89,Torino\n", day=3)
    assert runs.run().message == "90 rows seen: every line is known; nothing was compared"
    runs.write(LABELS + _customers(0, 40), day=4)
    assert runs.run().state == "held", "more than half of the rows are missing"


def test_files_in_two_encodings_and_with_title_lines_are_each_read_as_they_are(runs: Runs) -> None:
    old = (LABELS + "C3,Caffè,3,Forlì\n").encode("cp1252")
    runs.write(LABELS + "C1,Plain,1,Roma\n", "Report of today\n\n" + LABELS + "C2,Caffè,2,Forlì\n", old)
    assert runs.run().counts == Counts(seen=3, inserted=3)
    assert count(runs.db, "select count(*) from agents.customers where name = 'Caffè'") == 2


@pytest.mark.parametrize(
    ("second", "reason", "message"),
    [
        ("customer_id,name,city\nC2,x,Roma\n", "unreadable", "file 2 of the export has other columns than the first: phone"),
        (LABELS.replace(",", ";"), "unreadable", "file 2 of the export has the delimiter semicolon, and the first has comma"),
        ("customer_id,phone,name,city\nC2,1,x,Roma\n", "unreadable", "file 2 of the export has other columns than the first: their order"),
        (LABELS + "C2,x,", "truncated", "truncated: the last row, line 2, has 3 cells, the header has 4"),
        ("", "unreadable", "the export is empty (0 bytes)"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_belong_to_the_others_holds_the_export(
    runs: Runs, second: str, reason: str, message: str
) -> None:
    runs.write(LABELS + _customers(0, 1), second, LABELS)
    held = runs.run()
    assert (held.state, held.reason, held.message) == ("held", reason, message)
    assert count(runs.db, "select count(*) from agents.customers") == 0


def test_a_bad_row_has_its_line_in_all_files(runs: Runs) -> None:
    runs.write(LABELS + _customers(0, 3), LABELS + "C9,,9,Roma\n")
    quarantined = runs.run()
    rows = [row for warning in quarantined.warnings for row in warning.get("rows", [])]
    assert [row["line"] for row in rows] == [6]


def test_the_same_row_in_two_files_counts_once(runs: Runs) -> None:
    runs.write(LABELS + _customers(0, 3), LABELS + _customers(2, 5))
    done = runs.run()
    assert (done.state, done.counts) == ("succeeded", Counts(seen=6, inserted=5))
    assert [warning["code"] for warning in done.warnings] == ["repeated-rows"]
