"""What a sync would do now, for `archisync diff`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from archisync.base.errors import ExportError
from archisync.base.text import printable
from archisync.rules.config import Config
from archisync.rules.guard import Hold, Near
from archisync.rules.synctypes import SyncType
from archisync.sources.interface import Export
from archisync.sources.spoolfolder import SpoolFolder
from archisync.store import applied_exports
from archisync.store.applied_exports import Begun
from archisync.store.database import Database
from archisync.sync.clear import delete_rows
from archisync.sync.comparing import compare
from archisync.sync.exports import fetch_export, fetch_file, open_export
from archisync.sync.lost import lost_columns
from archisync.sync.runrecord import RunRecord
from archisync.sync.tablecheck import explained
from archisync.sync.target import Target
from archisync.sync.verdict import Outlook, judge_comparison, outlook_of, unreadable

_NO_RUN = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a sync would do now. `hold`: why it would hold the export instead; of one that can't be read nobody knows the rest. `nearest`:
    the rules that saw anything."""

    origin: str
    seen: int | None = None
    quarantined: int | None = None
    outlook: Outlook = field(default_factory=Outlook)
    hold: Hold | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)
    nearest: Sequence[Near] = ()


def preview(db: Database, config: Config, sync_type: SyncType, agent_id: str, *, file: Path | None = None) -> Preview:
    """Fetch, read, plan and judge the export as a run would, and write nothing. The caller holds the agent's lock. With `file`, that one
    instead of the source's, whatever its age.

    Raises what fetching raises. An export that can't be read gives a Preview with a hold.
    """
    with SpoolFolder() as spool:
        if file is None:
            export = fetch_export(config, sync_type, agent_id, spool)
        else:
            export = replace(fetch_file(config, sync_type, agent_id, spool, file), written_at=None)
        try:
            return _judged(db, config, sync_type, agent_id, export)
        except ExportError as exc:
            return Preview(origin=printable(export.origin), hold=unreadable(exc))
        except psycopg.Error as exc:
            if db.closed or db.broken:
                raise
            raise explained(db, sync_type, exc) from exc


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What the guard says of one of several exports: why it would be held, or None. `written_at`: its file's time."""

    name: str
    written_at: datetime
    seen: int | None = None
    hold: Hold | None = None


def replay(db: Database, config: Config, sync_type: SyncType, agent_id: str, folder: Path) -> Iterator[Replayed]:
    """The files of a folder in the order of their times, each judged as on that day, against the last one that would not be held.

    The agent's rows are deleted and the exports applied in one transaction, which is rolled back. The caller holds the agent's lock.
    """
    files = sorted(
        (file for file in folder.iterdir() if file.is_file()), key=lambda file: (file.stat().st_mtime, file.name)
    )
    with SpoolFolder() as spool, db.transaction(force_rollback=True):
        before = applied_exports.begin_apply(db, run_id=_NO_RUN, sync_type=sync_type.name, agent_id=agent_id)
        delete_rows(db, sync_type, agent_id)
        before = before._replace(
            known_rows=None, high_rows=None, columns=[], lost={}, sha256=None, origin=None, written_at=None, shared=True
        )
        for file in files:
            written_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
            before = before._replace(now=written_at)
            export = replace(fetch_file(config, sync_type, agent_id, spool, file), written_at=None)
            seen, hold = None, None
            try:
                with db.transaction():
                    seen, hold, before = _replayed(db, config, sync_type, agent_id, export, before)
            except ExportError as exc:
                hold = unreadable(exc)
            yield Replayed(name=file.name, written_at=written_at, seen=seen, hold=hold)


def _replayed(
    db: Database, config: Config, sync_type: SyncType, agent_id: str, export: Export, before: Begun
) -> tuple[int, Hold | None, Begun]:
    """Apply the export unless it would be held. Returns its rows, why it would be held, and what is known before the next one."""
    record = RunRecord()
    records = open_export(config, sync_type, export, record.export, had=lambda: before.columns)
    target = Target(db, sync_type, agent_id, records.layout.columns, run_id=_NO_RUN)
    comparison = compare(target, records, compare_all=True, may_load=False)
    staged = comparison.staged
    verdict = judge_comparison(target, comparison, before, export, record, config.zone)
    if verdict.hold is None:
        comparison.write(verdict.plan)
        before = before._replace(known_rows=staged.valid, open_ended=staged.open_ended, columns=records.layout.found)
    target.forget_stage()
    return staged.seen, verdict.hold, before


def _judged(db: Database, config: Config, sync_type: SyncType, agent_id: str, export: Export) -> Preview:
    record = RunRecord()
    records = open_export(
        config,
        sync_type,
        export,
        record.export,
        had=lambda: applied_exports.had(db, sync_type=sync_type.name, agent_id=agent_id),
    )
    target = Target(db, sync_type, agent_id, records.layout.columns, run_id=_NO_RUN)
    with db.transaction(force_rollback=True):
        before = applied_exports.begin_apply(db, run_id=_NO_RUN, sync_type=sync_type.name, agent_id=agent_id)
        record.warn_about_lost(lost_columns(records.layout, before), records.layout)
        comparison = compare(target, records, compare_all=True, may_load=False)
        staged = comparison.staged
        record.warn_about_rows(staged, records)
        verdict = judge_comparison(target, comparison, before, export, record, config.zone)
        outlook = outlook_of(comparison, verdict.plan)
        record.warn_about_values(comparison)
    return Preview(
        origin=printable(export.origin),
        seen=staged.seen,
        quarantined=staged.quarantined,
        outlook=outlook,
        hold=verdict.hold,
        nearest=verdict.nearest,
        warnings=record.warnings,
    )
