-- A table of users with ids of its own, and a table of memberships with invitations that are not
-- accepted yet. The table allows the same membership twice.

create table public.teams (id uuid primary key, name text not null);
create table public.users (
  id bigint generated always as identity primary key,
  auth_user_id uuid not null unique references auth.users (id) on delete cascade,
  full_name text,
  email text
);
create table public.team_members (
  id bigint generated always as identity primary key,
  user_id bigint not null references public.users (id) on delete cascade,
  team_id uuid not null references public.teams (id),
  role text not null default 'member',
  accepted_at timestamptz
);

insert into public.teams values (expected.id('red'), 'Red'), (expected.id('blue'), 'Blue');
insert into public.users (auth_user_id, full_name, email)
select i.id, initcap(i.name), i.name || '@work.example' from expected.ids i where i.name in ('ana', 'ben', 'cleo', 'dora', 'eve');
insert into public.team_members (user_id, team_id, role, accepted_at)
select u.id, expected.id(m.team), m.role, m.accepted_at
from (values
  -- A super admin of one team is not a super admin of all teams.
  ('ana', 'red', 'member', now()), ('ben', 'red', 'super_admin', now()), ('cleo', 'blue', 'member', now()),
  ('dora', 'red', 'owner', null),
  ('eve', 'red', 'member', now()), ('eve', 'red', 'member', now()), ('eve', 'blue', 'member', now())
) m (name, team, role, accepted_at)
join public.users u on u.auth_user_id = expected.id(m.name);

insert into expected.people values
  ('ana', 'Ana', 'ana@work.example', 'user', true, array[expected.id('red')]),
  ('ben', 'Ben', 'ben@work.example', 'admin', true, array[expected.id('red')]),
  ('cleo', 'Cleo', 'cleo@work.example', 'user', true, array[expected.id('blue')]),
  ('dora', 'Dora', 'dora@work.example', 'user', true, '{}'),
  ('eve', 'Eve', 'eve@work.example', 'user', true, array[expected.id('red'), expected.id('blue')]);
