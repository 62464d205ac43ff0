-- Each user's standing: a number that summarizes the data of the application on which the user's
-- permissions depend. The server compares the numbers to detect that the permissions of a connected
-- user may have changed.

create or replace function chat.standings(people uuid[], conversations uuid[])
returns table (id uuid, standing bigint)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  cross_team constant boolean := chat.flag('admin_cross_team');
begin
  return query
  with pairs as (
    select c.id, c.participant_1_id, c.participant_2_id
    from public.user_conversations c
    where c.id = any (standings.conversations) and c.kind = 'direct'
  ), wanted as (
    select unnest(standings.people) as user_id
    union
    select unnest(array[p.participant_1_id, p.participant_2_id]) from pairs p
  ), known as materialized (
    select
      w.user_id,
      hashtextextended(
        row(
          d.user_id,
          d.is_active,
          d.role,
          cross_team,
          array(select m.team_id from chat.memberships m where m.user_id = w.user_id order by m.team_id)
        )::text,
        0
      ) as standing
    from wanted w
    left join chat.directory d on d.user_id = w.user_id
  )
  select k.user_id, k.standing
  from known k
  where k.user_id = any (standings.people)
  union all
  select p.id, hashtextextended(row(one.user_id, one.standing, two.user_id, two.standing)::text, 0)
  from pairs p
  left join known one on one.user_id = p.participant_1_id
  left join known two on two.user_id = p.participant_2_id;
end
$$;

comment on function chat.standings(uuid[], uuid[]) is
  'For the server. Returns a number for each of these users, which changes with their suspension, role and teams. Also returns a number for each of these direct conversations, which changes with the suspension, role and teams of its two members.';

revoke all on function chat.standings(uuid[], uuid[]) from public;
grant execute on function chat.standings(uuid[], uuid[]) to service_role;
