-- Profiles, and organizations with members. The memberships refer to the profiles.

create type public.org_role as enum ('owner', 'member');
create table public.organizations (id uuid primary key, name text not null);
create table public.profiles (
  id uuid primary key references auth.users (id) on delete cascade,
  display_name text,
  avatar_url text
);
create table public.organization_members (
  organization_id uuid not null references public.organizations (id),
  profile_id uuid not null references public.profiles (id),
  role public.org_role not null default 'member',
  primary key (organization_id, profile_id)
);

insert into public.organizations values (expected.id('red'), 'Red'), (expected.id('blue'), 'Blue');
insert into public.profiles (id, display_name)
select i.id, initcap(i.name) from expected.ids i where i.name in ('ana', 'ben', 'cleo', 'dora', 'eve');
insert into public.organization_members values
  (expected.id('red'), expected.id('ana'), 'member'), (expected.id('red'), expected.id('ben'), 'owner'),
  (expected.id('blue'), expected.id('cleo'), 'member'),
  (expected.id('red'), expected.id('eve'), 'member'), (expected.id('blue'), expected.id('eve'), 'member');

insert into expected.people values
  ('ana', 'Ana', 'ana@example.com', 'user', true, array[expected.id('red')]),
  ('ben', 'Ben', 'ben@example.com', 'admin', true, array[expected.id('red')]),
  ('cleo', 'Cleo', 'cleo@example.com', 'user', true, array[expected.id('blue')]),
  ('dora', 'Dora', 'dora@example.com', 'user', true, '{}'),
  ('eve', 'Eve', 'eve@example.com', 'user', true, array[expected.id('red'), expected.id('blue')]);
