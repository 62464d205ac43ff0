-- What clients that catch up must be told and no row says: what somebody hid, and what is gone altogether.

alter table public.message_hides add column changed_xid xid8 not null default pg_current_xact_id();

-- serves /sync: what I hid since a snapshot
create index message_hides_changed_idx on public.message_hides (user_id, changed_xid);

-- serves /sync: what I left; the other indexes by person know only what they are still in
create index user_conversation_members_left_idx
  on public.user_conversation_members (user_id)
  where left_at is not null;

create table chat.removed_messages (
  message_id uuid not null,
  conversation_id uuid not null,
  removed_at timestamptz not null default now(),
  changed_xid xid8 not null default pg_current_xact_id(),
  constraint removed_messages_pkey primary key (message_id),
  -- with its conversation all of this is gone, and that is told by itself
  constraint removed_messages_conversation_id_fkey
    foreign key (conversation_id) references public.user_conversations (id) on delete cascade
);

comment on table chat.removed_messages is
  'Messages whose rows were removed, kept as long as a client may come with a cursor from before (sync_horizon_s).';

-- serves /sync, and the foreign key
create index removed_messages_changed_idx on chat.removed_messages (conversation_id, changed_xid);

-- serves the sweep
create index removed_messages_removed_idx on chat.removed_messages (removed_at);

create table chat.removed_memberships (
  user_id uuid not null,
  conversation_id uuid not null,
  removed_at timestamptz not null default now(),
  changed_xid xid8 not null default pg_current_xact_id(),
  constraint removed_memberships_pkey primary key (user_id, conversation_id)
);

comment on table chat.removed_memberships is
  'Memberships whose rows were removed, by themselves or with their conversation, kept as long as chat.removed_messages.';

-- serves the sweep
create index removed_memberships_removed_idx on chat.removed_memberships (removed_at);

insert into chat.config (key, value) values
  -- how old a cursor of /sync may be, and how long removals are remembered for it: 30 days
  ('sync_horizon_s', '2592000'),
  -- part of what a cursor of /sync belongs to: another value makes every client load everything anew, which is
  -- wanted after rows were restored or corrected past the triggers
  ('sync_epoch', to_jsonb(gen_random_uuid()))
on conflict (key) do nothing;
