"""SFTP servers as people run them: certificates, jump hosts, a chroot, a server that lets few in at once; and a full disk here."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archisync.base.errors import AuthenticationError, NoExportError, SourceError, TransientSourceError
from archisync.sources import Request
from tests.support.fetching import CONTENT, fetched, refused, request_of
from tests.support.sshd import Sshd, keygen, needs_sshd, running_sshd

pytestmark = needs_sshd
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="sshd changes its root only when it runs as root")
AGENTS, WORKERS = 60, 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    (path / "orders.csv").write_bytes(CONTENT)
    return path


def _server(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def _config(tmp_path: Path, server: Sshd, **changes: str) -> Path:
    """The client's configuration with other lines; one that is empty is left out."""
    lines = dict(line.split(" ", 1) for line in server.config_file.read_text().splitlines()) | changes
    path = tmp_path / "client_config"
    path.write_text("".join(f"{name} {value}\n" for name, value in lines.items() if value))
    return path


def _request(tmp_path: Path, server: Sshd, path: Path | str, config: Path | None = None) -> Request:
    template = f"sftp://127.0.0.1:{server.port}{path}"
    return request_of(tmp_path, template, ARCHISYNC_SFTP_CONFIG=str(config or server.config_file))


def _sign(authority: Path, key: Path, *options: str) -> None:
    public = key.with_suffix(".pub")
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", *options, str(public)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


# --- certificates -------------------------------------------------------------------------------------------------


@pytest.fixture
def user() -> str:
    return subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()


def test_a_certificate_lets_us_in_and_one_that_has_expired_does_not(tmp_path: Path, folder: Path, user: str) -> None:
    authority, key = keygen(tmp_path / "authority"), keygen(tmp_path / "mine")
    with running_sshd(_server(tmp_path, "sshd"), [f"TrustedUserCAKeys {authority}.pub"]) as server:
        config = _config(tmp_path, server, IdentityFile=str(key))
        request = _request(tmp_path, server, folder / "orders.csv", config)
        assert type(refused(request)) is AuthenticationError
        _sign(authority, key, "-n", user, "-V", "20200101:20200201")
        expired = refused(request)
        assert (type(expired), "Permission denied" in expired.message) == (AuthenticationError, True)
        _sign(authority, key, "-n", user, "-V", "-1m:+1h")
        assert fetched(request).path.read_bytes() == CONTENT


def test_a_host_certificate_makes_the_host_known(tmp_path: Path, folder: Path) -> None:
    authority = keygen(tmp_path / "authority")
    where = _server(tmp_path, "sshd")
    with running_sshd(where) as server:
        known = where / "known_hosts"
        known.write_text(f"@cert-authority [127.0.0.1]:{server.port} {authority.with_suffix('.pub').read_text()}")
        request = _request(tmp_path, server, folder / "orders.csv")
        assert "has a host key that is not known" in refused(request).message
    _sign(authority, where / "host", "-h", "-n", "127.0.0.1")
    again = tmp_path / "again"
    again.mkdir()
    for name in ("host", "host.pub", "host-cert.pub"):
        shutil.copy(where / name, again / name)
    with running_sshd(again, [f"HostCertificate {again}/host-cert.pub"], host_key=again / "host") as server:
        line = f"@cert-authority [127.0.0.1]:{server.port} {authority.with_suffix('.pub').read_text()}"
        (again / "known_hosts").write_text(line)
        assert fetched(_request(tmp_path, server, folder / "orders.csv")).path.read_bytes() == CONTENT


# --- jump hosts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Sshd, Sshd]]:
    """The server with the exports, and one on the way to it that the same key opens."""
    with running_sshd(_server(tmp_path, "files")) as files, running_sshd(_server(tmp_path, "jump")) as jump:
        keys = (jump.folder / "authorized", files.folder / "key.pub")
        keys[0].write_text(keys[1].read_text())
        yield files, jump


def test_a_jump_host_of_the_configuration_is_used(tmp_path: Path, folder: Path, servers: tuple[Sshd, Sshd]) -> None:
    files, jump = servers
    known = files.folder / "known_hosts"
    both = known.read_text() + (jump.folder / "known_hosts").read_text()
    config = _config(tmp_path, files, ProxyJump=f"127.0.0.1:{jump.port}")
    request = _request(tmp_path, files, folder / "orders.csv", config)
    # A ProxyJump would hold for the jump itself too.
    config.write_text(
        f'Match host 127.0.0.1 exec "test %p = {jump.port}"\nProxyJump none\nMatch all\n' + config.read_text()
    )
    error = refused(request)
    assert type(error) is SourceError, error
    assert "host key that is not known" in error.message, "the jump host's"
    known.write_text(both)
    assert fetched(request).path.read_bytes() == CONTENT
    (jump.folder / "authorized").write_text("")
    (tmp_path / "again").mkdir()
    denied = refused(_request(tmp_path / "again", files, folder / "orders.csv", config))
    assert (type(denied), "Permission denied" in denied.message) == (AuthenticationError, True)


# --- a chroot -----------------------------------------------------------------------------------------------------


@as_root
def test_a_path_begins_in_the_chroot(tmp_path: Path) -> None:
    root = Path(tempfile.mkdtemp(dir="/run", prefix="archisync-chroot-"))
    root.chmod(0o755)
    try:
        (root / "out").mkdir()
        (root / "out" / "orders_20260102.csv").write_bytes(CONTENT)
        more = [f"ChrootDirectory {root}", "ForceCommand internal-sftp"]
        with running_sshd(_server(tmp_path, "sshd"), more) as server:
            shown = f"sftp://127.0.0.1:{server.port}"
            export = fetched(_request(tmp_path, server, "/out/orders_{date:%Y%m%d}.csv"))
            assert export.origin == f"{shown}/out/orders_20260102.csv"
            (tmp_path / "again").mkdir()
            error = refused(_request(tmp_path / "again", server, root / "out/orders_20260102.csv"))
            assert (type(error), error.message) == (
                NoExportError,
                f"no export at {shown}{root}/out/orders_20260102.csv",
            )
    finally:
        shutil.rmtree(root)


# --- limits -------------------------------------------------------------------------------------------------------


def test_a_full_disk_here_is_tried_again_and_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    (folder / "orders.csv").write_bytes(os.urandom(1_000_000))
    with running_sshd(_server(tmp_path, "sshd")) as server:
        request = _request(tmp_path, server, folder / "orders.csv")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # what a disk with so much room does
        try:
            error = refused(request)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert type(error) is TransientSourceError
        assert error.message.startswith(f"cannot write to the spool directory {request.spool_dir}: ")
        assert fetched(request).size_bytes == 1_000_000


def test_agents_of_one_server_take_as_many_connections_as_there_are_workers(tmp_path: Path) -> None:
    """The server refuses connections beyond that number, and two that are about to close, so connections that pile up would show."""
    for number in range(AGENTS):
        path = tmp_path / "out" / f"agent-{number}" / "orders.csv"
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT + b"%d,2026-01-03\n" % number)
    with running_sshd(_server(tmp_path, "sshd"), [f"MaxStartups {WORKERS + 2}:100:{WORKERS + 2}"]) as server:

        def work(worker: int) -> list[bytes]:
            where = tmp_path / f"worker-{worker}"
            where.mkdir()
            found = []
            for number in range(worker, AGENTS, WORKERS):
                template = f"sftp://127.0.0.1:{server.port}{tmp_path}/out/{{agent}}/{{type}}.csv"
                config = str(server.config_file)
                request = request_of(where, template, agent_id=f"agent-{number}", ARCHISYNC_SFTP_CONFIG=config)
                found.append(fetched(request).path.read_bytes().splitlines()[-1])
            return found

        with ThreadPoolExecutor(WORKERS) as pool:
            done = [line for lines in pool.map(work, range(WORKERS)) for line in lines]
        assert sorted(done) == sorted(b"%d,2026-01-03" % number for number in range(AGENTS))
