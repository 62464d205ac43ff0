-- Messages as in REST responses. The ids of a page are found first, through the index, and then all
-- rows of the page are built at once.

create or replace function chat.message_rows(message_ids uuid[])
returns table (
  message_id uuid,
  conversation_id uuid,
  seq bigint,
  rev bigint,
  "row" json
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
-- Overrides the "off" of the calling functions, because here no index returns the rows in order.
set enable_sort = on
as $$
declare
  caller constant uuid := auth.uid();
  shares constant boolean := chat.i_share_receipts();
  in_conversations constant uuid[] := array(
    select distinct m.conversation_id from public.user_messages m where m.id = any (message_rows.message_ids)
  );
begin
  return query
  with people as materialized (
    select
      p.conversation_id,
      p.user_id,
      json_build_object('id', p.user_id, 'full_name', p.full_name, 'avatar_url', p.avatar_url, 'status', p.status) as card
    from chat.conversation_people(in_conversations) p
  ),
  -- The other members' positions as they share them, and the caller's own position.
  positions as materialized (
    select r.conversation_id, r.user_id, r.last_read_seq, r.last_delivered_seq
    from public.conversation_receipts r
    where r.conversation_id = any (in_conversations) and r.user_id <> caller and shares
    union all
    select m.conversation_id, m.user_id, m.last_read_seq, m.last_read_seq
    from public.user_conversation_members m
    where m.conversation_id = any (in_conversations) and m.user_id = caller
  ),
  reactions as materialized (
    select
      kind.message_id,
      json_agg(
        json_build_object(
          'reaction', kind.reaction,
          'emoji', kind.reaction,
          'count', kind.people,
          'me', kind.me,
          'user_ids', kind.user_ids
        )
        order by kind.first_at, kind.reaction
      ) as list
    from (
      select
        r.message_id,
        r.reaction,
        count(*) as people,
        bool_or(r.user_id = caller) as me,
        (array_agg(r.user_id order by r.created_at, r.user_id))[1:10] as user_ids,
        min(r.created_at) as first_at
      from public.message_reactions r
      where r.message_id = any (message_rows.message_ids)
      group by r.message_id, r.reaction
    ) kind
    group by kind.message_id
  )
  select
    m.id,
    m.conversation_id,
    m.seq,
    m.rev,
    json_build_object(
      'id', m.id,
      'conversation_id', m.conversation_id,
      'sender_id', m.sender_id,
      'content', m.content,
      'message_type', m.message_type,
      'file_url', m.file_url,
      'file_name', m.file_name,
      'file_size', m.file_size,
      'file_type', m.file_type,
      'created_at', m.created_at,
      'updated_at', m.updated_at,
      'is_edited', m.is_edited,
      'edited_at', m.edited_at,
      'is_deleted', m.is_deleted,
      'deleted_at', m.deleted_at,
      'read_by', read.by,
      'metadata', m.metadata,
      'client_message_id', m.client_message_id,
      'seq', m.seq,
      'rev', m.rev,
      'reply_to_id', m.reply_to_id,
      'reply_to', case when replied.id is not null then json_build_object(
        'id', replied.id,
        'sender_id', replied.sender_id,
        'content', left(replied.content, 200),
        'message_type', replied.message_type,
        'created_at', replied.created_at,
        'is_deleted', replied.is_deleted,
        'file_name', replied.file_name
      ) end,
      'mentions', m.mentions,
      'sender', coalesce(sender.card, case when m.sender_id is not null then json_build_object('id', m.sender_id) end),
      'reactions', coalesce(reactions.list, '[]'),
      'is_pinned', pin.message_id is not null,
      'attachments', '[]'::json,
      'delivery_status', case
        when m.sender_id = caller and read.by_others then 'read'
        when m.sender_id = caller and read.delivered_to_others then 'delivered'
        when m.sender_id = caller then 'sent'
        when caller = any (read.by) then 'read'
        else 'delivered'
      end
    )
  from public.user_messages m
  left join people sender on sender.conversation_id = m.conversation_id and sender.user_id = m.sender_id
  left join public.user_messages replied on replied.id = m.reply_to_id
  left join reactions on reactions.message_id = m.id
  left join public.message_pins pin on pin.message_id = m.id
  cross join lateral (
    select
      coalesce(array_agg(p.user_id order by p.user_id) filter (where p.last_read_seq >= m.seq), '{}') as by,
      coalesce(bool_or(p.last_read_seq >= m.seq and p.user_id <> caller), false) as by_others,
      coalesce(bool_or(p.last_delivered_seq >= m.seq and p.user_id <> caller), false) as delivered_to_others
    from positions p
    where p.conversation_id = m.conversation_id and p.user_id is distinct from m.sender_id
  ) read
  where m.id = any (message_rows.message_ids)
  order by m.conversation_id, m.seq;
end
$$;

comment on function chat.message_rows(uuid[]) is
  'The given messages as far as the caller may see them, oldest first within a conversation. read_by contains the caller and those whose receipts the caller sees, but never the sender.';

revoke all on function chat.message_rows(uuid[]) from public;
grant execute on function chat.message_rows(uuid[]) to authenticated;

-- before_seq: the page that ends before this seq. after_seq: the page that starts after this seq.
-- Both: the rows between them, counted from the newest. Neither: the newest page.
create or replace function chat.message_page(
  conversation_id uuid,
  before_seq bigint default null,
  after_seq bigint default null,
  max_rows int default 50,
  include_deleted boolean default false,
  skip_rows int default 0
)
returns table (
  message_id uuid,
  seq bigint,
  rev bigint,
  "row" json
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
-- A generic plan expects a short conversation, in which sorting is cheap. In a long conversation,
-- such a plan would read all rows. JIT compilation is disabled for the same reason as in
-- chat.place_message().
set enable_sort = off
set jit = off
as $$
declare
  caller constant uuid := auth.uid();
  cleared bigint;
  wanted constant int := least(greatest(coalesce(message_page.max_rows, 50), 1), 201);
  skipped constant int := greatest(coalesce(message_page.skip_rows, 0), 0);
  -- Computed before the query, because in the query the policy would be checked first and prevent
  -- the use of the index.
  above bigint;
  below constant bigint := coalesce(before_seq, 9223372036854775807);
  page uuid[];
begin
  select m.cleared_seq into cleared
  from public.user_conversation_members m
  where m.conversation_id = message_page.conversation_id and m.user_id = caller and m.left_at is null;
  if not found then
    perform chat.refuse('not_found');
  end if;
  above := greatest(after_seq, cleared);

  if after_seq is not null and before_seq is null then
    page := array(
      select m.id
      from public.user_messages m
      where m.conversation_id = message_page.conversation_id
        and m.seq > above
        and (include_deleted or not m.is_deleted)
        and not exists (select from public.message_hides h where h.user_id = caller and h.message_id = m.id)
      order by m.seq
      limit wanted
      offset skipped
    );
  else
    page := array(
      select m.id
      from public.user_messages m
      where m.conversation_id = message_page.conversation_id
        and m.seq > above
        and m.seq < below
        and (include_deleted or not m.is_deleted)
        and not exists (select from public.message_hides h where h.user_id = caller and h.message_id = m.id)
      order by m.seq desc
      limit wanted
      offset skipped
    );
  end if;

  return query select r.message_id, r.seq, r.rev, r."row" from chat.message_rows(page) r order by r.seq;
end
$$;

comment on function chat.message_page(uuid, bigint, bigint, int, boolean, int) is
  'A page of a conversation, always oldest first, without messages that the caller cleared or hid. Raises not_found for strangers. Returns at most 201 rows, one more than a page of 200.';

revoke all on function chat.message_page(uuid, bigint, bigint, int, boolean, int) from public;
grant execute on function chat.message_page(uuid, bigint, bigint, int, boolean, int) to authenticated;

create or replace function chat.message_changes(conversation_id uuid, since_rev bigint, max_rows int default 200)
returns table (
  message_id uuid,
  seq bigint,
  rev bigint,
  "row" json
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
-- For the same reasons as in chat.message_page().
set enable_sort = off
set jit = off
as $$
declare
  caller constant uuid := auth.uid();
  cleared bigint;
  page uuid[];
begin
  select m.cleared_seq into cleared
  from public.user_conversation_members m
  where m.conversation_id = message_changes.conversation_id and m.user_id = caller and m.left_at is null;
  if not found then
    perform chat.refuse('not_found');
  end if;

  page := array(
    select m.id
    from public.user_messages m
    where m.conversation_id = message_changes.conversation_id
      and m.rev > message_changes.since_rev
      and m.seq > cleared
      and not exists (select from public.message_hides h where h.user_id = caller and h.message_id = m.id)
    order by m.rev
    limit least(greatest(coalesce(message_changes.max_rows, 200), 1), 201)
  );

  return query select r.message_id, r.seq, r.rev, r."row" from chat.message_rows(page) r order by r.rev;
end
$$;

comment on function chat.message_changes(uuid, bigint, int) is
  'The messages of a conversation that changed since a rev, including tombstones, in the order of the changes.';

revoke all on function chat.message_changes(uuid, bigint, int) from public;
grant execute on function chat.message_changes(uuid, bigint, int) to authenticated;

create or replace function chat.message_anchor(conversation_id uuid, anchor text)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  found_seq bigint;
begin
  if not exists (
    select
    from public.user_conversation_members m
    where m.conversation_id = message_anchor.conversation_id and m.user_id = (select auth.uid()) and m.left_at is null
  ) then
    perform chat.refuse('not_found');
  end if;

  if anchor = 'first_unread' then
    select coalesce(
      (
        select m.seq
        from public.user_messages m
        where m.conversation_id = mine.conversation_id
          and m.seq > greatest(mine.last_read_seq, mine.cleared_seq)
          and m.sender_id is distinct from mine.user_id
          and not m.is_deleted
        order by m.seq
        limit 1
      ),
      -- If everything is read, the end of the conversation.
      c.last_seq
    ) into found_seq
    from public.user_conversation_members mine
    join public.user_conversations c on c.id = mine.conversation_id
    where mine.conversation_id = message_anchor.conversation_id and mine.user_id = (select auth.uid());
  elsif anchor ~ '^[0-9]{1,18}$' then
    found_seq := anchor::bigint;
  elsif anchor ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    select m.seq into found_seq
    from public.user_messages m
    where m.id = anchor::uuid and m.conversation_id = message_anchor.conversation_id;
    if not found then
      perform chat.refuse('not_found');
    end if;
  else
    perform chat.refuse('validation_failed', 'A position must be the id of a message, its seq, or first_unread');
  end if;
  return found_seq;
end
$$;

comment on function chat.message_anchor(uuid, text) is
  'The seq for the anchor of a history request: a message id, a seq, or first_unread.';

revoke all on function chat.message_anchor(uuid, text) from public;
grant execute on function chat.message_anchor(uuid, text) to authenticated;

-- kind: image or file. Null: both.
create or replace function chat.file_page(
  conversation_id uuid,
  kind text default null,
  max_rows int default 50,
  before_seq bigint default null
)
returns table (message_id uuid, seq bigint, rev bigint, "row" json)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  cleared bigint;
  page uuid[];
begin
  select m.cleared_seq into cleared
  from public.user_conversation_members m
  where m.conversation_id = file_page.conversation_id and m.user_id = auth.uid() and m.left_at is null;
  if not found then
    perform chat.refuse('not_found');
  end if;

  page := array(
    select m.id
    from public.user_messages m
    where m.conversation_id = file_page.conversation_id
      and m.message_type in ('image', 'file')
      and not m.is_deleted
      and (kind is null or m.message_type = kind)
      and m.seq > cleared
      and m.seq < coalesce(before_seq, 9223372036854775807)
      and not exists (select from public.message_hides h where h.user_id = auth.uid() and h.message_id = m.id)
    order by m.seq desc
    limit least(greatest(coalesce(max_rows, 50), 1), 101)
  );

  return query select r.message_id, r.seq, r.rev, r."row" from chat.message_rows(page) r order by r.seq desc;
end
$$;

comment on function chat.file_page(uuid, text, int, bigint) is
  'The messages with a file in one of the caller''s conversations, newest first, without messages that the caller cleared or hid.';

revoke all on function chat.file_page(uuid, text, int, bigint) from public;
grant execute on function chat.file_page(uuid, text, int, bigint) to authenticated;
