"""What is uploaded: sdist and wheel are built without an index, are the same each time, and the demo runs from the wheel."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from archisync import __version__
from tests.conftest import REPOSITORY, clean_environment

pytestmark = pytest.mark.check
BUILD = "import sys; from hatchling import build; print(build.build_sdist(sys.argv[1]), build.build_wheel(sys.argv[1]))"
NOT_PACKED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
DEMO_TIMEOUT_S = 240.0


def build(folder: Path) -> dict[str, Path]:
    """Build in a copy of the repository. The sdist and the wheel by their names' ends."""
    source, out = folder / "source", folder / "dist"
    shutil.copytree(REPOSITORY, source, ignore=NOT_PACKED)
    command = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(command, cwd=source, env=clean_environment(), capture_output=True, text=True, check=True)
    sdist, wheel = done.stdout.split()
    return {"sdist": out / sdist, "wheel": out / wheel}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def wheel(built: dict[str, Path]) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(built["wheel"]) as file:
        yield file


@pytest.fixture
def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_bytes(wheel.read(f"archisync-{__version__}.dist-info/METADATA"))


def sources(*folders: str) -> set[str]:
    """The files of these folders, as paths within the repository."""
    found = (path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(REPOSITORY)) for path in found if "__pycache__" not in path.parts}


def test_two_builds_have_the_same_bytes(built: dict[str, Path], tmp_path: Path) -> None:
    """Whatever the time, the folder and the umask are."""
    before = os.umask(0o077)
    try:
        again = build(tmp_path)
    finally:
        os.umask(before)
    digests = [{n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in kind.items()} for kind in (built, again)]
    assert digests[0] == digests[1]


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if not name.startswith(f"archisync-{__version__}.dist-info/")}
    assert names == sources("archisync")
    assert "archisync/py.typed" in names


def test_the_sdist_has_what_its_tests_need(built: dict[str, Path]) -> None:
    root = f"archisync-{__version__}/"
    with tarfile.open(built["sdist"]) as file:
        names = {member.name.removeprefix(root) for member in file.getmembers()}
    single = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt", "PKG-INFO"}
    assert names - {".gitignore"} == sources("archisync", "tests", "examples") | single


def test_the_metadata_is_complete(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"], metadata["Requires-Python"]) == ("archisync", __version__, ">=3.11")
    assert (metadata["License-Expression"], metadata["License-File"]) == ("MIT", "LICENSE")
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Keywords"]
    versions = [c.rpartition(" ")[2] for c in metadata.get_all("Classifier", []) if "Python :: 3." in c]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    extras = {"embedded", "http", "metrics", "objects", "pdf", "web", "workbook", "zstd"}
    assert extras <= set(metadata.get_all("Provides-Extra", []))


def test_the_checks_before_an_upload_pass(built: dict[str, Path]) -> None:
    """`make dist` installs these tools and runs them."""
    pytest.importorskip("twine")
    pytest.importorskip("check_wheel_contents")
    files = [str(path) for path in built.values()]
    for command in (["twine", "check", "--strict", *files], ["check_wheel_contents", str(built["wheel"])]):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_in_an_empty_folder(built: dict[str, Path], tmp_path: Path) -> None:
    """The wheel comes before the repository on the path; what it needs is that of the tests."""
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(installed)]
    subprocess.run([*pip, str(built["wheel"])], env=clean_environment(), check=True)
    env = clean_environment() | {"PYTHONPATH": str(installed)}
    which = [sys.executable, "-c", "import archisync; print(archisync.__file__)"]
    found = subprocess.run(which, cwd=empty, env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert found == f"{installed}/archisync/__init__.py"
    done = subprocess.run(
        [sys.executable, "-m", "archisync", "demo"],
        cwd=empty,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEMO_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "applied 0001 archisync" in done.stdout
    assert list(empty.iterdir()) == []
