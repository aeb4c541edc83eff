"""A database in which somebody has made, in `public`, functions and operators that fit our calls as well as PostgreSQL's own or better."""

import re
from pathlib import Path

import archisync
from archisync.store.database import Database

# Of each function of PostgreSQL that our texts may call: a twin of each signature, and one for each pair of common types (PostgreSQL has no
# hashtextextended(text, integer), and our 0 is an integer). The same for operators. Whoever calls one fails.
PLANT = """
do $$
declare
  one record; two record; symbol text;
  types constant text[] := '{text,int4,int8,bool,float8,numeric,timestamptz,interval,jsonb,date,_text,_int8}';
begin
  set local check_function_bodies = off;
  create function public.is_called() returns boolean language plpgsql as
    $f$ begin raise exception 'somebody else''s function is called'; end $f$;
  for one in select p.proname as name, array(select t::regtype::text from unnest(p.proargtypes::oid[]) t) as arguments
               from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and p.proname = any ({names})
                and not exists (select from unnest(p.proargtypes::oid[]) u join pg_type t on t.oid = u where t.typtype = 'p')
  loop
    execute format('create or replace function public.%I(%s) returns boolean language sql as $f$ select public.is_called() $f$',
                   one.name, array_to_string(one.arguments, ', '));
  end loop;
  for one in select unnest(types) as type loop
    for symbol in select distinct p.proname from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
                     and p.proname = any ({names}) and p.pronargs = 1 loop
      execute format('create or replace function public.%I(%s) returns boolean language sql as $f$ select public.is_called() $f$',
                     symbol, one.type);
    end loop;
    for two in select unnest(types) as type loop
      for symbol in select distinct p.proname from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
                       and p.proname = any ({names}) and p.pronargs = 2 loop
        execute format('create or replace function public.%I(%s, %s) returns boolean language sql as $f$ select public.is_called() $f$',
                       symbol, one.type, two.type);
      end loop;
      execute format('create function public.operate(%s, %s) returns boolean language sql as $f$ select public.is_called() $f$',
                     one.type, two.type);
      foreach symbol in array string_to_array('= <> < <= > >= + - * / % || -> ->> ~', ' ') loop
        execute format('create operator public.%s (leftarg = %s, rightarg = %s, function = public.operate)', symbol, one.type, two.type);
      end loop;
    end loop;
  end loop;
end $$
"""
# The names that a caller finds first in a session of his own: relations and types.
SHADOWS = """
create temp view pg_locks as select 1 as pid;
create temp view pg_class as select 1 as oid;
create temp view pg_namespace as select 1 as oid;
create temp view pg_database as select 1 as oid;
create temp view pg_stat_activity as select 1 as pid;
create domain pg_temp.text as pg_catalog.text check (public.is_called());
create domain pg_temp.timestamptz as pg_catalog.timestamptz check (public.is_called());
create domain pg_temp.jsonb as pg_catalog.jsonb check (public.is_called());
create domain pg_temp.date as pg_catalog.date check (public.is_called());
create domain pg_temp.uuid as pg_catalog.uuid check (public.is_called());
create domain pg_temp.float as pg_catalog.float8 check (public.is_called());
create domain pg_temp.regclass as pg_catalog.regclass check (public.is_called());
"""


def plant(db: Database) -> None:
    """Make them all, and have `public` come before pg_catalog in each session that sets no search_path. `db` is a superuser's connection
    to the database."""
    texts = [
        path.read_text("utf-8") for kind in ("py", "sql") for path in Path(archisync.__path__[0]).rglob(f"*.{kind}")
    ]
    names = sorted({name for text in texts for name in re.findall(r"\b([a-z_0-9]+)\(", text)})
    db.execute(PLANT.replace("{names}", f"'{{{','.join(names)}}}'").encode())
    db.execute(f"alter database {db.info.dbname} set search_path = public, pg_catalog".encode())
