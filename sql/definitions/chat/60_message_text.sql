-- Rules for the text of messages and for their other contents. The functions are in plpgsql, which
-- keeps its plans. SQL functions that are not inlined are planned again by every statement.

create or replace function chat.trimmed(content text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Unicode's White_Space. Without this list, btrim removes only the ordinary space.
  return btrim(
    content,
    U&'\0009\000A\000B\000C\000D\0020\0085\00A0\1680\2000\2001\2002\2003\2004\2005\2006\2007\2008\2009\200A\2028\2029\202F\205F\3000'
  );
end
$$;

comment on function chat.trimmed(text) is 'The text without White_Space at both ends. Messages are stored in this form.';

revoke all on function chat.trimmed(text) from public;
grant execute on function chat.trimmed(text) to authenticated, service_role;

create or replace function chat.is_blank(content text)
returns boolean
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Trimming all invisible characters leaves nothing exactly if the text contains no visible
  -- character. In addition to White_Space, the invisible characters are: soft hyphen, joiners,
  -- fillers, direction marks, variation selectors, the blank braille pattern.
  return btrim(
    content,
    U&'\0009\000A\000B\000C\000D\0020\0085\00A0\1680\2000\2001\2002\2003\2004\2005\2006\2007\2008\2009\200A\2028\2029\202F\205F\3000'
    || U&'\00AD\034F\061C\115F\1160\17B4\17B5\180B\180C\180D\180E\200B\200C\200D\200E\200F\202A\202B\202C\202D\202E'
    || U&'\2060\2061\2062\2063\2064\2065\2066\2067\2068\2069\206A\206B\206C\206D\206E\206F\2800\3164'
    || U&'\FE00\FE01\FE02\FE03\FE04\FE05\FE06\FE07\FE08\FE09\FE0A\FE0B\FE0C\FE0D\FE0E\FE0F\FEFF\FFA0'
  ) = '';
end
$$;

comment on function chat.is_blank(text) is 'Returns whether the text contains no visible character.';

revoke all on function chat.is_blank(text) from public;
grant execute on function chat.is_blank(text) to authenticated, service_role;

-- Returns the content in the form in which it is stored, or refuses it. This applies to every
-- writer, on insert and on update.
create or replace function chat.accepted_content(content text, message_type text, has_file boolean)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  stored constant text := coalesce(chat.trimmed(accepted_content.content), '');
begin
  -- Checked here even if the configured limit is higher, because a violation of the table's
  -- constraint would write the text to the log.
  if char_length(stored) > 20000 then
    perform chat.refuse('message_too_long', 'At most 20000 characters');
  end if;
  if not chat.is_blank(stored) then
    return stored;
  end if;
  if message_type = 'text' or (message_type in ('image', 'file') and not has_file) then
    perform chat.refuse('message_empty');
  end if;
  return '';
end
$$;

revoke all on function chat.accepted_content(text, text, boolean) from public;

-- Refuses a new text that is longer than configured. The row triggers call this. A statement
-- trigger would run after the rows were indexed, so a refused text would cost that work.
create or replace function chat.check_message_length(content text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  max_length constant int := chat.amount('max_message_length', 4000);
begin
  if char_length(check_message_length.content) > max_length then
    perform chat.refuse('message_too_long', format('At most %s characters', max_length));
  end if;
end
$$;

revoke all on function chat.check_message_length(text) from public;

-- Returns whether an address is below the storage's address, as browsers and servers read it.
-- Browsers remove tabs and line ends from an address, and spaces from its end. They read "\" as "/"
-- and "%2e" as ".", and end the path at "?" or "#". Servers may also read "%2f" and "%5c" as "/".
create or replace function chat.is_in_storage(file_url text, storage_url text)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  folder constant text := rtrim(is_in_storage.storage_url, '/') || '/';
  below constant text := substr(is_in_storage.file_url, char_length(folder) + 1);
begin
  return starts_with(is_in_storage.file_url, folder)
    and below ~ '^[!-~]*$'
    and strpos(below, '\') = 0
    and substring(folder || below from '^[^?#]*') !~* '(/|%2f|%5c)(\.|%2e){1,2}(/|%2f|%5c|$)';
end
$$;

comment on function chat.is_in_storage(text, text) is
  'Returns whether this address is below the storage''s address. The rest of it must be printable ASCII without spaces and "\", and without "." or ".." as a segment of the path, also when encoded.';

revoke all on function chat.is_in_storage(text, text) from public;

create or replace function chat.check_metadata(metadata jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(metadata) is distinct from 'object' or octet_length(metadata::text) > 8192 then
    perform chat.refuse('validation_failed', 'metadata must be an object of at most 8192 bytes');
  end if;
end
$$;

revoke all on function chat.check_metadata(jsonb) from public;

-- Checks the rules that apply to messages of users but not to those of the server. For example, the
-- file's address must be in the storage, and mentions must be members. Only new messages are
-- checked. Users cannot change these columns afterwards, and a setting or a membership may have
-- changed in the meantime.
create or replace function chat.check_personal_message(message public.user_messages)
returns void
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  storage_url text;
begin
  if coalesce(message.message_type, '') not in ('text', 'image', 'file') then
    perform chat.refuse('validation_failed', 'message_type must be text, image or file');
  end if;
  if message.client_message_id is not null and char_length(message.client_message_id) not between 1 and 64 then
    perform chat.refuse('validation_failed', 'client_message_id must have 1 to 64 characters');
  end if;
  perform chat.check_metadata(message.metadata);
  if message.file_size < 0 then
    perform chat.refuse('validation_failed', 'file_size must not be negative');
  end if;
  if char_length(message.file_url) > 2048 or char_length(message.file_name) > 255 or char_length(message.file_type) > 255 then
    perform chat.refuse('validation_failed', 'file_url may have at most 2048 characters, file_name and file_type 255');
  end if;
  if cardinality(message.mentions) > 100 then
    perform chat.refuse('validation_failed', 'At most 100 mentions');
  end if;

  if message.file_url is not null then
    storage_url := (select nullif(c.value #>> '{}', '') from chat.config c where c.key = 'storage_url');
    if storage_url is null or not chat.is_in_storage(message.file_url, storage_url) then
      perform chat.refuse('validation_failed', 'file_url is not an address in the storage');
    end if;
  end if;

  if message.reply_to_id is not null and not exists (
    select
    from public.user_messages m
    where m.id = message.reply_to_id and m.conversation_id = message.conversation_id
  ) then
    perform chat.refuse('validation_failed', 'reply_to_id is not a message of this conversation');
  end if;

  if message.mentions <> '{}' and exists (
    select
    from unnest(message.mentions) mentioned (user_id)
    where not exists (
      select
      from public.user_conversation_members m
      where m.conversation_id = message.conversation_id and m.user_id = mentioned.user_id and m.left_at is null
    )
  ) then
    perform chat.refuse('validation_failed', 'mentions must be members of the conversation');
  end if;
end
$$;

revoke all on function chat.check_personal_message(public.user_messages) from public;

-- Returns the message if it is in one of the caller's conversations and the caller neither cleared
-- nor hid it. Returns null otherwise.
create or replace function chat.my_message(message_id uuid)
returns public.user_messages
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  message public.user_messages;
begin
  select m.* into message
  from public.user_messages m
  join public.user_conversation_members mine on mine.conversation_id = m.conversation_id
  where m.id = my_message.message_id
    and mine.user_id = caller
    and mine.left_at is null
    and m.seq > mine.cleared_seq
    and not exists (select from public.message_hides h where h.user_id = caller and h.message_id = m.id);
  return message;
end
$$;

comment on function chat.my_message(uuid) is 'A message of the caller''s conversations that they neither cleared nor hid. Null for any other.';

revoke all on function chat.my_message(uuid) from public;
grant execute on function chat.my_message(uuid) to authenticated;
