-- What a Supabase database has and a bare PostgreSQL lacks. Each piece is made only where it is missing;
-- what Supabase (or anyone) made before us is never altered. Works without superuser for an owner of the
-- database who may create roles; what only a superuser may do is said with a NOTICE.

-- Roles belong to the whole cluster: another installation may be creating the same one right now.
do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('anon', 'nologin noinherit'),
      ('authenticated', 'nologin noinherit'),
      ('service_role', 'nologin noinherit'),
      -- may log in once somebody gives it a password
      ('authenticator', 'nologin noinherit'),
      ('supabase_realtime_admin', 'nologin noinherit'),
      -- Where the server parks its pooled connections: a statement whose BEGIN or role setting failed runs
      -- with no rights at all. It must never be granted anything.
      ('rapport_request', 'nologin noinherit')
    ) as r (name, attributes)
    where not exists (select from pg_catalog.pg_roles where rolname = r.name)
  loop
    begin
      execute format('create role %I %s', wanted.name, wanted.attributes);
    exception when duplicate_object or unique_violation then
      null;
    end;
    if wanted.name = 'service_role' then
      begin
        alter role service_role bypassrls;
      exception when insufficient_privilege then
        raise notice 'Only a superuser can let service_role bypass row-level security: run "alter role service_role bypassrls" as one.';
      end;
    end if;
  end loop;
end
$$;

do $$
declare
  membership record;
begin
  for membership in
    select * from (values
      ('anon', 'authenticator'),
      ('authenticated', 'authenticator'),
      ('service_role', 'authenticator'),
      ('rapport_request', 'authenticator'),
      -- whoever installs runs the server, or grants these to the role that does
      ('anon', current_user),
      ('authenticated', current_user),
      ('service_role', current_user),
      ('rapport_request', current_user),
      ('supabase_realtime_admin', current_user)
    ) as m (granted, member)
    where not exists (
      select
      from pg_catalog.pg_auth_members am
      where am.roleid = m.granted::text::regrole and am.member = m.member::text::regrole
    )
  loop
    begin
      execute format('grant %I to %I', membership.granted, membership.member);
    exception
      when unique_violation then
        null;
      when insufficient_privilege or invalid_grant_operation then
        raise notice 'Could not grant % to %: have it granted by a role that may.', membership.granted, membership.member;
    end;
  end loop;
end
$$;

-- ---------------------------------------------------------------------------------------------- auth

do $$
begin
  if to_regnamespace('auth') is not null then
    return;
  end if;

  create schema auth;
  -- the mark by which the definitions know that the functions of this schema are ours to keep current
  comment on schema auth is 'Made by Rapport: the part of Supabase Auth that policies and applications rely on.';
  grant usage on schema auth to anon, authenticated, service_role;
end
$$;

do $$
begin
  if to_regclass('auth.users') is not null then
    return;
  end if;

  create table auth.users (
    id uuid not null default gen_random_uuid(),
    email text,
    -- written by the server only: team and role are read from here, never from raw_user_meta_data
    raw_app_meta_data jsonb not null default '{}',
    -- written by the person
    raw_user_meta_data jsonb not null default '{}',
    banned_until timestamptz,
    deleted_at timestamptz,
    last_sign_in_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint users_pkey primary key (id)
  );
  comment on table auth.users is 'One row per account.';
  alter table auth.users enable row level security;
  grant all on auth.users to service_role;
end
$$;

-- ------------------------------------------------------------------------------------------ realtime

do $$
begin
  if to_regnamespace('realtime') is not null then
    return;
  end if;

  create schema realtime;
  comment on schema realtime is 'Made by Rapport: what applications and policies use of Supabase Realtime.';
  grant usage on schema realtime to anon, authenticated, service_role;
  grant usage, create on schema realtime to supabase_realtime_admin;
end
$$;

do $$
begin
  if to_regclass('realtime.messages') is not null then
    return;
  end if;

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
  -- the mark by which partitions and functions are known to be ours to look after
  comment on table realtime.messages is
    'Made by Rapport: broadcasts sent from the database, one partition a day. Policies on it decide who may use a private channel.';

  -- serves replay: the newest private broadcasts of a topic
  create index messages_inserted_at_topic_index
    on realtime.messages (inserted_at desc, topic)
    where extension = 'broadcast' and private is true;

  -- catches what arrives on a day whose partition was never made, so that nothing sent is lost
  create table realtime.messages_default partition of realtime.messages default;

  alter table realtime.messages enable row level security;
  alter table realtime.messages_default enable row level security;
  grant select, insert, update on realtime.messages to anon, authenticated, service_role;

  begin
    alter table realtime.messages owner to supabase_realtime_admin;
    alter table realtime.messages_default owner to supabase_realtime_admin;
  exception when insufficient_privilege then
    raise notice 'realtime.messages stays with %: it may not be given to supabase_realtime_admin.', current_user;
  end;
end
$$;

-- --------------------------------------------------------------------------------------- publication

do $$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
exception when insufficient_privilege then
  raise notice 'Publication supabase_realtime is missing and % may not create it: row changes will not reach subscribers.', current_user;
end
$$;
