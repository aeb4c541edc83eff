-- Purpose: `status`, `history` and the rest of what people ask look at what they show, and never count their way through all pairs or
-- all runs. Plain indexes, no counters: a counter would make every worker wait for the same row.
-- Caller: archisync.store.migrations, once. Writes to the two tables wait while the indexes are made (about a minute for ten million runs).

-- The stale ones are a range of this index, the freshest and the least fresh pair its ends. It costs a successful run one more index
-- entry each in this table's indexes, since the row can no longer be updated in place.
create index sync_state_by_success on system.sync_state (sync_type, coalesce(last_success_at, '-infinity'::timestamptz)) where active;
-- Empty while all is well: an update that leaves these columns alone does not touch them.
create index sync_state_failing on system.sync_state (sync_type, consecutive_failures) where active and consecutive_failures > 0;
create index sync_state_resting on system.sync_state (sync_type, backoff_until) where active and backoff_until is not null;

-- Runs of a type in a state, by time: what is queued and running now, and the newest that ended so.
create index sync_runs_by_state on system.sync_runs (sync_type, state, queued_at, id);
drop index system.sync_runs_failures;

-- The history of an agent, or of one of its pairs; the few unfinished runs have an index of their own. A run is inserted, delivered and
-- claimed without an entry here, at a random place of a large index.
drop index system.sync_runs_by_agent;
create index sync_runs_by_agent on system.sync_runs (agent_id, id) where finished_at is not null;

-- Pruning walks along this index. A run that is old and still needed (the last success of its pair, say) gets kept_at, which puts it at the
-- index's end: it is looked at again a retention later, and not by every tick until then.
alter table system.sync_runs add column kept_at timestamptz;
drop index system.sync_runs_by_finish;
create index sync_runs_by_age on system.sync_runs (coalesce(kept_at, finished_at)) where finished_at is not null;
