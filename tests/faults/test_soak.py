"""The soak as a test: twenty seconds of it in `make test`, an hour in `make soak` (ARCHISYNC_SOAK_SECONDS chooses another length)."""

import os
import random

import pytest

from archisync.sources.spoolfolder import SpoolFolder
from tests.faults.soak import Soak


def soak(seconds: float) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    with Soak(seconds=seconds, seed=seed) as running:
        figures = running.run()
    with SpoolFolder():  # whoever makes one removes those of workers that were killed
        pass
    print(f"\nseed {seed}: {figures}")
    assert figures.violations == {}, f"seed {seed}: {figures}"
    assert sum(figures.faults.values()) >= seconds * 100 / 60
    assert len(figures.faults) >= (
        9 if seconds >= 300 else 6
    )  # each kind happened; in a short soak chance may leave some out
    assert figures.states["succeeded"] >= seconds / 10  # between the faults work gets done
    assert figures.unchanged >= seconds / 10


@pytest.mark.slow
def test_random_faults_for_twenty_seconds_lose_double_and_overlap_nothing() -> None:
    soak(20)


@pytest.mark.soak
def test_random_faults_for_an_hour_lose_double_and_overlap_nothing() -> None:
    soak(float(os.environ.get("ARCHISYNC_SOAK_SECONDS", "3600")))
