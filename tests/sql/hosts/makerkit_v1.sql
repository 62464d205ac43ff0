-- The first version of Makerkit: roles are numbers, and an invitation is a membership without a
-- user.

create table public.users (id uuid primary key references auth.users (id), display_name text, photo_url text, onboarded boolean not null default true);
create table public.organizations (id bigint primary key, name text not null);
create table public.memberships (
  id bigint generated always as identity primary key,
  user_id uuid references public.users (id),
  organization_id bigint not null references public.organizations (id),
  role int not null,
  invited_email text,
  code text,
  unique (user_id, organization_id)
);

insert into public.users (id, display_name)
select i.id, initcap(i.name) from expected.ids i where i.name in ('ana', 'ben', 'cleo', 'dora', 'eve');
insert into public.organizations values (1, 'Red'), (2, 'Blue');
insert into public.memberships (user_id, organization_id, role, invited_email) values
  (expected.id('ana'), 1, 0, null), (expected.id('ben'), 1, 1, null), (expected.id('cleo'), 2, 0, null),
  (null, 1, 0, 'dora@example.com'), (expected.id('eve'), 1, 0, null), (expected.id('eve'), 2, 2, null);

insert into expected.people values
  ('ana', 'Ana', 'ana@example.com', 'user', true, '{1}'),
  ('ben', 'Ben', 'ben@example.com', 'admin', true, '{1}'),
  ('cleo', 'Cleo', 'cleo@example.com', 'user', true, '{2}'),
  ('dora', 'Dora', 'dora@example.com', 'user', true, '{}'),
  ('eve', 'Eve', 'eve@example.com', 'admin', true, '{1,2}');
