-- A user's preferences.

begin;
\ir support.sql

select current_setting('timezone') as zone \gset

create function tests.time_zone_is_refused(name text) returns void language plpgsql as $$
begin
  perform tests.expect_error(format('select chat.set_preferences(%L)', json_build_object('timezone', name)), 'validation_failed');
end
$$;

select tests.act_as('ana');
select tests.equals(chat.set_preferences(json_build_object('timezone', z.name)::jsonb) ->> 'timezone', z.name, 'a time zone')
from pg_timezone_names z;
select tests.time_zone_is_refused(n.name)
from unnest(array[
  '', 'x', 'europe/berlin', 'Europe/Atlantis', 'PST', '5', '+05:30', 'ABC5', 'Abc5', 'GMT+5', 'Etc/GMT+13', 'Etc/GMT-15', 'Foo/Bar5',
  'Europe/Berlin5', '<+05>-05', '../../etc/passwd', repeat('x', 100000), null
]) n (name);
select tests.equals(current_setting('timezone'), :'zone', 'the zone of the session stays') from (select 1) one;

-- PostgreSQL reads a file for each time zone that it lists, so a request must not read the list.
-- Only a superuser can forbid reading the list, so the test does this only as superuser.
select tests.act_as('owner');
select current_setting('is_superuser') = 'on' as is_superuser \gset
\if :is_superuser
  revoke select on pg_timezone_names from public;
  select tests.act_as('ana');
  select tests.expect_error('select from pg_timezone_names', '42501');
  select chat.set_preferences('{"sound_enabled": true}');
  select chat.set_preferences('{"timezone": "Asia/Tokyo"}');
\endif

-- A stored time zone that a later version of PostgreSQL does not know must not prevent other
-- changes.
select tests.act_as('owner');
update public.user_notification_preferences set timezone = 'Europe/Atlantis' where user_id = tests.id('ana');
select tests.act_as('ana');
select tests.equals(chat.set_preferences('{"sound_enabled": false}') ->> 'timezone', 'Europe/Atlantis', 'kept');
select tests.time_zone_is_refused('Europe/Lemuria');

rollback;
