-- The planner reveals nothing about the content of rows that a user may not see.

begin;
\ir support.sql

select tests.conversation('ana', 'ben') as c \gset
insert into public.user_messages (conversation_id, sender_id, content, file_name, client_message_id)
select :'c', tests.id('ana'), case when n % 3 = 0 then 'the secret plan' else 'word ' || n end, case when n % 3 = 0 then 'secret.pdf' end,
  'device-' || n
from generate_series(1, 3000) n;
insert into public.message_edits (message_id, conversation_id, version, previous_content) select m.id, m.conversation_id, 1, m.content from public.user_messages m;
insert into public.message_reactions (id, message_id, conversation_id, user_id, reaction, emoji)
select gen_random_uuid(), m.id, m.conversation_id, m.sender_id, left(m.content, 10), left(m.content, 10) from public.user_messages m;
insert into realtime.messages (topic, extension, event) select m.content, 'broadcast', m.content from public.user_messages m;
analyze public.user_messages, public.message_edits, public.message_reactions, realtime.messages;

create function tests.estimate(statement text) returns text language plpgsql as $$
declare
  plan json;
begin
  execute 'explain (format json) ' || statement into plan;
  return plan -> 0 -> 'Plan' ->> 'Plan Rows';
end
$$;

create table tests.columns (table_name text, column_name text);
insert into tests.columns values
  ('public.user_messages', 'content'), ('public.user_messages', 'file_name'), ('public.user_messages', 'client_message_id'),
  ('public.message_edits', 'previous_content'), ('public.message_reactions', 'reaction'),
  ('realtime.messages', 'topic'), ('realtime.messages', 'event');
grant select on tests.columns to public;

select tests.act_as('zoe');
select tests.equals(
  tests.estimate(format('select from %s where %s %s %L', c.table_name, c.column_name, o.operator, o.frequent)),
  tests.estimate(format('select from %s where %s %s %L', c.table_name, c.column_name, o.operator, o.absent)),
  format('%s.%s %s', c.table_name, c.column_name, o.operator))
from tests.columns c,
  (values
    ('=', 'the secret plan', 'another text'), ('=', 'secret.pdf', 'another.pdf'), ('=', 'the secret', 'a reaction'),
    ('like', 'the secret%', 'another te%'), ('^@', 'the s', 'anoth'), ('^@', 'device-1', 'device-x'), ('<', 'the secret plan', 'a'), ('>=', 'secret', 'zzz')
  ) o (operator, frequent, absent);

rollback;
