-- The private channels of the chat: conversation:<id> for its members, user:<id> for that person.
-- They listen and, in a conversation, show themselves; only the server sends.
--
-- A policy judges a row by its own topic. The setting realtime.topic says which topic a caller asks about, and whoever
-- may run SQL may set it to a topic of theirs and then insert or read rows of another.

create or replace function chat.is_chat_topic(topic text)
returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return topic ~ '^(conversation|user):[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';
end
$$;

comment on function chat.is_chat_topic(text) is 'Is this a private channel of the chat?';

-- the one right in this schema that every role has: the policies that shut a role out have to be evaluated
grant execute on function chat.is_chat_topic(text) to public;

create or replace function chat.may_listen(topic text)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- only one spelling of an id is a topic: the one that the server sends on and revokes
  if not coalesce(chat.is_chat_topic(topic), false) or topic <> lower(topic) then
    return false;
  end if;
  return case split_part(topic, ':', 1)
    when 'user' then coalesce(split_part(topic, ':', 2)::uuid = auth.uid(), false)
    else chat.is_my_conversation(split_part(topic, ':', 2)::uuid)
  end;
end
$$;

-- Presence is whatever its sender writes into it, so that it is for those who may write.
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
  -- on one's own topic nobody else is there to see it
  return topic like 'user:%' or chat.can_send(split_part(topic, ':', 2)::uuid);
end
$$;

comment on function chat.may_appear(text) is 'May the caller show their presence on this topic of the chat? False for every other topic.';

revoke all on function chat.may_appear(text) from public;
grant execute on function chat.may_appear(text) to authenticated;

comment on function chat.may_listen(text) is 'May the caller listen to this topic of the chat? False for every other topic.';

revoke all on function chat.may_listen(text) from public;
grant execute on function chat.may_listen(text) to authenticated;

do $$
begin
  drop policy if exists "people listen to their own chat topics" on realtime.messages;
  create policy "people listen to their own chat topics" on realtime.messages
    for select to authenticated
    using (extension in ('broadcast', 'presence') and chat.may_listen(topic));

  drop policy if exists "members show themselves in their conversations" on realtime.messages;
  create policy "members show themselves in their conversations" on realtime.messages
    for insert to authenticated
    with check (extension = 'presence' and topic like 'conversation:%' and chat.may_appear(topic));

  -- Whatever the application allows on its own topics does not open those of the chat. The permissive policies above ask
  -- the same again, so that neither kind depends on the other being there. Without a sub-select around the stable
  -- functions: the server asks about two rows at a time, and a plan node costs more than both calls.

  drop policy if exists "others do not listen to chat topics" on realtime.messages;
  create policy "others do not listen to chat topics" on realtime.messages
    as restrictive for select to authenticated
    using (not chat.is_chat_topic(topic) or chat.may_listen(topic));

  drop policy if exists "only the server sends on chat topics" on realtime.messages;
  create policy "only the server sends on chat topics" on realtime.messages
    as restrictive for insert to authenticated
    with check (not chat.is_chat_topic(topic) or (extension = 'presence' and chat.may_appear(topic)));

  -- a stored message is replayed: an update could make one for a topic that may not be sent to
  drop policy if exists "nobody rewrites messages of chat topics" on realtime.messages;
  create policy "nobody rewrites messages of chat topics" on realtime.messages
    as restrictive for update to authenticated
    using (not chat.is_chat_topic(topic))
    with check (not chat.is_chat_topic(topic));

  -- anon, and roles of the application that are neither people nor the server
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

  -- The application's own policies ask for the setting as a rule, so that a row of another topic would pass them. Where
  -- nothing is set they answer for themselves.
  drop policy if exists "messages are of the topic that was asked about" on realtime.messages;
  create policy "messages are of the topic that was asked about" on realtime.messages
    as restrictive for all to public
    using (coalesce(topic = realtime.topic(), true))
    with check (coalesce(topic = realtime.topic(), true));
exception when insufficient_privilege then
  raise warning '% may not write policies on realtime.messages: the private channels of the chat stay closed.', current_user;
end
$$;
