-- A dashboard's own supabase-js calls through the data API. Each statement has the form that the
-- data API generates, and runs as the caller.

begin;
\ir support.sql

-- from('user_conversations').select('*, participant_1:users!participant_1_id(...), participant_2:…, last_message:user_messages!last_message_id(...)')
--   .or('participant_1_id.eq.<me>,participant_2_id.eq.<me>').order('updated_at', { ascending: false })
create function tests.listed() returns setof json language sql as $$
  select json_build_object('one', row_to_json(one.*), 'two', row_to_json(two.*), 'last', row_to_json(last.*))
  from "public"."user_conversations"
  left join lateral (
    select u."id", u."full_name", u."avatar_url", u."status" from "public"."users" u where u."id" = "public"."user_conversations"."participant_1_id"
  ) one on true
  left join lateral (
    select u."id", u."full_name", u."avatar_url", u."status" from "public"."users" u where u."id" = "public"."user_conversations"."participant_2_id"
  ) two on true
  left join lateral (
    select m."id", m."content", m."created_at", m."sender_id" from "public"."user_messages" m where m."id" = "public"."user_conversations"."last_message_id"
  ) last on true
  where "public"."user_conversations"."participant_1_id" = auth.uid() or "public"."user_conversations"."participant_2_id" = auth.uid()
  order by "public"."user_conversations"."updated_at" desc
$$;

-- from('user_messages').select('*').eq('conversation_id', …).eq('is_deleted', false).order('created_at', …).range(0, 49)
create function tests.history(conversation uuid) returns setof public.user_messages language sql as $$
  select "public"."user_messages".* from "public"."user_messages"
  where "public"."user_messages"."conversation_id" = history.conversation and not "public"."user_messages"."is_deleted"
  order by "public"."user_messages"."created_at" desc limit 50 offset 0
$$;

-- from('user_presence').upsert({...}) sets every column in its argument, including the key.
create function tests.upsert_presence(person uuid, status text) returns setof public.user_presence language sql as $$
  insert into "public"."user_presence" ("current_page", "last_seen", "status", "updated_at", "user_id")
  select body."current_page", body."last_seen", body."status", body."updated_at", body."user_id"
  from (select json_build_array(json_build_object(
      'user_id', upsert_presence.person, 'status', upsert_presence.status, 'last_seen', '2001-01-01T00:00:00Z',
      'updated_at', '2001-01-01T00:00:00Z', 'current_page', '/messages')) as data) payload,
    lateral (select * from json_to_recordset(payload.data) _ (
      "current_page" text, "last_seen" timestamptz, "status" text, "updated_at" timestamptz, "user_id" uuid)) body
  on conflict ("user_id") do update set
    "current_page" = excluded."current_page", "last_seen" = excluded."last_seen", "status" = excluded."status",
    "updated_at" = excluded."updated_at", "user_id" = excluded."user_id"
  returning "public"."user_presence".*
$$;

-- In an rpc call, the names of the arguments select the function.
select tests.equals(
  array_agg(array_to_string(p.proargnames, ',') order by p.pronargs),
  array['other_user_id', 'user1_id,user2_id'],
  'get_or_create_conversation')
from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = 'get_or_create_conversation';
select tests.act_as('ana');
select public.get_or_create_conversation("user1_id" := tests.id('ana'), "user2_id" := tests.id('ben')) as c \gset
select tests.equals(public.get_or_create_conversation("other_user_id" := tests.id('ben')), :'c'::uuid, 'by the other user''s id');
select tests.act_as('ben');
select tests.equals(public.get_or_create_conversation("user1_id" := tests.id('ana'), "user2_id" := tests.id('ben')), :'c'::uuid, 'opened by the other user');

-- from('user_messages').insert({...}).select('*, sender:users!sender_id(id, full_name, avatar_url)').single()
select tests.act_as('ana');
with source as (
  insert into "public"."user_messages" ("content", "conversation_id", "message_type", "sender_id")
  select body."content", body."conversation_id", body."message_type", body."sender_id"
  from (select json_build_array(json_build_object(
      'conversation_id', :'c', 'sender_id', tests.id('ana'), 'content', 'Hello Ben', 'message_type', 'text')) as data) payload,
    lateral (select * from json_to_recordset(payload.data) _ (
      "content" text, "conversation_id" uuid, "message_type" text, "sender_id" uuid)) body
  returning "public"."user_messages".*
)
select source.*, row_to_json(sender.*)::text as "sender"
from source
left join lateral (
  select u."id", u."full_name", u."avatar_url" from "public"."users" u where u."id" = source."sender_id"
) sender on true \gset sent_
select tests.equals(:'sent_sender'::json ->> 'full_name', 'Ana Alvarez', 'the sender');
select tests.equals(:'sent_seq'::bigint, 1::bigint, 'its number');
select tests.expect_error(format('insert into public.user_messages (conversation_id, sender_id, content, read_by) values (%L, tests.id(''ana''), ''x'', array[tests.id(''ben'')])', :'c'), '42501');

-- For embedding, "users!participant_1_id", "user_messages!last_message_id" and "users!sender_id"
-- must each identify one foreign key.
select tests.equals(count(k.attname), 1::bigint, format('foreign keys of %s.%s to %s', e.source, e.hint, e.target))
from (values
    ('public.user_conversations'::regclass, 'participant_1_id', 'public.users'::regclass),
    ('public.user_conversations', 'participant_2_id', 'public.users'),
    ('public.user_conversations', 'last_message_id', 'public.user_messages'),
    ('public.user_messages', 'sender_id', 'public.users'),
    ('public.user_messages', 'conversation_id', 'public.user_conversations'),
    ('public.user_presence', 'user_id', 'public.users')
  ) e (source, hint, target)
left join (
  select k.conrelid, k.confrelid, a.attname
  from pg_constraint k join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
  where k.contype = 'f' and cardinality(k.conkey) = 1
) k on k.conrelid = e.source and k.confrelid = e.target and k.attname = e.hint
group by e.source, e.hint, e.target;

-- The list and the history.
select tests.act_as('ben');
select tests.equals(l #>> '{one,full_name}' || ', ' || (l #>> '{two,full_name}') || ': ' || (l #>> '{last,content}'), 'Ana Alvarez, Ben Brandt: Hello Ben', 'the list')
from tests.listed() l;
select tests.act_as('zoe');
select tests.equals(count(*), 0::bigint, 'the list of an outsider') from tests.listed();
select tests.equals(count(*), 0::bigint, 'the history at an outsider') from tests.history(:'c');
select tests.act_as('ben');
select tests.equals(string_agg(content, ','), 'Hello Ben', 'history') from tests.history(:'c');

-- Clients may not write read_by to mark messages as read, but may call the function.
select tests.expect_error(format('update public.user_messages set read_by = array[tests.id(''ben'')] where conversation_id = %L', :'c'), '42501');
select public.mark_conversation_read("p_conversation_id" := :'c', "p_up_to" := :'sent_id');
select tests.equals(unread_count, 0, 'unread') from public.user_conversation_members where conversation_id = :'c';

-- Only the sender may delete a message.
with source as (
  update "public"."user_messages" set "is_deleted" = true where "public"."user_messages"."id" = :'sent_id' returning 1
)
select tests.equals(count(*), 0::bigint, 'deleted by a reader') from source;
select tests.act_as('ana');
update "public"."user_messages" set "is_deleted" = true where "public"."user_messages"."id" = :'sent_id';
select tests.equals(count(*), 0::bigint, 'earlier texts of the deleted message') from tests.history(:'c');
select tests.equals(content, '', 'content of the deleted message') from public.user_messages where id = :'sent_id';

-- The server determines the times and pages of presence.
select tests.equals((status, current_page, last_seen > '2001-01-02')::text, '(online,,t)', 'first') from tests.upsert_presence(tests.id('ana'), 'online');
select tests.equals((status, updated_at > '2001-01-02')::text, '(away,t)', 'again') from tests.upsert_presence(tests.id('ana'), 'away');
select tests.expect_error($$select tests.upsert_presence(tests.id('ben'), 'online')$$, '42501');

-- from('user_presence').upsert({ user_id, is_typing_to, typing_started_at }), and the end of typing
insert into "public"."user_presence" ("is_typing_to", "typing_started_at", "user_id")
values (tests.id('ben'), now(), tests.id('ana'))
on conflict ("user_id") do update set
  "is_typing_to" = excluded."is_typing_to", "typing_started_at" = excluded."typing_started_at", "user_id" = excluded."user_id";
select tests.act_as('ben');
select tests.equals((status, is_typing_to)::text, format('(away,%s)', tests.id('ben')), 'typing') from public.user_presence where user_id = tests.id('ana');
select tests.act_as('ana');
update "public"."user_presence" set "is_typing_to" = null, "typing_started_at" = null where "public"."user_presence"."user_id" = tests.id('ana');
select tests.act_as('ben');
select tests.equals(is_typing_to, null, 'no longer typing') from public.user_presence where user_id = tests.id('ana');

-- A client without a sign-in sees no rows.
select tests.act_as('anon');
select tests.expect_error('select tests.listed()', '42501');
select tests.expect_error(format('select tests.history(%L)', :'c'), '42501');
select tests.expect_error(format('select public.get_or_create_conversation("other_user_id" := %L)', tests.id('ben')), '42501');

rollback;
