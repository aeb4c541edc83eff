"""The image of `examples/Containerfile`, built and run by a builder of this machine that has its base image.

`ARCHISYNC_TEST_BUILD` has options for the build, such as `--network host`.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import pytest

import archisync
from archisync.base.errors import ExitCode
from tests.conftest import REPOSITORY

CONTAINERFILE = REPOSITORY / "examples" / "Containerfile"
IMAGE = "localhost/archisync-test"


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def _builder(base: str) -> str | None:
    for name in ("podman", "docker", "buildah"):
        if shutil.which(name) and _run(name, "inspect", "--type=image", base).returncode == 0:
            return name
    return None


@pytest.fixture(scope="module")
def in_image() -> Iterator[list[str]]:
    """The words that run a command in the image, as its user."""
    [base] = set(re.findall(r"^FROM (\S+)", CONTAINERFILE.read_text("utf-8"), re.M))
    builder = _builder(base)
    if builder is None:
        pytest.skip(f"no podman, docker or buildah has {base}")
    options = shlex.split(os.environ.get("ARCHISYNC_TEST_BUILD", ""))
    built = _run(builder, "build", *options, "-f", str(CONTAINERFILE), "-t", IMAGE, str(REPOSITORY))
    assert built.returncode == 0, built.stderr
    if builder == "buildah":
        container = _run("buildah", "from", IMAGE).stdout.strip()
        yield ["buildah", "run", container, "--"]
        _run("buildah", "rm", container)
    else:
        yield [builder, "run", "--rm", "--entrypoint=", IMAGE]
    _run(builder, "rmi", IMAGE)


@pytest.mark.soak
def test_the_image_has_the_program_and_nothing_that_its_user_may_change(in_image: list[str]) -> None:
    told = _run(*in_image, "archisync", "--version")
    assert told.stdout.strip() == f"archisync {archisync.__version__}", told.stderr
    user = re.search(r"^USER (\d+):", CONTAINERFILE.read_text("utf-8"), re.M)
    assert user is not None
    assert _run(*in_image, "id", "-u").stdout.strip() == user[1]
    assert _run(*in_image, "find", "/opt/archisync", "-writable", "-not", "-type", "l").stdout == ""
    assert _run(*in_image, "archisync", "status").returncode == ExitCode.CONFIGURATION  # no database is named


@pytest.mark.soak
def test_the_image_reads_http_and_pdf(in_image: list[str]) -> None:
    done = _run(*in_image, "/opt/archisync/bin/python", "-c", "import httpx, pypdfium2, prometheus_client")
    assert done.returncode == 0, done.stderr
