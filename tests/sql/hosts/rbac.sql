-- The roles of Supabase's guide to role-based access. There are no teams, so only a super admin may
-- write to others.

create type public.app_role as enum ('admin', 'moderator', 'super_admin');
create table public.user_roles (
  id bigint generated always as identity primary key,
  user_id uuid not null references auth.users (id) on delete cascade,
  role public.app_role not null,
  unique (user_id, role)
);
insert into public.user_roles (user_id, role) values
  (expected.id('ben'), 'moderator'), (expected.id('ben'), 'admin'),
  (expected.id('sue'), 'super_admin'), (expected.id('sue'), 'admin'), (expected.id('cleo'), 'moderator');

insert into expected.people values
  ('ana', 'Ana', 'ana@example.com', 'user'), ('ben', 'Ben', 'ben@example.com', 'admin'),
  ('cleo', 'Cleo', 'cleo@example.com', 'user'), ('dora', 'Dora', 'dora@example.com', 'user'),
  ('eve', 'Eve', 'eve@example.com', 'user'), ('sue', 'Sue', 'sue@example.com', 'super_admin');
insert into expected.people values ('gus', 'Gus', null, 'user', false);
