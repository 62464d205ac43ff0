-- Users whose visible presence is out of date, because they held a lock on a row that the server would have written.
-- Only the server writes here, so no user can lock these rows.

create table chat.presence_unshown (
  user_id uuid not null,
  constraint presence_unshown_pkey primary key (user_id),
  constraint presence_unshown_user_fkey
    foreign key (user_id) references chat.presence_reports (user_id) on delete cascade
);

-- Both now return what was put off.
drop function if exists chat.report_devices(uuid, uuid[], int[], boolean[]);
drop function if exists chat.note_delivered(uuid[], uuid[], bigint[]);
