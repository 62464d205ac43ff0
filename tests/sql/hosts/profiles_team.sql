-- Profiles as in Supabase's examples, with a tenant. Email addresses are only in auth.users.

create table public.profiles (
  id bigint generated always as identity primary key,
  user_id uuid not null unique references auth.users (id) on delete cascade,
  username text,
  avatar_url text,
  role text,
  tenant_id int
);

insert into public.profiles (user_id, username, role, tenant_id) values
  (expected.id('ana'), 'ana', null, 1),
  (expected.id('ben'), 'ben', 'admin', 1),
  (expected.id('cleo'), 'cleo', null, 2),
  (expected.id('dora'), 'dora', null, null),
  (expected.id('sue'), 'sue', 'super_admin', null);

insert into expected.people values
  ('ana', 'ana', 'ana@example.com', 'user', true, '{1}'),
  ('ben', 'ben', 'ben@example.com', 'admin', true, '{1}'),
  ('cleo', 'cleo', 'cleo@example.com', 'user', true, '{2}'),
  ('dora', 'dora', 'dora@example.com', 'user', true, '{}'),
  ('sue', 'sue', 'sue@example.com', 'super_admin', true, '{}');
