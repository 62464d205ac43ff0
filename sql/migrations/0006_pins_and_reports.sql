-- What members do to each other's messages: hold one up, or report it.

create table public.message_pins (
  message_id uuid not null,
  -- the message's; beside it so that a policy and a list need no join
  conversation_id uuid not null,
  -- null: that person was erased
  pinned_by uuid,
  created_at timestamptz not null default now(),
  constraint message_pins_pkey primary key (message_id),
  constraint message_pins_message_fkey
    foreign key (message_id, conversation_id) references public.user_messages (id, conversation_id) on delete cascade
);

comment on table public.message_pins is 'Messages held up for all members of their conversation. Changes the rev of the message.';

-- serves the list of a conversation's pins, newest first
create index message_pins_conversation_idx on public.message_pins (conversation_id, created_at desc);

-- serves the foreign key to people
create index message_pins_pinned_by_idx on public.message_pins (pinned_by);

create table chat.message_reports (
  id uuid not null default gen_random_uuid(),
  message_id uuid,
  conversation_id uuid,
  -- null: that person was erased
  reporter_id uuid,
  sender_id uuid,
  reason text not null,
  note text,
  -- what was reported: the message may be edited or deleted afterwards
  content text not null,
  file_url text,
  sent_at timestamptz not null,
  created_at timestamptz not null default now(),
  constraint message_reports_pkey primary key (id),
  -- a second report of the same message by the same person adds nothing
  constraint message_reports_message_reporter_key unique (message_id, reporter_id),
  constraint message_reports_message_id_fkey
    foreign key (message_id) references public.user_messages (id) on delete set null,
  constraint message_reports_conversation_id_fkey
    foreign key (conversation_id) references public.user_conversations (id) on delete set null,
  constraint message_reports_reason_is_known check (reason in ('spam', 'harassment', 'hate', 'violence', 'sexual', 'illegal', 'other')),
  constraint message_reports_note_is_short check (char_length(note) <= 2000)
);

comment on table chat.message_reports is
  'Messages that somebody found wrong, as they were then. For moderators alone: not even the reporter reads it.';

-- serve the foreign keys
create index message_reports_conversation_idx on chat.message_reports (conversation_id);
create index message_reports_reporter_idx on chat.message_reports (reporter_id);
create index message_reports_sender_idx on chat.message_reports (sender_id);
