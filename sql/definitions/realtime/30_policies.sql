-- The private channels of the chat: conversation:<id> for its members, user:<id> for that person.
-- They listen and, in a conversation, show themselves; only the server sends.

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

revoke all on function chat.is_chat_topic(text) from public;
-- anon's one right in this schema: a policy that shuts it out has to be evaluated
grant execute on function chat.is_chat_topic(text) to anon, authenticated;

create or replace function chat.may_listen(topic text)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not coalesce(chat.is_chat_topic(topic), false) then
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
    using (extension in ('broadcast', 'presence') and chat.may_listen((select realtime.topic())));

  drop policy if exists "members show themselves in their conversations" on realtime.messages;
  create policy "members show themselves in their conversations" on realtime.messages
    for insert to authenticated
    with check (
      extension = 'presence'
      and (select realtime.topic()) like 'conversation:%'
      and chat.may_appear((select realtime.topic()))
    );

  -- whatever the application allows on its own topics does not open these
  drop policy if exists "others do not listen to chat topics" on realtime.messages;
  create policy "others do not listen to chat topics" on realtime.messages
    as restrictive for select to authenticated
    using (
      not coalesce(chat.is_chat_topic((select realtime.topic())), false)
      or chat.may_listen((select realtime.topic()))
    );

  drop policy if exists "only the server sends on chat topics" on realtime.messages;
  create policy "only the server sends on chat topics" on realtime.messages
    as restrictive for insert to authenticated
    with check (
      not coalesce(chat.is_chat_topic((select realtime.topic())), false)
      or (extension = 'presence' and chat.may_appear((select realtime.topic())))
    );

  drop policy if exists "nobody without a name uses chat topics" on realtime.messages;
  create policy "nobody without a name uses chat topics" on realtime.messages
    as restrictive for all to anon
    using (not coalesce(chat.is_chat_topic((select realtime.topic())), false))
    with check (not coalesce(chat.is_chat_topic((select realtime.topic())), false));
exception when insufficient_privilege then
  raise warning '% may not write policies on realtime.messages: the private channels of the chat stay closed.', current_user;
end
$$;
