-- Sending messages: text, numbers, retries, and the sender.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true), set_config('tests.other', tests.conversation('ana', 'ada')::text, true);
create function tests.c() returns uuid language sql stable as $$ select current_setting('tests.c')::uuid $$;

-- Only characters with the property White_Space are trimmed. A text without visible characters is
-- empty.
select tests.act_as('ana');
select message_id as m from chat.send_message(tests.c(), U&'\3000\00A0 hi \200B\2003') \gset
select tests.equals(content, U&'hi \200B', 'trimmed') from public.user_messages where id = :'m';
select tests.expect_error(format('select chat.send_message(tests.c(), %L)', blank), 'message_empty')
from unnest(array['', ' ', E'\t\n', U&'\00A0', U&'\00AD', U&'\034F', U&'\061C', U&'\115F\1160', U&'\17B4\17B5', U&'\180B\180E',
  U&'\200B\200F', U&'\202A\202E', U&'\2060\206F', U&'\2800', U&'\3164', U&'\FE00\FE0F', U&'\FEFF', U&'\FFA0', U&'\2028 \200B \FEFF']) blank;
select tests.expect_error($$select chat.send_message(tests.c(), null)$$, 'message_empty');
select tests.expect_error($$insert into public.user_messages (conversation_id, content) values (tests.c(), U&'\200B')$$, 'message_empty');
select tests.expect_error($$select chat.send_message(tests.c(), '', 'image')$$, 'message_empty');

-- The length is the number of code points after trimming.
select chat.send_message(tests.c(), repeat('é', 4000) || '   ');
select tests.expect_error($$select chat.send_message(tests.c(), repeat('x', 4001))$$, 'message_too_long');
select tests.expect_error($$select chat.send_message(tests.c(), repeat('x', 20001))$$, 'message_too_long');
select tests.expect_error($$insert into public.user_messages (conversation_id, content) values (tests.c(), repeat('x', 4001))$$, 'message_too_long');

-- The other fields of a message.
select tests.expect_error($$select chat.send_message(tests.c(), 'x', 'system')$$, 'validation_failed');
select tests.expect_error($$select chat.send_message(tests.c(), 'x', 'poem')$$, 'validation_failed');
select tests.expect_error($$select chat.send_message(tests.c(), 'x', metadata => '[]')$$, 'validation_failed');
select tests.expect_error($$select chat.send_message(tests.c(), 'x', metadata => jsonb_build_object('k', repeat('x', 9000)))$$, 'validation_failed');
select tests.expect_error($$select chat.send_message(tests.c(), 'x', client_message_id => '')$$, 'validation_failed');
select tests.expect_error($$select chat.send_message(tests.c(), 'x', client_message_id => repeat('x', 65))$$, 'validation_failed');
select tests.expect_error($$select chat.send_message(tests.c(), 'x', mentions => array[tests.id('zoe')])$$, 'validation_failed');
select tests.equals(mentions, array[tests.id('ben')], 'each mention once')
from public.user_messages
where id = (select message_id from chat.send_message(tests.c(), 'x', mentions => array[tests.id('ben'), tests.id('ben')]));

-- A file's address must be inside the configured storage.
select tests.expect_error($$select chat.send_message(tests.c(), '', 'image', file_url => 'https://files.example/a.png')$$, 'validation_failed');
select tests.act_as('owner');
update chat.config set value = '"https://files.example/chat"' where key = 'storage_url';
select tests.act_as('ana');
select message_id as attached from chat.send_message(tests.c(), '', 'image', file_url => 'https://files.example/chat/a.png') \gset
select tests.expect_error(format(statement, url), 'validation_failed')
from unnest(array[
  'select chat.send_message(tests.c(), '''', ''image'', file_url => %L)',
  'insert into public.user_messages (conversation_id, message_type, file_url) values (tests.c(), ''image'', %L)'
]) statement
cross join unnest(
  array[
    'https://files.example/chatter/a.png', 'https://files.example/chat', 'https://files.example/chat@evil.example/', 'https://evil.example/',
    'HTTPS://FILES.EXAMPLE/CHAT/a.png', ' https://files.example/chat/a.png', E'\thttps://files.example/chat/a.png', 'javascript:alert(1)'
  ]
  || array(
    select 'https://files.example/chat/' || path
    from unnest(array[
      -- Segments that leave the folder or stay in it, however they are written.
      '..', '../secret', 'a/../../secret', 'a/..', '.', './a.png', 'a/.', 'a/./b', '%2e%2E/secret', '%2E./secret', '.%2e/secret', '%2e/a.png', 'a/%2E',
      -- The end of the path.
      '..?x', '..#x', '.?x', '%2e%2e#x', 'a/..?/b', 'a/..#/b',
      -- Characters that browsers remove or replace.
      E'.\t./.\t./secret', E'.\n./secret', E'.\r./secret', E'..\t/secret', E'%2\te./secret', E'a\t.png', E'a.png\n', '.. ', 'a b.png', E'\u007fa', U&'\00A0', U&'\00FC.png', U&'\FF0E\FF0E/secret',
      '..\secret', 'a\..\secret', 'a\b.png',
      -- Slashes that a server may decode.
      '..%2fsecret', '..%2Fsecret', 'a%2f..%2f..%2fsecret', '%2e%2e%5csecret', 'a%5C..', '%2f../secret'
    ]) path
  )
) url;
-- Addresses as storage clients send them: encoded names, names with dots, tokens.
select tests.equals(m.file_url, 'https://files.example/chat/' || path, 'accepted')
from unnest(array[
  '', 'a.png', 'Bericht%20M%C3%A4rz%20(2).pdf', '%E4%BC%9A%E8%AD%B0.png', 'a/b/c.png', 'a//b.png', '..a', 'a..', 'a..b/...', '.hidden/..x/x..', '%2e%2ea', 'a%2e%2e',
  'a%2fb.png', '100%25.png', '%252e%252e/a', 'sign/a.png?token=eyJ.x-y_z&download=a%20b.png', 'a.png?path=/../x#/../y', 'a;v=1,2+3~*!$&''()=:@', '{1}|[2]^`"<>'
]) path
cross join lateral chat.send_message(tests.c(), '', 'image', file_url => 'https://files.example/chat/' || path) sent
join public.user_messages m on m.id = sent.message_id;
-- A row whose address or mentions are no longer accepted can still be edited.
select message_id as mentioning from chat.send_message(tests.c(), 'x', mentions => array[tests.id('ben')]) \gset
select tests.act_as('owner');
update chat.config set value = '"https://elsewhere.example"' where key = 'storage_url';
update public.user_conversation_members set left_at = now() where conversation_id = tests.c() and user_id = tests.id('ben');
select tests.act_as('ana');
update public.user_messages set content = 'edited', metadata = '{"k": 1}' where id in (:'attached', :'mentioning');
select tests.equals(count(*), 2::bigint, 'edited') from public.user_messages where content = 'edited';
select tests.act_as('owner');
update public.user_conversation_members set left_at = null where conversation_id = tests.c() and user_id = tests.id('ben');
select tests.act_as('ana');

-- A reply must be in the same conversation.
select message_id as elsewhere from chat.send_message(current_setting('tests.other')::uuid, 'elsewhere') \gset
select tests.expect_error(format('select chat.send_message(tests.c(), ''x'', reply_to_id => %L)', :'elsewhere'), 'validation_failed');
select tests.equals(reply_to_id, :'m'::uuid, 'reply')
from public.user_messages where id = (select message_id from chat.send_message(tests.c(), 'x', reply_to_id => :'m'));
select tests.act_as('service_role');
select tests.expect_error(format('insert into public.user_messages (conversation_id, content, reply_to_id) values (tests.c(), ''x'', %L)', :'elsewhere'), 'user_messages_reply_is_in_same_conversation');

-- A repeated client_message_id returns the same message.
select tests.act_as('ana');
select message_id as first from chat.send_message(tests.c(), 'once', client_message_id => 'k', request_hash => 'h') \gset
select tests.equals((message_id, created)::text, format('(%s,f)', :'first'), 'replay') from chat.send_message(tests.c(), 'once', client_message_id => 'k', request_hash => 'h');
select tests.expect_error($$select chat.send_message(tests.c(), 'twice', client_message_id => 'k', request_hash => 'i')$$, 'client_message_id_conflict');
select chat.edit_message(:'first', 'changed since');
select tests.equals((message_id, created)::text, format('(%s,f)', :'first'), 'replay after an edit') from chat.send_message(tests.c(), 'once', client_message_id => 'k', request_hash => 'h');
select chat.delete_message(:'first');
select tests.equals((message_id, created)::text, format('(%s,f)', :'first'), 'replay after a deletion') from chat.send_message(tests.c(), 'once', client_message_id => 'k', request_hash => 'h');
select tests.equals(created, true, 'another conversation, another message') from chat.send_message(current_setting('tests.other')::uuid, 'once', client_message_id => 'k', request_hash => 'h');
select tests.act_as('ben');
select tests.equals(created, true, 'another sender, another message') from chat.send_message(tests.c(), 'once', client_message_id => 'k', request_hash => 'h');
select tests.act_as('ana');
select tests.expect_error($$insert into public.user_messages (conversation_id, content, client_message_id) values (tests.c(), 'once', 'k')$$, 'user_messages_client_message_id_key');

-- A message dropped as a duplicate leaves no gap and changes no counter.
select last_seq as seq_before, rev as rev_before from public.user_conversations where id = tests.c() \gset
insert into public.user_messages (conversation_id, content, client_message_id)
select tests.c(), 'bulk', n from unnest(array['k', 'n1', 'k', 'n2', 'n1', 'n3']) n
on conflict do nothing;
select tests.equals((last_seq - :seq_before, rev - :rev_before)::text, '(3,3)', 'counters') from public.user_conversations where id = tests.c();
select tests.equals(count(*), max(seq), 'no gaps in seq') from public.user_messages where conversation_id = tests.c();
select tests.act_as('owner');
select tests.equals(m.unread_count, (select unread from chat.count_unread(tests.c(), m.user_id, 0, 1000)), 'unread agrees with the messages')
from public.user_conversation_members m where m.conversation_id = tests.c();

-- The times of messages have the same order as seq.
select tests.equals(count(*), 0::bigint, 'times that do not rise')
from (select created_at, lag(created_at) over (order by seq) as earlier from public.user_messages where conversation_id = tests.c()) m
where created_at <= earlier;
update public.user_conversations set last_message_at = now() + interval '1 hour' where id = tests.c();
select tests.act_as('ana');
select tests.holds(m.created_at > now() + interval '59 minutes', 'a clock that went back does not change the order')
from public.user_messages m where m.id = (select message_id from chat.send_message(tests.c(), 'later'));

-- In a direct insert, the sender is the caller, and the client's values are ignored in columns that
-- the server sets.
insert into public.user_messages (conversation_id, content) values (tests.c(), 'plain') returning id as plain \gset
select tests.equals((sender_id, is_edited, is_deleted, read_by)::text, (tests.id('ana'), false, false, '{}'::uuid[])::text, 'plain insert') from public.user_messages where id = :'plain';
select tests.expect_error($$insert into public.user_messages (conversation_id, sender_id, content) values (tests.c(), tests.id('ben'), 'x')$$, 'identity_mismatch');
select tests.act_as('zoe');
select tests.expect_error($$insert into public.user_messages (conversation_id, content) values (tests.c(), 'x')$$, 'not_found');
select tests.expect_error($$select chat.send_message(tests.c(), 'x')$$, 'not_found');
select tests.expect_error($$select chat.send_message(gen_random_uuid(), 'x')$$, 'not_found');

-- Sending a message clears the draft, shows a cleared conversation again, and unarchives the
-- conversation.
select tests.act_as('ben');
select chat.set_conversation_settings(tests.c(), '{"is_archived": true, "draft": "still"}'), chat.clear_conversation(tests.c());
select tests.act_as('ana');
select chat.set_conversation_settings(tests.c(), '{"draft": "gone soon"}');
select chat.send_message(tests.c(), 'back again');
select tests.equals(count(*), 0::bigint, 'drafts') from public.message_drafts;
select tests.act_as('ben');
select tests.equals((is_archived, hidden, unread_count)::text, '(f,f,1)', 'in the list again') from public.user_conversation_members where conversation_id = tests.c();

set constraints all immediate;
rollback;
