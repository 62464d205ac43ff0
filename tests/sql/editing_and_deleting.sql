-- Editing and deleting: what is kept, what is removed, and which users are refused.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
create function tests.c() returns uuid language sql stable as $$ select current_setting('tests.c')::uuid $$;
select set_config('tests.m', tests.message('ana', tests.c(), 'frist')::text, true);
create function tests.m() returns uuid language sql stable as $$ select current_setting('tests.m')::uuid $$;
select tests.message('ben', tests.c(), 'from Ben') as theirs \gset

-- An edit keeps the earlier text, increases the rev, and follows the rules for sending.
select tests.act_as('ana');
select chat.edit_message(tests.m(), '  first ');
select tests.equals((content, is_edited, rev)::text, '(first,t,3)', 'edited') from public.user_messages where id = tests.m();
select tests.equals((version, previous_content)::text, '(1,frist)', 'history') from public.message_edits;
select tests.expect_error($$select chat.edit_message(tests.m(), U&'\200B')$$, 'message_empty');
select tests.expect_error($$select chat.edit_message(tests.m(), repeat('x', 4001))$$, 'message_too_long');
select tests.expect_error($$select chat.edit_message(tests.m(), repeat('x', 20001))$$, 'message_too_long');
select tests.expect_error($$update public.user_messages set content = repeat('x', 4001) where id = tests.m()$$, 'message_too_long');
select tests.expect_error($$update public.user_messages set content = ' ' where id = tests.m()$$, 'message_empty');
select tests.expect_error($$update public.user_messages set metadata = '[]' where id = tests.m()$$, 'validation_failed');
select tests.expect_error($$select chat.edit_message(tests.m(), 'x', expected_rev => 1)$$, 'stale_revision');
select chat.edit_message(tests.m(), 'first!', expected_rev => 3);
select tests.expect_error(format('select chat.edit_message(%L, ''x'')', :'theirs'), 'forbidden');

-- Saving the same text again is not an edit.
select chat.edit_message(tests.m(), 'first!');
select tests.equals(rev, 4::bigint, 'rev after no change') from public.user_messages where id = tests.m();

-- Columns that can never be changed.
select tests.act_as('service_role');
select tests.expect_error(format('update public.user_messages set %s where id = tests.m()', change), 'user_messages_identity_is_fixed')
from unnest(array['sender_id = tests.id(''ben'')', 'seq = 9', 'created_at = now()', 'message_type = ''file''', 'client_message_id = ''x''', 'id = gen_random_uuid()']) change;

-- The refusal reveals nothing to strangers.
select tests.act_as('zoe');
select tests.expect_error($$select chat.edit_message(tests.m(), 'x')$$, 'not_found');
select tests.expect_error($$select chat.delete_message(tests.m())$$, 'not_found');
select tests.expect_error($$select chat.hide_message(tests.m())$$, 'not_found');

-- Editing has a time limit. Deleting does not.
select tests.act_as('owner');
update chat.config set value = '60' where key = 'edit_window_s';
select tests.act_as('ana');
select chat.edit_message(tests.m(), 'in time');
select tests.act_as('owner');
alter table public.user_messages disable trigger user_messages_20_apply_change;
update public.user_messages set created_at = now() - interval '61 seconds' where id = tests.m();
alter table public.user_messages enable trigger user_messages_20_apply_change;
select tests.act_as('ana');
select tests.expect_error($$select chat.edit_message(tests.m(), 'too late')$$, 'edit_window_passed');
select tests.expect_error($$update public.user_messages set content = 'too late' where id = tests.m()$$, 'edit_window_passed');

-- Deleting leaves a tombstone without content and history, and subtracts the message from the
-- unread counts.
select message_id as doomed from chat.send_message(tests.c(), 'doomed', mentions => array[tests.id('ben')], metadata => '{"secret": 1}') \gset
select tests.act_as('ben');
select tests.equals((unread_count, mention_count)::text, '(2,1)', 'unread before') from public.user_conversation_members;
select tests.act_as('ana');
select chat.delete_message(:'doomed');
select tests.equals((content, metadata, mentions, is_deleted, deleted_by)::text, ('', '{}'::jsonb, '{}'::uuid[], true, tests.id('ana'))::text, 'tombstone')
from public.user_messages where id = :'doomed';
select tests.act_as('ben');
select tests.equals((unread_count, mention_count)::text, '(1,0)', 'unread after') from public.user_conversation_members;

-- A second deletion changes nothing.
select tests.act_as('ana');
select rev as rev_before from public.user_messages where id = :'doomed' \gset
select chat.delete_message(:'doomed');
update public.user_messages set is_deleted = true where id = :'doomed';
select tests.equals(rev, :rev_before::bigint, 'rev') from public.user_messages where id = :'doomed';
select tests.expect_error(format('select chat.edit_message(%L, ''x'')', :'doomed'), 'message_deleted');
select tests.expect_error(format('update public.user_messages set content = ''x'' where id = %L', :'doomed'), 'message_deleted');
select tests.expect_error(format('update public.user_messages set is_deleted = false where id = %L', :'doomed'), 'message_deleted');

select chat.delete_message(tests.m());
select tests.act_as('owner');
select tests.equals(count(*), 0::bigint, 'earlier texts of a deleted message') from public.message_edits where message_id = tests.m();

-- Deleting a message that was read does not lower the count.
select tests.message('ana', tests.c(), 'read') as seen \gset
select tests.message('ana', tests.c(), 'unread') as unseen \gset
select tests.act_as('ben');
select chat.mark_read(tests.c(), :'seen');
select tests.act_as('ana');
select chat.delete_message(:'seen');
select tests.act_as('ben');
select tests.equals(unread_count, 1, 'unread') from public.user_conversation_members;

-- If one user hides a message and the other then deletes it, the message is subtracted once.
select chat.hide_message(:'unseen');
select tests.equals(unread_count, 0, 'unread after hiding') from public.user_conversation_members;
select chat.hide_message(:'unseen');
select tests.message('ana', tests.c(), 'another');
select tests.act_as('ana');
select chat.delete_message(:'unseen');
select tests.act_as('ben');
select tests.equals(unread_count, 1, 'unread after hiding and deleting') from public.user_conversation_members;

-- Hiding affects only the caller.
select tests.holds(not exists (select from chat.message_page(tests.c()) p where p.message_id = :'unseen'), 'Ben does not see what he hid');

-- The rev counts every change, without gaps.
select tests.act_as('owner');
select tests.equals(max(m.rev), (select rev from public.user_conversations where id = tests.c()), 'rev') from public.user_messages m;

set constraints all immediate;
rollback;
