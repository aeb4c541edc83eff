"""Sending notices to the hook: one JSON document for each change.

A change is the beginning of a hold, the third failure in a row of a pair, or the end of either. Its notice is written in the transaction
of the change and marked when the hook has taken it, so none is lost. If a tick dies between the two, the notice is sent again with the
same `id`. The document contains no secret.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from time import monotonic
from typing import Any

from archisync.base.log import EventLog
from archisync.base.text import iso, redact, with_hint
from archisync.schedule.hook import CALL_TIMEOUT_S, HookError, call_hook, check_hook
from archisync.store import notices
from archisync.store.database import Database
from archisync.store.notices import Notice

LONGEST_S = 15.0
"""For all calls of one tick together: syncs matter more than notices."""
DOCUMENT_SCHEMA = 1


def send_notices(db: Database, hook: str, environment: Mapping[str, str], *, within_s: float) -> None:
    """Send the waiting notices, oldest first. Whatever is not sent in that time is the next tick's.

    Raises ConfigurationError if the hook can't be called at all.
    """
    until = monotonic() + min(within_s, LONGEST_S) - CALL_TIMEOUT_S
    check_hook(hook)
    notices.mend_clock(db)
    notices.expire(db)
    while monotonic() < until:
        # CRITICAL SECTION: one row is locked during a call of at most CALL_TIMEOUT_S. Overlapping ticks skip it.
        with db.transaction():
            notice = notices.lock_next(db)
            if notice is None:
                return
            _send(db, hook, environment, notice)


def _send(db: Database, hook: str, environment: Mapping[str, str], notice: Notice) -> None:
    body = json.dumps(document(notice), ensure_ascii=False).encode()
    ids = {"notice": notice.id, "about": notice.event, "type": notice.sync_type, "agent": notice.agent_id}
    try:
        call_hook(hook, body, environment)
    except HookError as exc:
        notices.mark_refused(db, notice, str(exc))
        hint = "it is sent again; archisync doctor --only hook"
        EventLog().event("notice-refused", **ids, because=str(exc), hint=hint)
    else:
        notices.mark_delivered(db, notice)
        EventLog().event("notice-delivered", **ids)


_CHAT = (
    ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"),  # Slack: <!channel>, <@U123>, <https://…|text>
    ("@", "\N{FULLWIDTH COMMERCIAL AT}"),  # @here, @channel, @everyone
    ("://", "[:]//"), ("www.", "www[.]"), ("](", "] ("),  # an address, and [text](address) of Mattermost and Teams
    ("`", "'"),
)  # fmt: skip


def for_chat(text: str) -> str:
    """The text as chat programs show it, without anything that would call people or lead somewhere: a part of it may come from an export,
    such as a column's label."""
    for found, instead in _CHAT:
        text = text.replace(found, instead)
    return text


def document(notice: Notice) -> dict[str, Any]:
    """What the hook gets."""
    show = f"archisync {'held ' if notice.event == 'held' else ''}show {notice.run_id}"
    return {
        "schema": DOCUMENT_SCHEMA,
        "id": notice.id,
        "event": notice.event,
        "sync_type": notice.sync_type,
        "agent_id": notice.agent_id,
        "run_id": notice.run_id,
        "at": iso(notice.created_at),
        "message": redact(notice.message),
        "text": for_chat(
            redact(f"archisync: {with_hint(notice.message, notice.hint)}")
        ),  # the field that chat programs show
        "error_hint": redact(notice.hint) if notice.hint else None,
        "hint": show
        if notice.run_id is not None
        else f"archisync why {notice.sync_type} {shlex.quote(notice.agent_id)}",
    }
