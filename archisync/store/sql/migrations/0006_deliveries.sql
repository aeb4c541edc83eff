-- Purpose: a tick marks what it has pushed in one small row for a thousand runs, instead of rewriting each of them with all its
-- index entries; and each index on the way of a tick is there once.
-- Caller: archisync.store.migrations, once.

-- What is pushed to Redis together: up to a thousand queued runs, all forced or none. The runs name it (sync_runs.delivery_id); a
-- job's id is made of run, fence and delivery, so that the same delivery can be pushed twice without being queued twice, and a new
-- delivery of the same run has a fresh id. Rows go when none of their runs is queued any more.
create table system.deliveries (
  id           bigint generated always as identity primary key,
  forced       boolean not null default false,
  delivered_at timestamptz                  -- when Redis had all of it; NULL: not yet
);
create index deliveries_waiting on system.deliveries (forced desc, id) where delivered_at is null;

-- NULL: the run waits for a delivery (it is forced, or was given back). What was on its way when this migration ran is pushed again,
-- which a claim makes harmless. delivered_at is now written by the claim.
alter table system.sync_runs add column delivery_id bigint;
drop index system.sync_runs_undelivered, system.sync_runs_delivered;
alter table system.sync_runs drop column job_id;
create index sync_runs_by_delivery on system.sync_runs (delivery_id, id) where state = 'queued';

-- By agent first, the two rules' own indexes find an agent's rows as well.
drop index system.sync_runs_one_unfinished_a_pair, system.sync_runs_queued_by_agent;
create unique index sync_runs_one_unfinished_a_pair on system.sync_runs (agent_id, sync_type) where state in ('queued', 'running');
alter table system.sync_state drop constraint sync_state_pkey, add primary key (agent_id, sync_type);
drop index system.sync_state_by_agent;

-- What a tick pays for each run that it inserts. The pair's history is found among the agent's (a few types); the type comes from
-- sync_state or from the registry, and both are checked.
drop index system.sync_runs_by_pair;
alter table system.sync_runs drop constraint sync_runs_sync_type_fkey;
