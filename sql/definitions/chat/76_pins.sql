-- Pins. Each pin changes its message, so clients that fetch changes receive the whole message.

create or replace function chat.pin_message(message_id uuid, present boolean default true)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Evaluated before the message is looked up, so that claims without a valid id fail in the same
  -- way for an existing and for an unknown message.
  caller constant uuid := auth.uid();
  message record;
begin
  -- Locks the message, so that pinning and deleting it are serialized.
  select m.id, m.conversation_id, m.is_deleted into message
  from public.user_messages m
  where m.id = pin_message.message_id and (chat.my_message(m.id)).id is not null
  for no key update;
  if not found then
    perform chat.refuse('not_found');
  end if;
  perform chat.refuse_if_outdated();

  if not present then
    delete from public.message_pins p where p.message_id = message.id;
  elsif message.is_deleted then
    perform chat.refuse('message_deleted');
  else
    insert into public.message_pins (message_id, conversation_id, pinned_by)
    values (message.id, message.conversation_id, caller)
    on conflict on constraint message_pins_pkey do nothing;
  end if;

  if found then
    -- Setting any other rev makes the trigger of user_messages assign the next one.
    update public.user_messages m set rev = m.rev + 1 where m.id = message.id;
  end if;
  -- This comes last, because the statements above wait for locks.
  perform chat.check_rights(message.conversation_id, true);
end
$$;

comment on function chat.pin_message(uuid, boolean) is
  'Pins a message for all members of its conversation, or unpins it. Repeating it does nothing.';

revoke all on function chat.pin_message(uuid, boolean) from public;
grant execute on function chat.pin_message(uuid, boolean) to authenticated;

-- before_pinned_at and before_id are the time and the message of the last pin of the previous page.
create or replace function chat.pin_page(
  conversation_id uuid,
  max_rows int default 50,
  before_pinned_at timestamptz default null,
  before_id uuid default null
)
returns table (message_id uuid, pinned_at timestamptz, rev bigint, "row" json)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  cleared bigint;
  page uuid[];
begin
  select m.cleared_seq into cleared
  from public.user_conversation_members m
  where m.conversation_id = pin_page.conversation_id and m.user_id = auth.uid() and m.left_at is null;
  if not found then
    perform chat.refuse('not_found');
  end if;

  page := array(
    select p.message_id
    from public.message_pins p
    join public.user_messages m on m.id = p.message_id
    where p.conversation_id = pin_page.conversation_id
      and m.seq > cleared
      and not exists (select from public.message_hides h where h.user_id = auth.uid() and h.message_id = p.message_id)
      and (before_pinned_at is null or (p.created_at, p.message_id) < (before_pinned_at, before_id))
    order by p.created_at desc, p.message_id desc
    limit least(greatest(coalesce(max_rows, 50), 1), 101)
  );

  return query
  select r.message_id, p.created_at, r.rev, r."row"
  from chat.message_rows(page) r
  join public.message_pins p on p.message_id = r.message_id
  order by p.created_at desc, p.message_id desc;
end
$$;

comment on function chat.pin_page(uuid, int, timestamptz, uuid) is
  'The pinned messages of one of the caller''s conversations, the latest pin first, without messages that the caller cleared or hid.';

revoke all on function chat.pin_page(uuid, int, timestamptz, uuid) from public;
grant execute on function chat.pin_page(uuid, int, timestamptz, uuid) to authenticated;
