"""Redis servers on TCP ports of this machine: Valkey, Debian's redis-server if it is installed, Sentinels, and TLS in front of a server.

Where a Unix socket without TLS will do, `own_valkey` (tests/conftest.py) is simpler.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import redis
import trustme

from archisync.standalone.valkey import valkey_binary
from tests.support.proxy import CHUNK

START_TIMEOUT_S = 20.0
TURN_S = 0.005
REDIS_SERVER = shutil.which("redis-server")


class Server:
    """A running server process in `folder`. `client()` is an administrator's client, without TLS."""

    def __init__(
        self, folder: Path, options: Mapping[str, str], *, program: str | None = None, sentinel: bool = False
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self._password = options.get("requirepass")
        self._log = (folder / "log").open("wb")
        self._config = folder / "conf"
        lines = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(folder), "daemonize": "no"} | dict(options)
        self._config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        command = [program or str(valkey_binary()), str(self._config), *(["--sentinel"] if sentinel else [])]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL)
        self._await()

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self._password, socket_timeout=5)

    def _await(self) -> None:
        until = monotonic() + START_TIMEOUT_S
        while monotonic() < until and self.process.poll() is None:
            with suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
        raise AssertionError(f"the server did not start: {Path(self._log.name).read_text()[-2000:]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@contextmanager
def server(
    folder: Path, options: Mapping[str, str], *, program: str | None = None, sentinel: bool = False
) -> Iterator[Server]:
    started = Server(folder, options, program=program, sentinel=sentinel)
    try:
        yield started
    finally:
        started.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def make_certificates(folder: Path) -> None:
    """A private authority's ca.pem, a server's certificate for 127.0.0.1, a client's, and stranger.pem, another authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    for file, name in (("server", "127.0.0.1"), ("client", "client")):
        certificate = authority.issue_cert(name)
        certificate.cert_chain_pems[0].write_to_path(folder / f"{file}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{file}.key")


def tls_options(folder: Path, port: int) -> dict[str, str]:
    """Options with which redis-server speaks TLS on `port` to clients that have a certificate of the authority."""
    files = {"ca-cert": "ca.pem", "cert": "server.pem", "key": "server.key"}
    return {"tls-port": str(port)} | {f"tls-{name}-file": str(folder / file) for name, file in files.items()}


def client_tls(folder: Path) -> dict[str, str]:
    """The options of an ARCHISYNC_REDIS_URL for such a server."""
    return {
        "ssl_ca_certs": f"{folder}/ca.pem",
        "ssl_certfile": f"{folder}/client.pem",
        "ssl_keyfile": f"{folder}/client.key",
    }


@contextmanager
def tls_before(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """The port of a TLS server that passes what it decrypts to the server on `port`, as stunnel does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, context), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, context: ssl.SSLContext) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, port, context), daemon=True).start()


def _serve(client: socket.socket, port: int, context: ssl.SSLContext) -> None:
    """Serve one connection. Two threads can't read and write an SSLSocket at once, so this reads both ends in turn."""
    with (
        suppress(OSError),
        client,
        socket.create_connection(("127.0.0.1", port)) as target,
        context.wrap_socket(client, server_side=True) as decrypted,
    ):
        decrypted.settimeout(TURN_S)
        target.settimeout(TURN_S)
        while True:
            for source, sink in ((decrypted, target), (target, decrypted)):
                try:
                    part = source.recv(CHUNK)
                except TimeoutError:
                    continue
                if not part:
                    return
                sink.settimeout(None)
                sink.sendall(part)
                sink.settimeout(TURN_S)
