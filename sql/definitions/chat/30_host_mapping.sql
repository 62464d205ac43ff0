-- Maps the application around the chat: determines which of its tables contain users and teams. The
-- result is three views: chat.directory (users), chat.memberships (users in teams) and chat.teams.

-- Maps an application's role names to ours; an unknown name becomes "user". Returns the text of an
-- expression instead of the role, because the views are queried for every message, and a function
-- call would cost more than the rest of the query.
create or replace function chat.role_expression(written text)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $case$case
      when lower(%1$s) in ('super_admin', 'superadmin', 'super', 'root') then 'super_admin'
      when lower(%1$s) in ('admin', 'owner', 'manager', 'team_lead') then 'admin'
      else 'user'
    end$case$,
    written
  )
$$;

revoke all on function chat.role_expression(text) from public;

-- Returns the wanted columns that exist in the table, as text expressions on the alias u, in order
-- of preference.
create or replace function chat.host_columns(host_table regclass, wanted text[])
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(format('u.%I::text', a.attname) order by w.preference), '{}')
  from unnest(wanted) with ordinality w (name, preference)
  join pg_catalog.pg_attribute a on a.attrelid = host_table and a.attname = w.name
  where a.attnum > 0 and not a.attisdropped
$$;

revoke all on function chat.host_columns(regclass, text[]) from public;

-- Returns whether the chat may read users or teams from the relation. Its owner decides which user
-- has which team and role, and a view or a cast of that owner would be executed with the rights of
-- the chat's functions. Superusers, the owner of the database and the calling login are trusted.
-- Another owner is trusted if no role of API requests can become that owner, and if such roles
-- cannot create relations in the schema.
create or replace function chat.is_trusted_host(relation regclass)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(bool_and(
    owner.rolsuper
    or owner.rolname = current_user
    or owner.oid = (select d.datdba from pg_catalog.pg_database d where d.datname = current_database())
    or not exists (
      select
      from pg_catalog.pg_roles api
      where api.rolname in ('anon', 'authenticated', 'service_role', 'authenticator', 'rapport_request')
        and not api.rolsuper
        and (pg_has_role(api.oid, owner.oid, 'MEMBER') or has_schema_privilege(api.oid, c.relnamespace, 'CREATE'))
    )
  ), false)
  from pg_catalog.pg_class c
  join pg_catalog.pg_roles owner on owner.oid = c.relowner
  where c.oid = relation
$$;

revoke all on function chat.is_trusted_host(regclass) from public;

-- Returns the texts of chat.directory and chat.memberships over a table of users that contains each
-- user's team and role.
create or replace function chat.users_table_mapping(out directory text, out memberships text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  people constant regclass := to_regclass('public.users');
  names text[] := chat.host_columns(people, array['full_name', 'name', 'display_name', 'username']);
  avatars text[] := chat.host_columns(people, array['avatar_url', 'avatar', 'image_url']);
  emails text[] := chat.host_columns(people, array['email']);
  statuses text[] := chat.host_columns(people, array['status']);
  flags text[] := chat.host_columns(people, array['is_active']);
  removals text[] := chat.host_columns(people, array['deleted_at']);
  activity text[] := '{}';
begin
  if statuses <> '{}' then
    activity := activity || format('coalesce(%s, ''active'') = ''active''', statuses[1]);
  end if;
  if flags <> '{}' then
    activity := activity || format('coalesce(%s, ''true'') = ''true''', flags[1]);
  end if;
  if removals <> '{}' then
    activity := activity || format('%s is null', removals[1]);
  end if;

  directory := format(
    'select u.id as user_id, %s as display_name, %s as email, %s as avatar_url, %s as is_active, %s as role from %s u',
    format('coalesce(%s)', array_to_string(names || 'null::text'::text, ', ')),
    coalesce(emails[1], 'null::text'),
    format('coalesce(%s)', array_to_string(avatars || 'null::text'::text, ', ')),
    coalesce(nullif(array_to_string(activity, ' and '), ''), 'true'),
    chat.role_expression('u.role::text'),
    people
  );
  memberships := format('select u.id as user_id, u.team_id::text as team_id from %s u where u.team_id is not null', people);
end
$$;

revoke all on function chat.users_table_mapping() from public;

-- Returns the texts of chat.directory and chat.memberships over the accounts themselves. Team and
-- role come from raw_app_meta_data, which users cannot change. The metadata that users can change
-- (raw_user_meta_data) supplies only a name and a picture, never a team or a role.
create or replace function chat.claims_mapping(out directory text, out memberships text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  accounts constant regclass := to_regclass('auth.users');
  bans text[] := chat.host_columns(accounts, array['banned_until']);
  removals text[] := chat.host_columns(accounts, array['deleted_at']);
  activity text[] := '{}';
begin
  if bans <> '{}' then
    activity := activity || 'coalesce(u.banned_until <= now(), true)'::text;
  end if;
  if removals <> '{}' then
    activity := activity || 'u.deleted_at is null'::text;
  end if;

  directory := format(
    $view$select u.id as user_id,
      coalesce(u.raw_user_meta_data ->> 'full_name', u.raw_user_meta_data ->> 'name') as display_name,
      u.email::text as email,
      u.raw_user_meta_data ->> 'avatar_url' as avatar_url,
      %s as is_active,
      %s as role
    from %s u$view$,
    coalesce(nullif(array_to_string(activity, ' and '), ''), 'true'),
    chat.role_expression($role$(u.raw_app_meta_data ->> 'role')$role$),
    accounts
  );
  memberships := format(
    $view$select u.id as user_id, t.team_id
    from %s u
    cross join lateral (
      select u.raw_app_meta_data ->> 'team_id' as team_id
      union
      select named.team_id
      from jsonb_array_elements_text(
        case jsonb_typeof(u.raw_app_meta_data -> 'team_ids') when 'array' then u.raw_app_meta_data -> 'team_ids' else '[]' end
      ) named (team_id)
    ) t
    where t.team_id is not null$view$,
    accounts
  );
end
$$;

revoke all on function chat.claims_mapping() from public;

-- Returns the table of teams and the text of chat.teams over it. The table is optional: without it,
-- teams have no names.
create or replace function chat.teams_mapping(out teams_table regclass, out teams text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  candidate regclass := to_regclass('public.teams');
  ids constant text[] := chat.host_columns(candidate, array['id']);
  names constant text[] := chat.host_columns(candidate, array['name', 'title', 'display_name']);
begin
  if ids <> '{}' and names <> '{}' and not chat.is_trusted_host(candidate) then
    raise warning '% is not used for the names of teams, because users of the API could be its owner %. Give it to %, or drop it.',
      candidate, (select pg_get_userbyid(c.relowner) from pg_catalog.pg_class c where c.oid = candidate), current_user;
    candidate := null;
  end if;
  if candidate is null or ids = '{}' or names = '{}' then
    teams := 'select null::text as team_id, null::text as name where false';
    return;
  end if;
  teams_table := candidate;
  teams := format('select %s as team_id, coalesce(%s) as name from %s u', ids[1], array_to_string(names, ', '), candidate);
end
$$;

revoke all on function chat.teams_mapping() from public;

-- Creates or replaces one of the three views. If possible, the view belongs to the owner of the
-- application's table, because under row-level security on that table, any other owner would see no
-- rows.
create or replace function chat.replace_host_view(view_name text, query text, host_table regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  host_owner name := (select pg_get_userbyid(c.relowner) from pg_catalog.pg_class c where c.oid = host_table);
  view_owner name := (
    select pg_get_userbyid(c.relowner)
    from pg_catalog.pg_class c
    where c.oid = to_regclass(format('chat.%I', view_name))
  );
begin
  execute format('create or replace view chat.%I as %s', view_name, query);

  if view_owner <> host_owner then
    begin
      execute format('grant create on schema chat to %I', host_owner);
      execute format('alter view chat.%I owner to %I', view_name, host_owner);
      execute format('revoke create on schema chat from %I', host_owner);
    exception when insufficient_privilege then
      if row_security_active(host_table) then
        raise warning 'View chat.% cannot be given to %, the owner of %, and row-level security hides that table from %: the chat will have no users.',
          view_name, host_owner, host_table, current_user;
      end if;
    end;
  end if;

  -- The functions of the chat run as the owner of this function. No other role reads the views.
  begin
    execute format('grant select on chat.%I to %I', view_name, current_user);
  exception when insufficient_privilege then
    null;
  end;
  execute format('revoke all on chat.%I from anon, authenticated, service_role', view_name);
end
$$;

revoke all on function chat.replace_host_view(text, text, regclass) from public;

-- Points the columns that contain user ids at the application's table of users, so that embedding
-- in queries and erasing users work.
create or replace function chat.point_people_at(people regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  reference record;
  pointed_at regclass;
begin
  for reference in
    select
      r.table_name::regclass as table_name,
      r.column_name,
      r.on_delete,
      format('%s_%s_fkey', split_part(r.table_name, '.', 2), r.column_name) as constraint_name
    from (values
      ('public.user_conversations', 'participant_1_id', 'set null'),
      ('public.user_conversations', 'participant_2_id', 'set null'),
      ('public.user_conversations', 'created_by', 'set null'),
      ('public.user_conversation_members', 'user_id', 'cascade'),
      ('public.conversation_receipts', 'user_id', 'cascade'),
      ('public.user_messages', 'sender_id', 'set null'),
      ('public.message_hides', 'user_id', 'cascade'),
      ('public.message_drafts', 'user_id', 'cascade'),
      ('public.message_reactions', 'user_id', 'cascade'),
      ('public.message_pins', 'pinned_by', 'set null'),
      ('chat.message_reports', 'reporter_id', 'set null'),
      ('chat.message_reports', 'sender_id', 'set null'),
      ('chat.idempotency_keys', 'user_id', 'cascade'),
      ('public.user_presence', 'user_id', 'cascade'),
      ('public.user_presence', 'is_typing_to', 'set null'),
      -- The tables of devices and sockets refer to presence_reports and not to users, because a
      -- report must not lock a row that other users can see.
      ('chat.presence_reports', 'user_id', 'cascade'),
      ('public.user_blocks', 'blocker_id', 'cascade'),
      ('public.user_blocks', 'blocked_id', 'cascade'),
      ('public.user_notification_preferences', 'user_id', 'cascade')
    ) as r (table_name, column_name, on_delete)
  loop
    pointed_at := (
      select c.confrelid::regclass
      from pg_catalog.pg_constraint c
      where c.conrelid = reference.table_name and c.conname = reference.constraint_name
    );
    continue when pointed_at = people;

    if pointed_at is not null then
      execute format('alter table %s drop constraint %I', reference.table_name, reference.constraint_name);
    end if;
    begin
      execute format(
        'alter table %s add constraint %I foreign key (%I) references %s (id) on delete %s',
        reference.table_name, reference.constraint_name, reference.column_name, people, reference.on_delete
      );
    exception when insufficient_privilege then
      raise warning '% may not reference %: erasing a user will not remove their rows.', current_user, people;
      return;
    end;
  end loop;
end
$$;

revoke all on function chat.point_people_at(regclass) from public;

-- Returns the table of users and the texts of chat.directory and chat.memberships for a preset. All
-- are null if the database lacks what the preset needs.
create or replace function chat.host_mapping(preset text, out people regclass, out directory text, out memberships text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  case preset
    when 'users_table' then
      if cardinality(chat.host_columns(to_regclass('public.users'), array['id', 'team_id', 'role'])) = 3 then
        people := to_regclass('public.users');
        if not chat.is_trusted_host(people) then
          raise exception 'The table % belongs to role %, which users of the API could be, so it may not decide who has which team and role.',
              people, (select pg_get_userbyid(c.relowner) from pg_catalog.pg_class c where c.oid = people)
            using errcode = 'RP003', hint = format(
              'If the table is yours, run "alter table %s owner to %I", or revoke CREATE on its schema from public. If it is not, drop it.',
              people, current_user
            );
        end if;
        select m.directory, m.memberships into directory, memberships from chat.users_table_mapping() m;
      end if;
    when 'claims' then
      people := to_regclass('auth.users');
      select m.directory, m.memberships into directory, memberships from chat.claims_mapping() m;
    when 'one_team' then
      people := to_regclass('auth.users');
      select m.directory into directory from chat.claims_mapping() m;
      memberships := format(
        'select u.id as user_id, %L::text as team_id from auth.users u',
        coalesce(
          nullif(current_setting('rapport.team', true), ''),
          (select c.value #>> '{}' from chat.config c where c.key = 'team'),
          'everyone'
        )
      );
    else
      raise exception 'Unknown host mapping "%": use auto, users_table, claims or one_team.', preset;
  end case;
end
$$;

revoke all on function chat.host_mapping(text) from public;

-- Returns the preset that "auto" stands for. Before the first sign-up, only the tables count.
-- Afterwards, a preset must give at least one user a team. Otherwise, no user could message
-- another, although the installation would appear to have succeeded.
create or replace function chat.detect_host_preset()
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  presets constant text[] := array['users_table', 'claims', 'one_team'];
  recorded constant text := (select c.value ->> 'preset' from chat.config c where c.key = 'host_mapping');
  best_by_tables constant text := case when (select m.people from chat.host_mapping('users_table') m) is null then 'claims' else 'users_table' end;
  preset text;
  mapping record;
  has_people boolean;
  has_teams boolean;
  people_count bigint;
  member_count bigint;
  candidates text := '';
begin
  -- The recorded preset comes first, because a table that appears later must not move all users to
  -- other teams.
  foreach preset in array array_remove(array[recorded, best_by_tables], null) loop
    select m.* into mapping from chat.host_mapping(preset) m;
    continue when mapping.people is null;

    execute format('select exists (%s), exists (%s)', mapping.directory, mapping.memberships) into has_people, has_teams;
    if has_teams then
      return preset;
    end if;
    if not has_people then
      raise warning 'No user has an account yet, so host mapping "%" was chosen from the tables alone. Users can message each other once they have a team (%).',
        preset, chat.host_team_source(preset);
      return preset;
    end if;
  end loop;

  foreach preset in array presets loop
    select m.* into mapping from chat.host_mapping(preset) m;
    continue when mapping.people is null;

    execute format('select count(*), (select count(distinct m.user_id) from (%s) m) from (%s) d', mapping.memberships, mapping.directory)
    into people_count, member_count;
    candidates := candidates || format(
      E'\n  %s: %s people in %s, %s with a team (%s)', preset, people_count, mapping.people, member_count, chat.host_team_source(preset)
    );
  end loop;
  raise exception using
    errcode = 'RP001',
    message = 'No user would have a team, so no user could message another. Give users teams, or choose where users and teams '
      || 'are found: chat.host_preset in the configuration, or "-v preset=NAME" with psql. Presets that fit this database:' || candidates;
end
$$;

revoke all on function chat.detect_host_preset() from public;

-- Describes the source from which a preset reads teams, for messages.
create or replace function chat.host_team_source(preset text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case preset
    when 'users_table' then 'column team_id of public.users'
    when 'claims' then 'team_id or team_ids in raw_app_meta_data of auth.users'
    when 'one_team' then 'everybody is in one team'
  end
$$;

revoke all on function chat.host_team_source(text) from public;

create or replace function chat.install_host_mapping(preset text default 'auto')
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  chosen constant text := case preset when 'auto' then chat.detect_host_preset() else preset end;
  mapping record;
  naming record;
  wanted jsonb;
begin
  select m.* into mapping from chat.host_mapping(chosen) m;
  select t.* into naming from chat.teams_mapping() t;
  if mapping.people is null then
    raise exception 'Host mapping % needs %.', chosen,
      case chosen when 'users_table' then 'a table public.users with id, team_id and role' else 'the table auth.users' end;
  end if;

  -- The texts contain names from the catalogue, so a changed application yields another
  -- mapping. If nothing changed, no DDL is executed.
  wanted := jsonb_build_object(
    'preset', chosen,
    'people', mapping.people::text,
    'text', md5(mapping.directory || mapping.memberships || naming.teams)
  );
  if wanted = (select c.value from chat.config c where c.key = 'host_mapping')
    and to_regclass('chat.directory') is not null
    and to_regclass('chat.memberships') is not null
    and to_regclass('chat.teams') is not null
  then
    -- The foreign keys are set nevertheless, because a later migration may have added tables.
    perform chat.point_people_at(mapping.people);
    return chosen;
  end if;

  perform chat.replace_host_view('directory', mapping.directory, mapping.people);
  perform chat.replace_host_view('memberships', mapping.memberships, mapping.people);
  perform chat.replace_host_view('teams', naming.teams, coalesce(naming.teams_table, mapping.people));
  perform chat.point_people_at(mapping.people);

  insert into chat.config (key, value) values ('host_mapping', wanted)
  on conflict (key) do update set value = excluded.value;
  return chosen;
end
$$;

comment on function chat.install_host_mapping(text) is
  'Writes chat.directory, chat.memberships and chat.teams for a preset and points the foreign keys at its table of users. Presets: auto, users_table (public.users with id, team_id and role), claims (auth.users with app metadata), one_team. Returns the preset in force. Does nothing if nothing changed. auto keeps the preset in force, otherwise it chooses the one that fits the tables. If users have accounts and none would have a team, it fails with SQLSTATE RP001 and lists the presets.';

revoke all on function chat.install_host_mapping(text) from public;
