"""The console script: what it imports, its arguments, wrong usage, help."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from archisync.__main__ import check_arguments, quiet_first
from archisync.base.errors import EXIT_CODE_MEANING, ExitCode, UsageError
from archisync.cli.root import root_command
from archisync.store import agents
from archisync.store.database import Database
from tests.cli.conftest import Typed
from tests.conftest import Cli

SLOW_TO_IMPORT = {"archisync.schedule.steps", "redis", "rq", "rich.table", "rich.console", "httpx", "pypdfium2"}


@pytest.mark.parametrize(
    ("words", "has_typer", "has_psycopg"),
    [("--help", True, False), ("--version", False, False), ("tick", False, True), ("tick --json", False, True)],
)
def test_help_and_an_idle_tick_import_nothing_that_is_slow(
    cli: Cli, database_url: str, redis_url: str, words: str, has_typer: bool, has_psycopg: bool
) -> None:
    code = (
        "import sys\nfrom archisync.__main__ import main\nmain()\n"
        "print(','.join(m for m in sys.modules), file=sys.stderr)"
    )
    env = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url, "PATH": "/usr/bin:/bin"}
    cli("disable", "products", "prices")  # nothing is due
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], env=env, capture_output=True, text=True, check=True
    )
    imported = set(done.stderr.splitlines()[-1].split(","))
    assert ("typer" in imported, "psycopg" in imported) == (has_typer, has_psycopg)
    assert not imported & SLOW_TO_IMPORT


def test_a_sync_imports_what_repeats_a_fetch_only_when_it_has_to(
    connection: Database, database_url: str, tmp_path: Path
) -> None:
    agents.add(connection, "anna", name=None, whitelisted=True)
    (tmp_path / "orders.csv").write_text("order_id\n1\n")
    code = (
        "import sys\nfrom archisync.__main__ import main\nmain()\n"
        "print(','.join(m for m in sys.modules), file=sys.stderr)"
    )
    for source, repeats in ((f"{tmp_path}/{{type}}.csv", False), ("http://127.0.0.1:1/{type}", True)):
        env = {
            "ARCHISYNC_DATABASE_URL": database_url,
            "ARCHISYNC_SOURCE": source,
            "ARCHISYNC_HTTP_ALLOW_PRIVATE": "127.0.0.0/8:*",
        }
        command = [sys.executable, "-c", code, "run", "orders", "--agent", "anna", "--inline"]
        done = subprocess.run(command, env=env | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
        imported = set(done.stderr.splitlines()[-1].split(","))
        assert "archisync.sync.run" in imported, done.stderr
        assert ("tenacity" in imported) == repeats


# --- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["why", "orders", "a\0b"], "argument 3 has a NUL character"),
        (["\udcff"], "argument 1 is not valid UTF-8"),
        (["run", "--reason=\ud800"], "argument 2 is not valid UTF-8"),
    ],
)
def test_an_argument_that_no_command_can_use_is_refused_by_its_number(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_arguments(arguments)
    assert refused.value.message == message
    assert refused.value.hint


def test_any_other_argument_passes() -> None:
    check_arguments(["run", "--reason", "Città\n\x1b[31m\u202e\U0001f600", ""])


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["status", "--quiet"], ["--quiet", "status"]),
        (["status", "-q"], ["--quiet", "status"]),
        (["-q", "held", "list", "-q"], ["--quiet", "held", "list"]),
        (["why", "orders", "--", "-q"], ["why", "orders", "--", "-q"]),
        (["--quiet", "held", "list", "--quiet"], ["--quiet", "held", "list"]),
        (["why", "orders", "--", "--quiet"], ["why", "orders", "--", "--quiet"]),
        (["status"], ["status"]),
    ],
)
def test_quiet_may_be_typed_anywhere(typed: list[str], read: list[str]) -> None:
    assert quiet_first(typed) == read


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"), [("--version", 0), ("--help", 0), ("status", 3), ("tick", 3), ("nope", 2)]
)
def test_a_closed_standard_stream_changes_no_exit_code(closed: str, command: str, code: int) -> None:
    typed = f"exec {sys.executable} -m archisync {command} {closed}"
    done = subprocess.run(["sh", "-c", typed], env={}, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == code


# --- wrong usage and help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nope"], "error: No such option: --nope\nhint: archisync --help\n"),
        (["interval", "set"], "error: Missing argument 'TYPE'.\nhint: archisync interval set --help\n"),
        (
            ["history", "--limit", "\x1b"],
            "error: Invalid value for '--limit' / '-n': '\\x1b' is not a valid int range.\n",
        ),
    ],
)
def test_wrong_usage_is_an_error_and_a_hint(typed: Typed, arguments: list[str], said: str) -> None:
    code, out, err = typed(*arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith(said)


@pytest.mark.parametrize("arguments", [[], ["agent"]])
def test_a_noun_alone_shows_its_help_and_exits_2(typed: Typed, arguments: list[str]) -> None:
    code, out, err = typed(*arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith(f"Usage: {' '.join(['archisync', *arguments])} [OPTIONS] COMMAND [ARGS]...\n")


GROUPS: Any = {"": typer.main.get_command(root_command())}
GROUPS |= {name: command for name, command in GROUPS[""].commands.items() if hasattr(command, "commands")}


@pytest.mark.parametrize("group", GROUPS)
def test_help_is_never_cut_however_narrow_the_terminal(
    typed: Typed, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = typed(*group.split(), "--help")
    assert code == ExitCode.DONE
    assert "..." not in out.replace("[ARGS]...", "")
    assert "…" not in out


@pytest.mark.parametrize("group", GROUPS)
def test_the_list_of_commands_cuts_no_help_text(typed: Typed, group: str) -> None:
    code, out, _ = typed(*group.split(), "--help")
    assert code == ExitCode.DONE
    whole = re.sub(r"\n {6,}", " ", out.split("\nOptions:\n")[1])  # a long sentence goes on in the next line
    listed = [line for line in whole.splitlines() if re.match("  [a-z]", line)]
    assert sorted(line.split()[0] for line in listed) == sorted(GROUPS[group].commands)
    for line in listed:
        assert re.fullmatch(r"  [a-z]+ +[^.]+\.", line)


def test_a_wrong_type_is_reported_before_a_missing_setting() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "archisync", "run", "oders"], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.splitlines()[0] == "error: there is no sync type 'oders'"
    assert done.stderr.splitlines()[1].startswith("hint: did you mean orders?")


def test_ctrl_c_while_the_commands_are_imported_shows_no_traceback(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "archisync.cli.root":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "archisync.cli.root")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert typed("status") == (ExitCode.INTERRUPTED, "", "")


def test_every_exit_code_has_a_meaning() -> None:
    assert set(EXIT_CODE_MEANING) == set(ExitCode)
