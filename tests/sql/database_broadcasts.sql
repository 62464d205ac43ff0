-- Broadcasts from the database. The functions of schema realtime must work for their callers.

begin;
\ir support.sql

-- Owners and rights are as on Supabase, and the functions run as their caller. Since PostgreSQL 16,
-- an installer that is not a superuser may not give objects away and keeps them.
create function tests.is_owner(owner oid) returns boolean language sql stable as $$
  select pg_get_userbyid(owner) = 'supabase_realtime_admin'
    or (pg_get_userbyid(owner) = session_user and current_setting('is_superuser') = 'off')
$$;
select tests.holds(tests.is_owner(c.relowner), 'owner of the table')
from pg_class c where c.oid = 'realtime.messages'::regclass;
select tests.holds(tests.is_owner(c.relowner), 'owner of ' || c.relname)
from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'realtime.messages'::regclass;
select tests.holds(c.relrowsecurity, 'row-level security of ' || c.relname)
from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'realtime.messages'::regclass;
select tests.holds(tests.is_owner(p.proowner), 'owner of ' || p.proname)
from pg_proc p where p.pronamespace = 'realtime'::regnamespace;
select tests.holds(not p.prosecdef, p.proname || ' runs as its caller')
from pg_proc p where p.pronamespace = 'realtime'::regnamespace;
select tests.holds(has_function_privilege(r.role, p.oid, 'execute'), r.role || ' may call ' || p.proname)
from pg_proc p, (values ('anon'), ('authenticated'), ('service_role')) r (role) where p.pronamespace = 'realtime'::regnamespace;
select tests.equals(has_table_privilege(r.role, 'realtime.messages', g.privilege), g.privilege <> 'DELETE', r.role || ' ' || g.privilege)
from (values ('anon'), ('authenticated'), ('service_role')) r (role), (values ('SELECT'), ('INSERT'), ('DELETE')) g (privilege);
-- UPDATE is granted per column, because on the whole table it would include "lock table". The
-- server is trusted.
select tests.equals(has_table_privilege(r.role, 'realtime.messages', 'UPDATE'), r.role = 'service_role', r.role || ' UPDATE')
from (values ('anon'), ('authenticated'), ('service_role')) r (role);
select tests.holds(has_column_privilege(r.role, 'realtime.messages', a.attnum, 'UPDATE'), r.role || ' UPDATE ' || a.attname)
from (values ('anon'), ('authenticated'), ('service_role')) r (role), pg_attribute a
where a.attrelid = 'realtime.messages'::regclass and a.attnum > 0 and not a.attisdropped;

-- The publication equals Supabase's own. It contains the whole table and nothing else.
select tests.equals(array_agg(r.prrelid::regclass::text), array['realtime.messages'], 'published')
from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where p.pubname = 'supabase_realtime_messages_publication';

-- An object as payload gets an id unless it has one. Any other payload is sent unchanged.
select realtime.send(p.payload, p.event, 'shapes', false)
from (values
  ('{"a": 1}'::jsonb, 'object'), ('{"a": 1, "id": 7}', 'with id'), ('[1, 2]', 'array'), ('"text"', 'text'), ('5', 'number'), (null, 'null')
) p (payload, event);
select tests.equals(m.payload - 'id', '{"a": 1}', 'object') from realtime.messages m where m.event = 'object';
select tests.equals(m.payload ->> 'id', m.id::text, 'id') from realtime.messages m where m.event = 'object';
select tests.equals(m.payload, '{"a": 1, "id": 7}', 'the payload''s own id') from realtime.messages m where m.event = 'with id';
select tests.equals(m.payload, v.payload, v.event)
from (values ('[1, 2]'::jsonb, 'array'), ('"text"', 'text'), ('5', 'number'), (null, 'null')) v (payload, event)
join realtime.messages m on m.event = v.event;
select tests.equals(count(*), 6::bigint, 'all messages are stored') from realtime.messages m where m.topic = 'shapes' and m.extension = 'broadcast' and not m.private;

select realtime.send_binary('\x00ff', 'bytes', 'room:2');
select tests.equals(m.binary_payload, '\x00ff'::bytea, 'bytes') from realtime.messages m where m.event = 'bytes' and m.payload is null and m.private;
select tests.expect_error($$insert into realtime.messages (topic, extension, payload, binary_payload) values ('t', 'broadcast', '1', '\x00')$$, '23514');

-- Policies that check the topic through a function that relies on the caller's search path.
create table public.rooms (name text primary key);
insert into public.rooms values ('room:open');
create function public.room_exists(name text) returns boolean language plpgsql stable as $$
begin
  return exists (select from rooms r where r.name = room_exists.name);
end
$$;
grant select on public.rooms to authenticated;
create policy "people send to rooms" on realtime.messages for insert to authenticated
  with check (extension = 'broadcast' and public.room_exists(realtime.topic()));

create table public.things (id int primary key, title text, topic text);
grant all on public.things to authenticated;
create function public.tell_of_things() returns trigger language plpgsql as $$
begin
  perform realtime.broadcast_changes(coalesce(new.topic, old.topic), tg_op, tg_op, tg_table_name, tg_table_schema, new, old, tg_level);
  return null;
end
$$;
create trigger tell after insert or update or delete on public.things for each row execute function public.tell_of_things();

select tests.act_as('ana');
insert into public.things values (1, 'one', 'room:open');
update public.things set title = 'two' where id = 1;
delete from public.things where id = 1;
-- If the policy refuses the broadcast, the change itself is still written, and only a warning
-- reports the refusal.
insert into public.things values (2, 'two', 'room:closed');
select tests.equals(realtime.topic(), 'room:open', 'the topic of the last broadcast');
select tests.act_as('owner');
select tests.equals(count(*), 1::bigint, 'the refused broadcast rolled nothing back') from public.things where id = 2;
select tests.equals(count(*), 0::bigint, 'refused') from realtime.messages where topic = 'room:closed';
select tests.equals(m.payload - 'id', v.payload, v.event)
from (values
  ('INSERT', '{"old_record": null, "record": {"id": 1, "title": "one", "topic": "room:open"}, "operation": "INSERT", "table": "things", "schema": "public"}'::jsonb),
  ('UPDATE', '{"old_record": {"id": 1, "title": "one", "topic": "room:open"}, "record": {"id": 1, "title": "two", "topic": "room:open"}, "operation": "UPDATE", "table": "things", "schema": "public"}'),
  ('DELETE', '{"old_record": {"id": 1, "title": "two", "topic": "room:open"}, "record": null, "operation": "DELETE", "table": "things", "schema": "public"}')
) v (event, payload)
left join realtime.messages m on m.topic = 'room:open' and m.event = v.event and m.private;

-- A statement trigger and an unknown operation are mistakes of the caller and roll back.
create function tests.fault(statement text) returns text language plpgsql as $$
begin
  execute statement;
  return null;
exception when others then
  return sqlerrm;
end
$$;
select tests.equals(
  tests.fault($$select realtime.broadcast_changes('t', 'e', 'INSERT', 't', 's', null, null, 'STATEMENT')$$),
  'Failed to process the row: function can only be triggered for each row, not for each statement', 'statement trigger');
select tests.equals(tests.fault(format($$select realtime.broadcast_changes('t', 'e', %L, 't', 's', null, null)$$, v.operation)), v.fault, 'operation')
from (values ('TRUNCATE', 'Failed to process the row: Unexpected operation type: TRUNCATE'), (null, 'Failed to process the row: Unexpected operation type: <NULL>')) v (operation, fault);

-- Old messages are removed, also from the default partition, and so are messages dated after the
-- last partition.
insert into realtime.messages (topic, extension, inserted_at)
values ('old', 'broadcast', current_date - 100), ('new', 'broadcast', current_date + 2), ('future', 'broadcast', current_date + 100),
  ('never', 'broadcast', 'infinity'), ('ever', 'broadcast', '-infinity');
select chat.maintain_message_partitions(3, 3);
select tests.equals(array_agg(m.topic), array['new'], 'kept') from realtime.messages m
where m.topic in ('old', 'new', 'future', 'never', 'ever');

rollback;
