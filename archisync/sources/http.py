"""The HTTP source: one GET, and nothing of the answer is believed that can be checked.

* A body that is shorter than announced, or does not have an announced checksum, is truncated; a login page is an authentication error.
* A server that still has the export that was applied last (ETag, Last-Modified) says so, and nothing is fetched.
* Who gets the credentials, and which addresses are connected to: see `archisync.sources.httpget`.
"""

from __future__ import annotations

import contextlib
import re
from email.message import Message
from http import HTTPStatus
from pathlib import PurePosixPath
from urllib.parse import quote

import httpx

from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    NoExportError,
    SourceError,
    TransientSourceError,
    TruncatedError,
)
from archisync.base.text import printable
from archisync.rules.config import Config
from archisync.sources import checksums
from archisync.sources.httpget import AGAIN_HINT, CREDENTIALS_HINT, Getter, connection_errors, curl, shown
from archisync.sources.httpsettings import http_settings, tls_context
from archisync.sources.httpvalidators import conditions, http_date, validators
from archisync.sources.interface import Export, Fetched, Request, Unchanged
from archisync.sources.spool import Spooled, spool
from archisync.sources.template import fill, has_placeholder
from archisync.sources.unpack import BLOCK_BYTES, Readable, Unzipped, too_large

LONGEST_RETRY_AFTER_S = 3600.0
_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".pdf", ".xlsx", ".xls", ".ods"})
_SUFFIX_OF_MEDIA_TYPE = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/jsonl": ".jsonl",
    "application/jsonlines": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/pdf": ".pdf",
}
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_HTML_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)[\s>]", re.I)
_TRANSIENT = frozenset({408, 425, 429})
_ADDRESS_HINT = "for example https://erp.example/exports/{agent}/{type}.csv"


class HttpSource:
    """Fetches exports by http:// and https://."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError for an address or settings that can't work."""
        _check_address(template)
        settings = http_settings(config, sync_type)
        if settings.cert or settings.ca:
            tls_context(settings, with_certificate=True)

    def fetch(self, request: Request) -> Fetched:
        """Send one GET and follow its redirects. Raises as described at `Source.fetch`."""
        _check_address(request.template)
        settings = http_settings(request.config, request.sync_type)
        url = httpx.URL(fill(request.template, request, lambda text: quote(text, safe="")))
        with contextlib.ExitStack() as stack:
            getter = Getter(settings, request.config.fetch_timeout_s, request.validators, stack)
            response, last_url = getter.get(url)
            if response.status_code == HTTPStatus.NOT_MODIFIED and conditions(request.validators, last_url):
                return Unchanged(origin=shown(url))
            _require_export(response, shown(url))
            return _export(response, url, last_url, request)


def _check_address(template: str) -> None:
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


def _require_export(response: httpx.Response, origin: str) -> None:
    """Raise what the status, or an HTML page, means. Returns for status 200 with an export."""
    status = response.status_code
    answer = f"{origin} answers {_phrase(status)}"
    if status == HTTPStatus.OK:
        if _media_type(response) in _HTML_TYPES:
            raise _login_page(origin)
        return
    if status in (401, 403, 407, 511):
        raise AuthenticationError(answer, hint=CREDENTIALS_HINT)
    if status in (404, 410):
        raise NoExportError(
            answer, hint="check the address in ARCHISYNC_SOURCE, and that the ERP has written the export"
        )
    if status in _TRANSIENT or status >= 500:
        raise TransientSourceError(answer, hint=curl(origin), retry_after_s=_retry_after_s(response))
    raise SourceError(answer, hint=curl(origin))


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _login_page(origin: str) -> AuthenticationError:
    return AuthenticationError(f"{origin} answers with an HTML page, probably a login page", hint=CREDENTIALS_HINT)


def _retry_after_s(response: httpx.Response) -> float | None:
    """The wait that the server asks for, at most LONGEST_RETRY_AFTER_S; None when it asks for none, or not clearly."""
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), LONGEST_RETRY_AFTER_S)
    # Both times are from the server's clock, because ours may be wrong.
    moment, now = http_date(text), http_date(response.headers.get("date", ""))
    if moment is None or now is None:
        return None
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER_S)


def _export(response: httpx.Response, url: httpx.URL, last_url: httpx.URL, request: Request) -> Export:
    """Read the body. `url`: what was asked for; `last_url`: the address that answered, after all redirects."""
    origin = shown(url)
    announced = checksums.announced(response.headers)
    wire = checksums.Hashing(_Body(response, origin, request.max_bytes), announced)
    content = checksums.Hashing(_decoded(wire, response, origin), announced)
    spooled = spool(content, request, origin=origin, damaged_hint=AGAIN_HINT)
    try:
        _verify(announced, wire, content, origin)
        _refuse_html(spooled, origin)
    except BaseException:
        spooled.path.unlink(missing_ok=True)
        raise
    return Export(
        path=spooled.path,
        origin=origin,
        suffix=_suffix(response, url, last_url) if spooled.suffix is None else spooled.suffix,
        size_bytes=spooled.size_bytes,
        sha256=spooled.sha256,
        validators=validators(response, last_url),
    )


class _Body:
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


def _decoded(wire: Readable, response: httpx.Response, origin: str) -> Readable:
    """The body without its Content-Encoding. An export that is gzip itself is unpacked by `spool`."""
    encodings = re.split(r"[\s,]+", response.headers.get("content-encoding", "").lower())
    encodings = [encoding for encoding in encodings if encoding not in ("", "identity")]
    if not encodings:
        return wire
    if encodings in (["gzip"], ["x-gzip"]):
        return Unzipped(wire, origin=origin, damaged_hint=AGAIN_HINT)
    names = printable(",".join(encodings), limit=80)
    raise SourceError(f"{origin} answers in the encoding {names}, which was not asked for", hint=curl(origin))


def _verify(
    announced: list[checksums.Checksum], wire: checksums.Hashing, content: checksums.Hashing, origin: str
) -> None:
    """Require each checksum of the encoded body, as the standard has it, or of the file, as some servers send it."""
    for checksum in announced:
        if not wire.has(checksum) and not content.has(checksum):
            raise TruncatedError(
                f"{origin}: what arrived does not have the checksum that {checksum.header} announces",
                hint="fetch it again; if it stays so, the server's checksum is wrong",
            )


def _refuse_html(spooled: Spooled, origin: str) -> None:
    with spooled.path.open("rb") as file:
        if _HTML_START.match(file.read(512)):
            raise _login_page(origin)


def _suffix(response: httpx.Response, *addresses: httpx.URL) -> str:
    """From the server's file name, the addresses or the media type; empty: the content decides."""
    disposition = Message()
    disposition["Content-Disposition"] = response.headers.get("content-disposition", "")
    for name in (disposition.get_filename() or "", *(url.path for url in addresses)):
        suffix = PurePosixPath(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
        if suffix in _SUFFIXES:
            return suffix
    return _SUFFIX_OF_MEDIA_TYPE.get(_media_type(response), "")
