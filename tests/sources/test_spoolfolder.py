"""Exports hold customers' data, so they do not stay in the temporary directory, even when a process is killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from archisync.sources.spoolfolder import PREFIX, SpoolFolder

HOLDS_ONE = """
import sys
from archisync.sources.spoolfolder import SpoolFolder
folder = SpoolFolder()
(folder.path / "customers-x").write_text("C1,Rossi")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_folder_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    with SpoolFolder() as path:
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "customers-x").write_text("C1,Rossi")
    assert list(tmp_path.iterdir()) == []


def test_next_process_removes_the_folder_of_a_killed_one_but_not_of_a_living_one(tmp_path: Path) -> None:
    killed, living = (
        subprocess.Popen([sys.executable, "-c", HOLDS_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    assert killed.stdout is not None
    assert living.stdout is not None
    left, used = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (left / "customers-x").exists()
    with SpoolFolder() as path:
        assert set(tmp_path.iterdir()) == {path, used}
        assert (used / "customers-x").exists()
    living.communicate()


def test_files_and_links_with_the_same_prefix_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("kept")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / f"{PREFIX}file").write_text("kept")
    os.mkfifo(tmp_path / f"{PREFIX}fifo")
    with SpoolFolder():
        pass
    assert (tmp_path / "elsewhere" / "file").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {
        "elsewhere",
        *(f"{PREFIX}{n}" for n in ("link", "file", "fifo")),
    }
