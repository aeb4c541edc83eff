"""A process that runs for months: what it keeps between two requests has a bound, and a request leaves no garbage behind."""

from __future__ import annotations

import ast
import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from starlette.types import ASGIApp

import archisync
from archisync.base.errors import ArchisyncError
from archisync.rules.config import Config
from archisync.store.database import Database
from archisync.web.app import application
from archisync.web.connections import PLACES, Connections
from tests.conftest import REPOSITORY
from tests.support.panel import TOKEN, TOKENS, inside

WINGS = ("web", "observe")
BOUNDED = {
    "web.attempts.Attempts._wrong": "test_access.py: test_the_memory_for_wrong_tokens_is_bounded_and_forgets",
    "web.connections.Connections._free": "test_however_many_ask_at_once_few_connections_are_kept",
    "web.together.Together._begun": "test_together.py: test_an_answer_is_begun_after_its_question_and_shared_by_all_who_asked_before",
    "web.together.Together._next": "test_together.py: test_an_answer_is_begun_after_its_question_and_shared_by_all_who_asked_before",
}
"""What lives as long as the process and can grow, and the test that drives it past its bound."""
GROWING = {
    "dict",
    "list",
    "set",
    "deque",
    "defaultdict",
    "OrderedDict",
    "Counter",
    "Queue",
    "LifoQueue",
    "WeakValueDictionary",
}


def kept(tree: ast.Module, name: str) -> Iterator[str]:
    """Everything in the module that may grow from one request to the next."""
    for top in tree.body:
        if isinstance(top, ast.Assign | ast.AnnAssign) and top.value is not None and may_grow(top.value):
            yield f"{name}.{ast.unparse(top.targets[0] if isinstance(top, ast.Assign) else top.target)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            remembers = [word for word in map(ast.unparse, node.decorator_list) if "cache" in word]
            if remembers and (node.args.args or node.args.kwonlyargs) and remembers != ["cached_property"]:
                yield f"{name}.{node.name}"
        if isinstance(node, ast.ClassDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Assign | ast.AnnAssign) and inner.value is not None and may_grow(inner.value):
                    target = ast.unparse(inner.targets[0] if isinstance(inner, ast.Assign) else inner.target)
                    if target.startswith("self."):
                        yield f"{name}.{node.name}.{target.removeprefix('self.')}"


def may_grow(value: ast.expr) -> bool:
    """Whether it is an empty container, or one of GROWING: a table that is written down is not filled later."""
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1].split("[")[0] in GROWING and not value.args
    return isinstance(value, ast.Dict | ast.List | ast.Set) and not ast.unparse(value).strip("{}[]")


def test_whatever_lives_as_long_as_the_process_has_a_bound_and_a_test_of_it() -> None:
    root = REPOSITORY / "archisync"
    files = [path for wing in WINGS for path in (root / wing).rglob("*.py")]
    assert len(files) > 40
    found = [
        what
        for path in files
        for what in kept(ast.parse(path.read_text("utf-8")), ".".join(path.relative_to(root).with_suffix("").parts))
    ]
    assert sorted(found) == sorted(BOUNDED)
    assert archisync.__file__.startswith(str(root))


def test_what_may_grow_is_recognised() -> None:
    text = "seen = {}\nnames: list[str] = []\nTABLE = {1: 2}\n@cache\ndef a(x): ...\n@cache\ndef b(): ...\n"
    text += "class C:\n  def __init__(self):\n    self._of = OrderedDict[str, int]()\n    self.x = 1\n    here = []\n"
    assert list(kept(ast.parse(text), "m")) == ["m.seen", "m.names", "m.a", "m.C._of"]


def test_however_many_ask_at_once_few_connections_are_kept(database_url: str, connection: Database) -> None:
    connections = Connections(Config(environment={"ARCHISYNC_DATABASE_URL": database_url}))
    together = Barrier(PLACES)

    def ask(number: int) -> None:
        with connections.database():
            if number < PLACES:
                together.wait()  # so that all places are taken at once

    with ThreadPoolExecutor(4 * PLACES) as threads:
        list(threads.map(ask, range(4 * PLACES)))
    assert connections._free.qsize() == PLACES
    connections.close()
    assert connections._free.qsize() == 0


REFUSED = (
    ("/api/v1/held/0", 404, 401), ("/runs/0", 404, 303), ("/types/cats", 400, 303), ("/api/v1/runs?limit=x", 400, 401),
    ("/api/sync/intervals/cats", 405, 405), ("/nothing", 404, 404), ("/api/sync/monitoring/status?limit=1", 400, 401),
)  # fmt: skip
"""A path, and what those get for it who have a token and who have a wrong one."""


@pytest.mark.parametrize("token", [TOKEN, "a-wrong-token-of-the-tests"])
def test_a_request_that_is_refused_leaves_no_garbage(
    token: str, connection: Database, database_url: str, redis_url: str
) -> None:
    """An error that holds itself, by its traceback and the future that brought it, would stay until Python looks for garbage."""
    app = application(
        Config(environment={**TOKENS, "ARCHISYNC_DATABASE_URL": database_url, "ARCHISYNC_REDIS_URL": redis_url})
    )

    def errors() -> Counter[str]:
        return Counter(kind.__name__ for kind in map(type, gc.get_objects()) if issubclass(kind, ArchisyncError))

    gc.collect()
    gc.disable()
    try:
        before = errors()
        assert asyncio.run(ask(app, token)) == [known if token == TOKEN else stranger for _, known, stranger in REFUSED]
        assert errors() - before == Counter()
    finally:
        gc.enable()


async def ask(app: ASGIApp, token: str) -> list[int]:
    async with inside(app, token) as client:
        return [(await client.get(path)).status_code for path, _, _ in REFUSED]
