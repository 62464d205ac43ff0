-- A demonstration application, like a team dashboard before Rapport is installed. Applied before
-- the migrations.

-- A Supabase database always has this role.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    create role authenticated nologin noinherit;
  end if;
exception when duplicate_object or unique_violation then
  null;
end
$$;

create table public.teams (
  id uuid not null default gen_random_uuid(),
  name text not null,
  constraint teams_pkey primary key (id)
);

create type public.user_role as enum ('user', 'admin', 'super_admin');

create table public.users (
  id uuid not null,
  email text not null,
  full_name text,
  avatar_url text,
  role public.user_role not null default 'user',
  team_id uuid,
  status text not null default 'active',
  created_at timestamptz not null default now(),
  constraint users_pkey primary key (id),
  constraint users_email_key unique (email),
  constraint users_team_id_fkey foreign key (team_id) references public.teams (id),
  constraint users_status_is_known check (status in ('active', 'inactive', 'suspended'))
);

create index users_team_idx on public.users (team_id);

-- A definer function, because a policy on users that queries users would recurse.
create function public.my_team_id()
returns uuid
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select u.team_id
  from public.users u
  where u.id = (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;

revoke all on function public.my_team_id() from public;
grant execute on function public.my_team_id() to authenticated;

alter table public.teams enable row level security;
alter table public.users enable row level security;

grant select on public.teams, public.users to authenticated;
-- Not role, team_id or status: a user who could change their own team could message anyone.
grant update (full_name, avatar_url) on public.users to authenticated;

create policy "people see their own team" on public.teams
  for select to authenticated
  using (id = (select public.my_team_id()));

create policy "people see the members of their team" on public.users
  for select to authenticated
  using (team_id = (select public.my_team_id()));

create policy "people change their own profile" on public.users
  for update to authenticated
  using (id = (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid)
  with check (id = (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid);
