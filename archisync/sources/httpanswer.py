"""What an answer over HTTP means, and its body: for the sources that speak HTTP."""

from __future__ import annotations

import re
from http import HTTPStatus

import httpx

from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    NoExportError,
    SourceError,
    TransientSourceError,
)
from archisync.base.text import printable
from archisync.sources.httpget import AGAIN_HINT, CREDENTIALS_HINT, connection_errors, curl
from archisync.sources.httpvalidators import http_date
from archisync.sources.template import has_placeholder
from archisync.sources.unpack import BLOCK_BYTES, Readable, Unzipped, too_large

LONGEST_RETRY_AFTER_S = 3600.0
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_TRANSIENT = frozenset({408, 425, 429})
_ADDRESS_HINT = "for example https://erp.example/exports/{agent}/{type}.csv"


def check_address(template: str) -> None:
    """Raise ConfigurationError for an address without a host, or with credentials in it."""
    scheme, _, rest = template.partition(":")
    authority = re.split(r"[/?#]", rest.removeprefix("//"), maxsplit=1)[0]
    if not rest.startswith("//") or not authority:
        raise ConfigurationError(f"the source is a {scheme}: address without a host", hint=_ADDRESS_HINT)
    if "@" in authority:
        raise ConfigurationError(
            "the source's address has credentials in it",
            hint="put them into ARCHISYNC_HTTP_USER and ARCHISYNC_HTTP_PASSWORD: an address is shown to people",
        )
    if has_placeholder(authority):
        raise ConfigurationError("the source's address has a placeholder in its host", hint=_ADDRESS_HINT)
    try:
        httpx.URL(template.replace("{", "").replace("}", ""))
    except httpx.InvalidURL as exc:
        raise ConfigurationError("the source is not an address", hint=_ADDRESS_HINT) from exc


def require_export(response: httpx.Response, origin: str) -> None:
    """Raise what the status, or an HTML page, means. Returns for status 200 with an export."""
    status = response.status_code
    answer = f"{origin} answers {phrase(status)}"
    if status == HTTPStatus.OK:
        if media_type(response) in _HTML_TYPES:
            raise login_page(origin)
        return
    if status in (401, 403, 407, 511):
        raise AuthenticationError(answer, hint=CREDENTIALS_HINT)
    if status in (404, 410):
        raise NoExportError(
            answer, hint="check the address in ARCHISYNC_SOURCE, and that the ERP has written the export"
        )
    if status in _TRANSIENT or status >= 500:
        raise TransientSourceError(answer, hint=curl(origin), retry_after_s=retry_after_s(response))
    raise SourceError(answer, hint=curl(origin))


def phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def login_page(origin: str) -> AuthenticationError:
    return AuthenticationError(f"{origin} answers with an HTML page, probably a login page", hint=CREDENTIALS_HINT)


def retry_after_s(response: httpx.Response) -> float | None:
    """The wait that the server asks for, at most LONGEST_RETRY_AFTER_S; None when it asks for none, or not clearly."""
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), LONGEST_RETRY_AFTER_S)
    # Both times are from the server's clock, because ours may be wrong.
    moment, now = http_date(text), http_date(response.headers.get("date", ""))
    if moment is None or now is None:
        return None
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER_S)


class Body:
    """The body as it comes over the wire, still encoded, at most `max_bytes`."""

    def __init__(self, response: httpx.Response, origin: str, max_bytes: int) -> None:
        self._blocks = response.iter_raw(BLOCK_BYTES)
        self._origin = origin
        self._left = self._max_bytes = max_bytes
        self._block = b""

    def read(self, size: int, /) -> bytes:
        if not self._block:
            with connection_errors(self._origin, in_body=True):
                self._block = next(self._blocks, b"")
            self._left -= len(self._block)
            if self._left < 0:
                raise too_large(self._origin, self._max_bytes)
        part, self._block = self._block[:size], self._block[size:]
        return part


def decoded(wire: Readable, response: httpx.Response, origin: str) -> Readable:
    """The body without its Content-Encoding. An export that is gzip itself is unpacked by `spool`."""
    encodings = re.split(r"[\s,]+", response.headers.get("content-encoding", "").lower())
    encodings = [encoding for encoding in encodings if encoding not in ("", "identity")]
    if not encodings:
        return wire
    if encodings in (["gzip"], ["x-gzip"]):
        return Unzipped(wire, origin=origin, damaged_hint=AGAIN_HINT)
    names = printable(",".join(encodings), limit=80)
    raise SourceError(f"{origin} answers in the encoding {names}, which was not asked for", hint=curl(origin))
