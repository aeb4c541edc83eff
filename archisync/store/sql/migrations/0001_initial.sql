-- Purpose: settings, agents, state, runs, heartbeats, held exports and the six tables of agent data.
-- Caller: archisync.store.migrations, once, in one transaction under an advisory lock.
-- Must also succeed on a database that already has agents.users (other columns) and system.sync_settings (changed
-- intervals): what is in them is kept.

create schema if not exists system;
create schema if not exists agents;
create schema if not exists shared;

-- The clock of every decision: PostgreSQL's, in whole seconds, so that hosts with wrong clocks decide alike.
-- `set archisync.now = '…'` replaces it for a session: a day in fast-forward needs no other back door.
create or replace function system.clock() returns timestamptz
language sql stable parallel safe
as $$
  select date_trunc('second', coalesce(nullif(current_setting('archisync.now', true), '')::timestamptz,
                                       statement_timestamp()))
$$;

-- The registry of types as the database sees it; a test compares it with archisync.rules.synctypes.
create table system.sync_types (
  sync_type text primary key,
  scope     text not null check (scope in ('agent', 'shared')),
  level     smallint not null           -- a type is enqueued after the types that it refers to
);
insert into system.sync_types (sync_type, scope, level) values
  ('orders', 'agent', 0), ('customers', 'agent', 0), ('products', 'shared', 0),
  ('prices', 'shared', 1), ('ddt', 'agent', 1), ('invoices', 'agent', 1);

create table if not exists system.sync_settings (
  sync_type        text primary key,
  interval_minutes integer not null default 30,
  enabled          boolean not null default true,
  updated_at       timestamptz not null default now()
);
alter table system.sync_settings
  add column if not exists enabled boolean not null default true,
  add column if not exists updated_at timestamptz not null default now(),
  add constraint sync_settings_type_is_known foreign key (sync_type) references system.sync_types,
  add constraint sync_settings_interval_is_allowed check (interval_minutes between 5 and 1440);
alter table system.sync_settings alter column interval_minutes set default 30;
create unique index if not exists sync_settings_one_row_a_type on system.sync_settings (sync_type);

create table if not exists agents.users (
  id          text primary key,
  username    text,
  full_name   text,
  whitelisted boolean not null default false
);
alter table agents.users add column if not exists whitelisted boolean not null default false;

-- One row a (type, agent) pair that was ever on the whitelist. `active` says that it is there now: the triggers below
-- keep it so, and that is why an idle tick need not look at agents.users at all.
create table system.sync_state (
  sync_type            text not null references system.sync_types,
  agent_id             text not null,
  active               boolean not null default true,
  last_slot_at         timestamptz,          -- the last scheduled slot; NULL: never scheduled
  last_run_id          bigint,
  last_success_at      timestamptz,
  consecutive_failures integer not null default 0,
  backoff_until        timestamptz,
  known_rows           bigint,               -- rows of the last applied export: the guard's baseline
  data_version         bigint not null default 0,  -- + 1 with every apply that changed something
  applied_sha256       text,
  primary key (sync_type, agent_id)
) with (fillfactor = 80);
-- The due query is a range of this index: its cost grows with what is due, not with what exists.
create index sync_state_by_slot on system.sync_state (sync_type, coalesce(last_slot_at, '-infinity'::timestamptz)) where active;

create table system.sync_runs (
  id               bigint generated always as identity primary key,
  sync_type        text not null references system.sync_types,
  agent_id         text not null,
  state            text not null default 'queued'
                   check (state in ('queued', 'running', 'succeeded', 'held', 'failed', 'skipped', 'cancelled')),
  reason           text,                     -- machine-readable: why the run is in this state
  message          text,                     -- the same as a sentence
  trigger          text not null check (trigger in ('scheduled', 'forced')),
  requested_by     text,
  request_reason   text,
  slot_at          timestamptz,
  attempt          integer not null default 1,
  fence            integer not null default 1,  -- + 1 whenever the run changes hands; a stale holder's writes are refused
  not_before       timestamptz,              -- a retry waits until then
  queued_at        timestamptz not null default system.clock(),
  delivered_at     timestamptz,              -- when it was pushed to Redis last; NULL: not yet
  job_id           text,                     -- the RQ job of that push
  started_at       timestamptz,
  lease_until      timestamptz,
  worker           text,
  finished_at      timestamptz,
  rows_seen        bigint,
  rows_inserted    bigint,
  rows_updated     bigint,
  rows_unchanged   bigint,
  rows_absent      bigint,
  rows_restored    bigint,
  rows_deleted     bigint,
  rows_quarantined bigint,
  export           jsonb,                    -- origin, bytes, sha256, what was detected
  steps            jsonb,                    -- milliseconds of each step
  warnings         jsonb not null default '[]',
  check ((state in ('queued', 'running')) = (finished_at is null))
);
-- No two unfinished runs of a pair; never two running runs of an agent, whose ERP session can't be shared.
create unique index sync_runs_one_unfinished_a_pair on system.sync_runs (sync_type, agent_id) where state in ('queued', 'running');
create unique index sync_runs_one_running_an_agent on system.sync_runs (agent_id) where state = 'running';
create index sync_runs_undelivered on system.sync_runs (id) where state = 'queued' and delivered_at is null;
create index sync_runs_delivered on system.sync_runs (delivered_at) where state = 'queued' and delivered_at is not null;
create index sync_runs_queued_by_agent on system.sync_runs (agent_id, id) where state = 'queued';
create index sync_runs_by_pair on system.sync_runs (sync_type, agent_id, id);
create index sync_runs_by_agent on system.sync_runs (agent_id, id);
create index sync_runs_by_finish on system.sync_runs (finished_at) where finished_at is not null;
create index sync_runs_failures on system.sync_runs (state, id) where state in ('held', 'failed', 'skipped', 'cancelled');

-- What a person must decide: an export that the guard did not let through.
create table system.held_exports (
  run_id        bigint primary key references system.sync_runs on delete cascade,
  sync_type     text not null references system.sync_types,
  agent_id      text not null,
  rule          text not null,
  message       text not null,
  acceptable    boolean not null,           -- an unreadable export can't be accepted, only replaced
  sha256        text,
  rows_valid    bigint not null,
  known_rows    bigint,
  data_version  bigint not null,            -- the data that the person looked at
  sample        jsonb not null default '[]', -- keys of rows that would vanish
  held_at       timestamptz not null default system.clock(),
  decision      text check (decision in ('accepted', 'rejected', 'superseded', 'cleared')),
  decided_at    timestamptz,
  decided_by    text,
  decided_why   text,
  expires_at    timestamptz,                -- an acceptance lasts 24 h
  used_by_run   bigint
);
create unique index held_exports_one_open_a_pair on system.held_exports (sync_type, agent_id) where decision is null;
create index held_exports_accepted on system.held_exports (sync_type, agent_id) where decision = 'accepted' and used_by_run is null;

-- How long a pair rests after its n-th failure in a row: not at all after the first, then double the interval each time, at
-- most six hours (or its own interval, if that is longer).
create function system.backoff(of_type text, failures integer) returns interval
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when failures < 2 then null
              else least(make_interval(mins => s.interval_minutes) * power(2, least(failures, 20) - 1),
                         greatest(make_interval(hours => 6), make_interval(mins => s.interval_minutes))) end
    from system.sync_settings s where s.sync_type = of_type
$$;

-- A pause of everything (both NULL), of a type, of an agent, or of one pair.
create table system.pauses (
  id         bigint generated always as identity primary key,
  sync_type  text references system.sync_types,
  agent_id   text,
  until      timestamptz,
  reason     text,
  paused_by  text,
  paused_at  timestamptz not null default system.clock(),
  unique nulls not distinct (sync_type, agent_id)
);

-- Heartbeats: what each tick did. No row for some minutes means that nobody calls tick.
create table system.ticks (
  id          bigint generated always as identity primary key,
  started_at  timestamptz not null,
  duration_ms integer not null,
  host        text not null,
  reaped      integer not null,
  due         integer not null,
  enqueued    integer not null,
  redelivered integer not null,
  skipped     jsonb not null,
  error       text
);
create index ticks_by_start on system.ticks (started_at);

-- Triggers on agents.users keep system.sync_state complete, however the registry is edited (this command line, an
-- application, plain SQL). They are SECURITY DEFINER because whoever edits agents.users need not own schema system.
create function system.activate_agents(ids text[]) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  insert into system.sync_state as st (sync_type, agent_id)
  select t.sync_type, a.id from unnest(ids) as a(id) cross join system.sync_types t where t.scope = 'agent'
  on conflict (sync_type, agent_id) do update set active = true where not st.active
$$;

create function system.deactivate_agents(ids text[]) returns void
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
   where agent_id = any (ids) and state = 'queued';
end
$$;
create index sync_state_by_agent on system.sync_state (agent_id);

create function system.users_inserted() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.activate_agents(array(select id from new_users where whitelisted));
  return null;
end $$;
create function system.users_deleted() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.deactivate_agents(array(select id from old_users where whitelisted));
  return null;
end $$;
create function system.user_updated() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  if old.whitelisted and (new.id <> old.id or new.whitelisted is not true) then
    perform system.deactivate_agents(array[old.id]);
  end if;
  if new.whitelisted then
    perform system.activate_agents(array[new.id]);
  end if;
  return null;
end $$;
create function system.users_truncated() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.deactivate_agents(array(select distinct agent_id from system.sync_state where active));
  return null;
end $$;

create trigger archisync_users_inserted after insert on agents.users
  referencing new table as new_users for each statement execute function system.users_inserted();
create trigger archisync_users_deleted after delete on agents.users
  referencing old table as old_users for each statement execute function system.users_deleted();
create trigger archisync_user_updated after update of id, whitelisted on agents.users
  for each row when (old.id is distinct from new.id or old.whitelisted is distinct from new.whitelisted)
  execute function system.user_updated();
create trigger archisync_users_truncated after truncate on agents.users
  for each statement execute function system.users_truncated();

insert into system.sync_state (sync_type, agent_id)
  select sync_type, 'service-account' from system.sync_types where scope = 'shared';
insert into system.sync_state (sync_type, agent_id)
  select t.sync_type, u.id from agents.users u cross join system.sync_types t where t.scope = 'agent' and u.whitelisted;

-- Agent data. Beside the export's fields each table has, for archisync alone: when the row came and was last changed, by
-- which run, and since when it is missing from the exports (deleted on the second consecutive absence).
create table agents.customers (
  agent_id text not null, customer_id text not null,
  name text not null, account_number text, vat_number text, fiscal_code text, sdi_code text, pec text, email text,
  phone text, mobile text, fax text, url text, contact text, street text, postal_code text, city text, region text,
  country text, delivery_terms text, customer_type text, last_order_date date, orders_count bigint, sales_amount numeric,
  inserted_at timestamptz not null default system.clock(), updated_at timestamptz not null default system.clock(),
  run_id bigint, absent_since timestamptz,
  primary key (agent_id, customer_id)
);
create table agents.orders (
  agent_id text not null, order_id text not null,
  order_number text, customer_id text, customer_name text, delivery_name text, delivery_address text,
  created_at timestamptz not null, delivery_date date, description text, customer_reference text, status text,
  order_type text, document_status text, transfer_status text, transfer_date date, completion_date date,
  discount_percent numeric, gross_amount numeric, total_amount numeric,
  inserted_at timestamptz not null default system.clock(), updated_at timestamptz not null default system.clock(),
  run_id bigint, absent_since timestamptz,
  primary key (agent_id, order_id)
);
-- Not a unique index, though order numbers are unique: two orders may swap numbers, or one return under a new id while the
-- old row waits for its second absence, and a constraint would then refuse that agent's exports for ever. A repeated
-- number is a warning of the run.
create index orders_by_number on agents.orders (agent_id, order_number) where order_number is not null;
create table agents.ddt (
  agent_id text not null, ddt_number text not null,
  ddt_id text, order_number text not null, delivery_date date, customer_id text, delivery_name text,
  delivery_address text, quantity numeric, customer_reference text, description text, delivery_terms text,
  delivery_method text, contact text, courier text, tracking_number text, tracking_url text,
  inserted_at timestamptz not null default system.clock(), updated_at timestamptz not null default system.clock(),
  run_id bigint, absent_since timestamptz,
  primary key (agent_id, ddt_number)
);
create table agents.invoices (
  agent_id text not null, invoice_number text not null, order_number text not null,
  invoice_date date, due_date date, customer_id text, billing_name text, quantity numeric, net_amount numeric,
  discount_amount numeric, tax_amount numeric, freight_amount numeric, total_amount numeric, settled_amount numeric,
  remaining_amount numeric, payment_terms text, last_settlement_date date, closed boolean,
  inserted_at timestamptz not null default system.clock(), updated_at timestamptz not null default system.clock(),
  run_id bigint, absent_since timestamptz,
  primary key (agent_id, invoice_number, order_number)
);
create table shared.products (
  product_id text primary key,
  name text not null, description text, group_code text, group_name text, group_description text, search_name text,
  package_content text, price_unit text, unit_price numeric, min_quantity numeric, multiple_quantity numeric,
  max_quantity numeric, units_in_stock numeric, size text, unit text, discontinued boolean, modified_at timestamptz,
  inserted_at timestamptz not null default system.clock(), updated_at timestamptz not null default system.clock(),
  run_id bigint, absent_since timestamptz
);
create table shared.prices (
  product_id text not null, account_code text not null default '', valid_from date, quantity_from numeric not null default 0,
  product_name text, unit_price numeric not null, currency text, price_unit text, account_description text, valid_to date,
  quantity_to numeric,
  inserted_at timestamptz not null default system.clock(), updated_at timestamptz not null default system.clock(),
  run_id bigint, absent_since timestamptz,
  unique nulls not distinct (product_id, account_code, valid_from, quantity_from)
);
