-- What messages are found by: words in any script, within a stretch of one conversation.

drop function if exists chat.search_messages(text, uuid, uuid, timestamptz, timestamptz, text, boolean, int, timestamptz, uuid);
drop function if exists chat.search_query(text);
drop index public.user_messages_search_idx;
drop function chat.search_document(text, text);

-- A text as it is searched: lower case, without accents and vowel marks, one space between words. Scripts written
-- without spaces stand apart from others as runs, and emoji each alone. No dictionary and no parser of the server, so
-- that src/chat/search/fragments.rs can tell which part of a text was found.
create function chat.search_text(written text)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  -- combining marks, joiners, marks of direction, variation selectors, skin tones: nothing that people type to find
  -- something. Vowel signs of Indic scripts are letters and stay.
  ignored constant text := '[\u00ad\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7'
    '\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u180b-\u180e\u1ab0-\u1aff\u1dc0-\u1dff'
    '\u200c-\u200f\u202a-\u202e\u2060-\u2064\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\ufeff'
    '\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef]+';
  -- Thai, Lao, Tibetan, Myanmar, Khmer, kana, Han with its extensions, Hangul
  unspaced constant text := '([\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff\u3400-\u9fff'
    '\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+)';
  emoji constant text := '([\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\U0001f000-\U0001faff])';
  separators constant text := '[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7'
    '\u037e\u0387\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u060f\u061b-\u061f\u066a-\u066d\u06d4'
    '\u0964\u0965\u0970\u2000-\u206f\u20a0-\u20cf\u2190-\u25ff\u2b00-\u2b04\u2b08-\u2b1a\u2b1d-\u2b4f\u2b51-\u2b54\u2b56-\u2bff'
    '\u2e00-\u2e7f\u3000-\u3004\u3008-\u3030\u303d\u30fb\ue000-\uf8ff\ufd3e\ufd3f\ufff0-\uffff]+';
  text text;
begin
  if octet_length(written) = char_length(written) then
    return btrim(regexp_replace(lower(written), '[^a-z0-9]+', ' ', 'g'));
  end if;
  text := lower(normalize(written, nfkd));
  text := translate(normalize(regexp_replace(text, ignored, '', 'g'), nfc), 'ς', 'σ');
  text := regexp_replace(regexp_replace(text, unspaced, ' \1 ', 'g'), emoji, ' \1 ', 'g');
  return btrim(regexp_replace(text, separators, ' ', 'g'));
end
$$;

revoke all on function chat.search_text(text) from public;
grant execute on function chat.search_text(text) to authenticated, service_role;

-- Is this word of chat.search_text() a run of a script without spaces, or an emoji: found anywhere, not by how it begins?
create function chat.is_unspaced(word text)
returns boolean
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
begin
  return octet_length(word) <> char_length(word)
    and word ~ '^[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2600-\u2bff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U0001f000-\U0001faff\U00020000-\U0003ffff]';
end
$$;

revoke all on function chat.is_unspaced(text) from public;
grant execute on function chat.is_unspaced(text) to authenticated, service_role;

-- Messages of a conversation are indexed by stretches of 2048 in the order of seq. Large enough that a search visits few,
-- small enough that a common word does not fetch many messages to keep the newest of them.
create function chat.search_stretch(conversation_id uuid, number bigint)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
begin
  -- the end of the id, because the front of time-ordered ids is the same for many. Two that share it are told apart
  -- when the messages are read.
  return right(conversation_id::text, 8) || to_hex(number);
end
$$;

revoke all on function chat.search_stretch(uuid, bigint) from public;
grant execute on function chat.search_stretch(uuid, bigint) to authenticated, service_role;

-- The index entries of a message. Each begins with its stretch: a look-up touches the caller's messages and nobody
-- else's, however common the word is, and the entries of a conversation lie side by side when they are written.
create function chat.search_entries(
  conversation_id uuid,
  seq bigint,
  sender_id uuid,
  message_type text,
  content text,
  file_name text
)
returns tsvector
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  stretch constant text := chat.search_stretch(search_entries.conversation_id, search_entries.seq >> 11);
  written constant text := chat.search_text(search_entries.content || ' ' || coalesce(search_entries.file_name, ''));
  words text[] := string_to_array(written, ' ');
  marks text[] := '{}';
begin
  if octet_length(written) <> char_length(written) then
    -- of a run its pairs, and the last character, which begins none
    words := array(
      select case when chat.is_unspaced(w.word) then substr(w.word, n, 2) else w.word end
      from unnest(words) w (word)
      cross join lateral generate_series(1, case when chat.is_unspaced(w.word) then char_length(w.word) else 1 end) n
    );
  end if;
  if message_type in ('image', 'file') then
    marks := marks || '#file'::text;
  end if;
  if message_type = 'image' then
    marks := marks || '#image'::text;
  end if;
  if content ~* 'https?://' then
    marks := marks || '#link'::text;
  end if;
  if sender_id is not null then
    marks := marks || ('@' || right(sender_id::text, 8));
  end if;
  return array_to_tsvector(array(
    select stretch || '=' || left(w.word, 100) from unnest(words) w (word) where w.word <> ''
    union all
    select stretch || m.mark from unnest(marks) m (mark)
  ));
end
$$;

revoke all on function chat.search_entries(uuid, bigint, uuid, text, text, text) from public;
-- whoever writes a row computes its index entries
grant execute on function chat.search_entries(uuid, bigint, uuid, text, text, text) to authenticated, service_role;

-- serves search; only from functions that are not under row-level security, since @@ is not leakproof. Without the list of
-- pending entries: a search looks up every stretch by itself, and would read that list as often.
create index user_messages_search_idx
  on public.user_messages
  using gin (chat.search_entries(conversation_id, seq, sender_id, message_type, content, file_name))
  with (fastupdate = off)
  where not is_deleted;

-- serves the files of a conversation
create index user_messages_files_idx
  on public.user_messages (conversation_id, seq desc)
  where message_type in ('image', 'file') and not is_deleted;

-- serves the search for messages with a reaction
create index message_reactions_conversation_idx on public.message_reactions (conversation_id, message_id);
