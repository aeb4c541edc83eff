"""A TCP proxy that breaks a connection on purpose: it cuts, hangs, slows down or resets it, or acts after some bytes.

    with Proxy(host, port) as proxy:          # a host that begins with "/" is a Unix socket (a folder for PostgreSQL)
        url = proxy.url(real_url)             # the same URL, through the proxy
        proxy.hang()                          # nothing is passed on any more, in either direction
        proxy.resume()                        # what was held back is passed on

A call holds for the connections that exist and for later ones, until `resume`. Bytes count from the client to the server, over all
connections, since the last `reset_after` or `after`. `when` waits for words as `after` waits for bytes.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

CHUNK = 16_384
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


class Proxy:
    """Listens on 127.0.0.1 for as long as the block lasts."""

    def __init__(self, target_host: str, port: int) -> None:
        self._target = (target_host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Condition()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._refusing = self._hanging = self._over = False
        self._bytes_per_s: int | None = None
        self._sent = 0
        self._armed: tuple[Callable[[bytes], bool], Callable[[], object]] | None = None

    @classmethod
    def of(cls, url: str) -> Proxy:
        """A proxy to the server of `url` (postgresql://, redis:// or unix://)."""
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return cls(parts.path, 0)
        given = parse_qs(parts.query)
        port = int(given.get("port", [str(parts.port or 5432)])[0])
        return cls(given.get("host", [parts.hostname or "127.0.0.1"])[0], port)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over = True
            self._lock.notify_all()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close_all(reset=False)
        for thread in self._threads:
            thread.join(10)

    # --- what tests call --------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def url(self, real: str) -> str:
        """The URL `real`, through this proxy, with the same user, password, database and parameters."""
        parts = urlsplit(real)
        if parts.scheme == "unix":
            database = parse_qs(parts.query).get("db", ["0"])[0]
            return f"redis://127.0.0.1:{self.port}/{database}"
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        kept = [(k, v) for k, vs in parse_qs(parts.query).items() if k not in ("host", "port") for v in vs]
        query = "&".join(f"{name}={quote(value)}" for name, value in kept)
        return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self.port}", query=query))

    @property
    def sent(self) -> int:
        """The bytes that clients have sent to the server."""
        return self._sent

    @property
    def connections(self) -> int:
        return len(self._open) // 2

    def cut(self) -> None:
        """Reset every connection, and every later one, as when a host has left the network."""
        with self._lock:
            self._refusing = True
        self._close_all(reset=True)

    def reset(self) -> None:
        """Reset every connection once; later ones work."""
        self._close_all(reset=True)

    def hang(self) -> None:
        """Accept every connection and answer nothing."""
        with self._lock:
            self._hanging = True

    def slow(self, bytes_per_s: int) -> None:
        """Pass on that much in a second, in each direction of each connection."""
        with self._lock:
            self._bytes_per_s = bytes_per_s

    def reset_after(self, n: int) -> None:
        """`reset` once clients have sent `n` more bytes; byte n is not passed on."""
        self.after(n, self.reset)

    def after(self, n: int, action: Callable[[], object]) -> None:
        """Call `action` once clients have sent `n` more bytes, before these are passed on."""
        with self._lock:
            self._sent, self._armed = 0, (lambda _: self._sent >= n, action)

    def when(self, words: bytes, action: Callable[[], object]) -> None:
        """Call `action` once a client sends these words, before they are passed on."""
        with self._lock:
            self._armed = (lambda chunk: words in chunk, action)

    def resume(self) -> None:
        """Work normally again; pass on what was held back."""
        with self._lock:
            self._refusing = self._hanging = False
            self._bytes_per_s, self._armed = None, None
            self._lock.notify_all()

    # --- threads ----------------------------------------------------------------------------------------------

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                _close(client, reset=True)
                continue
            try:
                server = self._connect()
            except OSError:
                _close(client, reset=True)
                continue
            with self._lock:
                self._open |= {client, server}
            self._start(self._pump, client, server, True)
            self._start(self._pump, server, client, False)

    def _connect(self) -> socket.socket:
        host, port = self._target
        if not host.startswith("/"):
            return socket.create_connection((host, port), timeout=10)
        path = Path(host) / f".s.PGSQL.{port}" if Path(host).is_dir() else Path(host)
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(path))
        return server

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with suppress(OSError):
            source.settimeout(None)
            while chunk := source.recv(min(CHUNK, self._bytes_per_s or CHUNK)):
                if from_client:
                    self._watch(chunk)
                self._delay(len(chunk))
                sink.sendall(chunk)
        for end in (source, sink):
            _close(end, reset=False)
        with self._lock:
            self._open -= {source, sink}

    def _watch(self, chunk: bytes) -> None:
        with self._lock:
            self._sent += len(chunk)
            due = self._armed[1] if self._armed is not None and self._armed[0](chunk) else None
            if due is not None:
                self._armed = None
        if due is not None:
            due()

    def _delay(self, size: int) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._over or not self._hanging)
            rate = self._bytes_per_s
        if rate is not None:
            time.sleep(size / rate)  # this is the slowness itself; nothing is waited for

    def _close_all(self, *, reset: bool) -> None:
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            _close(end, reset=reset)


def _close(end: socket.socket, *, reset: bool) -> None:
    """Shut it down first: closing alone would not wake a thread that reads from it."""
    with suppress(OSError):
        if reset and end.family != socket.AF_UNIX:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.shutdown(socket.SHUT_RD)
        else:
            end.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        end.close()
