-- Everything that archisync keeps in PostgreSQL, in the order in which a reader asks: what runs and how often, for which agents, what
-- waits, what ran, the state of each pair of sync type and agent, held exports, notices, what people did; then the triggers, and the data
-- itself.
-- Caller: archisync.store.migrations, in one transaction under an advisory lock.
-- Names: nothing here finds a function, operator, type or table through the search_path of whoever calls it. Functions in SQL have bodies
-- that are parsed when they are made (`return`, `begin atomic`); the others set their search_path.
-- The database may already have agents.users (with other columns) and system.sync_settings (with changed intervals): their rows are kept.
-- Until release 1.0 this file may change; whoever changes it renames it, so that a database made by an earlier text is recognised. From
-- 1.0 on, each change is a new file.

create schema if not exists system;
create schema if not exists agents;
create schema if not exists shared;

-- The clock of every decision: PostgreSQL's, in whole seconds, so that hosts with wrong clocks decide alike.
-- `set archisync.now = '…'` replaces it in a session; tests run a day in fast-forward with it.
create function system.clock() returns timestamptz
language sql stable parallel safe
return date_trunc('second', coalesce(nullif(current_setting('archisync.now', true), '')::timestamptz, statement_timestamp()));

-- The time, or -infinity when it never happened: what never happened sorts first, in an index too. PostgreSQL inlines the function.
create function system.or_never(at timestamptz) returns timestamptz
language sql immutable parallel safe
return coalesce(at, '-infinity'::timestamptz);

-- ======== Settings: what runs, and how often ========

-- The sync types: those that come with archisync, which its version declares, and those that `archisync type apply` made.
create table system.sync_types (
  sync_type   text primary key check (sync_type ~ '^[a-z][a-z0-9_]{0,62}$' and sync_type <> 'all'),
  scope       text not null check (scope in ('agent', 'shared')),
  level       smallint not null,        -- a type is queued after the types that it comes after, which have a lower level
  table_name  text not null unique check (table_name ~ '^[a-z][a-z0-9_]{0,62}\.[a-z][a-z0-9_]{0,62}$'),
  default_minutes integer not null default 30,  -- of its interval, when somebody deletes its settings
  declaration json,                     -- NULL: the type comes with archisync
  sha256      text,                     -- of the declaration
  declared_by text,
  declared_at timestamptz not null default system.clock(),
  constraint sync_types_own_are_declared check ((declaration is null) = (sha256 is null))
);
-- Whoever migrates says which types come with archisync.
insert into system.sync_types (sync_type, scope, level, table_name, default_minutes)
select t.* from json_to_recordset(current_setting('archisync.built_in_types')::json)
  as t(sync_type text, scope text, level smallint, table_name text, default_minutes integer);

-- One row a type. The three shares are the guard's, in percent: an export that exceeds one is held. 100 switches off that one rule; nothing
-- switches off the others (no rows at all, truncated, unreadable, a missing column, all rows rejected, contradicting keys).
create table if not exists system.sync_settings (
  sync_type        text primary key,
  interval_minutes integer,
  enabled          boolean not null default true,
  updated_at       timestamptz not null default now()
);
alter table system.sync_settings
  add column if not exists enabled boolean not null default true,
  add column if not exists updated_at timestamptz not null default now(),
  add column drop_percent integer not null default 50,
  add column delete_percent integer not null default 50,
  add column rewrite_percent integer not null default 50,
  add column column_percents jsonb not null default '{}',   -- of the rules about values: {"emptied": 60, "emptied phone": 30}
  add constraint sync_settings_drop_is_a_share check (drop_percent between 0 and 100),
  add constraint sync_settings_delete_is_a_share check (delete_percent between 0 and 100),
  add constraint sync_settings_rewrite_is_a_share check (rewrite_percent between 0 and 100),
  add constraint sync_settings_columns_have_shares check (jsonb_typeof(column_percents) = 'object'
    and not jsonb_path_exists(column_percents, '$.* ? (@.type() != "number" || @ < 0 || @ > 100)')),
  alter column interval_minutes set default 30,
  alter column interval_minutes set not null,
  add constraint sync_settings_interval_is_allowed check (interval_minutes between 5 and 1440),
  add constraint sync_settings_type_is_known foreign key (sync_type) references system.sync_types;
create unique index if not exists sync_settings_one_row_a_type on system.sync_settings (sync_type);

-- A pause of everything (both NULL), of a type, of an agent, or of one pair.
create table system.pauses (
  id         bigint generated always as identity primary key,
  sync_type  text references system.sync_types,
  agent_id   text,
  until      timestamptz,               -- NULL: until somebody resumes
  reason     text,
  paused_by  text,
  paused_at  timestamptz not null default system.clock(),
  unique nulls not distinct (sync_type, agent_id)
);

-- The pauses that stop a pair now. With NULL for the agent: those that stop the whole type. PostgreSQL inlines the function.
create function system.pauses_of(of_type text, of_agent text, at timestamptz default system.clock()) returns setof system.pauses
language sql stable
begin atomic
  select * from system.pauses x
   where (x.sync_type is null or x.sync_type = of_type) and (x.agent_id is null or x.agent_id = of_agent)
     and (x.until is null or x.until > at);
end;

-- ======== Registry: whose data ========

-- The agents. Only those on the whitelist are synced. The table may be the company's own: archisync relies on these two columns only, and
-- takes the text of an id that is a number or a uuid.
create table if not exists agents.users (
  id          text primary key,
  username    text,
  full_name   text,
  whitelisted boolean not null default false
);
alter table agents.users add column if not exists whitelisted boolean not null default false;
do $$ begin
  if (select atttypid from pg_attribute where attrelid = 'agents.users'::regclass and attname = 'id') not in ('text'::regtype, 'varchar'::regtype) then
    create index if not exists archisync_users_by_id on agents.users ((id::text));
  end if;
end $$;

-- ======== Queue: what waits and what is being done ========

-- The runs that are not over; a run that ends moves to system.sync_runs. The row is the truth; Redis only wakes a worker. No foreign key to
-- sync_types: a tick would pay for it with each run, and takes the type from sync_state.
create table system.queued_runs (
  id             bigint generated by default as identity primary key,
  sync_type      text not null,
  agent_id       text not null,
  trigger        text not null check (trigger in ('scheduled', 'forced')),
  requested_by   text,
  request_reason text,
  slot_at        timestamptz,
  attempt        integer not null default 1,
  not_before     timestamptz,            -- a retry waits until then
  queued_at      timestamptz not null default system.clock(),
  reason         text,                   -- machine-readable: why it waits again
  message        text,                   -- the same as a sentence
  hint           text,                   -- what to do about it
  delivery_id    bigint,                 -- NULL: the run waits for a delivery (it is forced, or was given back)
  job_no         integer,                -- the agent's number in that delivery
  behind         bigint,                 -- of a forced run: the one that was being done then, which may have read its export already
  constraint one_unfinished_run_a_pair unique nulls not distinct (agent_id, sync_type, behind)
);
create index queued_runs_by_delivery on system.queued_runs (delivery_id, job_no);

-- The agents that workers have, each with all that it has queued: a row exists only while a worker has the agent. That makes it one worker an
-- agent, whose ERP session can't be shared. Whoever writes for the agent names the fence, a number that no other claim ever has.
create table system.claims (
  agent_id       text primary key,
  fence          bigint generated always as identity,
  worker         text not null,
  claimed_at     timestamptz not null default system.clock(),
  lease_until    timestamptz not null,   -- when a silent worker loses the agent
  run_id         bigint,                 -- the run that is being done, of those in the queue
  run_started_at timestamptz
);
create index claims_by_lease on system.claims (lease_until);

-- Jobs that are pushed to Redis together: up to a thousand agents with what they have queued, all of them forced or none. A tick marks one
-- small row as delivered instead of rewriting a thousand. A job's id is made of the delivery and the agent's number in it: a delivery that
-- is pushed twice is queued once, and the agent's next delivery has a fresh job id. A row goes when no run is left in it.
create table system.deliveries (
  id           bigint generated always as identity primary key,
  forced       boolean not null default false,
  delivered_at timestamptz               -- when Redis had all of it; NULL: not yet
);
create index deliveries_waiting on system.deliveries (forced desc, id) where delivered_at is null;

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

-- ======== History: what ran ========

-- One row a run that is over, written once. Only pruning touches it again.
create table system.sync_runs (
  id               bigint primary key,   -- the run's id in the queue
  sync_type        text not null,
  agent_id         text not null,
  state            text not null check (state in ('succeeded', 'held', 'failed', 'skipped', 'cancelled')),
  reason           text,                 -- machine-readable: why the run ended so
  message          text,                 -- the same as a sentence
  hint             text,                 -- what to do about it
  trigger          text not null check (trigger in ('scheduled', 'forced')),
  requested_by     text,
  request_reason   text,
  slot_at          timestamptz,
  attempt          integer not null default 1,
  fence            bigint,               -- of the claim under which it ended
  queued_at        timestamptz not null default system.clock(),
  delivered_at     timestamptz,
  started_at       timestamptz,
  worker           text,
  finished_at      timestamptz not null default system.clock(),
  kept_at          timestamptz,          -- when pruning last found the run old but still needed
  rows_seen        bigint,
  rows_inserted    bigint,
  rows_updated     bigint,
  rows_unchanged   bigint,
  rows_absent      bigint,
  rows_restored    bigint,
  rows_deleted     bigint,
  rows_quarantined bigint,
  export           jsonb,                -- origin, bytes, sha256, what was detected
  steps            jsonb,                -- milliseconds of each step
  warnings         jsonb not null default '[]',
  quarantined_rows jsonb                 -- some rows that could not be read: line, field, why. Agent data, so in no view and not for ticks
);
-- The newest runs of a type in a state. By id and not by time: runs that a wrong clock dated years ahead would come before all later ones.
-- The time is included for those who count a span.
create index sync_runs_by_state on system.sync_runs (sync_type, state, id) include (queued_at);
-- The newest runs of an agent or of a pair.
create index sync_runs_by_agent on system.sync_runs (agent_id, id);
-- Pruning walks along this index. A run that is old but still needed (the last success of its pair, say) gets kept_at, which moves it to
-- the end: it is looked at again after another retention time, not by every tick.
create index sync_runs_by_age on system.sync_runs (coalesce(kept_at, finished_at));

-- Every run, for whoever looks: those that are not over, with what their agent's claim says, and the history.
create view system.unfinished_runs as
select q.id, q.sync_type, q.agent_id, case when c.agent_id is null then 'queued' else 'running' end as state, q.reason, q.message,
       q.hint, q.trigger, q.requested_by, q.request_reason, q.slot_at, q.attempt, c.fence, q.not_before, q.queued_at,
       (select d.delivered_at from system.deliveries d where d.id = q.delivery_id) as delivered_at,
       c.run_started_at as started_at, c.lease_until, c.worker, null::timestamptz as finished_at,
       null::bigint as rows_seen, null::bigint as rows_inserted, null::bigint as rows_updated, null::bigint as rows_unchanged,
       null::bigint as rows_absent, null::bigint as rows_restored, null::bigint as rows_deleted, null::bigint as rows_quarantined,
       null::jsonb as export, null::jsonb as steps, '[]'::jsonb as warnings
  from system.queued_runs q
  left join system.claims c on c.agent_id = q.agent_id and c.run_id = q.id;
create view system.runs as
select * from system.unfinished_runs
union all
select id, sync_type, agent_id, state, reason, message, hint, trigger, requested_by, request_reason, slot_at, attempt, fence, null,
       queued_at, delivered_at, started_at, null, worker, finished_at, rows_seen, rows_inserted, rows_updated, rows_unchanged, rows_absent,
       rows_restored, rows_deleted, rows_quarantined, export, steps, warnings
  from system.sync_runs;

-- ======== State of each pair ========

-- One row for each pair that was ever scheduled. The triggers on agents.users keep `active`, so an idle tick need not read that table.
create table system.sync_state (
  sync_type            text not null references system.sync_types,
  agent_id             text not null,
  active               boolean not null default true,      -- the agent is on the whitelist now; the shared types always are
  last_slot_at         timestamptz,                        -- the last scheduled slot; NULL: never scheduled
  unfinished_run_id    bigint,                             -- the pair's row in queued_runs; NULL: it has none
  next_run_id          bigint,                             -- a second one: forced while the first was being done, and next after it
  last_run_id          bigint,
  last_success_at      timestamptz,
  consecutive_failures integer not null default 0,
  scheduled_failures   integer not null default 0,         -- of these, the ones of scheduled runs: only they make the pair rest
  backoff_until        timestamptz,
  known_rows           bigint,                             -- rows of the last applied export: the guard's baseline
  high_rows            jsonb not null default '{}',        -- {"2026-11-24": 1450, …}: most rows applied on each of the last days (UTC)
  data_version         bigint not null default 0,          -- + 1 with every apply that changed something
  same_changes_nothing boolean not null default false,     -- the export that was applied last would change nothing if it came again
  applied_run_id       bigint,                             -- the run that applied the pair's row in applied_exports; NULL: it has none
  warned_run_id        bigint,                             -- the applied run whose warnings a person should read; NULL: none
  primary key (agent_id, sync_type)
) with (fillfactor = 80);
-- What ANALYZE can't see in a table with two rows: these will be a few types, and not one a row.
alter table system.sync_state alter column sync_type set (n_distinct = 6);
-- The due query reads a range of this index: its cost grows with what is due, not with what exists. A pair whose run is not over is not due.
create index sync_state_by_slot on system.sync_state (sync_type, system.or_never(last_slot_at)) where active and unfinished_run_id is null;
-- The unfinished runs of a type, so that the queue itself needs no index for it.
create index sync_state_unfinished on system.sync_state (sync_type, unfinished_run_id) where unfinished_run_id is not null;
create index sync_state_next on system.sync_state (sync_type, next_run_id) where next_run_id is not null;
-- What `status` asks. Plain indexes and no counters: for a counter, every worker would wait for the same row. The last three are empty
-- while all is well.
create index sync_state_by_success on system.sync_state (sync_type, system.or_never(last_success_at)) where active;
create index sync_state_failing on system.sync_state (sync_type, consecutive_failures, agent_id) where active and consecutive_failures > 0;
create index sync_state_warned on system.sync_state (sync_type, warned_run_id) where active and warned_run_id is not null;
create index sync_state_resting on system.sync_state (sync_type, backoff_until) where active and backoff_until is not null;

-- How long a pair rests after the n-th failure in a row of its scheduled runs: not at all after the first, then double the interval each time, at most six hours
-- (or its own interval, if that is longer).
create function system.backoff(of_type text, failures integer) returns interval
language sql stable
begin atomic
  select case when failures < 2 then null
              else least(make_interval(mins => s.interval_minutes) * power(2, least(failures, 20) - 1),
                         greatest(make_interval(hours => 6), make_interval(mins => s.interval_minutes))) end
    from system.sync_settings s where s.sync_type = of_type;
end;

-- What is known of the export that was applied last, of each pair that has data: run, sha256, counts, what the source said of it (ETag,
-- Last-Modified), how it was read, its columns. Without it an export is always fetched and compared as a whole. A table of its own, so that
-- the tick and the end of an unchanged run write neither this nor its indexes. Written after the pair's state, in the same statement.
create table system.applied_exports (
  sync_type text not null,
  agent_id  text not null,
  source    jsonb not null,
  primary key (agent_id, sync_type)
) with (fillfactor = 80);
alter table system.applied_exports alter column sync_type set (n_distinct = 6);
-- For whom else these very bytes were applied, and whose rows a new agent's first export nearly has. Both questions leave out agents who are
-- known to share an export, which may be all but one. Neither index can be taken for the other's question, which a planner without
-- statistics would do.
create index applied_exports_by_bytes on system.applied_exports
  (sync_type, (source ->> 'sha256'), (coalesce((source ->> 'shared')::boolean, false))) where source ->> 'sha256' is not null;
create index applied_exports_by_least on system.applied_exports (sync_type, (source ->> 'least_digest'))
  where source ->> 'least_digest' is not null and not coalesce((source ->> 'shared')::boolean, false);

-- One row for each pair and transaction that wrote to agent data without being an apply. An apply of the pair deletes the rows that it sees
-- *before* it compares anything: what commits later leaves its row for the next sync. Writer and apply share no lock, so neither waits.
create table system.outside_changes (
  sync_type text not null,
  agent_id  text not null,
  xid       xid8 not null default pg_current_xact_id(),
  primary key (sync_type, agent_id, xid)
);

-- ======== Held exports: what a person must decide ========

create table system.held_exports (
  run_id        bigint primary key references system.sync_runs on delete cascade,
  sync_type     text not null,
  agent_id      text not null,
  rule          text not null,
  message       text not null,
  hint          text,                        -- what to do about it
  acceptable    boolean not null,            -- an unreadable export can't be accepted, only replaced
  sha256        text,
  rows_valid    bigint,                      -- NULL: nobody knows, it can't be read
  known_rows    bigint,
  data_version  bigint not null,             -- of the data that the person looked at
  sample        jsonb not null default '[]', -- keys of rows that would vanish; agent data, so not for ticks
  planned       jsonb not null default '{}', -- how many rows would be deleted, rewritten, changed, new; {}: nobody knows
  changes       jsonb not null default '[]', -- some of the changes: the key, and old and new value of each field; likewise
  findings      jsonb not null default '[]', -- what is wrong with which column, with old and new values; likewise
  held_at       timestamptz not null default system.clock(),
  decision      text check (decision in ('accepted', 'rejected', 'superseded', 'cleared', 'withdrawn')),
  decided_at    timestamptz,
  decided_by    text,
  decided_why   text,
  expires_at    timestamptz,                 -- an acceptance lasts 24 h
  used_by_run   bigint,
  ended_at      timestamptz                  -- NULL: the hold goes on, also one that is accepted but not applied yet, or rejected
);
create unique index held_exports_one_open_a_pair on system.held_exports (sync_type, agent_id) where decision is null;
create index held_exports_accepted on system.held_exports (sync_type, agent_id) where decision = 'accepted' and used_by_run is null;
create index held_exports_by_pair on system.held_exports (sync_type, agent_id, run_id);
create index held_exports_going_on on system.held_exports (agent_id, sync_type) where ended_at is null;

-- ======== Notices: what a person wants to hear of ========

-- An outbox, written in the transaction of the change itself, whoever makes it (a worker, a tick, plain SQL); a tick delivers it. One row a
-- change, not one a run.
create table system.notices (
  id              bigint generated always as identity primary key,
  event           text not null check (event in ('held', 'degraded', 'recovered')),
  sync_type       text not null,
  agent_id        text not null,
  run_id          bigint,
  message         text not null,
  hint            text,                      -- what to do about it, where the error said so
  created_at      timestamptz not null default system.clock(),
  attempts        integer not null default 0,
  next_attempt_at timestamptz not null default system.clock(),
  done_at         timestamptz,               -- delivered, or too old to be of use
  outcome         text                       -- delivered | expired; before that, why the last attempt failed
);
create index notices_waiting on system.notices (next_attempt_at) where done_at is null;
create index notices_by_creation on system.notices (created_at);

-- ======== Audit: what people did ========

-- One row for each thing that somebody did, written in the transaction that did it. It is only added to, and never pruned.
create table system.audit (
  id        bigint generated always as identity primary key,
  at        timestamptz not null default system.clock(),
  who       text not null,                    -- the account and its host, or the name of a token or of a proxy's user
  via       text not null check (via in ('cli', 'api', 'panel')),
  action    text not null,
  sync_type text,                             -- on what: NULL for all types
  agent_id  text,                             -- NULL for all agents
  run_id    bigint,
  before    jsonb,
  after     jsonb,
  why       text
);
create index audit_by_agent on system.audit (agent_id, id);
create index audit_by_run on system.audit (run_id) where run_id is not null;

create function system.audit_is_only_added_to() returns trigger language plpgsql set search_path = pg_catalog, pg_temp
as $$ begin
  raise insufficient_privilege using message = 'system.audit is only added to: what people did is neither changed nor deleted';
end $$;
revoke execute on function system.audit_is_only_added_to() from public;
create trigger archisync_audit_is_only_added_to before update or delete or truncate on system.audit
  for each statement execute function system.audit_is_only_added_to();

-- ======== Triggers ========
-- They are SECURITY DEFINER because whoever writes to agents.users or to agent data need not have rights in the schema system. Nobody else
-- may call them or make a trigger of them (a trigger that is there needs no right to fire), and on any other table than ours they refuse.

-- Raises unless `relation`, or the partitioned table that it is a part of, is one of ours: on a table of somebody else's a function of ours
-- would do what that person wants with the rights of the schema's owner. A table that is not there is NULL in `ours`.
create function system.check_trigger_table(relation oid, variadic ours regclass[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$ begin
  if coalesce(pg_partition_root(relation)::oid, relation) = any (ours::oid[]) then return; end if;
  raise insufficient_privilege using message = 'a trigger function of archisync is for its own tables, not for ' || relation::regclass;
end $$;

-- 1. agents.users: the whitelist and system.sync_state agree, however the registry is edited (the command line, an application, SQL). The
-- pairs are locked in the order in which a worker that ends several runs of an agent locks them.

create function system.activate_agents(ids text[]) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  insert into system.sync_state as st (sync_type, agent_id)
  select t.sync_type, a.id from unnest(ids) as a(id) cross join system.sync_types t where t.scope = 'agent' order by a.id, t.sync_type
  on conflict (sync_type, agent_id) do update set active = true where not st.active
$$;
revoke execute on function system.activate_agents(text[]) from public;

-- The agents' queued runs end as skipped, but for one that is being done; their slots are given back as endings.SQL_FINISH does, and their
-- holds are withdrawn. The shared types are nobody's, whatever an agent is called.
create function system.deactivate_agents(ids text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  own constant text[] := array(select t.sync_type from system.sync_types t where t.scope = 'agent');
begin
  -- State first: this waits for a tick that is about to queue a run, so that the next statement sees that run.
  perform from system.sync_state st where st.agent_id = any (ids) and st.active and st.sync_type = any (own)
    order by st.agent_id, st.sync_type for update;
  update system.sync_state st set active = false where st.agent_id = any (ids) and st.active and st.sync_type = any (own);
  with theirs as materialized (
    select q.id from system.queued_runs q
     where q.agent_id = any (ids) and q.sync_type = any (own)
       and not exists (select from system.claims c where c.agent_id = q.agent_id and c.run_id = q.id)
     order by q.id for update),
  ended as (delete from system.queued_runs q using theirs where q.id = theirs.id returning q.*),
  history as (
    insert into system.sync_runs (id, sync_type, agent_id, state, reason, message, trigger, requested_by, request_reason, slot_at, attempt,
                                  queued_at)
    select id, sync_type, agent_id, 'skipped', 'not-whitelisted', 'the agent left the whitelist before the run began', trigger,
           requested_by, request_reason, slot_at, attempt, queued_at
      from ended)
  update system.sync_state st
     set unfinished_run_id = case when st.unfinished_run_id = any (ended.ids) then null else st.unfinished_run_id end,
         next_run_id = null, last_run_id = ended.last_id,
         last_slot_at = case when st.last_slot_at = ended.slot_at then ended.slot_at - make_interval(mins => s.interval_minutes)
                             else st.last_slot_at end
    from (select e.sync_type, e.agent_id, array_agg(e.id) as ids, max(e.id) as last_id, max(e.slot_at) as slot_at
            from ended e group by e.sync_type, e.agent_id) ended
    join system.sync_settings s using (sync_type)
   where st.agent_id = ended.agent_id and st.sync_type = ended.sync_type;
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
revoke execute on function system.deactivate_agents(text[]) from public;

create function system.users_inserted() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'agents.users');
  perform system.activate_agents(array(select id::text from new_users where whitelisted));
  return null;
end $$;
revoke execute on function system.users_inserted() from public;
create trigger archisync_users_inserted after insert on agents.users
  referencing new table as new_users for each statement execute function system.users_inserted();

create function system.users_deleted() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'agents.users');
  perform system.deactivate_agents(array(select id::text from old_users where whitelisted));
  return null;
end $$;
revoke execute on function system.users_deleted() from public;
create trigger archisync_users_deleted after delete on agents.users
  referencing old table as old_users for each statement execute function system.users_deleted();

create function system.users_truncated() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'agents.users');
  perform system.deactivate_agents(array(select distinct agent_id from system.sync_state where active));
  return null;
end $$;
revoke execute on function system.users_truncated() from public;
create trigger archisync_users_truncated after truncate on agents.users
  for each statement execute function system.users_truncated();

create function system.users_updated() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'agents.users');
  perform system.deactivate_agents(array(select id::text from old_users where whitelisted except select id::text from new_users where whitelisted));
  perform system.activate_agents(array(select id::text from new_users where whitelisted except select id::text from old_users where whitelisted));
  return null;
end $$;
revoke execute on function system.users_updated() from public;
-- A statement's rows all at once: twenty thousand agents are denied in a second. Without a list of columns, which would miss what a BEFORE
-- trigger sets.
create trigger archisync_users_updated after update on agents.users
  referencing old table as old_users new table as new_users for each statement execute function system.users_updated();

create function system.user_changed() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'agents.users');
  if tg_op <> 'INSERT' and old.whitelisted and (tg_op = 'DELETE' or new.id <> old.id or new.whitelisted is not true) then
    perform system.deactivate_agents(array[old.id::text]);
  end if;
  if tg_op <> 'DELETE' and new.whitelisted then
    perform system.activate_agents(array[new.id::text]);
  end if;
  return null;
end $$;
revoke execute on function system.user_changed() from public;
-- For a registry that logical replication fills from another database: replication fires no statement triggers, and row triggers only if
-- they are enabled for it. Disabled, because where the whole database is replicated, system.sync_state comes the same way. `doctor` tells
-- when whitelist and state differ, and how to enable the trigger:
--   alter table agents.users enable replica trigger archisync_user_replicated
create trigger archisync_user_replicated after insert or update or delete on agents.users
  for each row execute function system.user_changed();
alter table agents.users disable trigger archisync_user_replicated;

-- 2. system.sync_state: notices of the third failure in a row and of the success that ends such a series.

create function system.state_changed() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'system.sync_state');
  if old.consecutive_failures < 3 and new.consecutive_failures >= 3 then
    insert into system.notices (event, sync_type, agent_id, run_id, message, hint)
    select 'degraded', new.sync_type, new.agent_id, new.last_run_id,
           new.sync_type || ' of ' || new.agent_id || ' failed ' || new.consecutive_failures || ' times in a row'
           || coalesce(': ' || r.message, ''), r.hint
      from (select new.last_run_id as id) last left join system.sync_runs r using (id);
  elsif old.consecutive_failures >= 3 and new.consecutive_failures = 0  -- a held run ends a series too, and has a notice of its own
        and not exists (select from system.sync_runs r where r.id = new.last_run_id and r.state = 'held') then
    insert into system.notices (event, sync_type, agent_id, run_id, message)
    values ('recovered', new.sync_type, new.agent_id, new.last_run_id,
            new.sync_type || ' of ' || new.agent_id || ' succeeds again after ' || old.consecutive_failures || ' failures');
  end if;
  return null;
end $$;
revoke execute on function system.state_changed() from public;
create trigger archisync_state_changed after update of consecutive_failures on system.sync_state
  for each row when ((old.consecutive_failures < 3 and new.consecutive_failures >= 3)
                     or (old.consecutive_failures >= 3 and new.consecutive_failures = 0))
  execute function system.state_changed();

-- 3. system.sync_settings: a type whose row is deleted has the defaults again. At the end of the transaction, which may restore the rows.

create function system.settings_stay() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'system.sync_settings');
  insert into system.sync_settings (sync_type, interval_minutes) select t.sync_type, t.default_minutes from system.sync_types t
  on conflict (sync_type) do nothing;
  return null;
end $$;
revoke execute on function system.settings_stay() from public;
create constraint trigger archisync_settings_stay after delete or update of sync_type on system.sync_settings
  deferrable initially deferred for each row execute function system.settings_stay();
create trigger archisync_settings_truncated after truncate on system.sync_settings
  for each statement execute function system.settings_stay();
alter table system.sync_settings enable always trigger archisync_settings_stay, enable always trigger archisync_settings_truncated;

-- 4. system.held_exports: a hold of an agent that has left the whitelist meanwhile is withdrawn at once; any other one has a notice.

-- The transaction that ends the run has locked the pair's state row: either it sees here that the agent has left, or deactivate_agents
-- waits for it and sees its row.
create function system.export_held_of_nobody() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'system.held_exports');
  if not exists (select from system.sync_state st where st.agent_id = new.agent_id and st.sync_type = new.sync_type and st.active) then
    new.decision := 'withdrawn';
    new.decided_at := system.clock();
    new.ended_at := system.clock();
  end if;
  return new;
end $$;
revoke execute on function system.export_held_of_nobody() from public;
create trigger archisync_export_held_of_nobody before insert on system.held_exports
  for each row when (new.decision is null) execute function system.export_held_of_nobody();

-- No notice of a hold that supersedes an open one of the pair: a person knows of that already.
create function system.export_held() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, 'system.held_exports');
  if coalesce((select h.decision from system.held_exports h where h.sync_type = new.sync_type
                and h.agent_id = new.agent_id and h.run_id < new.run_id order by h.run_id desc limit 1), '') <> 'superseded' then
    insert into system.notices (event, sync_type, agent_id, run_id, message, hint)
    values ('held', new.sync_type, new.agent_id, new.run_id,
            'the export of ' || new.sync_type || ' of ' || new.agent_id || ' is held: ' || new.message, new.hint);
  end if;
  return null;
end $$;
revoke execute on function system.export_held() from public;
create trigger archisync_export_held after insert on system.held_exports
  for each row when (new.decision is null) execute function system.export_held();

-- 5. Agent data: what is written by anything but an apply of that type. The trigger's argument is the sync type. Both triggers fire in
-- sessions with session_replication_role = replica too. What logical replication brings is left alone: where it brings the whole database,
-- system.outside_changes comes the same way, and no apply would ever empty it here.

create function system.table_of(of_type text) returns regclass
language sql stable
return (select to_regclass(t.table_name) from system.sync_types t where t.sync_type = of_type);

create function system.changed_outside() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, system.table_of(tg_argv[0]));
  if current_setting('session_replication_role') = 'replica'
     and exists (select from pg_stat_activity a where a.pid = pg_backend_pid() and a.backend_type like 'logical replication%') then
    return null;
  end if;
  if tg_op <> 'INSERT' then
    insert into system.outside_changes (sync_type, agent_id)
      values (tg_argv[0], coalesce(to_jsonb(old) ->> 'agent_id', 'service-account')) on conflict do nothing;
  end if;
  if tg_op <> 'DELETE' then
    insert into system.outside_changes (sync_type, agent_id)
      values (tg_argv[0], coalesce(to_jsonb(new) ->> 'agent_id', 'service-account')) on conflict do nothing;
  end if;
  return null;
end $$;
revoke execute on function system.changed_outside() from public;
create function system.truncated_outside() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin
  perform system.check_trigger_table(tg_relid, system.table_of(tg_argv[0]));
  update system.sync_state set applied_run_id = null where sync_type = tg_argv[0] and applied_run_id is not null;
  delete from system.applied_exports where sync_type = tg_argv[0];
  return null;
end $$;
revoke execute on function system.truncated_outside() from public;

-- ======== Agent data: one table a type =
-- The pairs of the shared types. `archisync db migrate` adds those of the agents on the whitelist.
insert into system.sync_state (sync_type, agent_id) select sync_type, 'service-account' from system.sync_types where scope = 'shared';
