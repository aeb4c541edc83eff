"""Rows whose lines are known: a later export is compared only where it has new lines.

Each row of the table has the digest of the line that it was made from (archisync.formats.knownlines). A line with a known digest says
what its row says, so it is neither copied nor compared. What remains are the new lines, and the rows whose lines are gone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from psycopg import sql

from archisync.formats.knownlines import DIGEST_BYTES, LineDigests, SpanningRecordError
from archisync.rules.guard import Plan
from archisync.store.applied_exports import Begun
from archisync.sync.copying import Staged
from archisync.sync.records import RecordReader
from archisync.sync.staging import stage
from archisync.sync.target import OTHERS, Target

MOST_KNOWN = 120_000
"""Rows whose digests are kept in memory, some 30 MB. A larger table is compared as a whole: 1,000,000 rows take seconds, and no memory."""
_PLACE_BYTES = 10  # a ctid, and the table or partition that it is in


class DigestLayouts(NamedTuple):
    """Under which layout the digests of the rows were made. `now`: the layout of this export's lines.
    `before`: what was found when the transaction began."""

    now: str
    before: Begun

    @classmethod
    def of(cls, line_layout: int, before: Begun) -> DigestLayouts:
        return cls(f"{line_layout:016x}", before)

    @property
    def renew(self) -> bool:
        """Whether all rows are compared and get new digests: after somebody else wrote to the rows, and when the layout has changed.

        A new layout must come twice in a row, so that a single odd export rewrites nothing.
        """
        before = self.before
        return before.outside_changes or before.line_layout == self.now != before.digest_layout

    def after(self, plan: Plan) -> str | None:
        """The layout of the rows' digests once the plan is applied."""
        only_this_export = not (plan.known or plan.deleted or plan.restored)
        return self.now if self.renew or only_this_export else self.before.digest_layout


class KnownRows:
    """The agent's rows as PostgreSQL packs them: for each row with a digest the digest and the row's place (`ctid` and
    `tableoid`), one after the other; for each row without a digest its place as text."""

    def __init__(self, packed: bytes, others: Sequence[str]) -> None:
        self._others = others
        self._size = len(packed) // (DIGEST_BYTES + _PLACE_BYTES) + len(others)
        self.by_digest = dict(struct.iter_unpack(f"{DIGEST_BYTES}s{_PLACE_BYTES}s", packed))
        """Digest → place."""

    def __len__(self) -> int:
        """The number of all rows, with a digest or without."""
        return self._size

    def other_places(self, digests: LineDigests) -> Iterator[tuple[str, str]]:
        """The places of the rows that no line of the export has stood for, as PostgreSQL writes a `tableoid` and a `ctid`."""
        for other in self._others:
            part, _, version = other.partition(" ")
            yield part, version
        for digest in digests.missing:
            block, item, part = struct.unpack(">IHI", self.by_digest[digest])
            yield f"{part}", f"({block},{item})"


def stage_new_lines(target: Target, records: RecordReader) -> Staged | None:
    """Copy only the new lines into the stage, and compare only the rows whose lines are gone.

    Returns None, and stages nothing, when the export can't be told apart line by line, or when no row is known or too many are:
    `stage_all` then reads everything. To be used only while nobody else has written to the rows. Raises what reading raises.
    """
    known = _known_rows(target)
    if known is None:
        return None
    digests = LineDigests(records.line_layout, known.by_digest)
    try:
        with target.db.transaction():
            staged = stage(target, records, digests)
            if digests.matched:
                _compare_others(target, known, digests)
    except SpanningRecordError:
        target.compare_all()
        return None
    staged.known, staged.lines = digests.matched, digests
    staged.valid += digests.matched
    staged.repeated += digests.left_out - digests.matched
    staged.nothing_new = bool(digests.matched) and digests.all_matched and staged.seen == digests.left_out
    return staged


def _known_rows(target: Target) -> KnownRows | None:
    """The agent's rows; None when no line is known, or when there are too many rows."""
    statement = target.statement(
        "select string_agg(uuid_send(r.line_digest) || tidsend(r.place) || oidsend(r.part), '')"
        "         filter (where r.line_digest is not null) as known,"
        "       array_agg(r.part::text || ' ' || r.place::text) filter (where r.line_digest is null) as others"
        "  from (select t.line_digest, t.ctid as place, t.tableoid as part from {table} t where {mine} limit {most}) r",
        most=sql.Literal(MOST_KNOWN + 1),
    )
    row = target.db.execute(statement, target.params, binary=True).fetchone()
    if row is None or row["known"] is None:
        return None
    known = KnownRows(row["known"], row["others"] or [])
    return known if len(known) <= MOST_KNOWN else None  # with more, the limit has cut rows off


def _compare_others(target: Target, known: KnownRows, digests: LineDigests) -> None:
    """Let the comparison look only at rows that may differ from the export: their line is gone, or was never known.

    Raises SpanningRecordError when a new line has the key of a row whose line is known: the export then has that key twice, and only a
    look at all rows can say what it means.
    """
    target.db.execute(sql.SQL("create temp table {} (part oid, version tid) on commit drop").format(OTHERS))
    with target.db.cursor() as cursor, cursor.copy(sql.SQL("copy {} from stdin").format(OTHERS)) as copy:
        for place in known.other_places(digests):
            copy.write_row(place)
    # Else a join with these rows may be planned for a few, and compare each with each.
    target.db.execute(sql.SQL("analyze {}").format(OTHERS))
    twice = target.count(
        "select count(*) as n from {stage} s cross join lateral"
        " (select t.tableoid as part, t.ctid as version from {table} t where {mine} and {same} limit 1) r"
        " where not exists (select from {others} o where o.part = r.part and o.version = r.version)",
        others=OTHERS,
    )
    if twice:
        raise SpanningRecordError
    target.compare_others()
