-- The policies and grants: who may read and write which rows. anon has no rights on any table.
-- Clients may read every column, because a hidden column would break "select *". They may not read
-- system columns of rows that are shared with other users.
--
-- A policy must be evaluated before every condition of the query. PostgreSQL evaluates conditions
-- in the order of their estimated costs if the operators of the query are leakproof, as those of
-- text and uuid are. A condition that runs before the policy is evaluated on rows of other users.
-- "explain (analyze)", an error in the policy or the execution time then shows whether it was true.
-- So a policy uses one of two forms, which cost the least:
--
-- * "chat.has_key((select …), …)" looks up a key in a set that is read once per statement. Its cost
--   is almost 0.
-- * "user_id = any (array[(select chat.my_id())])" costs half an operator, as much as the cheapest
--   comparison of a query. At equal cost the policy comes first. This form can use an index.
--
-- Conditions without an operator, such as "is_deleted" and "file_url is null", cost nothing. They
-- are an exception: PostgreSQL evaluates them before every policy.

-- Read access is granted per column. A grant on the table would include xmin, xmax and ctid, which
-- reveal what other users do in private: every lock changes xmax, and hiding, reporting or drafting
-- a message, clearing a conversation, and reporting presence while hidden all lock rows that others
-- can see. It would also include currtid2(), which ignores row-level security: it follows the
-- versions of any row.
create or replace function chat.grant_shared_columns()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  shared record;
begin
  for shared in
    select a.attrelid::regclass as name, string_agg(quote_ident(a.attname), ', ' order by a.attnum) as columns
    from pg_catalog.pg_attribute a
    where a.attrelid in (
        'public.user_conversations'::regclass,
        'public.user_conversation_members'::regclass,
        'public.conversation_receipts'::regclass,
        'public.user_messages'::regclass,
        'public.message_edits'::regclass,
        'public.message_hides'::regclass,
        'public.message_drafts'::regclass,
        'public.message_reactions'::regclass,
        'public.message_pins'::regclass,
        'public.user_presence'::regclass,
        'public.user_blocks'::regclass,
        'public.user_notification_preferences'::regclass
      )
      and a.attnum > 0
      and not a.attisdropped
      and not has_column_privilege('authenticated', a.attrelid, a.attnum, 'select')
    group by a.attrelid
  loop
    execute format('grant select (%s) on %s to authenticated', shared.columns, shared.name);
  end loop;
end
$$;

comment on function chat.grant_shared_columns() is
  'Grants users read access to every column of the chat''s tables that they read, and to no system column. Runs at every installation, to include columns added since. Does nothing if nothing is missing.';

revoke all on function chat.grant_shared_columns() from public;

do $$
declare
  chat_table text;
begin
  foreach chat_table in array array[
    'public.user_conversations',
    'public.user_conversation_members',
    'public.conversation_receipts',
    'public.user_messages',
    'public.message_edits',
    'public.message_hides',
    'public.message_drafts',
    'public.message_reactions',
    'public.message_pins',
    'public.user_presence',
    'public.user_blocks',
    'public.user_notification_preferences'
  ]
  loop
    execute format('alter table %s enable row level security', chat_table);
    -- A Supabase project grants everything in public to these roles by default.
    execute format('revoke all on %s from public, anon, authenticated', chat_table);
    execute format('grant all on %s to service_role', chat_table);
  end loop;
end
$$;

do $$
begin
  perform chat.grant_shared_columns();
end
$$;

-- The sequence of an identity column. Inserts do not require rights on it.
revoke all on sequence public.message_edits_id_seq from public, anon, authenticated;

revoke all on chat.config, chat.message_requests, chat.message_reports, chat.idempotency_keys, chat.removed_messages,
  chat.removed_memberships, chat.presence_reports, chat.presence_report_sessions, chat.presence_processes, chat.presence_sessions,
  chat.presence_pages, chat.presence_unshown, chat.locks,
  chat.schema_migrations, chat.schema_definitions
  from public, anon, authenticated;
grant select, insert, update, delete
  on chat.config, chat.message_requests, chat.message_reports, chat.idempotency_keys, chat.removed_messages,
    chat.removed_memberships
  to service_role;
grant select on chat.schema_migrations, chat.schema_definitions to service_role;

-- ------------------------------------------------------------------------------ user_conversations
-- Rows are inserted by chat.open_conversation() and changed by messages. Clients never write here.

drop policy if exists "members see their conversations" on public.user_conversations;
create policy "members see their conversations" on public.user_conversations
  for select to authenticated
  using (chat.has_key((select chat.my_conversation_keys()), id));

-- ----------------------------------------------------------------------- user_conversation_members

grant update (is_archived, is_pinned, is_muted, muted_until, notification_level, marked_unread)
  on public.user_conversation_members to authenticated;

drop policy if exists "people see their own memberships" on public.user_conversation_members;
create policy "people see their own memberships" on public.user_conversation_members
  for select to authenticated
  using (user_id = any (array[(select chat.my_id())]) and left_at is null);

drop policy if exists "people arrange their own memberships" on public.user_conversation_members;
drop policy if exists "people change their own memberships" on public.user_conversation_members;
create policy "people change their own memberships" on public.user_conversation_members
  for update to authenticated
  using (user_id = any (array[(select chat.my_id())]) and left_at is null)
  with check (user_id = (select chat.my_id()));

-- --------------------------------------------------------------------------- conversation_receipts
-- Rows are changed by chat.mark_read() and chat.mark_delivered().

drop policy if exists "members see the receipts of their conversations" on public.conversation_receipts;
create policy "members see the receipts of their conversations" on public.conversation_receipts
  for select to authenticated
  using (chat.has_key((select chat.my_conversation_keys()), conversation_id));

-- ----------------------------------------------------------------------------------- user_messages

grant insert (
  id, conversation_id, sender_id, content, message_type, file_url, file_name, file_size, file_type,
  metadata, client_message_id, reply_to_id, mentions
) on public.user_messages to authenticated;
grant update (content, is_deleted, metadata) on public.user_messages to authenticated;

drop policy if exists "members read the messages of their conversations" on public.user_messages;
create policy "members read the messages of their conversations" on public.user_messages
  for select to authenticated
  using (chat.has_key((select chat.my_conversation_keys()), conversation_id));

drop policy if exists "members send as themselves where they may" on public.user_messages;
drop policy if exists "members send messages" on public.user_messages;
create policy "members send messages" on public.user_messages
  for insert to authenticated
  with check (
    sender_id = (select chat.my_id())
    and message_type <> 'system'
    and chat.can_send(conversation_id)
  );

drop policy if exists "senders change their own messages" on public.user_messages;
create policy "senders change their own messages" on public.user_messages
  for update to authenticated
  using (chat.has_key((select chat.my_conversation_keys()), conversation_id) and sender_id = any (array[(select chat.my_id())]))
  with check (sender_id = (select chat.my_id()));

-- ----------------------------------------------------------------------------------- message_edits

drop policy if exists "members read earlier wordings" on public.message_edits;
create policy "members read earlier wordings" on public.message_edits
  for select to authenticated
  using (chat.has_key((select chat.my_conversation_keys()), conversation_id));

-- ------------------------------------------------------------------- message_hides, message_drafts
-- Rows are written by chat.hide_message() and chat.set_conversation_settings().

drop policy if exists "people see what they hid" on public.message_hides;
drop policy if exists "people see their own hidden messages" on public.message_hides;
create policy "people see their own hidden messages" on public.message_hides
  for select to authenticated
  using (user_id = any (array[(select chat.my_id())]));

drop policy if exists "people see their own drafts" on public.message_drafts;
create policy "people see their own drafts" on public.message_drafts
  for select to authenticated
  using (user_id = any (array[(select chat.my_id())]));

-- ------------------------------------------------------------------------------- message_reactions

grant delete on public.message_reactions to authenticated;
grant insert (id, message_id, conversation_id, user_id, reaction, emoji) on public.message_reactions to authenticated;

drop policy if exists "members see the reactions of their conversations" on public.message_reactions;
create policy "members see the reactions of their conversations" on public.message_reactions
  for select to authenticated
  using (chat.has_key((select chat.my_conversation_keys()), conversation_id));

drop policy if exists "members react as themselves where they may write" on public.message_reactions;
drop policy if exists "members add reactions" on public.message_reactions;
create policy "members add reactions" on public.message_reactions
  for insert to authenticated
  with check (user_id = (select chat.my_id()) and chat.can_send(conversation_id));

drop policy if exists "people take back their own reactions" on public.message_reactions;
drop policy if exists "people remove their own reactions" on public.message_reactions;
create policy "people remove their own reactions" on public.message_reactions
  for delete to authenticated
  using (chat.has_key((select chat.my_conversation_keys()), conversation_id) and user_id = any (array[(select chat.my_id())]));

-- ------------------------------------------------------------------------------------ message_pins
-- Rows are written by chat.pin_message().

drop policy if exists "members see the pins of their conversations" on public.message_pins;
create policy "members see the pins of their conversations" on public.message_pins
  for select to authenticated
  using (chat.has_key((select chat.my_conversation_keys()), conversation_id));

-- ----------------------------------------------------------------------------------- user_presence

grant insert (user_id, status, last_seen, current_page, is_typing_to, typing_started_at, updated_at, status_text, status_emoji)
  on public.user_presence to authenticated;
-- user_id is included because an upsert through the data API sets every column that it contains.
-- The policy still prevents a change.
grant update (user_id, status, last_seen, current_page, is_typing_to, typing_started_at, updated_at, status_text, status_emoji)
  on public.user_presence to authenticated;

drop policy if exists "people see the presence of their teams and partners" on public.user_presence;
create policy "people see the presence of their teams and partners" on public.user_presence
  for select to authenticated
  using (chat.has_key((select chat.known_people_keys()), user_id));

drop policy if exists "people report their own presence" on public.user_presence;
create policy "people report their own presence" on public.user_presence
  for insert to authenticated
  with check (user_id = (select chat.my_id()));

drop policy if exists "people change their own presence" on public.user_presence;
create policy "people change their own presence" on public.user_presence
  for update to authenticated
  using (user_id = any (array[(select chat.my_id())]))
  with check (user_id = (select chat.my_id()));

-- ------------------------------------------------------------------------------------- user_blocks

grant delete on public.user_blocks to authenticated;
grant insert (blocker_id, blocked_id) on public.user_blocks to authenticated;

drop policy if exists "people see whom they blocked" on public.user_blocks;
drop policy if exists "people see their own blocks" on public.user_blocks;
create policy "people see their own blocks" on public.user_blocks
  for select to authenticated
  using (blocker_id = any (array[(select chat.my_id())]));

-- Users may block only users that they know. Otherwise, the foreign key would distinguish a
-- stranger from a user who does not exist.
drop policy if exists "people block for themselves" on public.user_blocks;
drop policy if exists "people add their own blocks" on public.user_blocks;
create policy "people add their own blocks" on public.user_blocks
  for insert to authenticated
  with check (blocker_id = (select chat.my_id()) and chat.knows(blocked_id));

drop policy if exists "people lift their own blocks" on public.user_blocks;
drop policy if exists "people remove their own blocks" on public.user_blocks;
create policy "people remove their own blocks" on public.user_blocks
  for delete to authenticated
  using (blocker_id = any (array[(select chat.my_id())]));

-- ------------------------------------------------------------------- user_notification_preferences

-- Updates are granted per column, because a grant on the table would include "lock table".
grant insert on public.user_notification_preferences to authenticated;
grant update (
  user_id, browser_enabled, sound_enabled, show_preview, email_enabled, email_mode, email_delay_seconds, digest_hour, timezone,
  dnd_until, quiet_start, quiet_end, share_read_receipts, share_typing, share_presence, updated_at
) on public.user_notification_preferences to authenticated;

drop policy if exists "people see their own preferences" on public.user_notification_preferences;
create policy "people see their own preferences" on public.user_notification_preferences
  for select to authenticated
  using (user_id = any (array[(select chat.my_id())]));

drop policy if exists "people set their own preferences" on public.user_notification_preferences;
create policy "people set their own preferences" on public.user_notification_preferences
  for insert to authenticated
  with check (user_id = (select chat.my_id()));

drop policy if exists "people change their own preferences" on public.user_notification_preferences;
create policy "people change their own preferences" on public.user_notification_preferences
  for update to authenticated
  using (user_id = any (array[(select chat.my_id())]))
  with check (user_id = (select chat.my_id()));
