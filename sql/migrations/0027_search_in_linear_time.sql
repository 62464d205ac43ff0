-- The functions by which messages are searched, in time that grows with the length of a text and not with its square.
-- They return what the functions of 0018 return, so user_messages_words_idx stays as it is. The only exception are texts
-- with more than 255 characters in a row that may all be marks (see below): of those, an entry written before may
-- remain until the message changes, and a search may miss it. No other index contains these functions.
--
-- Like 0018, this file makes functions only and can run any number of times, before the index of 0019 is built
-- (docs/operations.md).

-- A text as it is searched: lower case, without accents and vowel marks, one space between words. It folds what
-- PostgreSQL's "unaccent" folds, except where that would tear words apart: the soft hyphen is left out, and the Han zero
-- stays with its run. Scripts written without spaces stand apart from others as runs, and emoji each alone. No dictionary
-- and no parser of the server, so that src/chat/search/folding.rs can tell which part of a text was found.
create or replace function chat.folded_text(written text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
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
    '\u02b9-\u02bd\u02c2-\u02c4\u02c6\u02c8\u02cb\u02d0\u02d6\u02d7\u037e\u0387\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u060f\u061b-\u061f\u066a-\u066d\u06d4'
    '\u0964\u0965\u0970\u2000-\u206f\u20a0-\u20cf\u2190-\u25ff\u2b00-\u2b04\u2b08-\u2b1a\u2b1d-\u2b4f\u2b51-\u2b54\u2b56-\u2bff'
    '\u2985\u2986\u2e00-\u2e7f\u3000-\u3004\u3008-\u3030\u303d\u30fb\ue000-\uf8ff\ufd3e\ufd3f\ufff0-\uffff]+';
  -- what the letters below are written as; each is one letter
  rare_letters constant text := 'ĸŋŧƀɓƃƈɖɗƌɛƒɠɩɨƙƚɲƞƥƫƭʈʋƴƶǥȡȥȴȵȶȷⱥȼⱦȿɀʉɇɉɍɏɕɟɡɢɦɧɪɫɬɭɱɳɴɼɽɾʀ'
    'ʂʏʐʑʙʛʜʝʟʠᴀᴃᴄᴅᴆᴇᴊᴋᴌᴍᴏᴘᴛᴜᴠᴡᴢᵬᵭᵮᵯᵰᵱᵲᵳᵴᵵᵶᵻᵽᵾᶀᶁᶂᶃᶄᶅᶆᶇᶈᶉᶊᶌᶍᶎᶏᶑᶒᶓᶖ'
    'ᶙẜẝỽỿⱡⱨⱪⱬⱱⱳⱴⱸⱺꜰꜱꝁꝃꝅꝇꝉꝋꝍꝑꝓꝕꝗꝙꝟꝱꝲꝳꝴꝵꝶꝷꝺꝼꞇꞑꞓꞡꞣꞥꞧꞩ';
  rare_bases constant text := 'qntbbbcdddefgiiklnnptttvyzgdzlntjactszuejrycjgghhilllmnnrrrr'
    'syzzbghjlqabcddejklmoptuvwzbdfmnprrstzipubdfgklmnprsvxzadeei'
    'ussvylhkzvwveofskkklloopppqqvdlmnrrtdftncgknrs';
  -- a letter or a symbol, and what it stands for. A symbol is a word of its own: "_" separates words.
  rare_groups constant text := 'þth ƕhv ƣoi ȸdb ȹqp ɶoe ʣdz ʥdz ʦts ʪls ʫlz ᴁae ᵫue ᵺth ỻll ꜳaa ꜵao ꜷau ꜹav ꜻav ꜽay ꝏoo ꝡvy ꝥth ꝧth '
    '©_c_ ®_r_ ₠_ce_ ₢_cr_ ₣_fr_ ₤_l_ ₧_pts_ ₹_rs_ ₺_tl_ ℗_p_ ℘_p_ ℞_rx_';
  -- one of those above; few texts have any, and to look for each takes long
  has_rare constant text := '[\u00a9\u00ae\u00fe\u0138\u014b\u0167\u0180-\u02ab\u1d00-\u1d99\u1e9c-\u1eff\u20a0\u20a2-\u20a4\u20a7\u20b9'
    '\u20ba\u2117\u2118\u211e\u2c61-\u2c7a\ua730-\ua7a9]';
  -- Characters of which none is a mark that stands on the letter before it, and none is ignored. Those of scripts whose
  -- words are short may be missing.
  starters constant text := '\u0001-\u00ac\u00ae-\u02ff\u0370-\u0482\u048a-\u0590\u05d0-\u060f\u061b-\u063f\u0641-\u064a\u0660-\u066f\u0671-\u06d5'
    '\u0e00-\u0e37\u0e3f-\u0e47\u0e4f-\u0eb7\u0ebd-\u0ec7\u0ed0-\u0f17\u0f1a-\u0f34\u0f3a-\u0f70\u0f88-\u0fc5\u0fc7-\u1036'
    '\u103b-\u108c\u108e-\u135c\u1360-\u1713\u1780-\u17d1\u17d4-\u17dc\u17e0-\u180a\u1d00-\u1dbf\u1e00-\u200b\u2010-\u2029'
    '\u202f-\u205f\u2070-\u20cf\u2100-\u2cee\u2e00-\u3029\u3030-\u3098\u309b-\ua66e\ua6a0-\ua6ef\ua6f2-\ua7ff\uac00-\ud7ff'
    '\uf900-\ufb1d\ufb1f-\ufdff\ufe10-\ufe1f\ufe30-\ufefe\uff00-\uff9d\uffa0-\uffef\U0001d400-\U0001d7ff\U0001f000-\U0001f3fa\U0001f400-\U0003ffff';
  rare_group text;
  text text := written;
begin
  if octet_length(written) = char_length(written) then
    return btrim(regexp_replace(lower(written), '[^a-z0-9]+', ' ', 'g'));
  end if;
  -- PostgreSQL sorts the marks on a letter by exchanging neighbours, which takes time with the square of their number.
  -- 255 is also the largest number that a regular expression can contain.
  if char_length(text) > 255 then
    text := regexp_replace(text, format('([^%1$s]{255})[^%1$s]+', starters), '\1', 'g');
  end if;
  -- what normalization would take apart in another way
  if text ~ '[\u00bc-\u00be\u013f\u0140\u1e9a\u2150-\u215f\u2189]' then
    text := translate(regexp_replace(text, '([\u00bc-\u00be\u2150-\u215f\u2189])', ' \1', 'g'), 'Ŀŀẚ', 'Lla');
  end if;
  text := lower(normalize(text, nfkd));
  text := translate(normalize(regexp_replace(text, ignored, '', 'g'), nfc), 'ςđłøħıð', 'σdlohid');
  text := replace(replace(replace(text, 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe');
  if text ~ has_rare then
    text := translate(text, rare_letters, rare_bases);
    foreach rare_group in array string_to_array(rare_groups, ' ') loop
      text := replace(text, left(rare_group, 1), substr(rare_group, 2));
    end loop;
  end if;
  text := regexp_replace(regexp_replace(text, unspaced, ' \1 ', 'g'), emoji, ' \1 ', 'g');
  return btrim(regexp_replace(text, separators, ' ', 'g'));
end
$$;

revoke all on function chat.folded_text(text) from public;
grant execute on function chat.folded_text(text) to authenticated, service_role;

-- The index entries of a message. Each begins with its stretch: a search reads only the caller's messages, however common
-- the word is, and the entries of a conversation are written side by side.
create or replace function chat.search_keys(
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
set search_path = pg_catalog, pg_temp
as $$
declare
  stretch constant text := chat.search_stretch(search_keys.conversation_id, search_keys.seq >> 11);
  written constant text := chat.folded_text(search_keys.content || ' ' || coalesce(search_keys.file_name, ''));
  words text[] := string_to_array(written, ' ');
  marks text[] := '{}';
begin
  if octet_length(written) <> char_length(written) then
    -- The pairs of each run, and its last character, which begins none. A run is split once: to find its nth character,
    -- "substr" reads all characters before it.
    words := array(
      select s.sign || coalesce(s.next, '')
      from unnest(words) w (word)
      cross join lateral (
        select case when chat.is_unspaced(w.word) then string_to_array(w.word, null) else array[w.word] end as signs
        -- evaluates this once, although it is used twice
        offset 0
      ) run
      cross join lateral unnest(run.signs, run.signs[2:]) s (sign, next)
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

revoke all on function chat.search_keys(uuid, bigint, uuid, text, text, text) from public;
-- A role that writes a row computes its index entries.
grant execute on function chat.search_keys(uuid, bigint, uuid, text, text, text) to authenticated, service_role;
