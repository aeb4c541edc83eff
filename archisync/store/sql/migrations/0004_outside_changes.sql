-- Purpose: know whether a table still is what the last apply left, so that an export that has not changed needs no work; and let
-- a first load copy straight into the table.
-- Caller: archisync.store.migrations, once.

-- A row for each pair and transaction that wrote to agent data without being an apply. An apply of the pair removes the rows that
-- it can see *before* it compares anything: whatever commits later leaves its row for the next sync. No locks are shared with the
-- writer, so nothing waits and nothing deadlocks.
create table system.outside_changes (
  sync_type text not null,
  agent_id  text not null,
  xid       xid8 not null default pg_current_xact_id(),
  primary key (sync_type, agent_id, xid)
);

-- One row for each transaction and pair, however many rows it writes. Its argument is the sync type.
create function system.changed_outside() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  shared constant boolean := tg_table_schema = 'shared';
begin
  if tg_op <> 'INSERT' then
    insert into system.outside_changes (sync_type, agent_id)
      values (tg_argv[0], case when shared then 'service-account' else to_jsonb(old) ->> 'agent_id' end) on conflict do nothing;
  end if;
  if tg_op <> 'DELETE' then
    insert into system.outside_changes (sync_type, agent_id)
      values (tg_argv[0], case when shared then 'service-account' else to_jsonb(new) ->> 'agent_id' end) on conflict do nothing;
  end if;
  return null;
end
$$;
create function system.truncated_outside() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  update system.sync_state set applied_source = null where sync_type = tg_argv[0] and applied_source is not null;
  return null;
end $$;

-- An apply names its run in archisync.run_id, for its own transaction: the triggers pass it by before any function is called.
-- The two defaults serve its COPY, which brings the export's columns and no others.
do $$
declare
  target record;
begin
  for target in
    select t.sync_type, case t.scope when 'shared' then 'shared.' else 'agents.' end || t.sync_type as name, t.scope
      from system.sync_types t
  loop
    execute format('create trigger archisync_changed_outside after insert or update or delete on %s for each row
      when (coalesce(current_setting(''archisync.run_id'', true), '''') = '''')
      execute function system.changed_outside(%L)', target.name, target.sync_type);
    execute format('create trigger archisync_truncated after truncate on %s for each statement
      execute function system.truncated_outside(%L)', target.name, target.sync_type);
    execute format('alter table %s alter column run_id
      set default nullif(current_setting(''archisync.run_id'', true), '''')::bigint', target.name);
    if target.scope = 'agent' then
      execute format('alter table %s alter column agent_id
        set default nullif(current_setting(''archisync.agent_id'', true), '''')', target.name);
    end if;
  end loop;
end
$$;
