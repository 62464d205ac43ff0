-- Whom a search finds.

begin;
\ir support.sql

select tests.add_person('anton'), tests.add_person('tania', '00000000-0000-4000-8000-00000000007b');

create function tests.found(query text)
returns text
language sql
as $$ select coalesce(string_agg(p.full_name, ', '), '') from chat.search_people(query) p $$;

-- one's team, never oneself, by name or address, in any case
select tests.act_as('ana');
select tests.equals(tests.found('an'), 'Anton, Ben Brandt', 'own team');
select tests.equals(tests.found('BEN@EXAMPLE'), 'Ben Brandt', 'address');
select tests.equals(tests.found('ana'), '', 'not oneself, nor another team');
select tests.equals(tests.found('a'), '', 'one character');
select tests.equals(tests.found('  '), '', 'none');
select tests.equals(tests.found(null), '', 'null');
select tests.equals(tests.found('%%'), '', 'a pattern is text');
select tests.equals(tests.found('__'), '', 'a pattern is text');
select tests.equals(count(*), 1::bigint, 'as many as asked for') from chat.search_people('an', 1);

-- letters as they are typed without their marks, either way
select tests.act_as('owner');
select tests.add_person('łukasz œrsted');
select tests.act_as('ana');
select tests.equals(tests.found('LUKASZ'), 'Łukasz Œrsted', 'without marks');
select tests.equals(tests.found('sz oers'), 'Łukasz Œrsted', 'two letters for one');
select tests.equals(tests.found('ánton'), 'Anton', 'marks that are not there');
select tests.equals(tests.found('l!'), '', 'one character and a mark');
select tests.act_as('owner');
update public.users set status = 'suspended' where id = tests.id('łukasz œrsted');

-- everybody, for a super admin; across teams for an admin only when switched on
select tests.act_as('sue');
select tests.equals(tests.found('an'), 'Ana Alvarez, Anton, Ben Brandt, Tania, Zoe Zhang', 'everywhere');
select tests.act_as('ada');
select tests.equals(tests.found('an'), 'Ana Alvarez, Anton, Ben Brandt', 'an admin''s team');
select tests.act_as('owner');
update chat.config set value = 'true' where key = 'admin_cross_team';
select tests.act_as('ada');
select tests.equals(tests.found('an'), 'Ana Alvarez, Anton, Ben Brandt, Tania, Zoe Zhang', 'across teams');

-- whom one talked to last comes first
select tests.act_as('owner');
select tests.message('ana', tests.conversation('ana', 'ben'), 'hi');
select tests.act_as('ana');
select tests.equals(tests.found('an'), 'Ben Brandt, Anton', 'recent first');

-- not the blocked, either way, nor the suspended; and the suspended find nobody
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ana'), tests.id('ben'));
select tests.equals(tests.found('an'), 'Anton', 'blocked');
select tests.act_as('ben');
select tests.equals(tests.found('an'), 'Anton', 'blocked by');
select tests.act_as('owner');
update public.users set status = 'suspended' where id = tests.id('anton');
select tests.act_as('ana');
select tests.equals(tests.found('an'), '', 'suspended');
select tests.act_as('anton');
select tests.equals(tests.found('an'), '', 'by the suspended');
select tests.act_as('anon');
select tests.expect_error($$select chat.search_people('an')$$, '42501');

rollback;
