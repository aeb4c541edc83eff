"""The copied rows of one agent or of all agents: counted, or cleared."""

from __future__ import annotations

from psycopg import sql

from archisync.rules.synctypes import Scope, SyncType
from archisync.store import agents, applied_exports
from archisync.store.database import Database, one
from archisync.sync.target import table_of


def count_rows(db: Database, sync_type: SyncType, agent_id: str | None) -> int:
    """The number of rows of the agent; of all agents when it is None. A shared type has the same rows for all."""
    statement = sql.SQL("select count(*) as n from {}{}").format(table_of(sync_type), _of(sync_type, agent_id))
    return int(one(db, statement, {"agent_id": agent_id})["n"])


def clear(db: Database, sync_type: SyncType, agent_id: str | None) -> int:
    """Delete the rows of the agent, or of all, and what is known of their last exports, so that the next sync loads them again. The number
    of rows. Raises NotFoundError for an unknown agent."""
    if agent_id is not None and sync_type.scope is Scope.AGENT:
        agents.agent(db, agent_id)
    with db.transaction():
        number = delete_rows(db, sync_type, agent_id)  # first, in the order of an apply's locks: so no deadlock
        applied_exports.forget(db, sync_type, agent_id)
    return number


def delete_rows(db: Database, sync_type: SyncType, agent_id: str | None) -> int:
    """Delete these rows and return their number. The caller's transaction must forget the pairs' state too."""
    statement = sql.SQL("delete from {}{}").format(table_of(sync_type), _of(sync_type, agent_id))
    return db.execute(statement, {"agent_id": agent_id}).rowcount


def _of(sync_type: SyncType, agent_id: str | None) -> sql.Composable:
    if sync_type.scope is Scope.SHARED or agent_id is None:
        return sql.SQL("")
    return sql.SQL(" where agent_id = %(agent_id)s")
