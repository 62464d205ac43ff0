-- The host mapping determines which tables of the application contain users and teams. The result
-- is three views: chat.directory (users), chat.memberships (users in teams) and chat.teams.

-- Returns the text of an SQL expression that translates an application's role name into a role of
-- the chat; an unknown name becomes "user". "written" is the expression for the name. The views
-- contain this expression instead of a function call, because they are queried for every message,
-- and the call would cost more than the rest of the query.
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

-- Returns those of the wanted columns that exist in the table, in order of preference. Each is
-- returned as an expression that qualifies it with the alias and casts it to text.
create or replace function chat.host_columns(host_table regclass, wanted text[], alias text default 'u')
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(format('%I.%I::text', alias, a.attname) order by w.preference), '{}')
  from unnest(wanted) with ordinality w (name, preference)
  join pg_catalog.pg_attribute a on a.attrelid = host_table and a.attname = w.name
  where a.attnum > 0 and not a.attisdropped
$$;

revoke all on function chat.host_columns(regclass, text[], text) from public;

-- Returns whether the role sees every row of the relation: it may read the relation, and row-level
-- security does not apply to it.
create or replace function chat.sees_all_rows(reader oid, relation regclass)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(bool_and(
    has_table_privilege(r.oid, c.oid, 'SELECT')
    and (
      not c.relrowsecurity
      or r.rolsuper
      or r.rolbypassrls
      or (pg_has_role(r.oid, c.relowner, 'USAGE') and not c.relforcerowsecurity)
    )
  ), false)
  from pg_catalog.pg_class c, pg_catalog.pg_roles r
  where c.oid = relation and r.oid = reader
$$;

revoke all on function chat.sees_all_rows(oid, regclass) from public;

-- Returns whether the chat may read users or teams from the relation. The owner of the relation
-- decides which user has which team and role, and a view or a cast of that owner would be executed
-- with the rights of the chat's functions. Superusers, the owner of the database and the calling
-- login are trusted. Another owner is trusted if no role of API requests can become that owner, and
-- if no such role can create relations in the relation's schema.
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

-- Returns the query of chat.teams over the application's table of teams. Teams have no names if
-- there is no such table, if it lacks the key or a column with names, or if its owner is not
-- trusted.
create or replace function chat.teams_mapping(teams regclass, teams_key name, out teams_table regclass, out query text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  ids constant text[] := chat.host_columns(teams, array[teams_key::text]);
  names constant text[] := chat.host_columns(teams, array['name', 'title', 'display_name']);
begin
  query := 'select null::text as team_id, null::text as name where false';
  if teams is null or ids = '{}' or names = '{}' then
    return;
  end if;
  if not chat.is_trusted_host(teams) then
    raise warning '% is not used for the names of teams, because users of the API could be its owner %. Give it to %, or drop it.',
      teams, (select pg_get_userbyid(c.relowner) from pg_catalog.pg_class c where c.oid = teams), current_user;
    return;
  end if;
  teams_table := teams;
  query := format('select %s as team_id, coalesce(%s) as name from %s u', ids[1], array_to_string(names, ', '), teams);
end
$$;

revoke all on function chat.teams_mapping(regclass, name) from public;

-- Creates or replaces one of the three views. A view reads its tables with the rights of its owner.
-- So it is given to a role that sees all rows of these tables: if possible, an owner of one of the
-- tables, because row-level security does not apply to that owner.
create or replace function chat.replace_host_view(view_name text, query text, host_tables regclass[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  view_owner name := (
    select pg_get_userbyid(c.relowner)
    from pg_catalog.pg_class c
    where c.oid = to_regclass(format('chat.%I', view_name))
  );
  wanted_owner constant name := (
    select r.rolname
    from (
      select c.relowner as oid, t.place
      from unnest(host_tables) with ordinality t (relation, place)
      join pg_catalog.pg_class c on c.oid = t.relation
      union all
      select r.oid, cardinality(host_tables) + 1 from pg_catalog.pg_roles r where r.rolname = current_user
    ) candidate
    join pg_catalog.pg_roles r on r.oid = candidate.oid
    where (select bool_and(chat.sees_all_rows(r.oid, t.relation)) from unnest(host_tables) t (relation))
    order by candidate.place
    limit 1
  );
  may_create boolean;
begin
  execute format('create or replace view chat.%I as %s', view_name, query);

  if view_owner <> wanted_owner then
    may_create := has_schema_privilege(wanted_owner, 'chat', 'CREATE');
    begin
      if not may_create then
        execute format('grant create on schema chat to %I', wanted_owner);
      end if;
      execute format('alter view chat.%I owner to %I', view_name, wanted_owner);
      if not may_create then
        execute format('revoke create on schema chat from %I', wanted_owner);
      end if;
      view_owner := wanted_owner;
    exception when insufficient_privilege then
      null;
    end;
  end if;
  if not (
    select coalesce(bool_and(chat.sees_all_rows(r.oid, t.relation)), true)
    from unnest(host_tables) t (relation), pg_catalog.pg_roles r
    where r.rolname = view_owner
  ) then
    raise warning 'View chat.% belongs to %, who does not see all rows of %, so neither does the chat. Grant % SELECT on these tables, and BYPASSRLS or their ownership.',
      view_name, view_owner, array_to_string(host_tables, ', '), view_owner;
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

revoke all on function chat.replace_host_view(text, text, regclass[]) from public;

-- Adds foreign keys from the columns that contain user ids to the application's table of users.
-- With them, PostgREST can embed users in results, and deleting a user deletes the user's rows or
-- sets their user id to null. Without such a table, the columns have no foreign keys.
create or replace function chat.point_people_at(people regclass, people_key name)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  reference record;
  pointed_at record;
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
    select c.confrelid::regclass as relation, a.attname as key into pointed_at
    from pg_catalog.pg_constraint c
    join pg_catalog.pg_attribute a on a.attrelid = c.confrelid and a.attnum = c.confkey[1]
    where c.conrelid = reference.table_name and c.conname = reference.constraint_name;
    continue when pointed_at.relation is not distinct from people
      and (people is null or pointed_at.key = people_key);

    if pointed_at.relation is not null then
      execute format('alter table %s drop constraint %I', reference.table_name, reference.constraint_name);
    end if;
    continue when people is null;
    begin
      execute format(
        'alter table %s add constraint %I foreign key (%I) references %s (%I) on delete %s',
        reference.table_name, reference.constraint_name, reference.column_name, people, people_key, reference.on_delete
      );
    exception when insufficient_privilege then
      raise warning '% may not reference %: erasing a user will not remove their rows.', current_user, people;
      return;
    end;
  end loop;
end
$$;

revoke all on function chat.point_people_at(regclass, name) from public;

