"""An ERP that serves exports by HTTP from a thread of the test: real sockets, answers that the test chooses, a record of the requests."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET
from struct import pack


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request: its path with the query, its headers with lower-case names."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`length`: Content-Length, when it is not the body's. `etag`: a request that has it already is answered with 304."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    etag: str | None = None


def redirect(where: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"Location": where})


class Handler(BaseHTTPRequestHandler):
    erp: "Erp"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.erp.asked.append(Asked(path=self.path, headers=headers))
        found = self.erp.answers.get(self.path, Answer(status=404))
        self.close_connection = True
        if callable(found):
            found(self)
        else:
            self.answer(found, headers)

    def answer(self, answer: Answer, asked: Mapping[str, str]) -> None:
        if answer.etag is not None and asked.get("if-none-match") == answer.etag:
            answer = Answer(status=304, headers=answer.headers)
        elif answer.etag is not None:
            answer = Answer(body=answer.body, headers={**answer.headers, "ETag": answer.etag})
        self.send_response(answer.status)
        length = len(answer.body) if answer.length is None else answer.length
        if answer.status != 304 and "Transfer-Encoding" not in answer.headers and length >= 0:
            self.send_header("Content-Length", str(length))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def reset(self) -> None:
        """Reset the connection, so that the client does not see an orderly end."""
        self.wfile.flush()
        self.connection.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing the server waits for them

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up or fails the TLS handshake is no error here: the tests want it."""


@dataclass(kw_only=True)
class Erp:
    server: _Server
    scheme: str
    answers: dict[str, Answer | Callable[[Handler], None]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    released: threading.Event = field(
        default_factory=threading.Event
    )  # set when the test ends; slow answers wait for it

    @property
    def port(self) -> int:
        return self.server.server_port

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.server.server_address[0]!s}:{self.port}"


@contextmanager
def running_erp(*, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Erp]:
    """An ERP on `host`; it speaks https when `tls` is given."""
    handler = type("BoundHandler", (Handler,), {})
    server = _Server((host, port), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    erp = Erp(server=server, scheme="http" if tls is None else "https")
    handler.erp = erp  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield erp
    finally:
        erp.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
