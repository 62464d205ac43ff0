-- The list of conversations and the history of a conversation, as rows of REST responses.

begin;
\ir support.sql

select tests.add_person('cid'), tests.add_person('dan');
select set_config('tests.ben', tests.conversation('ana', 'ben')::text, true),
  set_config('tests.cid', tests.conversation('ana', 'cid')::text, true),
  set_config('tests.dan', tests.conversation('ana', 'dan')::text, true);
select tests.message('ben', current_setting('tests.ben')::uuid, 'from Ben') as b1 \gset
select tests.message('cid', current_setting('tests.cid')::uuid, 'from Cid');
select tests.message('ana', current_setting('tests.dan')::uuid, 'to Dan');

create function tests.listed(variadic filters text[] default '{}')
returns text
language plpgsql
as $$
declare
  names text;
begin
  execute format('select coalesce(string_agg(r."row" -> ''other_user'' ->> ''full_name'', '', ''), '''') from chat.conversation_page(%s) r', array_to_string(filters, ', ')) into names;
  return names;
end
$$;

-- The most recent conversations come first, preceded by the pinned ones.
select tests.act_as('ana');
select tests.equals(tests.listed(), 'Dan, Cid, Ben Brandt', 'latest first');
select chat.set_conversation_settings(current_setting('tests.ben')::uuid, '{"is_pinned": true}');
select tests.equals(tests.listed(), 'Ben Brandt, Dan, Cid', 'pinned first');
select tests.equals(tests.listed('unread => true'), 'Ben Brandt, Cid', 'unread');
select tests.equals(tests.listed('unread => false'), 'Dan', 'read');
select tests.equals(tests.listed('pinned => true'), 'Ben Brandt', 'pinned');
select tests.equals(tests.listed('search => ''CI'''), 'Cid', 'by name');
select tests.equals(tests.listed('search => ''%'''), '', 'a pattern is ordinary text');
select tests.equals(tests.listed('updated_since => ''2100-01-01'''), '', 'since');
select chat.set_conversation_settings(current_setting('tests.cid')::uuid, '{"is_archived": true}');
select tests.equals(tests.listed(), 'Ben Brandt, Dan', 'without archived ones');
select tests.equals(tests.listed('archived => true'), 'Cid', 'only archived ones');
select tests.equals(tests.listed('archived => null'), 'Ben Brandt, Dan, Cid', 'all');
select tests.equals(tests.listed('max_rows => 1', 'skip_rows => 1'), 'Dan', 'by offset');

-- The pages together contain each row once.
select string_agg(page."row" -> 'other_user' ->> 'full_name', ', ') as name, bool_and(is_pinned) as pinned, min(last_activity_at) as activity, min(conversation_id::text) as id
from chat.conversation_page(archived => null, max_rows => 1) page \gset
select tests.equals(:'name'::text, 'Ben Brandt', 'first page');
select tests.equals(tests.listed('archived => null', format('from_is_pinned => %L', :'pinned'::boolean), format('from_activity_at => %L', :'activity'), format('from_id => %L', :'id')), 'Dan, Cid', 'the rest');
select tests.equals(tests.listed('archived => null', 'from_is_pinned => false', 'from_activity_at => ''-infinity''', format('from_id => %L', :'id'), 'backwards => true', 'max_rows => 2'), 'Dan, Cid', 'the previous page, in the order of the list');
select tests.equals(tests.listed('archived => null', format('from_is_pinned => %L', :'pinned'::boolean), format('from_activity_at => %L', :'activity'), format('from_id => %L', :'id'), 'backwards => true'), '', 'nothing before the first row');

-- A row contains every field of the contract.
select tests.equals((
  select string_agg(wanted, ', ')
  from unnest(array['id', 'kind', 'participant_1_id', 'participant_2_id', 'title', 'team_id', 'created_at', 'updated_at', 'last_message_at', 'last_message_id',
    'is_archived', 'participant_1', 'participant_2', 'other_user', 'last_message', 'unread_count', 'mention_count', 'marked_unread', 'last_read_message_id',
    'last_read_at', 'is_pinned', 'is_muted', 'muted_until', 'notification_level', 'draft', 'peer_last_read_message_id', 'peer_last_delivered_message_id',
    'can_send', 'last_seq', 'rev']) wanted
  where not ("row"::jsonb ? wanted)), null, 'missing in a conversation')
from chat.conversation_rows(array[current_setting('tests.ben')::uuid]);
select tests.equals(("row" -> 'other_user' ->> 'id', "row" -> 'last_message' ->> 'content', "row" ->> 'can_send')::text, (tests.id('ben'), 'from Ben', 'true')::text, 'row')
from chat.conversation_rows(array[current_setting('tests.ben')::uuid]);
select tests.holds("row" ->> 'created_at' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00$', 'times in UTC')
from chat.conversation_rows(array[current_setting('tests.ben')::uuid]);

-- Archiving and pinning affect only the caller.
select tests.act_as('cid');
select tests.equals(("row" ->> 'is_archived', "row" ->> 'is_pinned')::text, '(false,false)', 'Cid''s view') from chat.conversation_page();
select tests.equals(count(*), 0::bigint, 'not changed for the other user') from chat.conversation_rows(array[current_setting('tests.ben')::uuid]);
select tests.expect_error($$select chat.set_conversation_settings(current_setting('tests.ben')::uuid, '{"is_pinned": true}')$$, 'not_found');
select tests.expect_error($$select chat.set_conversation_settings(current_setting('tests.cid')::uuid, '{"is_pinned": "yes"}')$$, 'validation_failed');
select tests.expect_error($$select chat.set_conversation_settings(current_setting('tests.cid')::uuid, '{"notification_level": "loud"}')$$, 'validation_failed');
select tests.expect_error($$select chat.set_conversation_settings(current_setting('tests.cid')::uuid, '{"muted_until": "soon"}')$$, 'validation_failed');
select chat.set_conversation_settings(current_setting('tests.cid')::uuid, '{"draft": "to be", "muted_until": "2100-01-01T00:00:00Z"}');
select tests.equals(("row" ->> 'draft', "row" ->> 'is_muted')::text, '("to be",true)', 'draft and mute') from chat.conversation_page();
select chat.set_conversation_settings(current_setting('tests.cid')::uuid, '{"draft": null, "is_muted": false}');
select tests.equals(("row" ->> 'draft', "row" ->> 'muted_until')::text, '(,)', 'cleared again') from chat.conversation_page();

-- A conversation that one user clears is empty for that user and unchanged for the other. It
-- returns with the next message, without the old ones.
select tests.act_as('ana');
select chat.clear_conversation(current_setting('tests.ben')::uuid);
select tests.equals(tests.listed('archived => null'), 'Dan, Cid', 'cleared');
select tests.equals(count(*), 0::bigint, 'history') from chat.message_page(current_setting('tests.ben')::uuid);
select tests.act_as('ben');
select tests.equals(count(*), 1::bigint, 'the other user''s history') from chat.message_page(current_setting('tests.ben')::uuid);
select tests.act_as('owner');
select tests.message('ben', current_setting('tests.ben')::uuid, 'again') as b2 \gset
select tests.act_as('ana');
select tests.equals(tests.listed(), 'Ben Brandt, Dan', 'back');
select tests.equals(string_agg("row" ->> 'content', ','), 'again', 'without cleared messages') from chat.message_page(current_setting('tests.ben')::uuid);

-- The history is returned oldest first, before and after a message, with and without tombstones.
select tests.act_as('owner');
insert into public.user_messages (conversation_id, sender_id, content)
select current_setting('tests.dan')::uuid, tests.id('dan'), n::text from generate_series(2, 9) n;
select id as five from public.user_messages where content = '5' \gset
update public.user_messages set is_deleted = true where id = :'five';
create function tests.seqs(variadic arguments text[])
returns text
language plpgsql
as $$
declare
  listed text;
begin
  execute format('select coalesce(string_agg(p.seq::text, '' ''), '''') from chat.message_page(current_setting(''tests.dan'')::uuid, %s) p', array_to_string(arguments, ', ')) into listed;
  return listed;
end
$$;
select tests.act_as('ana');
select tests.equals(tests.seqs('max_rows => 3'), '7 8 9', 'newest');
select tests.equals(tests.seqs('before_seq => 7', 'max_rows => 3'), '3 4 6', 'before, counting what it returns');
select tests.equals(tests.seqs('before_seq => 7', 'max_rows => 3', 'include_deleted => true'), '4 5 6', 'with tombstones');
select tests.equals(tests.seqs('after_seq => 3', 'max_rows => 3'), '4 6 7', 'after');
select tests.equals(tests.seqs('max_rows => 2', 'skip_rows => 2'), '6 7', 'by offset');
select tests.equals(string_agg(seq::text, ' '), '9 5', 'what changed') from chat.message_changes(current_setting('tests.dan')::uuid, 8);
select tests.equals(chat.message_anchor(current_setting('tests.dan')::uuid, 'first_unread'), 2::bigint, 'first unread');
select tests.equals(chat.message_anchor(current_setting('tests.dan')::uuid, :'five'), 5::bigint, 'by id');
select tests.equals(chat.message_anchor(current_setting('tests.dan')::uuid, '7'), 7::bigint, 'by seq');
select tests.expect_error($$select chat.message_anchor(current_setting('tests.dan')::uuid, 'yesterday')$$, 'validation_failed');
select tests.expect_error($$select chat.message_anchor(current_setting('tests.dan')::uuid, gen_random_uuid()::text)$$, 'not_found');
select tests.act_as('zoe');
select tests.expect_error($$select chat.message_page(current_setting('tests.dan')::uuid)$$, 'not_found');
select tests.expect_error($$select chat.message_changes(current_setting('tests.dan')::uuid, 0)$$, 'not_found');
select tests.expect_error($$select chat.message_anchor(current_setting('tests.dan')::uuid, '1')$$, 'not_found');
select tests.equals(count(*), 0::bigint, 'rows by id') from chat.message_rows(array[:'five', :'b2']::uuid[]);
select tests.equals(count(*), 0::bigint, 'members by conversation') from chat.conversation_people(array[current_setting('tests.dan')::uuid]);

-- A message row contains its reply, and nothing of deleted content.
select tests.act_as('ana');
select message_id as reply from chat.send_message(current_setting('tests.dan')::uuid, 'answer', reply_to_id => :'five') \gset
select tests.equals((
  select string_agg(wanted, ', ')
  from unnest(array['id', 'conversation_id', 'sender_id', 'content', 'message_type', 'file_url', 'file_name', 'file_size', 'file_type', 'created_at', 'updated_at',
    'is_edited', 'edited_at', 'is_deleted', 'deleted_at', 'read_by', 'metadata', 'client_message_id', 'seq', 'rev', 'reply_to_id', 'reply_to', 'mentions',
    'sender', 'reactions', 'attachments', 'delivery_status']) wanted
  where not ("row"::jsonb ? wanted)), null, 'missing in a message')
from chat.message_rows(array[:'reply']::uuid[]);
select tests.equals(("row" -> 'reply_to' ->> 'content', "row" -> 'reply_to' ->> 'is_deleted', "row" -> 'sender' ->> 'full_name')::text, '("",true,"Ana Alvarez")', 'reply')
from chat.message_rows(array[:'reply']::uuid[]);

rollback;
