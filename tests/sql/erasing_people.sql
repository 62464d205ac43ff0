-- Erasing a user removes the user's own data. What the user shared is kept without a name.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
select tests.message('ana', current_setting('tests.c')::uuid, 'from Ana') as hers \gset
select tests.message('ben', current_setting('tests.c')::uuid, 'from Ben') as his \gset
select tests.act_as('ben');
select chat.react(:'hers', '👍'), chat.set_conversation_settings(current_setting('tests.c')::uuid, '{"draft": "x"}'), chat.set_presence('online'), chat.hide_message(:'hers');
select tests.act_as('owner');
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ben'), tests.id('zoe'));
insert into chat.idempotency_keys (user_id, key, request_hash) values (tests.id('ben'), 'k', 'x');
select rev as rev_before from public.user_conversations \gset

delete from public.users where id = tests.id('ben');

select tests.equals((select count(*) from public.user_presence) + (select count(*) from public.user_blocks) + (select count(*) from public.message_drafts)
  + (select count(*) from public.message_hides) + (select count(*) from public.message_reactions) + (select count(*) from chat.idempotency_keys), 0::bigint, 'rows left behind');
select tests.equals((content, sender_id)::text, '("from Ben",)', 'his message') from public.user_messages where id = :'his';
select tests.equals((participant_1_id, participant_2_id)::text, (tests.id('ana'), null::uuid)::text, 'the pair') from public.user_conversations;
select tests.holds(rev > :rev_before, 'the rev changes for clients that follow') from public.user_conversations;

select tests.act_as('ana');
select tests.equals(("row" ->> 'can_send', "row" ->> 'other_user')::text, '(false,)', 'the row') from chat.conversation_page();
select tests.equals(count(*), 2::bigint, 'history') from chat.message_page(current_setting('tests.c')::uuid);
select tests.expect_error($$select chat.send_message(current_setting('tests.c')::uuid, 'x')$$, 'not_allowed_recipient');

-- For a hidden user with or without a visible row, erasing removes all presence, and nothing
-- restores it.
select tests.act_as('service_role');
select gen_random_uuid() as process \gset
select chat.keep_presence(:'process', 60000);
select chat.report_devices(:'process', array[tests.id('zoe')], array[1], array[true]);
select tests.act_as('zoe');
select chat.set_preferences('{"share_presence": false}'), chat.set_presence('busy', session_id => 's');
select tests.act_as('sue');
select chat.set_preferences('{"share_presence": false}'), chat.set_presence('busy', session_id => 's');
select tests.act_as('owner');
delete from public.users where id in (tests.id('zoe'), tests.id('sue'));
select tests.equals(
  (select count(*) from public.user_presence) + (select count(*) from chat.presence_reports) + (select count(*) from chat.presence_report_sessions)
    + (select count(*) from chat.presence_sessions),
  0::bigint, 'presence left behind');

-- Removing rows, as retention does, keeps the counts and the preview correct.
select tests.act_as('owner');
select set_config('tests.d', tests.conversation('ana', 'ada')::text, true);
select tests.message('ada', current_setting('tests.d')::uuid, '1') as one \gset
select tests.message('ada', current_setting('tests.d')::uuid, '2') as two \gset
delete from public.user_messages where id = :'two';
select tests.equals((last_seq, last_message_id)::text, (2, :'one'::uuid)::text, 'preview') from public.user_conversations where id = current_setting('tests.d')::uuid;
select tests.equals(unread_count, 1, 'unread') from public.user_conversation_members where conversation_id = current_setting('tests.d')::uuid and user_id = tests.id('ana');
select tests.message('ada', current_setting('tests.d')::uuid, '3') as three \gset
select tests.equals(seq, 3::bigint, 'a seq is assigned only once') from public.user_messages where id = :'three';

delete from public.user_conversations;
select tests.equals(count(*), 0::bigint, 'messages') from public.user_messages;
set constraints all immediate;

rollback;
