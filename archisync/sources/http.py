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

from archisync.base.errors import TruncatedError
from archisync.rules.config import Config
from archisync.sources import checksums
from archisync.sources.httpanswer import Body, check_address, decoded, login_page, media_type, require_export
from archisync.sources.httpget import AGAIN_HINT, Getter, shown
from archisync.sources.httpsettings import http_settings, tls_context
from archisync.sources.httpvalidators import conditions, http_date, validators
from archisync.sources.interface import Export, Fetched, Request, Unchanged
from archisync.sources.spool import Spooled, spool
from archisync.sources.template import fill

_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".pdf", ".xlsx", ".xls", ".ods"})
_SUFFIX_OF_MEDIA_TYPE = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/jsonl": ".jsonl",
    "application/jsonlines": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/pdf": ".pdf",
}
_HTML_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)[\s>]", re.I)


class HttpSource:
    """Fetches exports by http:// and https://."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError for an address or settings that can't work."""
        check_address(template)
        settings = http_settings(config, sync_type)
        if settings.cert or settings.ca:
            tls_context(settings, with_certificate=True)

    def fetch(self, request: Request) -> Fetched:
        """Send one GET and follow its redirects. Raises as described at `Source.fetch`."""
        with contextlib.ExitStack() as stack:
            url, response, last_url = _answer(request, stack)
            if response.status_code == HTTPStatus.NOT_MODIFIED and conditions(request.validators, last_url):
                return Unchanged(origin=shown(url))
            require_export(response, shown(url))
            return _export(response, url, last_url, request)

    def probe(self, request: Request) -> None:
        """Send the same GET, and hang up before the body."""
        with contextlib.ExitStack() as stack:
            url, response, _ = _answer(request, stack)
            require_export(response, shown(url))


def _answer(request: Request, stack: contextlib.ExitStack) -> tuple[httpx.URL, httpx.Response, httpx.URL]:
    """What was asked for, the answer with its body unread, and the address that gave it."""
    check_address(request.template)
    settings = http_settings(request.config, request.sync_type)
    url = httpx.URL(fill(request.template, request, lambda text: quote(text, safe="")))
    getter = Getter(settings, request.config.fetch_timeout_s, request.validators, stack)
    return url, *getter.get(url)


def _export(response: httpx.Response, url: httpx.URL, last_url: httpx.URL, request: Request) -> Export:
    """Read the body. `url`: what was asked for; `last_url`: the address that answered, after all redirects."""
    origin = shown(url)
    announced = checksums.announced(response.headers)
    wire = checksums.Hashing(Body(response, origin, request.max_bytes), announced)
    content = checksums.Hashing(decoded(wire, response, origin), announced)
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
        written_at=modified.timestamp() if (modified := http_date(response.headers.get("last-modified", ""))) else None,
    )


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
            raise login_page(origin)


def _suffix(response: httpx.Response, *addresses: httpx.URL) -> str:
    """From the server's file name, the addresses or the media type; empty: the content decides."""
    disposition = Message()
    disposition["Content-Disposition"] = response.headers.get("content-disposition", "")
    for name in (disposition.get_filename() or "", *(url.path for url in addresses)):
        suffix = PurePosixPath(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
        if suffix in _SUFFIXES:
            return suffix
    return _SUFFIX_OF_MEDIA_TYPE.get(media_type(response), "")
