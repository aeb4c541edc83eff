"""What the three shells are offered when TAB is pressed, and that nothing else is printed."""

import os
import re
from collections.abc import Callable

import pytest

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import agents, queued_runs
from archisync.store.database import Database
from tests.conftest import COMMAND_TIMEOUT_S
from tests.support.warm import WarmCommand

Offered = Callable[..., list[str]]


@pytest.fixture
def offered(warm_command: WarmCommand) -> Offered:
    def offer(words: str, env: dict[str, str], shell: str = "bash") -> list[str]:
        """What is offered for the last of the words (which a blank ends); for bash, one by one."""
        asked = {
            "bash": {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
            "zsh": {"_TYPER_COMPLETE_ARGS": words},
            "fish": {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        }[shell]
        own = {"PATH": os.environ["PATH"], "_ARCHISYNC_COMPLETE": f"complete_{shell}"}
        done = warm_command.run([], env=own | asked | env, timeout_s=COMMAND_TIMEOUT_S)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split("\n") if shell == "bash" else [done.stdout]

    return offer


@pytest.fixture
def env(connection: Database, database_url: str) -> dict[str, str]:
    for name in ("anna.bianchi", "anna.verdi", "luca.ferrari"):
        agents.add(connection, name, name=None, whitelisted=True)
    queued_runs.force(connection, "orders", "luca.ferrari", by="test", why=None)
    return {"ARCHISYNC_DATABASE_URL": database_url}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("archisync sta", {"status"}),
        ("archisync run ", {*SYNC_TYPES, "all"}),
        ("archisync interval set or", {"orders"}),
        ("archisync guard reset p", {"products", "prices"}),
        ("archisync run orders --agent an", {"anna.bianchi", "anna.verdi"}),
        ("archisync agent show l", {"luca.ferrari"}),
        ("archisync why ddt anna.v", {"anna.verdi"}),
        ("archisync show ", {"1"}),
        ("archisync held accept ", set()),
    ],
)
def test_bash_is_offered_the_words_that_fit(
    offered: Offered, env: dict[str, str], words: str, expected: set[str]
) -> None:
    assert set(offered(words, env)) - {""} == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_are_offered_the_same(offered: Offered, env: dict[str, str], shell: str) -> None:
    text = "".join(offered("archisync run orders --agent an", env, shell))
    assert "anna.bianchi" in text
    assert "anna.verdi" in text
    assert "luca" not in text
    assert re.search(r"orders of luca.ferrari\\*: queued", "".join(offered("archisync show ", env, shell)))


@pytest.mark.parametrize("url", ["", "postgresql://nobody@127.0.0.1:9/none", "nonsense"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_without_a_database_types_are_offered_and_no_error_is_printed(offered: Offered, shell: str, url: str) -> None:
    env = {"ARCHISYNC_DATABASE_URL": url}
    nothing = "_files" if shell == "zsh" else ""  # zsh then offers what it would without us
    assert "".join(offered("archisync agent show a", env, shell)).strip() == nothing
    assert "orders" in "".join(offered("archisync run or", env, shell))
