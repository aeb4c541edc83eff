-- Purpose: the guard's thresholds per type, the highest counts of the last days, and what a held export would have done.
-- Caller: archisync.store.migrations, once.

-- Shares in percent; more than that holds the export. 100 switches off that one rule; nothing switches off the others
-- (no rows at all, truncated, unreadable, a missing column, all rejected, contradicting keys).
alter table system.sync_settings
  add column drop_percent    integer not null default 50 constraint sync_settings_drop_is_a_share    check (drop_percent between 0 and 100),
  add column delete_percent  integer not null default 50 constraint sync_settings_delete_is_a_share  check (delete_percent between 0 and 100),
  add column rewrite_percent integer not null default 50 constraint sync_settings_rewrite_is_a_share check (rewrite_percent between 0 and 100);

-- {"2026-11-24": 1450, …}: the highest number of rows applied on each of the last days (UTC). A column, and not a look into the
-- history: the guard reads one row, however many runs there were.
alter table system.sync_state add column high_rows jsonb not null default '{}';

alter table system.held_exports
  add column planned jsonb not null default '{}',   -- rows that would be deleted, rewritten, changed, new
  add column changes jsonb not null default '[]';   -- some of the changes: key, and old and new value of each field
