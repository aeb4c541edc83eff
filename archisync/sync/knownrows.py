"""The rows of a table whose lines are known, as PostgreSQL packs them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from archisync.formats.knownlines import DIGEST_BYTES, LineDigests

_PLACE_BYTES = 6


class KnownRows:
    """Rows of a table as PostgreSQL packs them: the digest of the line and the place (`ctid`), one after the other; and the places
    of rows without a digest."""

    def __init__(self, packed: bytes, others: Sequence[str]) -> None:
        self._packed = packed
        self._others = others

    def __len__(self) -> int:
        """Of all rows, with a digest or without."""
        return len(self._packed) // (DIGEST_BYTES + _PLACE_BYTES) + len(self._others)

    def by_digest(self) -> dict[bytes, bytes]:
        """Digest → place."""
        return dict(struct.iter_unpack(f"{DIGEST_BYTES}s{_PLACE_BYTES}s", self._packed))

    def places_but_of(self, digests: LineDigests) -> Iterator[str]:
        """Of the rows that no line was known to stand for, as PostgreSQL writes a `ctid`."""
        yield from self._others
        for place in digests.missing():
            yield "({},{})".format(*struct.unpack(">IH", place))
