"""Fixtures of the fault tests."""

from collections.abc import Iterator

import pytest
import redis

from archisync.rules.config import Config
from tests.support.queued import config_for


@pytest.fixture
def config(database_url: str, redis_url: str) -> Config:
    """This test's database and the shared Valkey, with the sample exports."""
    return config_for(database_url, redis_url)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
