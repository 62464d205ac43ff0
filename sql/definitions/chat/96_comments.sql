-- What columns mean that people read and write by themselves, over the tables or in an editor. docs/schema.md is made of this.

comment on column public.user_conversations.kind is 'direct: of two people, one for each pair; group.';
comment on column public.user_conversations.participant_1_id is 'The smaller id of the pair, so that a pair has one spelling. Null once that person was erased.';
comment on column public.user_conversations.participant_2_id is 'The larger id of the pair. Null once that person was erased.';
comment on column public.user_conversations.title is 'Of a group.';
comment on column public.user_conversations.updated_at is 'When the last message arrived. Lists sort by it, so reading and pinning do not move it.';
comment on column public.user_conversations.last_message_id is 'The newest message, deleted or not.';
comment on column public.user_conversations.is_archived is 'For readers of the older shape, and never set: archiving is each member''s own affair.';
comment on column public.user_conversations.changed_xid is 'The transaction that changed the row last, for /sync.';

comment on column public.user_conversation_members.last_read_seq is 'Everything up to this seq is read. Marking as unread moves it back, which receipts never follow.';
comment on column public.user_conversation_members.unread_count is 'Messages of others behind last_read_seq that are neither deleted nor cleared. Kept by triggers.';
comment on column public.user_conversation_members.mention_count is 'Of these, those that mention the member.';
comment on column public.user_conversation_members.marked_unread is 'Marked by hand, whatever was read.';
comment on column public.user_conversation_members.is_muted is 'With muted_until: until then; without: until unmuted.';
comment on column public.user_conversation_members.notification_level is 'all, mentions or none.';
comment on column public.user_conversation_members.cleared_seq is 'Messages up to this seq are gone for the member, who cleared the conversation.';
comment on column public.user_conversation_members.hidden is 'Off the member''s list until the next message.';
comment on column public.user_conversation_members.last_activity_at is 'The conversation''s updated_at, here so that one index serves the sorted list.';
comment on column public.user_conversation_members.left_at is 'Since when the member is none any more.';
comment on column public.user_conversation_members.changed_xid is 'The transaction that changed the row last, for /sync.';

comment on column public.conversation_receipts.last_read_seq is 'How far the member has read. Never moves back.';
comment on column public.conversation_receipts.last_delivered_seq is 'How far messages have reached a device of the member.';
comment on column public.conversation_receipts.changed_xid is 'The transaction that changed the row last, for /sync.';

comment on column public.user_messages.sender_id is 'Null: written by the system, or its sender was erased.';
comment on column public.user_messages.content is 'Trimmed of white space at its ends. Empty once deleted.';
comment on column public.user_messages.message_type is 'text, image, file; system is the server''s own.';
comment on column public.user_messages.file_url is 'Below the address in the setting storage_url.';
comment on column public.user_messages.file_size is 'In bytes.';
comment on column public.user_messages.file_type is 'The file''s media type.';
comment on column public.user_messages.created_at is 'Stamped under the conversation''s lock, so that it rises with seq.';
comment on column public.user_messages.deleted_by is 'Who deleted it for everybody.';
comment on column public.user_messages.read_by is 'Empty unless the setting fill_read_by is on. conversation_receipts is the truth.';
comment on column public.user_messages.metadata is 'What the sender''s program put there; at most 8 KiB.';
comment on column public.user_messages.seq is 'Position in the conversation, given under its lock: without gaps, from 1 on.';
comment on column public.user_messages.client_message_id is 'Chosen by the sender''s device: the same one never makes a second message.';
comment on column public.user_messages.mentions is 'Members of the conversation.';
comment on column public.user_messages.changed_xid is 'The transaction that changed the row last, for /sync.';

comment on column public.message_edits.version is 'From 1 on, the oldest wording first.';
comment on column public.message_edits.previous_content is 'What the message said until edited_at.';

comment on column public.message_reactions.reaction is 'Up to 64 characters: an emoji, or a shortcode such as :white_check_mark:.';
comment on column public.message_reactions.emoji is 'The same as reaction, for readers of the older shape.';

comment on column public.user_presence.status is 'online, away, busy or offline, as others are shown it. A client that writes it reports itself.';
comment on column public.user_presence.current_page is 'Where in the application. For writing only: always null to readers. With the setting share_current_page, GET /presence tells the person and their admins.';
comment on column public.user_presence.is_typing_to is 'Written by applications that watch this table, and with the setting typing_in_table.';
comment on column public.user_presence.manual_status is 'Chosen by the person, when that is what is shown; holds until manual_until, or until the next.';
comment on column public.user_presence.device_count is 'Sockets, or devices that report over REST under a name, whichever are more.';

comment on column public.user_notification_preferences.show_preview is 'Whether notifications show what was written.';
comment on column public.user_notification_preferences.email_mode is 'offline, digest_hourly, digest_daily, digest_weekly or never.';
comment on column public.user_notification_preferences.digest_hour is 'Of the day, in timezone.';
comment on column public.user_notification_preferences.timezone is 'A name of the IANA time zone database.';
comment on column public.user_notification_preferences.quiet_start is 'In timezone.';
comment on column public.user_notification_preferences.quiet_end is 'In timezone.';
comment on column public.user_notification_preferences.share_read_receipts is 'Off: others do not learn what I read or received, and I am not told either.';
comment on column public.user_notification_preferences.share_presence is 'Off: I look offline to everybody.';

-- Functions that a migration made, because indexes hold what they return.

comment on function chat.folded_text(text) is
  'A text as it is searched: lower case, without accents and vowel marks, letters as they are typed without them, one space between words.';
comment on function chat.is_unspaced(text) is 'Is this word a run of a script without spaces, or an emoji: found anywhere in it?';
comment on function chat.search_stretch(uuid, bigint) is 'The name of a stretch of 2048 messages of a conversation in the index.';
comment on function chat.search_keys(uuid, bigint, uuid, text, text, text) is 'The index entries of a message.';
