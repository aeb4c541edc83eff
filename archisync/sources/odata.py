"""The OData source: all rows of an entity set of an OData v4 service (Business Central, Dynamics 365, SAP), page by page.

    odata+https://api.businesscentral.dynamics.com/v2.0/TENANT/production/ODataV4/Company('ACME')/Customers?$filter=Agent eq '{agent}'

* Only the properties that are fields of the type are asked for (`$select`), which one row shows first; a `$select` in the address is kept.
* A page names the next one. It must be on the template's own host, where the credentials go, and no page comes twice.
* The rows must be as many as the service counts (`$count`), on every page; else they changed in the meantime, and all is read again.
* A page that is refused for now (429, 503) is asked for again after the wait that the service names, while the fetch has time: what was
  read is not read again.
* A service that tracks changes says next time, by its delta link, that there were none.

Rows become JSON Lines in which each number keeps the digits that it was sent with.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from archisync.base.errors import SourceError, SyncError, TransientSourceError, TruncatedError
from archisync.base.text import counted, printable, redact
from archisync.rules.config import Config
from archisync.rules.labels import fold_label
from archisync.rules.synctypes import SyncType, sync_type
from archisync.sources.httpanswer import Body, check_address, decoded, require_export
from archisync.sources.httpget import Getter, curl, is_same_host, shown
from archisync.sources.httpsettings import http_settings, tls_context
from archisync.sources.interface import Export, Fetched, Request, Unchanged
from archisync.sources.spool import spool
from archisync.sources.template import fill
from archisync.sources.unpack import BLOCK_BYTES

MAX_PAGES = 100_000
_PAGE_ROWS = 10_000
_MOST_PAGE_BYTES = 128 * 1024 * 1024
_MOST_ERROR_BYTES = 64 * 1024
_LONGEST_DELTA = 2_000
_MOST_DELTA_PAGES = 10
_ATTEMPTS = 5
"""Of one page, when the service names no wait."""
_HEADERS = {
    "Accept": "application/json;odata.metadata=minimal",
    "OData-MaxVersion": "4.01",
    "Prefer": f"odata.maxpagesize={_PAGE_ROWS},odata.track-changes",
}
_OWN_SELECT = re.compile(r"[?&]\$(?:select|apply)=")
_OWN_COUNT = re.compile(r"[?&]\$(?:count|top|skip|apply)=")
_FOREIGN_OPTION = re.compile(r"[?&](?!\$)([^=&]+)=([^&]*)")
"""A query option that is not OData's may be a key."""


class ODataSource:
    """Reads exports from OData services."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError for an address or settings that can't work."""
        check_address(_address(template))
        settings = http_settings(config, sync_type)
        if settings.cert or settings.ca:
            tls_context(settings, with_certificate=True)

    def fetch(self, request: Request) -> Fetched:
        """Read all pages. Raises as described at `Source.fetch`."""
        with contextlib.ExitStack() as stack:
            service = _service(request, stack)
            if service.is_unchanged():
                return Unchanged(origin=shown(service.url))
            return _export(_Rows(service, _query(service, request)), service.url, request)

    def probe(self, request: Request) -> None:
        """Ask for one row."""
        with contextlib.ExitStack() as stack:
            service = _service(request, stack)
            service.page(_with(service.url, ["$top=1"]), is_first=True)


def _service(request: Request, stack: contextlib.ExitStack) -> _Service:
    address = _address(request.template)
    check_address(address)
    settings = http_settings(request.config, request.sync_type)
    url = httpx.URL(fill(address, request, lambda text: quote(text, safe="")))
    return _Service(Getter(settings, request.config.fetch_timeout_s, {}, stack, _HEADERS), url, request)


def _address(template: str) -> str:
    return template.partition("+")[2]


def _export(rows: _Rows, url: httpx.URL, request: Request) -> Export:
    spooled, suffix = spool(rows, request, origin=shown(url)), ".jsonl"
    if not spooled.size_bytes:  # no row shows the properties
        spooled.path.unlink()
        header = io.StringIO(newline="")
        csv.writer(header, lineterminator="\n").writerow(field.name for field in sync_type(request.sync_type).fields)
        spooled, suffix = spool(io.BytesIO(header.getvalue().encode()), request, origin=shown(url)), ".csv"
    return Export(
        path=spooled.path,
        origin=shown(url),
        suffix=suffix,
        size_bytes=spooled.size_bytes,
        sha256=spooled.sha256,
        validators=_validators(rows.delta, url),
        details={"pages": rows.pages, "rows": rows.count},
    )


def _query(service: _Service, request: Request) -> httpx.URL:
    """The address with `$select` and `$count`, unless it has its own."""
    url, more = service.url, []
    if not _OWN_SELECT.search(str(url)):
        type_ = sync_type(request.sync_type)
        known = _fields_by_label(type_, request.config.aliases(type_))
        first = service.page(_with(url, ["$top=1"]), is_first=True).rows[:1]
        names = [name for name in (first[0] if first else {}) if name.isidentifier() and _is_wanted(name, known)]
        more += [f"$select={','.join(names)}"] if names else []
    more += [] if _OWN_COUNT.search(str(url)) else ["$count=true"]
    return _with(url, more)


def _fields_by_label(type_: SyncType, aliases: Mapping[str, str]) -> dict[str, str]:
    """Folded label → field; empty for one that is to be ignored."""
    own = {fold_label(label): field.name for field in type_.fields for label in (field.name, *field.aliases)}
    return own | {fold_label(label): name for label, name in aliases.items()}


def _is_wanted(name: str, known: Mapping[str, str]) -> bool:
    """Whether the property is a field, or has one in it: `customer` for the label `customer.id`."""
    folded = fold_label(name)
    return any(field for label, field in known.items() if label == folded or label.startswith(f"{folded}."))


def _with(url: httpx.URL, options: list[str]) -> httpx.URL:
    query = "&".join([*([url.query.decode("ascii")] if url.query else []), *(quote(o, safe="$=,") for o in options)])
    return url.copy_with(query=query.encode("ascii")) if query else url


class _Page(NamedTuple):
    """`total`: of the rows on all pages, if the service says it. `delta`: where to ask for the changes since then, if it tracks them."""

    rows: list[dict[str, Any]]
    next: httpx.URL | None
    delta: httpx.URL | None
    total: int | None


class _Service:
    """Pages of one service, each asked for until it comes."""

    def __init__(self, getter: Getter, url: httpx.URL, request: Request) -> None:
        self._getter = getter
        self.url = url
        self._request = request
        self._deadline = time.monotonic() + request.config.fetch_timeout_s

    def page(self, url: httpx.URL, *, is_first: bool) -> _Page:
        """The page at that address. The first one is asked for once: nothing is lost when the run comes again later."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._page(url)
            except (TransientSourceError, TruncatedError) as exc:
                wait_s = getattr(exc, "retry_after_s", None) or 0.5 * 2**attempt
                if is_first or attempt == _ATTEMPTS or time.monotonic() + wait_s > self._deadline:
                    raise _passing(exc) from exc
                time.sleep(wait_s)
        raise AssertionError  # the last attempt returns or raises

    def is_unchanged(self) -> bool:
        """Whether the service says that there were no changes since the applied export. A link that has expired says nothing."""
        known = self._request.validators
        if not known.get("delta") or known.get("address") != _fingerprint(self.url):
            return False
        url: httpx.URL | None = None
        with contextlib.suppress(SourceError):
            url = self._link(self.url, known["delta"])
        if url is None:
            return False
        for _ in range(_MOST_DELTA_PAGES):
            if url is None:
                return True
            try:
                page = self.page(url, is_first=True)
            except SourceError:
                return False
            if page.rows or not (page.next or page.delta):
                return False
            url = page.next
        return False

    def _page(self, url: httpx.URL) -> _Page:
        response, answered_by = self._getter.get(url)
        with contextlib.closing(response):
            try:
                require_export(response, shown(self.url))
            except SourceError as exc:
                raise self._with_reason(exc, response) from exc
            return self._parsed(_body(response, shown(self.url), _MOST_PAGE_BYTES), answered_by)

    def _with_reason(self, exc: SourceError, response: httpx.Response) -> SourceError:
        """What the service says beside its status, without what may be a key."""
        with contextlib.suppress(SyncError, ValueError, TypeError, KeyError):
            said = str(json.loads(_body(response, "", _MOST_ERROR_BYTES))["error"]["message"])
            for _, value in _FOREIGN_OPTION.findall(str(self.url)):
                said = said.replace(value, "***") if value else said
            return type(exc)(f"{exc.message}: {printable(redact(said), limit=200)}", hint=exc.hint)
        return exc

    def _parsed(self, body: bytes, url: httpx.URL) -> _Page:
        try:
            found = json.loads(body, parse_float=_Digits, parse_int=_Digits, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            raise TransientSourceError(
                f"{shown(self.url)} answers with something that is no whole JSON", hint=curl(shown(url), "-i")
            ) from exc
        rows = found.get("value") if isinstance(found, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SourceError(
                f"{shown(self.url)} answers with no collection of OData v4",
                hint="the address must end in an entity set, such as …/ODataV4/Company('ACME')/Customers",
            )
        base = url.join(_control(found, "context") or str(url))
        count = _control(found, "count")
        delta = None
        with contextlib.suppress(SourceError):
            delta = self._link(base, _control(found, "deltaLink"))
        total = int(count) if re.fullmatch(r"[0-9]{1,15}", count) else None
        return _Page(rows, self._link(base, _control(found, "nextLink")), delta, total)

    def _link(self, base: httpx.URL, link: str) -> httpx.URL | None:
        """Raises SourceError for a link that leads away: whoever can answer in the service's place must not choose what is read."""
        if not link:
            return None
        try:
            target = base.join(link)
        except httpx.InvalidURL as exc:
            raise SourceError(
                f"{shown(self.url)} names a next page that is no address", hint=curl(shown(self.url), "-i")
            ) from exc
        if target.scheme == "http" and self.url.scheme == "https" and target.port is None:
            target = target.copy_with(scheme="https")  # a service behind a proxy that ends TLS knows no better
            target = target.copy_with(port=self.url.port) if target.host == self.url.host else target
        if not is_same_host(self.url, target) or target.userinfo:
            raise SourceError(
                f"{shown(self.url)} names a next page on another host, {shown(target)}, which is not followed",
                hint="ask who runs the service for the address that it knows itself by",
            )
        return target


def _passing(exc: SyncError) -> SyncError:
    """A page that is cut is no export that is cut: all of it is read again."""
    return TransientSourceError(exc.message, hint=exc.hint) if isinstance(exc, TruncatedError) else exc


def _body(response: httpx.Response, origin: str, most_bytes: int) -> bytes:
    content = decoded(Body(response, origin, 2 * most_bytes), response, origin)
    found = bytearray()
    while block := content.read(BLOCK_BYTES):
        found += block
        if len(found) > most_bytes:
            raise SourceError(
                f"{origin} answers with a page of more than {most_bytes} bytes", hint="put a $select into the address"
            )
    return bytes(found)


class _Rows:
    """The rows of all pages as JSON Lines. `pages` and `count` so far; `delta` after the end."""

    def __init__(self, service: _Service, first: httpx.URL) -> None:
        self._service = service
        self._next: httpx.URL | None = first
        self._seen: set[str] = set()
        self._is_counted = "$count=true" in str(first)
        self._announced: int | None = None
        self._block = memoryview(b"")
        self.pages = self.count = 0
        self.delta: httpx.URL | None = None

    def read(self, size: int, /) -> bytes:
        while not self._block and self._next is not None:
            self._block = memoryview(b"".join(self._page(self._next)))
        part, self._block = self._block[:size], self._block[size:]
        return bytes(part)

    def _page(self, url: httpx.URL) -> Iterator[bytes]:
        if str(url) in self._seen or self.pages >= MAX_PAGES:
            raise SourceError(f"{shown(url)} names pages without an end", hint="ask who runs the service")
        self._seen.add(str(url))
        page = self._service.page(url, is_first=not self.pages)
        self.pages += 1
        self.count += len(page.rows)
        self._check_count(page, url)
        self._next, self.delta = page.next, page.delta
        return (_line(row) for row in page.rows)

    def _check_count(self, page: _Page, url: httpx.URL) -> None:
        first, now = self._announced, page.total if self._is_counted else None
        self._announced = now if first is None else first
        if first is not None and now is not None and first != now:
            said = f"counts {counted(first, 'row')} on one page and {now} on another"
        elif self._announced is not None and page.next is None and self.count != self._announced:
            said = f"counts {counted(self._announced, 'row')}, and {self.count} came"
        else:
            return
        raise TransientSourceError(
            f"{shown(url)} {said}: they changed meanwhile",
            hint="it is read again; if the service never counts right, add $count=false to the address",
        )


class _Digits(str):
    """A number as it was sent."""

    __slots__ = ()


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _line(row: dict[str, Any]) -> bytes:
    """The row without OData's own entries (`@odata.etag`)."""
    return (_text({name: value for name, value in row.items() if "@" not in name}) + "\n").encode()


def _text(value: Any) -> str:
    if isinstance(value, _Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_text(v)}" for name, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value)


def _control(found: Mapping[str, Any], name: str) -> str:
    """What the service says about its answer: `@odata.count`, or `@count` as OData 4.01 may write it; empty when it says nothing."""
    value = found.get(f"@odata.{name}", found.get(f"@{name}", ""))
    return value if isinstance(value, str) else ""


def _validators(delta: httpx.URL | None, url: httpx.URL) -> dict[str, str]:
    """The delta link, if nothing in it can be a key of ours."""
    if delta is None or len(delta.raw_path) > _LONGEST_DELTA or _FOREIGN_OPTION.search(str(url)):
        return {}
    return {"address": _fingerprint(url), "delta": delta.raw_path.decode("ascii")}


def _fingerprint(url: httpx.URL) -> str:
    return hashlib.sha256(str(url).encode()).hexdigest()[:16]
