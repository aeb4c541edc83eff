-- Purpose: what a tick pays for each run that it queues: one index entry less. Queued runs are found by their delivery, of all types or of
-- one; what has begun is found by type, state and time.
-- Caller: archisync.store.migrations, once. Writes to the table wait while the indexes are made (about a minute for ten million runs).
drop index system.sync_runs_by_delivery, system.sync_runs_by_state;
create index sync_runs_by_delivery on system.sync_runs (delivery_id, sync_type, id) where state = 'queued';
create index sync_runs_by_state on system.sync_runs (sync_type, state, queued_at, id) where state <> 'queued';

-- As it was, but for the last condition: with `state = 'queued'` alone, statistics that were made while nothing was queued have been seen
-- to lead the planner through the whole queue.
create or replace function system.deactivate_agents(ids text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  -- State first: it waits for a tick that is about to queue a run, so that the second statement sees that run.
  update system.sync_state st set active = false
    from system.sync_types t
   where st.agent_id = any (ids) and st.active and t.sync_type = st.sync_type and t.scope = 'agent';
  update system.sync_runs
     set state = 'skipped', reason = 'not-whitelisted', message = 'the agent left the whitelist before the run began',
         finished_at = system.clock()
   where agent_id = any (ids) and state in ('queued', 'running') and state <> 'running';
end
$$;
