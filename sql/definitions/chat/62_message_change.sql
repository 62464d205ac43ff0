-- Editing and deleting messages, and updating the counters.

-- Runs as the updating role, before anything except the message is locked.
create or replace function chat.judge_message_change()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if row_security_active('public.user_messages') then
    perform chat.refuse_if_outdated();
    -- The policy makes the same check, but with the snapshot of the statement, which may be older
    -- than the caller's removal from the conversation.
    if not chat.is_my_conversation(old.conversation_id) then
      perform chat.refuse('not_found');
    end if;
    -- A user who may no longer write may no longer edit. Members may always delete their own
    -- messages. chat.judge_written_messages() repeats these two checks after the last lock.
    if not new.is_deleted and new is distinct from old and not chat.can_send(old.conversation_id) then
      perform chat.refuse('not_allowed_recipient');
    end if;
    perform chat.check_edit_window(old, new);
  end if;
  return new;
end
$$;

revoke all on function chat.judge_message_change() from public;

create or replace function chat.check_edit_window(before public.user_messages, after public.user_messages)
returns void
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  window_s constant int := chat.amount('edit_window_s', 0);
begin
  if window_s > 0
    and not after.is_deleted
    and after.content is distinct from before.content
    and clock_timestamp() > before.created_at + make_interval(secs => window_s)
  then
    perform chat.refuse('edit_window_passed');
  end if;
end
$$;

comment on function chat.check_edit_window(public.user_messages, public.user_messages) is
  'Refuses a changed text if the time for editing has passed.';

revoke all on function chat.check_edit_window(public.user_messages, public.user_messages) from public;
grant execute on function chat.check_edit_window(public.user_messages, public.user_messages) to authenticated;

create or replace trigger user_messages_10_judge_change
  before update on public.user_messages
  for each row execute function chat.judge_message_change();

-- The plan may use only indexes and no JIT compilation, for the same reasons as in
-- chat.place_message().
create or replace function chat.apply_message_change()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
declare
  -- A reaction or a pin requests a new rev by changing the old one.
  is_touched constant boolean := new.rev is distinct from old.rev;
begin
  if (new.id, new.conversation_id, new.seq, new.created_at, new.client_message_id, new.message_type)
      is distinct from (old.id, old.conversation_id, old.seq, old.created_at, old.client_message_id, old.message_type)
    -- Erasing a user sets the sender of their messages to null. No other change of the sender is
    -- possible.
    or (new.sender_id is distinct from old.sender_id and new.sender_id is not null)
    or (new.reply_to_id is distinct from old.reply_to_id and new.reply_to_id is not null)
  then
    raise exception 'This column of a message cannot be changed' using
      errcode = 'restrict_violation', constraint = 'user_messages_identity_is_fixed';
  end if;

  if old.is_deleted then
    if not new.is_deleted or new.content <> '' or new.file_url is not null then
      perform chat.refuse('message_deleted');
    end if;
    -- A second deletion changes nothing.
    new.deleted_at := old.deleted_at;
    new.deleted_by := old.deleted_by;
    new.metadata := '{}';
  elsif new.is_deleted then
    new.content := '';
    new.file_url := null;
    new.file_name := null;
    new.file_size := null;
    new.file_type := null;
    new.mentions := '{}';
    new.metadata := '{}';
    new.deleted_at := clock_timestamp();
    new.deleted_by := coalesce(auth.uid(), new.deleted_by);
    delete from public.message_edits e where e.message_id = old.id;
    delete from public.message_pins p where p.message_id = old.id;
    -- The hash is removed, because the deleted text could be guessed from it.
    delete from chat.message_requests r where r.message_id = old.id;
  elsif new.content is distinct from old.content or new.metadata is distinct from old.metadata then
    new.content := chat.accepted_content(new.content, new.message_type, new.file_url is not null);
    if new.sender_id is not null and new.message_type <> 'system' then
      perform chat.check_metadata(new.metadata);
    end if;
    if new.content is distinct from old.content then
      -- The length is checked only here, so that a message that was stored before the limit was
      -- lowered can still be deleted and reacted to.
      perform chat.check_message_length(new.content);
      insert into public.message_edits (message_id, conversation_id, version, previous_content, edited_by)
      values (
        old.id,
        old.conversation_id,
        1 + coalesce((select max(e.version) from public.message_edits e where e.message_id = old.id), 0),
        old.content,
        auth.uid()
      );
      new.is_edited := true;
      new.edited_at := clock_timestamp();
    end if;
  end if;

  -- Marking as read does not count as a change of the message, and neither does an update to the
  -- same values.
  if not is_touched
    and (
      new.content, new.is_deleted, new.sender_id, new.reply_to_id, new.metadata, new.mentions,
      new.file_url, new.file_name, new.file_size, new.file_type
    ) is not distinct from (
      old.content, old.is_deleted, old.sender_id, old.reply_to_id, old.metadata, old.mentions,
      old.file_url, old.file_name, old.file_size, old.file_type
    )
  then
    return new;
  end if;

  -- Replies contain a quotation and change with it, in count_message_changes(). They are locked
  -- before the conversation, as messages are everywhere. A reply is always newer than the quoted
  -- message, so all transactions lock messages in the same direction.
  if (new.content, new.is_deleted, new.sender_id, new.file_name)
    is distinct from (old.content, old.is_deleted, old.sender_id, old.file_name)
  then
    perform
    from public.user_messages reply
    where reply.reply_to_id = old.id
    order by reply.seq
    for no key update;
  end if;

  -- The conversation's counter is updated once per statement. Until then, rows of this statement
  -- can have a higher rev.
  perform from public.user_conversations c where c.id = old.conversation_id for no key update;
  new.rev := 1 + greatest(
    (select c.rev from public.user_conversations c where c.id = old.conversation_id),
    (select m.rev from public.user_messages m where m.conversation_id = old.conversation_id order by m.rev desc limit 1)
  );
  -- A reaction or a pin changes the message's rev but not its text, so updated_at stays.
  if not is_touched then
    new.updated_at := clock_timestamp();
  end if;
  new.changed_xid := pg_current_xact_id();
  return new;
end
$$;

revoke all on function chat.apply_message_change() from public;

create or replace trigger user_messages_20_apply_change
  before update on public.user_messages
  for each row execute function chat.apply_message_change();

-- Subtracts deleted messages from the counts of members who had not read them.
create or replace function chat.uncount_messages(ids uuid[], conversation_ids uuid[], seqs bigint[], sender_ids uuid[], mentioned text[])
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The members are locked in one order first, so that the read positions do not change while
  -- messages are counted below.
  perform
  from public.user_conversation_members m
  where m.conversation_id = any (conversation_ids)
  order by m.conversation_id, m.user_id
  for no key update;

  update public.user_conversation_members m
  set unread_count = greatest(m.unread_count - lost.unread, 0),
    mention_count = greatest(m.mention_count - lost.mentions, 0),
    updated_at = now()
  from (
    select
      member.conversation_id,
      member.user_id,
      count(*) as unread,
      count(*) filter (where member.user_id = any (gone.mentions::uuid[])) as mentions
    from unnest(ids, conversation_ids, seqs, sender_ids, mentioned) gone (id, conversation_id, seq, sender_id, mentions)
    join public.user_conversation_members member on member.conversation_id = gone.conversation_id
    where gone.seq > greatest(member.last_read_seq, member.cleared_seq)
      and gone.sender_id is distinct from member.user_id
      -- Hiding the message has already subtracted it for this member.
      and not exists (
        select
        from public.message_hides h
        where h.user_id = member.user_id and h.message_id = gone.id
      )
    group by member.conversation_id, member.user_id
  ) lost
  where m.conversation_id = lost.conversation_id and m.user_id = lost.user_id;
end
$$;

revoke all on function chat.uncount_messages(uuid[], uuid[], bigint[], uuid[], text[]) from public;

create or replace function chat.count_message_changes()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  gone record;
  quoted uuid[];
begin
  update public.user_conversations c
  set rev = changed.rev
  from (select a.conversation_id, max(a.rev) as rev from after a group by a.conversation_id) changed
  where c.id = changed.conversation_id and c.rev < changed.rev;

  select
    array_agg(b.id) as ids,
    array_agg(b.conversation_id) as conversation_ids,
    array_agg(b.seq) as seqs,
    array_agg(b.sender_id) as sender_ids,
    array_agg(b.mentions::text) as mentioned
  into gone
  from before b
  where not b.is_deleted
    -- "is true" keeps the planner from making this condition a join. A transition table has no
    -- statistics, and a plan kept from a one-row statement would compare every row with every other
    -- row.
    and (b.id in (select a.id from after a where a.is_deleted)) is true;

  if gone.seqs is not null then
    perform chat.uncount_messages(gone.ids, gone.conversation_ids, gone.seqs, gone.sender_ids, gone.mentioned);

    -- Reactions can contain text, too. A reaction that another transaction is removing is skipped.
    -- That transaction waits for this message, so waiting for it would deadlock.
    delete from public.message_reactions r
    where r.id in (
      select given.id from public.message_reactions given where given.message_id = any (gone.ids) for update skip locked
    );
  end if;

  -- Replies show the quoted text, so they change, too. Setting any other rev makes the row trigger
  -- assign the next one. If only the rev of a message changed, quotations of it stay the same, so
  -- the recursion ends at the replies.
  quoted := array(
    select a.id
    from after a
    where (
      (a.id, a.content, a.is_deleted, coalesce(a.sender_id::text, ''), coalesce(a.file_name, '')) in (
        select b.id, b.content, b.is_deleted, coalesce(b.sender_id::text, ''), coalesce(b.file_name, '') from before b
      )
    ) is not true
  );
  if quoted <> '{}' then
    update public.user_messages reply set rev = reply.rev + 1 where reply.reply_to_id = any (quoted);
  end if;
  return null;
end
$$;

revoke all on function chat.count_message_changes() from public;

create or replace trigger user_messages_30_count_changes
  after update on public.user_messages
  referencing old table as before new table as after
  for each statement execute function chat.count_message_changes();

create or replace trigger user_messages_40_judge_changed
  after update on public.user_messages
  referencing new table as written
  for each statement when (row_security_active('public.user_messages'::regclass))
  execute function chat.judge_written_messages();

-- Clients cannot delete rows; operators and servers can, for instance to limit how long messages
-- are kept. The members' counts and the conversation's last message are updated.
create or replace function chat.count_removed_messages()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  gone record;
begin
  update public.user_conversations c
  set last_message_id = (
      select m.id from public.user_messages m where m.conversation_id = c.id order by m.seq desc limit 1
    )
  where c.id in (select r.conversation_id from removed r);

  select
    array_agg(r.id) as ids,
    array_agg(r.conversation_id) as conversation_ids,
    array_agg(r.seq) as seqs,
    array_agg(r.sender_id) as sender_ids,
    array_agg(r.mentions::text) as mentioned
  into gone
  from removed r
  where not r.is_deleted;

  if gone.seqs is not null then
    perform chat.uncount_messages(gone.ids, gone.conversation_ids, gone.seqs, gone.sender_ids, gone.mentioned);
  end if;

  -- Recorded for clients that have cached these messages.
  insert into chat.removed_messages (message_id, conversation_id)
  select r.id, r.conversation_id
  from removed r
  where exists (select from public.user_conversations c where c.id = r.conversation_id)
  on conflict on constraint removed_messages_pkey do nothing;

  delete from chat.removed_messages r
  where r.removed_at < now() - make_interval(secs => chat.amount('sync_horizon_s', 2592000));
  return null;
end
$$;

revoke all on function chat.count_removed_messages() from public;

create or replace trigger user_messages_30_count_removed
  after delete on public.user_messages
  referencing old table as removed
  for each statement execute function chat.count_removed_messages();

-- Locks the caller's own message and returns it, or refuses with an error that reveals nothing to
-- strangers.
create or replace function chat.lock_own_message(message_id uuid)
returns public.user_messages
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  message public.user_messages := chat.my_message(message_id);
begin
  if message.id is null then
    perform chat.refuse('not_found');
  end if;
  if message.sender_id is distinct from auth.uid() then
    perform chat.refuse('forbidden', 'Only the sender can change a message');
  end if;
  perform chat.refuse_if_outdated();

  select m.* into message from public.user_messages m where m.id = lock_own_message.message_id for no key update;
  if not found then
    perform chat.refuse('not_found');
  end if;
  return message;
end
$$;

revoke all on function chat.lock_own_message(uuid) from public;

create or replace function chat.edit_message(message_id uuid, content text, expected_rev bigint default null)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  message constant public.user_messages := chat.lock_own_message(message_id);
  edited public.user_messages := message;
begin
  if message.is_deleted then
    perform chat.refuse('message_deleted');
  end if;
  if message.rev <> expected_rev then
    perform chat.refuse('stale_revision');
  end if;
  edited.content := edit_message.content;
  perform chat.check_edit_window(message, edited);

  update public.user_messages m set content = coalesce(edit_message.content, '') where m.id = message.id;
  -- This comes last, because the update waits for locks.
  perform chat.check_rights(message.conversation_id, true);
end
$$;

comment on function chat.edit_message(uuid, text, bigint) is
  'Changes the text of the caller''s own message. With expected_rev, only if the message has not changed since (otherwise stale_revision).';

revoke all on function chat.edit_message(uuid, text, bigint) from public;
grant execute on function chat.edit_message(uuid, text, bigint) to authenticated;

create or replace function chat.delete_message(message_id uuid, expected_rev bigint default null)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  message constant public.user_messages := chat.lock_own_message(message_id);
begin
  if message.is_deleted then
    return;
  end if;
  if message.rev <> expected_rev then
    perform chat.refuse('stale_revision');
  end if;
  update public.user_messages m set is_deleted = true where m.id = message.id;
  -- This comes last, because the update waits for locks.
  perform chat.check_rights(message.conversation_id, false);
end
$$;

comment on function chat.delete_message(uuid, bigint) is 'Deletes the caller''s own message for all members and leaves a tombstone. Repeating it does nothing.';

revoke all on function chat.delete_message(uuid, bigint) from public;
grant execute on function chat.delete_message(uuid, bigint) to authenticated;

create or replace function chat.hide_message(message_id uuid)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  message record;
begin
  -- While the member is locked, neither the read position nor the counts change. If another
  -- transaction has deleted the message, the deletion is visible here.
  perform
  from public.user_messages m
  join public.user_conversation_members member on member.conversation_id = m.conversation_id
  where m.id = hide_message.message_id and member.user_id = caller and member.left_at is null
  for no key update of member;
  if not found then
    perform chat.refuse('not_found');
  end if;
  select m.conversation_id, m.seq, m.sender_id, m.mentions, m.is_deleted into message
  from public.user_messages m
  where m.id = hide_message.message_id;

  insert into public.message_hides (user_id, message_id)
  values (caller, hide_message.message_id)
  on conflict on constraint message_hides_pkey do nothing;

  if found then
    -- The row is also updated if no count changes, because the conversation's last message may now
    -- be a different one for this member.
    update public.user_conversation_members m
    set unread_count = greatest(m.unread_count - counted.one, 0),
      mention_count = greatest(m.mention_count - counted.one * (caller = any (message.mentions))::int, 0),
      updated_at = now()
    from (
      select (
        not message.is_deleted
        and message.sender_id is distinct from caller
        and message.seq > greatest(mine.last_read_seq, mine.cleared_seq)
      )::int as one
      from public.user_conversation_members mine
      where mine.conversation_id = message.conversation_id and mine.user_id = caller
    ) counted
    where m.conversation_id = message.conversation_id and m.user_id = caller;
  end if;
end
$$;

comment on function chat.hide_message(uuid) is 'Deletes a message only for the caller.';

revoke all on function chat.hide_message(uuid) from public;
grant execute on function chat.hide_message(uuid) to authenticated;
