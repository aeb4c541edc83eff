"""`config list`, and settings from a folder: --folder and ARCHISYNC_FOLDER."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from archisync.base.envfile import read_env_file
from archisync.base.errors import ConfigurationError, ExitCode
from archisync.base.otherusers import user_name
from archisync.rules.config import SETTINGS
from tests.conftest import Cli

NOTHING = dict.fromkeys(("ARCHISYNC_DATABASE_URL", "ARCHISYNC_REDIS_URL", "ARCHISYNC_SOURCE"), "")

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")


@pytest.fixture
def shown(cli: Cli) -> Any:
    """The settings that `config list` shows in an environment: by name, value and origin; and the document."""

    def run(*arguments: str, **environment: str) -> tuple[dict[str, tuple[str | None, str]], dict[str, Any]]:
        done = cli("config", "list", "--json", *arguments, env=NOTHING | environment)
        assert done.returncode == 0
        document = json.loads(done.stdout)
        return {s["name"]: (s["value"], s["origin"]) for s in document["settings"]}, document

    return run


def test_each_setting_is_shown_with_its_default(shown: Any) -> None:
    found, document = shown()
    assert document["file"] is None
    assert {s.name: s.default or None for s in SETTINGS if s.name in s.variables()} == {
        name: value for name, (value, _) in found.items()
    }
    assert {origin for _, origin in found.values()} == {"default"}
    missing = [p["message"] for p in document["problems"]]
    assert missing == [f"ARCHISYNC_{name} is not set" for name in ("DATABASE_URL", "REDIS_URL", "SOURCE")]


def test_the_environment_is_told_from_the_file_and_wins_over_it(shown: Any, tmp_path: Path) -> None:
    (tmp_path / "archisync.env").write_text(
        "# by hand\nexport ARCHISYNC_QUEUE='a b' # why\nARCHISYNC_LEASE_S=60\nexport PATH=/x:$PATH\nARCHISYNC_SOURCE=\"$HOME/e\"\n"
    )
    found, document = shown(ARCHISYNC_FOLDER=str(tmp_path), ARCHISYNC_LEASE_S="30", HOME="/home/anna")
    assert document["file"] == f"{tmp_path}/archisync.env"
    assert found["ARCHISYNC_QUEUE"] == ("a b", "file")
    assert found["ARCHISYNC_LEASE_S"] == ("30", "environment")
    assert found["ARCHISYNC_SOURCE"] == ("/home/anna/e", "file")
    assert [p["message"] for p in document["problems"]][-1] == "ARCHISYNC_QUEUE is 'a b'"


@pytest.mark.parametrize("typed_as", [["--folder", "{}"], ["--folder={}"]])
def test_the_folder_that_is_typed_wins_over_the_environment(shown: Any, tmp_path: Path, typed_as: list[str]) -> None:
    (tmp_path / "archisync.env").write_text("ARCHISYNC_LEASE_S=60\n")
    words = [word.format(tmp_path) for word in typed_as]
    found, _ = shown(*words, ARCHISYNC_LEASE_S="30", ARCHISYNC_FOLDER="/nowhere")
    assert found["ARCHISYNC_LEASE_S"] == ("60", "file")


HIDDEN = (
    "HTTP_TOKEN", "HTTP_PASSWORD_ORDERS", "HTTP_HEADERS", "SFTP_PASSWORD", "SQL_PASSWORD", "HOOK", "WEB_TOKEN", "WEB_READ_TOKEN",
    "WEB_OPERATOR_TOKEN",
)  # fmt: skip
SECRETS = {
    "ARCHISYNC_DATABASE_URL": ("postgresql://u:swordfish@h/d", "postgresql://u:***@h/d"),
    "ARCHISYNC_REDIS_URL": ("redis://:swordfish@h", "redis://:***@h"),
    "ARCHISYNC_SOURCE": ("https://h/x?sig=swordfish&agent={agent}", "https://h/x?sig=***&agent={agent}"),
    "ARCHISYNC_HTTP_USER_DDT": ("anna", "anna"),
    **{f"ARCHISYNC_{name}": ("https://swordfish", "***") for name in HIDDEN},
}


def test_no_secret_is_shown_and_it_is_seen_that_one_is_set(shown: Any, cli: Cli) -> None:
    given = {name: text for name, (text, _) in SECRETS.items()}
    found, _ = shown(**given)
    assert {name: found[name] for name in SECRETS} == {n: (seen, "environment") for n, (_, seen) in SECRETS.items()}
    done = cli("config", "list", env=given)
    assert "swordfish" not in done.stdout + done.stderr


def test_what_is_wrong_and_what_nobody_reads_is_said(cli: Cli) -> None:
    given = {"ARCHISYNC_LEASE_S": "soon", "ARCHISYNC_SUORCE": "/x", "ARCHISYNC_OF_A_PLUG_IN": "/x"}
    done = cli("config", "list", "--columns", "from,setting", env=given)
    assert done.returncode == 0
    assert "environment  ARCHISYNC_LEASE_S\n" in done.stdout
    err = done.stderr
    assert "warning: ARCHISYNC_LEASE_S is 'soon' (a whole number from 10 to 3600)\n" in err
    assert err.endswith("warning: nothing reads ARCHISYNC_SUORCE; did you mean ARCHISYNC_SOURCE?\n")
    assert "PLUG_IN" not in err


def test_a_folder_without_the_file_is_refused_if_it_was_typed(cli: Cli, tmp_path: Path) -> None:
    done = cli("status", "--folder", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        ExitCode.CONFIGURATION,
        f"error: there is no {tmp_path}/archisync.env\nhint: archisync up --folder {tmp_path} makes it\n",
    )
    bare = {"ARCHISYNC_FOLDER": str(tmp_path), "ARCHISYNC_DATABASE_URL": ""}
    done = cli("status", env=bare)
    assert (done.returncode, done.stderr) == (
        ExitCode.CONFIGURATION,
        "error: ARCHISYNC_DATABASE_URL is not set\n"
        f"hint: {tmp_path}/archisync.env does not set it, or is not there: `archisync up` makes it\n",
    )
    assert cli("--help", env=bare).returncode == 0
    assert cli("status", "--folder").stderr == (
        "error: --folder needs a folder\nhint: archisync --folder ~/archisync status\n"
    )


@pytest.mark.parametrize(
    ("mode", "owner", "said"),
    [
        (0o646, os.geteuid(), "may be written to by others"),
        pytest.param(0o600, 65534, "belongs to nobody, not to root", marks=only_root),
    ],
)
def test_a_file_that_somebody_else_may_have_written_is_refused(
    cli: Cli, tmp_path: Path, mode: int, owner: int, said: str
) -> None:
    """It names programs: what root reads there, root starts."""
    path = tmp_path / "archisync.env"
    path.write_text("ARCHISYNC_SOURCE='exec:/bin/sh'\n")
    path.chmod(mode)
    os.chown(path, owner, -1)
    for arguments, env in ((["--folder", str(tmp_path)], {}), ([], {"ARCHISYNC_FOLDER": str(tmp_path)})):
        done = cli("status", *arguments, env=env)
        me = user_name(os.geteuid())
        assert (done.returncode, done.stderr) == (
            ExitCode.CONFIGURATION,
            f"error: {path} is not read: it {said}, and it names programs that {me} would start\n"
            f"hint: look at what it says; then, as root: chown {me} {path} && chmod go-w {path} (or become its owner)\n",
        )


def test_each_command_finds_the_settings_and_so_do_the_processes_that_it_starts(
    cli: Cli, database_url: str, redis_url: str, exports: Path, tmp_path: Path
) -> None:
    (tmp_path / "archisync.env").write_text(
        f"export ARCHISYNC_DATABASE_URL='{database_url}'\nexport ARCHISYNC_REDIS_URL='{redis_url}'\n"
        f"export ARCHISYNC_SOURCE='{exports}/{{agent}}/{{type}}.csv'\n"
    )
    (exports / "anna").mkdir()
    (exports / "anna" / "customers.csv").write_text("customer_id,name\n1,A\n")
    nowhere = {
        "ARCHISYNC_DATABASE_URL": "",
        "ARCHISYNC_REDIS_URL": "redis://127.0.0.1:9",
        "ARCHISYNC_SOURCE": "/nowhere",
    }
    assert cli("--folder", str(tmp_path), "agent", "add", "anna", "--allow", env=nowhere).returncode == 0
    assert cli("run", "customers", "--agent", "anna", "--folder", str(tmp_path), env=nowhere).returncode == 0
    assert cli("worker", "--burst", f"--folder={tmp_path}", env=nowhere).returncode == 0
    told = {"ARCHISYNC_FOLDER": str(tmp_path), **dict.fromkeys(nowhere, "")}
    assert cli("tick", env=told).returncode == 0
    assert cli("history", "--state", "succeeded", "--columns", "type", env=told).stdout.split() == ["TYPE", "customers"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not a setting", "sets no variable"),
        ("export 1X=2", "sets no variable"),
        ("X='swordfish", "a quote in X is not closed"),
        ("X=$(pass swordfish)", "only a shell can read X"),
        ("X=`pass`", "only a shell can read X"),
        ("X=${Y:-swordfish}", "only a shell can read X"),
        ("X=a swordfish", "only a shell can read X"),
    ],
)
def test_a_line_that_only_a_shell_can_read_is_refused_without_showing_it(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "archisync.env"
    path.write_text(f"A=1\n{line}\n")
    with pytest.raises(ConfigurationError, match=f"line 2 of {path}.*{said}") as caught:
        read_env_file(path, {})
    assert "swordfish" not in f"{caught.value.message}{caught.value.hint}"


def test_a_file_is_read_as_a_shell_would(tmp_path: Path) -> None:
    path = tmp_path / "archisync.env"
    path.write_text("A=1\nexport  B=\"$A/${HOME}\"\nC='$A'\nD=\nE=a\\ b # c\nF=$A$UNKNOWN\n")
    assert read_env_file(path, {"HOME": "/h"}) == {"A": "1", "B": "1//h", "C": "$A", "D": "", "E": "a b", "F": "1"}
