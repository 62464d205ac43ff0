-- An index for each foreign key that had none with the key's columns in front: removing a referenced row then looks
-- up the rows that refer to it, and does not read the whole table.

-- serves the foreign key of replies when a message row is removed; replaces the index on reply_to_id alone
create index user_messages_reply_in_conversation_idx
  on public.user_messages (reply_to_id, conversation_id)
  where reply_to_id is not null;
drop index public.user_messages_reply_idx;

-- serve the foreign keys to messages when a message row is removed
create index message_edits_message_idx on public.message_edits (message_id, conversation_id);
create index message_pins_message_idx on public.message_pins (message_id, conversation_id);
create index message_reactions_message_idx on public.message_reactions (message_id, conversation_id);

-- serves the foreign key to people
create index user_conversations_created_by_idx on public.user_conversations (created_by);
