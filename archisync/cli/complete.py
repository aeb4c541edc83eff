"""What the shell offers when TAB is pressed: sync types, agent ids, run ids. Quick, and silent when the database is away: a
person who types a command wants no error in the middle of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from archisync.rules.synctypes import SYNC_TYPES

if TYPE_CHECKING:
    from archisync.store.database import Database

T = TypeVar("T")
OFFERED = 50
_ANSWER_TIMEOUT_S = 2


def sync_types(incomplete: str) -> list[str]:
    return [name for name in SYNC_TYPES if name.startswith(incomplete)]


def sync_types_or_all(incomplete: str) -> list[str]:
    return sync_types(incomplete) + [word for word in ("all",) if word.startswith(incomplete)]


def agent_ids(incomplete: str) -> list[str]:
    def ask(db: Database) -> list[str]:
        from archisync.store import agents

        return agents.ids_beginning_with(db, incomplete, limit=OFFERED)

    return _asked(ask)


def run_ids(incomplete: str) -> list[tuple[str, str]]:
    """The latest runs, each with what it was."""

    def ask(db: Database) -> list[tuple[str, str]]:
        from archisync.store import history

        return [(str(r.run_id), f"{r.sync_type} of {r.agent_id}: {r.state}") for r in history.newest(db, limit=OFFERED)]

    return [(number, told) for number, told in _asked(ask) if number.startswith(incomplete)]


def held_run_ids(incomplete: str) -> list[tuple[str, str]]:
    """Runs whose export waits for a decision."""

    def ask(db: Database) -> list[tuple[str, str]]:
        from archisync.store import held

        found = held.held_exports(db, include_decided=False)[:OFFERED]
        return [(str(h.run_id), f"{h.sync_type} of {h.agent_id}: {h.rule}") for h in found]

    return [(number, told) for number, told in _asked(ask) if number.startswith(incomplete)]


_ZSH_FIRST_TAB = """
if [ "$funcstack[1]" = "_%(prog_name)s" ]; then %(complete_func)s "$@"; fi
"""


def mend_zsh_script() -> None:
    """typer's script only defines a function when zsh loads it, so that the first TAB of each session did nothing. As cobra's
    scripts do, it now calls the function as well when it is loaded for a completion, and not when it is sourced."""
    from typer import _completion_shared as shared

    scripts = shared._completion_scripts
    if _ZSH_FIRST_TAB not in scripts["zsh"]:
        scripts["zsh"] += _ZSH_FIRST_TAB


def _asked(ask: Callable[[Database], list[T]]) -> list[T]:
    """What the database offers; nothing when it is away, too slow, or not configured."""
    from archisync.base.errors import ArchisyncError
    from archisync.rules.config import Config
    from archisync.store.database import connected

    with suppress(ArchisyncError):
        url = Config.from_environment().database_url
        with connected(url, purpose="completion", answer_timeout_s=_ANSWER_TIMEOUT_S) as db:
            return ask(db)
    return []
