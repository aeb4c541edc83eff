"""What a sync would do now, for `archisync diff`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from archisync.store.database import Database
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
