-- Read markers, unread counts, and what the other members see of them.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
create function tests.c() returns uuid language sql stable as $$ select current_setting('tests.c')::uuid $$;
select tests.act_as('ana');
select message_id as m1 from chat.send_message(tests.c(), '1', mentions => array[tests.id('ben')]) \gset
select message_id as m2 from chat.send_message(tests.c(), '2') \gset
select message_id as m3 from chat.send_message(tests.c(), '3', mentions => array[tests.id('ben')]) \gset
select message_id as m4 from chat.send_message(tests.c(), '4') \gset
select tests.equals((total, conversations)::text, '(0,0)', 'one''s own are never unread') from chat.unread_counts();

-- Reading part of the messages leaves later messages unread, including mentions.
select tests.act_as('ben');
select tests.equals((total, conversations, mentions, by_conversation)::text, (4, 1, 2, jsonb_build_object(tests.c(), 4))::text, 'unread') from chat.unread_counts();
select tests.equals((updated, unread_count, last_read_message_id)::text, (2, 2, :'m2'::uuid)::text, 'two read') from chat.mark_read(tests.c(), :'m2');
select tests.equals((unread_count, mention_count)::text, '(2,1)', 'what remains unread') from public.user_conversation_members;

-- A marker never moves back.
select tests.equals((updated, unread_count, last_read_message_id)::text, (0, 2, :'m2'::uuid)::text, 'read again') from chat.mark_read(tests.c(), :'m1');

-- The other member sees how far the marker has moved.
select tests.act_as('ana');
select tests.equals((last_read_seq, last_delivered_seq, last_read_message_id)::text, (2, 2, :'m2'::uuid)::text, 'receipt') from public.conversation_receipts where user_id = tests.id('ben');
select tests.equals(string_agg("row" ->> 'delivery_status', ',' order by seq), 'read,read,sent,sent', 'ticks') from chat.message_page(tests.c());
select tests.equals(string_agg("row" ->> 'read_by', ',' order by seq), format('["%1$s"],["%1$s"],[],[]', tests.id('ben')), 'read by') from chat.message_page(tests.c());
select tests.act_as('ben');
select tests.holds(chat.mark_delivered(tests.c(), 3), 'delivered moves');
select tests.holds(not chat.mark_delivered(tests.c(), 2), 'delivered does not move back');
select tests.act_as('ana');
select tests.equals(string_agg("row" ->> 'delivery_status', ',' order by seq), 'read,read,delivered,sent', 'ticks') from chat.message_page(tests.c());

-- Marking by ids reads up to the newest of the messages in each conversation. Invisible messages
-- are ignored.
select tests.act_as('ben');
select tests.equals((conversation_id, updated, unread_count)::text, (tests.c(), 1, 1)::text, 'by ids') from chat.mark_read_messages(array[:'m3', :'m1', gen_random_uuid()]::uuid[]);
select tests.equals(public.mark_conversation_read(tests.c()), 0, 'all of it');
select tests.equals((total, mentions)::text, '(0,0)', 'nothing left') from chat.unread_counts();
select tests.act_as('zoe');
select tests.equals(count(*), 0::bigint, 'strangers') from chat.mark_read_messages(array[:'m3']::uuid[]);
select tests.expect_error('select chat.mark_read(tests.c())', 'not_found');
select tests.expect_error('select chat.mark_unread(tests.c())', 'not_found');

-- Marking as unread is private. For other members, messages that were shown as read stay read.
select tests.act_as('ben');
select chat.mark_unread(tests.c(), :'m3');
select tests.equals((unread_count, mention_count, marked_unread, last_read_message_id)::text, (2, 1, true, :'m2'::uuid)::text, 'unread again') from public.user_conversation_members;
select tests.act_as('ana');
select tests.equals(last_read_seq, 4::bigint, 'the receipt stays') from public.conversation_receipts where user_id = tests.id('ben');
select tests.act_as('ben');
select tests.equals((updated, unread_count)::text, '(2,0)', 'and read once more') from chat.mark_read(tests.c());
select chat.mark_unread(tests.c());
select tests.equals((total, conversations)::text, '(0,1)', 'a marked conversation counts as one') from chat.unread_counts();
select chat.mark_read(tests.c());
select tests.equals(conversations, 0, 'until it is opened') from chat.unread_counts();

-- The totals exclude muted and archived conversations.
select tests.act_as('ana');
select chat.send_message(tests.c(), '5');
select tests.act_as('ben');
select chat.set_conversation_settings(tests.c(), '{"is_muted": true}');
select tests.equals((total, by_conversation ->> tests.c()::text)::text, '(0,1)', 'muted') from chat.unread_counts();
select chat.set_conversation_settings(tests.c(), '{"muted_until": "2020-01-01T00:00:00Z"}');
select tests.equals(total, 1, 'muted until long ago') from chat.unread_counts();
select chat.set_conversation_settings(tests.c(), '{"is_muted": false, "is_archived": true}');
select tests.equals(total, 0, 'archived') from chat.unread_counts();
select chat.set_conversation_settings(tests.c(), '{"is_archived": false}');

-- If a user does not share receipts, the user's own receipt does not move, and the user sees no
-- receipts of others.
insert into public.user_notification_preferences (user_id, share_read_receipts) values (tests.id('ben'), false);
select tests.equals(updated, 1, 'read without a receipt') from chat.mark_read(tests.c());
select tests.equals(chat.mark_delivered(tests.c(), 5), false, 'delivered without a receipt');
select chat.send_message(tests.c(), 'answer');
select tests.act_as('ana');
select tests.equals(last_read_seq, 4::bigint, 'Ben''s receipt does not change') from public.conversation_receipts where user_id = tests.id('ben');
select chat.mark_read(tests.c());
-- read_by contains the caller, even if receipts are not shared. It contains others for what they
-- read while receipts were shared: Ben read messages 1 to 4, but not 5.
select tests.equals(string_agg("row" ->> 'read_by', ',' order by seq), format('["%1$s"],["%1$s"],["%1$s"],["%1$s"],[],["%2$s"]', tests.id('ben'), tests.id('ana')), 'read by, for Ana') from chat.message_page(tests.c());
select tests.act_as('ben');
select tests.equals(string_agg("row" ->> 'read_by', ',' order by seq), format('["%1$s"],["%1$s"],["%1$s"],["%1$s"],["%1$s"],[]', tests.id('ben')), 'read by, for Ben') from chat.message_page(tests.c());
select tests.equals("row" ->> 'delivery_status', 'sent', 'Ben does not see it either') from chat.message_page(tests.c(), max_rows => 1);
select tests.equals("row" ->> 'peer_last_read_seq', null, 'nor in the list') from chat.conversation_page();

select tests.act_as('owner');
select tests.equals(last_read_seq, 0::bigint, 'nor over a socket') from public.conversation_receipts where user_id = tests.id('ana');
delete from public.user_notification_preferences;

-- read_by is filled only if the setting is on.
select tests.equals(count(*), 0::bigint, 'read_by') from public.user_messages where read_by <> '{}';
update chat.config set value = 'true' where key = 'fill_read_by';
select tests.message('ben', tests.c(), 'tick me') as ticked \gset
select rev as rev_before from public.user_conversations where id = tests.c() \gset
select tests.act_as('ana');
select chat.mark_read(tests.c());
select tests.equals(read_by, array[tests.id('ana')], 'read_by') from public.user_messages where id = :'ticked';
select tests.equals(rev, :rev_before::bigint, 'reading does not change rev') from public.user_conversations where id = tests.c();

rollback;
