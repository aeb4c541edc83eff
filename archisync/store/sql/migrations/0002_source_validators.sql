-- Purpose: what the source said about the export that was applied last (ETag, Last-Modified), so that a worker can ask for it
-- only if it has changed; with it, a fingerprint of how that export was read. NULL: always fetch.
-- Caller: archisync.store.migrations.
alter table system.sync_state add column applied_source jsonb;
