-- The private channels of the chat: who may listen, show themselves, send.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
-- a host that is generous with its own topics
create policy "everybody everywhere" on realtime.messages for all to authenticated, anon using (true) with check (true);

-- as the realtime server asks: a row that only this transaction knows
create function tests.may(actor text, topic text, what text, extension text)
returns boolean
language plpgsql
as $$
declare
  probe constant uuid := gen_random_uuid();
  allowed boolean;
begin
  begin
    perform tests.act_as('owner');
    if what = 'read' then
      insert into realtime.messages (id, topic, extension) values (probe, may.topic, may.extension);
    end if;
    perform tests.act_as(actor);
    perform set_config('realtime.topic', may.topic, true);
    if what = 'read' then
      allowed := exists (select from realtime.messages m where m.id = probe);
    else
      insert into realtime.messages (id, topic, extension) values (probe, may.topic, may.extension);
      allowed := true;
    end if;
    raise exception using errcode = 'TS000';
  exception
    when sqlstate 'TS000' then null;
    when insufficient_privilege then allowed := false;
  end;
  perform tests.act_as('owner');
  return allowed;
end
$$;

create table tests.topics (actor text, topic text, what text, extension text, expected boolean);
insert into tests.topics
select actor, 'conversation:' || current_setting('tests.c'), what, extension, expected
from (values
  ('ana', 'read', 'broadcast', true), ('ana', 'read', 'presence', true), ('ana', 'write', 'presence', true), ('ana', 'write', 'broadcast', false),
  ('ben', 'read', 'broadcast', true), ('ben', 'write', 'presence', true), ('ben', 'write', 'broadcast', false),
  ('zoe', 'read', 'broadcast', false), ('zoe', 'read', 'presence', false), ('zoe', 'write', 'presence', false), ('zoe', 'write', 'broadcast', false),
  ('sue', 'read', 'broadcast', false), ('anon', 'read', 'broadcast', false), ('anon', 'write', 'presence', false), ('anon', 'write', 'broadcast', false),
  ('service_role', 'read', 'broadcast', true), ('service_role', 'write', 'broadcast', true)
) v (actor, what, extension, expected)
union all
select actor, 'user:' || tests.id('ana'), what, extension, expected
from (values
  ('ana', 'read', 'broadcast', true), ('ana', 'write', 'broadcast', false), ('ben', 'read', 'broadcast', false), ('ben', 'write', 'broadcast', false), ('anon', 'read', 'broadcast', false)
) v (actor, what, extension, expected)
union all
-- topics of the host are the host's affair
values ('zoe', 'room:1', 'write', 'broadcast', true), ('zoe', 'conversation:1', 'read', 'broadcast', true), ('anon', 'user:x', 'read', 'broadcast', true);

select tests.equals(tests.may(t.actor, t.topic, t.what, t.extension), t.expected, format('%s %s %s %s', t.actor, t.what, t.extension, t.topic)) from tests.topics t;

-- what somebody shows of themselves is for those they may write to
select tests.act_as('ana');
select chat.block(tests.id('ben'));
select tests.equals(
  array[
    tests.may('ben', 'conversation:' || current_setting('tests.c'), 'write', 'presence'),
    tests.may('ana', 'conversation:' || current_setting('tests.c'), 'write', 'presence'),
    tests.may('ben', 'conversation:' || current_setting('tests.c'), 'read', 'broadcast')
  ],
  array[false, false, true],
  'after a block');

-- what the database sends arrives in a partition of its day, with an id
select tests.act_as('owner');
select realtime.send('{"a": 1}', 'e', 'room:1');
select realtime.send_binary('\x00ff', 'e', 'room:1');
select realtime.broadcast_changes('room:1', 'INSERT', 'INSERT', 't', 's', row(1, 2), null);
select tests.equals(count(*), 3::bigint, 'sent') from realtime.messages where topic = 'room:1' and private;
select tests.equals(payload ->> 'id', id::text, 'id') from realtime.messages where payload ? 'a';
select tests.holds(tableoid <> 'realtime.messages_default'::regclass, 'partition of the day') from realtime.messages where payload ? 'a';
select tests.expect_error($$select realtime.broadcast_changes('t', 'e', 'TRUNCATE', 't', 's', null, null)$$, 'P0001');

-- a day without a partition loses nothing: its rows move when it gets one
insert into realtime.messages (topic, extension, inserted_at) values ('far', 'broadcast', current_date + 40);
select tests.equals(tableoid, 'realtime.messages_default'::regclass::oid, 'far ahead') from realtime.messages where topic = 'far';
select tests.equals(chat.maintain_message_partitions(40, 3), 10, 'made');
select tests.holds(tableoid <> 'realtime.messages_default'::regclass, 'moved') from realtime.messages where topic = 'far';
select tests.equals(chat.maintain_message_partitions(40, 3), 0, 'made again');

rollback;
