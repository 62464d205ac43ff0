-- Functions that determine who may message which user, whose presence is visible, and which users a
-- search finds. Clients cannot execute any function that accepts two arbitrary users, because it
-- would reveal facts about others.

-- Returns whether writer may message reader. With answering, the two already have a conversation,
-- and it suffices that either of them could have opened it.
create or replace function chat.may_message(writer uuid, reader uuid, answering boolean)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select
    from chat.directory w
    join chat.directory r on r.user_id = may_message.reader
    where w.user_id = may_message.writer
      and w.user_id <> r.user_id
      and w.is_active
      and r.is_active
      and not exists (
        select
        from public.user_blocks b
        where (b.blocker_id = w.user_id and b.blocked_id = r.user_id)
          or (b.blocker_id = r.user_id and b.blocked_id = w.user_id)
      )
      and (
        'super_admin' = w.role
        or (answering and 'super_admin' = r.role)
        or exists (
          select
          from chat.memberships one
          join chat.memberships two on two.team_id = one.team_id
          where one.user_id = may_message.writer and two.user_id = may_message.reader
        )
        or (('admin' = w.role or (answering and 'admin' = r.role)) and chat.flag('admin_cross_team'))
      )
  );
end
$$;

revoke all on function chat.may_message(uuid, uuid, boolean) from public;

-- This is not an SQL function, because one that is not inlined would be parsed and planned again on
-- every call, which takes several times as long as the look-up.
create or replace function chat.my_conversation_ids()
returns setof uuid
language plpgsql
stable
security definer
rows 100
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select m.conversation_id
  from public.user_conversation_members m
  where m.user_id = (select chat.my_id()) and m.left_at is null;
end
$$;

comment on function chat.my_conversation_ids() is
  'The ids of the caller''s conversations.';

revoke all on function chat.my_conversation_ids() from public;
grant execute on function chat.my_conversation_ids() to authenticated;

-- A policy that calls this function is evaluated before every condition of a query; see
-- 90_policies.sql. A jsonb object is searched in logarithmic time and, unlike an array, is not
-- copied for each call.
create or replace function chat.has_key(keys jsonb, id uuid)
returns boolean
language plpgsql
immutable
strict
parallel safe
cost 1e-30
set search_path = pg_catalog, pg_temp
as $$
begin
  return keys ? id::text;
end
$$;

comment on function chat.has_key(jsonb, uuid) is
  'Returns whether the id is a key of the object. For policies: the cost of the function is almost 0, so that it is evaluated before every condition of the query.';

revoke all on function chat.has_key(jsonb, uuid) from public;
grant execute on function chat.has_key(jsonb, uuid) to authenticated;

create or replace function chat.my_conversation_keys()
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Does not use chat.my_conversation_ids(), which would store the rows once more in every
  -- statement.
  return (
    select coalesce(jsonb_object_agg(m.conversation_id, null), '{}')
    from public.user_conversation_members m
    where m.user_id = (select chat.my_id()) and m.left_at is null
  );
end
$$;

comment on function chat.my_conversation_keys() is
  'The ids of the caller''s conversations as the keys of an object, for chat.has_key().';

revoke all on function chat.my_conversation_keys() from public;
grant execute on function chat.my_conversation_keys() to authenticated;

-- Returns the users that the caller knows: themselves, the members of their teams, and everyone
-- they have a conversation with.
create or replace function chat.known_people_ids()
returns setof uuid
language plpgsql
stable
security definer
rows 200
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select chat.my_id()
  union
  select theirs.user_id
  from chat.memberships mine
  join chat.memberships theirs on theirs.team_id = mine.team_id
  where mine.user_id = (select chat.my_id())
  union
  select other.user_id
  from public.user_conversation_members mine
  join public.user_conversation_members other on other.conversation_id = mine.conversation_id
  where mine.user_id = (select chat.my_id()) and mine.left_at is null and other.left_at is null;
end
$$;

comment on function chat.known_people_ids() is
  'The users whose row of user_presence the caller may read. The row of a user who does not share their presence contains nothing.';

revoke all on function chat.known_people_ids() from public;
grant execute on function chat.known_people_ids() to authenticated;

create or replace function chat.known_people_keys()
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select coalesce(jsonb_object_agg(id, null) filter (where id is not null), '{}') from chat.known_people_ids() id);
end
$$;

comment on function chat.known_people_keys() is
  'The ids of the users whose row of user_presence the caller may read, as the keys of an object, for chat.has_key().';

revoke all on function chat.known_people_keys() from public;
grant execute on function chat.known_people_keys() to authenticated;

create or replace function chat.visible_people_ids()
returns setof uuid
language plpgsql
stable
security definer
rows 200
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select seen.user_id
  from chat.known_people_ids() seen (user_id)
  where seen.user_id = (select chat.my_id()) or not exists (
    select
    from public.user_notification_preferences p
    where p.user_id = seen.user_id and not p.share_presence
  );
end
$$;

comment on function chat.visible_people_ids() is 'The users whose presence the caller may see: the caller, and those users whom the caller knows and who share their presence.';

revoke all on function chat.visible_people_ids() from public;
grant execute on function chat.visible_people_ids() to authenticated;

-- Returns an ilike pattern that finds a part of a name or e-mail address. Characters with a special
-- meaning in patterns are escaped.
create or replace function chat.containing(part text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return '%' || replace(replace(replace(btrim(part), '\', '\\'), '%', '\%'), '_', '\_') || '%';
end
$$;

revoke all on function chat.containing(text) from public;

create or replace function chat.search_people(query text, max_rows int default 10)
returns table (
  id uuid,
  full_name text,
  email text,
  avatar_url text,
  status text,
  team_id text,
  role text
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  wanted constant text := btrim(search_people.query);
  pattern constant text := chat.containing(search_people.query);
  -- The query is folded like messages in the search, so "lodz" finds "Łódź". At least two
  -- characters must remain after folding.
  folded constant text := chat.folded_text(search_people.query);
  folded_pattern constant text := case when char_length(folded) >= 2 then '%' || folded || '%' end;
  caller_role text := (select d.role from chat.directory d where d.user_id = caller and d.is_active);
  everywhere boolean := coalesce(caller_role = 'super_admin' or (caller_role = 'admin' and chat.flag('admin_cross_team')), false);
begin
  if caller_role is null or char_length(wanted) < 2 then
    return;
  end if;

  return query
  select
    d.user_id,
    d.display_name,
    d.email,
    d.avatar_url,
    -- An admin also finds users whose presence they may not see.
    case
      when prefs.share_presence is false or d.user_id not in (select chat.known_people_ids()) then 'offline'
      else coalesce(p.status, 'offline')
    end,
    team.team_id,
    d.role
  from chat.directory d
  left join lateral (
    -- A team that the user shares with the caller comes before the user's other teams.
    select theirs.team_id, mine.team_id is not null as is_shared
    from chat.memberships theirs
    left join chat.memberships mine on mine.team_id = theirs.team_id and mine.user_id = caller
    where theirs.user_id = d.user_id
    order by is_shared desc, theirs.team_id
    limit 1
  ) team on true
  left join public.user_conversations c
    on c.kind = 'direct'
    and c.participant_1_id = least(caller, d.user_id)
    and c.participant_2_id = greatest(caller, d.user_id)
  left join public.user_presence p on p.user_id = d.user_id
  left join public.user_notification_preferences prefs on prefs.user_id = d.user_id
  where d.is_active
    and d.user_id <> caller
    and (
      d.display_name ilike pattern
      or d.email ilike pattern
      or (folded_pattern is not null and chat.folded_text(d.display_name) like folded_pattern)
    )
    and (everywhere or team.is_shared)
    and not exists (
      select
      from public.user_blocks b
      where (b.blocker_id = caller and b.blocked_id = d.user_id)
        or (b.blocker_id = d.user_id and b.blocked_id = caller)
    )
  order by
    c.last_message_at desc nulls last,
    (
      d.display_name ilike substr(pattern, 2)
      or (folded_pattern is not null and chat.folded_text(d.display_name) like substr(folded_pattern, 2))
    ) desc nulls last,
    d.display_name,
    d.user_id
  limit least(greatest(coalesce(search_people.max_rows, 10), 1), 50);
end
$$;

comment on function chat.search_people(text, int) is
  'Users that the caller could open a conversation with, by name or e-mail address, the most recent contacts first. A query of fewer than two characters finds none.';

revoke all on function chat.search_people(text, int) from public;
grant execute on function chat.search_people(text, int) to authenticated;
