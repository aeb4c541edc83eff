"""Zip archives and zstd: the one export in them, and what is refused."""

import gzip
import io
import os
import stat
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from archisync.base.errors import ConfigurationError, ExportError, NoExportError, SyncError, TruncatedError
from archisync.sources.archive import MAX_NAMES, split_member
from tests.support.fetching import CONTENT, fetched, refused, request_of

ZIP_HINT = "say which one: archive.zip#orders_*.csv at the end of ARCHISYNC_SOURCE"


def _zip(path: Path, *members: tuple[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("members", "pattern", "suffix"),
    [
        ([("orders.csv", CONTENT)], "", ".csv"),
        ([("out/2026/ORDERS.CSV", CONTENT)], "", ".csv"),
        ([("../../etc/passwd", CONTENT)], "", ""),
        (
            [("__MACOSX/._orders.csv", b"x"), ("out/", b""), (".DS_Store", b"x"), ("orders.jsonl", CONTENT)],
            "",
            ".jsonl",
        ),
        ([("orders.csv", CONTENT), ("ddt.csv", b"x")], "#{type}.csv", ".csv"),
        ([("a/orders_20260101.csv", CONTENT), ("a/ddt_20260101.csv", b"x")], "#{type}_*.csv", ".csv"),
        ([("agent-1-orders.csv", CONTENT), ("agent-2-orders.csv", b"x")], "#{agent}-*", ".csv"),
        ([("orders.csv", CONTENT), ("ddt.csv", b"x")], "#orders*?settle=1s", ".csv"),
    ],
)
def test_the_one_file_that_matches_is_the_export(
    tmp_path: Path, members: list[tuple[str, bytes]], pattern: str, suffix: str
) -> None:
    path = _zip(tmp_path / "orders.zip", *members)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    request = request_of(tmp_path, f"{tmp_path}/{{type}}.zip{pattern}")
    export = fetched(request)
    assert (export.path.read_bytes(), export.suffix, export.origin) == (CONTENT, suffix, str(path))
    assert list(request.spool_dir.iterdir()) == [export.path]
    assert stat.S_IMODE(export.path.stat().st_mode) == 0o600


def test_an_archive_is_found_by_its_content_and_may_hold_gzip(tmp_path: Path) -> None:
    import gzip

    _zip(tmp_path / "orders.csv", ("orders.csv.gz", gzip.compress(CONTENT)))
    export = fetched(request_of(tmp_path, f"{tmp_path}/{{type}}.csv"))
    assert (export.path.read_bytes(), export.suffix) == (CONTENT, ".csv")


def test_a_workbook_stays_one(tmp_path: Path) -> None:
    path = _zip(tmp_path / "orders.xlsx", ("[Content_Types].xml", b"x"), ("xl/workbook.xml", b"x"))
    assert fetched(request_of(tmp_path, f"{tmp_path}/{{type}}.xlsx")).path.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("members", "pattern", "kind", "message", "hint"),
    [
        ([("a.csv", b"1"), ("b.csv", b"2")], "", ExportError, "{path} has 2 files in it: a.csv, b.csv", ZIP_HINT),
        ([("a.csv", b"1"), ("ab.csv", b"2"), ("c", b"")], "#a*", ExportError, "{path} has 2 files in it: a.csv, ab.csv", ZIP_HINT),
        ([("a.csv", b"1")], "#b*", NoExportError, "{path} has no file b* in it, but a.csv", "correct what follows #"),
        ([("a/", b"")], "", NoExportError, "{path} is an empty archive", "look whether the ERP's export job ran to its end"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], pattern: str, kind: type[SyncError], message: str, hint: str
) -> None:
    path = _zip(tmp_path / "orders.zip", *members)
    error = refused(request_of(tmp_path, f"{tmp_path}/{{type}}.zip{pattern}"))
    assert (type(error), error.message, error.hint) == (kind, message.format(path=path), hint)


def test_too_many_names_are_refused(tmp_path: Path) -> None:
    _zip(tmp_path / "orders.zip", *((f"{number}", b"") for number in range(MAX_NAMES + 1)))
    assert refused(request_of(tmp_path, f"{tmp_path}/{{type}}.zip")).message.endswith("has more than 10000 files in it")


def test_an_archive_with_a_password_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "orders.zip", ("orders.csv", CONTENT))
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(magic) + place
        content[at : at + 2] = struct.pack("<H", 1)
    path.write_bytes(content)
    error = refused(request_of(tmp_path, f"{tmp_path}/{{type}}.zip"))
    assert error.message == f"{path}: orders.csv is protected by a password"


def test_an_unknown_method_of_packing_is_named(tmp_path: Path) -> None:
    path = _zip(tmp_path / "orders.zip", ("orders.csv", CONTENT))
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.index(magic) + place
        content[at : at + 2] = struct.pack("<H", 9)  # Deflate64, as Windows writes it above 2 GiB
    path.write_bytes(content)
    error = refused(request_of(tmp_path, f"{tmp_path}/{{type}}.zip"))
    assert (type(error), "is packed in a way that can't be read" in error.message) == (ExportError, True)


def test_a_bomb_is_stopped_and_so_is_a_large_file(tmp_path: Path) -> None:
    _zip(tmp_path / "orders.zip", ("orders.csv", bytes(300 << 20)))
    error = refused(request_of(tmp_path, f"{tmp_path}/{{type}}.zip", max_bytes=1 << 30))
    assert error.message.endswith("200 times its size")
    error = refused(request_of(tmp_path, f"{tmp_path}/{{type}}.zip", max_bytes=1 << 20))
    assert error.message.endswith("has more than 1048576 bytes (decompressed)")


def test_a_cut_or_damaged_archive_is_truncated(tmp_path: Path) -> None:
    path = _zip(tmp_path / "orders.zip", ("orders.csv", os.urandom(5_000)))
    whole = path.read_bytes()
    for place in range(4, len(whole), len(whole) // 10):
        path.write_bytes(whole[:place])
        assert type(refused(request_of(tmp_path, f"{tmp_path}/{{type}}.zip"))) is TruncatedError
    path.write_bytes(whole[:1000] + bytes(8) + whole[1008:])
    assert "Bad CRC" in refused(request_of(tmp_path, f"{tmp_path}/{{type}}.zip")).message


def test_the_pattern_stands_at_the_end_of_a_zip_only() -> None:
    assert split_member("/a#b/c.zip#d_*.csv?settle=1s") == ("/a#b/c.zip?settle=1s", "d_*.csv")
    assert split_member("/a#b.csv") == ("/a#b.csv", "")


def _zstd(content: bytes) -> bytes:
    zstd = pytest.importorskip("backports.zstd")
    packed = zstd.compress(content)
    assert isinstance(packed, bytes)
    return packed


@pytest.mark.parametrize("more", [b"\n", b"rubbish"])
@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("way", ["path", "exec"])
def test_other_bytes_behind_packed_data_are_named(tmp_path: Path, way: str, packing: str, more: bytes) -> None:
    packed = gzip.compress(CONTENT) if packing == "gzip" else _zstd(CONTENT)
    (tmp_path / "orders.csv").write_bytes(packed + more)
    template = f"{tmp_path}/{{type}}.csv" if way == "path" else f"exec:cat {tmp_path}/{{type}}.csv"
    error = refused(request_of(tmp_path, template))
    assert (type(error), f"has other bytes after the end of its {packing} data" in error.message) == (
        ExportError,
        True,
    ), error


@pytest.mark.parametrize("name", ["orders.csv", "orders.csv.zst"])
def test_zstd_is_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(_zstd(CONTENT) + _zstd(CONTENT))
    export = fetched(request_of(tmp_path, f"{tmp_path}/{name}"))
    assert (export.path.read_bytes(), export.suffix) == (CONTENT * 2, ".csv")


def test_cut_damaged_and_endless_zstd_is_refused(tmp_path: Path) -> None:
    packed = _zstd(os.urandom(5_000))
    path = tmp_path / "orders.csv"
    for place in range(5, len(packed), len(packed) // 10):
        path.write_bytes(packed[:place])
        error = refused(request_of(tmp_path, str(path)))
        assert (type(error), "the zstd data is truncated or damaged" in error.message) == (TruncatedError, True)
    path.write_bytes(_zstd(bytes(300 << 20)))
    assert refused(request_of(tmp_path, str(path), max_bytes=1 << 30)).message.endswith("200 times its size")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has it in its standard library")
def test_zstd_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backports", None)
    (tmp_path / "orders.csv").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(ConfigurationError) as raised:
        fetched(request_of(tmp_path, f"{tmp_path}/orders.csv"))
    assert raised.value.hint == "pip install 'archisync[zstd]'"


def test_an_archive_in_an_archive_is_left_packed(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("orders.csv", CONTENT)
    _zip(tmp_path / "orders.zip", ("inner.zip", inner.getvalue()))
    export = fetched(request_of(tmp_path, f"{tmp_path}/orders.zip"))
    assert (export.path.read_bytes(), export.suffix) == (inner.getvalue(), ".zip")
