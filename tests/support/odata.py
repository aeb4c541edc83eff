"""An OData v4 service of the test's own, with what the OASIS documents ask of a service that pages: `$select`, `$filter` by one property,
`$top`, `$count`, `odata.maxpagesize`, `@odata.nextLink`, delta links, errors as JSON; and OAuth 2.0 client credentials.

Part 1 (Protocol): 8.2.8.5 maxpagesize, 8.2.8.6 track-changes, 11.2.6.7 server-driven paging, 11.3 changes. JSON format: 4.5 control
information, 5.1 an error. What a test breaks, it breaks in `Service`.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from archisync.sources import Request, clienttokens
from tests.support.fetching import CANARY, fetched, request_of

Row = dict[str, Any]
Hook = Callable[["Handler", int], bool]
"""Called with each request for rows, which have numbers from 1 on; True: it has answered itself."""
ROOT = "/ODataV4"
CLIENT_ID, SCOPE = "archisync-test", "api://erp/.default"


@dataclass(kw_only=True)
class Service:
    """`sets`: the rows of each entity set, by its path. `secret`: of the client; empty: whoever asks gets rows. A token is good for
    `token_requests` requests."""

    sets: dict[str, list[Row]] = field(default_factory=dict)
    page_rows: int = 3
    secret: str = ""
    token_requests: int = 1_000_000
    tracks_changes: bool = True
    counts: bool = True
    versions: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    preferred: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    token_asked: list[dict[str, list[str]]] = field(default_factory=list)
    hook: Hook = lambda handler, number: False
    relative_links: bool = False
    basic_only: bool = True
    _left: dict[str, int] = field(default_factory=dict)
    url: str = ""

    def put(self, path: str, rows: list[Row]) -> None:
        self.sets[path] = rows
        self.versions[path] = self.versions.get(path, 0) + 1

    def token(self) -> str:
        token = f"token-{len(self.tokens)}"
        self.tokens.append(token)
        self._left[token] = self.token_requests
        return token

    def accepts(self, header: str) -> bool:
        if not self.secret:
            return True
        token = header.removeprefix("Bearer ")
        self._left[token] = self._left.get(token, 0) - 1
        return self._left[token] >= 0


class Handler(BaseHTTPRequestHandler):
    service: Service
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        service = self.service
        service.asked.append(unquote(self.path))
        service.preferred.append(self.headers.get("Prefer", ""))
        if service.hook(self, len(service.asked)):
            return
        if not service.accepts(self.headers.get("Authorization", "")):
            self.fail(401, "Unauthorized", "the token is missing or has expired")
            return
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        path = unquote(parts.path).removeprefix(ROOT + "/")
        if path not in service.sets:
            self.fail(404, "NotFound", f"Resource not found for the segment '{path}'")
        elif "$deltatoken" in query:
            self._changes(path, query["$deltatoken"])
        else:
            self._page(path, query)

    def _page(self, path: str, query: dict[str, str]) -> None:
        service, rows = self.service, self.service.sets[path]
        if service.sets[path]:
            unknown = [n for n in query.get("$select", "").split(",") if n and n not in service.sets[path][0]]
            if unknown:
                self.fail(400, "BadRequest", f"Could not find a property named '{unknown[0]}'")
                return
        if "$filter" in query:
            name, _, value = query["$filter"].partition(" eq ")
            rows = [row for row in rows if row[name] == value.strip("'")]
        total, begin = len(rows), int(query.get("$skiptoken", "0"))
        rows = rows[: int(query["$top"])] if "$top" in query else rows
        names = [name for name in query.get("$select", "").split(",") if name]
        page = rows[begin : begin + service.page_rows]
        entries = [{"@odata.etag": 'W/"1"', **({n: row[n] for n in names} if names else row)} for row in page]
        found: dict[str, Any] = {"@odata.context": f"{service.url}{ROOT}/$metadata#{path}"}
        if query.get("$count") == "true" and service.counts:
            found["@odata.count"] = total
        found["value"] = entries
        own = "&".join(f"{n}={v}" for n, v in query.items() if n != "$skiptoken")
        base = "" if service.relative_links else f"{service.url}{ROOT}/"
        if begin + service.page_rows < len(rows):
            found["@odata.nextLink"] = f"{base}{path}?{own}&$skiptoken={begin + service.page_rows}"
        elif service.tracks_changes and "odata.track-changes" in self.headers.get("Prefer", ""):
            found["@odata.deltaLink"] = f"{base}{path}?$deltatoken={service.versions[path]}"
        self.answer(found, {"Preference-Applied": "odata.maxpagesize"})

    def _changes(self, path: str, token: str) -> None:
        version = self.service.versions[path]
        if not token.isdecimal():
            self.fail(410, "Gone", "the delta token has expired")
            return
        changed = self.service.sets[path][:1] if int(token) < version else []
        link = f"{self.service.url}{ROOT}/{path}?$deltatoken={version}"
        self.answer({"@odata.context": "$metadata#x/$delta", "value": changed, "@odata.deltaLink": link})

    def do_POST(self) -> None:
        """The token endpoint (RFC 6749, 4.4)."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.service.token_asked.append(form)
        scheme, _, coded = self.headers.get("Authorization", "").partition(" ")
        given = (form.get("client_id", [""])[0], form.get("client_secret", [""])[0])
        if scheme == "Basic" and self.service.basic_only:
            user, _, password = base64.b64decode(coded).decode().partition(":")
            given = (unquote_plus(user), unquote_plus(password))
        if self.service.hook(self, 0):
            return
        if form.get("grant_type") != ["client_credentials"] or form.get("scope") != [SCOPE]:
            self.answer({"error": "invalid_request"}, status=400)
        elif given != (CLIENT_ID, self.service.secret):
            self.answer({"error": "invalid_client", "error_description": str(given)}, status=401)
        else:
            self.answer({"access_token": self.service.token(), "token_type": "Bearer", "expires_in": 3600})

    def fail(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.answer({"error": {"code": code, "message": message}}, headers, status=status)

    def answer(self, found: Any, headers: dict[str, str] | None = None, *, status: int = 200) -> None:
        body = found if isinstance(found, bytes) else json.dumps(found, indent=1).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json;odata.metadata=minimal",
            "OData-Version": "4.0",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running_service() -> Iterator[Service]:
    """The service on a free port of the loopback address."""
    service = Service()
    handler = type("ServiceHandler", (Handler,), {"service": service})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


# --- orders in it -------------------------------------------------------------------------------------------------------

SET = "Company('ACME')/Orders"
ROWS: list[Row] = [
    {
        "order_id": f"O{n}",
        "created_at": "2026-01-02T03:04:05Z",
        "total_amount": 10.5,
        "Agent": "agent-1",
        "Memo": f"text {n}",
    }
    for n in range(8)
]


@contextmanager
def service_of_orders() -> Iterator[Service]:
    """A running service with ROWS in SET; no token of another test is kept."""
    clienttokens._KEPT.clear()
    with running_service() as service:
        service.put(SET, ROWS)
        yield service


def orders_request(
    tmp_path: Path,
    service: Service,
    more: str = "",
    *,
    known: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Request:
    template = f"odata+{service.url}{ROOT}/{SET}{more}"
    return request_of(tmp_path, template, max_bytes=10**7, validators=known, **(settings or {}))


def with_client(service: Service) -> dict[str, str]:
    service.secret = CANARY + "%:ü"
    return {
        "ARCHISYNC_HTTP_TOKEN_URL": f"{service.url}/token",
        "ARCHISYNC_HTTP_CLIENT_ID": CLIENT_ID,
        "ARCHISYNC_HTTP_CLIENT_SECRET": service.secret,
        "ARCHISYNC_HTTP_SCOPE": SCOPE,
    }


def rows_of(request: Request) -> list[Row]:
    return [json.loads(line) for line in fetched(request).path.read_text().splitlines()]


def short(rows: Iterable[Row], *names: str) -> list[Row]:
    names = names or ("order_id", "created_at", "total_amount")
    return [{name: row[name] for name in names} for row in rows]
