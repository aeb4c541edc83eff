-- Purpose: an agent that leaves the whitelist takes nothing else along: runs of the shared types are nobody's, whatever an agent is called.
-- Caller: archisync.store.migrations, once.

-- As it was, but for the scope of the runs. Both statements are told in full what they look for: statistics that were made while nothing
-- was queued have been seen to lead the planner through the whole queue.
create or replace function system.deactivate_agents(ids text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  own constant text[] := array(select t.sync_type from system.sync_types t where t.scope = 'agent');
begin
  -- State first: it waits for a tick that is about to queue a run, so that the second statement sees that run.
  update system.sync_state st set active = false where st.agent_id = any (ids) and st.active and st.sync_type = any (own);
  update system.sync_runs
     set state = 'skipped', reason = 'not-whitelisted', message = 'the agent left the whitelist before the run began',
         finished_at = system.clock()
   where agent_id = any (ids) and state in ('queued', 'running') and state <> 'running' and sync_type = any (own);
end
$$;
