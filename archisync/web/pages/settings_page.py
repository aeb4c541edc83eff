"""The settings of each type, and the pauses that are in force."""

from __future__ import annotations

from starlette.responses import Response

from archisync.actions.settings import scope_in_words
from archisync.rules.reasons import COLUMN_SHARES, Limits
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import settings
from archisync.web.calls import Call
from archisync.web.pages import settings_forms
from archisync.web.pages.look import show

PAUSES_LISTED = 200
SHARES = {
    "drop": "fewer rows than before",
    "delete": "of the known rows gone",
    "rewrite": "of the known rows rewritten",
}


def page(call: Call) -> Response:
    """GET /settings."""
    with call.database() as db:
        limits = settings.all_limits(db)
        pauses = settings.pauses(db)
        return show(
            call,
            db,
            "settings.html",
            title="Settings",
            types=[(one, limits.get(one.sync_type, Limits())) for one in settings.all_settings(db)],
            shares=SHARES,
            column_shares=COLUMN_SHARES,
            columns={name: [field.name for field in type_.fields] for name, type_ in SYNC_TYPES.items()},
            as_shown=settings_forms.as_shown,
            pauses=[(pause, scope_in_words(pause.sync_type, pause.agent_id)) for pause in pauses[:PAUSES_LISTED]],
            more_pauses=max(len(pauses) - PAUSES_LISTED, 0),
            everything_paused=any(p.sync_type is None and p.agent_id is None for p in pauses),
        )
