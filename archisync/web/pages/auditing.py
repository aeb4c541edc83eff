"""What people did, from wherever: the command line, the API or these pages."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import Response

from archisync.rules.synctypes import SYNC_TYPES, sync_type
from archisync.store import audit
from archisync.web.calls import Call, Refusal, storable
from archisync.web.pages.look import show

LISTED = 50
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
"""Its first characters are enough to know it by, as on the page of the held export."""


def page(call: Call) -> Response:
    """GET /audit?type=&agent=&before=."""
    type_name = storable("type", call.query.get("type", "")) or None
    agent_id = storable("agent", call.query.get("agent", "").strip()) or None
    before = _number(call.query.get("before"))
    name = sync_type(type_name).name if type_name else None
    with call.database() as db:
        found = audit.newest(db, sync_type=name, agent_id=agent_id, before=before, limit=LISTED + 1)
        return show(
            call,
            db,
            "audit.html",
            title="Audit",
            records=[(record, changed(record.before, record.after)) for record in found[:LISTED]],
            following=found[LISTED - 1].id if len(found) > LISTED else None,
            type_name=name,
            agent_id=agent_id,
            before=before,
            types=list(SYNC_TYPES),
        )


def changed(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """What that changed: `interval minutes 15 → 10`."""
    names = dict.fromkeys([*(before or {}), *(after or {})])
    parts = []
    for name in names:
        old, new = (before or {}).get(name), (after or {}).get(name)
        if old != new:
            was = "" if before is None or name not in before else f"{_shown(old)} → "
            parts.append(f"{name.replace('_', ' ')} {was}{_shown(new)}")
    return ", ".join(parts)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _SHA256.sub(lambda found: f"{found[0][:12]}…", value)
    return "–" if value is None else json.dumps(value)


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refusal(400, "there is no such page of the list", hint="begin with the first")
    return int(text)
