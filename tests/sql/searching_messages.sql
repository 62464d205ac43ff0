-- What a search of messages finds, and what it must not.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);
select set_config('tests.d', tests.conversation('ana', 'ada')::text, true);
select tests.message('ana', current_setting('tests.c')::uuid, 'The quarterly report is at https://example.com') as report \gset
select tests.message('ben', current_setting('tests.c')::uuid, '明日の会議は東京です');
select tests.message('ada', current_setting('tests.d')::uuid, 'Report this to nobody else');

create function tests.hits(query text, variadic filters text[] default '{}')
returns bigint
language plpgsql
as $$
declare
  hits bigint;
begin
  execute format('select count(*) from chat.search_messages(%s)', array_to_string(quote_nullable(query) || filters, ', ')) into hits;
  return hits;
end
$$;

select tests.act_as('ana');
select tests.equals(tests.hits('report'), 2::bigint, 'in every conversation');
select tests.equals(tests.hits('REP'), 2::bigint, 'by the beginning of a word');
select tests.equals(tests.hits('quarterly rep'), 1::bigint, 'every word');
select tests.equals(tests.hits('report', format('conversation_id => %L', current_setting('tests.d'))), 1::bigint, 'in one');
select tests.equals(tests.hits('report', format('from_user_id => %L', tests.id('ana'))), 1::bigint, 'from one');
select tests.equals(tests.hits('report', 'has => ''link'''), 1::bigint, 'with a link');
select tests.equals(tests.hits('report', 'sent_before => ''2000-01-01'''), 0::bigint, 'before');
select tests.equals(tests.hits('会議'), 1::bigint, 'two characters');
select tests.equals(tests.hits('東京で'), 1::bigint, 'three characters');
select tests.equals(tests.hits('京東'), 0::bigint, 'in their order');
select tests.equals(tests.hits(odd), 0::bigint, 'odd: ' || odd) from unnest(array['', ' ', ''' & | ! <-> :*', '\', '%']) odd;
select tests.equals(tests.hits(null), 0::bigint, 'null');

-- nobody else's, nothing deleted, nothing hidden
select tests.act_as('ben');
select tests.equals(tests.hits('report'), 1::bigint, 'only one''s own conversations');
select tests.act_as('zoe');
select tests.equals(tests.hits('report'), 0::bigint, 'a stranger');
select tests.act_as('sue');
select tests.equals(tests.hits('report'), 0::bigint, 'a super admin');
select tests.act_as('ben');
select chat.hide_message(:'report');
select tests.equals(tests.hits('report'), 0::bigint, 'hidden');
select tests.act_as('ana');
select chat.delete_message(:'report');
select tests.equals(tests.hits('quarterly'), 0::bigint, 'deleted');

rollback;
