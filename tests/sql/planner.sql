-- The planner reveals nothing about the content of rows that a user may not see.

begin;
\ir support.sql

select tests.conversation('ana', 'ben') as c \gset
insert into public.user_messages (conversation_id, sender_id, content, file_name, client_message_id)
select :'c', tests.id('ana'), case when n % 3 = 0 then 'the secret plan' else 'word ' || n end, case when n % 3 = 0 then 'secret.pdf' end,
  'device-' || n
from generate_series(1, 3000) n;
insert into public.message_edits (message_id, conversation_id, version, previous_content) select m.id, m.conversation_id, 1, m.content from public.user_messages m;
insert into public.message_reactions (id, message_id, conversation_id, user_id, reaction, emoji)
select gen_random_uuid(), m.id, m.conversation_id, m.sender_id, left(m.content, 10), left(m.content, 10) from public.user_messages m;
insert into realtime.messages (topic, extension, event) select m.content, 'broadcast', m.content from public.user_messages m;
analyze public.user_messages, public.message_edits, public.message_reactions, realtime.messages;

create function tests.estimate(statement text) returns text language plpgsql as $$
declare
  plan json;
begin
  execute 'explain (format json) ' || statement into plan;
  return plan -> 0 -> 'Plan' ->> 'Plan Rows';
end
$$;

create table tests.columns (table_name text, column_name text);
insert into tests.columns values
  ('public.user_messages', 'content'), ('public.user_messages', 'file_name'), ('public.user_messages', 'client_message_id'),
  ('public.message_edits', 'previous_content'), ('public.message_reactions', 'reaction'),
  ('realtime.messages', 'topic'), ('realtime.messages', 'event');
grant select on tests.columns to public;

select tests.act_as('zoe');
select tests.equals(
  tests.estimate(format('select from %s where %s %s %L', c.table_name, c.column_name, o.operator, o.frequent)),
  tests.estimate(format('select from %s where %s %s %L', c.table_name, c.column_name, o.operator, o.absent)),
  format('%s.%s %s', c.table_name, c.column_name, o.operator))
from tests.columns c,
  (values
    ('=', 'the secret plan', 'another text'), ('=', 'secret.pdf', 'another.pdf'), ('=', 'the secret', 'a reaction'),
    ('like', 'the secret%', 'another te%'), ('^@', 'the s', 'anoth'), ('^@', 'device-1', 'device-x'), ('<', 'the secret plan', 'a'), ('>=', 'secret', 'zzz')
  ) o (operator, frequent, absent);

-- A policy is evaluated before every comparison of the query. Otherwise, "explain (analyze)" would
-- show "(never executed)" for the policy's sub-select exactly if no row fulfils the comparison.

reset role;
insert into public.message_drafts (user_id, conversation_id, content) values (tests.id('ben'), :'c', 'an unsent text');
insert into public.message_hides (user_id, message_id) select tests.id('ben'), m.id from public.user_messages m limit 1;
insert into public.message_pins (message_id, conversation_id, pinned_by) select m.id, m.conversation_id, m.sender_id from public.user_messages m limit 1;
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ben'), tests.id('ana'));
insert into public.user_notification_preferences (user_id, timezone) values (tests.id('ben'), 'Europe/Berlin');
insert into public.user_presence (user_id, status, status_text) values (tests.id('ben'), 'busy', 'at the doctor')
on conflict (user_id) do update set status = excluded.status, status_text = excluded.status_text;
update public.conversation_receipts set last_read_at = now(), last_delivered_at = now();

-- Every column that users may read and compare with leakproof operators. Each comes with a value
-- from a row that Zoe may not see, and a value from no row. Two columns are omitted, because the
-- planner compares their values with a constant of the policy and with the bounds of the
-- partitions.
create table tests.compared (table_name text, column_name text, type text, present text, absent text);
grant select on tests.compared to public;
do $$
declare
  c record;
  present text;
begin
  for c in
    select a.attrelid::regclass::text as table_name, quote_ident(a.attname) as column_name, v.type, v.absent
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_class r on r.oid = a.attrelid and r.relkind in ('r', 'p') and r.relrowsecurity
    join (values
      ('text', 'no such text'), ('uuid', '00000000-0000-4000-8000-ffffffffffff'), ('int2', '-77'), ('int4', '-77'), ('int8', '-77'),
      ('timestamptz', '1999-01-01'), ('timestamp', '1999-01-01'), ('date', '1999-01-01')
    ) v (type, absent) on a.atttypid = v.type::regtype
    where r.relnamespace in ('public'::regnamespace, 'chat'::regnamespace, 'realtime'::regnamespace)
      and not r.relispartition and a.attnum > 0 and not a.attisdropped
      and has_column_privilege('authenticated', a.attrelid, a.attnum, 'select')
      and (a.attrelid <> 'realtime.messages'::regclass or a.attname not in ('extension', 'inserted_at'))
      and exists (select from pg_catalog.pg_policy p where p.polrelid = a.attrelid and pg_get_expr(p.polqual, p.polrelid) like '%chat.%')
  loop
    execute format('select %s::text from %s where %1$s is not null limit 1', c.column_name, c.table_name) into present;
    if present is not null then
      insert into tests.compared values (c.table_name, c.column_name, c.type, present, c.absent);
    end if;
  end loop;
end
$$;
select tests.equals(array(select distinct table_name from tests.compared order by 1), array[
  'conversation_receipts', 'message_drafts', 'message_edits', 'message_hides', 'message_pins', 'message_reactions', 'realtime.messages',
  'user_blocks', 'user_conversation_members', 'user_conversations', 'user_messages', 'user_notification_preferences', 'user_presence'
], 'every table is tested');

create function tests.plan(statement text, value text) returns text language plpgsql as $$
declare
  line text;
  lines text;
begin
  for line in execute 'explain (analyze, buffers off, costs off, timing off, summary off) ' || format(statement, value) loop
    -- The condition is replaced, because it contains the value.
    lines := concat_ws(E'\n', lines, regexp_replace(line, '^ *Filter: .*', 'Filter'));
  end loop;
  return lines;
end
$$;
grant execute on function tests.plan(text, text) to public;

set enable_indexscan = off;
set enable_indexonlyscan = off;
set enable_bitmapscan = off;
select tests.act_as('zoe');
select tests.equals(tests.plan(q.statement, c.present), tests.plan(q.statement, c.absent), q.statement)
from tests.compared c,
  (values
    ('%1$s = any (array[%%L::%2$s])'), ('%1$s = %%L::%2$s'), ('%1$s <> all (array[%%L::%2$s])'), ('%1$s <= any (array[%%L::%2$s])'),
    ('(%1$s = any (array[%%L::%2$s])) is true')
  ) o (condition),
  lateral (select format('select from %s where ', c.table_name) || format(o.condition, c.column_name, c.type)) q (statement);

-- The control: if the policy does not come first, the plan shows whether the text exists.
reset role;
alter policy "members read the messages of their conversations" on public.user_messages
  using (conversation_id in (select chat.my_conversation_ids()));
select tests.act_as('zoe');
select tests.holds(
  tests.plan('select from public.user_messages where content = any (array[%L])', 'the secret plan')
  <> tests.plan('select from public.user_messages where content = any (array[%L])', 'no such text'),
  'the policy is evaluated after the comparison');

rollback;
