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
