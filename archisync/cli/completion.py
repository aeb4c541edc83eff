"""What the shell offers when TAB is pressed: sync types, agent ids, run ids.

A person in the middle of a command wants no error there: without a database that answers at once, nothing is offered.

A shell runs parts of what it is offered: zsh evaluates it, bash puts it on the command line as it is. So an id that anybody wrote into
agents.users is offered only if it is one that archisync accepts, and descriptions have no character that means something to a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from archisync.base.errors import ArchisyncError
from archisync.rules.agentid import is_agent_id
from archisync.rules.synctypes import SYNC_TYPES

if TYPE_CHECKING:
    from archisync.store.database import Database

OFFERED = 50
LOOKED_AT = 1_000
"""Ids in the table among which those that may be offered are looked for."""
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ._@+:-]")
ANSWER_TIMEOUT_S = 2

_ZSH_FIRST_TAB = """
if [ "$funcstack[1]" = "_%(prog_name)s" ]; then %(complete_func)s "$@"; fi
"""


def sync_types(incomplete: str) -> list[str]:
    return [name for name in _type_names() if name.startswith(incomplete)]


def sync_types_or_all(incomplete: str) -> list[str]:
    return [name for name in (*_type_names(), "all") if name.startswith(incomplete)]


def _type_names() -> list[str]:
    """Every type; without a database that answers, those that come with archisync."""
    from archisync.store import synctypes

    with suppress(ArchisyncError), _database() as db:
        synctypes.load(db)
    return list(SYNC_TYPES)


def agent_ids(incomplete: str) -> list[str]:
    from archisync.store import agents

    with suppress(ArchisyncError), _database() as db:
        return [i for i in agents.ids_beginning_with(db, incomplete, limit=LOOKED_AT) if is_agent_id(i)][:OFFERED]
    return []


def run_ids(incomplete: str) -> list[tuple[str, str]]:
    """The newest runs, each with a description."""
    from archisync.store import history

    with suppress(ArchisyncError), _database() as db:
        runs = history.newest(db, limit=OFFERED)
        return _described(incomplete, ((r.run_id, f"{r.sync_type} of {r.agent_id}: {r.state}") for r in runs))
    return []


def held_run_ids(incomplete: str) -> list[tuple[str, str]]:
    """Runs whose export waits for a decision, each with a description."""
    from archisync.store import held

    with suppress(ArchisyncError), _database() as db:
        found = held.held_exports(db, limit=OFFERED)
        return _described(incomplete, ((h.run_id, f"{h.sync_type} of {h.agent_id}: {h.rule}") for h in found))
    return []


def _described(incomplete: str, runs: Iterable[tuple[int, str]]) -> list[tuple[str, str]]:
    """The runs whose number begins so; their descriptions have only characters that no shell interprets."""
    return [(str(run_id), _NOT_PLAIN.sub("?", text)) for run_id, text in runs if str(run_id).startswith(incomplete)]


@contextmanager
def _database() -> Iterator[Database]:
    """A connection. Raises ArchisyncError if the database is not configured, out of reach or slow."""
    from archisync.rules.config import Config
    from archisync.store.database import connected

    url = Config.from_environment().database_url
    with connected(url, purpose="completion", answer_timeout_s=ANSWER_TIMEOUT_S) as db:
        yield db


def mend_zsh_script() -> None:
    """Make the first TAB of a zsh session work. typer's script only defines a function when zsh loads it; now it also calls the function,
    unless the script is being sourced. cobra's scripts do the same."""
    from typer import _completion_shared as shared

    scripts = shared._completion_scripts
    if _ZSH_FIRST_TAB not in scripts["zsh"]:
        scripts["zsh"] += _ZSH_FIRST_TAB
