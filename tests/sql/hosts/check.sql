-- Compares the installed host mapping with what the fixture expects. Applied after the
-- installation.

do $check$
declare
  wrong text;
begin
  select string_agg(format('expected %s, found %s', coalesce(e.row, 'no user'), coalesce(f.row, 'no user')), E'\n') into wrong
  from (
    select p.name, row(p.*)::text as row
    from (select p.name, p.display_name, p.email, null::text as avatar_url, p.is_active, p.role, array(select unnest(p.teams) order by 1) as teams from expected.people p) p
  ) e
  full join (
    select i.name, row(
      i.name, d.display_name, d.email, d.avatar_url, d.is_active, d.role,
      array(select m.team_id from chat.memberships m where m.user_id = d.user_id order by 1)
    )::text as row
    from chat.directory d
    left join expected.ids i on i.id = d.user_id
  ) f using (name)
  where e.row is distinct from f.row;
  if wrong is not null then
    raise exception 'chat.directory and chat.memberships: %', wrong;
  end if;

  select string_agg(format('%s with a team', m.user_id), ', ') into wrong
  from chat.memberships m
  where m.user_id not in (select d.user_id from chat.directory d);
  if wrong is not null then
    raise exception 'Unknown to chat.directory: %', wrong;
  end if;
end
$check$;

-- Everyone tries to message everyone. Only active users may, and only those with a common team, or
-- a super admin.
do $check$
declare
  pair record;
  refusal text;
  opened int := 0;
  refused int := 0;
begin
  for pair in
    select
      w.name as writer,
      r.name as reader,
      expected.id(w.name) as writer_id,
      expected.id(r.name) as reader_id,
      w.is_active and r.is_active and (w.role = 'super_admin' or w.teams && r.teams) as may_write
    from expected.people w
    join expected.people r on r.name <> w.name
    order by w.name, r.name
  loop
    refusal := null;
    begin
      perform set_config('request.jwt.claims', json_build_object('sub', pair.writer_id, 'role', 'authenticated')::text, true);
      set local role authenticated;
      perform chat.open_conversation(pair.reader_id);
      -- Rolled back, because each of the two may open the conversation.
      raise exception using errcode = 'TS000';
    exception
      when sqlstate 'TS000' then
        null;
      when others then
        get stacked diagnostics refusal = constraint_name;
    end;
    if refusal is distinct from (case when not pair.may_write then 'not_allowed_recipient' end)
      and not (refusal = 'not_allowed' and not pair.may_write)
    then
      raise exception '% messages %: %', pair.writer, pair.reader, coalesce(refusal, 'allowed');
    end if;
    opened := opened + (refusal is null)::int;
    refused := refused + (refusal is not null)::int;
  end loop;
  if opened = 0 then
    raise exception 'control: nobody may message anybody';
  end if;
end
$check$;
