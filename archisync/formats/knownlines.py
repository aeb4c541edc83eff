"""Digests of the raw lines of an export: which of them have already become the rows that the table has.

Each row of agent data carries the digest of the line that it came of (`line_digest`). A line with that digest says what the row says,
so it needs no parsing, no copying and no comparison, wherever in the file it stands: of an export in which one line in a hundred has
changed, one line in a hundred is read. What a line says depends on the labels, the delimiter, the locale and the parser as well,
so all of these go into every digest (`layout_seed`): under another layout no line is known.

The digest is XXH3's, of 128 bits: among a million rows and a million changed lines, the chance of one wrong match is 3e-27. Nobody but
the ERP chooses the lines, and it could lie without a collision.

A line is only known if it was a whole record when it was read. So lines can be left out one by one as long as every line that is read
is a whole record as well; a record over several lines (a quoted line end) begins with a line that is not known, and then
nothing may be left out (`SpanningRecordError`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xxhash import xxh3_128_digest

DIGEST_BYTES = 16


class SpanningRecordError(Exception):
    """A record takes several lines: which of them stands for which row can't be told line by line."""


class LineDigests:
    """The digests of lines under one layout, and which of them are known.

    `known` is digest → whatever the caller knows of it. `left_out` counts the lines that were known.
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
        """Known digests that a line has had; fewer than `left_out` when lines are repeated."""
        return len(self._found)

    @property
    def all_matched(self) -> bool:
        return len(self._found) == len(self._known)

    def missing(self) -> Iterator[bytes]:
        """What the caller knows of each digest that no line has had so far."""
        if not self.all_matched:
            found = self._found
            yield from (known for digest, known in self._known.items() if digest not in found)

    def of(self, lines: Sequence[bytes]) -> list[bytes]:
        """Of lines without their line ends."""
        seed, digest = self._seed, xxh3_128_digest
        return [digest(line, seed) for line in lines]

    def new(self, digests: Sequence[bytes]) -> Sequence[int]:
        """The places of those that are not known; the others are counted. Mostly all of them are known or none is, and no loop of ours
        needs to look at each."""
        found = self._known.keys() & digests
        if not found:
            return range(len(digests))
        self._found |= found
        all_known = len(found) == len(digests)  # else some are new, or a line is repeated, which was known before
        new = [] if all_known else [place for place, digest in enumerate(digests) if digest not in found]
        self.left_out += len(digests) - len(new)
        return new
