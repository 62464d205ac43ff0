-- Messages and everything that hangs on one.

-- What full-text search finds a message by. In a migration because an index is built on it: another text
-- needs a new index. Languages written without spaces are found by pairs of characters.
create function chat.search_document(content text, file_name text)
returns tsvector
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  written text := content || ' ' || coalesce(file_name, '');
  -- kana, Han with its extensions, Hangul
  unspaced constant text := '[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]';
begin
  if written !~ unspaced then
    return to_tsvector('pg_catalog.simple', written);
  end if;

  return to_tsvector('pg_catalog.simple', written) || array_to_tsvector(array(
    select distinct pair.left_half || pair.right_half
    from regexp_matches(written, unspaced || '+', 'g') with ordinality run (found, run_number)
    cross join lateral (
      select letter as left_half, lead(letter) over (order by letter_number) as right_half
      from unnest(string_to_array(run.found[1], null)) with ordinality l (letter, letter_number)
    ) pair
    where pair.right_half is not null
  ));
end
$$;

revoke all on function chat.search_document(text, text) from public;
-- whoever writes a row computes its index entries
grant execute on function chat.search_document(text, text) to authenticated, service_role;

create table public.user_messages (
  id uuid not null default gen_random_uuid(),
  conversation_id uuid not null,
  -- null: written by the system, or its sender was erased
  sender_id uuid,
  content text not null default '',
  message_type text not null default 'text',
  file_url text,
  file_name text,
  file_size bigint,
  file_type text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  is_edited boolean not null default false,
  edited_at timestamptz,
  is_deleted boolean not null default false,
  deleted_at timestamptz,
  deleted_by uuid,
  -- empty unless the setting fill_read_by is on; conversation_receipts is the truth
  read_by uuid[] not null default '{}',
  metadata jsonb not null default '{}',
  -- position in the conversation; given under the conversation's lock
  seq bigint not null,
  -- position of the last change among the changes of the conversation; given under the same lock
  rev bigint not null,
  -- chosen by the sender's device: the same one never makes a second message
  client_message_id text,
  reply_to_id uuid,
  mentions uuid[] not null default '{}',
  changed_xid xid8 not null default pg_current_xact_id(),
  constraint user_messages_pkey primary key (id),
  -- lets replies and reactions name message and conversation together
  constraint user_messages_id_conversation_key unique (id, conversation_id),
  constraint user_messages_conversation_id_fkey
    foreign key (conversation_id) references public.user_conversations (id) on delete cascade,
  constraint user_messages_reply_is_in_same_conversation
    foreign key (reply_to_id, conversation_id) references public.user_messages (id, conversation_id)
    on delete set null (reply_to_id),
  constraint user_messages_type_is_known check (message_type in ('text', 'image', 'file', 'system')),
  constraint user_messages_text_is_not_empty check (is_deleted or message_type <> 'text' or content <> ''),
  constraint user_messages_deleted_has_no_content check (not is_deleted or (content = '' and file_url is null)),
  -- the setting max_message_length is the limit people meet; this one holds for everybody
  constraint user_messages_content_is_bounded check (char_length(content) <= 20000),
  constraint user_messages_client_message_id_is_short check (char_length(client_message_id) between 1 and 64),
  constraint user_messages_file_size_is_positive check (file_size >= 0),
  constraint user_messages_file_names_are_short
    check (char_length(file_url) <= 2048 and char_length(file_name) <= 255 and char_length(file_type) <= 255),
  constraint user_messages_mentions_are_few check (cardinality(mentions) <= 100),
  constraint user_messages_metadata_is_small_object check (jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 8192)
);

comment on table public.user_messages is 'Messages. Deleting one leaves a tombstone: the row stays, without its content.';
comment on column public.user_messages.rev is 'rev of the conversation at the last change of this message; clients fetch what is newer than the rev they know.';

-- a device that repeats itself makes no second message
create unique index user_messages_client_message_id_key
  on public.user_messages (conversation_id, sender_id, client_message_id)
  where client_message_id is not null;

-- serves history: a page before, after or around a position
create unique index user_messages_conversation_seq_key on public.user_messages (conversation_id, seq desc);

-- serves "what changed since rev". Not unique, though revs are: a column of a unique index counts as a key, and an
-- update that moves it would shut out everybody who refers to the message
create index user_messages_conversation_rev_idx on public.user_messages (conversation_id, rev);

-- serves /sync: what changed in my conversations since a snapshot
create index user_messages_changed_idx on public.user_messages (conversation_id, changed_xid);

-- serves clients that order history by created_at, which goes with seq
create index user_messages_conversation_created_idx on public.user_messages (conversation_id, created_at desc);

-- serves search by sender, and the foreign key to people
create index user_messages_sender_idx on public.user_messages (sender_id, created_at desc);

-- serves the foreign key of replies when a message row is removed
create index user_messages_reply_idx on public.user_messages (reply_to_id) where reply_to_id is not null;

-- serves search; only from functions that are not under row-level security, since @@ is not leakproof
create index user_messages_search_idx on public.user_messages using gin (chat.search_document(content, file_name));

-- circular with the one from messages to conversations: a dump or an import may load either table first
alter table public.user_conversations
  add constraint user_conversations_last_message_id_fkey
  foreign key (last_message_id) references public.user_messages (id)
  on delete set null
  deferrable initially deferred;

create table chat.message_requests (
  message_id uuid not null,
  request_hash text not null,
  constraint message_requests_pkey primary key (message_id),
  constraint message_requests_message_id_fkey
    foreign key (message_id) references public.user_messages (id) on delete cascade
);

comment on table chat.message_requests is
  'What the first request for a client_message_id was, so that a repetition is told from a conflict. Private: the hash of a text betrays a short one.';

create table public.message_edits (
  id bigint generated always as identity,
  message_id uuid not null,
  conversation_id uuid not null,
  -- 1 is the text as it was first sent
  version int not null,
  previous_content text not null,
  edited_by uuid,
  edited_at timestamptz not null default now(),
  constraint message_edits_pkey primary key (id),
  constraint message_edits_message_id_version_key unique (message_id, version),
  constraint message_edits_message_fkey
    foreign key (message_id, conversation_id) references public.user_messages (id, conversation_id) on delete cascade
);

comment on table public.message_edits is 'Earlier wordings of edited messages. Deleting a message deletes them.';

create table public.message_hides (
  user_id uuid not null,
  message_id uuid not null,
  created_at timestamptz not null default now(),
  constraint message_hides_pkey primary key (user_id, message_id),
  constraint message_hides_message_id_fkey
    foreign key (message_id) references public.user_messages (id) on delete cascade
);

comment on table public.message_hides is 'Messages that somebody deleted for themselves alone.';

-- serves the foreign key to user_messages
create index message_hides_message_idx on public.message_hides (message_id);

create table public.message_drafts (
  user_id uuid not null,
  conversation_id uuid not null,
  content text not null,
  updated_at timestamptz not null default now(),
  constraint message_drafts_pkey primary key (user_id, conversation_id),
  constraint message_drafts_conversation_id_fkey
    foreign key (conversation_id) references public.user_conversations (id) on delete cascade,
  constraint message_drafts_content_is_bounded check (char_length(content) between 1 and 20000)
);

comment on table public.message_drafts is 'What somebody has typed and not sent. A table of its own because it must never be published.';

-- serves the foreign key to user_conversations
create index message_drafts_conversation_idx on public.message_drafts (conversation_id);

create table public.message_reactions (
  id uuid not null default gen_random_uuid(),
  message_id uuid not null,
  -- the message's, filled by trigger; beside it so that a policy and a filter need no join
  conversation_id uuid not null,
  user_id uuid not null,
  reaction text not null,
  -- the same under its older name; a plain column, since generated ones do not reach subscribers
  emoji text not null,
  created_at timestamptz not null default now(),
  changed_xid xid8 not null default pg_current_xact_id(),
  constraint message_reactions_pkey primary key (id),
  constraint message_reactions_message_user_reaction_key unique (message_id, user_id, reaction),
  constraint message_reactions_message_fkey
    foreign key (message_id, conversation_id) references public.user_messages (id, conversation_id) on delete cascade,
  -- long enough for shortcodes such as :white_check_mark:
  constraint message_reactions_reaction_is_short check (char_length(reaction) between 1 and 64),
  constraint message_reactions_emoji_is_reaction check (emoji = reaction)
);

comment on table public.message_reactions is 'Who reacted to what, with what. Changes the rev of the message.';

-- serves the foreign key to people
create index message_reactions_user_idx on public.message_reactions (user_id);

alter table public.user_messages replica identity full;
alter table public.message_reactions replica identity full;
