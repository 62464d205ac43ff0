-- The private channels of the chat: conversation:<id> for its members, user:<id> for that user.
-- Users receive and, in a conversation, appear in presence. Only the server sends.
--
-- A policy checks the topic of the row itself. The setting realtime.topic contains the topic that a
-- caller asks about. A role that may run SQL can set it to one of its own topics and then insert or
-- read rows of another topic.
--
-- The functions of these policies have a cost of almost 0, so that they are evaluated before every
-- condition of a query; see 90_policies.sql of the chat.
--
-- Rows with extension presence, which members may store, must have the current time. Otherwise,
-- rows for a day without a partition, or for a day that never comes, would collect in the default
-- partition.

create or replace function chat.is_chat_topic(topic text)
returns boolean
language plpgsql
immutable
parallel safe
cost 1e-30
set search_path = pg_catalog, pg_temp
as $$
begin
  return topic ~ '^(conversation|user):[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';
end
$$;

comment on function chat.is_chat_topic(text) is 'Returns whether this is the topic of a private channel of the chat.';

-- This function and the next are the only ones in this schema that every role may execute, because
-- the policies that exclude roles must be evaluated for them.
grant execute on function chat.is_chat_topic(text) to public;

create or replace function chat.is_requested_topic(topic text, requested text)
returns boolean
language plpgsql
immutable
parallel safe
cost 1e-30
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(topic = nullif(requested, ''), true);
end
$$;

comment on function chat.is_requested_topic(text, text) is
  'Returns whether the topic of a row is the one in the setting realtime.topic, or the setting is empty.';

grant execute on function chat.is_requested_topic(text, text) to public;

create or replace function chat.may_listen(topic text)
returns boolean
language plpgsql
stable
security definer
cost 1e-30
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Only the lower-case spelling of an id is a topic, because the server sends messages and revokes
  -- rights only there.
  if not coalesce(chat.is_chat_topic(topic), false) or topic <> lower(topic) then
    return false;
  end if;
  return case split_part(topic, ':', 1)
    when 'user' then coalesce(split_part(topic, ':', 2)::uuid = chat.my_id(), false)
    else chat.is_my_conversation(split_part(topic, ':', 2)::uuid)
  end;
end
$$;

-- The payload of presence is chosen by its sender, so presence requires permission to write.
create or replace function chat.may_appear(topic text)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not chat.may_listen(topic) then
    return false;
  end if;
  -- No other user can join a user's own topic.
  return topic like 'user:%' or chat.can_send(split_part(topic, ':', 2)::uuid);
end
$$;

comment on function chat.may_appear(text) is 'Returns whether the caller may appear in presence on this topic of the chat. False for every other topic.';

revoke all on function chat.may_appear(text) from public;
grant execute on function chat.may_appear(text) to authenticated;

comment on function chat.may_listen(text) is 'Returns whether the caller may receive messages on this topic of the chat. False for every other topic.';

revoke all on function chat.may_listen(text) from public;
grant execute on function chat.may_listen(text) to authenticated;

-- Supabase grants users UPDATE on the whole table, which includes "lock table", so a user could
-- stop every channel. A grant on the columns suffices for the application's own policies.
do $$
declare
  columns text;
begin
  if coalesce(obj_description(to_regclass('realtime.messages'), 'pg_class') not like 'Made by Rapport%', true) then
    return;
  end if;
  select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into columns
  from pg_catalog.pg_attribute a
  where a.attrelid = 'realtime.messages'::regclass and a.attnum > 0 and not a.attisdropped;
  revoke update on realtime.messages from anon, authenticated;
  execute format('grant update (%s) on realtime.messages to anon, authenticated', columns);
end
$$;

do $$
begin
  drop policy if exists "people listen to their own chat topics" on realtime.messages;
  create policy "people listen to their own chat topics" on realtime.messages
    for select to authenticated
    -- PostgreSQL plans the body of may_listen() in every transaction that calls it. It is therefore
    -- not called for topics of the application.
    using (extension in ('broadcast', 'presence') and chat.is_chat_topic(topic) and chat.may_listen(topic));

  drop policy if exists "members show themselves in their conversations" on realtime.messages;
  drop policy if exists "members appear in their conversations" on realtime.messages;
  create policy "members appear in their conversations" on realtime.messages
    for insert to authenticated
    with check (
      extension = 'presence'
      and topic like 'conversation:%'
      and inserted_at between (now() at time zone 'utc') - interval '1 minute' and (now() at time zone 'utc') + interval '1 minute'
      and chat.may_appear(topic)
    );

  -- The application's policies for its own topics must not give access to topics of the chat. The
  -- permissive policies above repeat the condition, so that neither type of policy depends on the
  -- other. The stable functions are not in a sub-select, because the server checks two rows at a
  -- time and a plan node costs more than two calls.

  drop policy if exists "others do not listen to chat topics" on realtime.messages;
  drop policy if exists "only permitted users listen to chat topics" on realtime.messages;
  create policy "only permitted users listen to chat topics" on realtime.messages
    as restrictive for select to authenticated
    using (not chat.is_chat_topic(topic) or chat.may_listen(topic));

  drop policy if exists "only the server sends on chat topics" on realtime.messages;
  create policy "only the server sends on chat topics" on realtime.messages
    as restrictive for insert to authenticated
    with check (
      not chat.is_chat_topic(topic)
      or (
        extension = 'presence'
        and inserted_at between (now() at time zone 'utc') - interval '1 minute' and (now() at time zone 'utc') + interval '1 minute'
        and chat.may_appear(topic)
      )
    );

  -- Stored messages are replayed, so an update could create one for a topic that its author may not
  -- send to.
  drop policy if exists "nobody rewrites messages of chat topics" on realtime.messages;
  drop policy if exists "users do not update messages of chat topics" on realtime.messages;
  create policy "users do not update messages of chat topics" on realtime.messages
    as restrictive for update to authenticated
    using (not chat.is_chat_topic(topic))
    with check (not chat.is_chat_topic(topic));

  -- Excludes anon, and roles of the application that are neither users nor the server.
  drop policy if exists "nobody without a name uses chat topics" on realtime.messages;
  drop policy if exists "only people and the server use chat topics" on realtime.messages;
  create policy "only people and the server use chat topics" on realtime.messages
    as restrictive for all to public
    using (
      pg_has_role('authenticated', 'usage') or pg_has_role('service_role', 'usage')
      or not chat.is_chat_topic(topic)
    )
    with check (
      pg_has_role('authenticated', 'usage') or pg_has_role('service_role', 'usage')
      or not chat.is_chat_topic(topic)
    );

  -- The application's own policies usually check the setting, so they would accept a row of another
  -- topic. If the setting is empty, those policies decide alone. The expression does not call
  -- realtime.topic(), because Supabase's text of that function names types without a schema (see
  -- chat.my_id()).
  drop policy if exists "messages are of the topic that was asked about" on realtime.messages;
  drop policy if exists "messages belong to the requested topic" on realtime.messages;
  create policy "messages belong to the requested topic" on realtime.messages
    as restrictive for all to public
    using (chat.is_requested_topic(topic, (select current_setting('realtime.topic', true))))
    with check (chat.is_requested_topic(topic, (select current_setting('realtime.topic', true))));
exception when insufficient_privilege then
  raise warning '% may not create policies on realtime.messages: the private channels of the chat stay closed.', current_user;
end
$$;
