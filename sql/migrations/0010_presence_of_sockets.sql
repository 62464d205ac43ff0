-- Which server processes vouch for whose presence.

-- Unlogged: after a crash of the database nobody is connected, and every process reports again.
create unlogged table chat.presence_processes (
  process_id uuid not null,
  -- the process is alive until then, as far as others know; it moves this every few seconds
  lease_until timestamptz not null,
  constraint presence_processes_pkey primary key (process_id)
)
-- a row that is rewritten every few seconds stays on its page
with (fillfactor = 10);

comment on table chat.presence_processes is 'Server processes that have sockets. Whoever is known by one whose lease ran out is not there.';

create unlogged table chat.presence_sessions (
  user_id uuid not null,
  process_id uuid not null,
  -- sockets of this person at this process
  devices int not null,
  constraint presence_sessions_pkey primary key (user_id, process_id),
  constraint presence_sessions_process_fkey
    foreign key (process_id) references chat.presence_processes (process_id) on delete cascade,
  constraint presence_sessions_devices_are_some check (devices > 0)
);

comment on table chat.presence_sessions is 'Who has sockets at which process. Written when somebody comes or goes, never in between.';

-- serves the foreign key, and the end of a process
create index presence_sessions_process_idx on chat.presence_sessions (process_id);

-- superseded by chat.report_devices()
drop function if exists chat.report_presence(uuid, text, int, timestamptz);
