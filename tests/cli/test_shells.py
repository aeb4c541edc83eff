"""Completion in real shells on a pseudo-terminal: bash, zsh and fish. It is installed as a person installs it, then TAB is pressed."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archisync.store import agents, queued_runs
from archisync.store.database import Database
from tests.conftest import REPOSITORY, clean_environment

ESCAPES = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[\[()][0-9;?<>=]*[A-Za-z]|\x1b[=>]|[\r\x08]")
SHELLS = pytest.mark.parametrize(
    "shell",
    [
        pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
        for name in ("bash", "zsh", "fish")
    ],
)


class Shell:
    """An interactive shell."""

    def __init__(self, name: str, env: dict[str, str]) -> None:
        self.process, self._master = pty.fork()
        if self.process == 0:
            os.execvpe(name, [name, "-i"], env)  # noqa: S606 - the shell is what is tried
        self._shown = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, pattern: str) -> str:
        """Read up to the pattern, and return what is new. If it never comes, the test's time limit ends it."""
        while not (found := re.search(pattern, ESCAPES.sub("", self._shown))):
            part = os.read(self._master, 65536)
            assert part, self._shown
            self._shown += part.decode("utf-8", "replace")
        text = ESCAPES.sub("", self._shown)[: found.end()]
        self._shown = ""
        return text

    def end(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self._master)


@contextmanager
def interactive(name: str, env: dict[str, str]) -> Iterator[Shell]:
    shell = Shell(name, env)
    try:
        shell.type("echo re''ady\n")
        shell.until("ready")
        yield shell
    finally:
        shell.end()


@pytest.fixture
def env(tmp_path: Path, connection: Database, database_url: str) -> dict[str, str]:
    """An account with an empty home, and archisync on its PATH."""
    agents.add(connection, "anna.bianchi", name=None, whitelisted=True)
    agents.add(connection, "luca.ferrari", name=None, whitelisted=True)
    connection.execute("select setval('system.queued_runs_id_seq', 4711)")
    queued_runs.force(connection, "orders", "luca.ferrari", by="test", why=None)
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    (home / ".zshrc").touch()  # without one, zsh asks what to write into it
    program = programs / "archisync"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m archisync "$@"\n')
    program.chmod(0o755)
    own = {"HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin", "TERM": "xterm", "LANG": "C.UTF-8", "PS1": "$ "}
    kept = {k: v for k, v in clean_environment().items() if not k.startswith(("XDG_", "ZDOTDIR"))}
    return kept | own | {"ARCHISYNC_DATABASE_URL": database_url}


@SHELLS
def test_tab_completes_commands_types_agents_and_runs(shell: str, env: dict[str, str]) -> None:
    with interactive(shell, env) as new:
        new.type("archisync --install-completion\n")
        assert f"{shell} completion installed in {env['HOME']}/" in new.until("installed in .*archisync.*")
    with interactive(shell, env) as again:
        for typed, offered in (
            ("archisync hist\t", "history"),
            ("archisync interval set or\t", "orders"),
            ("archisync why ddt lu\t", r"luca\.ferrari"),
            ("archisync run customers --agent an\t", r"anna\.bianchi"),
            ("archisync show 4\t", "4712"),
        ):
            again.type(typed)
            assert "Traceback" not in again.until(offered)
            again.type("\x15")  # Ctrl-U: an empty line
            again.type("echo clea''red\n")
            again.until("cleared")


HOSTILE = (
    "zz;touch MARK #", "zz$(touch MARK)", "zz\\$(touch MARK)", "zz`touch MARK`", "zz\\`touch MARK\\`", "zz'$(touch MARK)'",
    'zz"$(touch MARK)"', "zz\\\"$(touch MARK)", "zz)); touch MARK; ((", "zz\ntouch MARK", "zz(touch MARK)", "zz *", "zz[$(touch MARK)]",
)  # fmt: skip
"""Agent ids that plain SQL has written: what a shell would run if they were offered as they are, alone or in a description."""


@SHELLS
def test_tab_runs_nothing_that_is_written_in_an_agent_id(
    shell: str, env: dict[str, str], connection: Database, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    for hostile in (text.replace("MARK", str(mark)) for text in HOSTILE):
        agents.add(connection, hostile, name=None, whitelisted=True)
        queued_runs.force(connection, "orders", hostile, by="test", why=None)
    agents.add(connection, "zz.good", name=None, whitelisted=True)
    with interactive(shell, env) as new:
        new.type("archisync --install-completion\n")
        new.until("installed in .*archisync.*")
    with interactive(shell, env) as again:
        again.type("archisync agent show z\t")
        again.until(r"zz\.good")
        for typed in (
            "\x15archisync agent show zz;\x08\t\t",
            "\n",
            "archisync show 47\t\t\t",
            "\x15",
            "archisync why orders zz\t",
            "\n",
        ):
            again.type(typed)
        again.type("\x15echo clea''red\n")
        assert str(mark) not in again.until("cleared")
    assert not mark.exists()
