-- A user's preferences. The row with the defaults is inserted when its owner first reads or sets
-- them.

create or replace function chat.preferences()
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
  insert into public.user_notification_preferences (user_id)
  values (auth.uid())
  on conflict on constraint user_notification_preferences_pkey do nothing;
  return (
    select row_to_json(p)
    from public.user_notification_preferences p
    where p.user_id = auth.uid()
  );
end
$$;

comment on function chat.preferences() is 'The caller''s preferences.';

revoke all on function chat.preferences() from public;
grant execute on function chat.preferences() to authenticated;

-- Returns whether this is the name of a time zone in pg_timezone_names. The view itself is not
-- queried, because it reads the files of all time zones, which takes tens of milliseconds.
create or replace function chat.is_time_zone(name text)
returns boolean
language plpgsql
-- The setting below applies only until this function ends.
set timezone = 'UTC'
set search_path = pg_catalog, pg_temp
as $$
begin
  -- PostgreSQL corrects the case of a name, so the result must equal the name. PostgreSQL also
  -- accepts rules such as "ABC5". They contain digits, which few names do.
  return set_config('timezone', is_time_zone.name, true) = is_time_zone.name
    and (
      is_time_zone.name !~ '[0-9]'
      or is_time_zone.name ~ '^(posix/)?(Etc/)?GMT[+-]?0$'
      or is_time_zone.name ~ '^(posix/)?Etc/GMT(\+([1-9]|1[0-2])|-([1-9]|1[0-4]))$'
      or is_time_zone.name ~ '^(posix/)?(SystemV/[A-Z]{3}[4-9]?([A-Z]{3})?|SystemV/[A-Z]{3}10|EST5EDT|CST6CDT|MST7MDT|PST8PDT)$'
    );
exception when invalid_parameter_value then
  return false;
end
$$;

comment on function chat.is_time_zone(text) is 'Returns whether this is the name of a time zone.';

revoke all on function chat.is_time_zone(text) from public;
grant execute on function chat.is_time_zone(text) to authenticated;

-- Sets only the preferences that the object contains, like PATCH. Unknown keys are ignored.
create or replace function chat.set_preferences(preferences jsonb)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  kept text;
  wanted public.user_notification_preferences;
begin
  if jsonb_typeof(preferences) is distinct from 'object' then
    perform chat.refuse('validation_failed', 'Preferences must be an object');
  end if;
  perform chat.preferences();
  select p.* into wanted from public.user_notification_preferences p where p.user_id = auth.uid() for no key update;
  kept := wanted.timezone;
  begin
    wanted := jsonb_populate_record(wanted, preferences - 'user_id' - 'updated_at');
  exception when data_exception then
    perform chat.refuse('validation_failed', 'A preference has an invalid value');
  end;
  if wanted.timezone is distinct from kept and not coalesce(chat.is_time_zone(wanted.timezone), false) then
    perform chat.refuse('validation_failed', 'timezone is not the name of a time zone');
  end if;
  update public.user_notification_preferences p
  set browser_enabled = wanted.browser_enabled,
    sound_enabled = wanted.sound_enabled,
    show_preview = wanted.show_preview,
    email_enabled = wanted.email_enabled,
    email_mode = wanted.email_mode,
    email_delay_seconds = wanted.email_delay_seconds,
    digest_hour = wanted.digest_hour,
    timezone = wanted.timezone,
    dnd_until = wanted.dnd_until,
    quiet_start = wanted.quiet_start,
    quiet_end = wanted.quiet_end,
    share_read_receipts = wanted.share_read_receipts,
    share_typing = wanted.share_typing,
    share_presence = wanted.share_presence,
    updated_at = now()
  where p.user_id = auth.uid();
  return chat.preferences();
end
$$;

comment on function chat.set_preferences(jsonb) is 'Sets the preferences of the caller that the object contains.';

revoke all on function chat.set_preferences(jsonb) from public;
grant execute on function chat.set_preferences(jsonb) to authenticated;
