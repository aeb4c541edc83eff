"""A company of any size, written straight into the tables: agents, state and history, as if archisync had run for a while."""

from __future__ import annotations

from archisync.store.database import Database
from archisync.store.migrations import migrate

# Purpose: the registry and the pairs; all ran within the last interval, none is due. Triggers are off; another benchmark measures them.
SQL_AGENTS = """
insert into agents.users (id, full_name, whitelisted)
select 'agent-' || lpad(n::text, 8, '0'), 'Agente ' || n, true from generate_series(1, %(agents)s) n
    on conflict do nothing
"""
SQL_STATE = """
insert into system.sync_state (sync_type, agent_id, last_slot_at, last_run_id, last_success_at, known_rows, high_rows,
                               applied_run_id)
select t.sync_type, 'agent-' || lpad(n::text, 8, '0'), system.clock() - lag.seconds, n, system.clock() - lag.seconds, 40,
       jsonb_build_object(current_date, 40), n
  from generate_series(1, %(agents)s) n cross join system.sync_types t join system.sync_settings s using (sync_type)
  cross join lateral (select make_interval(secs => (n * 7919::bigint) %% (s.interval_minutes * 55)) as seconds) lag
 where t.scope = 'agent'
    on conflict do nothing
"""
SQL_APPLIED = """
insert into system.applied_exports (sync_type, agent_id, source)
select sync_type, agent_id, jsonb_build_object('seen', 40, 'valid', 40, 'sha256', md5(applied_run_id::text), 'run_id', applied_run_id)
  from system.sync_state where applied_run_id is not null
    on conflict do nothing
"""
SQL_SHARED_STATE = """
update system.sync_state set last_slot_at = system.clock(), last_success_at = system.clock() where agent_id = 'service-account'
"""
# Purpose: `runs` finished runs, the newest a minute old, `a_day` of them a day; one in a thousand failed, products and prices among them.
SQL_RUNS = """
insert into system.sync_runs (id, sync_type, agent_id, state, reason, message, trigger, slot_at, queued_at, delivered_at,
                              started_at, worker, finished_at, rows_seen, rows_inserted, rows_updated, rows_unchanged, rows_absent,
                              rows_restored, rows_deleted, rows_quarantined, export, steps)
select nextval('system.queued_runs_id_seq'),
       case when n %% 5000 = 0 then 'prices' when n %% 2500 = 0 then 'products'
            else (array['orders', 'customers', 'ddt', 'invoices'])[1 + n %% 4] end,
       case when n %% 2500 = 0 then 'service-account' else 'agent-' || lpad((1 + n %% %(agents)s)::text, 8, '0') end,
       case when n %% 1000 = 1 then 'failed' else 'succeeded' end, case when n %% 1000 = 1 then 'no-export' else 'unchanged' end,
       '40 rows seen: the export is the one of the run before; nothing was compared', 'scheduled', at.t, at.t, at.t,
       at.t + interval '2 seconds', 'host:123', at.t + interval '3 seconds', 40, 0, 0, 40, 0, 0, 0, 0,
       '{"origin": "/exports/agent/orders.csv", "bytes": 4096}', '{"fetch": 1, "compare": 1, "total": 3}'
  from generate_series(1, %(runs)s) n
  cross join lateral (select system.clock() - interval '1 minute' - make_interval(secs => (%(runs)s - n) * 86400.0 / %(a_day)s) as t) at
"""
SQL_INDEXES = """
select schemaname || '.' || indexname as name, indexdef from pg_indexes i
 where schemaname = 'system' and tablename in ('sync_runs', 'sync_state', 'applied_exports')
   and not exists (select from pg_constraint c where c.conname = i.indexname)
"""
SQL_TICK = """
insert into system.ticks (started_at, duration_ms, host, reaped, due, enqueued, redelivered, skipped)
values (system.clock(), 20, 'host', 0, 0, 0, 0, '{}')
"""


def found(db: Database, *, agents: int, runs: int, days: float = 60) -> None:
    """Migrate an empty database and fill it: 4 × `agents` + 2 pairs, `runs` finished runs over the last `days`, a tick of this
    moment. Indexes of the two large tables are made after the rows, which takes a third of the time."""
    migrate(db, {})
    db.execute("set maintenance_work_mem = '1GB'")
    indexes = db.execute(SQL_INDEXES).fetchall()
    for index in indexes:
        db.execute(f"drop index {index['name']}")
    fill(db, agents=agents, runs=runs, days=days)
    for index in indexes:
        db.execute(index["indexdef"])
    db.execute("vacuum (analyze, freeze)")


def fill(db: Database, *, agents: int, runs: int, days: float = 60) -> None:
    """Fill a migrated database as `found` does, and leave indexes and statistics alone. Agents that are there stay."""
    db.execute("set session_replication_role = replica")
    db.execute(SQL_AGENTS, {"agents": agents})
    db.execute(SQL_STATE, {"agents": agents})
    db.execute(SQL_APPLIED)
    db.execute(SQL_SHARED_STATE)
    db.execute(SQL_RUNS, {"agents": agents, "runs": runs, "a_day": runs / days})
    db.execute("reset session_replication_role")
    db.execute(SQL_TICK)
