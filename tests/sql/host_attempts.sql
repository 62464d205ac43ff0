-- chat.attempt_self_promotion() tries as an ordinary user to change the user's own team and role,
-- and undoes it.

begin;
\ir support.sql

create function tests.outcomes()
returns text
language sql
as $$
  select string_agg(concat_ws(' ', a.attempt, a.column_name, a.outcome), ', ' order by a.attempt, a.column_name)
  from chat.attempt_self_promotion() a
$$;
create table tests.users_before as select * from public.users;

-- The demonstration grants only the columns of the profile.
select tests.equals(tests.outcomes(), 'insert_account id refused, update role refused, update team_id refused', 'column grants');

-- A policy for users' own rows limits which rows a user may change, but not the columns. The
-- policies for SELECT would refuse the new team, but only if the update has a condition.
grant insert, update on public.users to authenticated;
select tests.equals(tests.outcomes(), 'insert_account id refused, update role allowed, update team_id allowed', 'own row');
savepoint attack;
select tests.act_as('ana');
update public.users set team_id = '00000000-0000-4000-8000-00000000007b';
select tests.act_as('owner');
select tests.equals(team_id, '00000000-0000-4000-8000-00000000007b'::uuid, 'control: Ana changes her team') from public.users where id = tests.id('ana');
rollback to attack;

-- Anyone with a new account may create a row with any team.
create policy "people create their own row" on public.users for insert to authenticated with check (id = (select chat.my_id()));
select tests.equals(tests.outcomes(), 'insert_account id allowed, update role allowed, update team_id allowed', 'own new row');
drop policy "people create their own row" on public.users;

-- A policy that compares the new row with the old one suffices.
savepoint policies;
drop policy "people change their own profile" on public.users;
create policy "people change their own profile" on public.users for update to authenticated
  using (id = (select chat.my_id())) with check (id = (select chat.my_id()) and role = 'user' and team_id = (select public.my_team_id()));
select tests.equals(tests.outcomes(), 'insert_account id refused, update role refused, update team_id refused', 'checked row');
rollback to policies;

-- A trigger also suffices, whether it raises an error or restores the old values.
create function public.keep_rights() returns trigger language plpgsql as $$
begin
  if new.role is distinct from old.role or new.team_id is distinct from old.team_id then
    raise exception 'Only an admin may change this.';
  end if;
  return new;
end
$$;
create trigger keep_rights before update on public.users for each row execute function public.keep_rights();
select tests.equals(tests.outcomes(), 'insert_account id refused, update role refused, update team_id refused', 'raising trigger');
create or replace function public.keep_rights() returns trigger language plpgsql as $$
begin
  new.role := old.role;
  new.team_id := old.team_id;
  return new;
end
$$;
select tests.equals(tests.outcomes(), 'insert_account id refused, update role refused, update team_id refused', 'restoring trigger');

-- A trigger that cannot run proves nothing.
create or replace function public.keep_rights() returns trigger language plpgsql as $$ begin perform from missing; return new; end $$;
select tests.equals(tests.outcomes(), 'insert_account id refused, update role unknown, update team_id unknown', 'broken trigger');
drop trigger keep_rights on public.users;

-- A new row is harmless if users cannot set its team and role.
savepoint columns;
create policy "people create their own row" on public.users for insert to authenticated with check (id = (select chat.my_id()));
revoke insert on public.users from authenticated;
grant insert (id, email, full_name) on public.users to authenticated;
select tests.equals(outcome, 'refused', 'new row without a team') from chat.attempt_self_promotion() where attempt = 'insert_account';
rollback to columns;

-- A new row is also harmless if a trigger replaces its team and role. If the row also violates a
-- constraint, the attempt cannot show this.
savepoint replacing;
create policy "people create their own row" on public.users for insert to authenticated with check (id = (select chat.my_id()));
create function public.without_rights() returns trigger language plpgsql as $$
begin
  new.role := 'user';
  new.team_id := null;
  return new;
end
$$;
create trigger without_rights before insert on public.users for each row execute function public.without_rights();
select tests.equals(concat_ws(': ', outcome, detail), 'refused: the value was replaced', 'replaced') from chat.attempt_self_promotion() where attempt = 'insert_account';
alter table public.users add constraint at_work check (email like '%@work.example') not valid;
select tests.equals(outcome, 'unknown', 'violated constraint') from chat.attempt_self_promotion() where attempt = 'insert_account';
rollback to replacing;

-- Nothing was changed, and the session has its own role again.
select tests.equals(count(*), 0::bigint, 'changed')
from (table public.users except table tests.users_before) changed;
select tests.equals(current_user, session_user, 'role');

-- Without an ordinary user, there is nothing to try.
update public.users set role = 'admin';
select tests.equals(count(*), 0::bigint, 'attempts') from chat.attempt_self_promotion();

rollback;
