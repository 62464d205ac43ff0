-- The caller, the members of a conversation, and the caller's contacts.

create or replace function chat.me()
returns json
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
begin
  return (
    select json_build_object(
      'id', c.user_id,
      'full_name', d.display_name,
      'email', d.email,
      'avatar_url', d.avatar_url,
      'role', d.role,
      'teams', (
        select coalesce(json_agg(json_build_object('id', m.team_id, 'name', t.name) order by t.name, m.team_id), '[]')
        from chat.memberships m
        left join chat.teams t on t.team_id = m.team_id
        where m.user_id = c.user_id
      ),
      'can_write', coalesce(d.is_active, false)
    )
    from (values (caller)) c (user_id)
    left join chat.directory d on d.user_id = c.user_id
  );
end
$$;

comment on function chat.me() is
  'The caller, with the data of the application. A user who is unknown to the application, or suspended, may not write.';

revoke all on function chat.me() from public;
grant execute on function chat.me() to authenticated;

create or replace function chat.member_page(conversation_id uuid, max_rows int default 50, after_id uuid default null)
returns table (member_id uuid, "row" json)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  caller constant uuid := auth.uid();
  -- A user who does not share receipts does not see those of other users either.
  shares constant boolean := chat.i_share_receipts();
begin
  if not chat.is_my_conversation(conversation_id) then
    perform chat.refuse('not_found');
  end if;

  return query
  select
    m.user_id,
    json_build_object(
      'id', m.user_id,
      'full_name', p.full_name,
      'email', p.email,
      'avatar_url', p.avatar_url,
      'status', p.status,
      'last_seen', p.last_seen,
      'member_role', m.member_role,
      'joined_at', m.joined_at,
      'last_read_message_id', case when m.user_id = caller then m.last_read_message_id when shares then r.last_read_message_id end,
      'last_read_at', case when m.user_id = caller then m.last_read_at when shares then r.last_read_at end,
      'last_delivered_message_id', case when m.user_id = caller or shares then r.last_delivered_message_id end,
      'last_delivered_at', case when m.user_id = caller or shares then r.last_delivered_at end
    )
  from public.user_conversation_members m
  join chat.conversation_people(array[member_page.conversation_id]) p on p.user_id = m.user_id
  left join public.conversation_receipts r on r.conversation_id = m.conversation_id and r.user_id = m.user_id
  where m.conversation_id = member_page.conversation_id
    and m.left_at is null
    and (after_id is null or m.user_id > after_id)
  order by m.user_id
  limit least(greatest(coalesce(max_rows, 50), 1), 101);
end
$$;

comment on function chat.member_page(uuid, int, uuid) is
  'The members of one of the caller''s conversations, in the order of their ids, with the read positions that they share. Raises not_found for strangers.';

revoke all on function chat.member_page(uuid, int, uuid) from public;
grant execute on function chat.member_page(uuid, int, uuid) to authenticated;

-- Returns the users that the caller has a conversation with, the latest first, then the other
-- members of the caller's teams by name. from_*: the time, name and id of the contact after which
-- the page starts. Contacts without a message have the time -infinity.
create or replace function chat.contact_page(
  max_rows int default 50,
  from_message_at timestamptz default null,
  from_name text default null,
  from_id uuid default null
)
returns table (contact_id uuid, message_at timestamptz, name text, "row" json)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  caller constant uuid := auth.uid();
begin
  if not exists (select from chat.directory d where d.user_id = caller and d.is_active) then
    return;
  end if;

  return query
  with talked_to as materialized (
    select other.user_id, c.id as conversation_id, c.last_message_at
    from public.user_conversation_members mine
    join public.user_conversations c on c.id = mine.conversation_id and c.kind = 'direct'
    join public.user_conversation_members other on other.conversation_id = c.id and other.user_id <> caller
    where mine.user_id = caller and mine.left_at is null and other.left_at is null
  ),
  mates as materialized (
    select theirs.user_id, min(theirs.team_id) as team_id
    from chat.memberships mine
    join chat.memberships theirs on theirs.team_id = mine.team_id
    where mine.user_id = caller and theirs.user_id <> caller
    group by theirs.user_id
  ),
  listed as materialized (
    select
      d.user_id,
      d.display_name,
      d.email,
      d.avatar_url,
      d.role,
      mate.team_id,
      t.conversation_id,
      t.last_message_at,
      coalesce(t.last_message_at, '-infinity') as sorted_at,
      coalesce(d.display_name, '') as sorted_name
    from talked_to t
    full join mates mate on mate.user_id = t.user_id
    join chat.directory d on d.user_id = coalesce(t.user_id, mate.user_id)
    where d.is_active
      and not exists (
        select
        from public.user_blocks b
        where (b.blocker_id = caller and b.blocked_id = d.user_id)
          or (b.blocker_id = d.user_id and b.blocked_id = caller)
      )
  )
  select
    l.user_id,
    l.sorted_at,
    l.sorted_name,
    json_build_object(
      'id', l.user_id,
      'full_name', l.display_name,
      'email', l.email,
      'avatar_url', l.avatar_url,
      'status', case when prefs.share_presence is false then 'offline' else coalesce(p.status, 'offline') end,
      'last_seen', case when prefs.share_presence is not false then p.last_seen end,
      'team_id', l.team_id,
      'role', l.role,
      'conversation_id', l.conversation_id,
      'last_message_at', l.last_message_at
    )
  from (
    select *
    from listed
    where from_id is null
      or listed.sorted_at < from_message_at
      or (listed.sorted_at = from_message_at and (listed.sorted_name, listed.user_id) > (from_name, from_id))
    order by listed.sorted_at desc, listed.sorted_name, listed.user_id
    limit least(greatest(coalesce(max_rows, 50), 1), 101)
  ) l
  left join public.user_presence p on p.user_id = l.user_id
  left join public.user_notification_preferences prefs on prefs.user_id = l.user_id
  order by l.sorted_at desc, l.sorted_name, l.user_id;
end
$$;

comment on function chat.contact_page(int, timestamptz, text, uuid) is
  'The users that the caller has a conversation with, latest first, then the other members of the caller''s teams by name. Blocked, blocking and suspended users are excluded.';

revoke all on function chat.contact_page(int, timestamptz, text, uuid) from public;
grant execute on function chat.contact_page(int, timestamptz, text, uuid) to authenticated;
