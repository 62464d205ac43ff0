-- Policies never use types of the session. A user who may run SQL can create a temporary type
-- "uuid" with any cast. auth.uid(), whose text names the type without a schema, then returns any
-- id. On a pooled connection the type remains for the next user, and the cast runs as that user.

begin;
\ir support.sql

select tests.id('ana') as ana, tests.id('ben') as ben, tests.id('ada') as ada, tests.conversation('ana', 'ben') as both, tests.conversation('ben', 'ada') as theirs \gset
select tests.message('ana', :'both', 'mine'), tests.message('ben', :'both', 'his');
insert into public.user_notification_preferences (user_id) values (:'ana'), (:'ben');
insert into public.message_drafts (conversation_id, user_id, content) values (:'both', :'ana', 'mine'), (:'both', :'ben', 'his');
create table tests.strikes (by_user name);
grant insert on tests.strikes to public;

-- ------------------------------------------------------------------------------ one user's session
select tests.act_as('ana');
create type pg_temp.uuid as enum ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b');
create function pg_temp.ran() returns boolean language sql as $$ insert into tests.strikes values (current_user) returning true $$;
create function pg_temp.to_id(pg_temp.uuid) returns pg_catalog.uuid language sql as $$
  insert into tests.strikes values (current_user);
  select '00000000-0000-4000-8000-00000000000b'::pg_catalog.uuid
$$;
create cast (pg_temp.uuid as pg_catalog.uuid) with function pg_temp.to_id(pg_temp.uuid) as assignment;
create domain pg_temp.jsonb as pg_catalog.jsonb check (pg_temp.ran());
create domain pg_temp.text as pg_catalog.text check (pg_temp.ran());

-- The attack works if a function has the search_path of the session.
select tests.equals(auth.uid()::pg_catalog.text, :'ben'::pg_catalog.text, 'control: auth.uid()');

select tests.equals(string_agg(user_id::pg_catalog.text, ','), :'ana'::pg_catalog.text, 'preferences') from public.user_notification_preferences;
select tests.equals(string_agg(content, ','), 'mine'::pg_catalog.text, 'drafts') from public.message_drafts;
select tests.equals(string_agg(conversation_id::pg_catalog.text, ','), :'both'::pg_catalog.text, 'memberships') from public.user_conversation_members;
select tests.equals(tests.attempt(attack.statement), attack.outcome, attack.statement)
from (values
  (format('update public.user_conversation_members set is_archived = true where conversation_id = %L', :'theirs'), '0'),
  (format('update public.user_conversation_members set is_archived = true where conversation_id = %L', :'both'), '1'),
  (format('update public.user_messages set content = %L where sender_id = %L', 'forged', :'ben'), '0'),
  (format('update public.user_messages set content = %L where sender_id = %L', 'edited', :'ana'), '1'),
  (format('insert into public.user_blocks (blocker_id, blocked_id) values (%L, %L)', :'ben', :'ada'), 'refused'),
  (format('insert into public.user_blocks (blocker_id, blocked_id) values (%L, %L)', :'ana', :'ben'), '1'),
  (format('update public.user_notification_preferences set sound_enabled = false where user_id = %L', :'ben'), '0'),
  (format('update public.user_notification_preferences set sound_enabled = false where user_id = %L', :'ana'), '1'),
  (format('update public.user_presence set status = %L where user_id = %L', 'busy', :'ben'), '0')
) attack (statement, outcome);

-- ------------------------------------------------------------ the next user of the same connection
select tests.act_as('owner');
select tests.holds(count(*) > 0, 'control: the cast ran') from tests.strikes;
delete from tests.strikes;
select tests.act_as('ben');
select tests.equals(string_agg(content, ','), 'his'::pg_catalog.text, 'the drafts of the next user') from public.message_drafts;
create temporary table outcomes as
select s.statement, tests.attempt(s.statement) as outcome
from (
  select format(action.statement, t.name) as statement
  from unnest(array[
    'user_conversations', 'user_conversation_members', 'conversation_receipts', 'user_messages', 'message_edits', 'message_hides',
    'message_drafts', 'message_reactions', 'message_pins', 'user_presence', 'user_blocks', 'user_notification_preferences'
  ]) t (name)
  cross join (values ('select from public.%I'), ('delete from public.%I')) action (statement)
  union all
  select unnest(array[
    'select from realtime.messages',
    format('insert into realtime.messages (topic, extension, private) values (%L, %L, true)', 'conversation:' || :'both', 'presence'),
    format('update public.user_messages set content = %L where sender_id = %L', 'edited', :'ben'),
    'update public.user_conversation_members set is_pinned = true',
    'update public.user_notification_preferences set sound_enabled = false',
    format('insert into public.user_blocks (blocker_id, blocked_id) values (%L, %L)', :'ben', :'ana'),
    format('insert into public.user_presence (user_id, status) values (%L, %L)', :'ben', 'online')
  ])
) s;
-- Since PostgreSQL 16, an owner who is not a superuser does not inherit the rights of the user.
grant select on outcomes to public;
select tests.act_as('owner');
-- A statement that is refused for lack of a right proves nothing.
select tests.holds(count(*) > 15, 'control: most statements ran') from pg_temp.outcomes o where o.outcome <> 'refused';
select tests.equals((select count(*) from tests.strikes), 0::pg_catalog.int8, 'code of the previous user that ran as the next one');

rollback;
