-- The following functions find the columns of the application's tables that contain the account,
-- the team and the role. The presets build the queries of the views from these columns.
--
-- All names in these queries come from the catalogue. Columns are inserted with %I. Relations are
-- inserted as text of a regclass, which is quoted, and qualified because the search_path of these
-- functions contains no schema of the application.

-- Returns whether the relation is a table that has all these columns.
create or replace function chat.is_table_with(relation regclass, columns text[])
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pg_catalog.pg_class c where c.oid = relation and c.relkind in ('r', 'p'))
    and cardinality(chat.host_columns(relation, columns)) = cardinality(columns)
$$;

revoke all on function chat.is_table_with(regclass, text[]) from public;

-- Returns whether a unique index guarantees that no two rows of the table have the same value in
-- the column. Only then can foreign keys refer to the column.
create or replace function chat.is_unique_column(relation regclass, column_name name)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indrelid and c.relkind in ('r', 'p')
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = relation
      and a.attname = column_name
      and i.indnkeyatts = 1
      and i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null
  )
$$;

revoke all on function chat.is_unique_column(regclass, name) from public;

-- Returns the column to which the foreign key of the given column refers. Foreign keys of several
-- columns are ignored. If there are several keys, one that refers to auth.users takes precedence.
create or replace function chat.referenced_column(relation regclass, column_name name, out target regclass, out target_column name)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.confrelid::regclass, there.attname
  from pg_catalog.pg_constraint c
  join pg_catalog.pg_attribute here on here.attrelid = c.conrelid and here.attnum = c.conkey[1]
  join pg_catalog.pg_attribute there on there.attrelid = c.confrelid and there.attnum = c.confkey[1]
  where c.contype = 'f' and c.conrelid = relation and cardinality(c.conkey) = 1 and here.attname = column_name
  order by (c.confrelid = to_regclass('auth.users')) desc, c.oid
  limit 1
$$;

revoke all on function chat.referenced_column(regclass, name) from public;

-- Returns whether the column contains ids of accounts, because its foreign key leads to
-- auth.users.id, directly or through other tables.
create or replace function chat.refers_to_accounts(relation regclass, column_name name)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  reference record;
begin
  -- The number of hops is limited, because foreign keys can form a circle.
  for hop in 1..4 loop
    select r.target, r.target_column into reference from chat.referenced_column(relation, column_name) r;
    if reference.target is null then
      return false;
    elsif reference.target = to_regclass('auth.users') then
      return reference.target_column = 'id';
    end if;
    relation := reference.target;
    column_name := reference.target_column;
  end loop;
  return false;
end
$$;

revoke all on function chat.refers_to_accounts(regclass, name) from public;

-- Returns the column of a table of users that contains the id of the account, which is the "sub" of
-- the account's tokens. It is a unique uuid. A column whose foreign keys lead to auth.users takes
-- precedence. Without such a column, it is "id" or "user_id".
create or replace function chat.account_column(people regclass)
returns name
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select a.attname
  from unnest(array['id', 'auth_user_id', 'auth_id', 'auth_uid', 'user_id', 'supabase_user_id']) with ordinality w (name, place)
  join pg_catalog.pg_attribute a on a.attrelid = people and a.attname = w.name
  cross join lateral (select chat.refers_to_accounts(people, a.attname) as refers) known
  where a.attnum > 0 and not a.attisdropped
    and a.atttypid = 'uuid'::regtype
    and (known.refers or w.name in ('id', 'user_id'))
    and chat.is_unique_column(people, a.attname)
  order by known.refers desc, w.place
  limit 1
$$;

revoke all on function chat.account_column(regclass) from public;

-- Returns the column of the table that contains the team. A column that the installation has
-- recorded stays in use, and "problem" is set if that column no longer exists. "problem" is also
-- set if several columns could be the team and none is "team_id", because the operator must then
-- decide.
create or replace function chat.team_column(relation regclass, recorded text, out column_name name, out problem text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  names constant name[] := array(
    select a.attname
    from unnest(array['team_id', 'organization_id', 'org_id', 'workspace_id', 'account_id', 'tenant_id', 'company_id'])
      with ordinality w (name, place)
    join pg_catalog.pg_attribute a on a.attrelid = relation and a.attname = w.name and a.attnum > 0 and not a.attisdropped
    order by w.place
  );
begin
  if recorded = any (names) then
    column_name := recorded;
  elsif recorded is not null then
    problem := format('%s has no column %I any more', relation, recorded);
  elsif 'team_id' = any (names) or cardinality(names) = 1 then
    column_name := names[1];
  elsif cardinality(names) > 1 then
    problem := format('%s has several columns that could be the team: %s', relation, array_to_string(names, ', '));
  end if;
end
$$;

revoke all on function chat.team_column(regclass, text) from public;

-- Returns the column of the table that contains the role, and whether it contains words, which are
-- texts or values of an enum.
create or replace function chat.role_column(relation regclass, out column_name name, out are_words boolean)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select a.attname, t.typcategory in ('S', 'E')
  from unnest(array['role', 'member_role', 'account_role', 'user_role']) with ordinality w (name, place)
  join pg_catalog.pg_attribute a on a.attrelid = relation and a.attname = w.name and a.attnum > 0 and not a.attisdropped
  join pg_catalog.pg_type t on t.oid = a.atttypid
  order by w.place
  limit 1
$$;

revoke all on function chat.role_column(regclass) from public;

-- Returns the condition under which a row of a user or of a membership is in force. The result is
-- the text of an SQL expression that never yields null. Suspended users cannot write. An invitation
-- gives no team until it is accepted.
create or replace function chat.activity_condition(relation regclass, alias text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg(format(w.condition, format('%I.%I', alias, a.attname)), ' and ' order by w.place), 'true')
  from (values
    (1, 'status', 'coalesce(%s::text, ''active'') in (''active'', ''accepted'')'),
    (2, 'is_active', 'coalesce(%s::text, ''true'') = ''true'''),
    (3, 'accepted', 'coalesce(%s::text, ''true'') = ''true'''),
    (4, 'accepted_at', '%s is not null'),
    (5, 'deleted_at', '%s is null'),
    (6, 'removed_at', '%s is null'),
    (7, 'left_at', '%s is null')
  ) w (place, column_name, condition)
  join pg_catalog.pg_attribute a
    on a.attrelid = relation and a.attname = w.column_name and a.attnum > 0 and not a.attisdropped
$$;

revoke all on function chat.activity_condition(regclass, text) from public;

-- Returns whether auth.users contains the accounts of Supabase Auth. In a plain PostgreSQL, Rapport
-- creates a table of that name, and the accounts may be elsewhere.
create or replace function chat.has_accounts_of_supabase()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_regclass('auth.users') is not null
    and coalesce(obj_description(to_regnamespace('auth'), 'pg_namespace'), '') not like 'Made by Rapport%'
    and obj_description(to_regclass('auth.users'), 'pg_class') is distinct from 'One row per account.'
$$;

revoke all on function chat.has_accounts_of_supabase() from public;

-- Returns the text of an SQL expression for the role that a table of memberships gives to a user.
-- "belongs" is the condition under which a row "m" of that table belongs to the user. Such a role
-- applies to a team, and the owner of the team may give it to others, so it never makes anyone a
-- super admin of all teams.
create or replace function chat.team_role_expression(members regclass, role_column name, belongs text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case when role_column is null then '''user''' else format(
    'case when exists (select from %s m where %s and %s and %s <> ''user'') then ''admin'' else ''user'' end',
    members, belongs, chat.activity_condition(members, 'm'), chat.role_expression(format('m.%I::text', role_column))
  ) end
$$;

revoke all on function chat.team_role_expression(regclass, name, text) from public;

-- Returns the query of chat.directory over a table with one row per user, and the tables that the
-- query reads.
create or replace function chat.people_query(people regclass, people_key name, role text, out query text, out tables regclass[])
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  names constant text[] := chat.host_columns(people, array['full_name', 'name', 'display_name', 'username']);
  avatars constant text[] := chat.host_columns(people, array['avatar_url', 'avatar', 'image_url', 'picture_url', 'photo_url']);
  emails text[] := chat.host_columns(people, array['email']);
  accounts text := '';
begin
  tables := array[people];
  -- If the table contains no email address, the address comes from auth.users, provided that a
  -- possible owner of the view sees the rows of both tables. The planner removes this join from
  -- queries that do not use the address, because account ids are unique.
  if emails = '{}' and chat.refers_to_accounts(people, people_key) and exists (
    select
    from pg_catalog.pg_roles r
    where (r.rolname = current_user or r.oid = (select c.relowner from pg_catalog.pg_class c where c.oid = people))
      and chat.sees_all_rows(r.oid, people)
      and chat.sees_all_rows(r.oid, to_regclass('auth.users'))
  ) then
    tables := tables || to_regclass('auth.users');
    emails := array['a.email::text'];
    accounts := format(' left join auth.users a on a.id = u.%I', people_key);
  end if;

  query := format(
    'select u.%I as user_id, coalesce(%s) as display_name, %s as email, coalesce(%s) as avatar_url, %s as is_active, %s as role from %s u%s',
    people_key,
    array_to_string(names || 'null::text'::text, ', '),
    coalesce(emails[1], 'null::text'),
    array_to_string(avatars || 'null::text'::text, ', '),
    chat.activity_condition(people, 'u'),
    role,
    people,
    accounts
  );
end
$$;

revoke all on function chat.people_query(regclass, name, text) from public;

-- Returns the query of chat.directory over auth.users. Unless "role" is given, the role comes from
-- raw_app_meta_data, which users cannot change. The metadata that users can change
-- (raw_user_meta_data) supplies only a name and a picture. Anonymous, banned and deleted accounts
-- are not active.
create or replace function chat.accounts_query(role text default null, name_expression text default 'null::text', joined text default '')
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $view$select u.id as user_id,
      coalesce(%s, u.raw_user_meta_data ->> 'full_name', u.raw_user_meta_data ->> 'name') as display_name,
      u.email::text as email,
      u.raw_user_meta_data ->> 'avatar_url' as avatar_url,
      %s as is_active,
      %s as role
    from auth.users u %s$view$,
    name_expression,
    (
      select coalesce(string_agg(format(w.condition, format('u.%I', a.attname)), ' and ' order by w.place), 'true')
      from (values
        (1, 'banned_until', 'coalesce(%s <= now(), true)'),
        (2, 'deleted_at', '%s is null'),
        (3, 'is_anonymous', 'coalesce(%s, false) = false')
      ) w (place, column_name, condition)
      join pg_catalog.pg_attribute a
        on a.attrelid = to_regclass('auth.users') and a.attname = w.column_name and a.attnum > 0 and not a.attisdropped
    ),
    coalesce(role, chat.role_expression($role$(u.raw_app_meta_data ->> 'role')$role$)),
    joined
  )
$$;

revoke all on function chat.accounts_query(text, text, text) from public;

-- Returns the query of chat.memberships over a table of memberships. A membership that is in the
-- table twice appears once.
create or replace function chat.memberships_query(members regclass, person name, team name, account text, joined text default '')
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select%s %s as user_id, m.%I::text as team_id from %s m%s where m.%I is not null and m.%I is not null and %s',
    case when exists (
      select
      from pg_catalog.pg_index i
      where i.indrelid = members
        and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
        and not exists (
          select
          from unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k (attnum)
          join pg_catalog.pg_attribute a on a.attrelid = members and a.attnum = k.attnum
          where a.attname not in (person, team)
        )
    ) then '' else ' distinct' end,
    account, team, members, joined, person, team, chat.activity_condition(members, 'm')
  )
$$;

revoke all on function chat.memberships_query(regclass, name, name, text, text) from public;
