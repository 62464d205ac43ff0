-- The private channels of the chat, and which users may join them, appear in presence, and send.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
-- An application with permissive policies on its own topics.
create policy "everybody everywhere" on realtime.messages for all to authenticated, anon using (true) with check (true);

-- Checks permissions as the Realtime server does, with a row that only this transaction sees.
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
-- For its own topics, the application's policies apply.
values ('zoe', 'room:1', 'write', 'broadcast', true), ('zoe', 'conversation:1', 'read', 'broadcast', true), ('anon', 'user:x', 'read', 'broadcast', true);

select tests.equals(tests.may(t.actor, t.topic, t.what, t.extension), t.expected, format('%s %s %s %s', t.actor, t.what, t.extension, t.topic)) from tests.topics t;

-- An id in another spelling does not yield a topic of a user.
select tests.equals(
  array[
    tests.may('ana', upper(tests.id('ana')::text), 'read', 'broadcast'),
    tests.may('ana', 'user:' || upper(tests.id('ana')::text), 'read', 'broadcast'),
    tests.may('ana', 'conversation:' || upper(current_setting('tests.c')), 'read', 'presence'),
    tests.may('ana', 'conversation:' || upper(current_setting('tests.c')), 'write', 'presence')
  ],
  array[true, false, false, false],
  'spelling');

-- The policies check the topic of the row itself, whatever the setting contains. A user who may run
-- SQL can set the setting to a topic that they may use.
create role tests_custom_role nologin;
grant tests_custom_role to current_user;
grant usage on schema realtime, tests to tests_custom_role;
grant select, insert, update on realtime.messages to tests_custom_role;
insert into realtime.messages (topic, extension, event, payload, private)
select t.topic, 'broadcast', 'stored', '{"secret": true}', true
from (values ('conversation:' || current_setting('tests.c')), ('user:' || tests.id('ana')), ('user:' || tests.id('zoe')), ('room:1')) t (topic);

create function tests.attempt_with(actor text, setting text, statement text) returns text language plpgsql as $$
declare
  outcome text;
begin
  if actor = 'tests_custom_role' then
    perform set_config('role', actor, true);
  else
    perform tests.act_as(actor);
  end if;
  perform set_config('realtime.topic', setting, true);
  outcome := tests.attempt(statement);
  perform set_config('realtime.topic', '', true);
  perform tests.act_as('owner');
  return outcome;
end
$$;

-- The application's policy "everybody everywhere" above would allow all of this.
create table tests.forgeries (actor text, setting text, topic text, extension text, inserted text, seen text, rewritten text);
insert into tests.forgeries
select f.actor, replace(f.setting, '$c', current_setting('tests.c')), replace(replace(f.topic, '$c', current_setting('tests.c')), '$zoe', tests.id('zoe')::text),
  f.extension, f.inserted, f.seen, f.rewritten
from (values
  -- The topic is the one in the setting.
  ('ana', 'conversation:$c', 'conversation:$c', 'broadcast', 'refused', '1', '0'),
  ('ana', 'conversation:$c', 'conversation:$c', 'presence', '1', '1', '0'),
  ('ana', 'room:1', 'room:1', 'broadcast', '1', '1', '1'),
  -- The topic differs from the one in the setting.
  ('ana', 'conversation:$c', 'user:$zoe', 'presence', 'refused', '0', '0'),
  ('ana', 'conversation:$c', 'user:$zoe', 'broadcast', 'refused', '0', '0'),
  ('ana', 'conversation:$c', 'room:1', 'presence', 'refused', '0', '0'),
  ('ana', 'room:1', 'conversation:$c', 'broadcast', 'refused', '0', '0'),
  ('ana', 'room:1', 'conversation:$c', 'presence', 'refused', '0', '0'),
  ('ana', 'room:1', 'user:$zoe', 'broadcast', 'refused', '0', '0'),
  ('ana', 'room:2', 'room:1', 'broadcast', 'refused', '0', '0'),
  ('zoe', 'user:$zoe', 'conversation:$c', 'broadcast', 'refused', '0', '0'),
  ('anon', 'room:1', 'conversation:$c', 'broadcast', 'refused', '0', '0'),
  ('anon', 'room:1', 'room:1', 'broadcast', '1', '1', '1'),
  -- Without the setting, the application's policies apply to its own topics.
  ('ana', '', 'room:1', 'broadcast', '1', '1', '1'),
  ('ana', '', 'conversation:$c', 'broadcast', 'refused', '1', '0'),
  ('ana', '', 'user:$zoe', 'presence', 'refused', '0', '0'),
  ('zoe', '', 'conversation:$c', 'broadcast', 'refused', '0', '0'),
  ('anon', '', 'user:$zoe', 'broadcast', 'refused', '0', '0'),
  -- A role of the application, to which the application's policy for all roles applies.
  ('tests_custom_role', '', 'conversation:$c', 'broadcast', 'refused', '0', '0'),
  ('tests_custom_role', 'conversation:$c', 'conversation:$c', 'presence', 'refused', '0', '0'),
  ('tests_custom_role', '', 'room:1', 'broadcast', '1', '1', '1'),
  ('service_role', 'room:1', 'conversation:$c', 'broadcast', '1', '1', '1')
) f (actor, setting, topic, extension, inserted, seen, rewritten);
update tests.forgeries set setting = replace(setting, '$zoe', tests.id('zoe')::text);
drop policy "everybody everywhere" on realtime.messages;
create policy "everybody everywhere" on realtime.messages for all to public using (true) with check (true);

select tests.equals(
  array[
    tests.attempt_with(f.actor, f.setting, format('insert into realtime.messages (topic, extension, event, payload, private) values (%L, %L, %L, %L, true)', f.topic, f.extension, 'e', '{}')),
    tests.attempt_with(f.actor, f.setting, format('select from realtime.messages where topic = %L', f.topic)),
    tests.attempt_with(f.actor, f.setting, format('update realtime.messages set event = %L where topic = %L', 'rewritten', f.topic))
  ],
  array[f.inserted, f.seen, f.rewritten],
  format('%s with %s on %s, %s', f.actor, f.setting, f.topic, f.extension))
from tests.forgeries f;
-- A message of the application cannot be moved to a topic of the chat, where it would be replayed.
select tests.equals(tests.attempt_with('ana', '', format('update realtime.messages set topic = %L where topic = %L', 'user:' || tests.id('zoe'), 'room:1')), 'refused', 'moved');
delete from realtime.messages;

-- Presence is only for users who may write.
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

-- Broadcasts from the database are stored in the partition of their day, with an id.
select tests.act_as('owner');
select realtime.send('{"a": 1}', 'e', 'room:1');
select realtime.send_binary('\x00ff', 'e', 'room:1');
select realtime.broadcast_changes('room:1', 'INSERT', 'INSERT', 't', 's', row(1, 2), null);
select tests.equals(count(*), 3::bigint, 'sent') from realtime.messages where topic = 'room:1' and private;
select tests.equals(payload ->> 'id', id::text, 'id') from realtime.messages where payload ? 'a';
select tests.holds(tableoid <> 'realtime.messages_default'::regclass, 'partition of the day') from realtime.messages where payload ? 'a';
select tests.expect_error($$select realtime.broadcast_changes('t', 'e', 'TRUNCATE', 't', 's', null, null)$$, 'P0001');

-- On a day without a partition, nothing is lost. The rows move when the partition is created.
insert into realtime.messages (topic, extension, inserted_at) values ('far', 'broadcast', current_date + 40);
select tests.equals(tableoid, 'realtime.messages_default'::regclass::oid, 'far ahead') from realtime.messages where topic = 'far';
select tests.equals(chat.maintain_message_partitions(40, 3), 10, 'made');
select tests.holds(tableoid <> 'realtime.messages_default'::regclass, 'moved') from realtime.messages where topic = 'far';
select tests.equals(chat.maintain_message_partitions(40, 3), 0, 'created again');

-- A day with many rows gets no partition, because moving them would keep the table locked.
insert into realtime.messages (topic, extension, inserted_at) select 'many', 'broadcast', current_date + 41 from generate_series(1, 1001);
select tests.equals(chat.maintain_message_partitions(42, 3), 1, 'made beside them');
select tests.equals(count(*), 1001::bigint, 'still there') from only realtime.messages_default where topic = 'many';

-- Users can date their rows at most about a minute before or after the present.
select tests.act_as('owner');
drop policy if exists "everybody everywhere" on realtime.messages;
delete from public.user_blocks;
select tests.act_as('ana');
select set_config('realtime.topic', '', true);
insert into realtime.messages (topic, extension, inserted_at)
select 'conversation:' || current_setting('tests.c'), 'presence', now() at time zone 'utc' + ahead
from unnest(array[interval '0', '59 seconds', '-59 seconds']) ahead;
select tests.expect_error(
  format($$insert into realtime.messages (topic, extension, inserted_at) values (%L, 'presence', %L)$$, 'conversation:' || current_setting('tests.c'), at),
  '42501')
from unnest(array[now() at time zone 'utc' + interval '2 minutes', now() at time zone 'utc' - interval '2 minutes', 'infinity', '-infinity', '4000-01-01']) at;
-- The application's policies do not change this.
select tests.act_as('owner');
create policy "everything" on realtime.messages for insert to authenticated with check (true);
select tests.act_as('ana');
select tests.expect_error(
  format($$insert into realtime.messages (topic, extension, inserted_at) values (%L, 'presence', '4000-01-01')$$, 'conversation:' || current_setting('tests.c')),
  '42501');

rollback;
