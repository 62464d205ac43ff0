-- Blocks. A blocked user cannot recognize the block: the refusal (not_allowed_recipient) is the
-- same for every reason why a user cannot be messaged.

-- Returns whether a user is visible to the caller: the two share a team or a conversation, or one
-- of them may message the other.
create or replace function chat.knows(other_user_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
begin
  return chat.may_message(other_user_id, caller, false)
    or chat.may_message(caller, other_user_id, false)
    or exists (
      select
      from chat.memberships mine
      join chat.memberships theirs on theirs.team_id = mine.team_id
      where mine.user_id = caller and theirs.user_id = other_user_id
    )
    or exists (
      select
      from public.user_conversation_members mine
      join public.user_conversation_members theirs on theirs.conversation_id = mine.conversation_id
      where mine.user_id = caller and mine.left_at is null and theirs.user_id = other_user_id
    );
end
$$;

comment on function chat.knows(uuid) is
  'Returns whether the caller knows this user. For the policy of user_blocks. False for a stranger and for a user who does not exist.';

revoke all on function chat.knows(uuid) from public;
grant execute on function chat.knows(uuid) to authenticated;

create or replace function chat.block(other_user_id uuid, out created boolean)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if other_user_id = auth.uid() then
    perform chat.refuse('validation_failed', 'Users cannot block themselves');
  end if;
  -- The response is the same for a stranger and for an id without a user.
  if not chat.knows(other_user_id) then
    perform chat.refuse('not_found');
  end if;
  insert into public.user_blocks (blocker_id, blocked_id)
  values (auth.uid(), other_user_id)
  on conflict on constraint user_blocks_pkey do nothing;
  created := found;
end
$$;

comment on function chat.block(uuid) is 'Blocks a user for the caller. Neither of the two may then message the other. The blocked user is not told. Returns false if the user was already blocked.';

revoke all on function chat.block(uuid) from public;
grant execute on function chat.block(uuid) to authenticated;

create or replace function chat.unblock(other_user_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.user_blocks b where b.blocker_id = auth.uid() and b.blocked_id = other_user_id;
end
$$;

comment on function chat.unblock(uuid) is 'Removes the caller''s block of a user, if there is one.';

revoke all on function chat.unblock(uuid) from public;
grant execute on function chat.unblock(uuid) to authenticated;

create or replace function chat.blocked_people(other_user_id uuid default null)
returns json
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
  return (
    select coalesce(json_agg(
      json_build_object(
        'user_id', b.blocked_id,
        'created_at', b.created_at,
        -- The caller may not know the user: teams may have changed since, or a role to which the
        -- policies do not apply may have inserted the row.
        'user', case when chat.knows(b.blocked_id) then json_build_object(
          'id', b.blocked_id,
          'full_name', d.display_name,
          'email', d.email,
          'avatar_url', d.avatar_url
        ) end
      )
      order by b.created_at desc, b.blocked_id
    ), '[]')
    from public.user_blocks b
    left join chat.directory d on d.user_id = b.blocked_id
    where b.blocker_id = auth.uid() and (blocked_people.other_user_id is null or b.blocked_id = blocked_people.other_user_id)
  );
end
$$;

comment on function chat.blocked_people(uuid) is 'The users that the caller has blocked, latest first, or only the given user.';

revoke all on function chat.blocked_people(uuid) from public;
grant execute on function chat.blocked_people(uuid) to authenticated;
