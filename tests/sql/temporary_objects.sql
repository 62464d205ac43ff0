-- A caller's temporary types and relations never replace Rapport's. A user who may run SQL as
-- authenticated may create such objects. The check of a domain or the function of a view runs as
-- the role that evaluates it. In a definer function, that role is the owner.

begin;
\ir support.sql

-- An application's own definer functions, with the two recommended search paths.
create table tests.things (id int, title text);
create function tests.host_sends_with_empty_path() returns void language plpgsql security definer set search_path = '' as $$
declare
  thing tests.things;
begin
  perform realtime.send('{"a": 1}', 'e', 'room:1');
  perform realtime.send_binary('\x00', 'e', 'room:1');
  perform realtime.broadcast_changes('room:1', 'e', 'INSERT', 't', 's', thing, thing);
  perform realtime.topic();
end
$$;
create function tests.host_sends() returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform realtime.send('{"a": 1}', 'e', 'room:1');
  perform auth.uid(), auth.role(), auth.email(), auth.jwt();
end
$$;

-- Runs a statement as the caller, with the path of a new session, and records whether it ran any of
-- the caller's code as another role.
create table tests.attacked (statement text);
grant insert on tests.attacked to public;
create function tests.run(statement text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  before constant int8 := currval('pg_temp.strikes');
begin
  begin
    perform set_config('search_path', '"$user", public', true);
    execute statement;
  exception when others then
    null; -- A refusal is also a result.
  end;
  perform set_config('search_path', 'pg_catalog, pg_temp', true);
  if currval('pg_temp.strikes') <> before then
    insert into tests.attacked (statement) values (run.statement);
  end if;
end
$$;

update chat.config set value = 'true' where key in ('fill_read_by', 'typing_in_table', 'share_current_page');
update chat.config set value = '"https://files.example"' where key = 'storage_url';

-- From here on, names in the test mean PostgreSQL's types and tables. Parts of the test run as the
-- owner, and would otherwise run the caller's code themselves.
set local search_path = pg_catalog, public, pg_temp;

-- ------------------------------------------------------------------------ what the caller prepares
select tests.act_as('ana');

create temporary sequence strikes;
select nextval('pg_temp.strikes');
-- A sequence keeps its value even if the attacked function catches errors or rolls back.
create function pg_temp.strike() returns boolean language plpgsql as $$
begin
  if current_user <> 'authenticated' then
    perform nextval('pg_temp.strikes');
  end if;
  return true;
end
$$;
grant all on sequence pg_temp.strikes to public;

-- A domain for each type, including array types.
do $$
declare
  type_name name;
begin
  for type_name in
    select t.typname from pg_type t where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype in ('b', 'r', 'm') order by t.typname
  loop
    begin
      execute format('create domain pg_temp.%I as pg_catalog.%I check (pg_temp.strike())', type_name, type_name);
    exception when others then
      null; -- A domain cannot be based on some types.
    end;
  end loop;
end
$$;
create type pg_temp.record as (id pg_temp.uuid, name pg_temp.text);

-- A view for each relation of the catalogue, and for the chat's own tables.
do $$
declare
  relation record;
begin
  for relation in
    select c.relname, c.oid::regclass as name
    from pg_class c
    where c.relkind in ('r', 'v')
      and c.relnamespace in ('pg_catalog'::regnamespace, 'chat'::regnamespace, 'public'::regnamespace, 'auth'::regnamespace, 'realtime'::regnamespace)
  loop
    begin
      execute format('create temporary view %I as select * from %s where pg_temp.strike()', relation.relname, relation.name);
    exception when others then
      null;
    end;
  end loop;
end
$$;

select tests.act_as('owner');
select tests.holds(count(*) > 70, 'domains were created') from pg_type t where t.typnamespace = pg_my_temp_schema() and t.typtype = 'd';
select tests.equals(count(*), 13::bigint, 'including those that functions use')
from pg_type t
where t.typnamespace = pg_my_temp_schema() and t.typtype = 'd'
  and t.typname in ('uuid', 'text', 'jsonb', 'json', 'bool', 'int4', 'int8', 'timestamptz', 'interval', 'xid8', 'pg_snapshot', 'regclass', '_uuid');
select tests.holds(count(*) > 70, 'views were created') from pg_class c where c.relnamespace = pg_my_temp_schema() and c.relkind = 'v';

-- ---------------------------------------------------------------------------------- what is called
-- realtime.send warns if a policy refuses the broadcast.
set local client_min_messages = error;
-- The conversation is created after the types, so that no function has been compiled before they
-- exist.
select set_config('track_functions', 'all', true) where current_setting('is_superuser') = 'on';
select tests.act_as('ana');
select tests.run(format('select chat.open_conversation(%L)', tests.id('ben')));
-- The attacked statement may have failed.
select coalesce((select c.id from public.user_conversations c), gen_random_uuid()) as conversation \gset
select tests.run(format('select chat.send_message(%L, %L)', :'conversation', 'one'));
select tests.run(format('insert into public.user_messages (conversation_id, content) values (%L, %L)', :'conversation', 'two'));
select tests.run(format('insert into public.user_messages (conversation_id, content, file_url) values (%L, %L, %L)', :'conversation', 'three', 'https://files.example/a'));
select coalesce((select m.id from public.user_messages m order by m.seq limit 1), gen_random_uuid()) as message \gset

-- Fires every trigger, as a client that writes to the tables would.
select tests.run(s.statement)
from unnest(array[
  format('update public.user_messages set content = %L where id = %L', 'edited', :'message'),
  format('insert into public.message_reactions (message_id, user_id, reaction) values (%L, %L, %L)', :'message', tests.id('ana'), '👍'),
  format('delete from public.message_reactions where message_id = %L', :'message'),
  format('insert into public.message_reactions (message_id, user_id, reaction) values (%L, %L, %L)', :'message', tests.id('ana'), '👍'),
  format('update public.user_conversation_members set is_pinned = true where conversation_id = %L', :'conversation'),
  format('insert into public.user_presence (user_id, status) values (%L, %L)', tests.id('ana'), 'online'),
  format('insert into public.user_presence (user_id, status) values (%L, %L) on conflict (user_id) do update set status = excluded.status', tests.id('ana'), 'away'),
  format('update public.user_presence set is_typing_to = %L, status = %L where user_id = %L', tests.id('ben'), 'busy', tests.id('ana')),
  format('insert into public.user_notification_preferences (user_id, share_presence) values (%L, false)', tests.id('ana')),
  format('update public.user_presence set status = %L where user_id = %L', 'online', tests.id('ana')),
  'update public.user_notification_preferences set share_presence = true, share_read_receipts = false',
  'update public.user_notification_preferences set share_read_receipts = true',
  'select * from chat.search_messages(''two'', by_relevance => true)',
  format('insert into public.user_blocks (blocker_id, blocked_id) values (%L, %L)', tests.id('ana'), tests.id('ben')),
  'delete from public.user_blocks',
  format('insert into realtime.messages (topic, extension, event, private) values (%L, %L, %L, true)', 'conversation:' || :'conversation', 'presence', 'e'),
  'select count(*) from realtime.messages',
  'select tests.host_sends()',
  'select tests.host_sends_with_empty_path()'
]) with ordinality s (statement, number)
order by s.number;

-- Calls every function that users may call: without optional arguments, with nulls, with existing
-- values and with missing ones.
create temporary table calls as
with callable as (
  select p.oid, p.oid::regprocedure::text as name, format('%I.%I', n.nspname, p.proname) as called, p.proargtypes::oid[] as types, p.pronargdefaults
  from pg_proc p
  join pg_namespace n on n.oid = p.pronamespace
  where (n.nspname in ('chat', 'realtime', 'auth') or (n.nspname = 'public' and p.prosrc like '%chat.%'))
    and p.prorettype <> 'trigger'::regtype
    and has_function_privilege('authenticated', p.oid, 'execute')
),
given (type_name, value, number) as (
  values
    ('uuid', :'conversation', 0), ('uuid', '00000000-0000-4000-8000-00000000000b', 1), ('uuid', :'message', 2), ('uuid', gen_random_uuid()::text, 3),
    ('uuid[]', '{' || :'conversation' || '}', 0), ('uuid[]', '{00000000-0000-4000-8000-00000000000b}', 1), ('uuid[]', '{' || :'message' || '}', 2),
    ('uuid[]', '{}', 3),
    ('text', 'two', 0), ('text', 'conversation:' || :'conversation', 1), ('text', '👍', 2), ('text', 'online', 3),
    ('text[]', '{two}', 0), ('text[]', '{}', 1), ('text[]', '{a,b}', 2), ('text[]', '{online}', 3),
    ('jsonb', '{"is_pinned": true, "draft": "x", "muted_until": "2030-01-01", "share_typing": true}', 0), ('jsonb', '{}', 1), ('jsonb', '[]', 2), ('jsonb', '{"a": 1}', 3),
    ('boolean', 'true', 0), ('boolean', 'false', 1), ('boolean', 'true', 2), ('boolean', 'false', 3),
    ('integer', '10', 0), ('integer', '1', 1), ('integer', '0', 2), ('integer', '2', 3),
    ('bigint', '1', 0), ('bigint', '0', 1), ('bigint', '2', 2), ('bigint', '100', 3),
    ('bytea', '\x00', 0), ('bytea', '\x', 1), ('bytea', '\x00', 2), ('bytea', '\x00', 3),
    ('timestamp with time zone', '2030-01-01', 0), ('timestamp with time zone', '2001-01-01', 1), ('timestamp with time zone', 'infinity', 2), ('timestamp with time zone', '2030-01-01', 3)
),
sets as (
  select c.name, c.called, chosen.arguments
  from callable c
  cross join generate_series(-1, 7) s (number)
  cross join generate_series(0, 1) o (without_optional)
  cross join lateral (
    select string_agg(
      -- From number 4 on, each argument comes from a different set than the previous one.
      format('%L::%I.%I', case when s.number >= 0 then g.value end, n.nspname, t.typname), ', ' order by a.place
    ) as arguments
    from unnest(c.types) with ordinality a (type, place)
    join pg_type t on t.oid = a.type
    join pg_namespace n on n.oid = t.typnamespace
    left join given g on g.type_name = a.type::regtype::text and g.number = (s.number + case when s.number > 3 then a.place else 0 end) % 4
    where o.without_optional = 0 or a.place <= cardinality(c.types) - c.pronargdefaults
  ) chosen
)
select distinct s.name, format('select * from %s(%s)', s.called, coalesce(s.arguments, '')) as statement from sets s;
select tests.holds(count(distinct name) > 50, 'functions to call') from calls;
select tests.run(c.statement) from calls c order by c.statement;

-- A pooled session may later serve the server or an installation.
select gen_random_uuid() as process \gset
select tests.act_as('service_role');
select tests.run(s.statement)
from unnest(array[
  format('select chat.keep_presence(%L, 60000)', :'process'),
  format('select chat.report_devices(%L, array[%L, %L]::pg_catalog.uuid[], array[1, 1], array[true, true])', :'process', tests.id('ana'), tests.id('ada')),
  'select chat.expire_presence()',
  'select chat.maintain_message_partitions()',
  format('select chat.note_delivered(array[%L]::pg_catalog.uuid[], array[%L]::pg_catalog.uuid[], array[1])', tests.id('ben'), :'conversation'),
  format('select * from chat.unread_totals(array[%L]::pg_catalog.uuid[])', tests.id('ben')),
  format('select * from chat.standings(array[%L]::pg_catalog.uuid[], array[%L]::pg_catalog.uuid[])', tests.id('ben'), :'conversation'),
  format('select * from chat.composing(array[%L]::pg_catalog.uuid[], array[%L]::pg_catalog.uuid[])', tests.id('ben'), :'conversation'),
  format('select * from chat.memberships_with(array[%L]::pg_catalog.uuid[], array[%L]::pg_catalog.uuid[])', tests.id('ben'), :'conversation'),
  format('select * from chat.mark_read(%L)', :'conversation'),
  format('delete from public.user_messages where id = %L', :'message'),
  format('delete from public.user_conversation_members where conversation_id = %L', :'conversation')
]) with ordinality s (statement, number)
order by s.number;
select tests.act_as('owner');
select tests.run('select chat.grant_roles_to_installer()');
select tests.run('select chat.grant_shared_columns()');
select tests.run('update public.user_conversations set kind = kind');
select tests.run(format('delete from public.user_presence where user_id = %L', tests.id('ana')));
select tests.run('select chat.install_host_mapping(''claims'')');
select tests.run('select chat.install_host_mapping(''auto'')');
select tests.run('select chat.describe_host_candidates()');
select tests.run('select chat.attempt_self_promotion()');

do $$
declare
  culprits pg_catalog.text := (
    select string_agg(distinct substring(a.statement from '^[^(]+'), E'\n') from tests.attacked a
  );
begin
  if culprits is not null then
    raise exception E'the caller''s code ran as another role:\n%', culprits;
  end if;
end
$$;

-- A function that is not called proves nothing.
select tests.equals(array_agg(p.oid::regprocedure::text order by 1), null, 'functions that were not reached')
from pg_proc p
join pg_language l on l.oid = p.prolang
where p.pronamespace in ('chat'::regnamespace, 'realtime'::regnamespace)
  and l.lanname = 'plpgsql'
  and current_setting('is_superuser') = 'on'
  and not exists (select from pg_stat_xact_user_functions f where f.funcid = p.oid);

rollback;
