-- Who is there, and who is typing.

-- Runs as whoever writes, so that it knows a client from the functions below and from the server.
create or replace function chat.settle_presence()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if new.current_page is not null and not chat.flag('share_current_page') then
    new.current_page := null;
  end if;
  if row_security_active('public.user_presence') then
    -- a client says whether it is there; since when and until when is not for it to say
    new.last_seen := clock_timestamp();
    new.expires_at := clock_timestamp() + make_interval(secs => chat.amount('presence_table_ttl_s', 300));
  end if;
  if new.is_typing_to is null then
    new.typing_started_at := null;
  elsif new.typing_started_at is null then
    new.typing_started_at := clock_timestamp();
  end if;
  new.updated_at := clock_timestamp();
  new.changed_xid := pg_current_xact_id();
  return new;
end
$$;

revoke all on function chat.settle_presence() from public;

create or replace trigger user_presence_10_settle
  before insert or update on public.user_presence
  for each row execute function chat.settle_presence();

create or replace function chat.set_presence(
  status text default null,
  current_page text default null,
  manual_until timestamptz default null,
  status_text text default null,
  status_emoji text default null,
  is_manual boolean default null,
  clear_status_text boolean default false
)
returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  caller constant uuid := auth.uid();
  reported text := case set_presence.status when 'dnd' then 'busy' else set_presence.status end;
  -- busy is a choice; what comes with an end is one, too; anything else is a device reporting
  chosen constant boolean := coalesce(set_presence.is_manual, reported = 'busy' or set_presence.manual_until is not null);
  ttl constant interval := make_interval(secs => chat.amount('presence_ttl_s', 60));
begin
  if caller is null then
    perform chat.refuse('unauthorized');
  end if;
  if reported is not null and reported not in ('online', 'away', 'busy', 'offline') then
    perform chat.refuse('validation_failed', 'status is online, away, busy or offline');
  end if;
  if char_length(set_presence.status_text) > 100 or char_length(set_presence.status_emoji) > 32 then
    perform chat.refuse('validation_failed', 'status_text has at most 100 characters, status_emoji 32');
  end if;

  insert into public.user_presence as p (
    user_id, status, current_page, manual_status, manual_until, status_text, status_emoji, last_seen, last_active_at, expires_at
  ) values (
    caller,
    -- a choice says nothing of the devices, except that one just spoke
    case when chosen then 'online' else coalesce(reported, 'online') end,
    left(set_presence.current_page, 2048),
    case when chosen and reported <> 'online' then reported end,
    case when chosen and reported <> 'online' then set_presence.manual_until end,
    nullif(chat.trimmed(set_presence.status_text), ''),
    nullif(chat.trimmed(set_presence.status_emoji), ''),
    clock_timestamp(),
    case when reported = 'online' then clock_timestamp() end,
    clock_timestamp() + ttl
  )
  on conflict on constraint user_presence_pkey do update
  -- without a status only the words change: it is no sign of life
  set status = case when reported is null then p.status else excluded.status end,
    current_page = coalesce(excluded.current_page, p.current_page),
    manual_status = case when chosen then excluded.manual_status else p.manual_status end,
    manual_until = case when chosen then excluded.manual_until else p.manual_until end,
    status_text = case when clear_status_text then null else coalesce(excluded.status_text, p.status_text) end,
    status_emoji = case when clear_status_text then null else coalesce(excluded.status_emoji, p.status_emoji) end,
    last_seen = case when reported is null then p.last_seen else excluded.last_seen end,
    last_active_at = coalesce(excluded.last_active_at, p.last_active_at),
    -- while a socket vouches for somebody there is nothing to run out
    expires_at = case
      when reported is null or (p.expires_at is null and p.device_count > 0) then p.expires_at
      else excluded.expires_at
    end;

  return (select r."row" from chat.presence_rows(array[caller]) r);
end
$$;

comment on function chat.set_presence(text, text, timestamptz, text, text, boolean, boolean) is
  'The caller''s own presence. busy, or any status with manual_until or is_manual, holds against what devices report; online with is_manual ends it. Answers the row.';

revoke all on function chat.set_presence(text, text, timestamptz, text, text, boolean, boolean) from public;
grant execute on function chat.set_presence(text, text, timestamptz, text, text, boolean, boolean) to authenticated;

create or replace function chat.report_presence(user_id uuid, status text, device_count int, expires_at timestamptz default null)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  insert into public.user_presence as p (user_id, status, device_count, expires_at, last_seen, last_active_at)
  values (
    report_presence.user_id,
    report_presence.status,
    report_presence.device_count,
    report_presence.expires_at,
    clock_timestamp(),
    case when report_presence.status = 'online' then clock_timestamp() end
  )
  on conflict on constraint user_presence_pkey do update
  set status = excluded.status,
    device_count = excluded.device_count,
    expires_at = excluded.expires_at,
    last_seen = excluded.last_seen,
    last_active_at = coalesce(excluded.last_active_at, p.last_active_at),
    is_typing_to = case when excluded.status <> 'offline' then p.is_typing_to end;
end
$$;

comment on function chat.report_presence(uuid, text, int, timestamptz) is
  'What the server knows of a person''s sockets. Without expires_at the report holds until the next one.';

revoke all on function chat.report_presence(uuid, text, int, timestamptz) from public;
grant execute on function chat.report_presence(uuid, text, int, timestamptz) to service_role;

create or replace function chat.expire_presence()
returns setof uuid
language plpgsql
security definer
set search_path = ''
as $$
begin
  return query
  update public.user_presence p
  set status = 'offline',
    device_count = 0,
    is_typing_to = null
  where p.status <> 'offline' and p.expires_at <= clock_timestamp()
  returning p.user_id;
end
$$;

comment on function chat.expire_presence() is 'Writes down that stale reports mean offline, so that those who watch the table hear of it. Answers whose they were.';

revoke all on function chat.expire_presence() from public;
grant execute on function chat.expire_presence() to service_role;

create or replace function chat.presence_rows(user_ids uuid[] default null, team boolean default false)
returns table (user_id uuid, "row" json)
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  caller constant uuid := auth.uid();
  wanted uuid[] := case when team then null else coalesce(presence_rows.user_ids, array[caller]) end;
begin
  return query
  select
    p.user_id,
    json_build_object(
      'user_id', p.user_id,
      'status', p.status,
      'last_seen', p.last_seen,
      'status_text', p.status_text,
      'status_emoji', p.status_emoji,
      'is_typing_to', p.is_typing_to,
      'device_count', p.device_count,
      'current_page', case when p.user_id = caller then p.current_page end,
      'manual_status', case when p.user_id = caller then p.manual_status end,
      'manual_until', case when p.user_id = caller then p.manual_until end,
      'last_active_at', p.last_active_at,
      'updated_at', p.updated_at
    )
  from chat.presence p
  where wanted is null or p.user_id = any (wanted)
  order by p.user_id;
end
$$;

comment on function chat.presence_rows(uuid[], boolean) is
  'Presence of the people asked about as far as the caller may see it; team: of everybody they may see; neither: their own.';

revoke all on function chat.presence_rows(uuid[], boolean) from public;
grant execute on function chat.presence_rows(uuid[], boolean) to authenticated;

create or replace function chat.set_typing(
  conversation_id uuid,
  is_typing boolean,
  out others uuid[],
  out is_shared boolean,
  out expires_in_ms int
)
language plpgsql
security definer
set search_path = ''
as $$
declare
  caller constant uuid := auth.uid();
begin
  if not chat.is_my_conversation(conversation_id) then
    perform chat.refuse('not_found');
  end if;

  others := array(
    select m.user_id
    from public.user_conversation_members m
    where m.conversation_id = set_typing.conversation_id and m.user_id <> caller and m.left_at is null
    order by m.user_id
  );
  -- whoever may not write, or does not want to be watched, types unseen
  is_shared := chat.can_send(conversation_id) and coalesce(
    (select p.share_typing from public.user_notification_preferences p where p.user_id = caller),
    true
  );
  expires_in_ms := chat.amount('typing_ttl_ms', 6000);

  if is_shared and chat.flag('typing_in_table') then
    insert into public.user_presence as p (user_id, status, is_typing_to)
    values (caller, 'online', case when is_typing then others[1] end)
    on conflict on constraint user_presence_pkey do update
    set is_typing_to = excluded.is_typing_to,
      typing_started_at = case when excluded.is_typing_to is not distinct from p.is_typing_to then p.typing_started_at end
    where p.is_typing_to is distinct from excluded.is_typing_to;
  end if;
end
$$;

comment on function chat.set_typing(uuid, boolean) is
  'Who else is in the conversation, and whether they are to be told that the caller types. Stores nothing unless typing_in_table is on.';

revoke all on function chat.set_typing(uuid, boolean) from public;
grant execute on function chat.set_typing(uuid, boolean) to authenticated;
