-- Opening conversations, and a member's own settings for a conversation.
-- The lock order everywhere is: message, then conversation, then members, then receipts.

-- Stamps every change of a row that clients cache with its transaction, regardless of the writer.
-- /sync compares the stamps with the snapshot that a client has seen.
create or replace function chat.stamp_change()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  new.changed_xid := pg_current_xact_id();
  return new;
end
$$;

revoke all on function chat.stamp_change() from public;

create or replace trigger user_conversations_90_stamp
  before update on public.user_conversations
  for each row execute function chat.stamp_change();

create or replace trigger user_conversation_members_90_stamp
  before update on public.user_conversation_members
  for each row execute function chat.stamp_change();

create or replace trigger conversation_receipts_90_stamp
  before update on public.conversation_receipts
  for each row execute function chat.stamp_change();

-- Stores every pair of users in one order, and resets columns that only the server may set. This
-- also applies to imports, which write the table directly.
create or replace function chat.prepare_conversation()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.kind = 'direct' and new.participant_1_id > new.participant_2_id then
    select new.participant_2_id, new.participant_1_id into new.participant_1_id, new.participant_2_id;
  end if;
  new.last_seq := 0;
  new.rev := 0;
  new.last_message_id := null;
  new.last_message_at := null;
  new.changed_xid := pg_current_xact_id();
  return new;
end
$$;

revoke all on function chat.prepare_conversation() from public;

create or replace trigger user_conversations_10_prepare
  before insert on public.user_conversations
  for each row execute function chat.prepare_conversation();

create or replace function chat.keep_conversation_identity()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if (new.id, new.kind, new.created_at) is distinct from (old.id, old.kind, old.created_at)
    -- Erasing a user sets their id in the pair to null. No user is ever added to a pair.
    or (new.participant_1_id is distinct from old.participant_1_id and new.participant_1_id is not null)
    or (new.participant_2_id is distinct from old.participant_2_id and new.participant_2_id is not null)
  then
    raise exception 'The members of a conversation cannot be changed' using
      errcode = 'restrict_violation', constraint = 'user_conversations_identity_is_fixed';
  end if;
  return new;
end
$$;

revoke all on function chat.keep_conversation_identity() from public;

create or replace trigger user_conversations_10_keep_identity
  before update of id, kind, participant_1_id, participant_2_id, created_at on public.user_conversations
  for each row execute function chat.keep_conversation_identity();

-- Receipts are inserted here and only updated later. An insert on reading would lock the
-- conversation after the member, which is the wrong order.
create or replace function chat.add_members()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.user_conversation_members (conversation_id, user_id, last_activity_at)
  select c.id, p.user_id, c.updated_at
  from opened c
  cross join lateral (values (c.participant_1_id), (c.participant_2_id)) as p (user_id)
  where c.kind = 'direct' and p.user_id is not null;

  insert into public.conversation_receipts (conversation_id, user_id)
  select c.id, p.user_id
  from opened c
  cross join lateral (values (c.participant_1_id), (c.participant_2_id)) as p (user_id)
  where c.kind = 'direct' and p.user_id is not null;

  return null;
end
$$;

revoke all on function chat.add_members() from public;

create or replace trigger user_conversations_20_add_members
  after insert on public.user_conversations
  referencing new table as opened
  for each statement execute function chat.add_members();

-- Applies the consequences of a member's changes to their own row, regardless of the writer.
create or replace function chat.settle_member()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if (new.conversation_id, new.user_id) is distinct from (old.conversation_id, old.user_id) then
    raise exception 'A membership cannot be given to another user' using
      errcode = 'restrict_violation', constraint = 'user_conversation_members_identity_is_fixed';
  end if;
  if new.is_pinned is distinct from old.is_pinned then
    new.pinned_at := case when new.is_pinned then now() end;
  end if;
  if new.muted_until is distinct from old.muted_until and new.muted_until is not null then
    new.is_muted := true;
  elsif old.is_muted and not new.is_muted then
    new.muted_until := null;
  end if;
  new.updated_at := now();
  return new;
end
$$;

revoke all on function chat.settle_member() from public;

-- The trigger does not run for the counters, because only functions of this schema change them.
create or replace trigger user_conversation_members_10_settle
  before update of conversation_id, user_id, is_archived, is_pinned, is_muted, muted_until, notification_level, marked_unread
  on public.user_conversation_members
  for each row execute function chat.settle_member();

create or replace function chat.is_my_conversation(conversation_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := chat.my_id();
begin
  return exists (
    select
    from public.user_conversation_members m
    where m.conversation_id = is_my_conversation.conversation_id
      and m.user_id = caller
      and m.left_at is null
  );
end
$$;

comment on function chat.is_my_conversation(uuid) is 'Returns whether the caller is a member. For functions; policies use chat.my_conversation_keys().';

revoke all on function chat.is_my_conversation(uuid) from public;
grant execute on function chat.is_my_conversation(uuid) to authenticated;

create or replace function chat.can_send(conversation_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := chat.my_id();
  pair record;
begin
  select c.kind, case caller when c.participant_1_id then c.participant_2_id else c.participant_1_id end as other_id
  into pair
  from public.user_conversation_members m
  join public.user_conversations c on c.id = m.conversation_id
  where m.conversation_id = can_send.conversation_id and m.user_id = caller and m.left_at is null;

  return coalesce(found and (pair.kind = 'group' or chat.may_message(caller, pair.other_id, true)), false);
end
$$;

comment on function chat.can_send(uuid) is
  'Returns whether the caller may write to this conversation now. False after a block, after the loss of the common team, after a suspension on either side, and after the other user was erased.';

revoke all on function chat.can_send(uuid) from public;
grant execute on function chat.can_send(uuid) to authenticated;

create or replace function chat.check_rights(conversation_id uuid, to_write boolean)
returns void
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if (case when to_write then chat.can_send(conversation_id) else chat.is_my_conversation(conversation_id) end) then
    return;
  end if;
  perform chat.refuse(case when chat.is_my_conversation(conversation_id) then 'not_allowed_recipient' else 'not_found' end);
end
$$;

comment on function chat.check_rights(uuid, boolean) is
  'Refuses unless the caller is a member of this conversation, and with to_write may write to it. Called after the last lock of a change that other members see.';

revoke all on function chat.check_rights(uuid, boolean) from public;
grant execute on function chat.check_rights(uuid, boolean) to authenticated;

create or replace function chat.open_conversation(other_user_id uuid, out conversation_id uuid, out created boolean)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  first_id constant uuid := least(caller, other_user_id);
  second_id constant uuid := greatest(caller, other_user_id);
begin
  created := false;
  if caller is null then
    perform chat.refuse('unauthorized');
  end if;
  if other_user_id is null then
    perform chat.refuse('validation_failed', 'The id of the other user is required');
  end if;
  if other_user_id = caller then
    perform chat.refuse('validation_failed', 'A conversation takes two people');
  end if;

  select c.id into conversation_id
  from public.user_conversations c
  where c.kind = 'direct' and c.participant_1_id = first_id and c.participant_2_id = second_id;

  if conversation_id is null then
    perform chat.refuse_if_outdated();
    -- A stranger and a user who does not exist yield the same refusal, from the same query.
    if not chat.may_message(caller, other_user_id, false) then
      perform chat.refuse('not_allowed_recipient');
    end if;

    -- If another transaction is opening a conversation of the same pair, this insert waits for it,
    -- and the query below finds its row.
    insert into public.user_conversations as c (participant_1_id, participant_2_id, created_by)
    values (first_id, second_id, caller)
    on conflict (participant_1_id, participant_2_id) where kind = 'direct' do nothing
    returning c.id into conversation_id;

    created := conversation_id is not null;
    if created then
      -- The check is repeated, because the insert may have waited. The first one cannot be left
      -- out: the foreign key would show whether the other user exists.
      if not chat.may_message(caller, other_user_id, false) then
        perform chat.refuse('not_allowed_recipient');
      end if;
    else
      select c.id into strict conversation_id
      from public.user_conversations c
      where c.kind = 'direct' and c.participant_1_id = first_id and c.participant_2_id = second_id;
    end if;
  end if;

  if not created then
    if not chat.is_my_conversation(conversation_id) then
      perform chat.refuse('not_allowed_recipient');
    end if;
    -- Opening a hidden conversation shows it again.
    update public.user_conversation_members m
    set hidden = false, updated_at = now()
    where m.conversation_id = open_conversation.conversation_id and m.user_id = caller and m.hidden;
  end if;
end
$$;

comment on function chat.open_conversation(uuid) is
  'Opens or finds the caller''s conversation with a user. An existing one is found even if the caller may no longer write to it.';

revoke all on function chat.open_conversation(uuid) from public;
grant execute on function chat.open_conversation(uuid) to authenticated;

-- Functions in public run as their caller. The data API offers everything executable in public, so
-- operators who expose that schema would have to audit every definer function in it. The rights are
-- checked in schema chat.
create or replace function public.get_or_create_conversation(user1_id uuid, user2_id uuid)
returns uuid
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
begin
  if caller is null then
    perform chat.refuse('unauthorized');
  end if;
  if caller is distinct from user1_id and caller is distinct from user2_id then
    perform chat.refuse('identity_mismatch');
  end if;
  return (select o.conversation_id from chat.open_conversation(case caller when user1_id then user2_id else user1_id end) o);
end
$$;

comment on function public.get_or_create_conversation(uuid, uuid) is 'chat.open_conversation for clients that send both user ids. The caller must be one of them.';

revoke all on function public.get_or_create_conversation(uuid, uuid) from public, anon, authenticated, service_role;
grant execute on function public.get_or_create_conversation(uuid, uuid) to authenticated;

create or replace function public.get_or_create_conversation(other_user_id uuid)
returns uuid
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select o.conversation_id from chat.open_conversation(get_or_create_conversation.other_user_id) o);
end
$$;

comment on function public.get_or_create_conversation(uuid) is 'chat.open_conversation for clients that send only the other user''s id.';

revoke all on function public.get_or_create_conversation(uuid) from public, anon, authenticated, service_role;
grant execute on function public.get_or_create_conversation(uuid) to authenticated;

-- Sets only the settings that the object contains, like PATCH. Null clears muted_until and draft.
create or replace function chat.set_conversation_settings(conversation_id uuid, settings jsonb)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  draft constant text := coalesce(settings ->> 'draft', '');
begin
  if not chat.is_my_conversation(conversation_id) then
    perform chat.refuse('not_found');
  end if;
  if jsonb_typeof(settings) is distinct from 'object' then
    perform chat.refuse('validation_failed', 'Settings must be an object');
  end if;
  if exists (
    select
    from jsonb_each(settings) s
    where (s.key in ('is_archived', 'is_pinned', 'is_muted', 'marked_unread') and jsonb_typeof(s.value) <> 'boolean')
      or (s.key in ('muted_until', 'draft') and jsonb_typeof(s.value) not in ('string', 'null'))
  ) then
    perform chat.refuse('validation_failed', 'A setting has an invalid value');
  end if;
  if settings ? 'notification_level' and coalesce(settings ->> 'notification_level', '') not in ('all', 'mentions', 'none') then
    perform chat.refuse('validation_failed', 'notification_level must be all, mentions or none');
  end if;

  if settings ?| array['is_archived', 'is_pinned', 'is_muted', 'muted_until', 'notification_level', 'marked_unread'] then
    begin
      update public.user_conversation_members m
      set is_archived = coalesce((settings ->> 'is_archived')::boolean, m.is_archived),
        is_pinned = coalesce((settings ->> 'is_pinned')::boolean, m.is_pinned),
        is_muted = coalesce((settings ->> 'is_muted')::boolean, m.is_muted),
        muted_until = case
          when settings ? 'muted_until' then (settings ->> 'muted_until')::timestamptz
          -- If the conversation is muted again without an end, the end of the earlier mute must not
          -- apply.
          when (settings ->> 'is_muted')::boolean then null
          else m.muted_until
        end,
        notification_level = coalesce(settings ->> 'notification_level', m.notification_level),
        marked_unread = coalesce((settings ->> 'marked_unread')::boolean, m.marked_unread)
      where m.conversation_id = set_conversation_settings.conversation_id and m.user_id = caller;
    exception when invalid_datetime_format or datetime_field_overflow then
      perform chat.refuse('validation_failed', 'muted_until is not a time');
    end;
  end if;

  if settings ? 'draft' then
    if char_length(draft) > 20000 then
      perform chat.refuse('message_too_long', 'draft may have at most 20000 characters');
    end if;
    delete from public.message_drafts d
    where d.conversation_id = set_conversation_settings.conversation_id and d.user_id = caller and draft = '';

    insert into public.message_drafts as d (user_id, conversation_id, content)
    select caller, set_conversation_settings.conversation_id, draft
    where draft <> ''
    on conflict on constraint message_drafts_pkey do update set content = excluded.content, updated_at = now();

    -- This must be a separate update after the other settings: an update that changes only
    -- changed_xid and updated_at makes the server read the draft.
    perform chat.touch_memberships(caller, set_conversation_settings.conversation_id);
  end if;
end
$$;

comment on function chat.set_conversation_settings(uuid, jsonb) is
  'Sets the caller''s own is_archived, is_pinned, is_muted, muted_until, notification_level, marked_unread and draft, as far as the object contains them.';

revoke all on function chat.set_conversation_settings(uuid, jsonb) from public;
grant execute on function chat.set_conversation_settings(uuid, jsonb) to authenticated;

create or replace function chat.clear_conversation(conversation_id uuid)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
begin
  if not chat.is_my_conversation(conversation_id) then
    perform chat.refuse('not_found');
  end if;

  -- While this lock is held, no message can be sent between reading last_seq and writing
  -- cleared_seq.
  perform from public.user_conversations c where c.id = clear_conversation.conversation_id for no key update;

  update public.user_conversation_members m
  set cleared_seq = c.last_seq,
    hidden = true,
    unread_count = 0,
    mention_count = 0,
    marked_unread = false,
    updated_at = now()
  from public.user_conversations c
  where c.id = m.conversation_id
    and m.conversation_id = clear_conversation.conversation_id
    and m.user_id = caller;

  delete from public.message_drafts d
  where d.conversation_id = clear_conversation.conversation_id and d.user_id = caller;
  if found then
    perform chat.touch_memberships(caller, clear_conversation.conversation_id);
  end if;
end
$$;

comment on function chat.clear_conversation(uuid) is
  'Empties a conversation for the caller and hides it from their list until the next message. The other members keep everything.';

revoke all on function chat.clear_conversation(uuid) from public;
grant execute on function chat.clear_conversation(uuid) to authenticated;
