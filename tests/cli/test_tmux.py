"""`status --watch` in tmux: drawn, resized, quit and killed, and nothing is left behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archisync.standalone.folders import temporary_folder
from archisync.store import agents
from archisync.store.database import Database
from tests.conftest import REPOSITORY, clean_environment

TMUX = shutil.which("tmux")
pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not installed (apt-get install tmux)")


class Tmux:
    """A tmux server of this test's own, with one shell of 80 columns and 24 lines that has printed BEFORE."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._socket = folder / "tmux"
        self._env = env | {"LANG": "C.UTF-8", "PS1": "$ "}
        self("new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=$ ", "sh")
        self.until(lambda text: text.startswith("$"))  # keys that are typed before the shell reads are echoed elsewhere
        self.keys("echo BEFORE", "Enter")
        self.until(lambda text: "\nBEFORE\n" in text)

    def __call__(self, *words: str) -> str:
        assert TMUX is not None
        return subprocess.run(
            [TMUX, "-S", self._socket, "-f", "/dev/null", "-u", *words], env=self._env, cwd=REPOSITORY,
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    def keys(self, *keys: str) -> None:
        self("send-keys", *keys)

    def screen(self) -> str:
        return self("capture-pane", "-p")

    def history(self) -> str:
        """The screen, and everything that one can scroll back to."""
        return self("capture-pane", "-p", "-S", "-")

    def until(self, there: Callable[[str], object]) -> str:
        """The screen as soon as it is as wanted. If that never comes, the test's time limit ends it."""
        while not there(text := self.screen()):
            continue
        return text


@pytest.fixture
def tmux(database_url: str, redis_url: str, connection: Database) -> Iterator[Tmux]:
    agents.add(connection, "anna.bianchi", name=None, whitelisted=True)
    own = {"ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url}
    with temporary_folder() as folder:
        server = Tmux(folder, clean_environment() | own)
        try:
            yield server
        finally:
            server("kill-server")


WATCH = f"{sys.executable} -m archisync status --watch --every 0.5"


def test_the_view_is_drawn_resized_and_quit_and_the_shell_is_restored(tmux: Tmux, connection: Database) -> None:
    before = tmux.history()
    tmux.keys(f"{WATCH}; echo exit=$?", "Enter")
    narrow = tmux.until(lambda text: "q ends" in text)
    assert re.search(r"^type +health .*stale +held +last ok +took +next +trend *$", narrow, re.M)
    assert "BEFORE" not in narrow
    tmux("resize-window", "-x", "200", "-y", "50")
    # tmux may show half a frame first.
    tmux.until(lambda text: "degraded  resting" in text and re.search(r"^customers +stale", text, re.M))
    connection.execute("insert into system.pauses (reason) values ('maintenance')")
    tmux.until(lambda text: re.search(r"^paused +everything: maintenance", text, re.M))
    tmux("resize-window", "-x", "80", "-y", "24")
    tmux.until(lambda text: "q ends" in text and "degraded  resting" not in text)
    tmux.keys("q")
    text = tmux.until(lambda text: "\nexit=0\n" in text)
    assert "BEFORE" in text
    after = tmux.history()
    assert after.startswith(before.rstrip("\n $"))
    assert "last tick" not in after  # no frame is left to scroll back to
    assert "q ends" not in after
    tmux.keys("echo typed", "Enter")  # the keys are echoed again
    tmux.until(lambda text: text.count("typed") == 2)


def test_ctrl_c_ends_the_view_with_130(tmux: Tmux) -> None:
    tmux.keys(f"{WATCH}; echo exit=$?", "Enter")
    tmux.until(lambda text: "q ends" in text)
    tmux.keys("C-c")
    text = tmux.until(lambda text: re.search(r"^exit=[0-9]+$", text, re.M))
    assert "\nexit=130\n" in text
    assert "Traceback" not in tmux.history()


def test_a_killed_pane_takes_the_view_with_it(tmux: Tmux, connection: Database) -> None:
    tmux.keys(f"exec {WATCH}", "Enter")
    tmux.until(lambda text: "q ends" in text)
    process = Path("/proc", tmux("display-message", "-p", "#{pane_pid}").strip())
    assert process.exists()
    tmux("new-window", "sh")  # the server goes on
    tmux("kill-pane", "-t", ":0")
    while process.exists():
        continue
