-- Makerkit's accounts: personal ones and teams are in one table.

create table public.roles (name varchar(50) primary key, hierarchy_level int not null);
create table public.accounts (
  id uuid primary key,
  primary_owner_user_id uuid not null references auth.users (id) on delete cascade,
  name varchar(255) not null,
  slug text unique,
  email varchar(320) unique,
  is_personal_account boolean not null default false,
  picture_url varchar(1000)
);
create unique index unique_personal_account on public.accounts (primary_owner_user_id) where is_personal_account;
create table public.accounts_memberships (
  user_id uuid not null references auth.users (id) on delete cascade,
  account_id uuid not null references public.accounts (id) on delete cascade,
  account_role varchar(50) not null references public.roles (name),
  primary key (user_id, account_id)
);

insert into public.roles values ('owner', 1), ('member', 2);
insert into public.accounts (id, primary_owner_user_id, name, email, is_personal_account)
select i.id, i.id, initcap(i.name), i.name || '@work.example', true
from expected.ids i
where i.name in ('ana', 'ben', 'cleo', 'dora', 'eve');
insert into public.accounts (id, primary_owner_user_id, name, slug) values
  (expected.id('red'), expected.id('ben'), 'Red', 'red'), (expected.id('blue'), expected.id('cleo'), 'Blue', 'blue');
insert into public.accounts_memberships values
  (expected.id('ana'), expected.id('red'), 'member'), (expected.id('ben'), expected.id('red'), 'owner'),
  (expected.id('cleo'), expected.id('blue'), 'member'),
  (expected.id('eve'), expected.id('red'), 'member'), (expected.id('eve'), expected.id('blue'), 'member');

insert into expected.people values
  ('ana', 'Ana', 'ana@work.example', 'user', true, array[expected.id('red')]),
  ('ben', 'Ben', 'ben@work.example', 'admin', true, array[expected.id('red')]),
  ('cleo', 'Cleo', 'cleo@work.example', 'user', true, array[expected.id('blue')]),
  ('dora', 'Dora', 'dora@work.example', 'user', true, '{}'),
  ('eve', 'Eve', 'eve@work.example', 'user', true, array[expected.id('red'), expected.id('blue')]);
