"""What the forms of the panel change in the settings."""

from __future__ import annotations

from starlette.responses import Response

from archisync.actions import settings as actions
from archisync.rules.reasons import ROW_SHARES, Changes, Limits
from archisync.rules.synctypes import SyncType, sync_type
from archisync.store import settings
from archisync.store.database import Database
from archisync.store.settings import TypeSettings
from archisync.web.calls import Call, Refusal
from archisync.web.pages.look import actor, done, field, optional


def set_interval(call: Call) -> Response:
    """POST /act/interval: `type`, `minutes`, and `was`, the interval that the page showed."""
    type_, minutes = sync_type(field(call, "type")), settings.check_interval(field(call, "minutes"))
    with call.database() as db, db.transaction():
        settings.lock(db, type_)
        known = _settings(db, type_)
        if field(call, "was") != str(known.interval_minutes):
            raise Refusal(
                412,
                f"somebody has set {type_.name} to {known.interval_minutes} min meanwhile; nothing was changed",
                hint="look again, then save",
            )
        if minutes == known.interval_minutes:
            return done(call, f"{type_.name}: every {minutes} min already")
        actions.set_intervals(db, actor(call), {type_: minutes}, why=optional(call, "why"))
    return done(call, f"{type_.name}: every {minutes} min, from the next tick on (it was {known.interval_minutes})")


def _settings(db: Database, type_: SyncType) -> TypeSettings:
    found = next((one for one in settings.all_settings(db) if one.sync_type == type_.name), None)
    if found is None:
        raise Refusal(409, f"{type_.name} has no settings yet", hint="archisync db migrate")
    return found


def set_enabled(call: Call) -> Response:
    """POST /act/enabled: `type` and `enabled`, true or false."""
    type_, enabled = sync_type(field(call, "type")), field(call, "enabled")
    if enabled not in ("true", "false"):
        raise Refusal(400, "enabled is neither true nor false")
    with call.database() as db:
        actions.set_enabled(db, actor(call), [type_], enabled == "true", why=optional(call, "why"))
    return done(
        call,
        f"{type_.name}: {'scheduled again' if enabled == 'true' else 'not scheduled any more'}, from the next tick on",
    )


def set_limits(call: Call) -> Response:
    """POST /act/guard: `type`, `drop`, `delete`, `rewrite`, and `was`, what the page showed."""
    wanted = {share: settings.check_percent(field(call, share)) for share in ROW_SHARES}
    type_ = _change_limits(call, {(share, ""): percent for share, percent in wanted.items()})
    drop, delete, rewrite = wanted.values()
    return done(call, f"{type_.name}: held above {drop} % fewer, {delete} % gone, {rewrite} % rewritten rows")


def set_column_limit(call: Call) -> Response:
    """POST /act/guard-column: `type`, `rule`, `column` (empty: every one), `percent` (empty: back to the default), and `was`."""
    rule, column, percent = field(call, "rule"), field(call, "column"), optional(call, "percent")
    value = None if percent is None else settings.check_percent(percent)
    type_ = _change_limits(call, {(rule, column): value})
    where = f"{type_.name}, {column}" if column else type_.name
    return done(call, f"{where}: {rule} {'is as for other types' if value is None else f'holds above {value} %'}")


def _change_limits(call: Call, changes: Changes) -> SyncType:
    type_ = sync_type(field(call, "type"))
    with call.database() as db, db.transaction():
        settings.lock(db, type_)
        if field(call, "was") != as_shown(settings.all_limits(db).get(type_.name, Limits())):
            raise Refusal(
                412,
                f"somebody has changed the guard of {type_.name} meanwhile; nothing was changed",
                hint="look again, then save",
            )
        actions.change_limits(db, actor(call), type_, changes, why=optional(call, "why"))
    return type_


def as_shown(limits: Limits) -> str:
    """What a page shows of the thresholds, for a form to send back as `was`."""
    return ",".join(f"{name} {percent}" for name, percent in {**limits.of_rows, **limits.of_columns}.items())
