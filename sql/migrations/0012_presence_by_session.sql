-- Several devices that report over REST, each under a name of its own.

-- Unlogged: every device reports again within a minute.
create unlogged table chat.presence_report_sessions (
  user_id uuid not null,
  -- the client's name for a tab or a device
  session_id text not null,
  -- what it reported last; one that is gone has no row
  status text not null,
  -- after this the report counts for nothing
  expires_at timestamptz not null,
  constraint presence_report_sessions_pkey primary key (user_id, session_id),
  constraint presence_report_sessions_user_fkey
    foreign key (user_id) references public.user_presence (user_id) on delete cascade,
  constraint presence_report_sessions_id_is_short check (char_length(session_id) between 1 and 64),
  constraint presence_report_sessions_status_is_known check (status in ('online', 'away', 'busy'))
);

comment on table chat.presence_report_sessions is 'What devices report that name themselves by a session_id. Read by nobody.';

-- serves the sweep of what came to its end
create index presence_report_sessions_expiry_idx on chat.presence_report_sessions (expires_at);

-- superseded by those that take a session_id
drop function if exists chat.set_presence(text, text, timestamptz, text, text, boolean, boolean);
drop function if exists chat.end_presence();
