-- Which users a search for users finds.

begin;
\ir support.sql

select tests.add_person('anton'), tests.add_person('tania', '00000000-0000-4000-8000-00000000007b');

create function tests.found(query text)
returns text
language sql
as $$ select coalesce(string_agg(p.full_name, ', '), '') from chat.search_people(query) p $$;

-- A search finds members of the caller's team by name or address, in upper or lower case. It never
-- finds the caller.
select tests.act_as('ana');
select tests.equals(tests.found('an'), 'Anton, Ben Brandt', 'own team');
select tests.equals(tests.found('BEN@EXAMPLE'), 'Ben Brandt', 'address');
select tests.equals(tests.found('ana'), '', 'neither the caller nor another team');
select tests.equals(tests.found('a'), '', 'one character');
select tests.equals(tests.found('  '), '', 'none');
select tests.equals(tests.found(null), '', 'null');
select tests.equals(tests.found('%%'), '', 'a pattern is ordinary text');
select tests.equals(tests.found('__'), '', 'a pattern is ordinary text');
select tests.equals(count(*), 1::bigint, 'as many as requested') from chat.search_people('an', 1);

-- Letters match with and without their marks, in both directions.
select tests.act_as('owner');
select tests.add_person('łukasz œrsted');
select tests.act_as('ana');
select tests.equals(tests.found('LUKASZ'), 'Łukasz Œrsted', 'without marks');
select tests.equals(tests.found('sz oers'), 'Łukasz Œrsted', 'two letters for one');
select tests.equals(tests.found('ánton'), 'Anton', 'with additional marks');
select tests.equals(tests.found('l!'), '', 'one character and a mark');
select tests.act_as('owner');
update public.users set status = 'suspended' where id = tests.id('łukasz œrsted');

-- A super admin finds all users. An admin finds users of other teams only if the setting is on.
select tests.act_as('sue');
select tests.equals(tests.found('an'), 'Ana Alvarez, Anton, Ben Brandt, Tania, Zoe Zhang', 'everywhere');
select tests.act_as('ada');
select tests.equals(tests.found('an'), 'Ana Alvarez, Anton, Ben Brandt', 'an admin''s team');
select tests.act_as('owner');
update chat.config set value = 'true' where key = 'admin_cross_team';
select tests.act_as('ada');
select tests.equals(tests.found('an'), 'Ana Alvarez, Anton, Ben Brandt, Tania, Zoe Zhang', 'across teams');

-- Finding a user does not show their presence, which only their teams and conversation partners
-- see.
select tests.act_as('owner');
insert into public.user_presence (user_id, status) values (tests.id('ben'), 'away'), (tests.id('zoe'), 'away')
on conflict (user_id) do update set status = excluded.status;
create function tests.status_of(name text) returns text language sql as $$ select p.status from chat.search_people(status_of.name) p $$;
select tests.act_as('sue');
select tests.equals((tests.status_of('ben'), tests.status_of('zoe'))::text, '(offline,offline)', 'a super admin');
select tests.act_as('ada');
select tests.equals((tests.status_of('ben'), tests.status_of('zoe'))::text, '(away,offline)', 'an admin');
select tests.act_as('ana');
select tests.equals(tests.status_of('ben'), 'away', 'a colleague');
select tests.act_as('owner');
select tests.conversation('sue', 'ben');
select tests.act_as('sue');
select tests.equals((tests.status_of('ben'), tests.status_of('zoe'))::text, '(away,offline)', 'a partner');
select tests.act_as('owner');
delete from public.user_conversations;

-- The most recent contact comes first.
select tests.act_as('owner');
select tests.message('ana', tests.conversation('ana', 'ben'), 'hi');
select tests.act_as('ana');
select tests.equals(tests.found('an'), 'Ben Brandt, Anton', 'recent first');

-- Blocked, blocking and suspended users are not found, and a suspended user finds no user.
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ana'), tests.id('ben'));
select tests.equals(tests.found('an'), 'Anton', 'blocked');
select tests.act_as('ben');
select tests.equals(tests.found('an'), 'Anton', 'blocked by');
select tests.act_as('owner');
update public.users set status = 'suspended' where id = tests.id('anton');
select tests.act_as('ana');
select tests.equals(tests.found('an'), '', 'suspended');
select tests.act_as('anton');
select tests.equals(tests.found('an'), '', 'by a suspended user');
select tests.act_as('anon');
select tests.expect_error($$select chat.search_people('an')$$, '42501');

rollback;
