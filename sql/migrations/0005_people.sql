-- Who is there, who wants nothing to do with whom, and what each person prefers.

create table public.user_presence (
  user_id uuid not null,
  -- what the person's devices report
  status text not null default 'offline',
  last_seen timestamptz not null default now(),
  -- blanked by trigger unless the setting share_current_page is on
  current_page text,
  -- written by clients that use the table directly, or mirrored when typing_in_table is on
  is_typing_to uuid,
  typing_started_at timestamptz,
  updated_at timestamptz not null default now(),
  -- what the person chose; wins over status until manual_until, or until changed when that is null
  manual_status text,
  manual_until timestamptz,
  status_text text,
  status_emoji text,
  last_active_at timestamptz,
  device_count int not null default 0,
  -- after this the report is stale and means offline; null while a socket vouches for it
  expires_at timestamptz,
  changed_xid xid8 not null default pg_current_xact_id(),
  constraint user_presence_pkey primary key (user_id),
  constraint user_presence_status_is_known check (status in ('online', 'away', 'busy', 'offline')),
  constraint user_presence_manual_status_is_known check (manual_status in ('online', 'away', 'busy', 'offline')),
  constraint user_presence_status_text_is_short check (char_length(status_text) <= 100),
  constraint user_presence_status_emoji_is_short check (char_length(status_emoji) <= 32),
  constraint user_presence_current_page_is_short check (char_length(current_page) <= 2048),
  constraint user_presence_device_count_is_positive check (device_count >= 0)
);

comment on table public.user_presence is 'Whether somebody is there. The view chat.presence says what it amounts to now.';

-- serves the sweep of stale reports
create index user_presence_expiry_idx on public.user_presence (expires_at) where status <> 'offline';

-- serves the foreign key to people
create index user_presence_typing_idx on public.user_presence (is_typing_to) where is_typing_to is not null;

alter table public.user_presence replica identity full;

create table public.user_blocks (
  blocker_id uuid not null,
  blocked_id uuid not null,
  created_at timestamptz not null default now(),
  constraint user_blocks_pkey primary key (blocker_id, blocked_id),
  constraint user_blocks_not_oneself check (blocker_id <> blocked_id)
);

comment on table public.user_blocks is 'Who blocked whom. Never published: the key of a row alone tells the secret.';

-- serves the question the other way round, "who blocked me", and the foreign key
create index user_blocks_blocked_idx on public.user_blocks (blocked_id);

create table public.user_notification_preferences (
  user_id uuid not null,
  browser_enabled boolean not null default true,
  sound_enabled boolean not null default true,
  show_preview boolean not null default true,
  email_enabled boolean not null default true,
  email_mode text not null default 'offline',
  email_delay_seconds int not null default 120,
  digest_hour int not null default 8,
  timezone text not null default 'UTC',
  dnd_until timestamptz,
  quiet_start time,
  quiet_end time,
  -- off: others do not learn what I read or received, and I am not told either
  share_read_receipts boolean not null default true,
  share_typing boolean not null default true,
  -- off: I look offline to everybody
  share_presence boolean not null default true,
  updated_at timestamptz not null default now(),
  constraint user_notification_preferences_pkey primary key (user_id),
  constraint user_notification_preferences_email_mode_is_known
    check (email_mode in ('offline', 'digest_hourly', 'digest_daily', 'digest_weekly', 'never')),
  constraint user_notification_preferences_delay_is_sane check (email_delay_seconds between 30 and 86400),
  constraint user_notification_preferences_hour_is_real check (digest_hour between 0 and 23)
);

comment on table public.user_notification_preferences is 'How somebody wants to be told, and what they show of themselves. No row means the defaults.';
