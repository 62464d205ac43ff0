-- Reports of messages, for moderators.

create or replace function chat.report_message(message_id uuid, reason text, note text default null, out created boolean)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Evaluated before the message is looked up, so that claims without a valid id fail in the same
  -- way for an existing and for an unknown message.
  caller constant uuid := auth.uid();
  message record;
begin
  if (reason in ('spam', 'harassment', 'hate', 'violence', 'sexual', 'illegal', 'other')) is not true then
    perform chat.refuse('validation_failed', 'reason must be spam, harassment, hate, violence, sexual, illegal or other');
  end if;
  if char_length(note) > 2000 then
    perform chat.refuse('validation_failed', 'note may have at most 2000 characters');
  end if;
  select m.* into message
  from public.user_messages m
  where m.id = report_message.message_id and m.conversation_id in (select chat.my_conversation_ids());
  if not found then
    perform chat.refuse('not_found');
  end if;
  if message.sender_id = caller then
    perform chat.refuse('validation_failed', 'Users cannot report their own messages');
  end if;
  if message.is_deleted then
    perform chat.refuse('message_deleted');
  end if;

  insert into chat.message_reports (message_id, conversation_id, reporter_id, sender_id, reason, note, content, file_url, sent_at)
  values (
    message.id, message.conversation_id, caller, message.sender_id, report_message.reason, report_message.note,
    message.content, message.file_url, message.created_at
  )
  on conflict on constraint message_reports_message_reporter_key do nothing;
  created := found;
end
$$;

comment on function chat.report_message(uuid, text, text) is
  'Reports a message to the moderators with its current text. Returns false if the caller has already reported it.';

revoke all on function chat.report_message(uuid, text, text) from public;
grant execute on function chat.report_message(uuid, text, text) to authenticated;
