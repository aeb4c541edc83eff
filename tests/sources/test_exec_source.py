"""The program source with real programs: what they get, what their end means, and that nothing of them is left running."""

import fcntl
import gzip
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from archisync import sources
from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    NoExportError,
    SourceError,
    SyncError,
    TransientSourceError,
    TruncatedError,
)
from archisync.rules.config import Config
from archisync.sources import check_template
from archisync.standalone.folders import temporary_folder
from tests.conftest import REPOSITORY
from tests.support.fetching import CANARY, CONTENT, fetched, refused, request_of
from tests.support.programs import script
from tests.support.said import refusal
from tests.support.users import as_other_user, needs_program_of_root, program_of_root

# --- what a program gets --------------------------------------------------------------------------------------


def test_standard_output_is_the_export(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_bytes(CONTENT)
    export = fetched(request_of(tmp_path, f"exec:cat {tmp_path}/{{type}}.csv"))
    assert export.path.read_bytes() == CONTENT
    assert stat.S_IMODE(export.path.stat().st_mode) == 0o600
    assert (export.origin, export.suffix, export.size_bytes, export.details) == ("exec:cat", "", len(CONTENT), {})


def test_gzipped_output_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "orders.csv.gz").write_bytes(gzip.compress(CONTENT))
    assert fetched(request_of(tmp_path, f"exec:cat {tmp_path}/orders.csv.gz")).path.read_bytes() == CONTENT


def test_arguments_are_split_once_and_no_shell_interprets_them(tmp_path: Path) -> None:
    template = r"""exec:printf '[%s]\n' '{agent} x' "{type};$HOME" a\ b $(id) * '' """
    lines = fetched(request_of(tmp_path, template)).path.read_text().splitlines()
    assert lines == ["[agent-1 x]", "[orders;$HOME]", "[a b]", "[$(id)]", "[*]", "[]"]


def test_program_gets_the_agent_the_type_and_few_other_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKED", CANARY)
    request = request_of(
        tmp_path,
        "exec:/usr/bin/env",
        LANG="it_IT.UTF-8",
        TZ="Europe/Rome",
        ARCHISYNC_DATABASE_URL=f"postgresql://{CANARY}@host/db",
        ARCHISYNC_REDIS_URL="redis://host/0",
        ARCHISYNC_HTTP_TOKEN=CANARY,
        ARCHISYNC_EXEC_ENV="ERP_TOKEN, ODBC*",
        ERP_TOKEN="t0ken",
        ERP_OTHER="no",
        ODBCINI="/etc/odbc.ini",
        ODBC_DSN=f"copy of postgresql://{CANARY}@host/db",
    )
    assert sorted(fetched(request).path.read_text().splitlines()) == [
        "ARCHISYNC_AGENT=agent-1",
        "ARCHISYNC_TYPE=orders",
        "ERP_TOKEN=t0ken",
        "HOME=/home/x",
        "LANG=it_IT.UTF-8",
        "ODBCINI=/etc/odbc.ini",
        f"PATH={os.environ['PATH']}",
        "TZ=Europe/Rome",
    ]


def test_standard_input_is_empty(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"meant for the worker")
    os.close(write_end)
    kept = os.dup(0)
    os.dup2(read_end, 0)
    try:
        assert fetched(request_of(tmp_path, "exec:cat")).size_bytes == 0
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(read_end)


def test_no_open_file_is_inherited(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        held = fcntl.fcntl(file, fcntl.F_DUPFD, 100)  # inheritable, and no number that a shell uses itself
        try:
            program = script(tmp_path, "ls /proc/$$/fd")
            found = fetched(request_of(tmp_path, f"exec:{program}")).path.read_text().split()
        finally:
            os.close(held)
    assert {"0", "1", "2"} <= set(found)
    assert str(held) not in found


# --- what its end means -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error_class", "reason"),
    [
        (1, SourceError, "source-refused"),
        (2, SourceError, "source-refused"),
        (64, SourceError, "source-refused"),
        (66, NoExportError, "no-export"),
        (68, TransientSourceError, "source-unavailable"),
        (69, TransientSourceError, "source-unavailable"),
        (74, TransientSourceError, "source-unavailable"),
        (75, TransientSourceError, "source-unavailable"),
        (77, AuthenticationError, "authentication"),
        (78, SourceError, "source-refused"),
        (124, TransientSourceError, "source-unavailable"),
        (255, SourceError, "source-refused"),
    ],
)
def test_exit_code_refuses_output_that_looks_complete(
    tmp_path: Path, code: int, error_class: type[SyncError], reason: str
) -> None:
    program = script(tmp_path, f"echo order_id,created_at; echo 1,2026-01-02; echo went wrong >&2; exit {code}")
    error = refused(request_of(tmp_path, f"exec:{program} {{agent}}"))
    assert (type(error), error.reason) == (error_class, reason)
    assert error.message == f"exec:export.sh ended with exit code {code}: went wrong"
    assert error.hint == "run the program by hand, as archisync's user"


@pytest.mark.parametrize(
    ("name", "error_class"),
    [
        ("KILL", TransientSourceError),
        ("TERM", TransientSourceError),
        ("HUP", TransientSourceError),
        ("SEGV", SourceError),
        ("ABRT", SourceError),
        ("PIPE", SourceError),
    ],
)
def test_signal_refuses_output_that_looks_complete(tmp_path: Path, name: str, error_class: type[SyncError]) -> None:
    program = script(tmp_path, f"echo order_id,created_at; kill -{name} $$")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started the tests: children inherit that
    try:
        error = refused(request_of(tmp_path, f"exec:{program}"))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (type(error), error.message) == (
        error_class,
        f"exec:export.sh ended with signal SIG{name}, and said nothing on standard error",
    )


def test_exit_code_explains_truncated_gzip(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(CONTENT)[:-9])
    failing = script(tmp_path, f"cat {tmp_path}/cut.gz; exit 75")
    assert type(refused(request_of(tmp_path, f"exec:{failing}"))) is TransientSourceError
    error = refused(request_of(tmp_path, f"exec:cat {tmp_path}/cut.gz"))
    assert type(error) is TruncatedError
    assert error.message.startswith("exec:cat: the gzip data is truncated or damaged")


def test_program_without_output_gives_an_empty_export_for_the_reader_to_refuse(tmp_path: Path) -> None:
    assert fetched(request_of(tmp_path, "exec:true")).size_bytes == 0


@pytest.mark.parametrize(
    ("name", "content", "mode", "message"),
    [
        ("missing", None, 0, "there is no such program"),
        ("no-interpreter", "#!/no/such/interpreter\n", 0o755, "there is no such program"),
        ("not-executable", "#!/bin/sh\n", 0o644, "it is not executable"),
        ("no-program", "just text\n", 0o755, "it is no program"),
    ],
)
def test_program_that_can_not_be_started_is_a_source_error_with_a_hint(
    tmp_path: Path, name: str, content: str | None, mode: int, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    error = refused(request_of(tmp_path, f"exec:{path}"))
    assert (type(error), error.message) == (SourceError, f"exec:{name} can't be started: {message}")
    assert error.hint


def test_program_is_searched_in_the_path(tmp_path: Path) -> None:
    error = refused(request_of(tmp_path, "exec:no-such-program-anywhere"))
    assert error.message == "exec:no-such-program-anywhere can't be started: there is no such program"


# --- standard error -----------------------------------------------------------------------------------------------


def test_last_lines_of_standard_error_are_kept_without_control_characters(tmp_path: Path) -> None:
    program = script(
        tmp_path, r"""i=0; while [ $i -lt 30 ]; do i=$((i+1)); printf 'line %s \033[31mred\007\n' $i >&2; done"""
    )
    lines = fetched(request_of(tmp_path, f"exec:{program}")).details["stderr"]
    assert lines == [f"line {number} �[31mred�" for number in range(11, 31)]


def test_much_standard_error_blocks_nothing(tmp_path: Path) -> None:
    program = tmp_path / "talkative.py"
    program.write_text(
        "import sys\nfor n in range(20_000): sys.stderr.write('x' * 200 + '\\n'); sys.stdout.write('y' * 20 + '\\n')\n"
    )
    export = fetched(request_of(tmp_path, f"exec:{sys.executable} -I {program}"))
    assert export.size_bytes == 20_000 * 21
    assert export.details["stderr"] == ["x" * 200] * 20


@pytest.mark.parametrize("code", [0, 1, 75])
def test_credentials_of_a_program_are_never_shown(tmp_path: Path, code: int) -> None:
    body = 'echo order_id; echo "url https://erp:$P@host/ password=$P $T" >&2; echo "Authorization: Bearer $P" >&2'
    program = script(tmp_path, f"P={CANARY}; T=$ERP_TOKEN; {body}; exit {code}")
    request = request_of(
        tmp_path,
        f"exec:{program} --password {CANARY}",
        ARCHISYNC_EXEC_ENV="ERP_TOKEN",
        ERP_TOKEN="second-" + CANARY[::-1],
    )
    try:
        said = repr(sources.fetch(request))
    except SyncError as exc:
        said = f"{exc!r} {exc.hint}"
    assert "url https://erp:***@host/ password=*** ***" in said
    assert CANARY not in said
    assert CANARY[::-1] not in said


def test_credential_of_several_lines_is_hidden_line_by_line(tmp_path: Path) -> None:
    program = script(tmp_path, 'echo "$ERP_KEY" >&2; exit 1')
    request = request_of(tmp_path, f"exec:{program}", ARCHISYNC_EXEC_ENV="ERP_KEY", ERP_KEY=f"BEGIN\n{CANARY}\nEND..")
    assert refused(request).message == "exec:export.sh ended with exit code 1: ***"
    echo_one = script(tmp_path, 'echo "$ERP_KEY" | sed -n 2p >&2; exit 1', "one.sh")
    request = request_of(tmp_path, f"exec:{echo_one}", ARCHISYNC_EXEC_ENV="ERP_KEY", ERP_KEY=f"BEGIN\n{CANARY}\nEND..")
    assert refused(request).message == "exec:one.sh ended with exit code 1: ***"


# --- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("exec:", "the source is exec: without a program"),
        ("exec:   ", "the source is exec: without a program"),
        ("exec:''", "the source is exec: without a program"),
        ("exec:cat 'x", "the program's command line can't be split: No closing quotation"),
        ("exec:cat x\\", "the program's command line can't be split: No escaped character"),
        ("exec:/bin/{type}", "the source's program has a placeholder in its name"),
        ("exec:awk '{print}'", "the source has the unknown placeholder '{print}'"),
        ("exec:awk '{print $1}'", "the source has braces around no placeholder"),
        ("exec:LC_ALL=C sort x", "the source sets a variable before the program, and there is no shell to do it"),
    ],
)
def test_command_line_that_makes_no_sense_is_a_configuration_error(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_template(template)
    assert caught.value.message == message
    with pytest.raises(ConfigurationError):
        sources.fetch(request_of(tmp_path, template))


@pytest.mark.parametrize("name", ["ARCHISYNC_DATABASE_URL", "ARCHISYNC_*", "archisync*", "A=B", "*", "9X"])
def test_program_can_not_get_settings_of_archisync(name: str) -> None:
    config = Config.from_environment({"ARCHISYNC_EXEC_ENV": name})
    with pytest.raises(ConfigurationError) as caught:
        check_template("exec:cat x", config)
    shown = name.replace("=B", "=***")
    assert caught.value.message == f"ARCHISYNC_EXEC_ENV has {shown!r}, which is no variable that a program may get"


@pytest.mark.parametrize("template", ["exec:cat 'x", "xyz://host/{agent}", "https://u:p@host/x", "/x/{nobody}"])
def test_worker_with_a_wrong_template_exits_3_before_it_connects(template: str) -> None:
    environment = {
        "ARCHISYNC_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9/0",
        "ARCHISYNC_SOURCE": "/exports/{agent}/{type}.csv",
        "ARCHISYNC_SOURCE_DDT": template,
    }
    done = subprocess.run(
        [sys.executable, "-m", "archisync", "worker"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert refusal(done.stderr).message.startswith("ddt: ")
    assert "u:p@" not in done.stderr


@needs_program_of_root
def test_a_program_that_has_become_another_user_gives_its_export(tmp_path: Path) -> None:
    """Nobody may signal what is left of its process group."""
    with temporary_folder() as folder:
        template = f"exec:{program_of_root(folder, 'echo order_id; echo 1; sleep 600 >/dev/null 2>&1 & echo $! > ' + str(folder / 'pid'))}"

        def fetch() -> None:
            with temporary_folder() as spool:
                assert fetched(request_of(spool, template)).path.read_bytes() == b"order_id\n1\n"

        try:
            as_other_user(fetch)
        finally:
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
