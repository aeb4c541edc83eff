-- Purpose: an outbox of what a person wants to hear of, written in the transaction of the change itself, whoever makes it (a
-- worker, the reaper of a tick, plain SQL); a tick delivers it. One row a change, not one a run.
-- Caller: archisync.store.migrations.
create table system.notices (
  id              bigint generated always as identity primary key,
  event           text not null check (event in ('held', 'degraded', 'recovered')),
  sync_type       text not null,
  agent_id        text not null,
  run_id          bigint,
  message         text not null,
  created_at      timestamptz not null default system.clock(),
  attempts        integer not null default 0,
  next_attempt_at timestamptz not null default system.clock(),
  done_at         timestamptz,              -- delivered, or too old to be of use
  outcome         text                      -- delivered | expired; before that, why the last attempt failed
);
create index notices_waiting on system.notices (next_attempt_at) where done_at is null;
create index held_exports_by_pair on system.held_exports (sync_type, agent_id, run_id);
create index notices_by_creation on system.notices (created_at);

-- The third failure in a row, and the success that ends such a series.
create function system.state_changed() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  if old.consecutive_failures < 3 and new.consecutive_failures >= 3 then
    insert into system.notices (event, sync_type, agent_id, run_id, message)
    select 'degraded', new.sync_type, new.agent_id, new.last_run_id,
           new.sync_type || ' of ' || new.agent_id || ' failed ' || new.consecutive_failures || ' times in a row'
           || coalesce(': ' || (select r.message from system.sync_runs r where r.id = new.last_run_id), '');
  elsif old.consecutive_failures >= 3 and new.consecutive_failures = 0 then
    insert into system.notices (event, sync_type, agent_id, run_id, message)
    values ('recovered', new.sync_type, new.agent_id, new.last_run_id,
            new.sync_type || ' of ' || new.agent_id || ' succeeds again after ' || old.consecutive_failures || ' failures');
  end if;
  return null;
end $$;
create trigger archisync_state_changed after update of consecutive_failures on system.sync_state
  for each row when ((old.consecutive_failures < 3 and new.consecutive_failures >= 3)
                     or (old.consecutive_failures >= 3 and new.consecutive_failures = 0))
  execute function system.state_changed();

-- A hold begins when no hold of the pair stood open before it: one that supersedes another is the same story going on.
create function system.export_held() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  if coalesce((select h.decision from system.held_exports h where h.sync_type = new.sync_type
                and h.agent_id = new.agent_id and h.run_id < new.run_id order by h.run_id desc limit 1), '') <> 'superseded' then
    insert into system.notices (event, sync_type, agent_id, run_id, message)
    values ('held', new.sync_type, new.agent_id, new.run_id,
            'the export of ' || new.sync_type || ' of ' || new.agent_id || ' is held: ' || new.message);
  end if;
  return null;
end $$;
create trigger archisync_export_held after insert on system.held_exports
  for each row execute function system.export_held();

create function system.hold_ended() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  insert into system.notices (event, sync_type, agent_id, run_id, message)
  values ('recovered', new.sync_type, new.agent_id, coalesce(new.used_by_run, new.run_id),
          case when new.decision = 'cleared'
               then 'a good export of ' || new.sync_type || ' of ' || new.agent_id || ' ended the hold of run ' || new.run_id
               else 'the held export of ' || new.sync_type || ' of ' || new.agent_id || ' was applied as accepted' end);
  return null;
end $$;
create trigger archisync_hold_ended after update of decision, used_by_run on system.held_exports
  for each row when ((old.decision is distinct from new.decision and new.decision = 'cleared')
                     or (old.used_by_run is null and new.used_by_run is not null))
  execute function system.hold_ended();

-- These two run with the rights of the schema's owner and are meant for triggers: nobody else may call them.
revoke execute on function system.activate_agents(text[]), system.deactivate_agents(text[]) from public;
