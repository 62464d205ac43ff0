-- A fresh cluster in the shape of a hosted Supabase project, as far as an application's login can tell.
--
-- A superuser called supabase_admin runs it in the database "postgres", once. What an application gets is the login
-- "postgres", without superuser: its attributes, memberships and grants are what this file is about. The services
-- (Auth, Storage, Realtime) own their schemas; their tables are here only as far as an application meets them.
--
-- Known differences:
-- * supautils is absent. There it lets "postgres" write policies on realtime.messages and storage.objects, which
--   PostgreSQL itself refuses to anybody but the owner, and it refuses grants of and changes to reserved roles
--   (authenticator, dashboard_user, supabase_*), which PostgreSQL allows to whoever has ADMIN on the granted role.
-- * safeupdate is absent. There an UPDATE or DELETE without WHERE fails in a session of authenticator.
-- * "postgres" has fewer rights here: it is no member of pg_monitor, pg_read_all_data, pg_signal_backend and
--   pg_create_subscription, and may not write auth.users, so that nothing comes to lean on any of that.
-- * realtime.messages has no partition and no publication, as before Supabase's own Realtime server has run.

-- ------------------------------------------------------------------------------------------------------ roles

alter role supabase_admin createdb createrole replication bypassrls;

create role postgres login createdb createrole replication bypassrls;
alter role postgres set search_path = '$user', public, extensions;

-- who requests of the API run as
create role anon nologin inherit;
create role authenticated nologin inherit;
create role service_role nologin inherit bypassrls;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';

-- who PostgREST logs in as
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

-- who the services log in as
create role supabase_auth_admin login noinherit createrole;
create role supabase_storage_admin login noinherit createrole;
create role supabase_realtime_admin login noinherit createrole replication;
grant anon, authenticated, service_role to supabase_storage_admin, supabase_realtime_admin;
create role dashboard_user nologin createdb createrole replication;

-- Nothing else is granted to the application's login. INHERIT and SET are the defaults since PostgreSQL 16, and both
-- hold there; ADMIN came with that version, because a role with CREATEROLE may no longer grant what it is no admin of.
grant anon, authenticated, service_role to postgres;
do $$
begin
  if current_setting('server_version_num')::int >= 160000 then
    grant anon, authenticated, service_role to postgres with admin option;
  end if;
end
$$;

-- ------------------------------------------------------------------------------- the database and its schema

alter database postgres owner to postgres;
grant all on database postgres to dashboard_user;
grant usage on schema public to postgres, anon, authenticated, service_role;

-- Whatever is made in public, by the application or by Supabase, is open to everybody until it is revoked.
alter default privileges for role postgres, supabase_admin in schema public
  grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres, supabase_admin in schema public
  grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role postgres, supabase_admin in schema public
  grant all on sequences to postgres, anon, authenticated, service_role;

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;
grant all on schema extensions to dashboard_user;

create schema graphql_public;
grant usage on schema graphql_public to postgres, anon, authenticated, service_role;

-- ------------------------------------------------------------------------------------------------------- Auth

create schema auth;
grant all on schema auth to supabase_auth_admin, dashboard_user;
grant usage on schema auth to postgres, anon, authenticated, service_role;

create table auth.users (
  instance_id uuid,
  id uuid not null,
  aud varchar(255),
  role varchar(255),
  email varchar(255),
  encrypted_password varchar(255),
  email_confirmed_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_super_admin boolean,
  created_at timestamptz,
  updated_at timestamptz,
  phone text,
  banned_until timestamptz,
  is_sso_user boolean not null default false,
  deleted_at timestamptz,
  is_anonymous boolean not null default false,
  constraint users_pkey primary key (id),
  constraint users_phone_key unique (phone)
);
create unique index users_email_partial_key on auth.users (email) where not is_sso_user;
alter table auth.users owner to supabase_auth_admin;
alter table auth.users enable row level security;
grant select, references, trigger on auth.users to postgres;
grant all on auth.users to dashboard_user;

-- The texts by which policies learn who asks. They are the ones that Rapport compiles.
create function auth.uid() returns uuid language sql stable as $$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$;

create function auth.role() returns text language sql stable as $$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$$;

create function auth.email() returns text language sql stable as $$
  select
  coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
  )::text
$$;

create function auth.jwt() returns jsonb language sql stable as $$
  select
    coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
    )::jsonb
$$;

alter function auth.uid() owner to supabase_auth_admin;
alter function auth.role() owner to supabase_auth_admin;
alter function auth.email() owner to supabase_auth_admin;
alter function auth.jwt() owner to supabase_auth_admin;

-- ---------------------------------------------------------------------------------------------------- Storage

create schema storage;
grant all on schema storage to supabase_storage_admin, dashboard_user;
grant usage on schema storage to postgres, anon, authenticated, service_role;

create table storage.buckets (
  id text not null,
  name text not null,
  owner_id text,
  public boolean not null default false,
  constraint buckets_pkey primary key (id)
);
create table storage.objects (
  id uuid not null default gen_random_uuid(),
  bucket_id text,
  name text,
  owner_id text,
  metadata jsonb,
  created_at timestamptz not null default now(),
  constraint objects_pkey primary key (id),
  constraint objects_bucket_id_fkey foreign key (bucket_id) references storage.buckets (id)
);
create unique index objects_bucket_id_name on storage.objects (bucket_id, name);
alter table storage.buckets owner to supabase_storage_admin;
alter table storage.objects owner to supabase_storage_admin;
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;
grant all on storage.buckets, storage.objects to postgres, anon, authenticated, service_role;

-- --------------------------------------------------------------------------------------------------- Realtime

create schema realtime;
grant all on schema realtime to supabase_realtime_admin;
grant usage on schema realtime to postgres with grant option;
grant usage on schema realtime to anon, authenticated, service_role;

create table realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  constraint messages_pkey primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);
alter table realtime.messages owner to supabase_realtime_admin;
alter table realtime.messages enable row level security;
grant all on realtime.messages to postgres, dashboard_user;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;

create function realtime.topic() returns text language sql stable as $$
select nullif(current_setting('realtime.topic', true), '')::text;
$$;
alter function realtime.topic() owner to supabase_realtime_admin;

create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;
