-- An application that no preset fits, with views of its own.

create table public.staff (login uuid primary key references auth.users (id), called text, grade int not null, leaves_on date);
create table public.shifts (worker uuid not null references public.staff (login), shift text not null);
insert into public.staff values
  (expected.id('ana'), 'Ana', 1, null), (expected.id('ben'), 'Ben', 5, null), (expected.id('cleo'), 'Cleo', 1, null),
  (expected.id('dora'), 'Dora', 1, '2020-01-01'), (expected.id('sue'), 'Sue', 9, null);
insert into public.shifts values
  (expected.id('ana'), 'night'), (expected.id('ben'), 'night'), (expected.id('cleo'), 'day'), (expected.id('dora'), 'night');

create schema rapport_host;
create view rapport_host.directory as
select
  s.login as user_id,
  s.called as display_name,
  null::text as email,
  null::text as avatar_url,
  s.leaves_on is null as is_active,
  case when s.grade >= 9 then 'super_admin' when s.grade >= 5 then 'admin' end as role
from public.staff s;
create view rapport_host.memberships as
select s.worker as user_id, s.shift as team_id from public.shifts s;

insert into expected.people values
  ('ana', 'Ana', null, 'user', true, '{night}'),
  ('ben', 'Ben', null, 'admin', true, '{night}'),
  ('cleo', 'Cleo', null, 'user', true, '{day}'),
  ('dora', 'Dora', null, 'user', false, '{night}'),
  ('sue', 'Sue', null, 'super_admin', true, '{}');
