"""The gate before every request: where it really comes from, whether its Host is ours, the headers of every answer, and the log.

A browser may be made to send requests that its user never meant: by a page of another site (`check_origin`), or by a name that suddenly
points to this machine (DNS rebinding: the Host is checked). `X-Forwarded-*` are believed only from the addresses in ARCHISYNC_WEB_PROXIES.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from archisync.base.errors import ArchisyncError, ConfigurationError, UsageError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.rules.websettings import path_prefix

Refused = Callable[[Request, ArchisyncError, int], Response]
"""How a refusal is said."""
SAFE_METHODS = ("GET", "HEAD")
PROBES = ("/healthz", "/readyz")
"""Asked for every few seconds, by whatever name the machine has: open to every Host, and not in the log."""
SEEN = "archisync.seen"
"""The key of the scope under which the endpoints find `Seen`."""
_LOCAL_NAMES = frozenset({"localhost"})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a browser sees: the address that it has, and scheme, host and path prefix of the panel in its address bar.

    `by_proxy`: a proxy of ours passed the request on."""

    address: str
    scheme: str
    host: str
    prefix: str
    by_proxy: bool


def header(scope: Scope, name: str) -> str | None:
    """The one header of that name; None when there is none, or several, of which somebody may have smuggled one in."""
    found = [value for key, value in scope["headers"] if key == name.encode()]
    return found[0].decode("latin-1") if len(found) == 1 else None


class Gate:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, config: Config, *, log: EventLog, refused: Refused) -> None:
        self._app = app
        self._refused = refused
        self._log = log
        self._proxies = config.web_proxies
        self._names = _LOCAL_NAMES | {name.lower() for name in config.web_hosts}
        self._prefix = config.web_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _with_ours(message["headers"])}
            await send(message)

        seen = self._seen(scope)
        path = _below(scope["path"], seen.prefix)
        inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": "", SEEN: seen}
        is_probe = path.removesuffix("/") in PROBES
        if is_probe or self._is_ours(seen.host):
            await self._app(inner, receive, send_with_headers)
        else:
            error = UsageError(
                f"the panel is not known as {ascii(seen.host)[:80]}", hint="add the name to ARCHISYNC_WEB_HOSTS"
            )
            await self._refused(Request(inner), error, 421)(inner, receive, send_with_headers)
        if not is_probe:
            took_ms = round((monotonic() - begun) * 1000)
            self._log.event(
                "web-request", method=scope["method"], path=path, status=status, ms=took_ms, address=seen.address
            )

    def _seen(self, scope: Scope) -> Seen:
        peer = scope["client"][0] if scope.get("client") else "unix socket"
        host, scheme, prefix = header(scope, "host") or "", scope["scheme"], self._prefix
        if not self._is_proxy(peer):
            return Seen(address=peer, scheme=scheme, host=host, prefix=prefix, by_proxy=False)
        if (forwarded := header(scope, "x-forwarded-prefix")) is not None:
            prefix = _checked_prefix(forwarded, prefix)
        proto = header(scope, "x-forwarded-proto")
        return Seen(
            address=self._client(peer, header(scope, "x-forwarded-for") or ""),
            scheme=proto if proto in ("http", "https") else scheme,
            host=header(scope, "x-forwarded-host") or host,
            prefix=prefix,
            by_proxy=True,
        )

    def _client(self, peer: str, forwarded_for: str) -> str:
        """The last address that no proxy of ours has: those before it are what the client claims."""
        for address in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
            try:
                ip_address(address)
            except ValueError:
                return peer
            if not self._is_proxy(address):
                return address
        return peer

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._proxies)

    def _is_ours(self, host: str) -> bool:
        """A name must be known; an address can't be rebound, so every one will do."""
        matched = _HOST.fullmatch(host)
        if matched is None:
            return False
        name = matched[1].strip("[]").lower()
        try:
            ip_address(name)
        except ValueError:
            return name.removesuffix(".") in self._names
        return True


def check_origin(scope: Scope, *, by_browser: bool) -> bool:
    """Whether a request that changes something comes from a page of ours, or from no browser at all."""
    if scope["method"] in SAFE_METHODS:
        return True
    seen: Seen = scope[SEEN]
    site, origin = header(scope, "sec-fetch-site"), header(scope, "origin")
    if site is not None and site != "same-origin":
        return False
    if origin is not None:
        return _host_of(origin) == seen.host.lower()
    return site is not None or not by_browser


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # no browser sends such a one
        return None


def _with_ours(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    ours = {**HEADERS, "cache-control": "no-store"}
    return [*headers, *((n.encode(), v.encode()) for n, v in ours.items() if n.encode() not in present)]


def _below(path: str, prefix: str) -> str:
    """The path without the prefix, which a proxy may strip or leave."""
    if prefix and (path == prefix or path.startswith(prefix + "/")):
        return path[len(prefix) :] or "/"
    return path


def _checked_prefix(given: str, otherwise: str) -> str:
    try:
        return path_prefix("X-Forwarded-Prefix", given)
    except ConfigurationError:
        return otherwise
