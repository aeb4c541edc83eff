"""Of everything that a server can do, the users of `redis acl` may do what they need and nothing else: asked of the server itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import redis

from archisync.queue.acl import User, acl_commands, allowed
from tests.support.redisservers import REDIS_SERVER, Server, server

QUEUE = "archisync"
OTHERS = (
    "rq:job:nightly-report", "rq:queue:another", "rq:queues", "rq:workers", "rq:groups", "rq:worker:another.host.7", "rq:wip:another",
    "rq:results:nightly-report", "rq:execution:nightly-report:1", "rq:suspended", "celery", "rq:rl-keys", "rq:clean_registries:another",
)  # fmt: skip
"""Keys of other applications on the same server, those that all applications of RQ share among them."""
UNPROTECTED = {"enable-debug-command": "yes", "enable-module-command": "yes"}
"""Or the server itself would refuse these before it looks at the user."""
INSTALLED = pytest.mark.skipif(
    REDIS_SERVER is None, reason="redis-server is not installed (apt-get install redis-server)"
)


@pytest.fixture(params=["valkey", pytest.param("redis", marks=INSTALLED)], scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Valkey, and Redis as the operating system has it (Debian's 7.0), with the users of `redis acl`."""
    program = REDIS_SERVER if request.param == "redis" else None
    with server(tmp_path_factory.mktemp("server"), UNPROTECTED, program=program) as found:
        with found.client() as client:
            for line in acl_commands(QUEUE):
                assert ask(client, *line.split()) in ("OK", b"OK", True)
            for user in User:
                ask(client, "ACL", "SETUSER", f"archisync_{user}", "on", ">secret")
        yield found


def as_user(running: Server, user: User) -> redis.Redis:
    return redis.Redis(port=running.port, username=f"archisync_{user}", password="secret", protocol=2)


class Command(NamedTuple):
    """What the server says of a command, or of a subcommand called `config|get`."""

    name: str
    arity: int
    flags: frozenset[str]
    has_key: bool


def commands_of(running: Server) -> dict[str, Command]:
    with raw_client(running) as client:
        answer: Any = ask(client, "COMMAND")
    found = {}
    for info in answer:
        for one in info[9] or [info]:  # the subcommands, of a command that has some
            flags = frozenset(text(flag) for flag in one[2])
            found[text(one[0])] = Command(name=text(one[0]), arity=one[1], flags=flags, has_key=one[3] > 0)
    assert len(found) > 250
    return found


def raw_client(running: Server) -> redis.Redis:
    """An administrator's client that does not interpret what the server answers."""
    client = redis.Redis(port=running.port, protocol=2)
    client.response_callbacks.clear()
    return client


def ask(client: Any, *words: str) -> Any:
    return client.execute_command(*words)


def text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def refused(client: redis.Redis, command: Command, argument: str) -> bool:
    """Whether the user may not do that at all; an error about the arguments means that it may."""
    words = command.name.split("|")
    arguments = [argument] * (abs(command.arity) - len(words))
    try:
        ask(client, *words, *arguments)
    except redis.exceptions.NoPermissionError:
        return True
    except redis.RedisError:
        return False
    return False


@pytest.mark.parametrize("user", User)
def test_a_user_is_refused_every_command_that_it_is_not_for(running: Server, user: User) -> None:
    granted, known = set(allowed(user, QUEUE).commands), commands_of(running)
    assert granted <= known.keys()
    with as_user(running, user) as client:
        others = [c for c in known.values() if c.name not in granted and "no_auth" not in c.flags]
        assert [c.name for c in others if not refused(client, c, "x")] == []


@pytest.mark.parametrize("user", User)
def test_a_user_is_refused_the_keys_of_others_with_every_command(running: Server, user: User) -> None:
    known = commands_of(running)
    with as_user(running, user) as client:
        for name in allowed(user, QUEUE).commands:
            if known[name].has_key:
                assert [key for key in OTHERS if not refused(client, known[name], key)] == [], name
        for channel in ("rq:pubsub:another", "*"):
            assert refused(client, known["subscribe"], channel)


@pytest.mark.parametrize("user", User)
def test_each_rule_is_one_that_redis_6_2_knows(running: Server, user: User) -> None:
    """Redis refuses a user for one rule that it doesn't know. Each later server says since when it has a command."""
    with raw_client(running) as client:
        for name in allowed(user, QUEUE).commands:
            answer: Any = ask(client, "COMMAND", "DOCS", name.partition("|")[0])
            assert since(answer, name) <= (6, 2, 0), name


def since(answer: Any, name: str) -> tuple[int, ...]:
    """The version of that command, or of its subcommand, in a reply of COMMAND DOCS: names and values in turn, and lists of such."""
    flat = list(flatten(answer))
    after = flat[flat.index(name) :]
    return tuple(int(part) for part in after[after.index("since") + 1].split("."))


def flatten(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from flatten(item)
    else:
        yield text(value) if isinstance(value, str | bytes) else str(value)
