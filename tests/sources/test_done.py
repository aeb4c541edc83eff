"""`done=DIR`: an export that was applied is moved, and stays the export until a newer one comes; for files, SFTP and buckets."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from archisync.base.errors import ConfigurationError, NoExportError, SourceError
from archisync.sources import Export, Fetched, Request, Unchanged, check_template, fetch, put_away
from archisync.sources.names import Options, split_options
from tests.support.fetching import CONTENT, request_of
from tests.support.places import Folder, Place

OTHER = CONTENT + b"2,2026-01-03\n"


Ask = Callable[..., Fetched]


def _request(tmp_path: Path, place: Place, name: str, known: Mapping[str, str] | None = None) -> Request:
    template = f"{place.root}/{{agent}}/{name}"
    return request_of(tmp_path, template, max_bytes=10**6, validators=known, **place.variables)


@pytest.fixture
def ask(tmp_path: Path, place: Place) -> Ask:
    """Fetch, and move what was read, as a run does after its commit."""

    def ask(name: str, known: Mapping[str, str] | None = None, *, move: bool = True) -> Fetched:
        request = _request(tmp_path, place, name, known)
        found = fetch(request)
        if move and found.originals:
            put_away(request, found.originals)
        return found

    return ask


def _export(found: Fetched) -> Export:
    assert isinstance(found, Export)
    return found


DATED = "{type}_{date:%Y%m%d}.csv?done=read"


def test_an_applied_export_is_moved_and_is_still_the_export(place: Place, ask: Ask) -> None:
    place.put("agent-1/orders_20260102.csv", CONTENT)
    export = _export(ask(DATED))
    assert place.names() == {"agent-1/read/orders_20260102.csv": CONTENT}
    again = ask(DATED, export.validators)
    assert again == Unchanged(origin=export.origin.replace("/orders_", "/read/orders_"))
    assert _export(ask(DATED)).path.read_bytes() == CONTENT, "a forced run wants the export itself"


def test_an_unchanged_export_is_moved_too(place: Place, ask: Ask) -> None:
    """As after a crash between the commit and the move."""
    place.put("agent-1/orders_20260102.csv", CONTENT)
    export = _export(ask(DATED, move=False))
    assert list(place.names()) == ["agent-1/orders_20260102.csv"]
    assert isinstance(ask(DATED, export.validators), Unchanged)
    assert list(place.names()) == ["agent-1/read/orders_20260102.csv"]


def test_data_never_goes_back_to_an_older_file_that_is_left(place: Place, ask: Ask) -> None:
    place.put("agent-1/orders_20260101.csv", OTHER)
    place.put("agent-1/orders_20260102.csv", CONTENT)
    export = _export(ask(DATED))
    assert isinstance(ask(DATED, export.validators), Unchanged)
    assert _export(ask(DATED)).path.read_bytes() == CONTENT
    place.put("agent-1/orders_20260103.csv", OTHER)
    newer = _export(ask(DATED, export.validators))
    assert newer.origin.endswith("/orders_20260103.csv")
    assert sorted(place.names()) == [
        "agent-1/orders_20260101.csv",
        "agent-1/read/orders_20260102.csv",
        "agent-1/read/orders_20260103.csv",
    ]


def test_a_file_of_the_same_name_that_comes_later_is_the_newest(place: Place, ask: Ask) -> None:
    place.put("agent-1/orders_20260102.csv", CONTENT)
    export = _export(ask(DATED))
    place.put("agent-1/orders_20260102.csv", OTHER)
    assert _export(ask(DATED, export.validators)).path.read_bytes() == OTHER
    assert place.names() == {"agent-1/read/orders_20260102.csv": OTHER}


def test_a_file_that_has_come_in_its_place_is_not_moved_unread(tmp_path: Path, place: Place, ask: Ask) -> None:
    place.put("agent-1/orders_20260102.csv", CONTENT)
    export = _export(ask(DATED, move=False))
    place.put("agent-1/orders_20260102.csv", OTHER)
    request = _request(tmp_path, place, DATED)
    put_away(request, export.originals)
    assert place.names() == {"agent-1/orders_20260102.csv": OTHER}
    ask(DATED)
    put_away(request, export.originals)  # nothing is there any more
    assert place.names() == {"agent-1/read/orders_20260102.csv": OTHER}


def test_the_folder_may_be_another_one_and_names_the_agent(tmp_path: Path, place: Place, ask: Ask) -> None:
    top = "" if place.root.startswith("s3:") else str(tmp_path / "in")
    name = f"{{type}}_*.csv?done={top}/archive/{{agent}}-{{type}}"
    (tmp_path / "in" / "archive").mkdir(parents=True)
    place.put("agent-1/orders_a.csv", CONTENT)
    export = _export(ask(name))
    assert list(place.names()) == ["archive/agent-1-orders/orders_a.csv"]
    assert isinstance(ask(name, export.validators), Unchanged)


@pytest.mark.parametrize("place", ["path", "sftp"], indirect=True)
def test_a_name_that_stays_is_taken_from_where_it_was_moved_to(place: Place, ask: Ask) -> None:
    place.put("agent-1/orders.csv", CONTENT)
    export = _export(ask("{type}.csv?done=read"))
    assert place.names() == {"agent-1/read/orders.csv": CONTENT}
    assert isinstance(ask("{type}.csv?done=read", export.validators), Unchanged)
    place.put("agent-1/orders.csv", OTHER)
    assert _export(ask("{type}.csv?done=read", export.validators)).path.read_bytes() == OTHER
    assert place.names() == {"agent-1/read/orders.csv": OTHER}
    with pytest.raises(NoExportError, match=r"^no export at "):
        ask("ddt.csv?done=read")


def test_of_a_plain_and_a_packed_file_that_were_moved_the_later_one_is_the_export(tmp_path: Path) -> None:
    import gzip

    folder = Folder("", tmp_path / "in", {})
    folder.put("read/orders.csv", CONTENT)
    folder.put("read/orders.csv.gz", gzip.compress(OTHER))
    request = request_of(tmp_path, f"{folder.root}/{{type}}.csv?done=read")
    assert _export(fetch(request)).path.read_bytes() == OTHER


@pytest.mark.parametrize("place", ["path", "sftp"], indirect=True)
def test_what_stands_in_the_way_of_the_move_is_named(place: Place, ask: Ask) -> None:
    place.put("agent-1/orders.csv", CONTENT)
    place.put("agent-1/read", b"a file, not a folder")
    with pytest.raises(SourceError) as refused:
        ask("{type}.csv?done=read")
    shown = f"{place.root}/agent-1"
    assert refused.value.message.startswith(f"{shown}/orders.csv can't be moved to ")
    assert refused.value.hint
    assert sorted(place.names()) == ["agent-1/orders.csv", "agent-1/read"]


def test_the_option_is_read_with_others() -> None:
    assert split_options("/a_*?newest=mtime&done=../b/{type}/") == ("/a_*", Options(by_time=True, done="../b/{type}"))
    assert split_options("/a?done=/b") == ("/a", Options(done="/b"))
    assert split_options("/a?x=1&done=/b") == ("/a?x=1&done=/b", Options())


@pytest.mark.parametrize(
    "template",
    ["/in/orders.csv?done=", "/in/orders.csv?done=.", "/in/orders.csv?done=a_*", "/in/o_{date:%Y}.csv?done={date:%Y}",
     "s3://bucket/orders.csv?done=read", "s3://bucket/orders_*.csv?done=read&newest=mtime", "s3://bucket/o_*.csv?done=../read"],
)  # fmt: skip
def test_a_folder_that_can_not_be_one_is_refused(template: str) -> None:
    if template.startswith("s3"):
        pytest.importorskip("obstore")
    with pytest.raises(ConfigurationError) as refused:
        check_template(template)
    assert refused.value.hint
