"""Of a later export only the new lines are read, in memory or in the database. The outcome is that of comparing the whole export."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archisync.formats.knownlines import LineDigests, SpanningRecordError
from archisync.store import runs
from archisync.store.database import Database
from archisync.store.runs import Counts
from archisync.sync import apply, inmemory, knownrows
from archisync.sync.knownrows import KnownRows
from archisync.sync.records import Quarantined, Record, RecordReader
from archisync.sync.target import Target
from tests.support.properties import examples
from tests.support.rows import count, forget_exports
from tests.sync.conftest import AGENT, Deliver

BY_LINES, AS_A_WHOLE = AGENT, "as.a.whole"
NOTHING = -1
"""As inmemory.MOST_ROWS: everything is compared in the database."""
HEADER = ["customer_id", "name", "phone", "city", "orders_count"]
ROWS = [[f"C{n}", f"Name {n}", f"06 {n}", "Roma", "7"] for n in range(20)]


def text_of(rows: list[list[str]], header: list[str] = HEADER) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def table_of(db: Database, agent_id: str) -> list[dict[str, Any]]:
    return db.execute(
        "select customer_id, name, phone, city, orders_count, absent_since is not null as gone from agents.customers"
        " where agent_id = %s order by 1",
        [agent_id],
    ).fetchall()


def outcome(run: runs.Run) -> tuple[Any, ...]:
    """What both ways must agree on. A run without a new line says that it compared nothing."""
    reason = run.reason if run.reason != "unchanged" else "applied"
    warnings = [(w["code"], w["count"], w.get("rows")) for w in run.warnings]
    return run.state, reason, run.counts, warnings


def assert_counts(counts: Counts, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """The counts are those that the table itself shows."""
    old = {row["customer_id"]: row for row in before}
    new = {row["customer_id"]: row for row in after}
    differ = [key for key in old.keys() & new.keys() if {**old[key], "gone": None} != {**new[key], "gone": None}]
    assert (counts.inserted, counts.updated) == (len(new.keys() - old.keys()), len(differ))
    assert counts.deleted == len(old.keys() - new.keys())
    assert counts.absent == sum(new[key]["gone"] and not old[key]["gone"] for key in old.keys() & new.keys())
    assert counts.unchanged >= 0


cell = st.sampled_from(["", "a", "b", "a b", "à", " a", "x,y", 'say "x"'])
row = st.tuples(
    st.sampled_from([f"C{n}" for n in range(6)] + [""]),
    st.sampled_from(["", "Uno", "Due", "Tre", "two\nlines"]),
    cell,
    cell,
    st.sampled_from(["", "1", "2", "1.000", "many"]),
).map(list)
export = st.tuples(
    st.lists(row, min_size=1, max_size=9),
    st.sampled_from([HEADER, HEADER, HEADER, [*HEADER[:3], "note", HEADER[4]]]),
    st.sampled_from(["", "", "", "\n", "short\n", "\n\n"]),
    st.sampled_from(["Last", "Last", "Other"]),
    st.sampled_from(
        ["", "", "", "update agents.customers set phone = 'else', line_digest = line_digest where customer_id = 'C1'"]
    ),
)


class Ways:
    """The ways in which an export is compared, each with an agent of its own. `most_rows`: where the difference becomes too large to be
    found in memory, which may be half-way."""

    def __init__(self, deliver: Deliver, db: Database, monkeypatch: pytest.MonkeyPatch, most_rows: int) -> None:
        self._deliver, self._db, self._monkeypatch = deliver, db, monkeypatch
        self._limits = {BY_LINES: inmemory.MOST_ROWS, "in.memory": inmemory.MOST_ROWS, "in.the.database": most_rows}
        self._limits |= {AS_A_WHOLE: NOTHING}

    def __call__(self, text: str) -> dict[str, runs.Run]:
        return {agent_id: self.deliver(text, agent_id) for agent_id in self._limits}

    def deliver(self, text: str, agent_id: str, trigger: str | None = None) -> runs.Run:
        by_lines = agent_id in (BY_LINES, "in.the.database")
        with self._monkeypatch.context() as patched:
            patched.setattr(inmemory, "MOST_ROWS", self._limits[agent_id])
            return self._deliver(text, agent=agent_id, trigger=trigger or ("scheduled" if by_lines else "forced"))

    def holds(self, ended: dict[str, runs.Run]) -> list[dict[str, Any]]:
        return self._db.execute(
            "select rule, message, acceptable, sha256, rows_valid, known_rows, sample, planned, changes"
            " from system.held_exports where run_id = any (%s)",
            [[run.run_id for run in ended.values()]],
        ).fetchall()


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exports=st.lists(export, min_size=2, max_size=5), most_rows=st.sampled_from([NOTHING, NOTHING, 0, 1, 3]))
def test_every_way_to_compare_an_export_has_the_same_outcome(
    deliver: Deliver,
    connection: Database,
    monkeypatch: pytest.MonkeyPatch,
    exports: list[tuple[list[list[str]], list[str], str, str, str]],
    most_rows: int,
) -> None:
    for statement in ("agents.customers", "system.sync_runs cascade", "system.outside_changes"):
        connection.execute(f"truncate {statement}".encode())
    forget_exports(connection)
    ways = Ways(deliver, connection, monkeypatch, most_rows)
    for rows, header, tail, last, outside in exports:
        text = text_of(rows, header) + tail + f"C9,{last},,,\n"
        before = table_of(connection, AS_A_WHOLE)
        ended = ways(text)
        as_a_whole, after = ended[AS_A_WHOLE], table_of(connection, AS_A_WHOLE)
        for agent_id, run in ended.items():
            if run.reason == "unchanged-at-source":  # the same bytes again: they are not read, so there are no warnings
                assert (run.state, run.counts) == (as_a_whole.state, as_a_whole.counts)
            else:
                assert outcome(run) == outcome(as_a_whole), agent_id
            assert table_of(connection, agent_id) == after
        holds = ways.holds(ended)
        assert len(holds) in (0, len(ended))
        assert holds == holds[:1] * len(holds)  # a person sees and accepts the same whichever way it was
        if as_a_whole.state == "succeeded":
            assert as_a_whole.counts is not None
            assert_counts(as_a_whole.counts, before, after)
        if outside:
            connection.execute(outside.encode())
    for agent_id, run in ended.items():
        again = ways.deliver(text, agent_id, "forced")
        if run.state == again.state == "succeeded" and not outside:
            assert again.counts is not None
            # Every digest was that of its row's line.
            assert (again.counts.inserted, again.counts.updated) == (0, 0)


CHANGED = [["C3", "Another", "06 3", "Roma", "7"], *ROWS[4:], ["C99", "New", "", "", ""], ROWS[0], ROWS[1]]


def test_known_lines_are_neither_parsed_nor_compared_in_memory(
    deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(text_of(ROWS))
    parsed: list[Record | Quarantined] = []
    read = RecordReader.parsed

    def watched(self: RecordReader, digests: LineDigests | None) -> Iterator[Record | Quarantined]:
        for record in read(self, digests):
            parsed.append(record)
            yield record

    monkeypatch.setattr(RecordReader, "parsed", watched)
    assert deliver(text_of(CHANGED)).counts == Counts(seen=20, inserted=1, updated=1, unchanged=18, absent=1)
    assert [record.values[0] for record in parsed if isinstance(record, Record)] == ["C3", "C99"]
    assert len(parsed) == 2


def test_known_lines_are_neither_parsed_nor_copied(deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inmemory, "MOST_ROWS", NOTHING)
    deliver(text_of(ROWS))
    staged: list[int] = []
    write = apply.write

    def watched(target: Target, *arguments: Any) -> Counts:
        staged.append(count(target.db, "select count(*) from archisync_stage"))
        return write(target, *arguments)

    monkeypatch.setattr(apply, "write", watched)
    assert deliver(text_of(CHANGED)).counts == Counts(seen=20, inserted=1, updated=1, unchanged=18, absent=1)
    assert staged == [2]


@pytest.mark.parametrize("trigger", ["scheduled", "forced"])
def test_new_rows_are_not_counted_as_updated_where_every_known_one_changes(deliver: Deliver, trigger: str) -> None:
    deliver(text_of([["C1", "a", "1", "", ""], ["C2", "b", "2", "", ""]]))
    run = deliver(
        text_of([["C1", "x", "1", "", ""], ["C2", "y", "2", "", ""], ["C3", "z", "3", "", ""]]), trigger=trigger
    )
    assert run.counts == Counts(seen=3, inserted=1, updated=2)


def test_known_rows_are_not_written(deliver: Deliver, connection: Database) -> None:
    deliver(text_of(ROWS))
    versions = "select array_agg(xmin::text || ctid::text order by customer_id) as v from agents.customers where customer_id <> 'C3'"
    before = connection.execute(versions).fetchone()
    assert deliver(text_of([[*ROWS[3][:1], "Another", "", "", ""], *ROWS[:3], *ROWS[4:]])).counts == Counts(
        seen=20, updated=1, unchanged=19
    )
    assert connection.execute(versions).fetchone() == before


def test_a_row_with_the_same_values_in_another_notation_is_not_written(deliver: Deliver, connection: Database) -> None:
    deliver(text_of(ROWS))
    versions = "select array_agg(xmin::text || ctid::text order by customer_id) as v from agents.customers"
    before = connection.execute(versions).fetchone()
    words = text_of(ROWS).replace("C3,Name 3,", 'C3,"  Name  3 ",')
    assert deliver(words).counts == Counts(seen=20, unchanged=20)
    assert connection.execute(versions).fetchone() == before


def test_a_known_line_beside_a_new_line_of_its_key_is_held(deliver: Deliver, connection: Database) -> None:
    deliver(text_of(ROWS))
    held = deliver(text_of([*ROWS, ["C3", "Another", "", "", ""]]))
    assert (held.state, held.reason) == ("held", "duplicate-keys")
    repeated = deliver(text_of([*ROWS, ROWS[3], ROWS[3]]))
    assert repeated.counts == Counts(seen=22, unchanged=20)
    assert [(w["code"], w["count"]) for w in repeated.warnings] == [("repeated-rows", 2)]


@pytest.mark.parametrize(("trigger", "reason"), [("scheduled", "unchanged-at-source"), ("forced", "applied")])
def test_an_absent_row_is_marked_first_deleted_second_and_restored_when_it_returns(
    deliver: Deliver, connection: Database, trigger: str, reason: str
) -> None:
    deliver(text_of(ROWS), trigger=trigger)
    absent = Counts(seen=18, unchanged=18, absent=2)
    assert deliver(text_of(ROWS[2:]), trigger=trigger).counts == absent
    back = Counts(seen=19, unchanged=19, restored=1, deleted=1)
    assert deliver(text_of(ROWS[1:]), trigger=trigger).counts == back
    assert deliver(text_of(ROWS[1:]), trigger=trigger).reason == reason
    assert count(connection, "select count(*) from agents.customers where absent_since is not null") == 0


def test_a_record_over_several_lines_is_read_as_one(deliver: Deliver, connection: Database) -> None:
    """The second line of the quoted cell equals the line of a known row."""
    deliver(text_of(ROWS))
    inside = text_of([ROWS[5]]).split("\n")[1]
    rows = [["C50", f"first\n{inside}\nlast", "", "", ""], *ROWS[:5], *ROWS[6:]]
    run = deliver(text_of(rows))
    assert run.counts == Counts(seen=20, inserted=1, unchanged=19, absent=1)
    name = connection.execute("select name from agents.customers where customer_id = 'C50'").fetchone()
    assert name == {"name": f"first {inside} last"}


def test_the_second_export_of_a_new_layout_renews_the_digests(deliver: Deliver, connection: Database) -> None:
    deliver(text_of(ROWS))
    digests = "select array_agg(line_digest order by customer_id) as d from agents.customers"
    before = connection.execute(digests).fetchone()
    moved = [[row[1], row[0], *row[2:]] for row in ROWS]
    header = ["name", "customer_id", *HEADER[2:]]
    assert deliver(text_of(moved, header)).counts == Counts(seen=20, unchanged=20)
    assert connection.execute(digests).fetchone() == before  # a single export of a new layout may be a mistake
    assert deliver(text_of(moved[::-1], header)).counts == Counts(seen=20, unchanged=20)
    after = connection.execute(digests).fetchone()
    assert before is not None
    assert after is not None
    assert not set(before["d"]) & set(after["d"])
    reordered = deliver(text_of(moved[5:] + moved[:5], header))
    assert (reordered.reason, reordered.counts) == ("unchanged", Counts(seen=20, unchanged=20))


def test_digests_are_renewed_while_some_rows_change_with_every_export(deliver: Deliver, connection: Database) -> None:
    deliver(text_of(ROWS))
    header = [*HEADER, "note"]
    old = "select count(*) from agents.customers where line_digest = any (%s)"
    before = connection.execute("select array_agg(line_digest) as d from agents.customers").fetchone()
    assert before is not None
    for version, left in ((1, 19), (2, 0)):
        changed = [[ROWS[0][0], f"Name v{version}", *ROWS[0][2:], ""], *([*row, ""] for row in ROWS[1:])]
        assert deliver(text_of(changed, header)).counts == Counts(seen=20, updated=1, unchanged=19)
        assert count(connection, old, before["d"]) == left
    assert deliver(text_of(changed[::-1], header)).counts == Counts(seen=20, unchanged=20)


def test_lines_that_differ_in_an_ignored_column_write_nothing(deliver: Deliver, connection: Database) -> None:
    versions = "select array_agg(xmin::text || ctid::text order by customer_id) as v from agents.customers"
    header = [*HEADER, "printed at"]
    deliver(text_of([[*row, "10:00"] for row in ROWS], header))
    before = connection.execute(versions).fetchone()
    for minute in range(1, 4):
        run = deliver(text_of([[*row, f"10:0{minute}"] for row in ROWS], header))
        assert run.counts == Counts(seen=20, unchanged=20)
    assert connection.execute(versions).fetchone() == before


def test_a_row_that_somebody_else_wrote_is_compared_despite_its_digest(deliver: Deliver, connection: Database) -> None:
    deliver(text_of(ROWS))
    connection.execute("update agents.customers set name = 'Else' where customer_id = 'C3'")
    assert deliver(text_of(ROWS[::-1])).counts == Counts(seen=20, updated=1, unchanged=19)
    connection.execute(
        'insert into agents.customers select (jsonb_populate_record(c, \'{"customer_id": "C77"}\')).* from agents.customers c'
        " where customer_id = 'C3'"
    )
    added = [*ROWS, ["C77", "Name 3", "06 3", "Roma", "7"]]
    assert deliver(text_of(added)).counts == Counts(seen=21, unchanged=21)
    assert deliver(text_of([*ROWS[:3], *ROWS[4:], added[-1]])).counts == Counts(seen=20, unchanged=20, absent=1)


def test_a_table_with_too_many_rows_is_compared_as_a_whole(deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many for the memory its digests are looked up when the lines are staged; with too many for that, not at all."""
    monkeypatch.setattr(inmemory, "MOST_DIGESTS", 19)
    monkeypatch.setattr(knownrows, "MOST_KNOWN", 19)
    deliver(text_of(ROWS))
    again = deliver(text_of(ROWS[::-1]))
    assert (again.reason, again.counts) == ("applied", Counts(seen=20, unchanged=20))
    monkeypatch.setattr(knownrows, "MOST_KNOWN", 20)
    assert deliver(text_of(ROWS)).reason == "unchanged"
    monkeypatch.setattr(inmemory, "MOST_DIGESTS", 20)
    monkeypatch.setattr(knownrows, "MOST_KNOWN", 19)
    assert deliver(text_of(ROWS[::-1])).reason == "unchanged"


def test_rows_without_a_digest_count_towards_the_limit(
    deliver: Deliver, connection: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the limit would cut off rows that are then never compared: here the last two of a scan, which the export does not have."""
    deliver(text_of(ROWS))
    connection.execute("alter table agents.customers disable trigger user")
    connection.execute("update agents.customers set line_digest = null where customer_id < 'C15'")
    connection.execute("alter table agents.customers enable trigger user")
    monkeypatch.setattr(inmemory, "MOST_DIGESTS", 17)
    monkeypatch.setattr(knownrows, "MOST_KNOWN", 17)
    in_any_order = "select customer_id from agents.customers where agent_id = %s limit 100"
    gone = {row["customer_id"] for row in connection.execute(in_any_order, [BY_LINES]).fetchall()[-2:]}
    run = deliver(text_of([row for row in ROWS if row[0] not in gone]))
    assert run.counts == Counts(seen=18, unchanged=18, absent=2)


def test_the_last_row_may_be_short_only_when_a_known_line_follows(deliver: Deliver) -> None:
    deliver(text_of(ROWS))
    assert deliver(text_of(ROWS) + "C3,short\n").reason == "truncated"
    followed = deliver(text_of(ROWS[:3]) + "C3,short\n" + text_of(ROWS[3:]).split("\n", 1)[1])
    assert (followed.state, followed.counts) == ("succeeded", Counts(seen=21, unchanged=20, quarantined=1))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_digests_tell_which_lines_are_new_and_which_rows_are_missing(size: int) -> None:
    lines = [b"a", b"b", b"c"]
    layout = LineDigests(1)
    digests = layout.of(lines)
    assert layout.of(lines) == digests
    assert not set(LineDigests(2).of(lines)) & set(digests)
    packed = b"".join(digest + bytes([0, 0, 0, 7, 0, n, 0, 0, 0, 42]) for n, digest in enumerate(digests[:size], 1))
    rows = KnownRows(packed, ["42 (9,9)"])
    known = LineDigests(1, rows.by_digest)
    assert len(rows) == size + 1
    assert list(known.new(digests[:2] + digests[:1])) == [
        place for place, line in enumerate("aba") if "abc".index(line) >= size
    ]
    assert (known.left_out, known.matched) == ({0: 0, 1: 2, 3: 3}[size], min(size, 2))
    assert list(rows.other_places(known)) == [("42", "(9,9)"), *([("42", "(7,3)")] if size == 3 else [])]
    assert known.leaves_out == bool(size)
    assert issubclass(SpanningRecordError, Exception)
