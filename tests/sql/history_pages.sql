-- The cost of a page depends only on its length, and not on the length of the conversation or the
-- position in it.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);

insert into public.user_messages (conversation_id, sender_id, content)
select current_setting('tests.c')::uuid, tests.id('ben'), 'message ' || n from generate_series(1, 5000) n;

-- Creates many short conversations in addition to the long one, so that generic plans expect short
-- ones.
do $$
begin
  for n in 1..50 loop
    perform tests.add_person('colleague' || n);
    insert into public.user_messages (conversation_id, sender_id, content)
    values (tests.conversation('ana', 'colleague' || n), tests.id('ana'), 'short');
  end loop;
end
$$;

analyze public.user_messages, public.user_conversations, public.user_conversation_members;

-- Returns the number of index entries of messages that this transaction has read.
create function tests.entries_read()
returns bigint
language sql
security definer
as $$
  select sum(pg_stat_get_xact_tuples_returned(i.indexrelid))::bigint
  from pg_index i
  where i.indrelid = 'public.user_messages'::regclass
$$;

create function tests.reads_little(what text, query text)
returns void
language plpgsql
as $$
declare
  before constant bigint := tests.entries_read();
  rows_found int;
begin
  execute query;
  get diagnostics rows_found = row_count;
  perform tests.equals(rows_found, 50, what);
  perform tests.holds(
    tests.entries_read() - before between 50 and 500,
    format('%s: %s index entries for 50 rows', what, tests.entries_read() - before)
  );
end
$$;

grant execute on function tests.reads_little(text, text) to authenticated;

select tests.act_as('ana');
select tests.reads_little('the newest', $$select from chat.message_page(current_setting('tests.c')::uuid, max_rows => 50)$$);
select tests.reads_little('before a message', $$select from chat.message_page(current_setting('tests.c')::uuid, before_seq => 2000, max_rows => 50)$$);
select tests.reads_little('after a message', $$select from chat.message_page(current_setting('tests.c')::uuid, after_seq => 2000, max_rows => 50)$$);
select tests.reads_little('what changed', $$select from chat.message_changes(current_setting('tests.c')::uuid, 2000, 50)$$);

rollback;
