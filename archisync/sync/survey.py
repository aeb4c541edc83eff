"""Which runs are over before they begin: those whose source has the export that was applied last."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from time import monotonic
from typing import Any

from archisync import __version__, sources
from archisync.base.signals import is_interrupt
from archisync.base.text import printable
from archisync.rules.config import Config
from archisync.rules.synctypes import SyncType, sync_type
from archisync.store.claims import ClaimedRun
from archisync.store.endings import Outcome, Report, UnchangedEnd
from archisync.store.runs import Counts, State, Trigger
from archisync.sync.exports import request_for


def survey(config: Config, run: ClaimedRun) -> UnchangedEnd | None:
    """How the run ends if its source can say on this machine, without fetching anything, that the export is the applied one.

    None when it can't, when the export is another one, and when it must be compared; whatever is wrong is left to the run itself.
    """
    applied = run.applied
    if not applied.get("validators") or run.blocked is not None or run.trigger is Trigger.FORCED:
        return None
    try:
        return _survey(config, run, applied)
    except Exception as exc:
        if is_interrupt(exc):
            raise
        return None


def _survey(config: Config, run: ClaimedRun, applied: dict[str, Any]) -> UnchangedEnd | None:
    started = monotonic()
    type_ = sync_type(run.sync_type)
    if applied["read_as"] != read_as(config, type_):
        return None
    origin = sources.origin_if_unchanged(request_for(config, type_, run.agent_id, validators=applied["validators"]))
    if origin is None:
        return None
    report = Report(
        counts=Counts(seen=applied["seen"], unchanged=applied["valid"]),
        export={"origin": printable(origin), "unchanged_since_run": applied["run_id"]},
        steps={"total": round((monotonic() - started) * 1000)},
    )
    return UnchangedEnd(run, unchanged_at_source(applied), report, applied["run_id"])


def unchanged_at_source(applied: dict[str, Any]) -> Outcome:
    message = f"the source says that the export has not changed since run {applied['run_id']}; nothing was fetched"
    return Outcome(State.SUCCEEDED, "unchanged-at-source", message)


@lru_cache(maxsize=512)
def read_as(config: Config, type_: SyncType) -> str:
    """A fingerprint of what decides, besides the export, about the rows that it becomes."""
    choices = (
        config.csv_dialect(type_),
        config.sheet(type_),
        config.aliases(type_),
        type_,
        config.locale(type_),
        config.zone.key,
    )
    parts = (__version__, config.source(type_), repr(choices))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
