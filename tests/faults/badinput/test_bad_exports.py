"""Every bad export is refused, held or quarantined, with a reason that says where it is bad, and nothing else is touched.

Small exports run in this process, on one shared database. Heavy ones run as the real command, in a process whose peak memory and time
are measured.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from archisync.store import history
from archisync.store.database import Database
from tests.faults.badinput import csv_cases, files, jsonl_cases, values
from tests.faults.badinput.agent_ids import AGENT_IDS
from tests.faults.badinput.cases import BadExport, Outcome
from tests.faults.badinput.site import (
    LONGEST_S,
    Said,
    assert_harmless,
    assert_outcome,
    assert_shown_harmlessly,
    do,
    everything,
    prepare,
    rows_of,
)

MOST_MEMORY_KIB = 256 * 1024
AS_ROOT = os.geteuid() == 0
EXPORTS = (*csv_cases.ROWS, *csv_cases.FILES, *jsonl_cases.JSONL, *values.VALUES, *files.FILES)
SMALL = [case for case in EXPORTS if not case.heavy]
HEAVY = [case for case in EXPORTS if case.heavy]


def test_the_table_is_as_large_as_promised() -> None:
    forms = Counter(case.form for case in EXPORTS)
    assert len(AGENT_IDS) >= 40
    assert forms["csv"] >= 30
    assert forms["jsonl"] >= 20
    assert forms["value"] >= 20
    assert forms["file"] >= 10
    assert len(AGENT_IDS) + len(EXPORTS) >= 150
    names = [case.name for case in EXPORTS] + [case.id for case in AGENT_IDS]
    assert [name for name, times in Counter(names).items() if times > 1] == []


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_a_bad_export_is_refused_or_quarantined_and_says_where(
    case: BadExport, db: Database, shared_url: str, tmp_path: Path, typed: Callable[..., Said]
) -> None:
    if case.id == "device" and not AS_ROOT:
        pytest.skip("only root can make a device")
    site = prepare(db, shared_url, tmp_path, case)
    before, others = rows_of(db, case.sync_type, site.agent), everything(db, but_agent=site.agent)
    started = monotonic()
    run, log = do(db, site.config, case.sync_type, site.agent)
    assert monotonic() - started < LONGEST_S
    assert_outcome(db, case, site, run, before)
    assert everything(db, but_agent=site.agent) == others
    assert_shown_harmlessly(db, run, log, typed)


MEASURED = """
import sys
from pathlib import Path
from archisync.__main__ import main
try:
    sys.exit(main())
finally:
    status = Path("/proc/self/status").read_text()
    print(status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
@pytest.mark.parametrize("case", HEAVY, ids=lambda case: case.name)
def test_a_boundless_export_ends_in_bounded_memory_and_time(
    case: BadExport, db: Database, shared_url: str, tmp_path: Path, typed: Callable[..., Said]
) -> None:
    site = prepare(db, shared_url, tmp_path, case)
    before, others = rows_of(db, case.sync_type, site.agent), everything(db, but_agent=site.agent)
    command = [sys.executable, "-c", MEASURED, "run", case.sync_type, "--agent", site.agent, "--inline"]
    started = monotonic()
    done = subprocess.run(
        command, env=os.environ | site.config.environment, capture_output=True, text=True, check=False
    )
    assert monotonic() - started < LONGEST_S
    *talk, peak_kib = done.stderr.splitlines()
    assert int(peak_kib) <= MOST_MEMORY_KIB
    assert done.returncode == (6 if case.outcome is Outcome.HELD else 0)
    assert_harmless(done.stdout, *talk)
    (newest,) = history.newest(db, agent_id=site.agent, limit=1)
    run = history.get(db, newest.run_id)
    assert_outcome(db, case, site, run, before)
    assert everything(db, but_agent=site.agent) == others
    assert_shown_harmlessly(db, run, "", typed)
