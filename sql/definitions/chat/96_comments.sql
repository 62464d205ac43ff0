-- The comments on tables and columns, from which docs/schema.md is generated. They are here and not
-- in the migrations that create the objects, because a released migration never changes and its
-- comments could not be corrected. A column has a comment if clients read or write it, or if its
-- name does not explain it.

comment on table public.user_conversations is 'Conversations, with the data that all members share.';
comment on column public.user_conversations.kind is 'direct: between two users, one per pair. group: reserved for groups.';
comment on column public.user_conversations.participant_1_id is 'The smaller id of the pair. The fixed order makes each pair unique. Null after that user was erased.';
comment on column public.user_conversations.participant_2_id is 'The larger id of the pair. Null after that user was erased.';
comment on column public.user_conversations.title is 'Only for groups.';
comment on column public.user_conversations.updated_at is 'The time of the last message. Lists are sorted by it, so reading and pinning do not change it.';
comment on column public.user_conversations.last_seq is 'The seq of the newest message. Without gaps within a conversation.';
comment on column public.user_conversations.rev is 'The number of the latest change to a message (sent, edited, deleted, pinned, reacted to). Without gaps within a conversation.';
comment on column public.user_conversations.last_message_id is 'The newest message, including a deleted one.';
comment on column public.user_conversations.is_archived is 'Always false, for clients of the older schema. Members archive a conversation in their own row of user_conversation_members.';
comment on column public.user_conversations.changed_xid is 'The transaction that last changed the row, for /sync.';

comment on table public.user_conversation_members is
  'The private state of each member in a conversation. Only the member can read it, because other members must not learn of a mute.';
comment on column public.user_conversation_members.last_read_seq is 'Everything up to this seq is read. Marking as unread moves it back, but not the receipt.';
comment on column public.user_conversation_members.unread_count is 'Messages of others after last_read_seq that are not deleted, cleared or hidden. Maintained by triggers.';
comment on column public.user_conversation_members.mention_count is 'The unread messages that mention the member.';
comment on column public.user_conversation_members.marked_unread is 'Marked as unread by the member, independently of the read position.';
comment on column public.user_conversation_members.is_muted is 'Muted until muted_until or, if that is null, until unmuted.';
comment on column public.user_conversation_members.notification_level is 'all, mentions or none.';
comment on column public.user_conversation_members.cleared_seq is 'The member cleared the conversation and does not see messages up to this seq.';
comment on column public.user_conversation_members.hidden is 'The conversation is not in the member''s list until the next message.';
comment on column public.user_conversation_members.last_activity_at is 'The conversation''s updated_at, repeated here so that one index serves the sorted list.';
comment on column public.user_conversation_members.left_at is 'When the membership ended. Null for a current member.';
comment on column public.user_conversation_members.changed_xid is 'The transaction that last changed the row, for /sync.';

comment on table public.conversation_receipts is
  'How far each member has read and received messages, as other members see it. A row does not change while its owner does not share receipts.';
comment on column public.conversation_receipts.last_read_seq is 'The member has read up to this seq. Never moves back.';
comment on column public.conversation_receipts.last_delivered_seq is 'Messages up to this seq have reached a device of the member.';
comment on column public.conversation_receipts.changed_xid is 'The transaction that last changed the row, for /sync.';

comment on table public.user_messages is 'Messages. A deleted message leaves a tombstone: the row without its content.';
comment on column public.user_messages.sender_id is 'Null if the server wrote the message, or if its sender was erased.';
comment on column public.user_messages.content is 'Without white space at both ends. Empty after deletion.';
comment on column public.user_messages.message_type is 'text, image or file; system for messages of the server.';
comment on column public.user_messages.file_url is 'Below the address in the setting storage_url. Printable ASCII without spaces and "\", and without "." or ".." as a segment of the path.';
comment on column public.user_messages.file_size is 'In bytes.';
comment on column public.user_messages.file_type is 'The file''s media type.';
comment on column public.user_messages.created_at is 'Assigned while holding the conversation''s lock, so it increases with seq.';
comment on column public.user_messages.deleted_by is 'The user who deleted the message for all members.';
comment on column public.user_messages.read_by is 'Empty unless the setting fill_read_by is on. conversation_receipts is authoritative.';
comment on column public.user_messages.metadata is 'Set by the sender''s program, at most 8 KiB.';
comment on column public.user_messages.seq is 'The position in the conversation, from 1 without gaps. Assigned while holding the conversation''s lock.';
comment on column public.user_messages.rev is 'The conversation''s rev at the last change of this message. Clients fetch all messages with a rev higher than the last one they know.';
comment on column public.user_messages.client_message_id is 'Chosen by the sender''s device. A repeated id never creates a second message.';
comment on column public.user_messages.mentions is 'Members of the conversation.';
comment on column public.user_messages.changed_xid is 'The transaction that last changed the row, for /sync.';

comment on table public.message_edits is 'Earlier texts of edited messages. Deleting a message removes them.';
comment on column public.message_edits.version is 'Counted from 1, the oldest text first.';
comment on column public.message_edits.previous_content is 'The text of the message until edited_at.';

comment on table public.message_hides is 'Messages that a user deleted only for themselves.';
comment on table public.message_drafts is 'Texts that users have typed but not sent. They are in a separate table because they must never be published.';

comment on table public.message_reactions is 'Reactions of users to messages. Each change also changes the rev of the message.';
comment on column public.message_reactions.reaction is 'Up to 64 characters: an emoji, or a shortcode such as :white_check_mark:.';
comment on column public.message_reactions.emoji is 'The same as reaction, for clients of the older schema.';

comment on table public.message_pins is 'Messages pinned for all members of their conversation. Pinning and unpinning also change the rev of the message.';

comment on table public.user_presence is 'The presence of users, as others see it.';
comment on column public.user_presence.status is 'online, away, busy or offline, as others see it. A client that writes it reports its own status.';
comment on column public.user_presence.current_page is 'The page of the application that the user looks at. Can only be written: it always reads as null. With the setting share_current_page, GET /presence returns it to the user and their admins.';
comment on column public.user_presence.is_typing_to is 'Written by applications that watch this table, and by the server with the setting typing_in_table.';
comment on column public.user_presence.manual_status is 'The status that the user chose, if others see it. Applies until manual_until or the next choice.';
comment on column public.user_presence.device_count is 'The number of sockets, or of devices that report over REST with a session_id, whichever is greater.';

comment on table public.user_blocks is 'Blocks between users. Never published, because even the key of a row would reveal the block.';

comment on table public.user_notification_preferences is 'Notification and privacy preferences of each user. Without a row the defaults apply.';
comment on column public.user_notification_preferences.show_preview is 'Whether notifications contain the text of the message.';
comment on column public.user_notification_preferences.email_mode is 'offline, digest_hourly, digest_daily, digest_weekly or never.';
comment on column public.user_notification_preferences.digest_hour is 'The hour of the day, in timezone.';
comment on column public.user_notification_preferences.timezone is 'A name of the IANA time zone database.';
comment on column public.user_notification_preferences.quiet_start is 'In timezone.';
comment on column public.user_notification_preferences.quiet_end is 'In timezone.';
comment on column public.user_notification_preferences.share_read_receipts is 'If off, other users do not see what this user has read or received, and this user does not see it of other users.';
comment on column public.user_notification_preferences.share_presence is 'If off, this user appears offline to all others.';

comment on table chat.config is 'Settings that the database itself needs. A missing key has its default; an unknown key is ignored.';
comment on table chat.message_requests is
  'The hash of the first request with each client_message_id, which distinguishes a retry from a conflict. Private, because a short text could be guessed from its hash.';
comment on table chat.message_reports is 'Reported messages, with their text at that time. Only for moderators; the reporter cannot read them either.';
comment on table chat.idempotency_keys is
  'The Idempotency-Key of each successful write, kept for idempotency_key_ttl_s seconds. Inserted in the transaction of that write, so a key never exists without its write.';
comment on table chat.removed_messages is 'Messages whose rows were removed, kept as long as a client may return with an older cursor (sync_horizon_s).';
comment on table chat.removed_memberships is
  'Memberships whose rows were removed, directly or with their conversation, kept as long as chat.removed_messages.';
comment on table chat.presence_processes is 'Server processes with sockets. The sockets of a process whose lease has ended do not count.';
comment on table chat.presence_sessions is 'The number of sockets of each user at each process. Written only when users connect or disconnect.';
comment on table chat.presence_reports is
  'The reports of users'' devices and the statuses that users choose. The rows of user_presence are computed from them. No client can read this table.';
comment on table chat.presence_report_sessions is 'The reports of devices with a session_id. No client can read this table.';
comment on table chat.presence_unshown is
  'Users whose row of user_presence is out of date, because they held a lock on a row that the server would have written. chat.expire_presence() tries again.';
comment on table chat.locks is
  'One row per task that only one process may run at a time. The process locks the row, which no client can do.';
comment on table chat.presence_pages is
  'The page of the application that each user looks at, with the setting share_current_page. Readable only through chat.pages_of().';

-- Functions created by migrations, because indexes contain their results.

comment on function chat.folded_text(text) is
  'A text in the form in which it is searched: in lower case, without accents and vowel marks, with each letter as users type it without them, and with one space between words.';
comment on function chat.is_unspaced(text) is 'Returns whether this word is an emoji, or in a script without spaces. Such words are found by any part of them.';
comment on function chat.search_stretch(uuid, bigint) is 'The name in the index of a stretch of 2048 messages of a conversation.';
comment on function chat.search_keys(uuid, bigint, uuid, text, text, text) is 'The index entries of a message.';
