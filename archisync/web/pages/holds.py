"""Held exports: the list, and one of them with old and new side by side, where a person decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from archisync.actions import exports
from archisync.rules.synctypes import SYNC_TYPES
from archisync.store import audit, held, history
from archisync.store.held import ACCEPTANCE_HOURS, Held
from archisync.web.calls import Call
from archisync.web.contract import delivered
from archisync.web.pages.look import actor, done, field, show
from archisync.web.pages.pair import title
from archisync.web.pages.runs import run_number

LISTED = 100
COLUMNS = 8
"""Changed fields side by side; the names of the others are below."""
PLANNED = {
    "vanishing": "would vanish", "deleted": "would be deleted", "restored": "would be back", "rewritten": "would be rewritten",
    "changed": "would change", "new": "would be new",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Rows that would change: the names of the key's parts, the changed fields, and of each row its key and old and new by field."""

    key: Sequence[str]
    fields: Sequence[str]
    more_fields: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Mapping[str, Sequence[Any]]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """What looks wrong with a column, or several: the sentence without its name, and some old and new values."""

    column: str
    words: str
    examples: Sequence[Sequence[str]]


def page(call: Call) -> Response:
    """GET /held?decided=: those that wait, or all."""
    decided = call.query.get("decided") == "all"
    with call.database() as db:
        found = held.held_exports(db, include_decided=decided, limit=LISTED + 1)
        return show(
            call, db, "held.html", title="Held exports", found=found[:LISTED], more=len(found) > LISTED, decided=decided
        )


def one_page(call: Call) -> Response:
    """GET /held/{run}."""
    with call.database() as db:
        h = held.held_export(db, run_number(call.part("run")))
        return show(
            call,
            db,
            "hold.html",
            title=f"Held: {title(h.sync_type, h.agent_id)}",
            h=h,
            pair_title=title(h.sync_type, h.agent_id),
            suspects=suspects(h),
            compared=compare(h),
            vanishing=h.sample or [],
            key_names=_key_names(h, h.sample[0] if h.sample else []),
            planned=[(words, h.planned[name]) for name, words in PLANNED.items() if name in h.planned],
            may_decide=h.ended_at is None and h.used_by_run is None and h.decision in (None, "accepted", "rejected"),
            hours=ACCEPTANCE_HOURS,
            run=history.get(db, h.run_id),
            deeds=audit.newest(db, run_id=h.run_id),
        )


def suspects(h: Held) -> list[Suspect]:
    """What the guard's rules about values found, whichever rule the export is held for."""
    return [
        Suspect(
            column=found["column"],
            words=found["message"].removeprefix(f"{found['column']}: "),
            examples=found["examples"],
        )
        for found in h.findings or []
    ]


def compare(h: Held) -> Comparison | None:
    """The rows that would change, for a table; None when there are none."""
    if not h.changes:
        return None
    names: dict[str, int] = {}
    for change in h.changes:
        for name in change["fields"]:
            names[name] = names.get(name, 0) + 1
    common = sorted(names, key=lambda name: (-names[name], name))  # what changes in most rows first
    return Comparison(
        key=_key_names(h, h.changes[0]["key"]),
        fields=common[:COLUMNS],
        more_fields=common[COLUMNS:],
        rows=[(change["key"], change["fields"]) for change in h.changes],
    )


def _key_names(h: Held, key: Sequence[str]) -> Sequence[str]:
    type_ = SYNC_TYPES.get(h.sync_type)
    names = [name.replace("_", " ") for name in type_.key] if type_ else []
    return names if len(names) == len(key) else [f"key {n}" for n in range(1, len(key) + 1)]


def accept(call: Call) -> Response:
    """POST /act/accept: `run`, and `why`."""
    run_id, why = run_number(field(call, "run")), field(call, "why")
    with call.database() as db:
        h, forced = exports.accept(db, actor(call), run_id, why=why)
        note = delivered(call, db)
    applies = f"; run {forced.run_id} applies it: {note}" if forced else ""
    return done(
        call, f"the export of run {h.run_id} is accepted for {ACCEPTANCE_HOURS} hours{applies}{_other(h, run_id)}"
    )


def reject(call: Call) -> Response:
    """POST /act/reject: `run`, and `why`."""
    run_id, why = run_number(field(call, "run")), field(call, "why")
    with call.database() as db:
        h = exports.reject(db, actor(call), run_id, why=why)
    return done(
        call,
        f"the export of run {h.run_id} is rejected, now and whenever it comes again; the known rows stay{_other(h, run_id)}",
    )


def _other(h: Held, asked: int) -> str:
    return "" if h.run_id == asked else f" (the same export as in run {asked} was held again in run {h.run_id})"
