-- Conversations, what each member keeps to themselves about one, and what members show each other.
-- Foreign keys to people are set by chat.install_host_mapping(), which knows where the host keeps them.

create table public.user_conversations (
  id uuid not null default gen_random_uuid(),
  kind text not null default 'direct',
  -- the lower id of the pair, so that a pair has one spelling; null once that person was erased
  participant_1_id uuid,
  participant_2_id uuid,
  title text,
  team_id text,
  created_by uuid,
  created_at timestamptz not null default now(),
  -- when the last message arrived: lists sort and show it, so reading or pinning must not move it
  updated_at timestamptz not null default now(),
  last_message_at timestamptz,
  last_message_id uuid,
  -- for readers of the older shape; archiving is each member's own affair
  is_archived boolean not null default false,
  -- the highest seq and rev given out; moved only under this row's lock, which is what makes them gapless
  last_seq bigint not null default 0,
  rev bigint not null default 0,
  metadata jsonb not null default '{}',
  -- the transaction that changed the row last: /sync asks which of these its cursor has not seen
  changed_xid xid8 not null default pg_current_xact_id(),
  constraint user_conversations_pkey primary key (id),
  constraint user_conversations_kind_is_known check (kind in ('direct', 'group')),
  constraint user_conversations_pair_is_ordered check (kind <> 'direct' or participant_1_id < participant_2_id),
  constraint user_conversations_title_is_short check (char_length(title) <= 120),
  constraint user_conversations_counters_are_positive check (last_seq >= 0 and rev >= 0)
);

comment on table public.user_conversations is 'A conversation as all its members see it.';
comment on column public.user_conversations.last_seq is 'Sequence number of the newest message. Gapless within a conversation.';
comment on column public.user_conversations.rev is 'Number of the newest change to a message (sent, edited, deleted, reacted to). Gapless within a conversation.';

-- one conversation per pair, whoever opens it and however many at once
create unique index user_conversations_pair_key
  on public.user_conversations (participant_1_id, participant_2_id)
  where kind = 'direct';

-- serve clients that list conversations by participant (the unique index above begins with participant_1_id)
create index user_conversations_participant_1_idx on public.user_conversations (participant_1_id, last_message_at desc nulls last);
create index user_conversations_participant_2_idx on public.user_conversations (participant_2_id, last_message_at desc nulls last);

-- serves the foreign key to user_messages when a message row is removed
create index user_conversations_last_message_idx on public.user_conversations (last_message_id);

create table public.user_conversation_members (
  conversation_id uuid not null,
  user_id uuid not null,
  member_role text not null default 'member',
  -- everything up to here is read; may be moved back by "mark as unread", which receipts never follow
  last_read_seq bigint not null default 0,
  last_read_message_id uuid,
  last_read_at timestamptz,
  unread_count int not null default 0,
  mention_count int not null default 0,
  marked_unread boolean not null default false,
  is_archived boolean not null default false,
  is_pinned boolean not null default false,
  pinned_at timestamptz,
  -- with muted_until: until then; without: until unmuted
  is_muted boolean not null default false,
  muted_until timestamptz,
  notification_level text not null default 'all',
  -- messages up to here were cleared by this member, for themselves
  cleared_seq bigint not null default 0,
  -- taken off the list until the next message
  hidden boolean not null default false,
  -- copy of the conversation's updated_at, so that one index serves the sorted list
  last_activity_at timestamptz not null default now(),
  joined_at timestamptz not null default now(),
  left_at timestamptz,
  updated_at timestamptz not null default now(),
  changed_xid xid8 not null default pg_current_xact_id(),
  constraint user_conversation_members_pkey primary key (conversation_id, user_id),
  constraint user_conversation_members_conversation_id_fkey
    foreign key (conversation_id) references public.user_conversations (id) on delete cascade,
  constraint user_conversation_members_role_is_known check (member_role in ('member', 'owner')),
  constraint user_conversation_members_level_is_known check (notification_level in ('all', 'mentions', 'none')),
  constraint user_conversation_members_counts_are_positive check (unread_count >= 0 and mention_count >= 0)
);

comment on table public.user_conversation_members is
  'What a member keeps to themselves about a conversation. Readable by its owner only: that a colleague muted me is not mine to learn.';

-- serves the conversation list of one person, pinned first, newest first, page after page
create index user_conversation_members_list_idx
  on public.user_conversation_members (user_id, is_pinned, last_activity_at, conversation_id)
  where left_at is null and not hidden;

-- serves chat.my_conversation_ids(), on which every policy leans, and counts
create index user_conversation_members_user_idx
  on public.user_conversation_members (user_id)
  include (conversation_id)
  where left_at is null;

create table public.conversation_receipts (
  conversation_id uuid not null,
  user_id uuid not null,
  last_read_seq bigint not null default 0,
  last_read_message_id uuid,
  last_read_at timestamptz,
  last_delivered_seq bigint not null default 0,
  last_delivered_message_id uuid,
  last_delivered_at timestamptz,
  changed_xid xid8 not null default pg_current_xact_id(),
  constraint conversation_receipts_pkey primary key (conversation_id, user_id),
  constraint conversation_receipts_conversation_id_fkey
    foreign key (conversation_id) references public.user_conversations (id) on delete cascade
);

comment on table public.conversation_receipts is
  'How far each member has read and received, as shown to the others. Stands still while its owner does not share receipts.';

-- serves the foreign key to people
create index conversation_receipts_user_idx on public.conversation_receipts (user_id);

-- subscribers are told of a change by the policies as they apply to the old row, all of it
alter table public.user_conversations replica identity full;
alter table public.user_conversation_members replica identity full;
alter table public.conversation_receipts replica identity full;
