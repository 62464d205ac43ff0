-- What prevents writing to a conversation. The response is the same for every reason.

begin;
\ir support.sql

select tests.conversation('ana', 'ben') as c \gset
select set_config('tests.c', :'c', true);
create function tests.c() returns uuid language sql stable as $$ select current_setting('tests.c')::uuid $$;

create function tests.closed_for(actor text, why text)
returns void
language plpgsql
as $$
begin
  perform tests.act_as(actor);
  perform tests.holds(not chat.can_send(tests.c()), why || ': cannot send');
  perform tests.expect_error('select chat.send_message(tests.c(), ''x'')', 'not_allowed_recipient');
  perform tests.expect_error('insert into public.user_messages (conversation_id, content) values (tests.c(), ''x'')', 'not_allowed_recipient');
  -- The conversation can still be read and found.
  perform tests.equals(
    (select (r."row" ->> 'can_send') from chat.conversation_rows(array[tests.c()]) r), 'false', why || ': can_send is false');
  perform tests.equals((select o.created from chat.open_conversation(tests.id(case actor when 'ana' then 'ben' else 'ana' end)) o), false, why || ': opening still finds it');
  perform tests.act_as('owner');
end
$$;

-- A block prevents both users from writing, and no response reveals which of them blocked the
-- other.
select tests.act_as('ana');
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ana'), tests.id('ben'));
select tests.closed_for('ana', 'block'), tests.closed_for('ben', 'block');
select tests.act_as('ben');
select tests.equals(count(*), 0::bigint, 'blocks Ben sees') from public.user_blocks;
select tests.act_as('ana');
delete from public.user_blocks;
select tests.holds(chat.can_send(tests.c()), 'lifted');

-- A blocked user cannot edit either, but may delete their own messages.
select tests.message('ben', tests.c(), 'hm') as m \gset
select set_config('tests.m', :'m', true);
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ana'), tests.id('ben'));
select tests.act_as('ben');
select tests.expect_error($$select chat.edit_message(current_setting('tests.m')::uuid, 'worse')$$, 'not_allowed_recipient');
select tests.expect_error($$update public.user_messages set content = 'worse'$$, 'not_allowed_recipient');
select tests.expect_error($$select chat.react(current_setting('tests.m')::uuid, '👍')$$, 'not_allowed_recipient');
select tests.equals(is_shared, false, 'typing is not shared') from chat.set_typing(tests.c(), true);
select chat.delete_message(current_setting('tests.m')::uuid);
select tests.act_as('owner');
delete from public.user_blocks;

-- A user leaves the team.
update public.users set team_id = '00000000-0000-4000-8000-00000000007b' where id = tests.id('ben');
select tests.closed_for('ana', 'team'), tests.closed_for('ben', 'team');
update public.users set team_id = '00000000-0000-4000-8000-00000000007a' where id = tests.id('ben');

-- A user is suspended.
update public.users set status = 'suspended' where id = tests.id('ben');
select tests.closed_for('ana', 'suspension'), tests.closed_for('ben', 'suspension');
update public.users set status = 'active' where id = tests.id('ben');

-- A new conversation is refused with the same text for every reason.
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ada'), tests.id('ana'));
select tests.act_as('ana');
select tests.expect_error($$select chat.open_conversation(tests.id('ada'))$$, 'not_allowed_recipient');
select tests.expect_error($$select chat.open_conversation(tests.id('zoe'))$$, 'not_allowed_recipient');
do $$
begin
  perform chat.open_conversation(tests.id('ada'));
exception when sqlstate 'PT403' then
  perform tests.equals(sqlerrm, 'You cannot message this person', 'text');
end
$$;

-- A user may reply to a super admin who wrote to them.
select tests.act_as('owner');
select tests.conversation('sue', 'zoe') as s \gset
select tests.act_as('zoe');
select tests.holds(chat.can_send(:'s'), 'replying to a super admin');
select tests.act_as('ana');
select tests.holds(not chat.can_send(:'s'), 'a stranger cannot write');

rollback;
