"""The checksums that an HTTP server announces for an export, and whether the content has them.

`Content-MD5` (RFC 1864), `Digest` (RFC 3230), `Repr-Digest` and `Content-Digest` (RFC 9530), `X-Checksum-Sha256` and the like. A value
that can't be read is ignored.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from archisync.sources.unpack import Readable

_ALGORITHMS = {"md5": "md5", "sha": "sha1", "sha1": "sha1", "sha-1": "sha1"} | {
    name: algorithm for algorithm in ("sha256", "sha512") for name in (algorithm, f"{algorithm[:3]}-{algorithm[3:]}")
}
_ITEM = re.compile(r"([A-Za-z0-9-]+)=:?([A-Za-z0-9+/]+={0,2}):?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checksum:
    header: str
    algorithm: str
    digest: bytes


def announced(headers: Mapping[str, str]) -> list[Checksum]:
    """The checksums in the headers, a case-insensitive mapping."""
    found = [_checksum("Content-MD5", "md5", headers.get("content-md5", ""))]
    for header in ("Digest", "Repr-Digest", "Content-Digest"):
        for name, value in _ITEM.findall(headers.get(header.lower(), "")):
            found.append(_checksum(header, _ALGORITHMS.get(name.lower(), ""), value))
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        header = f"X-Checksum-{algorithm.capitalize()}"
        found.append(_checksum(header, algorithm, headers.get(header.lower(), "")))
    return [checksum for checksum in found if checksum is not None]


def _checksum(header: str, algorithm: str, value: str) -> Checksum | None:
    """From hexadecimal or base64, which differ in length; None when it is neither."""
    if not algorithm or not value:
        return None
    size = _new(algorithm).digest_size
    try:
        digest = bytes.fromhex(value) if len(value) == 2 * size else base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return None
    return Checksum(header=header, algorithm=algorithm, digest=digest) if len(digest) == size else None


def _new(algorithm: str) -> "hashlib._Hash":
    return hashlib.new(algorithm, usedforsecurity=False)  # against faults of a network, not against forgery


class Hashing:
    """A stream that computes the digests of what is read from it."""

    def __init__(self, content: Readable, checksums: list[Checksum]) -> None:
        self._content = content
        self._digests = {checksum.algorithm: _new(checksum.algorithm) for checksum in checksums}

    def read(self, size: int, /) -> bytes:
        block = self._content.read(size)
        for digest in self._digests.values():
            digest.update(block)
        return block

    def has(self, checksum: Checksum) -> bool:
        return self._digests[checksum.algorithm].digest() == checksum.digest
