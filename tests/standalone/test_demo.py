"""The demo's samples are part of what is installed; a test of the README runs the demo itself."""

import tomllib

from archisync.standalone.demo import SAMPLES
from tests.conftest import REPOSITORY


def test_every_sample_is_in_the_wheel() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    package = REPOSITORY / "archisync"
    packed = {
        path for pattern in project["tool"]["setuptools"]["package-data"]["archisync"] for path in package.glob(pattern)
    }
    samples = {path for path in SAMPLES.rglob("*") if path.is_file()}
    assert len(samples) == 15
    assert samples <= packed
