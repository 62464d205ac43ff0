-- Read positions, receipts and unread counts. Marking as read locks the caller's own member row and
-- then the receipt. With the setting fill_read_by, it first locks the messages. It never waits for
-- a lock on a conversation.

create or replace function chat.shares_receipts(user_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(
    (select p.share_read_receipts from public.user_notification_preferences p where p.user_id = shares_receipts.user_id),
    true
  );
end
$$;

revoke all on function chat.shares_receipts(uuid) from public;

-- Returns whether a member's positions are visible to the other member. A user who does not share
-- receipts does not see those of other users either. If either of the two does not share receipts,
-- the position must not even be written, because both receive everything on the conversation's
-- topic.
create or replace function chat.shows_receipts(conversation_id uuid, user_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return chat.shares_receipts(user_id) and not exists (
    select
    from public.user_conversations c
    join public.user_conversation_members other on other.conversation_id = c.id
    join public.user_notification_preferences p on p.user_id = other.user_id
    where c.id = shows_receipts.conversation_id
      and c.kind = 'direct'
      and other.user_id <> shows_receipts.user_id
      and not p.share_read_receipts
  );
end
$$;

revoke all on function chat.shows_receipts(uuid, uuid) from public;

-- Counts the user's unread messages after a position and up to another, and how many of them
-- mention the user.
create or replace function chat.count_unread(conversation_id uuid, user_id uuid, after_seq bigint, up_to_seq bigint, out unread int, out mentions int)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select count(*), count(*) filter (where count_unread.user_id = any (m.mentions)) into unread, mentions
  from public.user_messages m
  where m.conversation_id = count_unread.conversation_id
    and m.seq > count_unread.after_seq
    and m.seq <= count_unread.up_to_seq
    and m.sender_id is distinct from count_unread.user_id
    and not m.is_deleted
    and not exists (
      select
      from public.message_hides h
      where h.user_id = count_unread.user_id and h.message_id = m.id
    );
end
$$;

revoke all on function chat.count_unread(uuid, uuid, bigint, bigint) from public;

-- Fills user_messages.read_by, for clients that read this column. Marking as read assigns no new
-- rev, so the conversation, which numbers the revs, need not be locked.
create or replace function chat.fill_read_by(conversation_id uuid, reader uuid, up_to_seq bigint)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Messages are locked before members, as in deletion.
  perform
  from public.user_messages m
  where m.conversation_id = fill_read_by.conversation_id
    and m.seq <= up_to_seq
    and m.sender_id is distinct from reader
    and not reader = any (m.read_by)
  order by m.seq
  for no key update;

  -- This is checked only now, because the transaction may have waited for the locks.
  if not chat.shows_receipts(conversation_id, reader) then
    return;
  end if;

  update public.user_messages m
  set read_by = m.read_by || reader
  where m.conversation_id = fill_read_by.conversation_id
    and m.seq <= up_to_seq
    and m.sender_id is distinct from reader
    and not reader = any (m.read_by);
end
$$;

revoke all on function chat.fill_read_by(uuid, uuid, bigint) from public;

create or replace function chat.mark_read(
  conversation_id uuid,
  up_to_message_id uuid default null,
  out updated int,
  out unread_count int,
  out last_read_at timestamptz,
  out last_read_message_id uuid
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  member record;
  target_id uuid;
  target_seq bigint;
  remaining record;
begin
  if up_to_message_id is not null then
    select m.id, m.seq into target_id, target_seq
    from public.user_messages m
    where m.id = mark_read.up_to_message_id and m.conversation_id = mark_read.conversation_id;
    if not found then
      perform chat.refuse('not_found');
    end if;
  end if;

  if chat.flag('fill_read_by') and chat.is_my_conversation(conversation_id) then
    perform chat.fill_read_by(
      conversation_id,
      caller,
      coalesce(target_seq, (select c.last_seq from public.user_conversations c where c.id = mark_read.conversation_id))
    );
  end if;

  select m.last_read_seq, m.last_read_at, m.last_read_message_id, m.unread_count, m.marked_unread, m.cleared_seq into member
  from public.user_conversation_members m
  where m.conversation_id = mark_read.conversation_id and m.user_id = caller and m.left_at is null
  for no key update;
  if not found then
    perform chat.refuse('not_found');
  end if;

  -- If another transaction is still inserting a message, it adds that message to unread_count
  -- itself, once it gets the lock on this member row.
  if up_to_message_id is null then
    select m.id, m.seq into target_id, target_seq
    from public.user_messages m
    where m.conversation_id = mark_read.conversation_id
    order by m.seq desc
    limit 1;
  end if;

  if target_seq > member.last_read_seq then
    updated := (
      select c.unread
      from chat.count_unread(mark_read.conversation_id, caller, greatest(member.last_read_seq, member.cleared_seq), target_seq) c
    );
    select c.unread, c.mentions into remaining
    from chat.count_unread(mark_read.conversation_id, caller, target_seq, 9223372036854775807) c;

    update public.user_conversation_members m
    set last_read_seq = target_seq,
      last_read_message_id = target_id,
      last_read_at = clock_timestamp(),
      unread_count = remaining.unread,
      mention_count = remaining.mentions,
      marked_unread = false,
      updated_at = now()
    where m.conversation_id = mark_read.conversation_id and m.user_id = caller
    returning m.unread_count, m.last_read_at, m.last_read_message_id
    into mark_read.unread_count, mark_read.last_read_at, mark_read.last_read_message_id;
  else
    -- Everything up to this position is already read, but opening the conversation clears a manual
    -- mark.
    updated := 0;
    unread_count := member.unread_count;
    last_read_at := member.last_read_at;
    last_read_message_id := member.last_read_message_id;
    if member.marked_unread then
      update public.user_conversation_members m
      set marked_unread = false
      where m.conversation_id = mark_read.conversation_id and m.user_id = caller;
    end if;
  end if;

  if target_seq is not null and chat.shows_receipts(conversation_id, caller) then
    -- The receipt is compared with its own position and not with the read marker. The two differ
    -- after mark_unread(), or if receipts were not shared before.
    update public.conversation_receipts r
    set last_read_seq = target_seq,
      last_read_message_id = target_id,
      last_read_at = clock_timestamp(),
      last_delivered_seq = greatest(r.last_delivered_seq, target_seq),
      last_delivered_message_id = case when target_seq > r.last_delivered_seq then target_id else r.last_delivered_message_id end,
      last_delivered_at = case when target_seq > r.last_delivered_seq then clock_timestamp() else r.last_delivered_at end
    where r.conversation_id = mark_read.conversation_id and r.user_id = caller and r.last_read_seq < target_seq;
  end if;
end
$$;

comment on function chat.mark_read(uuid, uuid) is
  'Moves the caller''s read marker forward to a message, or to the newest one. It never moves back. updated is the number of newly read messages.';

revoke all on function chat.mark_read(uuid, uuid) from public;
grant execute on function chat.mark_read(uuid, uuid) to authenticated;

create or replace function chat.mark_read_messages(message_ids uuid[])
returns table (
  conversation_id uuid,
  updated int,
  unread_count int,
  last_read_at timestamptz,
  last_read_message_id uuid
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Evaluated before the messages are looked up, so that claims without a valid id fail in the same
  -- way for existing and for unknown messages.
  caller constant uuid := auth.uid();
  newest record;
begin
  if caller is null then
    return;
  end if;
  -- Member rows are locked in the order of their conversations, so two devices of the caller that
  -- read the same conversations cannot deadlock.
  for newest in
    select distinct on (m.conversation_id) m.conversation_id, m.id
    from public.user_messages m
    where m.id = any (mark_read_messages.message_ids) and (chat.my_message(m.id)).id is not null
    order by m.conversation_id, m.seq desc
  loop
    return query
    select newest.conversation_id, r.updated, r.unread_count, r.last_read_at, r.last_read_message_id
    from chat.mark_read(newest.conversation_id, newest.id) r;
  end loop;
end
$$;

comment on function chat.mark_read_messages(uuid[]) is
  'Marks each conversation of the given messages as read, up to its newest given message. Returns one row per conversation. Messages that the caller cannot see are ignored.';

revoke all on function chat.mark_read_messages(uuid[]) from public;
grant execute on function chat.mark_read_messages(uuid[]) to authenticated;

create or replace function public.mark_conversation_read(p_conversation_id uuid, p_up_to uuid default null)
returns int
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select r.unread_count from chat.mark_read(p_conversation_id, p_up_to) r);
end
$$;

comment on function public.mark_conversation_read(uuid, uuid) is 'chat.mark_read for clients of the data API. Returns the number of messages that are still unread.';

revoke all on function public.mark_conversation_read(uuid, uuid) from public, anon, authenticated, service_role;
grant execute on function public.mark_conversation_read(uuid, uuid) to authenticated;

create or replace function chat.mark_unread(conversation_id uuid, from_message_id uuid default null)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  member record;
  target record;
  remaining record;
begin
  select m.last_read_seq, m.cleared_seq into member
  from public.user_conversation_members m
  where m.conversation_id = mark_unread.conversation_id and m.user_id = caller and m.left_at is null
  for no key update;
  if not found then
    perform chat.refuse('not_found');
  end if;

  if from_message_id is null then
    update public.user_conversation_members m
    set marked_unread = true
    where m.conversation_id = mark_unread.conversation_id and m.user_id = caller;
    return;
  end if;

  select m.seq, earlier.id as earlier_id into target
  from public.user_messages m
  left join public.user_messages earlier on earlier.conversation_id = m.conversation_id and earlier.seq = m.seq - 1
  where m.id = mark_unread.from_message_id and m.conversation_id = mark_unread.conversation_id;
  if not found then
    perform chat.refuse('not_found');
  end if;

  select c.unread, c.mentions into remaining
  from chat.count_unread(mark_unread.conversation_id, caller, greatest(target.seq - 1, member.cleared_seq), 9223372036854775807) c;

  -- The receipt does not move, because what other members have seen as read stays read.
  update public.user_conversation_members m
  set last_read_seq = target.seq - 1,
    last_read_message_id = target.earlier_id,
    unread_count = remaining.unread,
    mention_count = remaining.mentions,
    marked_unread = true
  where m.conversation_id = mark_unread.conversation_id and m.user_id = caller;
end
$$;

comment on function chat.mark_unread(uuid, uuid) is
  'Marks a conversation as unread, from the given message on if there is one. Messages that others have seen as read stay read.';

revoke all on function chat.mark_unread(uuid, uuid) from public;
grant execute on function chat.mark_unread(uuid, uuid) to authenticated;

create or replace function chat.mark_delivered(conversation_id uuid, up_to_seq bigint)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  moved boolean;
begin
  perform chat.refuse_if_outdated();
  if not chat.is_my_conversation(conversation_id) or not chat.shows_receipts(conversation_id, caller) then
    return false;
  end if;

  update public.conversation_receipts r
  set last_delivered_seq = m.seq,
    last_delivered_message_id = m.id,
    last_delivered_at = clock_timestamp()
  from (
    select newest.id, newest.seq
    from public.user_messages newest
    where newest.conversation_id = mark_delivered.conversation_id and newest.seq <= mark_delivered.up_to_seq
    order by newest.seq desc
    limit 1
  ) m
  where r.conversation_id = mark_delivered.conversation_id and r.user_id = caller and r.last_delivered_seq < m.seq;
  moved := found;
  -- The update may have waited for the receipt.
  if moved then
    perform chat.check_rights(conversation_id, false);
  end if;
  return moved;
end
$$;

comment on function chat.mark_delivered(uuid, bigint) is
  'Records that messages up to a position were delivered to the caller. Returns true if that changed what other members see.';

revoke all on function chat.mark_delivered(uuid, bigint) from public;
grant execute on function chat.mark_delivered(uuid, bigint) to authenticated;

-- For clients that receive messages by means other than the socket. Marks messages as delivered, up
-- to a given one or all.
create or replace function chat.mark_message_delivered(conversation_id uuid, message_id uuid default null)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  up_to_seq bigint := 9223372036854775807;
begin
  if not chat.is_my_conversation(conversation_id) then
    perform chat.refuse('not_found');
  end if;
  if message_id is not null then
    select m.seq into up_to_seq
    from public.user_messages m
    where m.id = mark_message_delivered.message_id and m.conversation_id = mark_message_delivered.conversation_id;
    if not found then
      perform chat.refuse('not_found');
    end if;
  end if;
  perform chat.mark_delivered(mark_message_delivered.conversation_id, up_to_seq);
end
$$;

comment on function chat.mark_message_delivered(uuid, uuid) is
  'Records that the messages of a conversation were delivered to the caller, up to a given one or all. Never moves a position back, and does nothing for users who do not share receipts.';

revoke all on function chat.mark_message_delivered(uuid, uuid) from public;
grant execute on function chat.mark_message_delivered(uuid, uuid) to authenticated;

create or replace function chat.unread_counts(out total int, out conversations int, out mentions int, out by_conversation jsonb)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select
    coalesce(sum(m.unread_count) filter (where counts), 0),
    count(*) filter (where counts),
    coalesce(sum(m.mention_count) filter (where counts), 0),
    coalesce(jsonb_object_agg(m.conversation_id, m.unread_count) filter (where m.unread_count > 0), '{}')
  into total, conversations, mentions, by_conversation
  from public.user_conversation_members m
  cross join lateral (
    select not m.is_archived and not (m.is_muted and coalesce(m.muted_until > now(), true)) as counts
  ) c
  where m.user_id = (select auth.uid())
    and m.left_at is null
    and (m.unread_count > 0 or m.marked_unread);
end
$$;

comment on function chat.unread_counts() is
  'The numbers of messages that the caller has not read. The totals exclude muted and archived conversations; by_conversation includes them.';

revoke all on function chat.unread_counts() from public;
grant execute on function chat.unread_counts() to authenticated;

-- Stores many delivered positions at once, for messages that the server wrote to users' sockets or
-- returned in responses to them. Users can keep their own receipts locked, so locked receipts are
-- skipped.
create or replace function chat.note_delivered(conversation_ids uuid[], user_ids uuid[], seqs bigint[])
returns table (conversation_id uuid, user_id uuid)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with reached as materialized (
    select r.conversation_id, r.user_id, d.seq
    from unnest(note_delivered.conversation_ids, note_delivered.user_ids, note_delivered.seqs) d (conversation_id, user_id, seq)
    join public.conversation_receipts r on r.conversation_id = d.conversation_id and r.user_id = d.user_id
    where r.last_delivered_seq < d.seq
      and chat.shows_receipts(r.conversation_id, r.user_id)
      -- A user's own messages do not need delivery, and fetching them moves no position.
      and exists (
        select
        from public.user_messages m
        where m.conversation_id = r.conversation_id
          and m.seq > r.last_delivered_seq
          and m.seq <= d.seq
          and m.sender_id is distinct from r.user_id
      )
  ), free as materialized (
    select r.conversation_id, r.user_id, d.seq
    from reached d
    join public.conversation_receipts r on r.conversation_id = d.conversation_id and r.user_id = d.user_id
    order by r.conversation_id, r.user_id
    for no key update of r skip locked
  ), moved as (
    update public.conversation_receipts r
    set last_delivered_seq = m.seq,
      last_delivered_message_id = m.id,
      last_delivered_at = clock_timestamp()
    from free d
    join public.user_messages m on m.conversation_id = d.conversation_id and m.seq = d.seq
    where r.conversation_id = d.conversation_id and r.user_id = d.user_id and r.last_delivered_seq < m.seq
  )
  select d.conversation_id, d.user_id
  from reached d
  where not exists (select from free f where f.conversation_id = d.conversation_id and f.user_id = d.user_id);
end
$$;

comment on function chat.note_delivered(uuid[], uuid[], bigint[]) is
  'Records delivered positions for many users. Returns the receipts that another transaction has locked; their positions were not recorded.';

revoke all on function chat.note_delivered(uuid[], uuid[], bigint[]) from public;
grant execute on function chat.note_delivered(uuid[], uuid[], bigint[]) to service_role;

-- For the server, which sends the totals to users' devices. Users call chat.unread_counts().
create or replace function chat.unread_totals(user_ids uuid[])
returns table (user_id uuid, total bigint, conversations bigint, mentions bigint)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    asked.id,
    coalesce(sum(m.unread_count), 0)::bigint,
    count(m.user_id),
    coalesce(sum(m.mention_count), 0)::bigint
  from unnest(unread_totals.user_ids) asked (id)
  left join public.user_conversation_members m
    on m.user_id = asked.id
    and m.left_at is null
    and (m.unread_count > 0 or m.marked_unread)
    and not m.is_archived
    and not (m.is_muted and coalesce(m.muted_until > now(), true))
  group by asked.id;
end
$$;

comment on function chat.unread_totals(uuid[]) is 'The totals of chat.unread_counts() for many users, one row each.';

revoke all on function chat.unread_totals(uuid[]) from public;
grant execute on function chat.unread_totals(uuid[]) to service_role;
