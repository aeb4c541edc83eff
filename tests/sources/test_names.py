"""Names that change: which of a folder's files is the export, and when it is not clear."""

import os
from pathlib import Path
from time import time

import pytest

from archisync.base.errors import ConfigurationError, NoExportError, NotSettledError, SourceError, UsageError
from archisync.sources import Unchanged, check_template, fetch
from archisync.sources.names import MAX_NAMES, Options, split_options
from tests.support.fetching import CONTENT, fetched, request_of


def _folder(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "in" / "agent-1"
    folder.mkdir(parents=True, exist_ok=True)
    for at, name in enumerate(names):
        (folder / name).write_bytes(CONTENT + name.encode() + b",2026-01-03\n")
        os.utime(folder / name, (1_000_000_000 + at, 1_000_000_000 + at))
    return folder


def _newest(tmp_path: Path, name: str) -> str:
    return Path(fetched(request_of(tmp_path, f"{tmp_path}/in/{{agent}}/{name}")).origin).name


@pytest.mark.parametrize(
    ("name", "names", "newest"),
    [
        ("{type}_{date:%Y%m%d}.csv", ["orders_20251231.csv", "orders_20260102.csv", "orders_20260101.csv"], "orders_20260102.csv"),
        ("orders_{date:%d%m%Y}.csv", ["orders_01112025.csv", "orders_31102025.csv"], "orders_01112025.csv"),
        ("orders_{date:%Y%m%d}.csv", ["orders_20251231.csv", "orders_20259999.csv", "orders_2026.csv", "x"], "orders_20251231.csv"),
        ("{date:%Y-%m-%d}_orders_*.csv", ["2025-12-31_orders_9.csv", "2026-01-01_orders_1.csv"], "2026-01-01_orders_1.csv"),
        ("orders_{date:%j}.csv", ["orders_365.csv", "orders_001.csv"], "orders_365.csv"),
        ("orders_*.csv", ["orders_08.csv", "orders_10.csv", "orders_10.csv.tmp", "orders.csv"], "orders_10.csv"),
        ("orders_*.csv", ["orders_20251231.csv", "orders_20260101.csv"], "orders_20260101.csv"),
        ("orders*.csv", ["orders.csv"], "orders.csv"),
        ("orders_*.csv?newest=mtime", ["orders_9.csv", "orders_10.csv", "orders_1.csv"], "orders_1.csv"),
        ("orders_*.csv?newest=mtime&settle=30s", ["orders_9.csv", "orders_10.csv"], "orders_10.csv"),
        ("orders.csv?newest=name", ["orders.csv"], "orders.csv"),
        ("orders.csv?v=1", ["orders.csv?v=1"], "orders.csv?v=1"),
        ("orders_[1].csv", ["orders_[1].csv", "orders_1.csv"], "orders_[1].csv"),
    ],
)  # fmt: skip
def test_the_newest_name_is_the_export(tmp_path: Path, name: str, names: list[str], newest: str) -> None:
    _folder(tmp_path, *names)
    check_template(f"{tmp_path}/in/{{agent}}/{name}")
    assert _newest(tmp_path, name) == newest


@pytest.mark.parametrize(
    ("name", "names", "message"),
    [
        ("orders_*.csv", ["orders_9.csv", "orders_10.csv"],
         "orders_10.csv and orders_9.csv are each the greatest, by letters or by numbers"),
        ("orders_*_{date:%Y}.csv", ["orders_a_2025.csv", "orders_b_2025.csv"],
         "orders_a_2025.csv and orders_b_2025.csv have the same date"),
        ("orders_*.csv", ["orders_31102025.csv", "orders_01112025.csv"],
         "orders_01112025.csv may have a date that begins with the day, so the greatest name is not the newest"),
        ("orders_*.csv", ["orders_31-10-2025 (2).csv"],
         "orders_31-10-2025 (2).csv may have a date that begins with the day, so the greatest name is not the newest"),
    ],
)  # fmt: skip
def test_what_may_be_newer_is_never_guessed(tmp_path: Path, name: str, names: list[str], message: str) -> None:
    _folder(tmp_path, *names)
    with pytest.raises(SourceError) as refused:
        _newest(tmp_path, name)
    assert refused.value.message == message
    assert refused.value.hint.startswith("say ")


def test_two_files_of_the_same_time_are_a_tie(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "orders_1.csv", "orders_2.csv")
    os.utime(folder / "orders_1.csv", (1_000_000_001, 1_000_000_001))
    with pytest.raises(SourceError, match=r"^orders_1.csv and orders_2.csv were written at the same time$") as refused:
        _newest(tmp_path, "orders_*.csv?newest=mtime")
    assert refused.value.hint == "say what is the newest: {date:%Y%m%d} in the name"


@pytest.mark.parametrize("names", [[], ["orders.csv"]])
def test_no_name_that_matches_is_no_export(tmp_path: Path, names: list[str]) -> None:
    _folder(tmp_path, *names)
    with pytest.raises(NoExportError, match=r"^no export orders_\*.csv in "):
        _newest(tmp_path, "{type}_*.csv")
    with pytest.raises(NoExportError, match=r"^no folder "):
        fetch(request_of(tmp_path, f"{tmp_path}/nowhere/orders_*.csv"))


def test_only_so_many_names_are_looked_at(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    for number in range(MAX_NAMES):
        (folder / f"o{number:05}.csv").touch()
    assert _newest(tmp_path, "o*.csv") == "o09999.csv"
    (folder / "one-more").touch()
    with pytest.raises(SourceError) as refused:
        _newest(tmp_path, "o*.csv")
    assert (refused.value.message, refused.value.hint) == (
        f"{folder} has more than 10000 names",
        "move old exports away",
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("*.csv", "the source's file name begins with *, so it may be any file"),
        ("*", "the source's file name begins with *, so it may be any file"),
        ("x*/orders.csv", "the source has a folder with * or {date:…} in its name"),
        ("o_{date:%Y}_{date:%m}.csv", "the source has two dates in its file name"),
        ("o_{date:%B}.csv", "the source has the date '%B'"),
        ("o_{date:}.csv", "the source has the date ''"),
        ("o_*.csv?settle=soon", "the source has the option 'settle=soon'"),
        ("o_*.csv?newest=size", "the source has the option 'newest=size'"),
        ("o_*.csv?newest=mtime&most=1", "the source has the option 'most=1'"),
    ],
)
def test_a_name_that_may_be_anything_is_refused_before_a_worker_starts(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_template(f"/srv/{{agent}}/{name}")
    assert (refused.value.message, bool(refused.value.hint)) == (message, True)


@pytest.mark.parametrize("template", ["https://erp.example/{date:%Y}.csv", "exec:cat {date:%Y}"])
def test_a_source_that_lists_nothing_knows_no_date(template: str) -> None:
    with pytest.raises(ConfigurationError):
        check_template(template)


def test_options_are_only_known_options_at_the_end() -> None:
    assert split_options("/a?newest=mtime/b") == ("/a?newest=mtime/b", Options())
    assert split_options("/a?settle=5s") == ("/a", Options(settle_s=5))


def test_a_young_file_is_not_read_yet(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "orders.csv")
    assert _newest(tmp_path, "orders.csv?settle=30s") == "orders.csv"
    os.utime(folder / "orders.csv")
    with pytest.raises(NotSettledError) as raised:
        _newest(tmp_path, "orders.csv?settle=3600s")
    assert raised.value.message.startswith(f"{folder}/orders.csv was written ")
    assert raised.value.message.endswith(" s ago, and is read when it is 3600 s old")
    ahead = time() + 200
    os.utime(folder / "orders.csv", (ahead, ahead))
    with pytest.raises(NotSettledError, match=r"was written 0 s ago, and is read when it is 30 s old$"):
        _newest(tmp_path, "orders.csv?settle=30s")
    os.utime(folder / "orders.csv", (4_000_000_000, 4_000_000_000))
    assert _newest(tmp_path, "orders.csv?settle=30s") == "orders.csv", "a wrong clock holds nothing back for ever"


def test_an_unchanged_newest_file_is_not_copied_and_a_new_name_is(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "orders_1.csv")
    template = f"{tmp_path}/in/{{agent}}/orders_*.csv"
    validators = fetched(request_of(tmp_path, template)).validators
    assert fetch(request_of(tmp_path, template, validators=validators)) == Unchanged(origin=f"{folder}/orders_1.csv")
    (folder / "orders_2.csv").write_bytes((folder / "orders_1.csv").read_bytes())
    assert fetched(request_of(tmp_path, template, validators=validators)).origin == f"{folder}/orders_2.csv"


def test_an_agent_id_is_never_a_pattern(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        fetch(request_of(tmp_path, f"{tmp_path}/{{agent}}_*.csv", agent_id="*"))
