-- Purpose: a hold has an end of its own, whatever a person decided in between, so that whoever was told of it is told of its end.
-- Caller: archisync.store.migrations, once.

-- NULL: the hold goes on, also one that is accepted but not applied yet, or rejected and not replaced yet. The pair's next apply sets it.
alter table system.held_exports add column ended_at timestamptz;
update system.held_exports h set ended_at = coalesce(h.decided_at, h.held_at)
 where h.decision is not null
   and (h.decision not in ('accepted', 'rejected') or h.used_by_run is not null
        or exists (select from system.sync_state st where st.sync_type = h.sync_type and st.agent_id = h.agent_id
                    and st.last_success_at > h.held_at));
create index held_exports_going_on on system.held_exports (agent_id, sync_type) where ended_at is null;

-- The end of what was held of a pair, told once, however many exports of it were held after each other: they end together.
drop trigger archisync_hold_ended on system.held_exports;
drop function system.hold_ended();
create function system.export_applied() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  with ended as (
    update system.held_exports set ended_at = system.clock()
     where agent_id = new.agent_id and sync_type = new.sync_type and ended_at is null
    returning run_id, used_by_run)
  insert into system.notices (event, sync_type, agent_id, run_id, message)
  select 'recovered', new.sync_type, new.agent_id, coalesce(e.used_by_run, e.run_id),
         case when e.used_by_run is null
              then 'a good export of ' || new.sync_type || ' of ' || new.agent_id || ' ended the hold of run ' || e.run_id
              else 'the held export of ' || new.sync_type || ' of ' || new.agent_id || ' was applied as accepted' end
    from ended e order by e.used_by_run is null, e.run_id desc limit 1;
  return null;
end $$;
-- An apply names itself in applied_source; nothing else sets it to a value.
create trigger archisync_export_applied after update of applied_source on system.sync_state
  for each row when (new.applied_source is not null) execute function system.export_applied();

-- The hold of a pair that is not active concerns nobody: it is withdrawn, and so counted and listed nowhere. If the agent comes back, its
-- next export is judged anew.
alter table system.held_exports
  drop constraint held_exports_decision_check,
  add constraint held_exports_decision_check check (decision in ('accepted', 'rejected', 'superseded', 'cleared', 'withdrawn'));
update system.held_exports h set decision = coalesce(h.decision, 'withdrawn'), decided_at = coalesce(h.decided_at, system.clock()),
                                 ended_at = system.clock()
 where h.ended_at is null
   and not exists (select from system.sync_state st where st.agent_id = h.agent_id and st.sync_type = h.sync_type and st.active);

-- As it was, but for the last statement.
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
  -- SKIP LOCKED: an apply that has the row is about to end that hold, and may be waiting for the state rows above.
  with theirs as (
    select h.run_id from system.held_exports h
      join system.sync_state st on st.agent_id = h.agent_id and st.sync_type = h.sync_type and not st.active
     where h.agent_id = any (ids) and h.ended_at is null for update of h skip locked),
  ended as (
    update system.held_exports h
       set decision = coalesce(h.decision, 'withdrawn'), decided_at = coalesce(h.decided_at, system.clock()), ended_at = system.clock()
      from theirs where h.run_id = theirs.run_id
    returning h.sync_type, h.agent_id, h.run_id)
  insert into system.notices (event, sync_type, agent_id, run_id, message)
  select distinct on (e.agent_id, e.sync_type) 'recovered', e.sync_type, e.agent_id, e.run_id,
         e.agent_id || ' left the whitelist, which ended the hold of ' || e.sync_type || ' (run ' || e.run_id || ')'
    from ended e order by e.agent_id, e.sync_type, e.run_id desc;
end
$$;

-- A run that was on its way when its agent left the whitelist. The transaction that ends it has locked the pair's state row: either it
-- sees here that the agent has left, or deactivate_agents waits for it and sees its row.
create function system.export_held_of_nobody() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  if not exists (select from system.sync_state st where st.agent_id = new.agent_id and st.sync_type = new.sync_type and st.active) then
    new.decision := 'withdrawn';
    new.decided_at := system.clock();
    new.ended_at := system.clock();
  end if;
  return new;
end $$;
create trigger archisync_export_held_of_nobody before insert on system.held_exports
  for each row when (new.decision is null) execute function system.export_held_of_nobody();
drop trigger archisync_export_held on system.held_exports;
create trigger archisync_export_held after insert on system.held_exports
  for each row when (new.decision is null) execute function system.export_held();

-- Whoever changes the whitelist: no list of columns, which a BEFORE trigger that sets `whitelisted` is not in.
drop trigger archisync_user_updated on agents.users;
create trigger archisync_user_updated after update on agents.users
  for each row when (old.id is distinct from new.id or old.whitelisted is distinct from new.whitelisted)
  execute function system.user_updated();

-- For a registry that logical replication feeds from another database, which fires no trigger on statements, and only those on rows that
-- are enabled for it. Disabled, because where all of this database is replicated, system.sync_state comes that way too; doctor tells when
-- the two are out of step, and how to enable it:
--   alter table agents.users enable replica trigger archisync_user_replicated
create function system.user_replicated() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  if tg_op <> 'INSERT' and old.whitelisted and (tg_op = 'DELETE' or new.id <> old.id or new.whitelisted is not true) then
    perform system.deactivate_agents(array[old.id]);
  end if;
  if tg_op <> 'DELETE' and new.whitelisted then
    perform system.activate_agents(array[new.id]);
  end if;
  return null;
end $$;
create trigger archisync_user_replicated after insert or update or delete on agents.users
  for each row execute function system.user_replicated();
alter table agents.users disable trigger archisync_user_replicated;
