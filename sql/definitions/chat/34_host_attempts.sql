-- Attempts of a user to change their own team or role. A user who succeeds could message everyone.
-- The rights, policies and triggers of the application decide, so only an attempt shows whether
-- they suffice.

-- Runs a statement with the rights and claims of a user, and undoes it. Returns whether the
-- statement had the effect for which the query "effect" asks. A violated constraint counts as the
-- effect: constraints are checked after rights and policies, and another value would not violate
-- them. But if the table has triggers for the event, these may have replaced the value, so the
-- outcome is then "unknown". "event" is 4 for INSERT and 16 for UPDATE, as in pg_trigger.tgtype.
--
-- "own_row" is a query for the row that the statement changes with "where current of own_row". A
-- condition on a column would require the right to select, and PostgreSQL would then also apply the
-- policies for SELECT. These do not stop a user who writes an update without a condition.
create or replace function chat.attempt_as_user(
  claims jsonb, relation regclass, event int, statement text, effect text, own_row text default null, out outcome text, out detail text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  own_role constant text := current_setting('role');
  cursor_of_row refcursor := 'own_row';
  changed bigint;
  has_effect boolean := false;
  state text;
begin
  begin
    if own_row is not null then
      open cursor_of_row for execute own_row;
      move cursor_of_row;
      if not found then
        outcome := 'refused';
        detail := 'the user has no row';
        close cursor_of_row;
        return;
      end if;
    end if;
    perform set_config('request.jwt.claims', claims::text, true);
    -- Triggers and policies of the application may depend on the path of API requests.
    perform set_config('search_path', '"$user", public, extensions, pg_temp', true);
    perform set_config('role', 'authenticated', true);
    execute statement;
    get diagnostics changed = row_count;
    perform set_config('role', own_role, true);
    perform set_config('search_path', 'pg_catalog, pg_temp', true);
    if changed > 0 then
      execute effect into has_effect;
    end if;
    raise exception using errcode = 'RP004';
  exception
    when sqlstate 'RP004' then
      outcome := case when has_effect then 'allowed' else 'refused' end;
      detail := case when changed = 0 then 'no row was changed' when not has_effect then 'the value was replaced' end;
    when integrity_constraint_violation then
      outcome := case when exists (
        select
        from pg_catalog.pg_trigger t
        where t.tgrelid = relation and not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype & event <> 0
      ) then 'unknown' else 'allowed' end;
      detail := sqlerrm;
    when others then
      get stacked diagnostics state = returned_sqlstate;
      -- SQLSTATEs that start with P to W are raised by triggers and functions. Those that start
      -- with XX are internal errors.
      outcome := case when state = '42501' or state ~ '^[P-W]' then 'refused' else 'unknown' end;
      detail := sqlerrm;
  end;
end
$$;

revoke all on function chat.attempt_as_user(jsonb, regclass, int, text, text, text) from public;

-- Returns a role that would raise the user above others, as the application writes it: a role in
-- use, otherwise a value of the column's enum, otherwise "admin". For JSON and numbers, it is a
-- fixed value.
create or replace function chat.elevated_value(relation regclass, column_name name)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  type_oid constant oid := (
    select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = relation and a.attname = column_name
  );
  category constant "char" := (select t.typcategory from pg_catalog.pg_type t where t.oid = type_oid);
  value text;
begin
  if type_oid in ('json'::regtype, 'jsonb'::regtype) then
    return '{"role": "super_admin"}';
  elsif category = 'N' then
    return '2';
  end if;
  execute format(
    'select u.%1$I::text from %2$s u where %3$s <> ''user'' limit 1', column_name, relation, chat.role_expression(format('u.%I::text', column_name))
  ) into value;
  if value is null and category = 'E' then
    execute format(
      'select e.enumlabel from pg_catalog.pg_enum e where e.enumtypid = %s order by (%s = ''user''), e.enumsortorder desc limit 1',
      type_oid, chat.role_expression('e.enumlabel::text')
    ) into value;
  end if;
  return coalesce(value, 'admin');
end
$$;

revoke all on function chat.elevated_value(regclass, name) from public;

-- Tries, as an ordinary user of the application, to change the user's own team and role, to join
-- another team, and to create a row for a new account. Everything is undone. "outcome" is
-- "refused", "allowed" or "unknown". Returns no rows if there is no such user, or with the preset
-- own_views.
create or replace function chat.attempt_self_promotion()
returns table (attempt text, relation text, column_name text, outcome text, detail text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  recorded constant jsonb := chat.recorded_host();
  own_role constant text := current_setting('role');
  source chat.host_source;
  watched jsonb;
  person uuid;
  person_email text;
  own text;
  other_team text;
  claims jsonb;
  metadata record;
  wanted record;
  assigned jsonb;
  gain text;
begin
  source := chat.host_source_of(recorded ->> 'preset', recorded);
  select d.user_id, d.email into person, person_email
  from chat.directory d
  where d.is_active and d.role = 'user'
  order by exists (select from chat.memberships m where m.user_id = d.user_id) desc, d.user_id
  limit 1;
  if person is null or source.watched is null then
    return;
  end if;
  -- This fails if the login cannot act as a user. Without it, every attempt would count as refused.
  perform set_config('role', 'authenticated', true);
  perform set_config('role', own_role, true);

  claims := jsonb_build_object('sub', person, 'email', person_email, 'role', 'authenticated', 'aud', 'authenticated', 'aal', 'aal1', 'is_anonymous', false);
  if chat.is_table_with(to_regclass('auth.users'), array['raw_app_meta_data', 'raw_user_meta_data']) then
    select u.raw_app_meta_data as app, u.raw_user_meta_data as own into metadata from auth.users u where u.id = person;
    claims := claims || jsonb_build_object('app_metadata', coalesce(metadata.app, '{}'), 'user_metadata', coalesce(metadata.own, '{}'));
  end if;
  other_team := (
    select m.team_id from chat.memberships m
    where m.team_id not in (select mine.team_id from chat.memberships mine where mine.user_id = person)
    limit 1
  );

  for watched in select w from jsonb_array_elements(source.watched) w loop
    relation := watched ->> 'table';
    own := person::text;
    if watched ->> 'own' is not null then
      execute watched ->> 'own' into own using person;
    end if;

    assigned := '{}';
    for wanted in
      select a.attname as name, a.atttypid as type, n.is_team
      from (values (watched ->> 'team', true), (watched ->> 'role', false)) n (name, is_team)
      join pg_catalog.pg_attribute a on a.attrelid = relation::regclass and a.attname = n.name
      order by n.is_team desc
    loop
      assigned := assigned || jsonb_build_object(wanted.name, case
        when not wanted.is_team then chat.elevated_value(relation::regclass, wanted.name)
        when other_team is not null then other_team
        when wanted.type = 'uuid'::regtype then gen_random_uuid()::text
        else '2147483647'
      end);
      attempt := 'update';
      column_name := wanted.name;
      select a.outcome, a.detail into outcome, detail from chat.attempt_as_user(
        claims, relation::regclass, 16,
        format('update %s set %I = %L where current of own_row', relation::regclass, wanted.name, assigned ->> wanted.name),
        format('select exists (select from %s where %I = %L and %I = %L)', relation::regclass, watched ->> 'person', own, wanted.name, assigned ->> wanted.name),
        format('select * from %s where %I = %L', relation::regclass, watched ->> 'person', own)
      ) a;
      return next;
    end loop;

    -- A row that contains neither a team nor a role gives nothing.
    continue when assigned = '{}';
    column_name := watched ->> 'person';
    attempt := case when (watched ->> 'is_person')::boolean then 'insert_account' else 'insert_membership' end;
    if (watched ->> 'is_person')::boolean then
      own := chat.new_account(relation::regclass, column_name);
    end if;
    if has_any_column_privilege('authenticated', relation::regclass, 'INSERT') then
      assigned := (
        select coalesce(jsonb_object_agg(v.key, v.value), '{}')
        from jsonb_each(assigned) v
        where has_column_privilege('authenticated', relation::regclass, v.key, 'INSERT')
      );
      if assigned = '{}' then
        outcome := 'refused';
        detail := 'users may insert neither team nor role';
        return next;
        continue;
      end if;
    end if;
    gain := (select string_agg(format('%I = %L', v.key, v.value), ' or ') from jsonb_each_text(assigned) v);
    assigned := assigned || jsonb_build_object(column_name, own);
    select a.outcome, a.detail into outcome, detail from chat.attempt_as_user(
      case when (watched ->> 'is_person')::boolean then claims || jsonb_build_object('sub', own) else claims end,
      relation::regclass, 4,
      chat.insert_statement(relation::regclass, assigned),
      format('select exists (select from %s where %I = %L and (%s))', relation::regclass, column_name, own, gain)
    ) a;
    return next;
  end loop;
end
$$;

comment on function chat.attempt_self_promotion() is
  'For rapport doctor: tries as an ordinary user to change the own team or role, and to insert a membership or an account. Everything is undone.';

revoke all on function chat.attempt_self_promotion() from public;

-- Returns the id of an account that has no row in the table of users, or a new id if there is none.
create or replace function chat.new_account(people regclass, people_key text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  account uuid;
begin
  if to_regclass('auth.users') is not null then
    execute format('select a.id from auth.users a where not exists (select from %s u where u.%I = a.id) limit 1', people, people_key) into account;
  end if;
  return coalesce(account, gen_random_uuid())::text;
end
$$;

revoke all on function chat.new_account(regclass, text) from public;

-- Returns an INSERT of one row with these values, as a user of the API would write it: only columns
-- that users may insert. Other columns that need a value receive one from an existing row.
create or replace function chat.insert_statement(relation regclass, assigned jsonb)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  sample jsonb;
begin
  execute format('select to_jsonb(t) from %s t limit 1', relation) into sample;
  return (
    select format(
      'insert into %s (%s) values (%s)', relation,
      string_agg(format('%I', a.attname), ', ' order by a.attnum),
      string_agg(format('%L', case
        when assigned ? a.attname then assigned ->> a.attname
        -- The existing row's value would violate the constraint, and that proves less than success.
        when t.typcategory = 'S' and chat.is_unique_column(relation, a.attname)
          then gen_random_uuid() || coalesce('@' || nullif(split_part(sample ->> a.attname, '@', 2), ''), '')
        when a.atttypid = 'uuid'::regtype and chat.is_unique_column(relation, a.attname) then gen_random_uuid()::text
        else sample ->> a.attname
      end), ', ' order by a.attnum)
    )
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_type t on t.oid = a.atttypid
    where a.attrelid = relation
      and a.attnum > 0 and not a.attisdropped
      and a.attgenerated = '' and a.attidentity = ''
      and (assigned ? a.attname or a.attnotnull and not a.atthasdef)
      -- Without the right to insert into any column, all columns are named, and the statement is
      -- refused.
      and (has_column_privilege('authenticated', relation, a.attnum, 'INSERT') or not has_any_column_privilege('authenticated', relation, 'INSERT'))
  );
end
$$;

revoke all on function chat.insert_statement(regclass, jsonb) from public;
