-- Profiles without a column for teams. All users are in one team.

create table public.profiles (id uuid primary key references auth.users (id), full_name text, role text);
insert into public.profiles values
  (expected.id('ana'), 'Ana A.', null), (expected.id('ben'), 'Ben B.', 'admin'), (expected.id('cleo'), 'Cleo C.', null);

insert into expected.people values
  ('ana', 'Ana A.', 'ana@example.com', 'user', true, '{everyone}'),
  ('ben', 'Ben B.', 'ben@example.com', 'admin', true, '{everyone}'),
  ('cleo', 'Cleo C.', 'cleo@example.com', 'user', true, '{everyone}');
