-- Helpers of the tests. A test includes them in its transaction, so they are rolled back with it.

\set QUIET on
\pset format unaligned
\pset tuples_only on
\o /dev/null
set local client_min_messages = warning;

create schema tests;

create table tests.people (name text primary key, id uuid not null);

insert into tests.people (name, id) values
  ('ana', '00000000-0000-4000-8000-00000000000a'),
  ('ben', '00000000-0000-4000-8000-00000000000b'),
  ('zoe', '00000000-0000-4000-8000-00000000000c'),
  ('ada', '00000000-0000-4000-8000-00000000000d'),
  ('sue', '00000000-0000-4000-8000-00000000000e');

create function tests.id(name text)
returns uuid
language sql
stable
security definer
as $$ select p.id from tests.people p where p.name = id.name $$;

-- Creates another user, in Ana's team unless a team is given.
create function tests.add_person(name text, team text default '00000000-0000-4000-8000-00000000007a', role text default 'user')
returns uuid
language plpgsql
as $$
declare
  new_id constant uuid := gen_random_uuid();
begin
  insert into public.users (id, email, full_name, role, team_id)
  values (new_id, add_person.name || '@example.org', initcap(add_person.name), add_person.role::public.user_role, add_person.team::uuid);
  insert into auth.users (id, email) values (new_id, add_person.name || '@example.org');
  insert into tests.people (name, id) values (add_person.name, new_id);
  return new_id;
end
$$;

-- Makes the following statements run as this user, like a request, or as anon, service_role or the
-- owner.
create function tests.act_as(actor text)
returns void
language plpgsql
as $$
declare
  who constant uuid := tests.id(actor);
begin
  if actor = 'owner' then
    perform set_config('request.jwt.claims', '', true);
    perform set_config('role', 'none', true);
  elsif who is not null then
    perform set_config('request.jwt.claims', json_build_object('sub', who, 'role', 'authenticated')::pg_catalog.text, true);
    perform set_config('role', 'authenticated', true);
  elsif actor in ('anon', 'service_role') then
    perform set_config('request.jwt.claims', json_build_object('role', actor)::pg_catalog.text, true);
    perform set_config('role', actor, true);
  else
    raise exception 'Nobody is called %', actor;
  end if;
end
$$;

create function tests.equals(actual anyelement, expected anyelement, what text)
returns void
language plpgsql
as $$
begin
  if actual is distinct from expected then
    raise exception '%: expected %, got %', what, coalesce(expected::text, 'null'), coalesce(actual::text, 'null');
  end if;
end
$$;

create function tests.holds(fact boolean, what text)
returns void
language plpgsql
as $$
begin
  if fact is not true then
    raise exception 'does not hold: %', what;
  end if;
end
$$;

-- Expects an error. "reason" is a SQLSTATE, or an error code, which is in the constraint field.
create function tests.expect_error(statement text, reason text)
returns void
language plpgsql
as $$
declare
  state text;
  code text;
begin
  begin
    execute statement;
  exception when others then
    get stacked diagnostics state = returned_sqlstate, code = constraint_name;
    if reason in (state, code) then
      return;
    end if;
    raise exception 'expected %, got % (%): % from %', reason, state, code, sqlerrm, statement;
  end;
  raise exception 'expected %, got no error from %', reason, statement;
end
$$;

-- Returns the result of a statement, which is rolled back immediately. The result is the number of
-- rows read or changed, or "refused".
create function tests.attempt(statement text)
returns text
language plpgsql
as $$
declare
  outcome bigint;
begin
  begin
    execute statement;
    get diagnostics outcome = row_count;
    raise exception using errcode = 'TS000';
  exception
    when sqlstate 'TS000' then
      return outcome::pg_catalog.text;
    when insufficient_privilege or sqlstate 'PT403' or sqlstate 'PT404' or sqlstate 'PT401' then
      return 'refused';
  end;
end
$$;

-- Opens a conversation between two users as the first of them. Afterwards, the session runs as the
-- owner again.
create function tests.conversation(opener text, other text)
returns uuid
language plpgsql
as $$
declare
  opened uuid;
begin
  perform tests.act_as(opener);
  select o.conversation_id into opened from chat.open_conversation(tests.id(other)) o;
  perform tests.act_as('owner');
  return opened;
end
$$;

create function tests.message(sender text, conversation uuid, content text)
returns uuid
language plpgsql
as $$
declare
  sent uuid;
begin
  perform tests.act_as(sender);
  select s.message_id into sent from chat.send_message(conversation, content) s;
  perform tests.act_as('owner');
  return sent;
end
$$;

grant usage on schema tests to public;
grant select on tests.people to public;
