-- Purpose: an agent that leaves the whitelist takes nothing else along: no run of the shared types, which are nobody's, whatever an agent
-- is called; and no slot, so that an agent that comes back is due as it was. And a history in the order of ids.
-- Caller: archisync.store.migrations, once. Writes to system.sync_runs wait while its index is made (about a minute for ten million runs).

-- By id, and not by a time: runs that a wrong clock dated years ahead would stand before all later ones. As large as it was; the time is
-- there for those who count a span.
drop index system.sync_runs_by_state;
create index sync_runs_by_state on system.sync_runs (sync_type, state, id) include (queued_at) where state <> 'queued';

-- As it was, but for the scope of the runs and the last statement, which does what runs.SQL_STATE_SKIPPED does.
create or replace function system.deactivate_agents(ids text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  own constant text[] := array(select t.sync_type from system.sync_types t where t.scope = 'agent');
begin
  -- State first: it waits for a tick that is about to queue a run, so that the second statement sees that run.
  update system.sync_state st set active = false where st.agent_id = any (ids) and st.active and st.sync_type = any (own);
  -- With `state = 'queued'` alone, statistics that were made while nothing was queued lead the planner through the whole queue.
  with skipped as (
    update system.sync_runs
       set state = 'skipped', reason = 'not-whitelisted', message = 'the agent left the whitelist before the run began',
           finished_at = system.clock()
     where agent_id = any (ids) and state in ('queued', 'running') and state <> 'running' and sync_type = any (own)
    returning sync_type, agent_id, slot_at)
  update system.sync_state st set last_slot_at = skipped.slot_at - make_interval(mins => s.interval_minutes)
    from skipped join system.sync_settings s using (sync_type)
   where st.agent_id = skipped.agent_id and st.sync_type = skipped.sync_type and st.last_slot_at = skipped.slot_at;
end
$$;

-- As it was, but for what is no success: a run that is held ends a series of failures too, and has a notice of its own.
create or replace function system.state_changed() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  if old.consecutive_failures < 3 and new.consecutive_failures >= 3 then
    insert into system.notices (event, sync_type, agent_id, run_id, message)
    select 'degraded', new.sync_type, new.agent_id, new.last_run_id,
           new.sync_type || ' of ' || new.agent_id || ' failed ' || new.consecutive_failures || ' times in a row'
           || coalesce(': ' || (select r.message from system.sync_runs r where r.id = new.last_run_id), '');
  elsif old.consecutive_failures >= 3 and new.consecutive_failures = 0
        and not exists (select from system.sync_runs r where r.id = new.last_run_id and r.state = 'held') then
    insert into system.notices (event, sync_type, agent_id, run_id, message)
    values ('recovered', new.sync_type, new.agent_id, new.last_run_id,
            new.sync_type || ' of ' || new.agent_id || ' succeeds again after ' || old.consecutive_failures || ' failures');
  end if;
  return null;
end $$;
