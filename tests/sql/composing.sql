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

-- a draft is its author's; other settings in the same request do not hide it
select tests.act_as('ana');
select chat.set_conversation_settings(:'c', '{"draft": "begun", "is_pinned": true}');
select tests.act_as('owner');
select tests.equals(tests.composing('ana', :'c'), 'begun t', 'Ana''s');
select tests.equals(tests.composing('ben', :'c'), '- t', 'Ben''s');
select tests.equals(tests.composing('zoe', :'c'), null, 'a stranger''s');

-- a message that is sent takes the draft along
select tests.message('ana', :'c', 'sent');
select tests.equals(tests.composing('ana', :'c'), '- t', 'sent');

-- a block and a suspension concern both
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ben'), tests.id('ana'));
select tests.equals(tests.composing('ana', :'c'), '- f', 'blocked');
select tests.equals(tests.composing('ben', :'c'), '- f', 'blocking');
delete from public.user_blocks;
update public.users set status = 'suspended' where id = tests.id('ben');
select tests.equals(tests.composing('ana', :'c'), '- f', 'with somebody suspended');
select tests.equals(tests.composing('ada', :'other'), '- f', 'with somebody suspended');

-- whom that concerns: both in each direct conversation of that person, or in the one that is named
select tests.equals(tests.with_ben(array[tests.id('ben')], '{}'), 4::bigint, 'of a person');
select tests.equals(tests.with_ben('{}', array[:'c']::uuid[]), 2::bigint, 'of a conversation');
select tests.equals(tests.with_ben(array[tests.id('ben')], array[:'c']::uuid[]), 4::bigint, 'each once');
select tests.equals(tests.with_ben(array[tests.id('zoe')], '{}'), 0::bigint, 'of somebody without one');

-- only the server may ask
select tests.act_as('ana');
select tests.expect_error($$select chat.composing('{}', '{}')$$, '42501');
select tests.expect_error($$select chat.memberships_with('{}', '{}')$$, '42501');

rollback;
