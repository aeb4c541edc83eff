"""Getting an export: fetching it, with a few retries in place, and opening it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archisync import sources
from archisync.base.errors import TransientSourceError
from archisync.formats import open_tables
from archisync.rules.config import Config
from archisync.rules.synctypes import SyncType
from archisync.sources.interface import Export, Fetched, Original, Request
from archisync.sync.labels import required_places
from archisync.sync.records import RecordReader, read_records

if TYPE_CHECKING:
    from tenacity import RetryCallState

FETCH_ATTEMPTS = 3
FETCH_FIRST_WAIT_S = 0.5
FETCH_LONGEST_WAIT_S = 10.0
_NOWHERE = Path(os.devnull)


def fetch_export(config: Config, sync_type: SyncType, agent_id: str, spool: Path) -> Export:
    """Fetch the whole export into the folder `spool`. Raises what `sources.fetch` raises."""
    export = fetch_if_changed(config, sync_type, agent_id, spool, validators={})
    assert isinstance(export, Export)  # without validators no source says that nothing has changed
    return export


def fetch_file(config: Config, sync_type: SyncType, agent_id: str, spool: Path, file: Path) -> Export:
    """Copy this file instead of what the source has. Raises what `sources.fetch` raises."""
    request = Request(
        template=str(file.absolute()),
        agent_id=agent_id,
        sync_type=sync_type.name,
        spool_dir=spool,
        max_bytes=config.max_export_bytes,
        config=config,
    )
    export = sources.fetch(request)
    assert isinstance(export, Export)
    return export


def fetch_if_changed(
    config: Config, sync_type: SyncType, agent_id: str, spool: Path, *, validators: Mapping[str, str]
) -> Fetched:
    """Fetch the export, unless the source says that it is still the one that `validators` came with.

    A fault that may pass is tried again here, for a few seconds at most; after that it is a later tick's turn.
    """
    request = request_for(config, sync_type, agent_id, spool=spool, validators=validators)
    try:
        return sources.fetch(request)
    except TransientSourceError as exc:
        return _fetch_again(request, exc)


def _fetch_again(request: Request, exc: TransientSourceError) -> Fetched:
    """The attempts after the first one, which ended with `exc`."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt  # slow to import, and seldom wanted

    failed = [exc]

    def attempt() -> Fetched:
        if failed:
            raise failed.pop()
        return sources.fetch(request)

    retrying = Retrying(
        retry=retry_if_exception(_may_retry_here), stop=stop_after_attempt(FETCH_ATTEMPTS), wait=_wait_s, reraise=True
    )
    return retrying(attempt)


def put_away(config: Config, sync_type: SyncType, agent_id: str, spool: Path, originals: Sequence[Original]) -> None:
    """Move the files that the applied export was read from. Raises what `sources.put_away` raises."""
    sources.put_away(request_for(config, sync_type, agent_id, spool=spool, validators={}), originals)


def request_for(
    config: Config, sync_type: SyncType, agent_id: str, *, spool: Path = _NOWHERE, validators: Mapping[str, str]
) -> Request:
    """What a source is asked. Without `spool` it can only say whether the export is still the applied one."""
    return Request(
        template=config.source(sync_type),
        agent_id=agent_id,
        sync_type=sync_type.name,
        spool_dir=spool,
        max_bytes=config.max_export_bytes,
        config=config,
        validators=validators,
    )


def _may_retry_here(exc: BaseException) -> bool:
    """A source that asks for a longer wait than a worker can spend is left to a later tick."""
    return isinstance(exc, TransientSourceError) and (exc.retry_after_s or 0) <= FETCH_LONGEST_WAIT_S


def _wait_s(state: RetryCallState) -> float:
    from tenacity import wait_random_exponential

    exc = state.outcome.exception() if state.outcome else None
    asked_s = (exc.retry_after_s or 0) if isinstance(exc, TransientSourceError) else 0
    return max(asked_s, wait_random_exponential(multiplier=FETCH_FIRST_WAIT_S, max=FETCH_LONGEST_WAIT_S)(state))


def open_export(
    config: Config, sync_type: SyncType, export: Export, details: dict[str, Any], *, had: Callable[[], Sequence[str]]
) -> RecordReader:
    """The export's records. What was detected (format, encoding, delimiter) goes into `details`. Raises ExportError.

    `had`: the fields that the last exports had. JSON may leave out what is empty, so there a field that they had is empty, and not unknown,
    when no object has it any more: what an object says does not depend on the others.
    """
    aliases, locale = config.aliases(sync_type), config.locale(sync_type) or "iso"
    header = partial(required_places, sync_type=sync_type, aliases=tuple(aliases.items()))
    table = open_tables(
        export, config.csv_dialect(sync_type), config.reader_limits, header, sheet=config.sheet(sync_type)
    )
    details["detected"] = dict(table.detected)
    if table.detected["format"] == "pdf":
        from archisync.sync.reports import PrintedTable

        locale = config.locale(sync_type) or "it"
        table = PrintedTable(table, sync_type, aliases)
    owned = had() if table.detected["format"] in ("json", "jsonl") else ()
    return read_records(table, sync_type, locale=locale, zone=config.zone, extra_aliases=aliases, owned=owned)
