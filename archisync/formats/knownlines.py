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

from collections.abc import Collection, Iterable, Sequence, Set

from xxhash import xxh3_128_digest

DIGEST_BYTES = 16
MOST_LEAST = 3
"""Of an export's digests, in order: those that are compared with other agents' first one."""


class SpanningRecordError(Exception):
    """A record takes several lines, so lines can't be left out one by one."""


class LineDigests:
    """Computes the digests of lines under one layout, and tells which are `known`. `left_out` counts the lines that were known."""

    def __init__(self, seed: int, known: Collection[bytes] = ()) -> None:
        self.left_out = 0
        self._known = known
        self._missing = set(known)
        self._seed = seed

    @property
    def leaves_out(self) -> bool:
        """Whether any line can be left out at all."""
        return bool(self._known)

    @property
    def matched(self) -> int:
        """The number of known digests that were found; it is less than `left_out` when lines are repeated."""
        return len(self._known) - len(self._missing)

    @property
    def all_matched(self) -> bool:
        return not self._missing

    @property
    def missing(self) -> Set[bytes]:
        """Known digests that no line has had so far."""
        return self._missing

    def found(self) -> Set[bytes]:
        """Known digests that a line has had."""
        return set(self._known) - self._missing

    def is_found(self, digest: bytes | None) -> bool:
        """Whether the digest is known and a line has had it."""
        return digest in self._known and digest not in self._missing

    def of(self, lines: Sequence[bytes]) -> list[bytes]:
        """The digests of lines, which have no line ends."""
        seed, digest = self._seed, xxh3_128_digest
        return [digest(line, seed) for line in lines]

    def new(self, digests: Sequence[bytes]) -> Sequence[int]:
        """The places of the digests that are not known; the known ones are counted."""
        known = self._known
        if not known:
            return range(len(digests))
        missing = len(self._missing)
        self._missing.difference_update(digests)
        # Mostly all of them are, and then none is looked at one by one.
        all_known = missing - len(self._missing) == len(digests)
        new = [] if all_known else [place for place, digest in enumerate(digests) if digest not in known]
        self.left_out += len(digests) - len(new)
        return new


def least_digests(least: list[bytes], digests: Iterable[bytes]) -> list[bytes]:
    """The first MOST_LEAST of both in order; `least` are those of earlier digests. Two exports with most lines in common mostly share the
    first one."""
    if len(least) == MOST_LEAST:
        digests = [digest for digest in digests if digest < least[-1]]
    return sorted({*least, *digests})[:MOST_LEAST] if digests else least
