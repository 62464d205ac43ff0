-- Private actions change nothing that other users see. They change no row, row version or system
-- column.

begin;
\ir support.sql

update chat.config set value = 'true' where key in ('typing_in_table', 'share_current_page');
select tests.add_person('bob');
select tests.conversation('ana', 'ben') as c \gset
select tests.conversation('bob', 'ben') as bobs \gset
select tests.message('ben', :'c', 'hello') as m \gset
select tests.message('bob', :'bobs', 'hello');

-- A write creates another row version, which the owner sees here. A lock sets xmax, unless the same
-- transaction has already locked the row. tests/it/security/unseen.rs tests locks in separate
-- transactions.
create view tests.traces as
select 'presence of ' || n.name as what, (p.xmin, p.xmax, p.ctid, p.*)::text as trace from public.user_presence p join tests.people n on n.id = p.user_id
union all
select 'person ' || n.name, (u.xmin, u.xmax, u.ctid, u.*)::text from public.users u join tests.people n on n.id = u.id;
create table tests.before (what text, trace text);
create function tests.remember() returns void language sql as $$
  delete from tests.before;
  insert into tests.before select t.what, t.trace from tests.traces t;
$$;
create function tests.unmoved(after text) returns void language plpgsql as $$
begin
  perform tests.act_as('owner');
  perform tests.equals(array_agg(coalesce(b.what, t.what) order by 1), null, format('changed by %s', after))
  from tests.before b
  full join tests.traces t on t.what = b.what
  where (b.trace, b.what) is distinct from (t.trace, t.what);
end
$$;

-- Ana has a row and hides. Bob hides and was never online. Ben is online and chose to appear
-- offline.
select tests.act_as('ana');
select chat.set_presence('online', session_id => 'a');
select chat.set_preferences('{"share_presence": false}');
select tests.act_as('bob');
select chat.set_preferences('{"share_presence": false}');
select tests.act_as('ben');
select chat.set_presence('online', session_id => 'a');
select chat.set_presence('offline', is_manual => true);
select tests.act_as('owner');
-- Each row gets a new version.
update public.users set full_name = full_name;
alter table public.user_presence disable trigger user;
update public.user_presence set user_id = user_id;
alter table public.user_presence enable trigger user;
select tests.remember();

create function tests.reports(statement text) returns void language plpgsql as $$
declare
  actor text;
begin
  foreach actor in array array['ana', 'ben', 'bob'] loop
    perform tests.act_as(actor);
    execute statement;
    perform tests.unmoved(format('%s: %s', actor, statement));
  end loop;
end
$$;
select tests.reports(s.statement)
from unnest(array[
  'select chat.set_presence(''online'')',
  'select chat.set_presence(''away'', session_id => ''b'', current_page => ''/x'')',
  'select chat.set_presence(''busy'', session_id => ''c'', is_manual => false)',
  'select chat.set_presence(''offline'', session_id => ''b'')',
  'select chat.set_presence(''offline'')',
  format('select chat.set_typing(%L, true) where chat.is_my_conversation(%L)', :'c', :'c'),
  format('select chat.set_typing(%L, true) where chat.is_my_conversation(%L)', :'bobs', :'bobs'),
  -- The current page, which is stored outside the row.
  'insert into public.user_presence (user_id, status, current_page) values (auth.uid(), ''online'', ''/x'') on conflict do nothing',
  'select chat.end_presence(''a'')',
  'select chat.end_presence()',
  'select chat.set_presence(''online'')'
]) with ordinality s (statement, number)
order by s.number;

-- Sockets connect and disconnect, and reports and leases expire.
select gen_random_uuid() as one \gset
select tests.act_as('service_role');
select chat.keep_presence(:'one', 60000);
select chat.report_devices(:'one', array[tests.id('ana'), tests.id('ben'), tests.id('bob')], array[1, 1, 2], array[true, true, true]);
select tests.unmoved('sockets that come');
select tests.act_as('service_role');
select chat.report_devices(:'one', array[tests.id('ana'), tests.id('ben'), tests.id('bob')], array[0, 2, 1], array[false, true, false]);
select tests.unmoved('sockets that go');
update chat.presence_reports set expires_at = clock_timestamp() - interval '1 second';
update chat.presence_report_sessions set expires_at = clock_timestamp() - interval '1 second';
update chat.presence_processes set lease_until = clock_timestamp() - interval '1 second';
select tests.act_as('service_role');
select chat.expire_presence();
select tests.unmoved('what came to its end');

-- For a client that writes to the table, nothing is inserted and no new version is written.
-- PostgreSQL locks the row of an update before any trigger runs, but no user may read the column
-- that shows the lock.
create function tests.versions() returns text language sql as $$
  select string_agg((p.xmin, p.ctid, p.*)::text, ' ' order by p.user_id) from public.user_presence p
$$;
select tests.versions() as before \gset
select tests.act_as('bob');
insert into public.user_presence (user_id, status) values (tests.id('bob'), 'online');
insert into public.user_presence (user_id, status) values (tests.id('bob'), 'away') on conflict (user_id) do update set status = excluded.status;
update public.user_presence set status = 'busy' where user_id = tests.id('bob');
select tests.act_as('ana');
insert into public.user_presence (user_id, status) values (tests.id('ana'), 'online') on conflict (user_id) do update set status = excluded.status;
update public.user_presence set status = 'busy' where user_id = tests.id('ana');
select tests.act_as('owner');
select tests.equals(tests.versions(), :'before', 'by the table');
-- The reports were recorded nevertheless.
select tests.equals(string_agg(r.status, ',' order by r.user_id = tests.id('bob')), 'busy,away', 'reported')
from chat.presence_reports r where r.user_id in (tests.id('ana'), tests.id('bob'));

-- A foreign key to a row that others read would lock that row.
select tests.equals(array_agg(f.conrelid::regclass order by 1), null, 'foreign keys to user_presence')
from pg_constraint f
where f.contype = 'f' and f.confrelid = 'public.user_presence'::regclass;

-- The users themselves see that they appear offline, with and without a row.
select tests.act_as('bob');
select tests.equals((r."row" ->> 'status', r."row" ->> 'last_seen', r."row" ->> 'device_count')::text, '(offline,,0)', 'oneself') from chat.presence_rows() r;
select tests.equals(chat.set_presence('online') ->> 'status', 'offline', 'the response shows it');
-- A row for another user does not reveal whether that user hides.
select tests.act_as('ben');
select tests.expect_error(format('insert into public.user_presence (user_id, status) values (%L, %L)', p.id, 'online'), '42501')
from (values (tests.id('bob')), (tests.id('ada')), (gen_random_uuid())) p (id);

-- When users share their presence again, it shows what they reported in the meantime.
select tests.act_as('bob');
select chat.set_preferences('{"share_presence": true}');
select tests.act_as('ben');
select tests.equals(p.status, 'online', 'visible again') from public.user_presence p where p.user_id = tests.id('bob');
select tests.holds(count(*) = 1, 'a row') from public.user_presence p where p.user_id = tests.id('bob');

-- The columns that users see are granted one by one.
select tests.act_as('owner');
create table tests.shared (name text);
insert into tests.shared values
  ('user_conversations'), ('user_conversation_members'), ('conversation_receipts'), ('user_messages'), ('message_edits'),
  ('message_hides'), ('message_drafts'), ('message_reactions'), ('message_pins'), ('user_presence'), ('user_blocks'),
  ('user_notification_preferences');
grant select on tests.shared to public;
select tests.act_as('ben');
select tests.expect_error(format('select %s from public.%I', c.name, s.name), '42501')
from tests.shared s, unnest(array['xmin', 'xmax', 'cmin', 'cmax', 'ctid', 'tableoid']) c (name);
select tests.expect_error(format('select from public.%I where ctid = %L', s.name, '(0,1)'), '42501') from tests.shared s;
-- currtid2() follows the versions of a row regardless of row-level security.
select tests.expect_error(format('select currtid2(%L, %L)', 'public.' || s.name, '(0,1)'), '42501') from tests.shared s;
select tests.act_as('owner');
select tests.holds(currtid2('public.user_messages', '(0,1)') is not null, 'the control');
select tests.act_as('ben');
-- The statements of clients, of the data API, and of its embedding.
do $$
declare
  shared text;
begin
  for shared in select s.name from tests.shared s loop
    execute format('select * from public.%I', shared);
    execute format('select count(*) from public.%I', shared);
    execute format('select row_to_json(s), to_jsonb(s), s from public.%I s', shared);
    execute format('select coalesce(json_agg(e), %L) from (select s.* from public.%I s) e', '[]', shared);
    execute format('select exists (select from public.%I)', shared);
    execute format('with w as (select s.* from public.%I s limit 1) select pg_catalog.count(w) from w', shared);
  end loop;
end
$$;
insert into public.message_reactions (message_id, user_id, reaction) values (:'m', tests.id('ben'), '👍') returning *;
select tests.equals(count(*), 1::bigint, 'embeds')
from public.user_messages m join lateral (select row_to_json(r.*) from public.message_reactions r where r.message_id = m.id) r on true;

-- A column that the application adds is granted by the next installation.
select tests.act_as('owner');
alter table public.user_messages add column tests_added int;
select tests.act_as('ben');
select tests.expect_error('select * from public.user_messages', '42501');
select tests.act_as('owner');
select chat.grant_shared_columns();
select tests.act_as('ben');
select tests.equals(count(m), 2::bigint, 'granted') from public.user_messages m;
select tests.expect_error('select xmax from public.user_messages', '42501');

-- A conversation shows the presence only of users who are still members.
select tests.act_as('owner');
select tests.conversation('sue', 'zoe') as shared \gset
insert into public.user_presence (user_id, status) values (tests.id('zoe'), 'busy')
on conflict (user_id) do update set status = excluded.status;
create function tests.seen(conversation uuid) returns text language sql as $$
  select format('%s %s', p.status, p.last_seen is not null) from chat.conversation_people(array[seen.conversation]) p where p.user_id = tests.id('zoe')
$$;
select tests.act_as('sue');
select tests.equals(tests.seen(:'shared'), 'busy t', 'control: a partner');
select tests.act_as('owner');
update public.user_conversation_members set left_at = now() where conversation_id = :'shared' and user_id = tests.id('zoe');
select tests.act_as('sue');
select tests.equals(count(*), 0::bigint, 'by the policy') from public.user_presence where user_id = tests.id('zoe');
select tests.equals(tests.seen(:'shared'), 'offline f', 'a former partner');
select tests.equals("row" #>> '{other_user,status}', 'offline', 'in the list') from chat.conversation_rows(array[:'shared'::uuid]);

-- A session without a user id is not the server and locks no rows of other users.
select tests.act_as('ana');
select chat.set_presence('online');
select tests.act_as('owner');
create temporary table reports as select r.user_id, r.xmax::text as lock from chat.presence_reports r;
select set_config('request.jwt.claims', '{"role": "authenticated"}', true), set_config('role', 'authenticated', true);
select tests.expect_error(format('insert into public.user_presence (user_id, current_page) values (%L, %L)', tests.id('ana'), '/x'), '42501');
select tests.act_as('owner');
select tests.equals(r.xmax::text, b.lock, 'locked') from chat.presence_reports r join pg_temp.reports b on b.user_id = r.user_id;

rollback;
