-- Sending a message. There are two row triggers and two statement triggers:
--   10 refuses strangers before anything is locked for them;
--   20 locks the conversation and assigns seq and rev;
--   30 updates the counters once per statement, for the rows that were inserted. A row trigger
--      would leave a dead row version per message. It would also count rows that "on conflict do
--      nothing" then drops;
--   40 checks the caller's rights again, once nothing is left to wait for.

-- This function runs as the inserting role, to find out whether row-level security applies to it.
-- The policy decides whether the caller may write, but PostgreSQL checks the policy only after the
-- row triggers. By then, a stranger's message would already have locked the conversation.
create or replace function chat.judge_message()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not row_security_active('public.user_messages') then
    return new;
  end if;

  new.sender_id := coalesce(new.sender_id, auth.uid());
  if new.sender_id is distinct from auth.uid() then
    perform chat.refuse('identity_mismatch');
  end if;
  if not chat.is_my_conversation(new.conversation_id) then
    perform chat.refuse('not_found');
  end if;
  -- The policy also calls chat.can_send(), but with the snapshot of the statement, which may be
  -- older than a block. Each query of this function has a new snapshot; refuse_if_outdated()
  -- refuses the isolation levels at which it would not.
  perform chat.refuse_if_outdated();
  if not chat.can_send(new.conversation_id) then
    perform chat.refuse('not_allowed_recipient');
  end if;
  return new;
end
$$;

revoke all on function chat.judge_message() from public;

create or replace trigger user_messages_10_judge
  before insert on public.user_messages
  for each row execute function chat.judge_message();

-- PL/pgSQL caches the plan of the query below for the connection, possibly a plan made while the
-- table was empty. If that plan sorts the rows that it scans, a large insert takes quadratic time.
--
-- PostgreSQL adds a very large cost to a plan node of a disabled type. If a plan nevertheless
-- contains such a node, its cost exceeds the threshold for JIT compilation, which takes tens of
-- milliseconds per execution. So every function that disables a node type also disables JIT
-- compilation.
create or replace function chat.place_message()
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
  earliest timestamptz;
begin
  new.message_type := coalesce(new.message_type, 'text');
  new.content := chat.accepted_content(new.content, new.message_type, new.file_url is not null);
  perform chat.check_message_length(new.content);
  new.metadata := coalesce(new.metadata, '{}');
  if new.mentions <> '{}' then
    new.mentions := array(select distinct m from unnest(new.mentions) m);
  else
    new.mentions := '{}';
  end if;
  if new.sender_id is not null and new.message_type <> 'system' and (
    new.message_type <> 'text'
    or new.metadata <> '{}'
    or new.mentions <> '{}'
    or new.client_message_id is not null
    or new.reply_to_id is not null
    or new.file_url is not null
    or new.file_name is not null
    or new.file_size is not null
    or new.file_type is not null
  ) then
    perform chat.check_personal_message(new);
  end if;

  -- The numbers are taken from both the counters and the table, because rows inserted earlier by
  -- this statement are not yet in the counters. Rows that were dropped or rolled back are in
  -- neither, so no number is skipped.
  --
  -- If this query waits for the lock on the conversation, PostgreSQL rereads the conversation, but
  -- keeps the old results of the two subqueries. This is correct, because the previous lock holder
  -- has already updated the counters in the conversation.
  select
    greatest(c.last_seq, newest.seq) + 1,
    greatest(c.rev, changed.rev) + 1,
    -- The clock may go backwards, but the order of messages may not change.
    greatest(c.last_message_at + interval '1 microsecond', newest.created_at + interval '1 microsecond')
  into new.seq, new.rev, earliest
  from public.user_conversations c
  left join lateral (
    select m.seq, m.created_at
    from public.user_messages m
    where m.conversation_id = c.id
    order by m.seq desc
    limit 1
  ) newest on true
  left join lateral (
    select m.rev
    from public.user_messages m
    where m.conversation_id = c.id
    order by m.rev desc
    limit 1
  ) changed on true
  where c.id = new.conversation_id
  for no key update of c;
  if not found then
    perform chat.refuse('not_found', 'No such conversation');
  end if;

  -- The time is read while holding the lock, so that a sender that waited for the lock gets a later
  -- time than the sender that it waited for.
  new.created_at := greatest(earliest, clock_timestamp());
  new.updated_at := new.created_at;
  new.is_edited := false;
  new.edited_at := null;
  new.is_deleted := false;
  new.deleted_at := null;
  new.deleted_by := null;
  new.read_by := '{}';
  new.changed_xid := pg_current_xact_id();
  return new;
end
$$;

revoke all on function chat.place_message() from public;

create or replace trigger user_messages_20_place
  before insert on public.user_messages
  for each row execute function chat.place_message();

create or replace function chat.count_messages()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  unarchive constant boolean := chat.flag('unarchive_on_message');
begin
  update public.user_conversations c
  set last_seq = newest.seq,
    rev = greatest(c.rev, newest.rev),
    last_message_id = newest.id,
    last_message_at = newest.created_at,
    updated_at = newest.created_at
  from (
    select distinct on (a.conversation_id) a.conversation_id, a.id, a.seq, a.rev, a.created_at
    from arrived a
    order by a.conversation_id, a.seq desc
  ) newest
  where c.id = newest.conversation_id;

  update public.user_conversation_members m
  set unread_count = m.unread_count + news.unread,
    mention_count = m.mention_count + news.mentions,
    last_activity_at = news.newest_at,
    hidden = false,
    is_archived = m.is_archived and not unarchive,
    updated_at = news.newest_at
  from (
    select
      member.conversation_id,
      member.user_id,
      count(*) filter (where a.sender_id is distinct from member.user_id) as unread,
      count(*) filter (where a.sender_id is distinct from member.user_id and member.user_id = any (a.mentions)) as mentions,
      max(a.created_at) as newest_at
    from arrived a
    join public.user_conversation_members member on member.conversation_id = a.conversation_id
    group by member.conversation_id, member.user_id
  ) news
  where m.conversation_id = news.conversation_id and m.user_id = news.user_id and m.left_at is null;

  -- The sender's other devices show the draft until they receive a change of the membership, so the
  -- membership is updated again. This never waits, because the update above has already locked the
  -- row.
  with sent as (
    delete from public.message_drafts d
    using arrived a
    where d.user_id = a.sender_id and d.conversation_id = a.conversation_id
    returning d.user_id, d.conversation_id
  )
  update public.user_conversation_members m
  set changed_xid = pg_current_xact_id()
  from sent
  where m.user_id = sent.user_id and m.conversation_id = sent.conversation_id and m.left_at is null;

  return null;
end
$$;

revoke all on function chat.count_messages() from public;

create or replace trigger user_messages_30_count
  after insert on public.user_messages
  referencing new table as arrived
  for each statement execute function chat.count_messages();

-- Runs as the writing role. The insert may have waited for other transactions since trigger 10: for
-- the conversation, the members' rows, rows that foreign keys refer to, and unique keys. A sender
-- can make it wait with a session of their own. Statement triggers run after those of the foreign
-- keys, which are row triggers.
create or replace function chat.judge_written_messages()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- An update to the same values changes nothing that others see, and leaves changed_xid as it is.
  perform chat.check_rights(w.conversation_id, bool_or(not w.is_deleted))
  from written w
  where w.changed_xid = pg_current_xact_id()
  group by w.conversation_id;
  return null;
end
$$;

revoke all on function chat.judge_written_messages() from public;

create or replace trigger user_messages_40_judge_written
  after insert on public.user_messages
  referencing new table as written
  for each statement when (row_security_active('public.user_messages'::regclass))
  execute function chat.judge_written_messages();

create or replace function chat.send_message(
  conversation_id uuid,
  content text default '',
  message_type text default 'text',
  client_message_id text default null,
  request_hash text default null,
  reply_to_id uuid default null,
  mentions uuid[] default '{}',
  metadata jsonb default '{}',
  file_url text default null,
  file_name text default null,
  file_size bigint default null,
  file_type text default null,
  out message_id uuid,
  out created boolean
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  earlier record;
begin
  created := false;
  if not chat.is_my_conversation(conversation_id) then
    perform chat.refuse('not_found');
  end if;
  perform chat.refuse_if_outdated();

  -- From here on no other sender can write to this conversation, so the query below misses nothing.
  perform from public.user_conversations c where c.id = send_message.conversation_id for no key update;

  if client_message_id is not null then
    select m.id, r.request_hash into earlier
    from public.user_messages m
    left join chat.message_requests r on r.message_id = m.id
    where m.conversation_id = send_message.conversation_id
      and m.sender_id = caller
      and m.client_message_id = send_message.client_message_id;
    if found then
      -- A hash is null if its request was sent without one, or if the earlier message has been
      -- deleted. Then the requests count as equal.
      if earlier.request_hash <> send_message.request_hash then
        perform chat.refuse('client_message_id_conflict');
      end if;
      message_id := earlier.id;
      return;
    end if;
  end if;

  if coalesce(message_type, 'text') not in ('text', 'image', 'file') then
    perform chat.refuse('validation_failed', 'message_type must be text, image or file');
  end if;
  -- A message that the caller hid or cleared cannot be quoted either.
  if reply_to_id is not null and (chat.my_message(reply_to_id)).id is null then
    perform chat.refuse('validation_failed', 'reply_to_id is not a message of this conversation');
  end if;

  insert into public.user_messages as m (
    conversation_id, sender_id, content, message_type, client_message_id, reply_to_id,
    mentions, metadata, file_url, file_name, file_size, file_type
  ) values (
    send_message.conversation_id, caller, send_message.content, coalesce(send_message.message_type, 'text'),
    send_message.client_message_id, send_message.reply_to_id,
    coalesce(send_message.mentions, '{}'), coalesce(send_message.metadata, '{}'),
    send_message.file_url, send_message.file_name, send_message.file_size, send_message.file_type
  )
  returning m.id into message_id;

  if client_message_id is not null and request_hash is not null then
    insert into chat.message_requests (message_id, request_hash) values (send_message.message_id, send_message.request_hash);
  end if;
  -- This comes last, because the insert may have waited for locks; see
  -- chat.judge_written_messages().
  if not chat.can_send(conversation_id) then
    perform chat.refuse('not_allowed_recipient');
  end if;
  created := true;
end
$$;

comment on function chat.send_message(uuid, text, text, text, text, uuid, uuid[], jsonb, text, text, bigint, text) is
  'Sends a message as the caller. If the client_message_id is repeated, returns the first message (created = false), or raises client_message_id_conflict if the request differs.';

revoke all on function chat.send_message(uuid, text, text, text, text, uuid, uuid[], jsonb, text, text, bigint, text) from public;
grant execute on function chat.send_message(uuid, text, text, text, text, uuid, uuid[], jsonb, text, text, bigint, text) to authenticated;
