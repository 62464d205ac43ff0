-- Basejump's accounts. Most users also own a personal account, which does not count as a team.

create schema basejump;
create type basejump.account_role as enum ('owner', 'member');
create table basejump.accounts (
  id uuid primary key,
  primary_owner_user_id uuid not null references auth.users (id),
  name text,
  slug text unique,
  personal_account boolean not null default false
);
create table basejump.account_user (
  user_id uuid not null references auth.users (id) on delete cascade,
  account_id uuid not null references basejump.accounts (id) on delete cascade,
  account_role basejump.account_role not null,
  primary key (user_id, account_id)
);

insert into basejump.accounts (id, primary_owner_user_id, name, personal_account)
select i.id, i.id, case when i.name <> 'dora' then i.name end, true
from expected.ids i
where i.name in ('ana', 'ben', 'cleo', 'dora', 'eve');
insert into basejump.accounts (id, primary_owner_user_id, name, slug) values
  (expected.id('red'), expected.id('ben'), 'Red', 'red'), (expected.id('blue'), expected.id('cleo'), 'Blue', 'blue');
insert into basejump.account_user
select a.primary_owner_user_id, a.id, 'owner' from basejump.accounts a where a.personal_account;
insert into basejump.account_user values
  (expected.id('ana'), expected.id('red'), 'member'), (expected.id('ben'), expected.id('red'), 'owner'),
  (expected.id('cleo'), expected.id('blue'), 'member'),
  (expected.id('eve'), expected.id('red'), 'member'), (expected.id('eve'), expected.id('blue'), 'member');

insert into expected.people values
  ('ana', 'ana', 'ana@example.com', 'user', true, array[expected.id('red')]),
  ('ben', 'ben', 'ben@example.com', 'admin', true, array[expected.id('red')]),
  ('cleo', 'cleo', 'cleo@example.com', 'user', true, array[expected.id('blue')]),
  ('dora', 'Dora', 'dora@example.com', 'user', true, '{}'),
  ('eve', 'eve', 'eve@example.com', 'user', true, array[expected.id('red'), expected.id('blue')]),
  ('gus', 'Gus', null, 'user', false, '{}'),
  ('sue', 'Sue', 'sue@example.com', 'user', true, '{}');
