"""What the tests of sources share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.erp import Erp, running_erp
from tests.support.odata import Service, service_of_orders
from tests.support.places import Folder
from tests.support.s3 import Bucket, running_s3
from tests.support.sshd import SSHD, running_sshd


@pytest.fixture
def erp() -> Iterator[Erp]:
    with running_erp() as erp:
        yield erp


@pytest.fixture
def service() -> Iterator[Service]:
    """An OData service of orders."""
    with service_of_orders() as service:
        yield service


@pytest.fixture(params=["path", "sftp", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "path":
        yield Folder("", tmp_path / "in", {})
    elif request.param == "sftp":
        if SSHD is None:
            pytest.skip("openssh-server is not installed")
        (tmp_path / "sshd").mkdir()
        with running_sshd(tmp_path / "sshd") as server:
            variables = {"ARCHISYNC_SFTP_CONFIG": str(server.config_file)}
            yield Folder(f"sftp://127.0.0.1:{server.port}", tmp_path / "in", variables)
    else:
        with running_s3() as variables:
            bucket = Bucket(variables)
            bucket.clear()  # moto keeps its buckets for the whole process
            yield bucket
