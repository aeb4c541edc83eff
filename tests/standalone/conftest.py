"""A folder for servers that a test starts itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from archisync.standalone.folders import temporary_folder
from tests.conftest import roomy_memory


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder(roomy_memory()) as folder:
        yield folder
