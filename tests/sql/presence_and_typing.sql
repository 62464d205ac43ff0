-- Presence: what devices report, what users choose, and which users see it. Typing: which users
-- receive it.

begin;
\ir support.sql

-- A chosen status overrides what devices report.
select tests.act_as('ana');
select tests.equals(chat.set_presence('online') ->> 'status', 'online', 'reported');
select tests.equals(chat.set_presence('dnd', status_text => ' lunch ') ->> 'status', 'busy', 'chosen');
select tests.equals(chat.set_presence('online') ->> 'status', 'busy', 'a heartbeat does not end it');
select tests.equals(status_text, 'lunch', 'text') from public.user_presence where user_id = tests.id('ana');
select tests.equals(chat.set_presence('away', manual_until => now() + interval '1 hour') ->> 'status', 'away', 'with an end');
select tests.equals(chat.set_presence('away', manual_until => now() - interval '1 second') ->> 'status', 'online', 'past its end');
select tests.equals(chat.set_presence('busy') ->> 'status', 'busy', 'again');
select tests.equals(chat.set_presence('online', is_manual => true) ->> 'status', 'online', 'revoked');
select tests.equals(chat.set_presence('offline', is_manual => true) ->> 'status', 'offline', 'invisible');
select tests.equals(chat.set_presence('online') ->> 'status', 'offline', 'stays invisible');
select chat.set_presence('online', is_manual => true, clear_status_text => true);
select tests.expect_error($$select chat.set_presence('asleep')$$, 'validation_failed');
select tests.expect_error($$select chat.set_presence('online', status_text => repeat('x', 101))$$, 'validation_failed');

-- A request that contains only texts does not count as activity.
select tests.equals(chat.set_presence('away') ->> 'status', 'away', 'away');
select tests.equals(chat.set_presence(status_text => 'back soon') ->> 'status', 'away', 'still away');
select chat.set_presence('online', clear_status_text => true);

-- The user's current page is kept only if the setting is on.
select tests.equals(chat.set_presence('online', current_page => '/payroll') ->> 'current_page', null, 'page');
select tests.act_as('owner');
update chat.config set value = 'true' where key = 'share_current_page';
select tests.act_as('ana');
select tests.equals(chat.set_presence('online', current_page => '/payroll') ->> 'current_page', '/payroll', 'own page');
select tests.act_as('ben');
select tests.equals("row" ->> 'current_page', null, 'another user''s page') from chat.presence_rows(array[tests.id('ana')]);
select tests.act_as('ada');
select tests.equals((select "row" ->> 'current_page' from chat.presence_rows(array[tests.id('ana')])), '/payroll', 'an admin of the team');
select tests.equals((select "row" ->> 'current_page' from chat.presence_rows(team => true) where user_id = tests.id('ana')), '/payroll', 'in a list, too');

-- The table never shows the current page, neither to the team, an admin or the server, nor to the
-- user who wrote it.
select tests.act_as('ben');
select tests.equals((select p.current_page from public.user_presence p where p.user_id = tests.id('ana')), null, 'the table, for the team');
select tests.equals((select count(*) from chat.pages_of(null)), 0::bigint, 'pages, for the team');
select tests.act_as('ada');
select tests.equals((select p.current_page from public.user_presence p where p.user_id = tests.id('ana')), null, 'the table, for an admin');
select tests.equals((select string_agg(page, ',') from chat.pages_of(null)), '/payroll', 'pages, for an admin');
select tests.act_as('ana');
create function pg_temp.written(page text)
returns text
language sql
as $f$
  insert into public.user_presence (user_id, status, current_page)
  values (tests.id('ana'), 'online', page)
  on conflict (user_id) do update set status = excluded.status, current_page = excluded.current_page
  returning coalesce(current_page, '');
$f$;
select tests.equals(pg_temp.written('/salaries'), '', 'an upsert returns no page');
select tests.equals("row" ->> 'current_page', '/salaries', 'kept from the table') from chat.presence_rows();
update public.user_presence set status_text = 'busy' where user_id = tests.id('ana');
select tests.equals("row" ->> 'current_page', '/salaries', 'a statement without the column leaves it') from chat.presence_rows();
update public.user_presence set current_page = null, status_text = null where user_id = tests.id('ana');
select tests.equals("row" ->> 'current_page', null, 'removed by setting it to null') from chat.presence_rows();
select chat.set_presence('offline');
select pg_temp.written('/payroll');
-- Tries to change the row of another user.
select tests.act_as('ben');
select chat.set_presence('online');
select tests.act_as('ana');
update public.user_presence set current_page = '/theirs' where user_id = tests.id('ben');
select tests.equals("row" ->> 'current_page', '/payroll', 'back again') from chat.presence_rows();
select tests.act_as('owner');
update public.user_presence set current_page = '/server' where user_id = tests.id('ben');
select tests.equals(count(*), 0::bigint, 'nothing in the table') from public.user_presence where current_page is not null;
select tests.equals((select string_agg(page, ',' order by page) from chat.presence_pages), '/payroll,/server', 'each user''s own page');
delete from public.user_presence where user_id = tests.id('ben');
select tests.equals((select string_agg(page, ',') from chat.presence_pages), '/payroll', 'gone with its row');
-- A user who appears offline leaves no trace.
select tests.act_as('ana');
select chat.set_presence('offline', is_manual => true);
select chat.set_presence('online', current_page => '/hidden');
update public.user_presence set current_page = '/hidden' where user_id = tests.id('ana');
select tests.equals("row" ->> 'current_page', '/payroll', 'unseen') from chat.presence_rows();
select chat.set_presence('online', is_manual => true);
-- If the setting is turned off again, stored pages are not returned, and new ones are not stored.
select tests.act_as('owner');
update chat.config set value = 'false' where key = 'share_current_page';
select tests.act_as('ana');
select tests.equals("row" ->> 'current_page', null, 'setting off') from chat.presence_rows();
select chat.set_presence('online', current_page => '/payroll');
select tests.act_as('owner');
select tests.equals(count(*), 0::bigint, 'forgotten') from chat.presence_pages where user_id = tests.id('ana');
update chat.config set value = 'true' where key = 'share_current_page';
select tests.act_as('ana');
select chat.set_presence('online', current_page => '/payroll');

-- Presence is visible to the team and to conversation partners. If it is not shared, no other user
-- sees it.
select tests.act_as('ben');
select tests.equals(count(*), 1::bigint, 'team') from chat.presence_rows(array[tests.id('ana')]);
select tests.equals(count(*), 1::bigint, 'the whole team') from chat.presence_rows(team => true);
select tests.act_as('zoe');
select tests.equals(count(*), 0::bigint, 'another team') from chat.presence_rows(array[tests.id('ana')]);
select tests.act_as('sue');
select tests.equals(count(*), 0::bigint, 'not even a super admin') from public.user_presence where user_id = tests.id('ana');
select tests.act_as('owner');
select tests.conversation('sue', 'ana');
select tests.act_as('sue');
select tests.equals(count(*), 1::bigint, 'a partner') from chat.presence_rows(array[tests.id('ana')]);
select tests.equals((select "row" ->> 'current_page' from chat.presence_rows(array[tests.id('ana')])), '/payroll', 'a super admin, for users they see');

-- An admin of another team who has a conversation with Ana sees her presence. The admin sees her
-- page only if admins may message across teams.
select tests.act_as('owner');
select tests.add_person('max', '00000000-0000-4000-8000-00000000007b', 'admin');
update chat.config set value = 'true' where key = 'admin_cross_team';
select tests.conversation('max', 'ana');
select tests.act_as('max');
select tests.equals((select "row" ->> 'current_page' from chat.presence_rows(array[tests.id('ana')])), '/payroll', 'admin across teams');
select tests.act_as('owner');
update chat.config set value = 'false' where key = 'admin_cross_team';
select tests.act_as('max');
select tests.equals((select ("row" ->> 'status', "row" ->> 'current_page')::text from chat.presence_rows(array[tests.id('ana')])), '(online,)', 'another team''s admin');
select tests.act_as('ana');
insert into public.user_notification_preferences (user_id, share_presence) values (tests.id('ana'), false);
select tests.equals(count(*), 1::bigint, 'oneself') from chat.presence_rows();
select tests.equals("row" ->> 'current_page', null, 'a hidden user has no page') from chat.presence_rows();
select chat.set_presence('online', current_page => '/payroll');
select tests.act_as('owner');
select tests.equals(count(*), 0::bigint, 'nothing is kept') from chat.presence_pages where user_id = tests.id('ana');
select tests.act_as('sue');
select tests.equals(count(*), 0::bigint, 'not shared') from chat.presence_rows(array[tests.id('ana')]);
select tests.equals("row" -> 'other_user' ->> 'status', 'offline', 'nor in the list') from chat.conversation_page();
select tests.act_as('owner');
delete from public.user_notification_preferences;

-- A report expires after a while.
select tests.act_as('ana');
select chat.set_presence('online');
select tests.act_as('owner');
update chat.presence_reports set expires_at = clock_timestamp() - interval '1 second' where user_id = tests.id('ana');
select tests.act_as('service_role');
select tests.equals(array_agg(e), array[tests.id('ana')], 'swept') from chat.expire_presence() e;
select tests.act_as('ben');
select tests.equals("row" ->> 'status', 'offline', 'stale') from chat.presence_rows(array[tests.id('ana')]);

-- With several devices that have a session_id, the user is online if any of these devices is.
select tests.act_as('ana');
select tests.equals(chat.set_presence('away', session_id => 'a') ->> 'status', 'away', 'one is idle');
select tests.equals((r ->> 'status', r ->> 'device_count')::text, '(online,2)', 'the other is not') from chat.set_presence('online', session_id => 'b') r;
select tests.equals(chat.set_presence('busy', is_manual => false, session_id => 'b') ->> 'status', 'busy', 'rather than away');
select tests.equals(chat.set_presence('online', session_id => 'a') ->> 'status', 'online', 'rather than busy');
select tests.equals(chat.set_presence('online') ->> 'status', 'online', 'one without a name');
select chat.set_presence('away', session_id => 'a'), chat.set_presence('away', session_id => 'b');
select tests.equals("row" ->> 'status', 'online', 'counts, too') from chat.presence_rows();
select tests.equals(chat.set_presence('offline') ->> 'status', 'away', 'its end does not affect the others');
select tests.equals((r ->> 'status', r ->> 'device_count')::text, '(away,1)', 'one of two closes') from chat.set_presence('offline', session_id => 'a') r;
select tests.equals(chat.set_presence(session_id => 'a') ->> 'device_count', '2', 'without a status it is online');
select tests.equals("row" ->> 'status', 'online', 'as a new one is') from chat.presence_rows();
select chat.set_presence('away', session_id => 'a'), chat.set_presence(session_id => 'a', status_text => 'idle');
select tests.equals("row" ->> 'status', 'away', 'or as it was') from chat.presence_rows();
select chat.end_presence('a');
select tests.equals(("row" ->> 'status', "row" ->> 'device_count')::text, '(away,1)', 'one signs out') from chat.presence_rows();
select chat.end_presence('a'), chat.end_presence('b');
select tests.equals(("row" ->> 'status', "row" ->> 'device_count')::text, '(offline,0)', 'the last one, too') from chat.presence_rows();
-- A chosen status applies to all devices.
select tests.equals(chat.set_presence('busy', session_id => 'a') ->> 'status', 'busy', 'chosen on one');
select tests.equals(chat.set_presence('online', session_id => 'b') ->> 'status', 'busy', 'applies to the other device');
select tests.equals(chat.set_presence('offline', session_id => 'a') ->> 'status', 'busy', 'after that device is gone');
select tests.equals(chat.set_presence('offline', session_id => 'b') ->> 'status', 'offline', 'not after all devices are gone');
select tests.equals(chat.set_presence('online', is_manual => true, session_id => 'b') ->> 'status', 'online', 'revoked');
-- Signing out without a session_id applies to all devices.
select chat.set_presence('online', session_id => 'a'), chat.end_presence();
select tests.equals("row" ->> 'status', 'offline', 'everywhere') from chat.presence_rows();
select tests.expect_error($$select chat.set_presence('online', session_id => '')$$, 'validation_failed');
select tests.expect_error($$select chat.set_presence('online', session_id => repeat('x', 65))$$, 'validation_failed');
select tests.expect_error($$select chat.end_presence(repeat('x', 65))$$, 'validation_failed');
select tests.equals(chat.set_presence('online', session_id => repeat('é', 64)) ->> 'status', 'online', 'the longest name');
-- A client that invents session_ids only replaces its oldest ones.
select chat.set_presence('away', session_id => 'n' || n) from generate_series(1, 20) n;
select tests.equals(("row" ->> 'status', "row" ->> 'device_count')::text, '(away,20)', 'bounded') from chat.presence_rows();
-- Each session expires independently.
select tests.act_as('owner');
update chat.presence_report_sessions set expires_at = clock_timestamp() - interval '1 second' where user_id = tests.id('ana') and session_id <> 'n1';
select tests.act_as('service_role');
select tests.equals(array_agg(e), array[tests.id('ana')], 'swept') from chat.expire_presence() e;
select tests.equals((status, device_count)::text, '(away,1)', 'the one that is left') from public.user_presence where user_id = tests.id('ana');
select tests.act_as('owner');
select tests.equals(count(*), 1::bigint, 'the others are removed') from chat.presence_report_sessions;
update chat.presence_report_sessions set expires_at = clock_timestamp() - interval '1 second';
select tests.act_as('service_role');
select chat.expire_presence();
select tests.equals((status, device_count)::text, '(offline,0)', 'none') from public.user_presence where user_id = tests.id('ana');

-- Subscribers of the table see the chosen status and when it ends.
select tests.act_as('ana');
select chat.set_presence('online');
select chat.set_presence('busy', manual_until => clock_timestamp() + interval '1 hour');
select tests.act_as('ben');
select tests.equals((status, manual_status)::text, '(busy,busy)', 'chosen, in the table') from public.user_presence where user_id = tests.id('ana');
select tests.act_as('owner');
update chat.presence_reports set manual_until = clock_timestamp() - interval '1 second' where user_id = tests.id('ana');
select tests.act_as('service_role');
select tests.equals(array_agg(e), array[tests.id('ana')], 'over') from chat.expire_presence() e;
select tests.equals((status, manual_status, manual_until)::text, '(online,,)', 'what devices report') from public.user_presence where user_id = tests.id('ana');

-- A user has sockets at two server processes.
\set one 11111111-0000-4000-8000-000000000000
\set two 22222222-0000-4000-8000-000000000000
select tests.equals(chat.report_devices(:'one', array[tests.id('ana')], array[1], array[true]), null, 'no lease, no report');
select tests.equals(chat.keep_presence(:'one', 60000), false, 'a new lease');
select tests.equals(chat.keep_presence(:'one', 60000), true, 'prolonged');
select chat.keep_presence(:'two', 60000);
select tests.equals(chat.report_devices(:'one', array[tests.id('ana'), gen_random_uuid()], array[1, 1], array[true, true]), '{}', 'reported, except for an unknown user');
select chat.report_devices(:'two', array[tests.id('ana')], array[2], array[true]);
select tests.act_as('ben');
select tests.equals(("row" ->> 'status', "row" ->> 'device_count')::text, '(online,3)', 'folded') from chat.presence_rows(array[tests.id('ana')]);
select tests.act_as('service_role');
select chat.report_devices(:'one', array[tests.id('ana')], array[0], array[false]);
select tests.equals((status, device_count)::text, '(online,2)', 'one process is left') from public.user_presence where user_id = tests.id('ana');

-- Closing a page does not affect other devices. Signing out makes the user offline until a device
-- connects again.
select tests.act_as('ana');
select tests.equals(chat.set_presence('offline') ->> 'status', 'online', 'another socket is there');
select tests.act_as('owner');
select tests.equals(expires_at, null, 'only its sockets count from now on') from chat.presence_reports where user_id = tests.id('ana');
select tests.act_as('ana');
-- A socket and a session describe the same device. The session's report takes precedence, because
-- it includes idling.
select tests.equals((r ->> 'status', r ->> 'device_count')::text, '(away,2)', 'two sockets, of which one reports') from chat.set_presence('away', session_id => 'a') r;
select chat.end_presence('a');
select tests.equals(("row" ->> 'status', "row" ->> 'device_count')::text, '(online,2)', 'the sockets are left') from chat.presence_rows();
select tests.equals(chat.set_presence('away') ->> 'status', 'away', 'a device says so');
select chat.end_presence();
select tests.equals("row" ->> 'status', 'offline', 'signed out') from chat.presence_rows();
select tests.act_as('service_role');
select chat.report_devices(:'two', array[tests.id('ana')], array[1], array[false]);
select tests.equals(status, 'offline', 'an open socket does not end the sign-out') from public.user_presence where user_id = tests.id('ana');
select chat.report_devices(:'two', array[tests.id('ana')], array[1], array[true]);
select tests.equals(status, 'online', 'a new socket does') from public.user_presence where user_id = tests.id('ana');

-- An unchanged row is not written.
select xmin as before from public.user_presence where user_id = tests.id('ana') \gset
select chat.report_devices(:'two', array[tests.id('ana')], array[1], array[true]), chat.keep_presence(:'two', 60000);
select tests.equals(xmin::text, :'before', 'untouched') from public.user_presence where user_id = tests.id('ana');

-- When a user hides, subscribers receive offline once and nothing afterwards.
select tests.act_as('ana');
insert into public.user_notification_preferences (user_id, share_presence) values (tests.id('ana'), false);
select tests.act_as('ben');
select tests.equals((status, device_count, status_text is null and status_emoji is null)::text, '(offline,0,t)', 'subscribers receive offline') from public.user_presence where user_id = tests.id('ana');
select tests.expect_error('select from chat.presence_sessions', '42501');
select tests.expect_error('select from chat.presence_reports', '42501');
select tests.expect_error('select from chat.presence_report_sessions', '42501');
select tests.expect_error('select from chat.presence_unshown', '42501');
select updated_at as before from public.user_presence where user_id = tests.id('ana') \gset
select tests.act_as('ana');
select chat.set_presence('online', status_text => 'hidden');
select tests.act_as('service_role');
select chat.report_devices(:'two', array[tests.id('ana')], array[3], array[true]);
select tests.equals((status, updated_at)::text, ('offline', :'before'::timestamptz)::text, 'does not change') from public.user_presence where user_id = tests.id('ana');
select tests.act_as('ana');
update public.user_notification_preferences set share_presence = true where user_id = tests.id('ana');
select tests.act_as('ben');
select tests.equals((status, device_count)::text, '(online,3)', 'shared again') from public.user_presence where user_id = tests.id('ana');

-- A user who chose to appear offline stays offline, because devices, heartbeats and typing are all
-- invisible.
select tests.act_as('ana');
select tests.equals((r ->> 'status', r ->> 'manual_status', r ->> 'device_count')::text, '(offline,offline,0)', 'invisible')
  from chat.set_presence('offline', is_manual => true) r;
select tests.act_as('ben');
select tests.equals((status, manual_status, device_count)::text, '(offline,,0)', 'nothing reveals it') from public.user_presence where user_id = tests.id('ana');
select updated_at as before from public.user_presence where user_id = tests.id('ana') \gset
select tests.act_as('ana');
select chat.set_presence('online', current_page => '/x');
select tests.act_as('service_role');
select chat.report_devices(:'two', array[tests.id('ana')], array[2], array[true]);
select tests.equals(updated_at, :'before'::timestamptz, 'does not change') from public.user_presence where user_id = tests.id('ana');
select tests.act_as('ana');
insert into public.user_presence (user_id, status, is_typing_to) values (tests.id('ana'), 'online', tests.id('sue'))
  on conflict (user_id) do update set status = excluded.status, is_typing_to = excluded.is_typing_to;
select tests.equals((status, device_count, is_typing_to, updated_at)::text, ('offline', 0, null, :'before'::timestamptz)::text, 'whatever an older client writes') from public.user_presence where user_id = tests.id('ana');
select chat.set_presence('online', is_manual => true);
select tests.equals((status, device_count)::text, '(online,2)', 'back') from public.user_presence where user_id = tests.id('ana');

-- The lease of a killed process expires.
select tests.act_as('owner');
update chat.presence_processes set lease_until = now() - interval '1 second' where process_id = :'two';
update chat.presence_reports set expires_at = null where user_id = tests.id('ana');
select tests.act_as('service_role');
select tests.equals(chat.keep_presence(:'one', 60000), true, 'another process looks');
select tests.equals((status, device_count)::text, '(offline,0)', 'expired') from public.user_presence where user_id = tests.id('ana');
select tests.equals(chat.report_devices(:'two', array[tests.id('ana')], array[1], array[true]), null, 'the dead process has no lease');

-- A crash of the database empties the unlogged tables.
select chat.report_devices(:'one', array[tests.id('ana')], array[1], array[true]);
select tests.act_as('owner');
delete from chat.presence_processes;
select tests.act_as('service_role');
select chat.keep_presence(:'one', 60000);
select tests.equals((status, device_count)::text, '(offline,0)', 'no user is left online') from public.user_presence where user_id = tests.id('ana');

-- A client that writes to the table can write only its own row, and the server sets when the report
-- expires.
select tests.act_as('ben');
insert into public.user_presence (user_id, status, last_seen, current_page) values (tests.id('ben'), 'online', '2001-01-01', '/x');
select tests.holds(last_seen > now() - interval '1 minute', 'the server sets the time') from public.user_presence where user_id = tests.id('ben');
select tests.act_as('owner');
select tests.holds(expires_at between now() and now() + interval '10 minutes', 'the server sets the end') from chat.presence_reports where user_id = tests.id('ben');
select tests.act_as('ben');
update public.user_presence set status = 'away', last_seen = '2001-01-01' where user_id = tests.id('ben');
select tests.equals(status, 'away', 'reported') from public.user_presence where user_id = tests.id('ben');
select chat.set_presence('busy');
update public.user_presence set is_typing_to = tests.id('ana') where user_id = tests.id('ben');
select tests.equals(is_typing_to, null, 'they have no conversation') from public.user_presence where user_id = tests.id('ben');
select tests.act_as('owner');
select tests.conversation('ana', 'ben') as c \gset
select tests.act_as('ana');
select chat.block(tests.id('ben'));
select tests.act_as('ben');
update public.user_presence set is_typing_to = tests.id('ana') where user_id = tests.id('ben');
select tests.equals(is_typing_to, null, 'nor after a block') from public.user_presence where user_id = tests.id('ben');
select tests.act_as('ana');
select chat.unblock(tests.id('ben'));
select tests.act_as('ben');
update public.user_presence set is_typing_to = tests.id('ana'), typing_started_at = '2001-01-01' where user_id = tests.id('ben');
select tests.holds(status = 'busy' and typing_started_at > now() - interval '1 minute', 'typing changes nothing else') from public.user_presence where user_id = tests.id('ben');
insert into public.user_presence (user_id, is_typing_to) values (tests.id('ben'), null) on conflict (user_id) do update set is_typing_to = excluded.is_typing_to;
update public.user_presence set status = 'online' where user_id = tests.id('ben');
select tests.equals((status, manual_status)::text, '(busy,busy)', 'a chosen status overrides the table, too') from public.user_presence where user_id = tests.id('ben');
select tests.equals(chat.set_presence('online', is_manual => true) ->> 'status', 'online', 'as the table reported');
select tests.expect_error($$insert into public.user_presence (user_id, status) values (tests.id('zoe'), 'online')$$, '42501');
select tests.act_as('ben');
select tests.expect_error($$select chat.report_devices(gen_random_uuid(), array[tests.id('zoe')], array[1], array[true])$$, '42501');
select tests.expect_error($$select chat.keep_presence(gen_random_uuid(), 1000)$$, '42501');

-- Typing is sent to the other members. It is written to the table only if the setting is on.
select updated_at as before from public.user_presence where user_id = tests.id('ben') \gset
select tests.equals((others, is_shared, expires_in_ms)::text, (array[tests.id('ana')], true, 6000)::text, 'typing') from chat.set_typing(:'c', true);
select tests.equals(updated_at, :'before'::timestamptz, 'nothing was written') from public.user_presence where user_id = tests.id('ben');
select tests.act_as('zoe');
select tests.expect_error(format('select chat.set_typing(%L, true)', :'c'), 'not_found');
select tests.act_as('owner');
update chat.config set value = 'true' where key = 'typing_in_table';
select tests.act_as('ben');
select chat.set_typing(:'c', true);
select tests.equals((is_typing_to, typing_started_at is not null)::text, (tests.id('ana'), true)::text, 'mirrored') from public.user_presence where user_id = tests.id('ben');
select tests.act_as('owner');
update public.user_presence set typing_started_at = clock_timestamp() - interval '13 seconds' where user_id = tests.id('ben');
select tests.act_as('ben');
select chat.set_typing(:'c', true);
select tests.holds(typing_started_at > now() - interval '1 minute', 'goes on') from public.user_presence where user_id = tests.id('ben');
select tests.act_as('owner');
update public.user_presence set typing_started_at = clock_timestamp() - interval '13 seconds' where user_id = tests.id('ben');
select chat.expire_presence();
select tests.equals(is_typing_to, null, 'typing expired') from public.user_presence where user_id = tests.id('ben');
select tests.act_as('ben');
select chat.set_typing(:'c', true);
select chat.set_typing(:'c', false);
select tests.equals((is_typing_to, typing_started_at)::text, '(,)', 'typing ended') from public.user_presence where user_id = tests.id('ben');
insert into public.user_notification_preferences (user_id, share_typing) values (tests.id('ben'), false);
select tests.equals(is_shared, false, 'typing is not shown') from chat.set_typing(:'c', true);

rollback;
