"""The embedded Valkey: what it keeps, and that it evicts nothing."""

from pathlib import Path

import redis

from archisync.standalone.valkey import EmbeddedValkey


def _client(server: EmbeddedValkey) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_it_evicts_nothing_and_writes_nothing_unless_it_is_durable(session_valkey: EmbeddedValkey) -> None:
    with _client(session_valkey) as client:
        found = client.config_get("maxmemory-policy", "save", "appendonly")
    assert found == {"maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}


def test_a_valkey_that_is_not_durable_comes_back_empty(own_valkey: EmbeddedValkey) -> None:
    url = own_valkey.url
    with _client(own_valkey) as client:
        client.set("job", "1")
    own_valkey.kill()
    own_valkey.start()
    with _client(own_valkey) as client:
        assert client.get("job") is None
    assert own_valkey.url == url


def test_a_durable_valkey_keeps_its_keys(folder: Path) -> None:
    with EmbeddedValkey(folder, durable=True) as server, _client(server) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        client.set("job", "1")
    with EmbeddedValkey(folder, durable=True) as server, _client(server) as client:
        assert client.get("job") == "1"
