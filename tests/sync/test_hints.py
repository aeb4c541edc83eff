"""An error's hint reaches the person on every way; and whatever happens around a run ends up in the run."""

import ast
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import archisync
from archisync.base.errors import ArchisyncError, ExportError, NoExportError, TransientSourceError
from archisync.base.log import EventLog
from archisync.rules.config import Config
from archisync.schedule.notify import document
from archisync.store import history, notices, queued_runs
from archisync.store.database import Database
from archisync.store.runs import Run
from archisync.sync import run as sync_run
from archisync.sync.verdict import told
from archisync.work.heartbeat import Heartbeat
from tests.conftest import Cli
from tests.support.rows import do_run
from tests.sync.conftest import AGENT, Deliver

SAY_THEMSELVES_WHAT_TO_DO = [
    "doctor/here.py: except ArchisyncError as exc:",  # of types with the same error the first one's finding, which has the hint
    "rules/synctypes.py: except ConfigurationError as exc:",
    "sources/plugin.py: except PluginError as exc:",  # `doctor` has a hint of its own
    "sources/plugin.py: except _EXPECTED as exc:",  # looks at the types alone
    "web/contract.py: except (UnreachableError, ConfigurationError) as exc:",
    "pages/signin.py: except Refusal as exc:",  # a form says what it refuses
]
UNREADABLE = 'customer_id,name\nC1,"a "b" c"\n'
SOURCE = "ARCHISYNC_SOURCE"


def _hint_of(run: Run) -> str:
    assert run.hint
    return run.hint


def test_the_hint_of_a_hold_is_on_every_way_to_a_person(
    deliver: Deliver, connection: Database, cli: Cli, exports: Path, tmp_path: Path
) -> None:
    run = deliver(UNREADABLE)
    hint = _hint_of(run)
    env = {SOURCE: f"{exports}/{{agent}}/{{type}}.csv"}
    number = str(run.run_id)
    assert run.state == "held"
    assert json.loads(cli("show", number, "--json").stdout)["run"]["hint"] == hint
    assert json.loads(cli("held", "show", number, "--json").stdout)["held"]["hint"] == hint
    pair = ("customers", "--agent", AGENT)
    ways = [
        cli("show", number), cli("held", "list"), cli("held", "show", number), cli("history"), cli("status"),
        cli("diff", *pair, env=env), cli("run", *pair, "--inline", env=env), cli("held", "accept", number, "--why", "x"),
    ]  # fmt: skip
    for done in ways:
        assert hint in " ".join((done.stdout + done.stderr).split()), done
    assert json.loads(cli("diff", *pair, "--json", env=env).stdout)["would_be_held"]["hint"] == hint
    page = tmp_path / "report.html"
    assert cli("report", "--html", str(page)).returncode == 0
    assert f"(hint: {hint})" in page.read_text("utf-8")
    notice = notices.lock_next(connection)
    assert notice is not None
    assert document(notice)["error_hint"] == hint
    assert f"(hint: {hint})" in document(notice)["text"]


def test_the_hint_of_a_failure_is_in_the_run_the_queue_the_notice_and_the_log(
    deliver: Deliver, connection: Database, csv_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver("customer_id,name\nC1,Anna\n")

    def fail(error: ArchisyncError) -> Callable[..., object]:
        def fetch(*_: object, **__: object) -> object:
            raise error

        return fetch

    monkeypatch.setattr(sync_run, "fetch_if_changed", fail(TransientSourceError("it is away", hint="look at the VPN")))
    log = _do(connection, csv_config)
    queued = history.newest(connection, limit=1)[0]
    assert (queued.state, queued.message, queued.hint) == ("queued", "it is away", "look at the VPN")
    assert log[-1]["hint"] == "look at the VPN"
    connection.execute("update system.queued_runs set not_before = null")
    connection.execute("update system.sync_state set consecutive_failures = 2 where agent_id = %s", [AGENT])
    monkeypatch.setattr(sync_run, "fetch_if_changed", fail(NoExportError("it is not there", hint="export it")))
    assert _do(connection, csv_config)[-1]["hint"] == "export it"
    failed = history.newest(connection, limit=1)[0]
    assert (failed.state, failed.message, failed.hint) == ("failed", "it is not there", "export it")
    notice = notices.lock_next(connection)
    assert notice is not None
    assert (notice.event, notice.hint) == ("degraded", "export it")


def test_no_handler_keeps_an_error_s_message_without_its_hint() -> None:
    """Whoever takes an error apart takes both, or says itself what to do."""
    without = []
    for path in sorted(Path(archisync.__path__[0]).rglob("*.py")):
        for handler in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(handler, ast.ExceptHandler) and handler.name:
                parts = {
                    node.attr
                    for node in ast.walk(handler)
                    if isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and node.value.id == handler.name
                }
                if "message" in parts and "hint" not in parts:
                    without.append(f"{path.parent.name}/{path.name}: {ast.unparse(handler).splitlines()[0]}")
    assert without == SAY_THEMSELVES_WHAT_TO_DO


def test_a_hint_shows_no_password_and_no_control_character() -> None:
    error = ExportError("x\x1b[2J", hint="psql postgresql://u:hunter2@h/d \x07")
    assert told(error) == {"message": "x�[2J", "hint": "psql postgresql://u:***@h/d �"}
    assert told(ExportError("x")) == {"message": "x", "hint": None}


def _do(db: Database, config: Config) -> list[dict[str, object]]:
    """Force a sync of the agent's customers, in this process; the lines of the log."""
    forced = queued_runs.force(db, "customers", AGENT, by="test", why=None)
    log = io.StringIO()
    do_run(db, config, forced.run_id, EventLog(log, as_json=True))
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_temporary_directory_that_takes_nothing_is_the_reason_of_the_run(
    deliver: Deliver, connection: Database, csv_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver("customer_id,name\nC1,Anna\n")
    gone = tmp_path / "gone"
    monkeypatch.setattr(tempfile, "tempdir", str(gone))
    _do(connection, csv_config)
    run = history.newest(connection, limit=1)[0]
    assert (run.state, run.reason) == ("queued", "retry")
    assert run.message == (
        f"cannot make a folder for the export in the temporary directory {gone}: No such file or directory"
    )
    assert run.hint == f"df -h {gone}; or set TMPDIR to a directory with room that the worker may write to"


def test_what_breaks_around_a_run_ends_up_in_the_run(
    deliver: Deliver, connection: Database, csv_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver("customer_id,name\nC1,Anna\n")

    def beating(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(Heartbeat, "beating", beating)
        _do(connection, csv_config)
    run = history.newest(connection, limit=1)[0]
    assert (run.state, run.message) == ("queued", "unexpected RuntimeError: can't start new thread")
    assert run.hint == f"to see where: archisync --debug diff customers --agent {AGENT}"
