"""Sync types of the company's own that a person declares, changes or removes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from archisync.base.errors import BusyError, ConfigurationError, NotFoundError, UsageError
from archisync.base.text import counted
from archisync.rules.config import Config
from archisync.rules.declarations import levels
from archisync.rules.declarationtext import fingerprint
from archisync.rules.synctypes import SYNC_TYPES, SyncType
from archisync.rules.typechanges import Changes, changes_between
from archisync.store import audit, declaring, interventions, synctypes, typetables
from archisync.store.audit import Actor, Deed
from archisync.store.database import Database


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What `apply` does: `sentences` say it, `statements` do it; both are empty when the database has the declaration already."""

    type_: SyncType
    new: bool
    sentences: Sequence[str]
    statements: Sequence[sql.Composed]


def check(type_: SyncType, *, file: str) -> SyncType:
    """The type with its level among the others that this process knows. Raises ConfigurationError when its name, its table or what it comes
    after is wrong."""
    if type_.name in SYNC_TYPES.built_in:
        raise ConfigurationError(
            f"{file}: name: {type_.name} comes with archisync",
            hint="choose another name; its labels: ARCHISYNC_ALIASES",
        )
    taken = next((n for n, t in SYNC_TYPES.items() if t.table == type_.table and n != type_.name), None)
    if taken is not None:
        raise ConfigurationError(f"{file}: table: {type_.table} is the table of {taken}", hint="choose another name")
    return replace(type_, level=_levels(type_, file)[type_.name])


def _levels(type_: SyncType, file: str) -> dict[str, int]:
    """The levels of all types once this one is declared."""
    after = {name: other.after for name, other in SYNC_TYPES.items()} | {type_.name: type_.after}
    return levels(after, file=file)


def apply(db: Database, actor: Actor, type_: SyncType, config: Config, *, file: str, why: str | None = None) -> Plan:
    """Create or extend the type's table, with triggers, rights, registry row, settings and pairs, in one transaction.

    Raises ConfigurationError for what is not safe, BusyError when a worker does not let go of the table.
    """
    with _changing(db):
        plan = plan_apply(db, actor, type_, config, file=file, why=why)
        for statement in plan.statements:
            _execute(db, statement, file)
    synctypes.load(db)
    return plan


def script(db: Database, actor: Actor, type_: SyncType, config: Config, *, file: str, why: str | None = None) -> str:
    """What `apply` would execute, for whoever may; empty when there is nothing to do. What it records is the `actor`'s. It changes nothing
    once the type has been declared by somebody else meanwhile. Raises what `apply` raises."""
    plan = plan_apply(db, actor, type_, config, file=file, why=why)
    if not plan.statements:
        return ""
    still = declaring.still(plan.type_, SYNC_TYPES.own.get(type_.name))
    texts = [statement.as_string(db) for statement in (*declaring.alone(), still, *plan.statements)]
    return "".join(f"{text};\n" for text in ("begin", "set local client_encoding = 'UTF8'", *texts, "commit"))


def _execute(db: Database, statement: sql.Composed, file: str) -> None:
    try:
        db.execute(statement)
    except (psycopg.errors.UniqueViolation, psycopg.errors.NotNullViolation) as exc:
        said = exc.diag.message_detail or exc.diag.message_primary or ""
        raise ConfigurationError(
            f"{file}: table: its rows don't fit: {said}", hint="correct the rows, or declare another key"
        ) from None


def plan_apply(
    db: Database, actor: Actor, type_: SyncType, config: Config, *, file: str, why: str | None = None
) -> Plan:
    """What `apply` does now, the record in `system.audit` included. Raises what it raises."""
    synctypes.load(db)
    type_ = check(type_, file=file)
    known = SYNC_TYPES.own.get(type_.name)
    if known is not None and known.sha256 == fingerprint(type_):
        return Plan(type_=type_, new=False, sentences=[], statements=[])
    minutes = config.seed_interval(type_)
    if known is None:
        statements, sentences = _new_table(db, type_, file)
    else:
        old = SYNC_TYPES[type_.name]
        changes = changes_between(old, type_, file=file)
        statements, sentences = _extended_table(db, type_, changes, file), list(changes.sentences)
        if old.default_interval_minutes != type_.default_interval_minutes:
            statements.append(declaring.set_interval(type_, minutes))
    sentences = sentences or ["declared anew"]
    changed = {name: level for name, level in _levels(type_, file).items() if SYNC_TYPES.own.get(name)}
    changed = {name: level for name, level in changed.items() if SYNC_TYPES.own[name].level != level}
    statements += declaring.register(
        type_, who=actor.name, interval_minutes=minutes, levels=changed | {type_.name: type_.level}
    )
    deed = Deed(
        sync_type=type_.name,
        before={"sha256": known.sha256} if known else None,
        after={"sha256": fingerprint(type_), "did": "; ".join(sentences)},
    )
    statements.append(audit.statement(actor, "type apply", deed, why=why))
    return Plan(type_=type_, new=known is None, sentences=sentences, statements=statements)


def _new_table(db: Database, type_: SyncType, file: str) -> tuple[list[sql.Composed], list[str]]:
    existing = declaring.existing_table(db, type_, file=file)
    rights = declaring.grants(db, type_, adopted=existing is not None)
    if existing is None:
        did = f"table {type_.table} with {counted(len(type_.fields), 'field')}"
        return [*typetables.create(type_), *rights], [did]
    did = f"table {type_.table} adopted: nothing is dropped"
    return [*declaring.adopt(type_, existing, file=file), *rights], [did]


def _extended_table(db: Database, type_: SyncType, changes: Changes, file: str) -> list[sql.Composed]:
    return declaring.extend(type_, changes, declaring.columns_of(db, type_), file=file)


def remove(db: Database, actor: Actor, name: str, *, drop_table: bool, why: str | None = None) -> SyncType:
    """End the type's schedule, and its runs as cancelled. Its history stays, and its table unless `drop_table`. Returns what it was.

    Raises NotFoundError, UsageError for a type that comes with archisync or that others come after, BusyError when a tick queues it now.
    """
    with _changing(db):
        synctypes.load(db)
        type_ = _own_type(name)
        if drop_table and type_.adopt:
            raise UsageError(
                f"{type_.table} was there before the type: it is not dropped",
                hint=f"archisync type remove {name} --yes",
            )
        runs = interventions.unfinished(db, sync_type=name)
        interventions.cancel(db, [run.run_id for run in runs], message=f"{actor.name} removed the type")
        if interventions.unfinished(db, sync_type=name):
            raise BusyError(f"a run of {name} was queued just now", hint="again")
        before = {"sha256": SYNC_TYPES.own[name].sha256}
        for statement in declaring.remove(type_, drop_table=drop_table):
            db.execute(statement)
        deed = Deed(sync_type=name, before=before, after={"table_dropped": drop_table})
        audit.record(db, actor, "type remove", [deed], why=why)
    synctypes.load(db)
    return type_


def _own_type(name: str) -> SyncType:
    if name in SYNC_TYPES.built_in:
        raise UsageError(f"{name} comes with archisync", hint=f"archisync disable {name} ends its schedule")
    if name not in SYNC_TYPES.own:
        raise NotFoundError(f"there is no type {ascii(name)[:60]} of your own", hint="archisync type list")
    followers = [other for other, type_ in SYNC_TYPES.items() if name in type_.after]
    if followers:
        raise UsageError(
            f"{followers[0]} comes after {name}", hint=f"leave {name} out of after in {followers[0]} first"
        )
    return SYNC_TYPES[name]


@contextmanager
def _changing(db: Database) -> Iterator[None]:
    """A transaction of whoever changes the registry of types: one at a time."""
    try:
        with db.transaction():
            for statement in declaring.alone():
                db.execute(statement)
            yield
    except psycopg.errors.LockNotAvailable:
        raise BusyError(
            "somebody writes to the table and does not let it go; nothing was done", hint="try again"
        ) from None
    except psycopg.errors.DeadlockDetected:
        raise BusyError("a worker was faster; nothing was done", hint="try again") from None
