-- The numbers with which the server detects changed activity, roles and teams.

begin;
\ir support.sql

select set_config('tests.c', tests.conversation('ana', 'ben')::text, true);

create function tests.standing(person text)
returns bigint
language sql
as $$ select s.standing from chat.standings(array[tests.id(person)], '{}') s $$;

create function tests.pair()
returns bigint
language sql
as $$ select s.standing from chat.standings('{}', array[current_setting('tests.c')::uuid]) s $$;

-- Returns whether a statement changes the number of Ana, of Ben, and of their conversation.
create function tests.moves(statement text)
returns boolean[]
language plpgsql
as $$
declare
  ana constant bigint := tests.standing('ana');
  ben constant bigint := tests.standing('ben');
  pair constant bigint := tests.pair();
begin
  execute statement;
  return array[tests.standing('ana') <> ana, tests.standing('ben') <> ben, tests.pair() <> pair];
end
$$;

select tests.equals(tests.moves(statement), moves, statement)
from (values
  ('select 1', array[false, false, false]),
  ($$update public.users set status = 'suspended' where id = tests.id('ana')$$, array[true, false, true]),
  ($$update public.users set status = 'active' where id = tests.id('ana')$$, array[true, false, true]),
  ($$update public.users set team_id = null where id = tests.id('ben')$$, array[false, true, true]),
  ($$update public.users set role = 'super_admin' where id = tests.id('ben')$$, array[false, true, true]),
  ($$update public.users set full_name = 'Other' where id = tests.id('ben')$$, array[false, false, false]),
  ($$update public.users set status = 'suspended' where id = tests.id('zoe')$$, array[false, false, false])
) v (statement, moves);

-- There is one row for each user, existing or not, and for each existing direct conversation.
select tests.equals(
  (
    select count(*)
    from chat.standings(
      array[tests.id('ana'), tests.id('ben'), gen_random_uuid()],
      array[current_setting('tests.c')::uuid, gen_random_uuid()]
    )
  ),
  4::bigint,
  'rows');

-- Only the server may call the function.
select tests.act_as('ana');
select tests.expect_error($$select chat.standings('{}', '{}')$$, '42501');
select tests.act_as('service_role');
select count(*) from chat.standings(array[tests.id('ana')], '{}');

rollback;
