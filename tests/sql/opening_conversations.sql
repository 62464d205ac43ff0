-- Each pair of users has one conversation, which only permitted users can open.

begin;
\ir support.sql

-- Both users, and both functions, get the same conversation.
select tests.act_as('ana');
select tests.equals(created, true, 'opening creates a conversation') from chat.open_conversation(tests.id('ben'));
select tests.equals(created, false, 'opening it again finds it') from chat.open_conversation(tests.id('ben'));
select tests.equals(public.get_or_create_conversation(tests.id('ben'), tests.id('ana')), public.get_or_create_conversation(tests.id('ben')), 'both functions return the same conversation');
select tests.act_as('ben');
select tests.equals(created, false, 'the other user finds it, too') from chat.open_conversation(tests.id('ana'));
select tests.act_as('owner');
select tests.equals(count(*), 1::bigint, 'conversations') from public.user_conversations;
select tests.equals(count(*), 2::bigint, 'memberships') from public.user_conversation_members;
select tests.equals(count(*), 2::bigint, 'receipts') from public.conversation_receipts;

-- Which pairs of users may open a conversation.
select tests.act_as('ana');
select tests.expect_error($$select chat.open_conversation(tests.id('zoe'))$$, 'not_allowed_recipient');
select tests.expect_error($$select chat.open_conversation(tests.id('sue'))$$, 'not_allowed_recipient');
select tests.expect_error($$select chat.open_conversation(tests.id('ana'))$$, 'validation_failed');
select tests.expect_error($$select chat.open_conversation(null)$$, 'validation_failed');
select tests.expect_error($$select chat.open_conversation(gen_random_uuid())$$, 'not_allowed_recipient');
select tests.act_as('ada');
select tests.expect_error($$select chat.open_conversation(tests.id('zoe'))$$, 'not_allowed_recipient');
select tests.act_as('sue');
select tests.equals(created, true, 'a super admin can write to every user') from chat.open_conversation(tests.id('zoe'));

-- No caller can open a conversation between two other users.
select tests.expect_error($$select public.get_or_create_conversation(tests.id('ana'), tests.id('zoe'))$$, 'identity_mismatch');
select tests.act_as('zoe');
select tests.expect_error($$select public.get_or_create_conversation(tests.id('ana'), tests.id('ben'))$$, 'identity_mismatch');
select tests.expect_error($$select public.get_or_create_conversation(null, null)$$, 'identity_mismatch');
select tests.act_as('anon');
select tests.expect_error($$select public.get_or_create_conversation(tests.id('ana'), tests.id('ben'))$$, '42501');
select tests.act_as('service_role');
select tests.expect_error($$select public.get_or_create_conversation(tests.id('ana'), tests.id('ben'))$$, '42501');

-- If the setting allows it, conversations across teams are possible.
select tests.act_as('owner');
update chat.config set value = 'true' where key = 'admin_cross_team';
select tests.act_as('ada');
select tests.equals(created, true, 'an admin can write to other teams') from chat.open_conversation(tests.id('zoe'));
select tests.act_as('zoe');
select tests.expect_error($$select chat.open_conversation(gen_random_uuid())$$, 'not_allowed_recipient');
select tests.holds(chat.can_send((select o.conversation_id from chat.open_conversation(tests.id('ada')) o)), 'and gets replies');
select tests.act_as('owner');
update chat.config set value = 'false' where key = 'admin_cross_team';
select tests.act_as('zoe');
select tests.holds(not chat.can_send((select o.conversation_id from chat.open_conversation(tests.id('ada')) o)), 'until the setting is off');

-- The server may write to the table. The pair is sorted, and counters in the statement are ignored.
select tests.act_as('service_role');
insert into public.user_conversations (participant_1_id, participant_2_id, last_seq, rev) values (tests.id('zoe'), tests.id('ana'), 7, 7);
select tests.equals((participant_1_id, participant_2_id, last_seq, rev)::text, (tests.id('ana'), tests.id('zoe'), 0, 0)::text, 'pair')
from public.user_conversations where participant_1_id = tests.id('ana') and participant_2_id = tests.id('zoe');
select tests.expect_error($$insert into public.user_conversations (participant_1_id, participant_2_id) values (tests.id('ana'), tests.id('zoe'))$$, 'user_conversations_pair_key');
select tests.expect_error($$insert into public.user_conversations (participant_1_id, participant_2_id) values (tests.id('ana'), tests.id('ana'))$$, 'user_conversations_pair_is_ordered');
select tests.expect_error($$update public.user_conversations set participant_2_id = tests.id('sue')$$, 'user_conversations_identity_is_fixed');

rollback;
