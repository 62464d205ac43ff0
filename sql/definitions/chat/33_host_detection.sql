-- Chooses the preset of the host mapping, and installs it.

-- Returns the mapping that is in force.
create or replace function chat.recorded_host()
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.value from chat.config c where c.key = 'host_mapping'
$$;

revoke all on function chat.recorded_host() from public;

-- Returns the presets whose tables exist, with what each would find. "problem" tells why "auto"
-- cannot choose the preset. Ids are compared with the accounts for a sample only, because the
-- tables may be large.
create or replace function chat.host_candidates()
returns table (
  preset text,
  is_detected boolean,
  people bigint,
  without_team bigint,
  teams bigint,
  largest_team bigint,
  problem text,
  directory text,
  memberships text
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  known record;
  source chat.host_source;
  untrusted regclass;
  sampled bigint;
  unknown bigint;
begin
  for known in select p.preset, p.is_detected from chat.host_presets() p order by p.place loop
    source := chat.host_source_of(
      known.preset, case when chat.recorded_host() ->> 'preset' = known.preset then chat.recorded_host() else '{}' end
    );
    continue when source.directory is null and source.problem is null;

    preset := known.preset;
    is_detected := known.is_detected;
    directory := source.directory;
    memberships := source.memberships;
    problem := source.problem;
    people := null;
    without_team := null;
    teams := null;
    largest_team := null;
    untrusted := (select t from unnest(source.directory_tables || source.memberships_tables) t where not chat.is_trusted_host(t) limit 1);
    if untrusted is not null then
      problem := format('users of the API could own %s', untrusted);
    end if;
    if problem is null then
      begin
        execute format(
          'with people as (select d.user_id from (%s) d),
            members as (select m.user_id, m.team_id from (%s) m where m.user_id in (select p.user_id from people p))
          select
            (select count(*) from people),
            (select count(*) from people p where p.user_id not in (select m.user_id from members m)),
            (select count(distinct m.team_id) from members m),
            (select coalesce(max(t.size), 0) from (select count(*) as size from members m group by m.team_id) t)',
          directory, memberships
        ) into people, without_team, teams, largest_team;
        if chat.has_accounts_of_supabase() then
          execute format(
            'select count(*), count(*) filter (where not exists (select from auth.users a where a.id = s.user_id))
            from (select d.user_id from (%s) d limit 1000) s',
            directory
          ) into sampled, unknown;
        end if;
        problem := case
          when people = 0 then 'it finds no users'
          when unknown * 100 > sampled then format('%s of %s sampled ids of users are not accounts in auth.users', unknown, sampled)
          when teams = 0 then 'no user would have a team, so no user could message another'
        end;
      exception when insufficient_privilege then
        problem := format('%s may not read its tables: %s', current_user, sqlerrm);
      end;
    end if;
    return next;
  end loop;
end
$$;

comment on function chat.host_candidates() is
  'The presets of chat.install_host_mapping() whose tables exist, with the number of users and teams that each finds, and the texts of chat.directory and chat.memberships.';

revoke all on function chat.host_candidates() from public;

-- Returns the candidates as text for an operator to read.
create or replace function chat.describe_host_candidates()
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg(
    format('%s (%s): ', c.preset, p.team_source)
      || coalesce(
        c.people || ' users, ' || c.without_team || ' without a team; ' || c.teams || ' teams, ' || c.largest_team || ' users in the largest',
        'not counted'
      )
      || coalesce(E'\n  problem: ' || c.problem, '')
      || coalesce(E'\n  users: ' || regexp_replace(c.directory, '\s+', ' ', 'g') || ';', '')
      || coalesce(E'\n  teams: ' || regexp_replace(c.memberships, '\s+', ' ', 'g') || ';', '')
      || case when c.directory is null then '' else format(E'\n  to choose it: rapport host --use %s', c.preset) end,
    E'\n' order by p.place
  ), 'No preset fits this database.')
  from chat.host_candidates() c
  join chat.host_presets() p using (preset)
$$;

revoke all on function chat.describe_host_candidates() from public;

-- Returns the preset that "auto" stands for. "is_provisional" is true if the preset was chosen from
-- the tables alone, because there were no users yet. Once there are users, such a preset is kept if
-- it gives teams to users, and otherwise the choice is made again. Every other choice stays in
-- force, because a table that appears later must not move all users to other teams. If there is no
-- safe choice, the function fails with SQLSTATE RP001.
create or replace function chat.choose_host_preset(out preset text, out is_provisional boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  recorded constant jsonb := chat.recorded_host();
  in_force chat.host_source;
  refusal text;
  detected record;
  has_people boolean;
  has_teams boolean;
begin
  if recorded is not null then
    in_force := chat.host_source_of(recorded ->> 'preset', recorded);
    preset := recorded ->> 'preset';
    -- Earlier versions did not record this field, and their choice may be provisional too.
    is_provisional := coalesce((recorded ->> 'is_provisional')::boolean, true);
    if in_force.directory is null then
      refusal := format('The preset in force, %s, no longer fits this database: %s.', preset, coalesce(
        in_force.problem, (select 'it needs ' || p.needs from chat.host_presets() p where p.preset = choose_host_preset.preset)
      ));
    elsif not is_provisional then
      return;
    else
      execute format('select exists (%s), exists (%s)', in_force.directory, in_force.memberships) into has_people, has_teams;
      if has_teams or not has_people then
        is_provisional := not has_people;
        return;
      end if;
    end if;
  end if;

  if refusal is null then
    select
      count(*) filter (where c.preset <> 'claims') as fitting,
      min(c.preset) filter (where c.preset <> 'claims') as only_one,
      min(c.problem) filter (where c.preset <> 'claims') as problem,
      min(c.problem) filter (where c.preset = 'claims') as claims_problem,
      bool_or(c.preset = 'claims') as has_claims,
      coalesce(sum(c.people), 0) = 0 and bool_and(c.people is not null) as is_empty
    into detected
    from chat.host_candidates() c
    where c.is_detected;

    preset := case when detected.fitting = 1 then detected.only_one when detected.fitting = 0 and detected.has_claims then 'claims' end;
    is_provisional := detected.is_empty;
    if detected.fitting > 1 then
      refusal := 'Several presets fit this database, and they may give users different teams.';
    elsif preset is null then
      refusal := 'No preset fits this database.';
    elsif is_provisional then
      return;
    else
      refusal := 'Preset ' || preset || ' cannot be chosen: '
        || case when preset = 'claims' then detected.claims_problem else detected.problem end || '.';
      if refusal is null then
        return;
      end if;
    end if;
  end if;

  raise exception using
    errcode = 'RP001',
    message = refusal || E'\nNothing was changed. Choose where users and teams are found, with one of these commands or "-v preset=NAME" in psql.\n'
      || chat.describe_host_candidates();
end
$$;

revoke all on function chat.choose_host_preset() from public;

create or replace function chat.install_host_mapping(preset text default 'auto')
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  chosen text := preset;
  is_provisional boolean := false;
  recorded constant jsonb := chat.recorded_host();
  source chat.host_source;
  naming record;
  untrusted record;
  wanted jsonb;
begin
  if preset = 'auto' then
    select c.preset, c.is_provisional into chosen, is_provisional from chat.choose_host_preset() c;
    if is_provisional then
      raise warning 'No user has an account yet, so host mapping "%" was chosen from the tables alone. Users can message each other once they have a team (%).',
        chosen, (select p.team_source from chat.host_presets() p where p.preset = chosen);
    end if;
  elsif not exists (select from chat.host_presets() p where p.preset = install_host_mapping.preset) then
    raise exception 'Unknown host mapping "%": use auto, %.', preset,
      (select string_agg(p.preset, ', ' order by p.place) from chat.host_presets() p);
  end if;

  source := chat.host_source_of(chosen, case when recorded ->> 'preset' = chosen then recorded else '{}' end);
  -- A choice by name may also replace the tables and columns in use, if these are gone.
  if source.directory is null and preset <> 'auto' then
    source := chat.host_source_of(chosen);
  end if;
  if source.directory is null then
    raise exception 'Host mapping % needs %.', chosen,
      coalesce(source.problem, (select p.needs from chat.host_presets() p where p.preset = chosen));
  end if;
  select t as relation, pg_get_userbyid(c.relowner) as owner, c.relnamespace::regnamespace as schema into untrusted
  from unnest(source.directory_tables || source.memberships_tables) t
  join pg_catalog.pg_class c on c.oid = t
  where not chat.is_trusted_host(t)
  limit 1;
  if untrusted.relation is not null then
    raise exception 'The table % belongs to role %, which users of the API could be, so it may not decide who has which team and role.',
        untrusted.relation, untrusted.owner
      using errcode = 'RP003', hint = format(
        'If the table is yours, run "alter table %s owner to %I", or revoke CREATE on its schema from public. If it is not, drop it.',
        untrusted.relation, current_user
      );
  end if;
  select t.teams_table, t.query into naming
  from chat.teams_mapping(
    coalesce(source.teams, case when coalesce(source.team, 'team_id') = 'team_id' then to_regclass('public.teams') end),
    coalesce(source.teams_key, 'id')
  ) t;

  -- The texts contain names from the catalogue, so a changed application yields another
  -- mapping. If nothing changed, no DDL is executed.
  wanted := jsonb_build_object(
    'preset', chosen,
    'people', source.people::text,
    'people_key', source.people_key,
    'members', source.members::text,
    'team', source.team,
    'is_provisional', is_provisional,
    'text', md5(source.directory || source.memberships || naming.query)
  );
  if (wanted - 'is_provisional') is distinct from (recorded - 'is_provisional')
    or to_regclass('chat.directory') is null
    or to_regclass('chat.memberships') is null
    or to_regclass('chat.teams') is null
  then
    perform chat.replace_host_view('directory', source.directory, source.directory_tables);
    perform chat.replace_host_view('memberships', source.memberships, source.memberships_tables);
    perform chat.replace_host_view('teams', naming.query, array_remove(array[naming.teams_table], null));
  end if;
  -- The foreign keys are checked every time, because a later migration may have added tables.
  perform chat.point_people_at(source.people, source.people_key);

  if wanted is distinct from recorded then
    insert into chat.config (key, value) values ('host_mapping', wanted)
    on conflict (key) do update set value = excluded.value;
  end if;
  return chosen;
end
$$;

comment on function chat.install_host_mapping(text) is
  'Writes chat.directory, chat.memberships and chat.teams for a preset and points the foreign keys at its table of users. Returns the preset in force. Does nothing if nothing changed. auto keeps the preset in force. Otherwise, it chooses the only one whose tables exist, if that gives teams to existing users. If there is no such choice, it changes nothing, fails with SQLSTATE RP001 and lists the presets. The other presets are those of chat.host_presets().';

revoke all on function chat.install_host_mapping(text) from public;
