"""ETag and Last-Modified: what an answer carries, and the headers that ask for an export only if it has changed.

They belong to the address that answered: those of one redirect's target say nothing about the document that the redirect leads to on
another day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

_MAX_CHARS = 1000
_STRONG_AFTER = timedelta(seconds=60)
"""RFC 7232, 2.2.2: a younger modification time may hide a second change in the same second."""


def validators(response: httpx.Response, url: httpx.URL) -> dict[str, str]:
    """What to ask with next time; empty when the server sends nothing reliable. `url`: the address that answered."""
    found = {}
    if etag := response.headers.get("etag", "").strip():
        found["etag"] = etag
    modified, sent = response.headers.get("last-modified", ""), http_date(response.headers.get("date", ""))
    changed = http_date(modified)
    if changed is not None and sent is not None and sent - changed >= _STRONG_AFTER:
        found["last_modified"] = modified
    if not found or not all(v.isascii() and v.isprintable() and len(v) <= _MAX_CHARS for v in found.values()):
        return {}
    return {**found, "address": _fingerprint(url)}


def conditions(known: Mapping[str, str], url: httpx.URL) -> dict[str, str]:
    """The headers of a request to `url`; none when the known validators come from another address."""
    if known.get("address") != _fingerprint(url):
        return {}
    headers = {"If-None-Match": known.get("etag"), "If-Modified-Since": known.get("last_modified")}
    return {name: value for name, value in headers.items() if value}


def http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _fingerprint(url: httpx.URL) -> str:
    """Distinguishes addresses without storing them: a query may hold a key."""
    return hashlib.sha256(str(url).encode()).hexdigest()[:16]
