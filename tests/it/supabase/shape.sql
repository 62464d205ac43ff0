-- Makes a fresh cluster look like a hosted Supabase project to the login of an application.
--
-- The superuser supabase_admin runs this file once, in the database "postgres". An application logs
-- in as "postgres", which is not a superuser. This file reproduces the attributes, memberships and
-- grants of that login. The services (Auth, Storage, Realtime) own their schemas. Their tables
-- contain only what an application uses.
--
-- Known differences:
-- * supautils is absent. On Supabase, it lets "postgres" create policies on realtime.messages and
--   storage.objects, which PostgreSQL itself allows only to their owner. It also refuses to grant
--   or change reserved roles (authenticator, dashboard_user, supabase_*), which PostgreSQL itself
--   allows to every role with ADMIN on the reserved role.
-- * safeupdate is absent. On Supabase, it refuses an UPDATE or DELETE without WHERE on connections
--   of authenticator.
-- * "postgres" has fewer rights here, so that Rapport cannot depend on more: "postgres" is not a
--   member of pg_monitor, pg_read_all_data, pg_signal_backend and pg_create_subscription, and may
--   not write auth.users.
-- * realtime.messages has no partition and no publication. This is the state before the first start
--   of Supabase's Realtime server.

-- ------------------------------------------------------------------------------------------------------ roles

alter role supabase_admin createdb createrole replication bypassrls;

create role postgres login createdb createrole replication bypassrls;
alter role postgres set search_path = '$user', public, extensions;

-- The roles under which API requests run.
create role anon nologin inherit;
create role authenticated nologin inherit;
create role service_role nologin inherit bypassrls;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';

-- The login of PostgREST.
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

-- The logins of the services.
create role supabase_auth_admin login noinherit createrole;
create role supabase_storage_admin login noinherit createrole;
create role supabase_realtime_admin login noinherit createrole replication;
grant anon, authenticated, service_role to supabase_storage_admin, supabase_realtime_admin;
create role dashboard_user nologin createdb createrole replication;

-- Nothing else is granted to the application's login. Supabase grants with INHERIT and SET, which
-- are the defaults since PostgreSQL 16. ADMIN is needed since that version, because a role with
-- CREATEROLE may grant only roles that it administers.
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

-- All API roles may use everything that the application or Supabase creates in public, until that
-- right is revoked.
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

-- Policies identify the caller through these functions. The texts are Supabase's.
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
