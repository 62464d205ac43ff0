-- Which messages a search must find, and which it must not.

begin;
\ir support.sql

select tests.equals(chat.folded_text(written), expected, written)
from (values
  ('', ''),
  ('  ', ''),
  ('Don''t PANIC!', 'don t panic'),
  ('quarterly_report-v2.pdf', 'quarterly report v2 pdf'),
  ('Café CAFÉ ﬁn', 'cafe cafe fin'),
  (E'Cafe\u0301', 'cafe'),
  ('Ёлка ЕЛКА', 'елка елка'),
  (E'مُحَمَّد محمد', 'محمد محمد'),
  ('ΣΊΣΥΦΟΣ Σίσυφος', 'σισυφοσ σισυφοσ'),
  ('明日の会議は東京です。OK?', '明日の会議は東京です ok'),
  (E'か\u3099 が ｶﾞ', 'が が ガ'),
  (E'\u1112\u1161\u11ab', '한'),
  (E'東京tower・人々', '東京 tower 人々'),
  (E'yes👍🏽no 👩\u200d👧 ❤️', 'yes 👍 no 👩 👧 ❤'),
  (E'می\u200cخواهم', 'میخواهم'),
  ('<img onerror>', 'img onerror'),
  ('สวัสดี', 'สวัสดี'),
  ('Łódź ŁÓDŹ lodz', 'lodz lodz lodz'),
  ('Œuvre œuvre', 'oeuvre oeuvre'),
  ('STRAẞE Straße', 'strasse strasse'),
  ('Ærø, Þór, Đà Nẵng, Iı', 'aero thor da nang ii'),
  ('coŀlecció', 'colleccio'),
  ('1½ l', '1 1 2 l'),
  ('₹500 ©2026', 'rs 500 c 2026'),
  ('Hawaiʻi', 'hawai i'),
  (E'so\u00adft', 'soft'),
  ('二〇二六年', '二〇二六年')
) t (written, expected);

-- If the server has the rules of "unaccent", everything that "unaccent" folds is folded.
create temporary table unaccent_rules as
select r.rule[1] as letter, coalesce(regexp_replace(r.rule[2], '^"(.*)"$', '\1'), '') as folded
from pg_config c
cross join lateral regexp_split_to_table(
  coalesce(pg_read_file(c.setting || '/tsearch_data/unaccent.rules', 0, 1000000, true), ''), E'\n'
) as line
cross join lateral regexp_match(line, '^(\S+)(?:\s+(.*))?$') r (rule)
where c.name = 'SHAREDIR' and r.rule is not null;
select tests.equals(string_agg(u.letter || ' ' || u.folded, ', ' order by u.letter), null, 'rules of unaccent that are not applied')
from unaccent_rules u
-- The Han zero belongs to its run. The black-letter H is a single letter here, even if older rules
-- of "unaccent" differ.
where u.letter not in ('〇', 'ℌ')
  and (
    chat.folded_text(u.letter) <> chat.folded_text(u.folded)
    -- Letters are also folded within a word. Symbols are separate words.
    or u.letter ~ '^[[:alpha:]]$' and chat.folded_text('x' || u.letter || 'x') <> chat.folded_text('x' || u.folded || 'x')
  );

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
select set_config('tests.d', tests.conversation('ana', 'ada')::text, true);
select tests.message('ana', current_setting('tests.c')::uuid, 'The quarterly report is at https://example.com') as report \gset
select tests.message('ben', current_setting('tests.c')::uuid, '明日の会議は東京です');
select tests.message('ada', current_setting('tests.d')::uuid, 'Report this to nobody else');
select tests.message('ben', current_setting('tests.c')::uuid, 'Чай и café 🎉 budget_2026.xlsx');
select tests.message('ana', current_setting('tests.c')::uuid, 'Zażółć œuvre w Łodzi, Große Straße');

-- Returns the number of hits for these arguments. Before tests.bury(), the scan of the newest
-- messages finds them, and afterwards the index does.
create function tests.hits(words text, variadic filters text[] default '{}')
returns bigint
language plpgsql
as $$
declare
  hits bigint;
begin
  execute format('select count(*) from chat.search_messages(%s)', array_to_string(quote_nullable(words) || filters, ', ')) into hits;
  return hits;
end
$$;

-- Adds so many messages that the scan of the newest ones no longer covers the earlier ones.
create function tests.bury()
returns void
language plpgsql
as $$
begin
  perform tests.act_as('owner');
  insert into public.user_messages (conversation_id, sender_id, content)
  select current_setting('tests.' || c)::uuid, tests.id('ana'), 'filler ' || n
  from generate_series(1, 2100) n
  cross join unnest(array['c', 'd']) c;
end
$$;

create function tests.check_everything(how text)
returns void
language plpgsql
as $$
declare
  c constant text := current_setting('tests.c');
  d constant text := current_setting('tests.d');
begin
  perform tests.act_as('ana');
  perform tests.equals(tests.hits(t.words, variadic t.filters), t.expected::bigint, how || ': ' || t.words || ' ' || t.filters::text)
  from (values
    ('report', '{}'::text[], 2),
    ('REP', '{}', 2),
    ('eport', '{}', 0),
    ('quarterly rep', '{}', 1),
    ('report quarterly', '{}', 1),
    ('quarterly nobody', '{}', 0),
    ('', array['phrases => array[''quarterly report'']'], 1),
    ('', array['phrases => array[''report quarterly'']'], 0),
    ('', array['phrases => array[''uarterly report'']'], 0),
    ('report', array['unwanted => array[''quarterly'']'], 1),
    ('report', array['unwanted => array[''the quarterly'', ''nobody else'']'], 0),
    ('report', array[format('places => array[%L]', d)], 1),
    ('report', array['places => array[''ADA'']'], 1),
    ('report', array[format('places => array[%L]', tests.id('ada'))], 1),
    ('report', array['places => array[''me'']'], 0),
    ('report', array['places => array[''nobody'']'], 0),
    ('report', array['places => array[''ada'', ''ben'']'], 2),
    ('report', array['senders => array[''me'']'], 1),
    ('report', array['senders => array[''ada@example'']'], 1),
    ('report', array[format('senders => array[%L]', tests.id('ada'))], 1),
    ('report', array['senders => array[''zoe'']'], 0),
    ('report', array['senders => array[''%'']'], 0),
    ('report', array['has => array[''link'']'], 1),
    ('', array['has => array[''link'']'], 1),
    ('', array['has => array[''link'']', 'senders => array[''me'']'], 1),
    ('', array['has => array[''link'']', 'senders => array[''ben'']'], 0),
    ('', array['has => array[''image'']'], 0),
    ('', array['senders => array[''ada'']'], 1),
    ('', array['senders => array[''ada'']', 'ascending => true'], 1),
    ('', array['senders => array[''ben'']', 'unread => true'], 2),
    ('', array['senders => array[''ben'']', 'unread => true', 'unwanted => array[''🎉'']'], 1),
    ('report', array['sent_before => ''2000-01-01'''], 0),
    ('report', array['sent_from => ''2100-01-01'''], 0),
    ('report', array['sent_from => ''2000-01-01''', 'sent_before => ''2100-01-01'''], 2),
    ('report', array['by_relevance => true'], 2),
    ('report', array['ascending => true'], 2),
    ('会議', '{}', 1),
    ('東京で', '{}', 1),
    ('東', '{}', 1),
    ('す', '{}', 1),
    ('京東', '{}', 0),
    ('ЧАЙ', '{}', 1),
    ('cafe', '{}', 1),
    ('CAFÉ', '{}', 1),
    ('lodz', '{}', 1),
    ('ŁODZI', '{}', 1),
    ('oeuvre', '{}', 1),
    ('zazolc ŒUV', '{}', 1),
    ('strasse', '{}', 1),
    ('', array['phrases => array[''oeuvre w lodzi'']'], 1),
    ('lodzi', array['unwanted => array[''grosse'']'], 0),
    ('🎉', '{}', 1),
    ('budget 2026', '{}', 1),
    ('xlsx', '{}', 1),
    ('', array['phrases => array[''café 🎉'']'], 1)
  ) t (words, filters, expected);
  perform tests.equals(tests.hits(odd), 0::bigint, how || ' odd: ' || odd) from unnest(array[' ', ''' & | ! <-> :*', '\', '%', '~', '''']) odd;
end
$$;

select tests.check_everything('walked');
select tests.bury();
select tests.check_everything('looked up');

-- The pages together contain every hit once, in order, in both directions.
select tests.act_as('owner');
create function tests.walked(arguments text, continued text)
returns text
language plpgsql
as $$
declare
  hit record;
  seqs text := '';
  behind text := '';
begin
  for n in 1..100 loop
    execute format('select h.*, m.seq from chat.search_messages(%s, max_rows => 3 %s) h join public.user_messages m on m.id = h.message_id', arguments, behind) into hit;
    exit when hit is null;
    for hit in execute format('select h.*, m.seq from (select * from chat.search_messages(%s, max_rows => 3 %s) with ordinality h) h join public.user_messages m on m.id = h.message_id order by h.ordinality', arguments, behind) loop
      seqs := seqs || ' ' || hit.seq;
    end loop;
    behind := format(continued, hit.score, hit.created_at, hit.message_id);
  end loop;
  return seqs;
end
$$;

select tests.act_as('ana');
select tests.equals(tests.walked(format('''filler 204'', places => array[%L]', current_setting('tests.c')), ', from_created_at => %2$L, from_id => %3$L'),
  (select string_agg(' ' || m.seq, '' order by m.seq desc) from public.user_messages m where m.conversation_id = current_setting('tests.c')::uuid and m.content ~ '^filler 204'), 'newest first');
select tests.equals(tests.walked(format('''filler 20'', ascending => true, places => array[%L]', current_setting('tests.c')), ', from_created_at => %2$L, from_id => %3$L'),
  (select string_agg(' ' || m.seq, '' order by m.seq) from public.user_messages m where m.conversation_id = current_setting('tests.c')::uuid and m.content ~ '^filler 20'), 'oldest first');
select tests.equals(tests.walked(format('''filler 204'', by_relevance => true, places => array[%L]', current_setting('tests.c')), ', from_score => %1$L, from_created_at => %2$L, from_id => %3$L'),
  (select string_agg(' ' || m.seq, '' order by m.content = 'filler 204' desc, m.seq desc) from public.user_messages m where m.conversation_id = current_setting('tests.c')::uuid and m.content ~ '^filler 204'), 'whole words first');
select tests.equals(tests.hits('filler', 'max_rows => 100'), 100::bigint, 'as many as requested');
select tests.equals((select string_agg(m.content || m.seq, ' ') from (select * from chat.search_messages('filler', max_rows => 4)) h join public.user_messages m on m.id = h.message_id),
  (select string_agg(m.content || m.seq, ' ') from (select * from public.user_messages m where m.content ~ '^filler' order by m.created_at desc, m.id desc limit 4) m), 'across conversations');

-- Filters by reaction.
select chat.react(:'report', '👍');
select tests.equals(tests.hits('', 'has => array[''reaction'']'), 1::bigint, 'with a reaction');

-- A search finds no messages of other users' conversations, and no messages that are deleted,
-- hidden or cleared.
select tests.act_as('ben');
select tests.equals(tests.hits('report'), 1::bigint, 'only the caller''s conversations');
select tests.equals(tests.hits('report', format('places => array[%L]', current_setting('tests.d'))), 0::bigint, 'not by naming another conversation');
select tests.equals(tests.hits('', format('senders => array[%L]', tests.id('ada'))), 0::bigint, 'not by naming the sender');
select tests.act_as('zoe');
select tests.equals(tests.hits('report'), 0::bigint, 'a stranger');
select tests.equals(tests.hits('', 'senders => array[''ana'']'), 0::bigint, 'a stranger who names the sender');
select tests.act_as('sue');
select tests.equals(tests.hits('report'), 0::bigint, 'a super admin');
select tests.act_as('anon');
select tests.expect_error($$select chat.search_messages('report')$$, '42501');
select tests.act_as('ben');
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ben'), tests.id('ana'));
select tests.equals(tests.hits('report'), 1::bigint, 'earlier messages of a blocked user');
select chat.hide_message(:'report');
select tests.equals(tests.hits('report'), 0::bigint, 'hidden');
select tests.act_as('ana');
select tests.equals(tests.hits('quarterly'), 1::bigint, 'hidden only for the caller');
select chat.delete_message(:'report');
select tests.equals(tests.hits('quarterly'), 0::bigint, 'deleted');
select tests.equals(tests.hits('', 'has => array[''link'']'), 0::bigint, 'not by its link either');
select chat.clear_conversation(current_setting('tests.c')::uuid);
select tests.equals(tests.hits('会議'), 0::bigint, 'cleared');
select tests.act_as('owner');
update public.user_conversation_members set left_at = now() where conversation_id = current_setting('tests.d')::uuid and user_id = tests.id('ana');
select tests.act_as('ana');
select tests.equals(tests.hits('nobody else'), 0::bigint, 'left');

rollback;
