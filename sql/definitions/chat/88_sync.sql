-- Catching up. A cursor is a snapshot of the database. The client has not seen what was changed by
-- transactions that are not visible in the snapshot, regardless of the order in which they
-- committed. Every row that clients cache names the transaction that last changed it (changed_xid).
-- Such a row, as it is returned, also contains data of other tables. A change of that data sets the
-- row's changed_xid, too (50_conversations.sql, and the triggers below).
--
-- All pages of a chain have the same upper snapshot. It is taken for the first page, and the last
-- page returns it as the cursor. A row may be newer than that snapshot. Such a row is returned
-- again in the next chain.

-- Returns the identity of the database that a cursor belongs to. The identity changes if
-- transaction ids may have been assigned twice: in another cluster or database, in a restored one,
-- in a promoted standby that lacks the last commits, or in tables restored from a dump.
create or replace function chat.sync_identity()
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return left(md5(concat_ws(
    ' ',
    (select s.system_identifier from pg_control_system() s),
    -- The timeline, which promotion and point-in-time recovery increase.
    left(pg_walfile_name(pg_current_wal_lsn()), 8),
    (select d.oid from pg_catalog.pg_database d where d.datname = current_database()),
    'public.user_messages'::regclass::oid,
    (select c.value from chat.config c where c.key = 'sync_epoch')
  )), 16);
end
$$;

comment on function chat.sync_identity() is
  'The database that a cursor belongs to. Changes if transaction ids may have been assigned twice.';

revoke all on function chat.sync_identity() from public;
grant execute on function chat.sync_identity() to authenticated;

-- Returns the caller's conversations whose row or read positions changed, in the order of their
-- ids.
create or replace function chat.changed_conversations(since pg_snapshot, until pg_snapshot, after_id uuid, max_rows int)
returns table (conversation_id uuid, is_gone boolean)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  caller constant uuid := auth.uid();
begin
  return query
  select found.conversation_id, found.is_gone
  from (
    select mine.conversation_id, mine.hidden as is_gone
    from public.user_conversation_members mine
    join public.user_conversations c on c.id = mine.conversation_id
    where mine.user_id = caller
      and mine.left_at is null
      and (
        (not pg_visible_in_snapshot(mine.changed_xid, since) and pg_visible_in_snapshot(mine.changed_xid, until))
        or (not pg_visible_in_snapshot(c.changed_xid, since) and pg_visible_in_snapshot(c.changed_xid, until))
        or exists (
          select
          from public.conversation_receipts r
          where r.conversation_id = mine.conversation_id
            -- The caller's own receipt is not part of the response. Their read marker is in their
            -- member row.
            and r.user_id <> caller
            and not pg_visible_in_snapshot(r.changed_xid, since)
            and pg_visible_in_snapshot(r.changed_xid, until)
        )
      )
    union all
    select mine.conversation_id, true
    from public.user_conversation_members mine
    where mine.user_id = caller
      and mine.left_at is not null
      and not pg_visible_in_snapshot(mine.changed_xid, since)
      and pg_visible_in_snapshot(mine.changed_xid, until)
    union all
    select gone.conversation_id, true
    from chat.removed_memberships gone
    where gone.user_id = caller
      and not pg_visible_in_snapshot(gone.changed_xid, since)
      and pg_visible_in_snapshot(gone.changed_xid, until)
      and not exists (
        select
        from public.user_conversation_members again
        where again.conversation_id = gone.conversation_id and again.user_id = caller
      )
  ) found
  where changed_conversations.after_id is null or found.conversation_id > changed_conversations.after_id
  order by found.conversation_id
  limit max_rows;
end
$$;

comment on function chat.changed_conversations(pg_snapshot, pg_snapshot, uuid, int) is
  'The caller''s conversations whose row or read positions changed between two snapshots, in the order of their ids.';

revoke all on function chat.changed_conversations(pg_snapshot, pg_snapshot, uuid, int) from public;
grant execute on function chat.changed_conversations(pg_snapshot, pg_snapshot, uuid, int) to authenticated;

-- Returns messages that the caller hid or that were removed for all members, in the order of
-- (changed_xid, message_id).
create or replace function chat.messages_taken_away(since pg_snapshot, until pg_snapshot, after_xid xid8, after_id uuid, max_rows int)
returns table (message_id uuid, changed_xid xid8)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  caller constant uuid := auth.uid();
  oldest constant xid8 := greatest(pg_snapshot_xmin(since), after_xid);
  newest constant xid8 := pg_snapshot_xmax(until);
begin
  return query
  select gone.message_id, gone.changed_xid
  from (
    select h.message_id, h.changed_xid
    from public.message_hides h
    where h.user_id = caller and h.changed_xid >= oldest and h.changed_xid < newest
    union all
    select r.message_id, r.changed_xid
    from public.user_conversation_members mine
    join chat.removed_messages r on r.conversation_id = mine.conversation_id
    where mine.user_id = caller
      and mine.left_at is null
      and r.changed_xid >= oldest
      and r.changed_xid < newest
  ) gone
  where not pg_visible_in_snapshot(gone.changed_xid, since)
    and pg_visible_in_snapshot(gone.changed_xid, until)
    and (after_xid is null or (gone.changed_xid, gone.message_id) > (after_xid, messages_taken_away.after_id))
  order by gone.changed_xid, gone.message_id
  limit max_rows;
end
$$;

comment on function chat.messages_taken_away(pg_snapshot, pg_snapshot, xid8, uuid, int) is
  'Messages that the caller hid, or that were removed for all members, between two snapshots.';

revoke all on function chat.messages_taken_away(pg_snapshot, pg_snapshot, xid8, uuid, int) from public;
grant execute on function chat.messages_taken_away(pg_snapshot, pg_snapshot, xid8, uuid, int) to authenticated;

-- Returns changed messages of the caller's conversations in the order of (conversation_id,
-- changed_xid, message_id). The index has this order, so the cost depends on the length of the
-- page.
create or replace function chat.changed_messages(
  since pg_snapshot,
  until pg_snapshot,
  after_conversation_id uuid,
  after_xid xid8,
  after_id uuid,
  max_rows int
)
returns table (message_id uuid, conversation_id uuid, changed_xid xid8)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  caller constant uuid := auth.uid();
  oldest constant xid8 := pg_snapshot_xmin(since);
  newest constant xid8 := pg_snapshot_xmax(until);
begin
  return query
  select changed.id, mine.conversation_id, changed.changed_xid
  from public.user_conversation_members mine
  join public.user_conversations c on c.id = mine.conversation_id
  cross join lateral (
    select m.id, m.changed_xid
    from public.user_messages m
    where m.conversation_id = mine.conversation_id
      and m.changed_xid >= case when mine.conversation_id = after_conversation_id then after_xid else oldest end
      and m.changed_xid < newest
      and not pg_visible_in_snapshot(m.changed_xid, since)
      and pg_visible_in_snapshot(m.changed_xid, until)
      and (
        mine.conversation_id is distinct from after_conversation_id
        or (m.changed_xid, m.id) > (after_xid, changed_messages.after_id)
      )
      and m.seq > mine.cleared_seq
      and not exists (select from public.message_hides h where h.user_id = caller and h.message_id = m.id)
    order by m.changed_xid, m.id
    limit max_rows
  ) changed
  where mine.user_id = caller
    and mine.left_at is null
    and (after_conversation_id is null or mine.conversation_id >= after_conversation_id)
    -- Every change of a message changes its conversation while holding the conversation's lock. So
    -- the last such transaction committed after all others. If one of the others is not visible in
    -- a snapshot, the last one is not visible either.
    and not pg_visible_in_snapshot(c.changed_xid, since)
  order by mine.conversation_id, changed.changed_xid, changed.id
  limit max_rows;
end
$$;

comment on function chat.changed_messages(pg_snapshot, pg_snapshot, uuid, xid8, uuid, int) is
  'Messages of the caller''s conversations that changed between two snapshots, in the order of the index.';

revoke all on function chat.changed_messages(pg_snapshot, pg_snapshot, uuid, xid8, uuid, int) from public;
grant execute on function chat.changed_messages(pg_snapshot, pg_snapshot, uuid, xid8, uuid, int) to authenticated;

-- Returns one page. The function is stable, so it reads everything in one snapshot. The first page
-- of a chain returns that snapshot as reached, and the other pages return the same one.
-- of_database, taken_at, since, until: the cursor. Without since, this is the first load, which
-- continues the list after (after_is_pinned, after_activity_at, after_id). Otherwise, the page
-- continues the given part after the position in after_*, in the order of that part. The next parts
-- follow. The order of parts is: conversations, removals, messages.
create or replace function chat.sync(
  of_database text default null,
  taken_at timestamptz default null,
  since text default null,
  until text default null,
  part text default null,
  after_is_pinned boolean default null,
  after_activity_at timestamptz default null,
  after_conversation_id uuid default null,
  after_xid text default null,
  after_id uuid default null,
  max_rows int default 100
)
returns table (
  database_identity text,
  reached text,
  reached_at timestamptz,
  conversations json,
  receipts json,
  removed_conversation_ids json,
  removed_message_ids json,
  messages json,
  next_part text,
  next_is_pinned boolean,
  next_activity_at timestamptz,
  next_conversation_id uuid,
  next_xid text,
  next_id uuid
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
as $$
declare
  caller constant uuid := auth.uid();
  present constant pg_snapshot := pg_current_snapshot();
  seen constant pg_snapshot := sync.since;
  wanted constant int := least(greatest(coalesce(max_rows, 100), 1), 200);
  target constant pg_snapshot := coalesce(sync.until::pg_snapshot, present);
  shown uuid[];
  gone uuid[];
  taken uuid[];
  changed uuid[];
begin
  database_identity := chat.sync_identity();
  reached := target;
  reached_at := case when sync.until is null then now() else sync.taken_at end;

  if of_database <> database_identity
    or taken_at < now() - make_interval(secs => chat.amount('sync_horizon_s', 2592000))
    -- The cursor contains transactions that have never started in this database.
    or greatest(pg_snapshot_xmax(seen), pg_snapshot_xmax(target)) > pg_snapshot_xmax(present)
  then
    perform chat.refuse('resync_required');
  end if;

  if seen is null then
    shown := array(
      select m.conversation_id
      from public.user_conversation_members m
      where m.user_id = caller
        and m.left_at is null
        and not m.hidden
        -- A conversation that moves up during the first load has changed since its start, so the
        -- next chain returns it.
        and (m.is_pinned, m.last_activity_at, m.conversation_id) < (
          coalesce(after_is_pinned, true),
          coalesce(after_activity_at, 'infinity'),
          coalesce(sync.after_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        )
      order by m.is_pinned desc, m.last_activity_at desc, m.conversation_id desc
      limit wanted + 1
    );
    if cardinality(shown) > wanted then
      shown := shown[:wanted];
      next_part := 'list';
      select m.is_pinned, m.last_activity_at, m.conversation_id
      into next_is_pinned, next_activity_at, next_id
      from public.user_conversation_members m
      where m.conversation_id = shown[wanted] and m.user_id = caller;
    end if;
  else
    if part is null or part = 'conversations' then
      select
        array_agg(c.conversation_id) filter (where not c.is_gone and c.place <= wanted),
        array_agg(c.conversation_id) filter (where c.is_gone and c.place <= wanted),
        max(c.conversation_id::text) filter (where c.place = wanted),
        case when count(*) > wanted then 'conversations' end
      into shown, gone, next_conversation_id, next_part
      from (
        select f.conversation_id, f.is_gone, row_number() over (order by f.conversation_id) as place
        from chat.changed_conversations(seen, target, after_conversation_id, wanted + 1) f
      ) c;
    end if;

    if next_part is null and (part is null or part in ('conversations', 'removals')) then
      select
        array_agg(m.message_id) filter (where m.place <= wanted),
        max(m.changed_xid::text) filter (where m.place = wanted),
        max(m.message_id::text) filter (where m.place = wanted),
        case when count(*) > wanted then 'removals' end
      into taken, next_xid, next_id, next_part
      from (
        select f.message_id, f.changed_xid, row_number() over (order by f.changed_xid, f.message_id) as place
        from chat.messages_taken_away(
          seen,
          target,
          case when part = 'removals' then sync.after_xid::xid8 end,
          case when part = 'removals' then sync.after_id end,
          wanted + 1
        ) f
      ) m;
    end if;

    if next_part is null then
      select
        array_agg(m.message_id) filter (where m.place <= wanted),
        max(m.conversation_id::text) filter (where m.place = wanted),
        max(m.changed_xid::text) filter (where m.place = wanted),
        max(m.message_id::text) filter (where m.place = wanted),
        case when count(*) > wanted then 'messages' end
      into changed, next_conversation_id, next_xid, next_id, next_part
      from (
        select
          f.message_id,
          f.conversation_id,
          f.changed_xid,
          row_number() over (order by f.conversation_id, f.changed_xid, f.message_id) as place
        from chat.changed_messages(
          seen,
          target,
          case when part = 'messages' then after_conversation_id end,
          case when part = 'messages' then sync.after_xid::xid8 end,
          case when part = 'messages' then sync.after_id end,
          wanted + 1
        ) f
      ) m;
    end if;
  end if;

  removed_conversation_ids := to_json(coalesce(gone, '{}'));
  removed_message_ids := to_json(coalesce(taken, '{}'));
  conversations := '[]';
  receipts := '[]';
  messages := '[]';
  if shown <> '{}' then
    conversations := (
      select coalesce(json_agg(r."row" order by r.is_pinned desc, r.last_activity_at desc, r.conversation_id desc), '[]')
      from chat.conversation_rows(shown) r
    );
    receipts := (
      select coalesce(
        json_agg(
          json_build_object(
            'conversation_id', r.conversation_id,
            'user_id', r.user_id,
            'last_read_seq', r.last_read_seq,
            'last_read_message_id', r.last_read_message_id,
            'last_read_at', r.last_read_at,
            'last_delivered_seq', r.last_delivered_seq,
            'last_delivered_message_id', r.last_delivered_message_id,
            'last_delivered_at', r.last_delivered_at
          )
          order by r.conversation_id, r.user_id
        ),
        '[]'
      )
      from public.conversation_receipts r
      where r.conversation_id = any (shown)
        and r.user_id <> caller
        -- A user who does not share receipts does not see those of other users either.
        and (select chat.i_share_receipts())
    );
  end if;
  if changed <> '{}' then
    messages := (
      select coalesce(json_agg(r."row" order by r.conversation_id, r.seq), '[]')
      from chat.message_rows(changed) r
    );
  end if;
  return next;
end
$$;

comment on function chat.sync(text, timestamptz, text, text, text, boolean, timestamptz, uuid, text, uuid, int) is
  'A page of the changes that the caller has not seen since a snapshot: their changed conversations with the other members'' receipts, removals, and changed messages, including tombstones. The next page starts at next_part and the columns after it. If next_part is null, this is the last page and reached is the next cursor. Raises resync_required if the cursor is from another database or too old.';

revoke all on function chat.sync(text, timestamptz, text, text, text, boolean, timestamptz, uuid, text, uuid, int) from public;
grant execute on function chat.sync(text, timestamptz, text, text, text, boolean, timestamptz, uuid, text, uuid, int) to authenticated;

-- -------------------------------------------------------------------------- changes of changed_xid

-- Marks memberships of a user as changed, because drafts, blocks and whether the user shares
-- receipts are part of the user's conversation rows.
create or replace function chat.touch_memberships(of_user_id uuid, in_conversation_id uuid default null)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform
  from public.user_conversation_members m
  where m.user_id = of_user_id
    and m.left_at is null
    and (in_conversation_id is null or m.conversation_id = in_conversation_id)
  order by m.conversation_id
  for no key update;

  update public.user_conversation_members m
  set changed_xid = pg_current_xact_id()
  where m.user_id = of_user_id
    and m.left_at is null
    and (in_conversation_id is null or m.conversation_id = in_conversation_id);
end
$$;

revoke all on function chat.touch_memberships(uuid, uuid) from public;

create or replace function chat.tell_of_sharing()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chat.touch_memberships(new.user_id);
  return null;
end
$$;

revoke all on function chat.tell_of_sharing() from public;

create or replace trigger user_notification_preferences_20_tell_of_sharing
  after update of share_read_receipts on public.user_notification_preferences
  for each row
  when (new.share_read_receipts <> old.share_read_receipts)
  execute function chat.tell_of_sharing();

-- Without a row, receipts are shared.
create or replace trigger user_notification_preferences_20_tell_of_not_sharing
  after insert on public.user_notification_preferences
  for each row
  when (not new.share_read_receipts)
  execute function chat.tell_of_sharing();

create or replace function chat.tell_of_block()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  pair constant uuid[] := array[coalesce(new.blocker_id, old.blocker_id), coalesce(new.blocked_id, old.blocked_id)];
  between_them uuid;
begin
  select c.id into between_them
  from public.user_conversations c
  where c.kind = 'direct'
    and c.participant_1_id = least(pair[1], pair[2])
    and c.participant_2_id = greatest(pair[1], pair[2]);
  if found then
    -- Conversations are locked before members, as when sending.
    perform from public.user_conversations c where c.id = between_them for no key update;
    perform chat.touch_memberships(least(pair[1], pair[2]), between_them);
    perform chat.touch_memberships(greatest(pair[1], pair[2]), between_them);
  end if;
  return null;
end
$$;

revoke all on function chat.tell_of_block() from public;

create or replace trigger user_blocks_20_tell
  after insert or delete on public.user_blocks
  for each row execute function chat.tell_of_block();

create or replace function chat.remember_removed_memberships()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into chat.removed_memberships as r (user_id, conversation_id)
  select g.user_id, g.conversation_id
  from gone g
  -- Nothing is recorded for an erased user.
  where exists (select from chat.directory d where d.user_id = g.user_id)
  on conflict on constraint removed_memberships_pkey do update
  set removed_at = excluded.removed_at, changed_xid = excluded.changed_xid;

  delete from chat.removed_memberships r
  where r.removed_at < now() - make_interval(secs => chat.amount('sync_horizon_s', 2592000));
  return null;
end
$$;

revoke all on function chat.remember_removed_memberships() from public;

create or replace trigger user_conversation_members_30_remember_removed
  after delete on public.user_conversation_members
  referencing old table as gone
  for each statement execute function chat.remember_removed_memberships();
