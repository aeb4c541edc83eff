"""A server of the test's own, as Debian installs it, that lets in whoever has the test's key."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from archisync.base.processes import end, start

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")
needs_sshd = pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed (apt-get install openssh-server)")
needs_sftp_server = pytest.mark.skipif(not SFTP_SERVER.exists(), reason="openssh-sftp-server is not installed")
PASSPHRASE = "canary-passphrase-51c0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sshd:
    """`config_file` is the client's. `folder` has the keys; `known_hosts` is in it."""

    port: int
    folder: Path
    config_file: Path

    def write_known_hosts(self, key: Path, port: int | None = None) -> None:
        kind, public = key.with_suffix(".pub").read_text().split()[:2]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{port or self.port} {kind} {public}\n")


def keygen(path: Path, passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@contextmanager
def running_sshd(folder: Path, more: Sequence[str] = (), host_key: Path | None = None) -> Iterator[Sshd]:
    """sshd on a free port of the loopback address; `more` are lines of its configuration. `host_key`: a key that was made before."""
    assert SSHD is not None
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights
    host_key, key = host_key or keygen(folder / "host"), keygen(folder / "key")
    locked = keygen(folder / "locked", PASSPHRASE)
    (folder / "authorized").write_text("".join(k.with_suffix(".pub").read_text() for k in (key, locked)))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {host_key}", f"AuthorizedKeysFile {folder}/authorized",
        "StrictModes no", "UsePAM no", "PidFile none", "PasswordAuthentication no", "Subsystem sftp internal-sftp", *more,
    ]  # fmt: skip
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    client = folder / "ssh_config"
    client.write_text(
        f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile none\nIdentityFile {key}\nIdentitiesOnly yes\n"
    )
    server = Sshd(port=port, folder=folder, config_file=client)
    server.write_known_hosts(host_key)
    child = start([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        while not _answers(port):
            assert child.poll() is None
        yield server
    finally:
        end(child)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(4) == b"SSH-"
    return False
