"""An export whose last line has no line end: a person answers once for the pair, and a cut is still noticed."""

import pytest

from archisync.rules.guard import Evidence, Hold, Plan, judge
from archisync.rules.reasons import Rule
from archisync.store import held, runs
from archisync.store.database import Database
from tests.sync.conftest import Deliver

HEADER = "customer_id,name,phone\n"
OPEN = "the final line end is missing, so the last row may be cut off"


def rows(*numbers: int) -> str:
    """Without the final line end."""
    return HEADER + "\n".join(f"{number},Name {number},06" for number in numbers)


def _state(run: runs.Run) -> tuple[str, str | None]:
    return run.state, run.reason


def test_a_person_is_asked_once_for_a_pair(deliver: Deliver, connection: Database) -> None:
    asked = deliver(rows(1, 2, 3))
    assert _state(asked) == ("held", "no-final-line-end")
    assert asked.message == f"{OPEN}; if the ERP always writes it so, accept it once"
    held.decide(connection, asked.run_id, accept=True, by="anna", why="it always does")
    accepted = deliver(rows(1, 2, 3))
    assert _state(accepted) == ("succeeded", "applied-with-warnings")
    assert accepted.export is not None
    assert accepted.export["detected"]["final_line_end"] == "missing"
    assert _state(deliver(rows(1, 2, 3, 4))) == ("succeeded", "applied")
    for cut in (rows(1, 2, 3) + "\n4,Name", rows(1, 2, 3) + '\n4,"Name 4,06'):
        assert _state(deliver(cut)) == ("held", "truncated")
    fewer = deliver(rows(1))
    assert _state(fewer) == ("held", "row-drop")
    assert OPEN not in (fewer.message or "")
    assert _state(deliver(rows(1, 2, 3, 5) + "\n")) == ("succeeded", "applied")
    assert _state(deliver(rows(1, 2, 3, 5))) == ("held", "no-final-line-end"), "the ERP does not always write it so"


def test_what_else_is_unlikely_is_said_too(deliver: Deliver) -> None:
    deliver(rows(1, 2, 3) + "\n")
    run = deliver(rows(1))
    assert _state(run) == ("held", "row-drop")
    assert f"; {OPEN}; 2 known rows would vanish" in (run.message or "")


@pytest.mark.parametrize(
    ("evidence", "rule"),
    [
        (Evidence(seen=1, valid=1, quarantined=0, conflicting=0, known=1, newly_open=True), Rule.NO_FINAL_LINE_END),
        (Evidence(seen=1, valid=1, quarantined=0, conflicting=1, known=1, newly_open=True), Rule.DUPLICATE_KEYS),
        (Evidence(seen=1, valid=0, quarantined=1, conflicting=0, known=1, newly_open=True), Rule.ALL_REJECTED),
        (
            Evidence(
                seen=9, valid=9, quarantined=0, conflicting=0, known=9, plan=Plan(known=9, vanishing=9), newly_open=True
            ),
            Rule.PLANNED_DELETES,
        ),
    ],
)
def test_the_question_hides_no_worse_fault(evidence: Evidence, rule: Rule) -> None:
    found = judge(evidence)
    assert isinstance(found, Hold)
    assert found.rule is rule
