-- The planner samples every table without asking policies, and estimates by it for everybody: "explain", and whatever
-- shows a planned count, told of any text how often it was sent, and by prefix what was sent. Nothing of what people write
-- is sampled any more. No query needs it: texts are found through the search index or beside an id.

alter table public.user_messages
  alter column content set statistics 0,
  alter column file_url set statistics 0,
  alter column file_name set statistics 0,
  alter column file_type set statistics 0,
  alter column client_message_id set statistics 0,
  alter column metadata set statistics 0,
  alter column mentions set statistics 0,
  alter column read_by set statistics 0;

alter table public.user_conversations
  alter column title set statistics 0,
  alter column team_id set statistics 0,
  alter column metadata set statistics 0;

alter table public.message_edits alter column previous_content set statistics 0;

alter table public.message_drafts alter column content set statistics 0;

alter table public.message_reactions
  alter column reaction set statistics 0,
  alter column emoji set statistics 0;

alter table public.user_presence
  alter column current_page set statistics 0,
  alter column status_text set statistics 0,
  alter column status_emoji set statistics 0;

alter table public.user_notification_preferences alter column timezone set statistics 0;

-- with the partitions that are there; chat.maintain_message_partitions() does the same for those to come
do $$
begin
  if obj_description('realtime.messages'::regclass, 'pg_class') like 'Made by Rapport%' then
    alter table realtime.messages
      alter column topic set statistics 0,
      alter column event set statistics 0,
      alter column payload set statistics 0;
  end if;
exception when insufficient_privilege then
  raise notice 'realtime.messages goes on being sampled: % may not alter it.', current_user;
end
$$;

-- What was sampled until now stays where it is: "analyze" passes such a column over. Before PostgreSQL 18 only a superuser
-- can take it out.
do $$
declare
  sampled record;
begin
  for sampled in
    select n.nspname, c.relname, a.attname, a.attrelid, a.attnum, s.inherited
    from pg_catalog.pg_stats s
    join pg_catalog.pg_namespace n on n.nspname = s.schemaname
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = s.tablename
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = s.attname
    where a.attstattarget = 0 and n.nspname in ('public', 'realtime')
  loop
    if current_setting('server_version_num')::int >= 180000 then
      execute format(
        'select pg_catalog.pg_clear_attribute_stats(schemaname => %L, relname => %L, attname => %L, inherited => %L)',
        sampled.nspname, sampled.relname, sampled.attname, sampled.inherited
      );
    else
      delete from pg_catalog.pg_statistic where starelid = sampled.attrelid and staattnum = sampled.attnum;
    end if;
  end loop;
exception when insufficient_privilege then
  raise warning 'Samples of what people wrote until now stay in pg_statistic, and "explain" may tell of them. Have a superuser run: delete from pg_catalog.pg_statistic s using pg_catalog.pg_attribute a where a.attrelid = s.starelid and a.attnum = s.staattnum and a.attstattarget = 0;';
end
$$;
