"""SFTP: a real sshd, host keys, keys, names that change, files that change while they are read, and connections that break."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    ExportError,
    NoExportError,
    NotSettledError,
    SourceError,
    SyncError,
    TransientSourceError,
    TruncatedError,
)
from archisync.sources import Request, Unchanged, check_template, fetch
from archisync.sources.conformance import SourceConformance
from archisync.sources.interface import Source
from archisync.sources.sftp import SftpSource
from tests.support.fetching import CONTENT, fetched, refused, request_of
from tests.support.proxy import Proxy
from tests.support.sshd import PASSPHRASE, SFTP_SERVER, Sshd, keygen, needs_sftp_server, needs_sshd, running_sshd

OLD = (1_000_000_000, 1_000_000_000)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "agent-1"
    path.mkdir(parents=True)
    return path


def _place(folder: Path, content: bytes = CONTENT, name: str = "orders.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    os.utime(path, OLD)
    return path


def _request(
    tmp_path: Path,
    sshd: Sshd,
    name: str = "{type}.csv",
    *,
    port: int | None = None,
    config: Path | None = None,
    password: str = "",
) -> Request:
    return request_of(
        tmp_path,
        f"sftp://127.0.0.1:{port or sshd.port}{tmp_path}/out/{{agent}}/{name}",
        ARCHISYNC_SFTP_CONFIG=str(config or sshd.config_file),
        ARCHISYNC_SFTP_PASSWORD=password,
    )


@needs_sshd
class TestSftpSource(SourceConformance):
    supports_unchanged = True
    server: Sshd
    folder: Path
    moment = 1_000_000_000

    @pytest.fixture(autouse=True)
    def _server(self, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.server = sshd
        self.folder = tmp_path_factory.mktemp("exports")

    def source(self) -> Source:
        return SftpSource()

    def template(self) -> str:
        return f"sftp://127.0.0.1:{self.server.port}{self.folder}/{{agent}}.{{type}}.csv"

    def variables(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "ARCHISYNC_SFTP_CONFIG": str(self.server.config_file),
            "ARCHISYNC_SFTP_PASSWORD": PASSPHRASE,
        }

    def secrets(self) -> Iterable[str]:
        return [PASSPHRASE]

    def place(self, agent_id: str, sync_type: str, content: bytes) -> None:
        path = self.folder / f"{agent_id}.{sync_type}.csv"
        path.write_bytes(content)
        self.moment += 1
        os.utime(path, (self.moment, self.moment))

    def remove(self, agent_id: str, sync_type: str) -> None:
        (self.folder / f"{agent_id}.{sync_type}.csv").unlink()


# --- logging in ---------------------------------------------------------------------------------------------------


@needs_sshd
def test_a_host_key_that_is_not_known_is_refused_with_the_line_to_add(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    _place(folder)
    (sshd.folder / "known_hosts").write_text("")
    try:
        error = refused(_request(tmp_path, sshd))
        assert type(error) is SourceError
        assert error.message.startswith(f"sftp://127.0.0.1:{sshd.port} has a host key that is not known: SHA256:")
        hint, _, line = error.hint.partition(": echo ")
        assert hint == "if that is the fingerprint that its operator names"
        (sshd.folder / "known_hosts").write_text(line.removesuffix(" >> ~/.ssh/known_hosts").strip("'") + "\n")
        assert fetched(_request(tmp_path, sshd)).path.read_bytes() == CONTENT
    finally:
        sshd.write_known_hosts(sshd.folder / "host")


@needs_sshd
def test_a_changed_host_key_is_refused(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    _place(folder)
    sshd.write_known_hosts(keygen(tmp_path / "other"))
    try:
        error = refused(_request(tmp_path, sshd))
    finally:
        sshd.write_known_hosts(sshd.folder / "host")
    assert type(error) is SourceError
    assert error.message.startswith(f"sftp://127.0.0.1:{sshd.port} has another host key than before (SHA256:")
    assert error.hint.endswith(f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'")


@needs_sshd
def test_a_wrong_key_is_a_refused_login(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    _place(folder)
    config = tmp_path / "config"
    config.write_text(sshd.config_file.read_text().replace(f"{sshd.folder}/key", str(keygen(tmp_path / "stranger"))))
    error = refused(_request(tmp_path, sshd, config=config))
    assert type(error) is AuthenticationError
    assert error.message.startswith(f"sftp://127.0.0.1:{sshd.port} does not let us in: ")
    assert "Permission denied" in error.message
    assert error.hint == f"try it as archisync's account: sftp -P {sshd.port} 127.0.0.1"


@needs_sshd
def test_the_password_opens_a_locked_key_and_is_never_shown(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    _place(folder)
    config = tmp_path / "config"
    config.write_text(sshd.config_file.read_text().replace(f"{sshd.folder}/key", f"{sshd.folder}/locked"))
    assert type(refused(_request(tmp_path, sshd, config=config))) is AuthenticationError
    wrong = refused(_request(tmp_path, sshd, config=config, password="wrong-wrong"))
    assert (type(wrong), "wrong-wrong" in wrong.message + wrong.hint) == (AuthenticationError, False)
    export = fetched(_request(tmp_path, sshd, config=config, password=PASSPHRASE))
    assert list((tmp_path / "spool").iterdir()) == [export.path]


def test_a_machine_without_ssh_is_told_what_to_install(tmp_path: Path) -> None:
    request = request_of(tmp_path, "sftp://files.example/x.csv", PATH=str(tmp_path))
    with pytest.raises(ConfigurationError) as raised:
        fetch(request)
    assert (raised.value.message, raised.value.hint) == (
        "an sftp:// source needs OpenSSH's ssh", "apt-get install openssh-client",
    )  # fmt: skip


@needs_sshd
def test_a_server_that_is_away_is_tried_again(tmp_path: Path, sshd: Sshd) -> None:
    error = refused(_request(tmp_path, sshd, port=1))
    assert (type(error), "Connection refused" in error.message) == (TransientSourceError, True)
    assert error.hint == "sftp -P 1 127.0.0.1"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("sftp://files.example", "the source is no sftp:// address with a host and a path"),
        ("sftp:/x", "the source is no sftp:// address with a host and a path"),
        ("sftp://erp:canary@files.example/x", "the source's address has a password in it"),
        ("sftp://-oProxyCommand=id/x", "the source's address has a host or user that can't be one"),
        ("sftp://-l@files.example/x", "the source's address has a host or user that can't be one"),
        ("sftp://{agent}.example/x", "the source's address has a host or user that can't be one"),
        ("sftp://files.example/*.csv", "the source's file name begins with *, so it may be any file"),
    ],
)
def test_an_address_that_can_not_work_is_refused_before_a_worker_starts(template: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_template(template)
    assert (refused.value.message, "canary" in refused.value.hint) == (message, False)


# --- finding the file ---------------------------------------------------------------------------------------------


@needs_sshd
def test_the_newest_name_is_found_and_an_unchanged_file_is_not_read(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    for day in ("30", "31"):
        _place(folder, CONTENT + day.encode(), f"orders_202512{day}.csv")
    (folder / "orders_20260101.csv").mkdir()
    request = _request(tmp_path, sshd, "{type}_{date:%Y%m%d}.csv")
    export = fetched(request)
    assert export.origin == f"sftp://127.0.0.1:{sshd.port}{folder}/orders_20251231.csv"
    assert (export.suffix, set(export.validators)) == (".csv", {"sftp", "bytes", "modified"})
    template = "{type}_{date:%Y%m%d}.csv"
    again = _request(tmp_path, sshd, template)
    assert fetch(_with(again, export.validators)) == Unchanged(origin=export.origin)
    os.utime(folder / "orders_20251231.csv", (1_000_000_001, 1_000_000_001))
    assert fetched(_with(again, export.validators)).sha256 == export.sha256


@needs_sshd
def test_a_path_may_begin_where_the_login_does(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    _place(folder)
    relative = os.path.relpath(folder, Path("~").expanduser())
    for name in ("orders.csv", "orders*.csv"):
        request = request_of(
            tmp_path,
            f"sftp://127.0.0.1:{sshd.port}/~/{relative}/{name}",
            ARCHISYNC_SFTP_CONFIG=str(sshd.config_file),
        )
        assert fetched(request).origin == f"sftp://127.0.0.1:{sshd.port}/~/{relative}/orders.csv"


def _with(request: Request, validators: Mapping[str, str]) -> Request:
    from dataclasses import replace

    return replace(request, validators=validators)


@needs_sshd
def test_a_young_file_has_no_validators_and_may_be_left_to_a_later_run(
    tmp_path: Path, folder: Path, sshd: Sshd
) -> None:
    (folder / "orders.csv").write_bytes(CONTENT)
    assert fetched(_request(tmp_path, sshd)).validators == {}
    with pytest.raises(NotSettledError):
        fetch(_request(tmp_path, sshd, "orders.csv?settle=3600s"))


@needs_sshd
def test_what_is_not_there_or_not_allowed_is_named(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    shown = f"sftp://127.0.0.1:{sshd.port}{folder}"
    error = refused(_request(tmp_path, sshd))
    assert (type(error), error.message) == (NoExportError, f"no export at {shown}/orders.csv")
    error = refused(_request(tmp_path, sshd, "none_*.csv"))
    assert (type(error), error.message) == (NoExportError, f"no export none_*.csv in {shown}")
    (folder / "orders.csv").mkdir()
    error = refused(_request(tmp_path, sshd))
    assert error.message == f"{shown}/orders.csv is a folder or device, not a regular file"


@needs_sshd
def test_more_names_than_may_be_listed_are_refused(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    for number in range(10_001):
        (folder / f"o{number:05}.csv").touch()
    error = refused(_request(tmp_path, sshd, "o*.csv"))
    assert error.message.endswith(" has more than 10000 names")


@needs_sshd
def test_a_connection_that_is_cut_at_any_tenth_is_tried_again(tmp_path: Path, folder: Path, sshd: Sshd) -> None:
    content = os.urandom(400_000)
    _place(folder, content)
    with Proxy("127.0.0.1", sshd.port) as proxy:
        sshd.write_known_hosts(sshd.folder / "host", proxy.port)
        try:
            request = _request(tmp_path, sshd, port=proxy.port)
            assert fetched(request).path.read_bytes() == content
            whole, failed = proxy.sent, 0
            for tenth in range(1, 10):
                proxy.reset_after(whole * tenth // 10)
                try:
                    assert fetched(request).path.read_bytes() == content
                except TransientSourceError:
                    failed += 1
                proxy.resume()
            assert failed
        finally:
            sshd.write_known_hosts(sshd.folder / "host")


# --- a server with faults: the real sftp-server behind a program that is called ssh -----------------------------------

FAULTY = """#!/usr/bin/python3
import os, subprocess, sys, threading
server = subprocess.Popen([{server!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def requests():
    while block := os.read(0, 65536):
        server.stdin.write(block)
        server.stdin.flush()
    server.stdin.close()
threading.Thread(target=requests, daemon=True).start()
sent, limit, done = 0, {after}, False
while block := os.read(server.stdout.fileno(), 4096):
    if not done and sent + len(block) > limit:
        done = True
        {fault}
    os.write(1, block)
    sent += len(block)
"""


def _faulty(tmp_path: Path, fault: str, after: int = 100_000) -> dict[str, Any]:
    (tmp_path / "bin").mkdir(exist_ok=True)
    program = tmp_path / "bin" / "ssh"
    program.write_text(FAULTY.format(server=str(SFTP_SERVER), fault=fault, after=after))
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def _refused_by_faulty(tmp_path: Path, folder: Path, fault: str, content: bytes, after: int = 100_000) -> SyncError:
    path = _place(folder, content)
    variables = _faulty(tmp_path, fault.format(path=str(path)), after)
    return refused(request_of(tmp_path, f"sftp://files.example{folder}/{{type}}.csv", max_bytes=10**8, **variables))


@needs_sftp_server
@pytest.mark.parametrize(
    "fault",
    [
        "open({path!r}, 'ab').write(b'more')",
        "os.truncate({path!r}, 200000)",
        "os.truncate({path!r}, 0)",
        "open({path!r}, 'r+b').write(b'other')",
    ],
)
def test_a_file_that_changes_while_it_is_read_is_tried_again(tmp_path: Path, folder: Path, fault: str) -> None:
    error = _refused_by_faulty(tmp_path, folder, fault, os.urandom(6_000_000))
    assert type(error) is TransientSourceError
    assert error.message == f"sftp://files.example{folder}/orders.csv changed while it was read"


@needs_sftp_server
def test_a_file_that_ends_at_any_tenth_is_never_an_export(tmp_path: Path, folder: Path) -> None:
    content = os.urandom(1_000_000)
    for tenth in range(10):
        error = _refused_by_faulty(tmp_path, folder, "os._exit(255)", content, after=len(content) * tenth // 10)
        assert error.message == "sftp://files.example: the connection failed: no word why"


@needs_sftp_server
def test_a_file_that_is_replaced_while_it_is_read_is_the_old_one(tmp_path: Path, folder: Path) -> None:
    content = os.urandom(6_000_000)
    path = _place(folder, content)
    (folder / "new").write_bytes(b"new")
    variables = _faulty(tmp_path, f"os.rename({str(folder / 'new')!r}, {str(path)!r})")
    request = request_of(tmp_path, f"sftp://files.example{folder}/{{type}}.csv", max_bytes=10**8, **variables)
    assert fetched(request).path.read_bytes() == content


@needs_sftp_server
@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("print('Welcome to the ERP!', flush=True)", SourceError, "sftp://files.example: it does not speak SFTP"),
        ("os._exit(255)", TransientSourceError, "sftp://files.example: the connection failed: no word why"),
        ("sys.stderr.write('Connection reset\\n'); os._exit(255)", TransientSourceError,
         "sftp://files.example: the connection failed: Connection reset"),
        ("sys.stderr.write('subsystem request failed on channel 0\\n'); os._exit(255)", SourceError,
         "sftp://files.example has no SFTP: subsystem request failed on channel 0"),
        ("block = b'\\xff' * 200", SourceError, "sftp://files.example: it does not speak SFTP"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_speak_sftp_is_named(
    tmp_path: Path, folder: Path, fault: str, kind: type[SyncError], message: str
) -> None:
    error = _refused_by_faulty(tmp_path, folder, fault, CONTENT, after=0)
    assert (type(error), error.message) == (kind, message)


@needs_sftp_server
def test_a_silent_server_is_left_when_the_time_is_over(tmp_path: Path, folder: Path) -> None:
    path = _place(folder)
    variables = _faulty(tmp_path, "import time; time.sleep(600)", after=0) | {"ARCHISYNC_FETCH_TIMEOUT_S": "1"}
    started = time.monotonic()
    error = refused(request_of(tmp_path, f"sftp://files.example{path.parent}/{{type}}.csv", **variables))
    assert (type(error), error.message) == (
        TransientSourceError, "sftp://files.example did not send the export within 1 s",
    )  # fmt: skip
    assert time.monotonic() - started < 30


@needs_sftp_server
@pytest.mark.parametrize(("content", "kind"), [(bytes(2_000), ExportError), (b"\x1f\x8b" + bytes(500), TruncatedError)])
def test_a_large_or_damaged_file_is_refused(
    tmp_path: Path, folder: Path, content: bytes, kind: Callable[..., SyncError]
) -> None:
    _place(folder, content)
    request = request_of(
        tmp_path, f"sftp://files.example{folder}/{{type}}.csv", max_bytes=1_000, **_faulty(tmp_path, "pass")
    )
    assert type(refused(request)) is kind
