-- No response distinguishes a stranger from a user who does not exist.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
select tests.message('ana', current_setting('tests.c')::uuid, 'hello') as m \gset
-- Zoe and Dan are in another team. Dan also hides his presence, has blocked Ana, and is suspended.
select tests.add_person('dan', '00000000-0000-4000-8000-00000000007b');
update public.users set status = 'suspended' where id = tests.id('dan');
insert into public.user_notification_preferences (user_id, share_presence, share_typing) values (tests.id('dan'), false, false);
insert into public.user_presence (user_id, status) values (tests.id('zoe'), 'online'), (tests.id('dan'), 'online');
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('dan'), tests.id('ana'));

-- Returns everything that a client receives, which is either the rows or every field of the error.
create function tests.answer(statement text) returns text language plpgsql as $$
declare
  answer text;
  state text;
  message text;
  detail text;
  hint text;
  named text;
begin
  begin
    execute format('with asked as (%s) select coalesce(json_agg(asked)::text, %L) from asked', statement, 'none') into answer;
    raise exception using errcode = 'TS000';
  exception
    when sqlstate 'TS000' then
      return answer;
    when others then
      get stacked diagnostics state = returned_sqlstate, message = message_text, detail = pg_exception_detail, hint = pg_exception_hint, named = constraint_name;
      return concat_ws(' / ', state, message, detail, hint, named);
  end;
end
$$;

create table tests.questions (statement text);
insert into tests.questions values
  ('select chat.open_conversation($who)'),
  ('select public.get_or_create_conversation($who)'),
  ('select public.get_or_create_conversation(auth.uid(), $who)'),
  ('select public.get_or_create_conversation($who, auth.uid())'),
  ('select public.get_or_create_conversation($who, tests.id(''ben''))'),
  ('select chat.block($who)'),
  ('select chat.unblock($who)'),
  ('select chat.knows($who)'),
  ('select chat.blocked_people($who)'),
  ('select chat.may_be_seen_typing_to($who)'),
  ('select * from chat.presence_rows(array[$who])'),
  ('select * from chat.pages_of(array[$who])'),
  ('select * from chat.search_messages(senders => array[$who::text])'),
  ('select * from chat.search_people(''%'' || $who::text)'),
  ('select chat.may_listen(''user:'' || $who::text), chat.may_appear(''user:'' || $who::text)'),
  ('select chat.send_message(current_setting(''tests.c'')::uuid, ''x'', mentions => array[$who])'),
  ('insert into public.user_blocks (blocker_id, blocked_id) values (auth.uid(), $who) returning blocker_id'),
  ('insert into public.user_blocks (blocker_id, blocked_id) values (auth.uid(), $who) on conflict do nothing returning blocker_id'),
  ('insert into public.user_blocks (blocker_id, blocked_id) values ($who, auth.uid()) returning blocker_id'),
  ('delete from public.user_blocks where blocked_id = $who returning blocker_id'),
  ('insert into public.user_messages (conversation_id, content, mentions) values (current_setting(''tests.c'')::uuid, ''x'', array[$who]) returning content'),
  ('insert into public.user_messages (conversation_id, content, sender_id) values (current_setting(''tests.c'')::uuid, ''x'', $who) returning content'),
  ('insert into public.message_reactions (message_id, user_id, reaction) select m.id, $who, ''x'' from public.user_messages m returning reaction'),
  ('insert into public.user_presence (user_id, status) values ($who, ''online'') returning status'),
  ('insert into public.user_presence (user_id, status) values ($who, ''online'') on conflict (user_id) do update set status = excluded.status returning status'),
  ('update public.user_presence set status = ''online'' where user_id = $who returning status'),
  ('update public.user_presence set user_id = $who where user_id = auth.uid() returning status'),
  ('update public.user_presence set is_typing_to = $who where user_id = auth.uid() returning is_typing_to'),
  ('insert into public.user_presence (user_id, is_typing_to) values (auth.uid(), $who) on conflict (user_id) do update set is_typing_to = excluded.is_typing_to returning is_typing_to'),
  ('insert into public.user_notification_preferences (user_id) values ($who) returning email_mode'),
  ('update public.user_notification_preferences set user_id = $who returning email_mode'),
  ('select * from public.user_presence where user_id = $who'),
  ('select * from public.user_conversations where $who in (participant_1_id, participant_2_id)'),
  ('insert into realtime.messages (topic, extension) values (''user:'' || $who::text, ''presence'') returning topic');
grant select on tests.questions to public;

-- Every function that clients may call with a user id is checked above. The exceptions do not
-- accept the ids of arbitrary users.
select tests.equals(array_agg(p.oid::regprocedure::text order by 1), null, 'functions with a user id that are not checked')
from pg_proc p
where has_function_privilege('authenticated', p.oid, 'execute')
  and (p.pronamespace = 'chat'::regnamespace or (p.pronamespace = 'public'::regnamespace and p.prosrc like '%chat.%'))
  and array_to_string(p.proargnames[1:p.pronargs], ' ') ~ '(user|person|people|sender|member|other|mention)'
  and not exists (select from tests.questions q where q.statement ~ ('\m' || p.proname || '\('))
  -- These functions accept an id from a page of the caller's own rows or from the caller's own
  -- message, or use only their arguments.
  and p.proname not in ('member_page', 'contact_page', 'search_entries', 'search_keys');

create function tests.compare(actor text) returns void language plpgsql as $$
declare
  question text;
  nobody constant uuid := '00000000-0000-4000-8000-0000000000ff';
  stranger record;
  expected text;
  found text;
begin
  for question in select q.statement from tests.questions q loop
    perform tests.act_as(actor);
    expected := tests.answer(replace(question, '$who', quote_literal(nobody) || '::uuid'));
    for stranger in select p.name, p.id from tests.people p where p.name in ('zoe', 'dan') loop
      found := tests.answer(replace(question, '$who', quote_literal(stranger.id) || '::uuid'));
      perform tests.equals(replace(found, stranger.id::text, nobody::text), expected, format('%s of %s: %s', actor, stranger.name, question));
    end loop;
  end loop;
  perform tests.act_as('owner');
end
$$;

select tests.act_as('ana');
select chat.set_presence('online'), chat.preferences();
select tests.act_as('ada');
select chat.set_presence('online'), chat.preferences();
select tests.compare('ana'), tests.compare('ada');

-- If the id in a token is not a UUID, the response is the same whether or not a message exists.
create table tests.about_messages (statement text);
insert into tests.about_messages values
  ('select chat.react($message, ''x'')'),
  ('select chat.react($message, ''x'', false)'),
  ('insert into public.message_reactions (message_id, user_id, reaction) values ($message, tests.id(''ana''), ''x'') returning reaction'),
  ('select chat.pin_message($message)'),
  ('select chat.pin_message($message, false)'),
  ('select chat.edit_message($message, ''x'')'),
  ('select chat.delete_message($message)'),
  ('select chat.hide_message($message)'),
  ('select chat.report_message($message, ''spam'')'),
  ('select * from chat.mark_read_messages(array[$message])'),
  ('select chat.my_message($message)'),
  ('select * from chat.message_rows(array[$message])'),
  ('select chat.mark_read(current_setting(''tests.c'')::uuid, $message)'),
  ('select chat.mark_unread(current_setting(''tests.c'')::uuid, $message)'),
  ('select chat.mark_message_delivered(current_setting(''tests.c'')::uuid, $message)');
grant select on tests.about_messages to public;
create table tests.about_conversations (statement text);
insert into tests.about_conversations values
  ('select chat.is_my_conversation($conversation)'),
  ('select chat.can_send($conversation)'),
  ('select chat.send_message($conversation, ''x'')'),
  ('select chat.mark_read($conversation)'),
  ('select chat.mark_unread($conversation)'),
  ('select chat.mark_delivered($conversation, 1)'),
  ('select chat.clear_conversation($conversation)'),
  ('select chat.set_conversation_settings($conversation, ''{"is_pinned": true}'')'),
  ('select chat.set_typing($conversation, true)'),
  ('select * from chat.conversation_rows(array[$conversation])'),
  ('select * from chat.message_page($conversation)'),
  ('select * from chat.pin_page($conversation)');
grant select on tests.about_conversations to public;
select set_config('request.jwt.claims', '{"sub": "auth0|7", "role": "authenticated"}', true), set_config('role', 'authenticated', true);
select tests.equals(
  tests.answer(replace(q.statement, '$message', quote_literal(:'m') || '::uuid')),
  tests.answer(replace(q.statement, '$message', 'gen_random_uuid()')),
  q.statement
)
from tests.about_messages q;
select tests.equals(
  tests.answer(replace(q.statement, '$conversation', quote_literal(current_setting('tests.c')) || '::uuid')),
  tests.answer(replace(q.statement, '$conversation', 'gen_random_uuid()')),
  q.statement
)
from tests.about_conversations q;

-- The policies are evaluated only for rows that satisfy the conditions before them. So a policy
-- that failed for this token would show which rows exist.
select tests.act_as('owner');
insert into public.message_edits (message_id, conversation_id, version, previous_content) values (:'m', current_setting('tests.c')::uuid, 1, 'hallo');
insert into public.message_reactions (message_id, conversation_id, user_id, reaction) values (:'m', current_setting('tests.c')::uuid, tests.id('ben'), 'x');
insert into public.message_pins (message_id, conversation_id, pinned_by) values (:'m', current_setting('tests.c')::uuid, tests.id('ben'));
insert into public.message_hides (user_id, message_id) values (tests.id('ben'), :'m');
insert into public.message_drafts (user_id, conversation_id, content) values (tests.id('ben'), current_setting('tests.c')::uuid, 'an unsent text');
insert into realtime.messages (topic, extension, event) values
  ('user:' || tests.id('ben'), 'broadcast', 'x'), ('conversation:' || current_setting('tests.c'), 'broadcast', 'x');
create table tests.read_tables (name text, rows bigint);
do $$
declare
  name text;
  rows bigint;
begin
  for name in
    select distinct p.polrelid::regclass::text from pg_catalog.pg_policy p
    where p.polcmd = 'r' and pg_get_expr(p.polqual, p.polrelid) like '%chat.%'
  loop
    execute format('select count(*) from %s', name) into rows;
    insert into tests.read_tables values (name, rows);
  end loop;
end
$$;
grant select on tests.read_tables to public;
select tests.equals(array(select t.name from tests.read_tables t where t.rows = 0), '{}', 'every table has rows');
select tests.holds(count(*) > 10, 'the tables are found') from tests.read_tables;
select set_config('request.jwt.claims', '{"sub": "auth0|7", "role": "authenticated"}', true), set_config('role', 'authenticated', true);
select tests.equals(tests.attempt(format('select from %s', t.name)), '0', t.name) from tests.read_tables t;
-- As a control, each form of Ben's id that PostgreSQL accepts identifies him, and he sees his rows.
select
  set_config('request.jwt.claims', json_build_object('sub', f.sub)::text, true),
  tests.equals(chat.my_id(), tests.id('ben'), f.sub),
  tests.holds(tests.attempt('select from public.message_drafts') = '1', f.sub)
from (values
  (tests.id('ben')::text), (upper(tests.id('ben')::text)), ('{' || tests.id('ben') || '}'), (replace(tests.id('ben')::text, '-', ''))
) f (sub);

rollback;
