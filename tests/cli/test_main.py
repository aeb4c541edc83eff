"""The console script's own part: arguments that no command could use, wrong usage, help."""

import subprocess
import sys

import pytest

from archisync.__main__ import check_arguments, main, quiet_first
from archisync.base.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["why", "orders", "a\0b"], "argument 3 has a NUL character"),
        (["\udcff"], "argument 1 is not valid UTF-8"),
        (["run", "--reason=\ud800"], "argument 2 is not valid UTF-8"),
    ],
)
def test_an_argument_that_no_command_could_use_is_named_by_its_number(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_arguments(arguments)
    assert refused.value.message == message
    assert refused.value.hint


def test_any_other_argument_passes() -> None:
    check_arguments(["run", "--reason", "Città\n\x1b[31m\u202e\U0001f600", ""])


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
def test_wrong_usage_is_an_error_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["archisync", *arguments])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(said)


@pytest.mark.parametrize("arguments", [[], ["agent"]])
def test_a_noun_alone_shows_its_help_and_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["archisync", *arguments])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Usage: {' '.join(['archisync', *arguments])} [OPTIONS] COMMAND [ARGS]...\n")


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


def test_ctrl_c_while_the_command_line_is_being_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "archisync.cli.root":
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["archisync", "status"])
    monkeypatch.delitem(sys.modules, "archisync.cli.root", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert main() == 130


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"), [("--version", 0), ("--help", 0), ("status", 3), ("tick", 3), ("nope", 2)]
)
def test_a_closed_standard_stream_changes_no_exit_code(closed: str, command: str, code: int) -> None:
    typed = f"exec {sys.executable} -m archisync {command} {closed}"
    done = subprocess.run(["sh", "-c", typed], env={}, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == code


def test_a_wrong_type_is_told_before_a_missing_setting() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "archisync", "run", "oders"], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: there is no sync type 'oders'"
    assert done.stderr.splitlines()[1].startswith("hint: did you mean orders?")
