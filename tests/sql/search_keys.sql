-- The index entries of messages. The time for making them is proportional to the length of the
-- text.
-- Refused texts get no entries. The entries equal those that the first version of the functions
-- made.

begin;
\ir support.sql

-- Texts of 20,000 characters that once took seconds: runs without spaces, and marks that have to be
-- sorted. Each statement now takes some tens of milliseconds.
set local statement_timeout = '2s';
create function tests.keys(content text)
returns tsvector
language sql
as $$ select chat.search_keys(tests.id('ana'), 1, tests.id('ben'), 'text', content, null) $$;
select tests.equals(length(tests.keys(repeat('一', 20000))), 3, 'a pair, the last character, the sender');
select tests.holds(length(tests.keys(string_agg(chr(19968 + n), ''))) = 20001, 'different characters') from generate_series(1, 20000) n;
select tests.equals(length(tests.keys(repeat('สวัสดี', 3333))), 8, 'Thai');
select tests.equals(length(tests.keys(repeat('😀', 20000))), 2, 'emoji');
select tests.keys('a' || repeat(chr(769), 10000) || repeat(chr(790), 10000));
select tests.keys('a' || repeat(chr(769) || chr(790), 10000));
select tests.keys('ก' || repeat(chr(3656) || chr(3640), 10000));
-- Short runs of marks. If the soft hyphens between them are left out, they become one long run.
-- With "x" between them, they stay short.
select tests.keys(repeat(repeat(chr(3656) || chr(3640), 127) || chr(173), 78));
select tests.keys(repeat(repeat(chr(3656) || chr(3640), 127) || 'x', 78));
select tests.keys(repeat(chr(65438) || chr(3640), 10000));
set local statement_timeout = 0;

-- The characters that end a run of marks. In the Unicode version of this server, none of them is a
-- mark or ignored. U+0345 has the highest class of all marks, so it changes places with every mark
-- that follows.
select substring(p.prosrc from 'starters constant text := ''(.*?)'';') as starters
from pg_proc p where p.oid = 'chat.folded_text(text)'::regprocedure \gset
select tests.equals(string_agg(to_hex(c.code), ' '), null, 'marks among the starters')
from (
  select n as code, chr(n) as sign
  from generate_series(1, 1114111) n
  where n not between 55296 and 57343
) c
where c.sign ~ ('[' || replace(:'starters', E'''\n    ''', '') || ']')
  and not starts_with(normalize(U&'\0345' || c.sign, nfkd), U&'\0345');
select tests.equals(string_agg(starter, ' '), null, 'starters that are left out')
from unnest(array[U&'\00AD', U&'\0640', U&'\200D', U&'\2060', U&'\FE0F', U&'\FEFF', U&'\+01F3FD']) starter
where starter ~ ('[' || replace(:'starters', E'''\n    ''', '') || ']');

-- Random texts. Some consist of characters of many scripts, in words and runs, with marks. Others
-- consist of any characters, but only of 200, so that they contain no long run of marks alone.
select setseed(0.27);
create temporary table samples as
select
  n,
  (
    select coalesce(string_agg(
      case
        when n % 10 = 0 then chr(1 + floor(random() * 55000)::int)
        when n % 10 = 1 then chr(57344 + floor(random() * 1056767)::int)
        else substr(p.signs, 1 + floor(random() * char_length(p.signs))::int, 1)
      end,
      '' order by i
    ), '')
    from generate_series(1, case n % 10 when 0 then 200 when 1 then 200 else floor(random() * 12 ^ (n % 4))::int end) i
    cross join lateral (
      -- Because it refers to "i", the sub-select is evaluated again for every few characters.
      select signs
      from unnest(array[
        'abcdefghij KLMNOPQRSTUVWXYZ 0123456789', 'äöüßéèêçñ ŁÐÞæœ øđħı', 'Привет, как дела', 'Ελληνικά ΣΊΣΥΦΟΣ',
        'مُحَمَّد قال', 'שָׁלוֹם עולם', 'नमस्ते दुनिया', 'தமிழ் மொழி', '明日の会議は東京です。', '中文没有空格今天天气很好',
        '안녕하세요 여러분', E'\u1112\u1161\u11ab\u1100\u1173\u11af', 'สวัสดีครับ', 'ສະບາຍດີ', 'မင်္ဂလာပါ', 'ជំរាបសួរ', 'བཀྲ་ཤིས་བདེ་ལེགས',
        'ｶﾞﾊﾟＡＢＣ', E'か\u3099は\u309a', '😀👍🏽🎉❤️👩‍👧☃', E'\u0301\u0316\u0323\u0e48\u0e38\u094d\u3099\u200d\u00ad\ufe0f', '½⅓①㎏ﬁﬃ', '©®₹₺℗ȸꜳ', '    ', '.,;:!?-_/\"''()', 'ệẖǰᾳ'
      ]) with ordinality s (signs, at)
      where s.at = 1 + (hashint4(n * 7919 + i / (1 + n % 5)) & 2147483647) % 26
    ) p
  ) as content,
  case when n % 3 = 0 then 'Bericht_会議' || n || '.pdf' end as file_name,
  (array['text', 'image', 'file', 'system'])[1 + n % 4] as message_type,
  case when n % 7 > 0 then gen_random_uuid() end as sender_id,
  gen_random_uuid() as conversation_id
from generate_series(1, 1000) n;
select tests.holds(count(*) filter (where char_length(content) > 1000) > 20, 'there are long samples') from samples;
select tests.holds(count(*) filter (where chat.folded_text(content) ~ '[\u3040-\u9fff]{9}') > 20, 'there are runs') from samples;
select tests.holds(count(*) filter (where content is not nfc normalized) > 100, 'there are marks') from samples;
create temporary table made as
select s.n, chat.folded_text(s.content) as folded,
  chat.search_keys(s.conversation_id, s.n, s.sender_id, s.message_type, s.content, s.file_name) as keys,
  -- A query is short, so only the start of the text is used.
  chat.search_lookup(string_to_array(chat.folded_text(left(s.content, 200)), ' '), '{}', null, '{}') as lookup
from samples s;

-- The first version of the functions is used from here on.
\ir ../../sql/migrations/0018_search_folding.sql
select tests.equals(string_agg(s.n::text, ' '), null, 'texts that are folded differently')
from samples s join made m using (n)
where m.folded is distinct from chat.folded_text(s.content);
select tests.equals(string_agg(s.n::text, ' '), null, 'texts with other index entries')
from samples s join made m using (n)
where m.keys is distinct from chat.search_keys(s.conversation_id, s.n, s.sender_id, s.message_type, s.content, s.file_name);

-- A lookup requires the pairs in each run, and the beginning of each other word.
select tests.equals(string_agg(s.n::text, ' '), null, 'texts that are looked up by other parts')
from samples s
join made m using (n)
cross join lateral (
  select array_agg(distinct part order by part) as parts
  from unnest(string_to_array(chat.folded_text(left(s.content, 200)), ' ')) w (word)
  cross join lateral (
    select format('''~=%s''', substr(w.word, i, 2)) as part
    from generate_series(1, char_length(w.word) - 1) i
    where chat.is_unspaced(w.word)
    union all
    select format('''~=%s'':*', left(w.word, 100)) where not chat.is_unspaced(w.word) or char_length(w.word) = 1
  ) p
) expected
where (select array_agg(part order by part) from unnest(string_to_array(m.lookup, ' & ')) part) is distinct from expected.parts;

-- A text that is too long is refused before its entries are made, however it is written.
select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
select set_config('tests.m', tests.message('ana', current_setting('tests.c')::uuid, 'short')::text, true);
create or replace function chat.search_keys(conversation_id uuid, seq bigint, sender_id uuid, message_type text, content text, file_name text)
returns tsvector
language plpgsql
immutable
as $$ begin raise exception 'indexed' using errcode = 'TS001'; end $$;
create function tests.expect_of_all(length int, reason text)
returns void
language plpgsql
as $$
declare
  content constant text := repeat('x', length);
begin
  perform tests.expect_error(format(statement, content), reason)
  from unnest(array[
    'select chat.send_message(current_setting(''tests.c'')::uuid, %L)',
    'insert into public.user_messages (conversation_id, content) values (current_setting(''tests.c'')::uuid, %L)',
    'select chat.edit_message(current_setting(''tests.m'')::uuid, %L)',
    'update public.user_messages set content = %L where id = current_setting(''tests.m'')::uuid'
  ]) statement;
end
$$;
select tests.act_as('ana');
select tests.expect_of_all(4000, 'TS001');
select tests.expect_of_all(4001, 'message_too_long');
select tests.act_as('owner');
update chat.config set value = '10' where key = 'max_message_length';
select tests.act_as('ana');
select tests.expect_of_all(10, 'TS001');
select tests.expect_of_all(11, 'message_too_long');
select tests.act_as('service_role');
select tests.expect_error($$insert into public.user_messages (conversation_id, sender_id, content) values (current_setting('tests.c')::uuid, tests.id('ana'), 'eleven char')$$, 'message_too_long');

rollback;
