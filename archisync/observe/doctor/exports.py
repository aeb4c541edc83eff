"""The check of exports: files are looked for, and each remote source is asked for one export of each type, without reading it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from archisync import sources
from archisync.base.errors import ArchisyncError
from archisync.base.text import counted
from archisync.observe.doctor.findings import Finding, failed, first_few, ok
from archisync.rules.config import Config
from archisync.rules.synctypes import sync_type
from archisync.sources.interface import Request
from archisync.store import checks
from archisync.store.database import Database

PAIRS_LOOKED_AT = 5_000
"""How many files are looked for. This bounds the time; the finding says when there are more."""
PROBE_TIMEOUT_S = 15
"""Types are asked for at the same time, so a server that is away costs this once."""


def check_exports(db: Database, config: Config) -> Iterator[Finding]:
    """Scheduled pairs whose file does not exist, and remote sources that don't have the export of a type's first agent."""
    pairs = checks.active_pairs(db, limit=PAIRS_LOOKED_AT)
    absent = [f"{name} of {agent_id}" for name, agent_id in pairs if _file_is_missing(config, name, agent_id)]
    if absent:
        hint = "check ARCHISYNC_SOURCE and the ERP; run doctor where the workers run, as their account"
        yield failed("exports", f"no export for {first_few(absent)}", hint)
    asked = 0
    for found in _probed(config, dict(reversed(pairs))):
        asked += 1
        if found is not None:
            yield found
            absent.append(found.message)
    if not absent:
        more = f" (the first {PAIRS_LOOKED_AT} were looked at)" if len(pairs) == PAIRS_LOOKED_AT else ""
        has = "has its export" if asked == 1 else "have their exports"
        remote = f"; {counted(asked, 'remote source')} {has}" if asked else ""
        yield ok("exports", f"no file is missing{more}{remote}")


def _file_is_missing(config: Config, type_name: str, agent_id: str) -> bool:
    """Other checks find what else is wrong with a source."""
    from archisync.sources.path import is_missing
    from archisync.sources.template import scheme_of

    try:
        template = config.source(sync_type(type_name))
        return scheme_of(template) in (None, "file") and is_missing(_request(config, type_name, agent_id, Path()))
    except ArchisyncError:
        return False


def _probed(config: Config, first_agents: dict[str, str]) -> Iterator[Finding | None]:
    """For each type whose source can be asked: what is wrong with it, or None."""
    limited = Config(environment={**config.environment, "ARCHISYNC_FETCH_TIMEOUT_S": str(PROBE_TIMEOUT_S)})
    with ThreadPoolExecutor(max_workers=len(first_agents) or 1) as pool:
        found = [pool.submit(_probe, limited, name, agent_id) for name, agent_id in sorted(first_agents.items())]
        for future in found:
            asked, finding = future.result()
            if asked:
                yield finding


def _probe(config: Config, type_name: str, agent_id: str) -> tuple[bool, Finding | None]:
    """Whether the source was asked, and what is wrong with it."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return sources.probe(_request(config, type_name, agent_id, Path(folder))), None
    except ArchisyncError as exc:
        return True, failed("exports", f"{type_name} of {agent_id}: {exc.message}", exc.hint)


def _request(config: Config, type_name: str, agent_id: str, folder: Path) -> Request:
    return Request(
        template=config.source(sync_type(type_name)),
        agent_id=agent_id,
        sync_type=type_name,
        spool_dir=folder,
        max_bytes=0,
        config=config,
    )
