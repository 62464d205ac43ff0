-- Conversations as in REST responses. The row functions run as their caller, under row-level
-- security. Data that the caller cannot read directly (names in the application's tables, blocks,
-- hidden presence) comes from one definer function that starts from the caller's memberships. That
-- function is in plpgsql, which keeps its plans between calls.

create or replace function chat.conversation_people(conversation_ids uuid[])
returns table (
  conversation_id uuid,
  user_id uuid,
  full_name text,
  email text,
  avatar_url text,
  status text,
  last_seen timestamptz
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  select
    mine.conversation_id,
    other.user_id,
    d.display_name,
    d.email,
    d.avatar_url,
    case when other.user_id = mine.user_id or prefs.share_presence is distinct from false then coalesce(p.status, 'offline') else 'offline' end,
    case when other.user_id = mine.user_id or prefs.share_presence is distinct from false then p.last_seen end
  from public.user_conversation_members mine
  join public.user_conversation_members other on other.conversation_id = mine.conversation_id
  left join chat.directory d on d.user_id = other.user_id
  -- Like the policy of user_presence: a conversation shows the presence of its current members.
  left join public.user_presence p
    on p.user_id = other.user_id
    and (other.left_at is null or other.user_id in (select chat.known_people_ids()))
  left join public.user_notification_preferences prefs on prefs.user_id = other.user_id
  where mine.conversation_id = any (conversation_people.conversation_ids)
    and mine.user_id = (select auth.uid())
    and mine.left_at is null;
end
$$;

comment on function chat.conversation_people(uuid[]) is
  'All current and former members of each of the given conversations that the caller is a member of. Other conversations yield nothing.';

revoke all on function chat.conversation_people(uuid[]) from public;
grant execute on function chat.conversation_people(uuid[]) to authenticated;

create or replace function chat.conversation_rows(conversation_ids uuid[])
returns table (
  conversation_id uuid,
  is_pinned boolean,
  last_activity_at timestamptz,
  rev bigint,
  "row" json
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with people as materialized (
    select
      p.conversation_id,
      p.user_id,
      json_build_object(
        'id', p.user_id,
        'full_name', p.full_name,
        'email', p.email,
        'avatar_url', p.avatar_url,
        'status', p.status,
        'last_seen', p.last_seen
      ) as card
    from chat.conversation_people(conversation_rows.conversation_ids) p
  )
  select
    c.id,
    mine.is_pinned,
    mine.last_activity_at,
    c.rev,
    json_build_object(
      'id', c.id,
      'kind', c.kind,
      'participant_1_id', c.participant_1_id,
      'participant_2_id', c.participant_2_id,
      'title', c.title,
      'team_id', c.team_id,
      'created_by', c.created_by,
      'created_at', c.created_at,
      'updated_at', c.updated_at,
      'last_message_at', c.last_message_at,
      'last_message_id', newest.id,
      'is_archived', mine.is_archived,
      'participant_1', first.card,
      'participant_2', second.card,
      'other_user', case when c.kind = 'direct' then case mine.user_id when c.participant_1_id then second.card else first.card end end,
      'last_message', newest.preview,
      'unread_count', mine.unread_count,
      'mention_count', mine.mention_count,
      'marked_unread', mine.marked_unread,
      'last_read_message_id', mine.last_read_message_id,
      'last_read_seq', mine.last_read_seq,
      'last_read_at', mine.last_read_at,
      'cleared_seq', mine.cleared_seq,
      'is_pinned', mine.is_pinned,
      'pinned_at', mine.pinned_at,
      'is_muted', mine.is_muted and coalesce(mine.muted_until > now(), true),
      'muted_until', mine.muted_until,
      'notification_level', mine.notification_level,
      'draft', draft.content,
      'peer_last_read_message_id', peer.last_read_message_id,
      'peer_last_read_seq', peer.last_read_seq,
      'peer_last_delivered_message_id', peer.last_delivered_message_id,
      'peer_last_delivered_seq', peer.last_delivered_seq,
      'can_send', chat.can_send(c.id),
      'last_seq', c.last_seq,
      'rev', c.rev
    )
  from public.user_conversation_members mine
  join public.user_conversations c on c.id = mine.conversation_id
  left join people first on first.conversation_id = c.id and first.user_id = c.participant_1_id
  left join people second on second.conversation_id = c.id and second.user_id = c.participant_2_id
  left join public.message_drafts draft on draft.conversation_id = c.id and draft.user_id = mine.user_id
  left join lateral (
    -- The last message that the caller sees. It is not the newest one if the caller cleared or hid
    -- the newest one.
    select
      m.id,
      json_build_object(
        'id', m.id,
        'content', m.content,
        'message_type', m.message_type,
        'sender_id', m.sender_id,
        'created_at', m.created_at,
        'is_deleted', m.is_deleted,
        'file_name', m.file_name
      ) as preview
    from public.user_messages m
    where m.conversation_id = c.id
      and m.seq > mine.cleared_seq
      and not exists (
        select
        from public.message_hides h
        where h.user_id = mine.user_id and h.message_id = m.id
      )
    order by m.seq desc
    limit 1
  ) newest on true
  left join lateral (
    select r.last_read_message_id, r.last_read_seq, r.last_delivered_message_id, r.last_delivered_seq
    from public.conversation_receipts r
    where r.conversation_id = c.id
      and r.user_id <> mine.user_id
      and c.kind = 'direct'
      -- A user who does not share receipts does not see those of other users either.
      and (select chat.i_share_receipts())
    limit 1
  ) peer on true
  where mine.user_id = (select auth.uid())
    and mine.conversation_id = any (conversation_rows.conversation_ids);
end
$$;

comment on function chat.conversation_rows(uuid[]) is
  'The caller''s view of the given conversations, one row each in no particular order. Conversations of other users are omitted. is_pinned, last_activity_at and id are the sort key of the list.';

revoke all on function chat.conversation_rows(uuid[]) from public;
grant execute on function chat.conversation_rows(uuid[]) to authenticated;

create or replace function chat.i_share_receipts()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The caller can read only their own row of this table.
  return coalesce(
    (select p.share_read_receipts from public.user_notification_preferences p where p.user_id = (select auth.uid())),
    true
  );
end
$$;

comment on function chat.i_share_receipts() is 'Returns whether the caller shares read receipts.';

revoke all on function chat.i_share_receipts() from public;
grant execute on function chat.i_share_receipts() to authenticated;

-- Returns one page of the list: pinned conversations first, then by latest activity. The index of
-- the members' table has this order, so the cost depends on the length of the page and not on the
-- number of conversations.
create or replace function chat.conversation_page(
  archived boolean default false,
  pinned boolean default null,
  unread boolean default null,
  search text default null,
  updated_since timestamptz default null,
  max_rows int default 30,
  skip_rows int default 0,
  from_is_pinned boolean default null,
  from_activity_at timestamptz default null,
  from_id uuid default null,
  backwards boolean default false
)
returns table (
  conversation_id uuid,
  is_pinned boolean,
  last_activity_at timestamptz,
  rev bigint,
  "row" json
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  pattern constant text := '%' || replace(replace(replace(btrim(conversation_page.search), '\', '\\'), '%', '\%'), '_', '\_') || '%';
  -- Folded like messages in the search. Null if nothing remains after folding.
  folded constant text := '%' || nullif(chat.folded_text(conversation_page.search), '') || '%';
  named uuid[];
  page uuid[];
begin
  if pattern is not null then
    named := array(
      select p.conversation_id
      from chat.conversation_people(array(select chat.my_conversation_ids())) p
      where p.user_id <> auth.uid()
        and (p.full_name ilike pattern or p.email ilike pattern or (folded is not null and chat.folded_text(p.full_name) like folded))
      union
      select c.id
      from public.user_conversations c
      where c.title ilike pattern or (folded is not null and chat.folded_text(c.title) like folded)
    );
  end if;

  -- Two statements, so that each starts its index scan at the cursor.
  if backwards then
    page := array(
      select m.conversation_id
      from public.user_conversation_members m
      where m.user_id = (select auth.uid())
        and m.left_at is null
        and not m.hidden
        and (m.is_pinned, m.last_activity_at, m.conversation_id) > (from_is_pinned, from_activity_at, from_id)
        and (archived is null or m.is_archived = archived)
        and (pinned is null or m.is_pinned = pinned)
        and (unread is null or (m.unread_count > 0 or m.marked_unread) = unread)
        and (updated_since is null or m.last_activity_at > updated_since)
        and (named is null or m.conversation_id = any (named))
      order by m.is_pinned, m.last_activity_at, m.conversation_id
      limit least(greatest(coalesce(max_rows, 30), 1), 101)
    );
  else
    page := array(
      select m.conversation_id
      from public.user_conversation_members m
      where m.user_id = (select auth.uid())
        and m.left_at is null
        and not m.hidden
        and (m.is_pinned, m.last_activity_at, m.conversation_id)
          < (coalesce(from_is_pinned, true), coalesce(from_activity_at, 'infinity'), coalesce(from_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
        and (archived is null or m.is_archived = archived)
        and (pinned is null or m.is_pinned = pinned)
        and (unread is null or (m.unread_count > 0 or m.marked_unread) = unread)
        and (updated_since is null or m.last_activity_at > updated_since)
        and (named is null or m.conversation_id = any (named))
      order by m.is_pinned desc, m.last_activity_at desc, m.conversation_id desc
      limit least(greatest(coalesce(max_rows, 30), 1), 101)
      offset greatest(coalesce(skip_rows, 0), 0)
    );
  end if;

  return query
  select r.*
  from chat.conversation_rows(page) r
  order by r.is_pinned desc, r.last_activity_at desc, r.conversation_id desc;
end
$$;

comment on function chat.conversation_page(boolean, boolean, boolean, text, timestamptz, int, int, boolean, timestamptz, uuid, boolean) is
  'A page of the caller''s list. A null filter matches everything. The next page starts after the sort key of the last row. The previous page, with backwards, ends before the sort key of the first row. The rows have the order of the list in both directions. Returns at most 101 rows: one more than a page of 100 shows whether there is another page.';

revoke all on function chat.conversation_page(boolean, boolean, boolean, text, timestamptz, int, int, boolean, timestamptz, uuid, boolean) from public;
grant execute on function chat.conversation_page(boolean, boolean, boolean, text, timestamptz, int, int, boolean, timestamptz, uuid, boolean) to authenticated;
