-- A dashboard with one table of users. Its organizations are the teams.

create table public.organizations (id uuid primary key, title text not null);
create table public.users (
  id uuid primary key references auth.users (id) on delete cascade,
  name text,
  email text,
  role varchar(20) not null default 'member',
  organization_id uuid references public.organizations (id),
  is_active boolean not null default true
);

insert into public.organizations values (expected.id('red'), 'Red'), (expected.id('blue'), 'Blue');
insert into public.users values
  (expected.id('ana'), 'Ana A.', 'ana@work.example', 'member', expected.id('red'), true),
  (expected.id('ben'), 'Ben B.', 'ben@work.example', 'Manager', expected.id('red'), true),
  (expected.id('cleo'), 'Cleo C.', 'cleo@work.example', 'member', expected.id('blue'), true),
  (expected.id('dora'), 'Dora D.', 'dora@work.example', 'member', null, true),
  (expected.id('eve'), 'Eve E.', 'eve@work.example', 'member', expected.id('red'), false),
  (expected.id('sue'), 'Sue S.', 'sue@work.example', 'super_admin', null, true);

insert into expected.people values
  ('ana', 'Ana A.', 'ana@work.example', 'user', true, array[expected.id('red')]),
  ('ben', 'Ben B.', 'ben@work.example', 'admin', true, array[expected.id('red')]),
  ('cleo', 'Cleo C.', 'cleo@work.example', 'user', true, array[expected.id('blue')]),
  ('dora', 'Dora D.', 'dora@work.example', 'user', true, '{}'),
  ('eve', 'Eve E.', 'eve@work.example', 'user', false, array[expected.id('red')]),
  ('sue', 'Sue S.', 'sue@work.example', 'super_admin', true, '{}');
