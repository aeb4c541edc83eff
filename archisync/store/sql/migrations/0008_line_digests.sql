-- Purpose: remember of each row which line of the export it came of, so that of a large export only the lines that changed are read,
-- copied and compared (archisync.formats.knownlines). For archisync alone, like the other columns behind the export's fields.
-- Caller: archisync.store.migrations, once. Adding a column without a default rewrites nothing.
--
-- What holds unless system.outside_changes has a row of the pair: a line with that digest says what the row says. An apply keeps it so:
-- a changed row gets its line's digest, a row that is missing loses it. NULL: ask the row itself.
do $$
declare
  target record;
begin
  for target in
    select case t.scope when 'shared' then 'shared.' else 'agents.' end || t.sync_type as name from system.sync_types t
  loop
    execute format('alter table %s add column line_digest uuid', target.name);
  end loop;
end
$$;
