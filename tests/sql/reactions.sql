-- Reactions to messages.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
select set_config('tests.m', tests.message('ana', current_setting('tests.c')::uuid, 'hi')::text, true);
create function tests.m() returns uuid language sql stable as $$ select current_setting('tests.m')::uuid $$;

-- Adding a reaction is idempotent and changes the message.
select tests.act_as('ben');
select chat.react(tests.m(), ':white_check_mark:'), chat.react(tests.m(), ':white_check_mark:');
select tests.equals(rev, 2::bigint, 'rev') from public.user_messages;
select tests.equals(rev, 2::bigint, 'rev of the conversation') from public.user_conversations;
insert into public.message_reactions (message_id, user_id, emoji) values (tests.m(), tests.id('ben'), '👩‍👩‍👧‍👦');
select tests.equals((reaction, emoji, conversation_id)::text, ('👩‍👩‍👧‍👦', '👩‍👩‍👧‍👦', current_setting('tests.c')::uuid)::text, 'both names') from public.message_reactions where reaction like '👩%';
select tests.act_as('ana');
select tests.equals((chat.react(tests.m(), ':white_check_mark:') -> 0)::jsonb,
  jsonb_build_object('reaction', ':white_check_mark:', 'emoji', ':white_check_mark:', 'count', 2, 'me', true, 'user_ids', array[tests.id('ben'), tests.id('ana')]),
  'list');
select tests.equals("row" -> 'reactions' -> 0 ->> 'count', '2', 'in the row') from chat.message_page(current_setting('tests.c')::uuid);
select tests.equals(updated_at, created_at, 'a reaction does not change updated_at') from public.user_messages;

-- Users can remove only their own reactions. Removing a reaction again has no effect.
select chat.react(tests.m(), ':white_check_mark:', false), chat.react(tests.m(), ':white_check_mark:', false);
select tests.equals(count(*), 2::bigint, 'Ben''s remain') from public.message_reactions;
select tests.equals(rev, 5::bigint, 'rev') from public.user_messages;

select tests.expect_error($$select chat.react(tests.m(), '')$$, 'validation_failed');
select tests.expect_error($$select chat.react(tests.m(), U&'\200B')$$, 'validation_failed');
select tests.expect_error($$select chat.react(tests.m(), repeat('x', 65))$$, 'validation_failed');
select tests.expect_error($$select chat.react(tests.m(), null)$$, 'validation_failed');
select tests.expect_error($$select chat.react(gen_random_uuid(), 'x')$$, 'not_found');

-- Reactions to messages of other conversations and to removed messages are refused, whatever
-- conversation_id the row contains.
select tests.act_as('zoe');
select tests.expect_error($$select chat.react(tests.m(), 'x')$$, 'not_found');
select tests.expect_error($$select chat.react(tests.m(), 'x', false)$$, 'not_found');
select tests.act_as('owner');
select tests.conversation('sue', 'zoe') as s \gset
select tests.act_as('zoe');
select tests.expect_error(format('insert into public.message_reactions (message_id, conversation_id, user_id, reaction) values (tests.m(), %L, tests.id(''zoe''), ''x'')', :'s'), 'not_found');
select tests.act_as('ana');
select chat.delete_message(tests.m());
select tests.expect_error($$select chat.react(tests.m(), 'x')$$, 'message_deleted');

-- A session whose claims have no "sub" counts as a user and not as the server. It learns nothing
-- about messages and locks none.
select tests.act_as('owner');
select tests.message('ana', current_setting('tests.c')::uuid, 'there') as there \gset
create temporary table before as select m.id, m.xmax::text as lock from public.user_messages m;
create function tests.act_without_sub(claims text) returns void language plpgsql as $$
begin
  perform set_config('request.jwt.claims', claims, true), set_config('role', 'authenticated', true);
end
$$;
select set_config('tests.there', :'there', true);
do $$
declare
  claims text;
  message text;
begin
  foreach claims in array array['', '{}', '{"role": "authenticated"}'] loop
    perform tests.act_without_sub(claims);
    foreach message in array array[current_setting('tests.there'), current_setting('tests.m'), gen_random_uuid()::text] loop
      perform tests.expect_error(format(
        'insert into public.message_reactions (message_id, user_id, reaction) values (%L, %L, %L)', message, tests.id('ana'), 'x'
      ), 'not_found');
    end loop;
    perform tests.act_as('owner');
  end loop;
end
$$;
select tests.equals(m.xmax::text, b.lock, 'locked') from public.user_messages m join pg_temp.before b on b.id = m.id;

-- The server may react in the name of a user, with and without claims.
insert into public.message_reactions (message_id, user_id, reaction) values (:'there', tests.id('ben'), 'by the owner');
grant usage on schema tests to service_role;
select tests.act_as('service_role');
insert into public.message_reactions (message_id, user_id, reaction) values (:'there', tests.id('ana'), 'by the service');
select tests.act_as('owner');
select tests.equals(count(*), 2::bigint, 'by the server') from public.message_reactions;

rollback;
