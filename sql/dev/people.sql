-- The demonstration users: Ana and Ben share a team with Ada, its admin. Zoe is in another team,
-- and Sue, the super admin, in a third. Applied after the migrations.

insert into public.teams (id, name) values
  ('00000000-0000-4000-8000-00000000007a', 'Support'),
  ('00000000-0000-4000-8000-00000000007b', 'Sales'),
  ('00000000-0000-4000-8000-00000000007c', 'Operations')
on conflict (id) do nothing;

insert into public.users (id, email, full_name, role, team_id) values
  ('00000000-0000-4000-8000-00000000000a', 'ana@example.com', 'Ana Alvarez', 'user', '00000000-0000-4000-8000-00000000007a'),
  ('00000000-0000-4000-8000-00000000000b', 'ben@example.com', 'Ben Brandt', 'user', '00000000-0000-4000-8000-00000000007a'),
  ('00000000-0000-4000-8000-00000000000c', 'zoe@example.com', 'Zoe Zhang', 'user', '00000000-0000-4000-8000-00000000007b'),
  ('00000000-0000-4000-8000-00000000000d', 'ada@example.com', 'Ada Adler', 'admin', '00000000-0000-4000-8000-00000000007a'),
  ('00000000-0000-4000-8000-00000000000e', 'sue@example.com', 'Sue Summers', 'super_admin', '00000000-0000-4000-8000-00000000007c')
on conflict (id) do nothing;

insert into auth.users (id, email, raw_app_meta_data, raw_user_meta_data)
select
  u.id,
  u.email,
  jsonb_build_object('role', u.role, 'team_id', u.team_id),
  jsonb_build_object('full_name', u.full_name)
from public.users u
where u.email like '%@example.com'
on conflict (id) do nothing;
