-- An import is one statement with many messages. Its cost per message must be about the same as
-- that of a statement with fewer messages.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);

create function tests.insert_messages(many int)
returns interval
language plpgsql
as $$
declare
  began constant timestamptz := clock_timestamp();
begin
  insert into public.user_messages (conversation_id, sender_id, content)
  select current_setting('tests.c')::uuid, tests.id('ana'), 'message ' || n from generate_series(1, many) n;
  return clock_timestamp() - began;
end
$$;

-- The limit of 30 times is generous, because machines differ. Linear cost would be 10 times as
-- high, and quadratic cost 100 times.
select tests.insert_messages(1000) as few \gset
select tests.insert_messages(10000) as many \gset
select tests.holds(:'many'::interval < :'few'::interval * 30, format('10,000 took %s, 1,000 took %s', :'many', :'few'));

select tests.equals((count(*), max(seq), max(rev), count(distinct seq))::text, '(11000,11000,11000,11000)', 'numbers') from public.user_messages;
select tests.equals((last_seq, rev)::text, '(11000,11000)', 'counters') from public.user_conversations;
select tests.equals(string_agg(unread_count::text, ',' order by unread_count), '0,11000', 'unread') from public.user_conversation_members;
-- A statement creates one version of a row, instead of one per message.
select tests.holds(pg_relation_size('public.user_conversation_members') < 100 * 8192, 'the members'' table stays small');

-- Deleting many messages is also a single statement.
update public.user_messages set is_deleted = true where seq > 1000;
select tests.equals((last_seq, rev)::text, '(11000,21000)', 'counters after deleting') from public.user_conversations;
select tests.equals(max(unread_count), 1000, 'unread after deleting') from public.user_conversation_members;

-- Messages of several conversations in one statement.
insert into public.user_conversations (participant_1_id, participant_2_id) values (tests.id('ana'), tests.id('ada')), (tests.id('ben'), tests.id('ada'));
insert into public.user_messages (conversation_id, sender_id, content)
select c.id, tests.id('ada'), 'to all' from public.user_conversations c, generate_series(1, 3) where tests.id('ada') in (c.participant_1_id, c.participant_2_id) order by c.id;
select tests.equals(count(*), 2::bigint, 'each conversation has its own counters') from public.user_conversations where last_seq = 3 and rev = 3;

rollback;
