"""A stand-in for oauth2-proxy: it knows people by a cookie, and does with headers what oauth2-proxy does when its options say so."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

COOKIE = "_oauth2_proxy"
ADDRESS = "127.0.0.2"
"""From which it asks the panel: another one than that of the tests."""
INJECTED = ("x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username")
OF_A_CONNECTION = ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")


class _Handler(BaseHTTPRequestHandler):
    options: Mapping[str, Any]
    upstream: str

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def handle_any(self) -> None:
        morsel = SimpleCookie(self.headers.get("cookie", "")).get(COOKIE)
        who = morsel.value if morsel else None
        path = self.path.partition("?")[0]
        if path == "/oauth2/auth":
            self._say(202 if who else 401, {"X-Auth-Request-User": "sub-7", "X-Auth-Request-Email": who} if who else {})
        elif path == "/oauth2/start":
            back = self.headers.get("x-auth-request-redirect", "/")
            self._say(302, {"Location": f"https://login.example.com/?state={quote(back, safe='')}"})
        elif path.startswith("/oauth2/") or who is None:
            self._say(200 if path.startswith("/oauth2/") else 403, {}, b"Sign in")
        else:
            self._pass_on(who)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _pass_on(self, who: str) -> None:
        address = urlsplit(self.upstream)
        connection = HTTPConnection(str(address.hostname), address.port, timeout=60, source_address=(ADDRESS, 0))
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        strips = self.options["skip_auth_strip_headers"] and self.options["pass_user_headers"]
        for name, value in self.headers.items():
            dropped = name.lower() in OF_A_CONNECTION or (strips and name.lower() in INJECTED)
            if not dropped and name.lower() != "x-forwarded-for":
                connection.putheader(name, value)
        before = [value for name, value in self.headers.items() if name.lower() == "x-forwarded-for"]
        connection.putheader("X-Forwarded-For", ", ".join([*before, self.client_address[0]]))
        if self.options["pass_user_headers"]:
            connection.putheader("X-Forwarded-User", "sub-7")
            connection.putheader("X-Forwarded-Email", who)
        if self.options.get("basic_auth_password"):
            connection.putheader("Authorization", "Basic c3ViLTc6c2VjcmV0")
        connection.endheaders(self.rfile.read(int(self.headers.get("content-length", 0))))
        answer = connection.getresponse()
        body = answer.read()
        self._say(answer.status, {n: v for n, v in answer.getheaders() if n.lower() not in OF_A_CONNECTION}, body)
        connection.close()

    def _say(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def oauth2_proxy(options: Mapping[str, Any], upstream: str) -> Iterator[str]:
    """The proxy in front of `upstream`; its address."""
    handler = type("Handler", (_Handler,), {"options": options, "upstream": upstream})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="oauth2-proxy")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
