"""What the tests of sources share."""

from collections.abc import Iterator

import pytest

from tests.support.erp import Erp, running_erp


@pytest.fixture
def erp() -> Iterator[Erp]:
    with running_erp() as erp:
        yield erp
