"""The exec source: the limits of a program, and what is left of it and of those that it started: nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archisync.base.errors import (
    ExportError,
    SourceError,
    TransientSourceError,
)
from tests.conftest import REPOSITORY
from tests.support.fetching import fetched, refused, request_of
from tests.support.processes import wait_until_gone
from tests.support.programs import script

# --- limits -------------------------------------------------------------------------------------------------------


def test_program_that_takes_too_long_is_transient_and_ends_with_its_children(tmp_path: Path) -> None:
    program = script(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; echo hi >&2; wait")
    error = refused(request_of(tmp_path, f"exec:{program}", ARCHISYNC_FETCH_TIMEOUT_S="1"))
    assert (type(error), error.message) == (TransientSourceError, "exec:export.sh did not end within 1 s: hi")
    for name in ("child", "self"):
        wait_until_gone(int((tmp_path / name).read_text()))


def test_program_that_closed_its_output_still_has_to_end_in_time(tmp_path: Path) -> None:
    program = script(tmp_path, "echo order_id; exec >&-; sleep 1000")
    error = refused(request_of(tmp_path, f"exec:{program}", ARCHISYNC_FETCH_TIMEOUT_S="1"))
    assert type(error) is TransientSourceError


def test_program_that_must_stop_gets_time_to_clean_up(tmp_path: Path) -> None:
    program = script(tmp_path, f"trap 'echo bye > {tmp_path}/closed; exit' TERM; echo x; while :; do sleep 0.05; done")
    refused(request_of(tmp_path, f"exec:{program}", ARCHISYNC_FETCH_TIMEOUT_S="1"))
    assert (tmp_path / "closed").read_text() == "bye\n"


def test_program_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archisync.sources.program.STOP_GRACE_S", 0.1)
    program = script(tmp_path, f"trap '' TERM; echo $$ > {tmp_path}/self; while :; do sleep 0.05; done")
    refused(request_of(tmp_path, f"exec:{program}", ARCHISYNC_FETCH_TIMEOUT_S="1"))
    wait_until_gone(int((tmp_path / "self").read_text()))


def test_endless_output_is_refused_at_the_limit_and_the_program_is_ended(tmp_path: Path) -> None:
    program = script(tmp_path, f"echo $$ > {tmp_path}/self; exec yes")
    error = refused(request_of(tmp_path, f"exec:{program}", max_bytes=1_000_000))
    assert (type(error), error.message) == (
        ExportError,
        "exec:export.sh has more than 1000000 bytes (decompressed)",
    )
    wait_until_gone(int((tmp_path / "self").read_text()))


def test_memory_is_limited_when_that_is_configured(tmp_path: Path) -> None:
    program = tmp_path / "hungry.py"
    program.write_text("x = bytearray(800_000_000); print('order_id')\n")
    template = f"exec:{sys.executable} -I {program}"
    assert fetched(request_of(tmp_path, template)).size_bytes == 9
    for left in (tmp_path / "spool").iterdir():
        left.unlink()
    error = refused(request_of(tmp_path, template, ARCHISYNC_EXEC_MEMORY_BYTES="500000000"))
    assert type(error) is SourceError
    assert error.message.endswith("MemoryError")


# --- nothing is left ----------------------------------------------------------------------------------------------


def test_child_that_outlives_the_program_is_ended(tmp_path: Path) -> None:
    program = script(tmp_path, f"sleep 1000 >/dev/null 2>&1 & echo $! > {tmp_path}/child; echo order_id")
    assert fetched(request_of(tmp_path, f"exec:{program}")).size_bytes == 9
    wait_until_gone(int((tmp_path / "child").read_text()))


def test_child_that_only_holds_standard_error_delays_nothing(tmp_path: Path) -> None:
    program = script(tmp_path, f"sleep 1000 >/dev/null & echo $! > {tmp_path}/child; echo order_id; echo said >&2")
    assert fetched(request_of(tmp_path, f"exec:{program}")).details == {"stderr": ["said"]}
    wait_until_gone(int((tmp_path / "child").read_text()))


def test_output_of_a_filter_after_the_end_of_the_program_belongs_to_the_export(tmp_path: Path) -> None:
    program = script(tmp_path, "echo first; (sleep 0.3; echo last) & exit 0")
    assert fetched(request_of(tmp_path, f"exec:{program}")).path.read_text() == "first\nlast\n"


def test_filter_may_go_on_as_long_as_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archisync.sources.program.OUTPUT_GRACE_S", 0.6)
    program = script(tmp_path, "(for n in 1 2 3 4; do sleep 0.25; echo $n; done) & exit 0")
    assert fetched(request_of(tmp_path, f"exec:{program}")).path.read_text() == "1\n2\n3\n4\n"


def test_output_that_a_child_holds_after_the_end_of_the_program_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archisync.sources.program.OUTPUT_GRACE_S", 0.2)
    program = script(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/child; echo order_id")
    error = refused(request_of(tmp_path, f"exec:{program}"))
    assert (type(error), error.message) == (
        SourceError,
        "exec:export.sh ended, but a process that it started still holds its standard output",
    )
    wait_until_gone(int((tmp_path / "child").read_text()))


def test_program_and_what_it_started_die_with_a_killed_worker(tmp_path: Path) -> None:
    fifo, never = tmp_path / "started", tmp_path / "never"
    os.mkfifo(fifo)
    os.mkfifo(never)
    program = script(tmp_path, f"cat {never} & echo $$ $! > {fifo}; cat {never}")
    fetch = (
        "import os, pathlib\n"
        "from archisync.rules.config import Config\n"
        "from archisync.sources import Request, fetch\n"
        f"fetch(Request(template='exec:{program}', agent_id='a', sync_type='orders', spool_dir=pathlib.Path({str(tmp_path)!r}),\n"
        "              max_bytes=1000, config=Config.from_environment(os.environ)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", fetch], cwd=REPOSITORY) as worker:
        pids = [int(pid) for pid in fifo.read_text().split()]
        worker.send_signal(signal.SIGKILL)
    for pid in pids:
        wait_until_gone(pid)
