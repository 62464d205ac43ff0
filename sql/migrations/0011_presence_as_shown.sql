-- A row of user_presence is what others are shown. What it follows from moves to where nobody reads it: whoever chose to
-- look offline must not be seen by what their devices report.

create table chat.presence_reports (
  user_id uuid not null,
  -- what the person's devices reported last
  status text not null default 'offline',
  -- after this the report counts for nothing; null while sockets alone vouch for it
  expires_at timestamptz,
  -- what the person chose; wins over status until manual_until, or until changed when that is null
  manual_status text,
  manual_until timestamptz,
  constraint presence_reports_pkey primary key (user_id),
  -- deferred: a client's own insert of its row reports before the row is there
  constraint presence_reports_user_fkey
    foreign key (user_id) references public.user_presence (user_id) on delete cascade deferrable initially deferred,
  constraint presence_reports_status_is_known check (status in ('online', 'away', 'busy', 'offline')),
  constraint presence_reports_manual_status_is_known check (manual_status in ('online', 'away', 'busy', 'offline'))
);

comment on table chat.presence_reports is 'What people''s devices report and what people choose, which their row of user_presence follows from. Read by nobody.';

-- serve the sweep of what came to its end
create index presence_reports_expiry_idx on chat.presence_reports (expires_at) where expires_at is not null;
create index presence_reports_manual_end_idx on chat.presence_reports (manual_until) where manual_until is not null;

insert into chat.presence_reports (user_id, status, expires_at, manual_status, manual_until)
select p.user_id, p.status, p.expires_at, p.manual_status, p.manual_until
from public.user_presence p;

drop policy if exists "people see the devices of those whose presence they see" on chat.presence_sessions;
alter table chat.presence_sessions disable row level security;

drop view if exists chat.presence;
drop index public.user_presence_expiry_idx;
alter table public.user_presence drop column expires_at;
comment on table public.user_presence is 'Whether somebody is there, as others are shown it.';

-- superseded by chat.presence_now() and chat.show_presence()
drop function if exists chat.settle_devices(uuid[], uuid[]);
