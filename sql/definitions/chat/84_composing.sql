-- Functions for the server: a member's unsent draft, and whether they may send it. The server sends
-- both only to that member's devices. Clients call chat.conversation_rows() instead.

-- The memberships are given as two arrays of the same length.
create or replace function chat.composing(user_ids uuid[], conversation_ids uuid[])
returns table (user_id uuid, conversation_id uuid, draft text, can_send boolean)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    m.user_id,
    m.conversation_id,
    d.content,
    c.kind = 'group' or chat.may_message(
      m.user_id,
      case m.user_id when c.participant_1_id then c.participant_2_id else c.participant_1_id end,
      true
    )
  from unnest(composing.user_ids, composing.conversation_ids) asked (user_id, conversation_id)
  join public.user_conversation_members m
    on m.user_id = asked.user_id and m.conversation_id = asked.conversation_id and m.left_at is null
  join public.user_conversations c on c.id = m.conversation_id
  left join public.message_drafts d on d.user_id = m.user_id and d.conversation_id = m.conversation_id;
end
$$;

comment on function chat.composing(uuid[], uuid[]) is
  'For the server. Returns the draft of each of these memberships, and whether its member may write in the conversation now.';

revoke all on function chat.composing(uuid[], uuid[]) from public;
grant execute on function chat.composing(uuid[], uuid[]) to service_role;

-- Returns the memberships whose can_send depends on the standing of the given users, or of the two
-- users in the given conversations.
create or replace function chat.memberships_with(user_ids uuid[], conversation_ids uuid[])
returns table (user_id uuid, conversation_id uuid)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select m.user_id, m.conversation_id
  from public.user_conversation_members m
  join public.user_conversations c on c.id = m.conversation_id and c.kind = 'direct'
  where m.left_at is null
    and c.id in (
      select theirs.conversation_id
      from public.user_conversation_members theirs
      where theirs.user_id = any (memberships_with.user_ids)
      union
      select unnest(memberships_with.conversation_ids)
    );
end
$$;

comment on function chat.memberships_with(uuid[], uuid[]) is
  'For the server. Returns the memberships in these direct conversations, and in all direct conversations of these users.';

revoke all on function chat.memberships_with(uuid[], uuid[]) from public;
grant execute on function chat.memberships_with(uuid[], uuid[]) to service_role;
