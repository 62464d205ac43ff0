-- The presets of the host mapping. Each preset is a function that returns what it reads from the
-- application, with the queries of chat.directory and chat.memberships.

comment on type chat.host_source is
  'What a preset of chat.install_host_mapping() reads from the application.';

-- The presets, in the order in which they are listed. "auto" chooses only among those with
-- "is_detected", and it chooses "claims" only if none of the others fits.
create or replace function chat.host_presets()
returns table (place int, preset text, is_detected boolean, needs text, team_source text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    (1, 'basejump', true, 'basejump.account_user and basejump.accounts', 'basejump.account_user, without personal accounts'),
    (2, 'makerkit', true, 'public.accounts_memberships and public.accounts with is_personal_account', 'public.accounts_memberships, without personal accounts'),
    (3, 'users_members', true, 'a table public.users and one table of memberships, such as public.team_members', 'the table of memberships'),
    (4, 'profiles_members', true, 'a table public.profiles and one table of memberships, such as public.team_members', 'the table of memberships'),
    (5, 'users_table', true, 'a table public.users with id, team_id and role', 'the team column of public.users'),
    (6, 'profiles_team', true, 'a table public.profiles with a team column, such as team_id', 'the team column of public.profiles'),
    (7, 'makerkit_v1', true, 'public.users with display_name and photo_url, public.organizations, and public.memberships with an integer role', 'public.memberships'),
    (8, 'claims', true, 'the table auth.users', 'team_id or team_ids in raw_app_meta_data of auth.users'),
    (9, 'one_team', false, 'the table auth.users', 'everybody is in one team'),
    (10, 'rbac', false, 'the table public.user_roles with user_id and role', 'nobody is in a team'),
    (11, 'own_views', false, 'the views rapport_host.directory and rapport_host.memberships with the columns of chat.directory and chat.memberships', 'rapport_host.memberships')
$$;

revoke all on function chat.host_presets() from public;

-- Returns the source for a table of users or profiles that contains each user's team, and perhaps
-- the role.
create or replace function chat.team_column_source(people regclass, recorded jsonb)
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source;
  team record;
  role record;
begin
  select t.* into team from chat.team_column(people, recorded ->> 'team') t;
  select r.* into role from chat.role_column(people) r;
  source.people := people;
  source.people_key := chat.account_column(people);
  if source.people_key is null or (team.column_name is null and team.problem is null) then
    return null;
  elsif team.problem is not null then
    source.problem := team.problem;
    return source;
  end if;

  source.team := team.column_name;
  select q.query, q.tables into source.directory, source.directory_tables
  from chat.people_query(
    people, source.people_key,
    case when role.column_name is null then '''user''' else chat.role_expression(format('u.%I::text', role.column_name)) end
  ) q;
  source.memberships := format(
    'select u.%I as user_id, u.%I::text as team_id from %s u where u.%I is not null', source.people_key, team.column_name, people, team.column_name
  );
  source.memberships_tables := array[people];
  select r.target, r.target_column into source.teams, source.teams_key from chat.referenced_column(people, team.column_name) r;
  source.watched := jsonb_build_array(jsonb_build_object(
    'table', people::text, 'person', source.people_key, 'team', team.column_name, 'role', role.column_name, 'is_person', true
  ));
  return source;
end
$$;

revoke all on function chat.team_column_source(regclass, jsonb) from public;

-- Returns the source for a table of users or profiles and a table that contains which user is a
-- member of which team.
create or replace function chat.member_table_source(people regclass, recorded jsonb)
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source;
  candidate record;
  team record;
  role record;
  reference record;
  account text;
  joined text;
  fitting regclass[] := '{}';
  result chat.host_source;
begin
  source.people := people;
  source.people_key := chat.account_column(people);
  if source.people_key is null then
    return null;
  end if;

  for candidate in
    select distinct on (c.oid) c.oid::regclass as members, a.attname as person, a.atttypid as person_type
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public'
    join unnest(array['user_id', 'profile_id', 'member_id']) with ordinality w (name, place) on true
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = w.name and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'p') and c.relname in (
      'team_members', 'memberships', 'members', 'organization_members', 'org_members', 'workspace_members',
      'account_members', 'teams_members', 'user_teams'
    )
    order by c.oid, w.place
  loop
    select t.* into team from chat.team_column(candidate.members, recorded ->> 'team') t;
    select r.* into role from chat.role_column(candidate.members) r;
    -- Numbers as roles have no known meaning.
    continue when (team.column_name is null and team.problem is null) or not coalesce(role.are_words, true);
    select r.target, r.target_column into reference from chat.referenced_column(candidate.members, candidate.person) r;

    -- The column contains either the id of an account, or a key of the table of users. A uuid
    -- without a foreign key is the id of an account if the table of users has that id as "id".
    if chat.refers_to_accounts(candidate.members, candidate.person) or (reference.target = people and reference.target_column = source.people_key)
      or (reference.target is null and candidate.person_type = 'uuid'::regtype and source.people_key = 'id')
    then
      account := format('m.%I', candidate.person);
      joined := '';
    elsif reference.target = people then
      account := format('u.%I', source.people_key);
      joined := format(' join %s u on u.%I = m.%I', people, reference.target_column, candidate.person);
    else
      continue;
    end if;

    if team.problem is not null then
      source.problem := team.problem;
      result := source;
      fitting := fitting || candidate.members;
      continue;
    end if;
    source.problem := null;
    source.members := candidate.members;
    source.team := team.column_name;
    select q.query, q.tables into source.directory, source.directory_tables
    from chat.people_query(people, source.people_key, chat.team_role_expression(
      candidate.members, role.column_name,
      format('m.%I = u.%I', candidate.person, case when joined = '' then source.people_key else reference.target_column end)
    )) q;
    source.directory_tables := source.directory_tables || case when role.column_name is null then '{}' else array[candidate.members] end;
    source.memberships := chat.memberships_query(candidate.members, candidate.person, team.column_name, account, joined);
    source.memberships_tables := array[candidate.members] || case when joined = '' then '{}' else array[people] end;
    select r.target, r.target_column into source.teams, source.teams_key from chat.referenced_column(candidate.members, team.column_name) r;
    source.watched := jsonb_build_array(jsonb_build_object(
      'table', candidate.members::text, 'person', candidate.person, 'team', team.column_name, 'role', role.column_name, 'is_person', false,
      'own', case when joined <> '' then
        format('select u.%I::text from %s u where u.%I = $1', reference.target_column, people, source.people_key)
      end
    ));
    result := source;
    fitting := fitting || candidate.members;
    -- A table that appears later does not replace the one in use.
    if candidate.members::text = recorded ->> 'members' then
      return result;
    end if;
  end loop;

  if recorded ->> 'members' is not null or cardinality(fitting) > 1 then
    result := null;
    result.problem := case
      when recorded ->> 'members' is not null then format('the table %s is missing or has changed', recorded ->> 'members')
      else format('several tables could contain the memberships: %s', array_to_string(fitting, ', '))
    end;
  end if;
  return result;
end
$$;

revoke all on function chat.member_table_source(regclass, jsonb) from public;

-- Basejump: accounts with members. Each user also has a personal account, which does not count as a
-- team.
create or replace function chat.basejump_source()
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source;
  members constant regclass := to_regclass('basejump.account_user');
  accounts constant regclass := to_regclass('basejump.accounts');
begin
  if to_regclass('auth.users') is null
    or not chat.is_table_with(members, array['user_id', 'account_id', 'account_role'])
    or not chat.is_table_with(accounts, array['id', 'personal_account'])
  then
    return null;
  end if;
  source.people := to_regclass('auth.users');
  source.people_key := 'id';
  -- A personal account has the id of its user.
  source.directory := chat.accounts_query(
    chat.team_role_expression(members, 'account_role', format(
      'm.user_id = u.id and exists (select from %s t where t.id = m.account_id and not t.personal_account)', accounts
    )),
    coalesce((chat.host_columns(accounts, array['name'], 'a'))[1], 'null::text'),
    format('left join %s a on a.id = u.id and a.personal_account', accounts)
  );
  source.directory_tables := array[source.people, accounts, members];
  source.memberships := chat.memberships_query(
    members, 'user_id', 'account_id', 'm.user_id', format(' join %s t on t.id = m.account_id and not t.personal_account', accounts)
  );
  source.memberships_tables := array[members, accounts];
  source.teams := accounts;
  source.teams_key := 'id';
  source.watched := jsonb_build_array(jsonb_build_object(
    'table', members::text, 'person', 'user_id', 'team', 'account_id', 'role', 'account_role', 'is_person', false
  ));
  return source;
end
$$;

revoke all on function chat.basejump_source() from public;

-- Makerkit: accounts of users and of teams in one table.
create or replace function chat.makerkit_source()
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source;
  members constant regclass := to_regclass('public.accounts_memberships');
  accounts constant regclass := to_regclass('public.accounts');
begin
  if to_regclass('auth.users') is null
    or not chat.is_table_with(members, array['user_id', 'account_id', 'account_role'])
    or not chat.is_table_with(accounts, array['id', 'is_personal_account', 'primary_owner_user_id', 'name', 'email', 'picture_url'])
  then
    return null;
  end if;
  -- The chat's foreign keys refer to auth.users, because public.accounts also contains teams.
  source.people := to_regclass('auth.users');
  source.people_key := 'id';
  source.directory := format(
    'select u.primary_owner_user_id as user_id, u.name::text as display_name, u.email::text as email, u.picture_url::text as avatar_url, true as is_active, %s as role from %s u where u.is_personal_account',
    chat.team_role_expression(members, 'account_role', format(
      'm.user_id = u.primary_owner_user_id and exists (select from %s t where t.id = m.account_id and not t.is_personal_account)', accounts
    )),
    accounts
  );
  source.directory_tables := array[accounts, members];
  source.memberships := chat.memberships_query(
    members, 'user_id', 'account_id', 'm.user_id', format(' join %s t on t.id = m.account_id and not t.is_personal_account', accounts)
  );
  source.memberships_tables := array[members, accounts];
  source.teams := accounts;
  source.teams_key := 'id';
  source.watched := jsonb_build_array(jsonb_build_object(
    'table', members::text, 'person', 'user_id', 'team', 'account_id', 'role', 'account_role', 'is_person', false
  ));
  return source;
end
$$;

revoke all on function chat.makerkit_source() from public;

-- The first version of Makerkit, whose roles are numbers: 2 owns an organization, 1 is an admin.
create or replace function chat.makerkit_v1_source()
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source;
  members constant regclass := to_regclass('public.memberships');
  organizations constant regclass := to_regclass('public.organizations');
begin
  source.people := to_regclass('public.users');
  source.people_key := 'id';
  if not chat.is_table_with(source.people, array['id', 'display_name', 'photo_url'])
    or not chat.is_unique_column(source.people, 'id')
    or not chat.is_table_with(organizations, array['id'])
    or not chat.is_table_with(members, array['user_id', 'organization_id', 'role'])
    or not exists (
      select
      from pg_catalog.pg_attribute a
      where a.attrelid = members and a.attname = 'role' and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
    )
  then
    return null;
  end if;
  select q.query, q.tables into source.directory, source.directory_tables
  from chat.people_query(source.people, 'id', format(
    'case when exists (select from %s m where m.user_id = u.id and m.role in (1, 2) and %s) then ''admin'' else ''user'' end',
    members, chat.activity_condition(members, 'm')
  )) q;
  source.directory_tables := source.directory_tables || members;
  source.memberships := chat.memberships_query(members, 'user_id', 'organization_id', 'm.user_id');
  source.memberships_tables := array[members];
  source.teams := organizations;
  source.teams_key := 'id';
  source.watched := jsonb_build_array(jsonb_build_object(
    'table', members::text, 'person', 'user_id', 'team', 'organization_id', 'role', 'role', 'is_person', false
  ));
  return source;
end
$$;

revoke all on function chat.makerkit_v1_source() from public;

-- Returns the source of users for presets whose teams do not come from the application's tables.
-- The users come from the table in use, otherwise from the first that fits of public.users,
-- public.profiles and auth.users.
create or replace function chat.people_source(recorded jsonb, role text default null)
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source;
  candidate regclass;
  stored_role record;
begin
  foreach candidate in array array_remove(case
    when recorded ->> 'people' is not null then array[to_regclass(recorded ->> 'people')]
    else array[to_regclass('public.users'), to_regclass('public.profiles'), to_regclass('auth.users')]
  end, null) loop
    source.people := candidate;
    if candidate = to_regclass('auth.users') then
      source.people_key := 'id';
      source.directory := chat.accounts_query(role);
      source.directory_tables := array[candidate];
      source.watched := jsonb_build_array(jsonb_build_object('table', 'auth.users', 'person', 'id', 'role', 'raw_app_meta_data', 'is_person', true));
      return source;
    end if;
    source.people_key := chat.account_column(candidate);
    if source.people_key is not null then
      select r.* into stored_role from chat.role_column(candidate) r where r.are_words;
      select q.query, q.tables into source.directory, source.directory_tables
      from chat.people_query(candidate, source.people_key, case
        when role is not null then role
        when stored_role.column_name is not null then chat.role_expression(format('u.%I::text', stored_role.column_name))
        else '''user'''
      end) q;
      source.watched := jsonb_build_array(jsonb_build_object(
        'table', candidate::text, 'person', source.people_key, 'role', case when role is null then stored_role.column_name end, 'is_person', true
      ));
      return source;
    end if;
  end loop;
  return null;
end
$$;

revoke all on function chat.people_source(jsonb, text) from public;

-- The accounts, with team and role in their app metadata.
create or replace function chat.claims_source()
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source := chat.people_source('{"people": "auth.users"}');
begin
  if source.people is distinct from to_regclass('auth.users') then
    return null;
  end if;
  source.memberships := $view$select u.id as user_id, t.team_id
    from auth.users u
    cross join lateral (
      select u.raw_app_meta_data ->> 'team_id' as team_id
      union
      select named.team_id
      from jsonb_array_elements_text(
        case jsonb_typeof(u.raw_app_meta_data -> 'team_ids') when 'array' then u.raw_app_meta_data -> 'team_ids' else '[]' end
      ) named (team_id)
    ) t
    where t.team_id is not null$view$;
  source.memberships_tables := array[source.people];
  return source;
end
$$;

revoke all on function chat.claims_source() from public;

-- One team for all users.
create or replace function chat.one_team_source(recorded jsonb)
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source := chat.people_source(recorded);
begin
  if source.people is null then
    return null;
  end if;
  source.memberships := format(
    'select u.%I as user_id, %L::text as team_id from %s u',
    source.people_key,
    coalesce(
      nullif(current_setting('rapport.team', true), ''),
      (select c.value #>> '{}' from chat.config c where c.key = 'team'),
      'everyone'
    ),
    source.people
  );
  source.memberships_tables := array[source.people];
  return source;
end
$$;

revoke all on function chat.one_team_source(jsonb) from public;

-- The table of roles from Supabase's guide to role-based access. It contains no teams.
create or replace function chat.rbac_source(recorded jsonb)
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source;
  roles constant regclass := to_regclass('public.user_roles');
  written constant text := chat.role_expression('m.role::text');
begin
  if not chat.is_table_with(roles, array['user_id', 'role']) then
    return null;
  end if;
  source := chat.people_source(recorded);
  if source.people is null then
    return null;
  end if;
  source := chat.people_source(recorded, format(
    'case (select max(case %s when ''super_admin'' then 2 when ''admin'' then 1 end) from %s m where m.user_id = u.%I) when 2 then ''super_admin'' when 1 then ''admin'' else ''user'' end',
    written, roles, source.people_key
  ));
  source.directory_tables := source.directory_tables || roles;
  source.memberships := 'select null::uuid as user_id, null::text as team_id where false';
  source.memberships_tables := '{}';
  source.watched := jsonb_build_array(jsonb_build_object(
    'table', roles::text, 'person', 'user_id', 'role', 'role', 'is_person', false
  ));
  return source;
end
$$;

revoke all on function chat.rbac_source(jsonb) from public;

-- Two views that the owner of the database wrote for the chat.
create or replace function chat.own_views_source()
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  source chat.host_source;
  directory constant regclass := to_regclass('rapport_host.directory');
  memberships constant regclass := to_regclass('rapport_host.memberships');
  wrong text;
begin
  if directory is null or memberships is null then
    return null;
  end if;
  select string_agg(format('%s.%s must have type %s', w.relation, w.column_name, w.type), ', ' order by w.place) into wrong
  from (values
    (1, directory, 'user_id', 'uuid'), (2, directory, 'display_name', 'text'), (3, directory, 'email', 'text'),
    (4, directory, 'avatar_url', 'text'), (5, directory, 'is_active', 'boolean'), (6, directory, 'role', 'text'),
    (7, memberships, 'user_id', 'uuid'), (8, memberships, 'team_id', 'text')
  ) w (place, relation, column_name, type)
  where not exists (
    select
    from pg_catalog.pg_attribute a
    where a.attrelid = w.relation and a.attname = w.column_name and a.atttypid = w.type::regtype and not a.attisdropped
  );
  if wrong is not null then
    source.problem := wrong;
    return source;
  end if;

  -- Without Supabase Auth, there is no table of accounts for the chat's foreign keys.
  if chat.has_accounts_of_supabase() then
    source.people := to_regclass('auth.users');
    source.people_key := 'id';
  end if;
  source.directory := format(
    'select u.user_id, u.display_name, u.email, u.avatar_url, coalesce(u.is_active, false) as is_active, %s as role from %s u where u.user_id is not null',
    chat.role_expression('u.role'), directory
  );
  source.directory_tables := array[directory];
  source.memberships := format('select m.user_id, m.team_id from %s m where m.user_id is not null and m.team_id is not null', memberships);
  source.memberships_tables := array[memberships];
  source.watched := '[]';
  return source;
end
$$;

revoke all on function chat.own_views_source() from public;

-- Returns what a preset reads. "recorded" is what the installation has recorded for this preset:
-- tables and columns that appear later do not replace those in use. All fields of the result are
-- null if the database lacks what the preset needs.
create or replace function chat.host_source_of(preset text, recorded jsonb default '{}')
returns chat.host_source
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case preset
    when 'basejump' then chat.basejump_source()
    when 'makerkit' then chat.makerkit_source()
    when 'users_members' then chat.member_table_source(to_regclass('public.users'), recorded)
    when 'profiles_members' then chat.member_table_source(to_regclass('public.profiles'), recorded)
    when 'users_table' then
      case when chat.is_table_with(to_regclass('public.users'), array['role']) then
        chat.team_column_source(to_regclass('public.users'), recorded)
      end
    when 'profiles_team' then chat.team_column_source(to_regclass('public.profiles'), recorded)
    when 'makerkit_v1' then chat.makerkit_v1_source()
    when 'claims' then chat.claims_source()
    when 'one_team' then chat.one_team_source(recorded)
    when 'rbac' then chat.rbac_source(recorded)
    when 'own_views' then chat.own_views_source()
  end;
end
$$;

revoke all on function chat.host_source_of(text, jsonb) from public;
