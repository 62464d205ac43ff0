-- Drafts and the right to send, as the server reads them for the devices of a member.

begin;
\ir support.sql

select tests.conversation('ana', 'ben') as c \gset
select tests.conversation('ada', 'ben') as other \gset

create function tests.composing(person text, conversation uuid)
returns text
language sql
security definer
as $$ select format('%s %s', coalesce(c.draft, '-'), c.can_send) from chat.composing(array[tests.id(person)], array[conversation]) c $$;

create function tests.with_ben(people uuid[], conversations uuid[])
returns bigint
language sql
security definer
as $$ select count(*) from chat.memberships_with(people, conversations) $$;

-- Only its author sees a draft. Other settings in the same request do not hide it.
select tests.act_as('ana');
select chat.set_conversation_settings(:'c', '{"draft": "begun", "is_pinned": true}');
select tests.act_as('owner');
select tests.equals(tests.composing('ana', :'c'), 'begun t', 'the author');
select tests.equals(tests.composing('ben', :'c'), '- t', 'the other member');
select tests.equals(tests.composing('zoe', :'c'), null, 'a stranger');

-- Sending a message removes the draft.
select tests.message('ana', :'c', 'sent');
select tests.equals(tests.composing('ana', :'c'), '- t', 'after sending');

-- After a block, or after a suspension of one member, neither member can send.
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ben'), tests.id('ana'));
select tests.equals(tests.composing('ana', :'c'), '- f', 'the blocked member');
select tests.equals(tests.composing('ben', :'c'), '- f', 'the blocking member');
delete from public.user_blocks;
update public.users set status = 'suspended' where id = tests.id('ben');
select tests.equals(tests.composing('ana', :'c'), '- f', 'Ana with a suspended member');
select tests.equals(tests.composing('ada', :'other'), '- f', 'Ada with a suspended member');

-- The affected memberships are both members of a given conversation, or of every direct
-- conversation of a given user.
select tests.equals(tests.with_ben(array[tests.id('ben')], '{}'), 4::bigint, 'of a user');
select tests.equals(tests.with_ben('{}', array[:'c']::uuid[]), 2::bigint, 'of a conversation');
select tests.equals(tests.with_ben(array[tests.id('ben')], array[:'c']::uuid[]), 4::bigint, 'of both, each membership once');
select tests.equals(tests.with_ben(array[tests.id('zoe')], '{}'), 0::bigint, 'of a user without conversations');

-- Only the server may call the functions.
select tests.act_as('ana');
select tests.expect_error($$select chat.composing('{}', '{}')$$, '42501');
select tests.expect_error($$select chat.memberships_with('{}', '{}')$$, '42501');

rollback;
