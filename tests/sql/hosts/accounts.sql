-- The accounts of Supabase Auth, and what the test expects of each user. Every fixture is applied
-- after this file. The users of all fixtures are the same:
--   ana   a user of team red
--   ben   an admin of team red
--   cleo  a user of team blue
--   dora  in no team
--   eve   a user of both teams, where the application allows that
--   gus   a guest
--   sue   a super admin without a team, where the application has that role

create schema auth;

create table auth.users (
  id uuid primary key,
  email varchar(255),
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  created_at timestamptz,
  banned_until timestamptz,
  deleted_at timestamptz,
  is_anonymous boolean not null default false
);
alter table auth.users enable row level security;

create schema expected;

create table expected.ids (name text primary key, id uuid not null);

insert into expected.ids (name, id) values
  ('ana', '00000000-0000-4000-8000-00000000000a'),
  ('ben', '00000000-0000-4000-8000-00000000000b'),
  ('cleo', '00000000-0000-4000-8000-00000000000c'),
  ('dora', '00000000-0000-4000-8000-00000000000d'),
  ('eve', '00000000-0000-4000-8000-00000000000e'),
  ('gus', '00000000-0000-4000-8000-00000000000f'),
  ('sue', '00000000-0000-4000-8000-000000000010'),
  ('red', '00000000-0000-4000-8000-00000000007a'),
  ('blue', '00000000-0000-4000-8000-00000000007b');

create function expected.id(name text) returns uuid language sql stable as $$
  select i.id from expected.ids i where i.name = id.name
$$;

insert into auth.users (id, email, raw_user_meta_data, is_anonymous)
select i.id, case when i.name <> 'gus' then i.name || '@example.com' end, jsonb_build_object('full_name', initcap(i.name), 'role', 'super_admin', 'team_id', 'red'), i.name = 'gus'
from expected.ids i
where i.name not in ('red', 'blue');

-- The rows of chat.directory and chat.memberships. Teams are named by the fixture, because their
-- ids differ in type.
create table expected.people (
  name text primary key,
  display_name text,
  email text,
  role text not null,
  is_active boolean not null default true,
  teams text[] not null default '{}'
);
