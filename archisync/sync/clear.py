"""The copied rows of one agent or of all agents: counted, or deleted."""

from __future__ import annotations

from psycopg import sql

from archisync.rules.synctypes import Scope, SyncType
from archisync.store.database import Database, one
from archisync.store.typetables import table_of


def count_rows(db: Database, sync_type: SyncType, agent_id: str | None, *, limit: int | None = None) -> int:
    """The number of rows of the agent; of all agents when it is None. A shared type has the same rows for all. With `limit` it counts no
    further than that, and `limit` + 1 means more."""
    statement = sql.SQL("select count(*) as n from (select from {}{} limit %(most)s) x").format(
        table_of(sync_type), _of(sync_type, agent_id)
    )
    most = None if limit is None else limit + 1
    return int(one(db, statement, {"agent_id": agent_id, "most": most})["n"])


def delete_rows(db: Database, sync_type: SyncType, agent_id: str | None) -> int:
    """Delete these rows and return their number. The caller's transaction must forget the pairs' state too."""
    statement = sql.SQL("delete from {}{}").format(table_of(sync_type), _of(sync_type, agent_id))
    return db.execute(statement, {"agent_id": agent_id}).rowcount


def _of(sync_type: SyncType, agent_id: str | None) -> sql.Composable:
    if sync_type.scope is Scope.SHARED or agent_id is None:
        return sql.SQL("")
    return sql.SQL(" where agent_id = %(agent_id)s")
