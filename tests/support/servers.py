"""Servers as Debian installs them, each for one test: MariaDB, an FTP server with TLS, a file server for Windows shares."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from archisync.base.processes import end, start

_PLACES = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


def needs(*programs: str) -> pytest.MarkDecorator:
    """The test needs these programs; the servers among them run as root here."""
    missing = [name for name in programs if shutil.which(name, path=_PLACES) is None]
    return pytest.mark.skipif(bool(missing) or os.geteuid() != 0, reason=f"{', '.join(missing) or 'root'} is not there")


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


@contextmanager
def _running(command: Sequence[str], ready: Callable[[], bool]) -> Iterator[None]:
    child = start(list(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not ready():
            assert child.poll() is None, f"{command[0]} has ended"
        yield
    finally:
        end(child)


def _answers(port: int) -> Callable[[], bool]:
    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        return False

    return answers


@contextmanager
def running_mariadb(folder: Path, statements: str) -> Iterator[Path]:
    """MariaDB with these statements done, on a socket in the folder. Gives an option file for clients."""
    data, options = folder / "data", folder / "my.cnf"
    options.write_text(f"[client]\nsocket={folder}/s\nuser=root\ndefault-character-set=utf8mb4\n")
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
         "--auth-root-authentication-method=normal"],
        check=True, capture_output=True,
    )  # fmt: skip
    client = ["mariadb", f"--defaults-file={options}"]
    server = [
        "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={folder}/s", "--skip-networking",
        "--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0",
    ]  # fmt: skip
    ping = [*client, "-e", "select 1"]
    with _running(server, lambda: subprocess.run(ping, capture_output=True, check=False).returncode == 0):
        subprocess.run([*client, "-e", statements], check=True)
        yield options


@contextmanager
def running_ftps(folder: Path, certificate: Path) -> Iterator[int]:
    """vsftpd, which serves the folder to anonymous users with TLS only. Gives its port."""
    port = free_port()
    lines = [
        "listen=YES", "listen_address=127.0.0.1", f"listen_port={port}", "background=NO", "anonymous_enable=YES", "no_anon_password=YES",
        f"anon_root={folder}", "run_as_launching_user=YES", "ftp_username=root", f"secure_chroot_dir={folder}", "seccomp_sandbox=NO",
        "ssl_enable=YES", "allow_anon_ssl=YES", "force_anon_logins_ssl=YES", "force_anon_data_ssl=YES", "require_ssl_reuse=NO",
        "ssl_ciphers=HIGH", f"rsa_cert_file={certificate}", "pasv_address=127.0.0.1",
    ]  # fmt: skip
    configuration = certificate.with_name("vsftpd.conf")
    configuration.write_text("\n".join(lines) + "\n")
    with _running(["vsftpd", str(configuration)], _answers(port)):
        yield port


@contextmanager
def running_smbd(state: Path, folder: Path, password: str) -> Iterator[int]:
    """Samba, which serves the folder as the share `exports` to the user root. Gives its port."""
    port = free_port()
    folders = {
        name: state / name.replace(" ", "-")
        for name in ("private dir", "state directory", "lock directory", "pid directory")
    }
    folders |= {"cache directory": state / "cache", "ncalrpc dir": state / "ncalrpc"}
    for path in folders.values():
        path.mkdir()
    lines = [
        "[global]", f"smb ports = {port}", "interfaces = 127.0.0.1", "bind interfaces only = yes", f"log file = {state}/log",
        f"passdb backend = smbpasswd:{state}/smbpasswd", "disable spoolss = yes", "load printers = no",
        *(f"{name} = {path}" for name, path in folders.items()), "[exports]", f"path = {folder}",
    ]  # fmt: skip
    configuration = state / "smb.conf"
    configuration.write_text("\n".join(lines) + "\n")
    twice = f"{password}\n{password}\n"
    subprocess.run(
        ["smbpasswd", "-c", str(configuration), "-s", "-a", "root"],
        input=twice,
        text=True,
        check=True,
        capture_output=True,
    )
    with _running(["smbd", "-F", "--no-process-group", "-s", str(configuration)], _answers(port)):
        yield port


@contextmanager
def running_dovecot(folder: Path, certificate: Path, password: str) -> Iterator[int]:
    """Dovecot, an IMAP server with TLS only, which shows the Maildir `folder/mail` to the user `erp`. Gives its port.

    It serves nobody's mail as root, so the mail becomes that of `nobody`, who must be able to reach the folder.
    """
    port, nobody = free_port(), pwd.getpwnam("nobody")
    for path in (folder / "mail", *(folder / "mail").rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    configuration = folder / "dovecot.conf"
    configuration.write_text(f"""
        protocols = imap
        listen = 127.0.0.1
        base_dir = {folder}/run
        state_dir = {folder}/state
        log_path = {folder}/log
        ssl = required
        ssl_cert = <{certificate}
        ssl_key = <{certificate}
        mail_location = maildir:{folder}/mail:LAYOUT=fs
        service imap-login {{
          inet_listener imap {{
            port = 0
          }}
          inet_listener imaps {{
            port = {port}
            ssl = yes
          }}
        }}
        passdb {{
          driver = static
          args = user=erp password={password}
        }}
        userdb {{
          driver = static
          args = uid={nobody.pw_uid} gid={nobody.pw_gid} home={folder}/mail
        }}
    """)
    with _running(["dovecot", "-F", "-c", str(configuration)], _answers(port)):
        yield port
