"""Digests of the raw lines of an export. They tell which lines are already rows of the table.

Each row of agent data has the digest of the line that it was made from (`line_digest`). A line with the same digest says the same,
so it is not parsed, copied or compared: when one line in a hundred has changed, one line in a hundred is read. What a line says
also depends on the labels, the delimiter, the locale and the parser. They are part of each digest (`layout_seed`), so no line is
known under another layout.

The digest is XXH3 with 128 bits: among a million rows and a million changed lines, the chance of a wrong match is 3e-27. Only the
ERP chooses the lines, and to send wrong data it needs no collision.

A line is known only if it was a whole record when it was read. So known lines can be left out as long as each line that is read is a
whole record too. A record of several lines (with a line end in quotes) begins with a line that is not known, and then no line may be
left out: SpanningRecordError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xxhash import xxh3_128_digest

DIGEST_BYTES = 16


class SpanningRecordError(Exception):
    """A record takes several lines, so lines can't be left out one by one."""


class LineDigests:
    """Computes the digests of lines under one layout, and tells which are known.

    `known` maps a digest to what the caller keeps for it. `left_out` counts the lines that were known.
    """

    def __init__(self, seed: int, known: dict[bytes, bytes] | None = None) -> None:
        self.left_out = 0
        self._known = known or {}
        self._found: set[bytes] = set()
        self._seed = seed

    @property
    def leaves_out(self) -> bool:
        """Whether any line can be left out at all."""
        return bool(self._known)

    @property
    def matched(self) -> int:
        """The number of known digests that were found; it is less than `left_out` when lines are repeated."""
        return len(self._found)

    @property
    def found(self) -> set[bytes]:
        """Known digests that a line has had."""
        return self._found

    @property
    def all_matched(self) -> bool:
        return len(self._found) == len(self._known)

    def missing(self) -> Iterator[bytes]:
        """What the caller keeps for each digest that was not found so far."""
        if not self.all_matched:
            found = self._found
            yield from (known for digest, known in self._known.items() if digest not in found)

    def of(self, lines: Sequence[bytes]) -> list[bytes]:
        """The digests of lines, which have no line ends."""
        seed, digest = self._seed, xxh3_128_digest
        return [digest(line, seed) for line in lines]

    def new(self, digests: Sequence[bytes]) -> Sequence[int]:
        """The places of the digests that are not known; the known ones are counted.

        Mostly all or none of them are known, and then no digest is looked at one by one.
        """
        found = self._known.keys() & digests
        if not found:
            return range(len(digests))
        self._found |= found
        all_known = len(found) == len(digests)  # else some are new, or a known line is repeated
        new = [] if all_known else [place for place, digest in enumerate(digests) if digest not in found]
        self.left_out += len(digests) - len(new)
        return new
