"""What must hold of queue, claims and history at any instant, whatever is killed. Triggers keep a record that archisync can't change."""

from archisync.rules.synctypes import SYNC_TYPES
from archisync.store.database import Database

# A record of every run that was queued, every ending, every claim, and every transaction that wrote rows for a run.
SQL_AUDIT = """
create schema audit;
create table audit.queued (run_id bigint);
create table audit.ended (run_id bigint, state text, xid xid8 default pg_current_xact_id());
create table audit.claims (agent_id text, fence bigint);
create table audit.writes (run_id bigint, xid xid8 default pg_current_xact_id(), primary key (run_id, xid));
create function audit.queued() returns trigger language plpgsql security definer as $$
begin insert into audit.queued values (new.id); return null; end $$;
create function audit.ended() returns trigger language plpgsql security definer as $$
begin insert into audit.ended values (new.id, new.state); return null; end $$;
create function audit.claimed() returns trigger language plpgsql security definer as $$
begin insert into audit.claims values (new.agent_id, new.fence); return null; end $$;
create function audit.written() returns trigger language plpgsql security definer as $$
begin insert into audit.writes values (new.run_id) on conflict do nothing; return null; end $$;
create trigger audit after insert on system.queued_runs for each row execute function audit.queued();
create trigger audit after insert or update of state on system.sync_runs for each row execute function audit.ended();
create trigger audit after insert on system.claims for each row execute function audit.claimed();
"""
SQL_AUDIT_TABLE = "create trigger audit after insert or update on {table} for each row execute function audit.written()"

# One statement, so that all parts look at the same instant.
SQL_VIOLATIONS = """
select what, count(*) as n, min(which) as example from (
  select 'the state of a pair names another run than its queue' as what,
         concat_ws(' ', agent_id, sync_type, q.ids, st.ids) as which
    from (select agent_id, sync_type, array_agg(id order by id) as ids from system.queued_runs group by 1, 2) q
    full join (select agent_id, sync_type, array_remove(array[unfinished_run_id, next_run_id], null) as ids
                 from system.sync_state where unfinished_run_id is not null or next_run_id is not null) st using (agent_id, sync_type)
   where st.ids is distinct from q.ids
  union all
  select 'two unfinished runs of a pair', concat_ws(' ', agent_id, sync_type)
    from system.queued_runs group by agent_id, sync_type having count(*) > 1 + (count(behind) > 0)::int
  union all
  select 'two claims of an agent', agent_id from system.claims group by agent_id having count(*) > 1
  union all
  select 'two running runs of an agent', agent_id from system.runs where state = 'running' group by agent_id having count(*) > 1
  union all
  select 'a claim names a run that is not queued', concat_ws(' ', c.agent_id, c.run_id) from system.claims c
   where c.run_id is not null and not exists (select from system.queued_runs q where q.id = c.run_id and q.agent_id = c.agent_id)
  union all
  select 'a fence was given twice', fence::text from audit.claims group by fence having count(*) > 1
  union all
  select 'a run is in the queue and in the history', q.id::text from system.queued_runs q join system.sync_runs r using (id)
  union all
  select 'a queued run is lost', a.run_id::text from audit.queued a
   where not exists (select from system.queued_runs q where q.id = a.run_id)
     and not exists (select from system.sync_runs r where r.id = a.run_id)
  union all
  select 'a run ended twice', run_id::text from audit.ended group by run_id having count(*) > 1
  union all
  select 'a run ended without having been queued', e.run_id::text from audit.ended e
   where not exists (select from audit.queued a where a.run_id = e.run_id)
  union all
  select 'a run was applied in two transactions', run_id::text from audit.writes group by run_id having count(*) > 1
  union all
  select 'rows were written by another transaction than the one that ended the run', w.run_id::text from audit.writes w
   where not exists (select from audit.ended e where e.run_id = w.run_id and e.xid = w.xid and e.state = 'succeeded')
  union all
  select 'a run that did not end well has no reason', id::text from system.sync_runs
   where state in ('failed', 'held', 'skipped') and reason is null) found
 group by what order by what
"""


def watch(db: Database) -> None:
    """Record from here on what `violations` needs to know."""
    db.execute(SQL_AUDIT)
    for sync_type in SYNC_TYPES.values():
        db.execute(SQL_AUDIT_TABLE.format(table=sync_type.table))


def forget(db: Database) -> None:
    """Begin the record again."""
    db.execute("truncate audit.queued, audit.ended, audit.claims, audit.writes")
    db.execute("insert into audit.queued select id from system.queued_runs")


def violations(db: Database) -> dict[str, str]:
    """What does not hold: how often, and an example. Empty when all is well."""
    rows = db.execute(SQL_VIOLATIONS).fetchall()
    return {row["what"]: f"{row['n']} times, for example {row['example']}" for row in rows}
