-- Presence, and who is typing.
--
-- A row of user_presence is what other users see. Clients cannot read the data that it is computed
-- from: what devices reported (chat.presence_report_sessions for devices with a session_id,
-- chat.presence_reports for all others), what the user chose (chat.presence_reports), and sockets
-- at server processes (chat.presence_sessions). The page that a user looks at (chat.presence_pages)
-- is readable only through chat.pages_of().
--
-- A function that changes any of these data also updates the visible row if the content of that row
-- changes. It locks rows of presence_reports in the order of their keys, and then all other rows.
-- For a hidden user (one who does not share their presence, or chose to appear offline), it locks
-- neither the row of users nor the row of user_presence unless that row changes. A lock changes
-- xmax, which would reveal when the user reports. An insert locks the row to which its foreign key
-- refers. So no table of the reports refers to user_presence, and the row of presence_reports,
-- which refers to users, is inserted when the user hides.
--
-- Users can keep their own rows locked. So the functions for many users (report_devices,
-- expire_presence, keep_presence) do not wait for such a row, except briefly when they insert
-- missing rows (chat.add_presence). They lock the rows that they write with "skip locked", and
-- postpone users whose rows are locked.

-- Locks users' rows of presence_reports, and inserts the missing ones. It waits for other
-- transactions, so it is only for the caller's own row. No row is inserted for an erased user,
-- because a token can outlive its user.
create or replace function chat.lock_presence(user_ids uuid[])
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into chat.presence_reports (user_id)
  select d.user_id
  from chat.directory d
  where d.user_id = any (lock_presence.user_ids)
    and not exists (select from chat.presence_reports r where r.user_id = d.user_id)
  order by d.user_id
  on conflict on constraint presence_reports_pkey do nothing;

  perform
  from chat.presence_reports r
  where r.user_id = any (lock_presence.user_ids)
  order by r.user_id
  for no key update;
end
$$;

revoke all on function chat.lock_presence(uuid[]) from public;

-- Locks the rows of presence_reports that no other transaction has locked, and returns their users.
create or replace function chat.lock_free_presence(user_ids uuid[])
returns uuid[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select r.user_id
    from chat.presence_reports r
    where r.user_id = any (lock_free_presence.user_ids)
    order by r.user_id
    for no key update skip locked
  );
end
$$;

revoke all on function chat.lock_free_presence(uuid[]) from public;

-- Inserts the rows that a user's first socket needs: the report, and the visible row unless the
-- user does not share their presence.
create or replace function chat.insert_presence(user_ids uuid[])
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into chat.presence_reports (user_id)
  select u.id
  from unnest(insert_presence.user_ids) u (id)
  order by u.id
  on conflict on constraint presence_reports_pkey do nothing;

  insert into public.user_presence (user_id)
  select u.id
  from unnest(insert_presence.user_ids) u (id)
  where not exists (select from public.user_notification_preferences f where f.user_id = u.id and not f.share_presence)
  order by u.id
  on conflict on constraint user_presence_pkey do nothing;
end
$$;

revoke all on function chat.insert_presence(uuid[]) from public;

-- Inserts the rows of users who have none, and returns the users for whom that was impossible. An
-- insert waits for a transaction that inserts the same key, and the foreign key waits for a lock on
-- the user's row in the application's table. "skip locked" prevents neither wait, and a user can
-- cause both. So each attempt may wait only briefly: longer than an honest report takes, and short
-- enough that even many such users do not exhaust the server's statement timeout of 10 seconds.
create or replace function chat.add_presence(user_ids uuid[])
returns uuid[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '20ms'
as $$
declare
  person uuid;
  held uuid[] := '{}';
begin
  begin
    perform chat.insert_presence(user_ids);
    return held;
  exception when lock_not_available then
    -- At least one of the rows is locked, so the rows are inserted one by one.
    null;
  end;
  foreach person in array user_ids loop
    begin
      perform chat.insert_presence(array[person]);
    exception when lock_not_available then
      held := held || person;
    end;
  end loop;
  return held;
end
$$;

revoke all on function chat.add_presence(uuid[]) from public;

create or replace function chat.shares_presence(user_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return not exists (
    select
    from public.user_notification_preferences f
    where f.user_id = shares_presence.user_id and not f.share_presence
  );
end
$$;

revoke all on function chat.shares_presence(uuid) from public;

-- Returns what other users now see of these users.
create or replace function chat.presence_now(user_ids uuid[])
returns table (user_id uuid, status text, manual_status text, manual_until timestamptz, device_count int)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    k.user_id,
    f.status,
    case when f.status <> 'offline' then s.chosen end,
    case when f.status <> 'offline' and s.chosen is not null then r.manual_until end,
    case when f.status <> 'offline' then greatest(d.devices, h.devices) else 0 end
  from unnest(presence_now.user_ids) k (user_id)
  left join chat.presence_reports r on r.user_id = k.user_id
  left join public.user_notification_preferences hiding on hiding.user_id = k.user_id and not hiding.share_presence
  cross join lateral (
    -- A count that outlived its process is ignored.
    select coalesce(sum(v.devices), 0)::int as devices
    from chat.presence_sessions v
    join chat.presence_processes a on a.process_id = v.process_id and a.lease_until > clock_timestamp()
    where v.user_id = k.user_id
  ) d
  cross join lateral (
    -- The most present status of all devices. It is also the last one in the alphabet: online,
    -- busy, away.
    select
      greatest(max(v.status), case when r.expires_at > clock_timestamp() and r.status <> 'offline' then r.status end) as status,
      count(*)::int as devices
    from chat.presence_report_sessions v
    where v.user_id = k.user_id and v.expires_at > clock_timestamp()
  ) h
  cross join lateral (
    select
      -- A user with a socket and without a report is online.
      coalesce(h.status, case when d.devices > 0 then coalesce(r.status, 'online') end, 'offline') as reported,
      case when coalesce(r.manual_until > clock_timestamp(), true) then r.manual_status end as chosen
  ) s
  cross join lateral (
    -- A user who chose busy is offline when all their devices are gone.
    select case
      when hiding.user_id is not null or s.reported = 'offline' or s.chosen = 'offline' then 'offline'
      else coalesce(s.chosen, s.reported)
    end as status
  ) f;
end
$$;

revoke all on function chat.presence_now(uuid[]) from public;

-- Updates the visible rows whose content changes, and returns their users. The calling function has
-- locked the rows of presence_reports. It has also locked the visible rows, unless all rows belong
-- to one user.
create or replace function chat.show_presence(user_ids uuid[])
returns setof uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  update public.user_presence p
  set status = n.status,
    manual_status = n.manual_status,
    manual_until = n.manual_until,
    device_count = n.device_count,
    last_seen = case when n.status <> p.status then clock_timestamp() else p.last_seen end,
    last_active_at = case when n.status = 'online' and p.status <> 'online' then clock_timestamp() else p.last_active_at end,
    is_typing_to = case when n.status <> 'offline' then p.is_typing_to end
  from chat.presence_now(show_presence.user_ids) n
  where p.user_id = n.user_id
    and (p.status, p.manual_status, p.manual_until, p.device_count)
      is distinct from (n.status, n.manual_status, n.manual_until, n.device_count)
  returning p.user_id;
end
$$;

revoke all on function chat.show_presence(uuid[]) from public;

-- Like chat.show_presence(), but does not wait for rows that users keep locked, and records the
-- users whose visible row is now out of date. held: users whose row of presence_reports could not
-- be locked, so their presence is unknown. The calling function has locked the rows of user_ids.
create or replace function chat.show_free_presence(user_ids uuid[], held uuid[] default '{}')
returns setof uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  different uuid[];
  free uuid[];
  unshown uuid[];
begin
  different := array(
    select p.user_id
    from chat.presence_now(show_free_presence.user_ids) n
    join public.user_presence p on p.user_id = n.user_id
    where (p.status, p.manual_status, p.manual_until, p.device_count)
      is distinct from (n.status, n.manual_status, n.manual_until, n.device_count)
  );
  free := array(
    select p.user_id
    from public.user_presence p
    where p.user_id = any (different)
    order by p.user_id
    for no key update skip locked
  );
  unshown := array(select unnest(different) except select unnest(free));

  return query select s.id from chat.show_presence(free) s (id);

  -- Rows are inserted before any are deleted, and in one order, so two servers cannot deadlock: a
  -- server that deletes no longer waits for anything.
  insert into chat.presence_unshown (user_id)
  select u.id
  from unnest(unshown || held) u (id)
  order by u.id
  on conflict on constraint presence_unshown_pkey do nothing;

  delete from chat.presence_unshown u
  where u.user_id = any (show_free_presence.user_ids) and not u.user_id = any (unshown);
end
$$;

revoke all on function chat.show_free_presence(uuid[], uuid[]) from public;

-- Records the status that a client reports by writing its own row, and returns the status that the
-- row then shows. is_new: the row is being inserted. If the row already exists, nothing is recorded
-- and the result is null, because an update with the same values follows. No update follows for a
-- user who does not share their presence, because the trigger inserts nothing for them. The
-- statement trigger has locked the row of presence_reports.
create or replace function chat.report_by_table(
  is_new boolean,
  reported text,
  out status text,
  out manual_status text,
  out manual_until timestamptz,
  out device_count int
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  ttl constant interval := make_interval(secs => chat.amount('presence_table_ttl_s', 300));
begin
  if is_new
    and exists (select from public.user_presence p where p.user_id = caller)
    and chat.shares_presence(caller)
  then
    return;
  end if;
  if reported is not null then
    insert into chat.presence_reports as r (user_id, status, expires_at)
    values (caller, reported, clock_timestamp() + ttl)
    on conflict on constraint presence_reports_pkey do update
    set status = excluded.status, expires_at = excluded.expires_at;
  else
    update chat.presence_reports r
    set expires_at = clock_timestamp() + ttl
    where r.user_id = caller and r.status <> 'offline';
  end if;
  select n.status, n.manual_status, n.manual_until, n.device_count
  into report_by_table.status, report_by_table.manual_status, report_by_table.manual_until, report_by_table.device_count
  from chat.presence_now(array[caller]) n;
end
$$;

comment on function chat.report_by_table(boolean, text) is
  'Records what a client reports by writing its own row of user_presence. For the trigger of that table.';

revoke all on function chat.report_by_table(boolean, text) from public;
grant execute on function chat.report_by_table(boolean, text) to authenticated;

-- For clients that write the table. A user who may not write to another is not shown typing to them
-- either.
create or replace function chat.may_be_seen_typing_to(other_user_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
begin
  return not chat.may_be_outdated()
    and not exists (select from public.user_notification_preferences p where p.user_id = caller and not p.share_typing)
    and exists (
      select
      from public.user_conversations c
      where c.kind = 'direct'
        and c.participant_1_id = least(caller, other_user_id)
        and c.participant_2_id = greatest(caller, other_user_id)
        and chat.can_send(c.id)
    );
end
$$;

comment on function chat.may_be_seen_typing_to(uuid) is
  'Returns whether this user may see that the caller types to them: they have a conversation in which the caller may write, and the caller shares typing.';

revoke all on function chat.may_be_seen_typing_to(uuid) from public;
grant execute on function chat.may_be_seen_typing_to(uuid) to authenticated;

create or replace function chat.lock_own_presence()
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chat.lock_presence(array[auth.uid()]);
end
$$;

comment on function chat.lock_own_presence() is 'Serializes the caller''s reports. For the trigger of user_presence.';

revoke all on function chat.lock_own_presence() from public;
grant execute on function chat.lock_own_presence() to authenticated;

-- A statement trigger, because a row trigger runs only after PostgreSQL has locked the row, which
-- is the wrong order.
create or replace function chat.begin_presence_by_table()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if row_security_active('public.user_presence') then
    perform chat.lock_own_presence();
  end if;
  return null;
end
$$;

revoke all on function chat.begin_presence_by_table() from public;

create or replace trigger user_presence_05_begin
  before insert or update on public.user_presence
  for each statement execute function chat.begin_presence_by_table();

-- Runs as the writing role, to distinguish clients from the functions below and from the server.
create or replace function chat.settle_presence()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  shown record;
begin
  -- Rows of other users are refused by the policy, which is checked after this trigger.
  if row_security_active('public.user_presence') and new.user_id = auth.uid() then
    -- A status that the row already has is not a report, because it may be a chosen one. Inserting
    -- a row with "offline" is not a report either.
    shown := chat.report_by_table(
      tg_op = 'INSERT',
      case when case tg_op when 'INSERT' then new.status <> 'offline' else new.status <> old.status end then new.status end
    );
    -- A row inserted at the first report would reveal the time of the report. This is checked only
    -- for the caller's own row: the caller must not learn whether other users hide.
    if tg_op = 'INSERT' and exists (
      select from public.user_notification_preferences f where f.user_id = new.user_id and not f.share_presence
    ) then
      return null;
    end if;
    if shown.status is not null then
      new.status := shown.status;
      new.manual_status := shown.manual_status;
      new.manual_until := shown.manual_until;
      new.device_count := shown.device_count;
    end if;
    -- A client reports its status, but does not set the time of the last change.
    new.last_seen := clock_timestamp();
    if new.is_typing_to is not null and not chat.may_be_seen_typing_to(new.is_typing_to) then
      new.is_typing_to := null;
    end if;
    if tg_op = 'INSERT' then
      new.typing_started_at := null;
    elsif (new.is_typing_to, new.typing_started_at) is distinct from (old.is_typing_to, old.typing_started_at) then
      new.typing_started_at := null;
    end if;
    -- A hidden user leaves no trace of being online.
    if tg_op = 'UPDATE' and old.status = 'offline' and new.status = 'offline' then
      new.last_seen := old.last_seen;
      new.is_typing_to := null;
      if (new.status_text, new.status_emoji) is not distinct from (old.status_text, old.status_emoji) then
        return null;
      end if;
    end if;
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

-- Stores or removes the page of a user. The calling function has locked that user's row of
-- presence_reports, or is about to insert it.
create or replace function chat.keep_page(user_id uuid, page text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if page is null
    or not chat.flag('share_current_page')
    or exists (
      select from public.user_notification_preferences f where f.user_id = keep_page.user_id and not f.share_presence
    )
  then
    delete from chat.presence_pages g where g.user_id = keep_page.user_id;
    return;
  end if;
  insert into chat.presence_pages as g (user_id, page)
  values (keep_page.user_id, left(keep_page.page, 2048))
  on conflict on constraint presence_pages_pkey do update
  set page = excluded.page
  where g.page <> excluded.page;
end
$$;

revoke all on function chat.keep_page(uuid, text) from public;

-- Moves the page from the written row to presence_pages, regardless of the writer, so that
-- user_presence neither stores nor publishes it, and an upsert does not return it. If a policy
-- refuses the write, the page stored in presence_pages is rolled back, too.
create or replace function chat.take_page_out()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    if new.current_page is null then
      return new;
    end if;
    -- The existence of the row must not change before the transaction ends. The row itself is not
    -- locked, because a lock changes its xmax and other users may read the row. The caller may not
    -- lock another user's row of presence_reports; the policies refuse such a write.
    if new.user_id = auth.uid() or (tg_argv[0] = 'server' and auth.uid() is null) then
      perform chat.lock_presence(array[new.user_id]);
    end if;
    -- If the row exists, nothing is inserted, and the update that may follow takes the page from
    -- "excluded", which is this row.
    if exists (select from public.user_presence p where p.user_id = new.user_id) then
      return new;
    end if;
    perform chat.keep_page(new.user_id, new.current_page);
  -- A hidden user leaves no trace of being online.
  elsif new.status <> 'offline' or old.status <> 'offline' then
    perform chat.keep_page(new.user_id, new.current_page);
  end if;
  new.current_page := null;
  return new;
end
$$;

revoke all on function chat.take_page_out() from public;

-- Runs after the other triggers, which decide whether anything is visible, and only if the
-- statement sets the column. The condition of a trigger is evaluated as the writer, so it
-- distinguishes users from the server. A user without an id in their claims is not the server.
create or replace trigger user_presence_30_page
  before insert or update of current_page on public.user_presence
  for each row when (row_security_active('public.user_presence'::regclass))
  execute function chat.take_page_out('user');

create or replace trigger user_presence_30_page_by_server
  before insert or update of current_page on public.user_presence
  for each row when (not row_security_active('public.user_presence'::regclass))
  execute function chat.take_page_out('server');

-- Removes the page of a deleted row. A foreign key to user_presence would do the same, but it would
-- lock the row there.
create or replace function chat.forget_page()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from chat.presence_pages g where g.user_id = old.user_id;
  return null;
end
$$;

revoke all on function chat.forget_page() from public;

create or replace trigger user_presence_40_forget_page
  after delete on public.user_presence
  for each row execute function chat.forget_page();

create or replace function chat.set_presence(
  status text default null,
  current_page text default null,
  manual_until timestamptz default null,
  status_text text default null,
  status_emoji text default null,
  is_manual boolean default null,
  clear_status_text boolean default false,
  session_id text default null
)
returns json
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  reported text := case set_presence.status when 'dnd' then 'busy' else set_presence.status end;
  -- Without is_manual, busy and any status with an end are choices, and any other status is a
  -- device's report.
  chosen constant boolean := coalesce(set_presence.is_manual, reported = 'busy' or set_presence.manual_until is not null);
  -- A choice reports nothing about the devices, except that one has just sent a request.
  said constant text := case when chosen and reported is not null then 'online' else reported end;
  ttl constant interval := make_interval(secs => chat.amount('presence_ttl_s', 60));
  new_text constant text := nullif(chat.trimmed(set_presence.status_text), '');
  new_emoji constant text := nullif(chat.trimmed(set_presence.status_emoji), '');
  shares constant boolean := chat.shares_presence(caller);
begin
  if caller is null then
    perform chat.refuse('unauthorized');
  end if;
  if reported is not null and reported not in ('online', 'away', 'busy', 'offline') then
    perform chat.refuse('validation_failed', 'status must be online, away, busy or offline');
  end if;
  if char_length(set_presence.status_text) > 100 or char_length(set_presence.status_emoji) > 32 then
    perform chat.refuse('validation_failed', 'status_text may have at most 100 characters, status_emoji 32');
  end if;

  if char_length(set_presence.session_id) not between 1 and 64 then
    perform chat.refuse('validation_failed', 'session_id must have 1 to 64 characters');
  end if;

  perform chat.lock_presence(array[caller]);
  if shares then
    insert into public.user_presence (user_id)
    select caller
    where not exists (select from public.user_presence p where p.user_id = caller)
    on conflict on constraint user_presence_pkey do nothing;
  end if;

  if set_presence.session_id is not null and said = 'offline' then
    delete from chat.presence_report_sessions v where v.user_id = caller and v.session_id = set_presence.session_id;
  elsif set_presence.session_id is not null then
    -- A device that reports any status under its session_id is present.
    insert into chat.presence_report_sessions as v (user_id, session_id, status, expires_at)
    values (caller, set_presence.session_id, coalesce(said, 'online'), clock_timestamp() + ttl)
    on conflict on constraint presence_report_sessions_pkey do update
    set status = coalesce(said, v.status), expires_at = excluded.expires_at;
    -- A client that invents a new session_id for each report must not fill the table. No user has
    -- so many devices and tabs that the removed ones would change what other users see.
    delete from chat.presence_report_sessions v
    where v.user_id = caller and v.session_id in (
      select o.session_id
      from chat.presence_report_sessions o
      where o.user_id = caller
      order by o.expires_at desc
      offset 20
    );
  -- Without a status, only the texts change. Such a change does not count as activity.
  elsif said is not null then
    insert into chat.presence_reports as r (user_id, status, expires_at)
    values (caller, said, case when said <> 'offline' then clock_timestamp() + ttl end)
    on conflict on constraint presence_reports_pkey do update
    set status = case
        -- One device's "offline" does not apply to the others. While there are sockets, the sockets
        -- count.
        when said = 'offline' and exists (
          select
          from chat.presence_sessions v
          join chat.presence_processes a on a.process_id = v.process_id and a.lease_until > clock_timestamp()
          where v.user_id = caller
        ) then r.status
        else said
      end,
      expires_at = excluded.expires_at;
  end if;

  if chosen then
    insert into chat.presence_reports as r (user_id, manual_status, manual_until)
    values (
      caller,
      case when reported <> 'online' then reported end,
      case when reported <> 'online' then set_presence.manual_until end
    )
    on conflict on constraint presence_reports_pkey do update
    set manual_status = excluded.manual_status, manual_until = excluded.manual_until;
  end if;

  update public.user_presence p
  set status = n.status,
    manual_status = n.manual_status,
    manual_until = n.manual_until,
    device_count = n.device_count,
    status_text = case when clear_status_text then null else coalesce(new_text, p.status_text) end,
    status_emoji = case when clear_status_text then null else coalesce(new_emoji, p.status_emoji) end,
    last_seen = case
      when coalesce(reported, set_presence.session_id) is null and n.status = p.status then p.last_seen
      else clock_timestamp()
    end,
    last_active_at = case when reported = 'online' and n.status <> 'offline' then clock_timestamp() else p.last_active_at end,
    is_typing_to = case when n.status <> 'offline' then p.is_typing_to end
  from chat.presence_now(array[caller]) n
  where p.user_id = n.user_id
    and shares
    -- A hidden user leaves no trace of being online.
    and (n.status <> 'offline' or p.status <> 'offline' or new_text is not null or new_emoji is not null or clear_status_text);
  if found and set_presence.current_page is not null then
    perform chat.keep_page(caller, set_presence.current_page);
  end if;

  return (select r."row" from chat.presence_rows(array[caller]) r);
end
$$;

comment on function chat.set_presence(text, text, timestamptz, text, text, boolean, boolean, text) is
  'Sets the caller''s own presence and returns the row. busy, or any status with manual_until or is_manual, overrides what devices report; online with is_manual ends that. Devices with a session_id report independently.';

revoke all on function chat.set_presence(text, text, timestamptz, text, text, boolean, boolean, text) from public;
grant execute on function chat.set_presence(text, text, timestamptz, text, text, boolean, boolean, text) to authenticated;

create or replace function chat.report_devices(process_id uuid, user_ids uuid[], devices int[], came boolean[])
returns uuid[]
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  people uuid[];
  newcomers uuid[];
  held uuid[] := '{}';
  free uuid[];
begin
  -- The process's row is locked until the transaction ends. A transaction that removes processes
  -- takes this lock first, too.
  perform from chat.presence_processes a where a.process_id = report_devices.process_id for key share;
  if not found then
    return null;
  end if;

  -- Erased users are omitted, because a token can outlive its user.
  people := array(
    select d.user_id from chat.directory d where d.user_id = any (report_devices.user_ids) order by d.user_id
  );
  newcomers := array(
    select u.id
    from unnest(people) u (id)
    where not exists (select from chat.presence_reports r where r.user_id = u.id)
      or (
        not exists (select from public.user_presence p where p.user_id = u.id)
        and not exists (select from public.user_notification_preferences f where f.user_id = u.id and not f.share_presence)
      )
    order by u.id
  );
  if newcomers <> '{}' then
    held := chat.add_presence(newcomers);
  end if;

  -- Two processes that report the same users run one after the other, and the second includes what
  -- the first wrote. The process repeats its report for users whose rows are locked.
  free := chat.lock_free_presence(array(select unnest(people) except select unnest(held)));
  held := array(select unnest(people) except select unnest(free));

  delete from chat.presence_sessions s
  using unnest(report_devices.user_ids, report_devices.devices) r (user_id, devices)
  where s.process_id = report_devices.process_id
    and s.user_id = r.user_id
    and r.devices = 0
    and not r.user_id = any (held);

  insert into chat.presence_sessions as s (user_id, process_id, devices)
  select r.user_id, report_devices.process_id, r.devices
  from unnest(report_devices.user_ids, report_devices.devices) r (user_id, devices)
  where r.devices > 0 and r.user_id = any (free)
  on conflict on constraint presence_sessions_pkey do update
  set devices = excluded.devices
  where s.devices <> excluded.devices;

  -- A new socket ends an earlier "offline".
  update chat.presence_reports p
  set status = 'online'
  from unnest(report_devices.user_ids, report_devices.came) r (user_id, came)
  where p.user_id = r.user_id and r.came and p.status = 'offline' and p.user_id = any (free);

  perform chat.show_free_presence(free);
  return held;
end
$$;

comment on function chat.report_devices(uuid, uuid[], int[], boolean[]) is
  'Records the number of sockets of users at a process, and which users have just connected. Returns the users whose rows another transaction has locked; nothing was recorded for them, and the process must report them again. Returns null if the process has no lease; it must then report all users again once it has one.';

revoke all on function chat.report_devices(uuid, uuid[], int[], boolean[]) from public;
grant execute on function chat.report_devices(uuid, uuid[], int[], boolean[]) to service_role;

create or replace function chat.expire_presence()
returns setof uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  dead uuid[];
  -- The users with sockets at dead processes.
  left_behind uuid[] := '{}';
  people uuid[];
  held uuid[];
  -- Twice as long as other users see the indicator, so a client that repeats its report is in time.
  typing_since constant timestamptz := clock_timestamp() - 2 * make_interval(secs => chat.amount('typing_ttl_ms', 6000) / 1000.0);
begin
  -- Only one process runs this at a time; a second one would have nothing to do.
  perform from chat.locks l where l.purpose = 'presence' for update skip locked;
  if not found then
    return;
  end if;

  dead := array(
    select a.process_id
    from chat.presence_processes a
    where a.lease_until <= clock_timestamp()
    order by a.process_id
    for update skip locked
  );
  if cardinality(dead) > 0 then
    left_behind := array(select distinct v.user_id from chat.presence_sessions v where v.process_id = any (dead));
  end if;

  -- Users whose rows are locked are skipped, and checked in the next run.
  people := array(
    select l.user_id
    from chat.presence_reports l
    where l.user_id in (
        select r.user_id from chat.presence_reports r where r.expires_at <= clock_timestamp()
        union all
        select r.user_id from chat.presence_reports r where r.manual_until <= clock_timestamp()
        union all
        select v.user_id from chat.presence_report_sessions v where v.expires_at <= clock_timestamp()
        union all
        select t.user_id from public.user_presence t where t.is_typing_to is not null and t.typing_started_at <= typing_since
        union all
        select u.user_id from chat.presence_unshown u
        union all
        select unnest(left_behind)
      )
    order by l.user_id
    for no key update skip locked
  );
  held := array(select unnest(left_behind) except select unnest(people));
  if cardinality(dead) > 0 then
    delete from chat.presence_processes a where a.process_id = any (dead);
  end if;
  if cardinality(people) = 0 and cardinality(held) = 0 then
    return;
  end if;

  delete from chat.presence_report_sessions v where v.user_id = any (people) and v.expires_at <= clock_timestamp();

  update chat.presence_reports r
  set status = case
      when r.expires_at <= clock_timestamp()
        and not exists (select from chat.presence_sessions v where v.user_id = r.user_id)
        then 'offline'
      else r.status
    end,
    expires_at = case when r.expires_at > clock_timestamp() then r.expires_at end,
    manual_status = case when r.manual_until <= clock_timestamp() then null else r.manual_status end,
    manual_until = case when r.manual_until > clock_timestamp() then r.manual_until end
  where r.user_id = any (people) and (r.expires_at <= clock_timestamp() or r.manual_until <= clock_timestamp());

  update public.user_presence p
  set is_typing_to = null
  where p.user_id = any (array(
    select t.user_id
    from public.user_presence t
    where t.user_id = any (people) and t.is_typing_to is not null and t.typing_started_at <= typing_since
    order by t.user_id
    for no key update skip locked
  ));

  return query select s.id from chat.show_free_presence(people, held) s (id);
end
$$;

comment on function chat.expire_presence() is
  'Applies the end of everything that has expired: reports, chosen statuses, typing, and the sockets of dead processes. Returns the users whose visible presence changed.';

revoke all on function chat.expire_presence() from public;
grant execute on function chat.expire_presence() to service_role;

create or replace function chat.keep_presence(process_id uuid, lease_ms int)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  had_lease boolean;
  left_behind uuid[];
  people uuid[];
begin
  update chat.presence_processes a
  set lease_until = clock_timestamp() + make_interval(secs => keep_presence.lease_ms / 1000.0)
  where a.process_id = keep_presence.process_id;
  had_lease := found;
  if not had_lease then
    insert into chat.presence_processes (process_id, lease_until)
    values (keep_presence.process_id, clock_timestamp() + make_interval(secs => keep_presence.lease_ms / 1000.0));
    -- After a crash of the database, no processes are recorded, because their table is unlogged. So
    -- nothing would show that they ended.
    left_behind := array(
      select p.user_id
      from public.user_presence p
      where p.device_count > 0 and not exists (select from chat.presence_sessions v where v.user_id = p.user_id)
    );
    people := chat.lock_free_presence(left_behind);
    perform chat.show_free_presence(people, array(select unnest(left_behind) except select unnest(people)));
  end if;
  perform chat.expire_presence();
  return had_lease;
end
$$;

comment on function chat.keep_presence(uuid, int) is
  'Renews the lease of a process, and applies everything that has expired (chat.expire_presence). Returns false if the process had no lease; what it reported before is lost.';

revoke all on function chat.keep_presence(uuid, int) from public;
grant execute on function chat.keep_presence(uuid, int) to service_role;

create or replace function chat.end_presence(session_id text default null)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
begin
  if end_presence.session_id is not null then
    perform chat.set_presence('offline', session_id => end_presence.session_id);
    return;
  end if;
  perform from chat.presence_reports r where r.user_id = caller for no key update;
  if not found then
    return;
  end if;
  delete from chat.presence_report_sessions v where v.user_id = caller;
  -- After signing out, sockets that are still open do not keep the user online. The next new socket
  -- makes the user online again.
  insert into chat.presence_reports as r (user_id, status)
  values (caller, 'offline')
  on conflict on constraint presence_reports_pkey do update set status = excluded.status, expires_at = null;
  perform chat.show_presence(array[caller]);
end
$$;

comment on function chat.end_presence(text) is
  'Ends the presence of the caller''s device with this session_id. Without a session_id, ends that of all devices until one reports or connects again.';

revoke all on function chat.end_presence(text) from public;
grant execute on function chat.end_presence(text) to authenticated;

-- The row of a user who does not share their presence contains nothing, and does not change while
-- they come and go. Subscribers of the table receive one last change, to offline.
create or replace function chat.mask_presence()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if chat.shares_presence(new.user_id) then
    return new;
  end if;
  new.status := 'offline';
  new.device_count := 0;
  new.is_typing_to := null;
  new.typing_started_at := null;
  new.manual_status := null;
  new.manual_until := null;
  new.status_text := null;
  new.status_emoji := null;
  new.last_active_at := null;
  if tg_op = 'UPDATE' then
    new.last_seen := old.last_seen;
    if (
      old.status, old.device_count, old.last_active_at, old.status_text, old.status_emoji, old.manual_status,
      old.manual_until, old.is_typing_to
    ) is not distinct from (
      new.status, new.device_count, new.last_active_at, new.status_text, new.status_emoji, new.manual_status,
      new.manual_until, new.is_typing_to
    ) then
      -- The row is not written at all, because the time of a change would reveal activity.
      return null;
    end if;
  end if;
  return new;
end
$$;

revoke all on function chat.mask_presence() from public;

create or replace trigger user_presence_20_mask
  before insert or update on public.user_presence
  for each row execute function chat.mask_presence();

-- Runs after the row is written, and therefore after the policies. It fails for a user who does not
-- exist. A client must not learn of this before the policy has refused the row.
create or replace function chat.complete_presence()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into chat.presence_reports (user_id)
  values (new.user_id)
  on conflict on constraint presence_reports_pkey do nothing;
  return null;
end
$$;

revoke all on function chat.complete_presence() from public;

create or replace trigger user_presence_30_complete
  after insert on public.user_presence
  for each row execute function chat.complete_presence();

create or replace function chat.follow_presence_sharing()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  person constant uuid := coalesce(new.user_id, old.user_id);
begin
  -- Inserts the row that later reports lock. If the row were inserted at the first report, its
  -- foreign key would lock the user's row at that time and reveal the time of the report.
  perform chat.lock_presence(array[person]);
  if not new.share_presence then
    delete from chat.presence_pages g where g.user_id = person;
    update public.user_presence p set status = 'offline' where p.user_id = person;
  else
    -- This also runs when an erased user's preferences are removed. No row is inserted then.
    insert into public.user_presence (user_id)
    select d.user_id
    from chat.directory d
    where d.user_id = person and not exists (select from public.user_presence p where p.user_id = person)
    on conflict on constraint user_presence_pkey do nothing;
    perform chat.show_presence(array[person]);
  end if;
  return null;
end
$$;

revoke all on function chat.follow_presence_sharing() from public;

create or replace trigger preferences_10_presence_insert
  after insert on public.user_notification_preferences
  for each row when (not new.share_presence) execute function chat.follow_presence_sharing();

create or replace trigger preferences_20_presence_update
  after update of share_presence on public.user_notification_preferences
  for each row when (new.share_presence is distinct from old.share_presence)
  execute function chat.follow_presence_sharing();

-- If the row is deleted, the defaults apply.
create or replace trigger preferences_30_presence_delete
  after delete on public.user_notification_preferences
  for each row when (not old.share_presence) execute function chat.follow_presence_sharing();

-- Returns the status that the caller chose, even if other users do not see it.
create or replace function chat.my_presence_choice(out manual_status text, out manual_until timestamptz)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select r.manual_status, r.manual_until
  into my_presence_choice.manual_status, my_presence_choice.manual_until
  from chat.presence_reports r
  where r.user_id = auth.uid() and r.manual_status is not null and coalesce(r.manual_until > clock_timestamp(), true);
end
$$;

comment on function chat.my_presence_choice() is 'The status that the caller chose, while it applies.';

revoke all on function chat.my_presence_choice() from public;
grant execute on function chat.my_presence_choice() to authenticated;

create or replace function chat.supervised_people_ids()
returns setof uuid
language plpgsql
stable
security definer
rows 200
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  caller_role constant text := (select d.role from chat.directory d where d.user_id = caller and d.is_active);
  everywhere constant boolean := coalesce(caller_role = 'super_admin' or (caller_role = 'admin' and chat.flag('admin_cross_team')), false);
begin
  return query
  select seen.user_id
  from chat.visible_people_ids() seen (user_id)
  where seen.user_id = caller
    or everywhere
    or (caller_role = 'admin' and seen.user_id in (
      select theirs.user_id
      from chat.memberships mine
      join chat.memberships theirs on theirs.team_id = mine.team_id
      where mine.user_id = caller
    ));
end
$$;

comment on function chat.supervised_people_ids() is
  'The users whose current page the caller may see: the caller; for an admin, also the users of their teams whose presence they may see; and for a super admin, or for any admin with admin_cross_team, all users whose presence they may see.';

revoke all on function chat.supervised_people_ids() from public;
grant execute on function chat.supervised_people_ids() to authenticated;

create or replace function chat.pages_of(user_ids uuid[])
returns table (user_id uuid, page text)
language plpgsql
stable
security definer
rows 10
set search_path = pg_catalog, pg_temp
as $$
begin
  if not chat.flag('share_current_page') then
    return;
  end if;
  return query
  select g.user_id, g.page
  from chat.presence_pages g
  where (pages_of.user_ids is null or g.user_id = any (pages_of.user_ids))
    and g.user_id in (select chat.supervised_people_ids());
end
$$;

comment on function chat.pages_of(uuid[]) is
  'The current pages of the given users, or of all users, as far as the caller may see them.';

revoke all on function chat.pages_of(uuid[]) from public;
grant execute on function chat.pages_of(uuid[]) to authenticated;

create or replace function chat.presence_rows(user_ids uuid[] default null, team boolean default false)
returns table (user_id uuid, "row" json)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
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
      'current_page', g.page,
      'manual_status', mine.manual_status,
      'manual_until', mine.manual_until,
      'last_active_at', p.last_active_at,
      'updated_at', p.updated_at
    )
  from (
    select o.user_id, o.status, o.last_seen, o.status_text, o.status_emoji, o.is_typing_to, o.device_count, o.current_page, o.last_active_at, o.updated_at
    from public.user_presence o
    union all
    -- A user who does not share their presence may have no row, and appears offline to themselves,
    -- too.
    select f.user_id, 'offline', null, null, null, null, 0, null, null, f.updated_at
    from public.user_notification_preferences f
    where f.user_id = caller
      and not f.share_presence
      and not exists (select from public.user_presence own where own.user_id = caller)
  ) p
  left join chat.my_presence_choice() mine on p.user_id = caller
  left join chat.pages_of(wanted) g on g.user_id = p.user_id
  where (wanted is null or p.user_id = any (wanted))
    and p.user_id in (select chat.visible_people_ids())
  order by p.user_id;
end
$$;

comment on function chat.presence_rows(uuid[], boolean) is
  'Presence of the given users as far as the caller may see it. With team: of all users whose presence the caller may see. With neither: the caller''s own.';

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
set search_path = pg_catalog, pg_temp
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
  -- A user who may not write, or does not share typing, is not shown typing.
  is_shared := not chat.may_be_outdated() and chat.can_send(conversation_id) and coalesce(
    (select p.share_typing from public.user_notification_preferences p where p.user_id = caller),
    true
  );
  expires_in_ms := chat.amount('typing_ttl_ms', 6000);

  -- A hidden user must not be shown typing to all subscribers of the table.
  if is_shared
    and chat.flag('typing_in_table')
    and chat.shares_presence(caller)
    and (select c.manual_status from chat.my_presence_choice() c) is distinct from 'offline'
  then
    perform chat.lock_presence(array[caller]);
    insert into public.user_presence as p (user_id, is_typing_to)
    values (caller, case when is_typing then others[1] end)
    on conflict on constraint user_presence_pkey do update
    set is_typing_to = excluded.is_typing_to, typing_started_at = null
    where p.is_typing_to is distinct from excluded.is_typing_to
      -- The user is still typing. Typing expires unless the row is written from time to time.
      or p.typing_started_at <= clock_timestamp() - make_interval(secs => expires_in_ms / 1000.0);
    -- The transaction may have waited for the row.
    if found then
      perform chat.check_rights(conversation_id, true);
    end if;
  end if;
end
$$;

comment on function chat.set_typing(uuid, boolean) is
  'Returns the other members, and whether they should receive that the caller types. Stores nothing unless typing_in_table is on.';

revoke all on function chat.set_typing(uuid, boolean) from public;
grant execute on function chat.set_typing(uuid, boolean) to authenticated;
