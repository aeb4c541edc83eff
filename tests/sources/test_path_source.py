"""The file source: templates, what may be opened, gzip, limits, files that change."""

import errno
import gzip
import hashlib
import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from archisync.base.errors import ConfigurationError, ExportError, SourceError, TransientSourceError, UsageError
from archisync.sources import Export, Request, check_template, source_for
from archisync.sources.path import PathSource, _refusal
from tests.support.fetching import CONTENT, fetched, request_of

AS_ROOT = os.geteuid() == 0


def _request(tmp_path: Path, template: str | None = None, agent_id: str = "agent-1", max_bytes: int = 10**6) -> Request:
    usual = f"{tmp_path}/in/{{agent}}/{{type}}.csv"
    return request_of(tmp_path, usual if template is None else template, agent_id=agent_id, max_bytes=max_bytes)


def _place(tmp_path: Path, content: bytes = CONTENT, name: str = "orders.csv") -> Path:
    path = tmp_path / "in" / "agent-1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _spooled(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "spool").iterdir())


def _assert_is_copy(export: Export, content: bytes = CONTENT) -> None:
    assert export.path.read_bytes() == content
    assert export.size_bytes == len(content)
    assert export.sha256 == hashlib.sha256(content).hexdigest()


def test_export_is_copied_privately_and_hashed(tmp_path: Path) -> None:
    path = _place(tmp_path)
    export = fetched(_request(tmp_path))
    _assert_is_copy(export)
    assert (export.origin, export.suffix) == (str(path), ".csv")
    assert export.path.parent == tmp_path / "spool"
    assert stat.S_IMODE(export.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("scheme", ["file://", "FILE://", "file:", "file://localhost"])
def test_file_address_is_read(tmp_path: Path, scheme: str) -> None:
    _place(tmp_path)
    _assert_is_copy(fetched(_request(tmp_path, f"{scheme}{tmp_path}/in/{{agent}}/{{type}}%2Ecsv")))


def test_relative_path_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _place(tmp_path)
    monkeypatch.chdir(tmp_path)
    _assert_is_copy(fetched(_request(tmp_path, "in/{agent}/{type}.csv")))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "the source is empty"),
        ("/x/{agent", "the source has a lone '{'"),
        ("/x/agent}", "the source has a lone '}'"),
        ("/x/{{agent}}", "the source has a lone '{'"),
        ("/x/{Agent}", "the source has the unknown placeholder '{Agent}'"),
        ("/x/{agent!r}", "the source has the unknown placeholder '{agent!r}'"),
        ("/x/{}", "the source has the unknown placeholder '{}'"),
        ("/x\0", "the source has a NUL character"),
    ],
)
def test_malformed_template_is_a_configuration_error(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_template(template)
    assert refused.value.message == message
    assert refused.value.hint.startswith("the placeholders are {agent} and {type}")
    with pytest.raises(ConfigurationError):
        fetched(_request(tmp_path, template))


@pytest.mark.parametrize("scheme", ["xyz", "s3+x"])
def test_other_schemes_are_refused_without_showing_the_address(scheme: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        source_for(f"{scheme}://user:secret@host/{{agent}}")
    assert refused.value.message == f"no source reads the scheme {scheme}:"
    assert "secret" not in refused.value.message + refused.value.hint


def test_file_address_of_another_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another host"):
        fetched(_request(tmp_path, "file://server/exports/{agent}.csv"))


def test_colon_after_a_slash_makes_no_scheme() -> None:
    assert isinstance(source_for("./a:b.csv"), PathSource)


@pytest.mark.parametrize("agent_id", ["../../etc/passwd", "a/b", ""])
def test_agent_id_can_not_leave_its_directory(tmp_path: Path, agent_id: str) -> None:
    with pytest.raises(UsageError):
        fetched(_request(tmp_path, agent_id=agent_id))


def test_missing_export_is_an_error_with_both_paths_that_were_tried(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        fetched(_request(tmp_path))
    assert refused.value.message == f"no export at {tmp_path}/in/agent-1/orders.csv, nor at orders.csv.gz beside it"
    assert refused.value.hint == "check the path in ARCHISYNC_SOURCE, and that the ERP has written the export"


def test_file_in_place_of_a_directory_is_a_missing_export(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    with pytest.raises(SourceError, match="a part of the path is not a directory"):
        fetched(_request(tmp_path))


def test_gzipped_export_beside_the_path_is_read(tmp_path: Path) -> None:
    path = _place(tmp_path, gzip.compress(CONTENT), "orders.csv.gz")
    export = fetched(_request(tmp_path))
    _assert_is_copy(export)
    assert (export.origin, export.suffix) == (str(path), ".csv")


def test_gzip_is_recognised_by_content_and_not_by_name(tmp_path: Path) -> None:
    _place(tmp_path, gzip.compress(CONTENT))
    _assert_is_copy(fetched(_request(tmp_path)))
    _place(tmp_path, CONTENT, "orders.csv.gz")
    _assert_is_copy(fetched(_request(tmp_path, f"{tmp_path}/in/{{agent}}/{{type}}.csv.gz")))


def test_gzip_members_are_joined(tmp_path: Path) -> None:
    _place(tmp_path, gzip.compress(CONTENT) + gzip.compress(CONTENT))
    _assert_is_copy(fetched(_request(tmp_path)), CONTENT * 2)


def test_gzip_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    for length in range(2, len(packed)):
        _place(tmp_path, packed[:length])
        with pytest.raises(ExportError, match="the gzip data is truncated or damaged"):
            fetched(_request(tmp_path))
    assert _spooled(tmp_path) == []


def test_damaged_gzip_is_an_export_error(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(CONTENT))
    packed[-6] ^= 0xFF  # the checksum
    _place(tmp_path, bytes(packed))
    with pytest.raises(ExportError, match="truncated or damaged"):
        fetched(_request(tmp_path))


@pytest.mark.parametrize("packed", [False, True])
def test_export_above_the_limit_is_refused_and_leaves_no_file(tmp_path: Path, packed: bool) -> None:
    content = bytes(50 * 1024 * 1024)
    _place(tmp_path, gzip.compress(content, 1) if packed else content)
    with pytest.raises(ExportError) as refused:
        fetched(_request(tmp_path, max_bytes=1_000_000))
    assert refused.value.message.endswith("orders.csv has more than 1000000 bytes (decompressed)")
    assert _spooled(tmp_path) == []


def test_export_of_the_largest_size_is_read(tmp_path: Path) -> None:
    _place(tmp_path)
    _assert_is_copy(fetched(_request(tmp_path, max_bytes=len(CONTENT))))


def test_empty_file_is_fetched(tmp_path: Path) -> None:
    _place(tmp_path, b"")
    _assert_is_copy(fetched(_request(tmp_path)), b"")


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    path = _place(tmp_path, name="other.csv")
    path.with_name("orders.csv").symlink_to(path)
    with pytest.raises(SourceError, match=r"orders\.csv is a symbolic link, which is not followed"):
        fetched(_request(tmp_path))


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    path = _place(tmp_path, name="other.csv").with_name("orders.csv")
    os.mkfifo(path)
    with pytest.raises(SourceError, match=r"orders\.csv is a FIFO, not a regular file"):
        fetched(_request(tmp_path))


def test_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "agent-1" / "orders.csv").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"orders\.csv is a directory, not a regular file"):
        fetched(_request(tmp_path))


def test_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="/dev/zero is a device, not a regular file"):
        fetched(_request(tmp_path, "/dev/zero"))


def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("orders.csv")
        with pytest.raises(SourceError, match="is a socket or device, not a regular file"):
            fetched(_request(tmp_path, "orders.csv"))


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_unreadable_file_is_a_source_error(tmp_path: Path) -> None:
    _place(tmp_path).chmod(0)
    with pytest.raises(SourceError, match="no permission to read"):
        fetched(_request(tmp_path))


@pytest.mark.parametrize(
    ("name", "error_class"),
    [("EACCES", SourceError), ("EPERM", SourceError), ("ELOOP", SourceError), ("ENAMETOOLONG", SourceError)]
    + [(name, TransientSourceError) for name in ("EIO", "ESTALE", "ETIMEDOUT", "EMFILE", "EAGAIN", "EHOSTDOWN")],
)
def test_every_system_error_has_its_reaction(name: str, error_class: type[Exception]) -> None:
    code: int = getattr(errno, name)
    assert type(_refusal(OSError(code, os.strerror(code)), Path("/x/y"))) is error_class


def test_missing_spool_directory_is_transient_and_no_fault_of_the_export(tmp_path: Path) -> None:
    _place(tmp_path)
    request = _request(tmp_path)
    request.spool_dir.rmdir()
    with pytest.raises(TransientSourceError, match="cannot write to the spool directory"):
        fetched(request)


class _Meddling(os.PathLike[str]):
    """A spool directory that changes the export at the moment when the file of the copy is made."""

    def __init__(self, spool: Path, export: Path, content: bytes) -> None:
        self.spool, self.export, self.content = spool, export, content

    def __fspath__(self) -> str:
        self.export.write_bytes(self.content)
        return str(self.spool)


@pytest.mark.parametrize(
    "changed",
    [CONTENT + b"2,2026-01-03\n", CONTENT[:-5], b"", gzip.compress(CONTENT)],
    ids=["longer", "shorter", "emptied", "packed"],
)
@pytest.mark.parametrize("before", [CONTENT, gzip.compress(CONTENT * 2)], ids=["plain", "packed"])
def test_file_that_changes_while_it_is_read_is_transient(tmp_path: Path, before: bytes, changed: bytes) -> None:
    path = _place(tmp_path, before)
    request = _request(tmp_path)
    meddling: object = _Meddling(request.spool_dir, path, changed)
    with pytest.raises(TransientSourceError) as refused:
        fetched(replace(request, spool_dir=meddling))  # type: ignore[arg-type]
    assert refused.value.message == f"{path} changed while it was read"
    assert _spooled(tmp_path) == []
