-- The daily partitions of realtime.messages, if Rapport created the table.
--
-- Creating and dropping a partition requires an exclusive lock on the table or its default
-- partition. Every user may read the table, and can keep it locked by an open transaction. So the
-- two functions that change the table wait only briefly, because all other users of the table queue
-- behind them. If they fail, nothing is lost: rows of a day without a partition go to the default
-- partition, and the rows of an old partition are deleted instead.

create or replace function chat.add_message_partitions(days_ahead int)
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
as $$
declare
  -- Moving this many rows takes some tens of milliseconds, during which both tables are locked.
  max_moved constant int := 1000;
  day date;
  partition_name text;
  misplaced int;
  made int := 0;
begin
  for day in
    select d::date
    from generate_series(
      (now() at time zone 'utc')::date - 1,
      (now() at time zone 'utc')::date + days_ahead,
      interval '1 day'
    ) d
  loop
    partition_name := 'messages_' || to_char(day, 'YYYY_MM_DD');
    continue when to_regclass(format('realtime.%I', partition_name)) is not null;

    misplaced := (
      select count(*)
      from (
        select
        from realtime.messages_default m
        where m.inserted_at >= day and m.inserted_at < day + 1
        limit max_moved + 1
      ) m
    );
    -- A day with more rows gets no partition. Its rows stay where they are until they are too old.
    continue when misplaced > max_moved;
    if misplaced > 0 then
      -- Rows of that day are in the default partition and would prevent the day's own partition.
      -- They are moved while neither table belongs to the published one, so that they are not
      -- delivered twice.
      alter table realtime.messages detach partition realtime.messages_default;
      execute format('create table realtime.%I (like realtime.messages including all)', partition_name);
      execute format(
        'with moved as (delete from realtime.messages_default where inserted_at >= %L and inserted_at < %L returning *) insert into realtime.%I select * from moved',
        day, day + 1, partition_name
      );
      execute format('alter table realtime.messages attach partition realtime.%I for values from (%L) to (%L)', partition_name, day, day + 1);
      alter table realtime.messages attach partition realtime.messages_default default;
    else
      execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)', partition_name, day, day + 1);
    end if;
    execute format('alter table realtime.%I enable row level security', partition_name);
    -- The partition has no statistics, because "explain" would show them to every role.
    execute format(
      'alter table realtime.%I alter column topic set statistics 0, alter column event set statistics 0, alter column payload set statistics 0',
      partition_name
    );
    execute format('alter table realtime.%I owner to %I', partition_name, (
      select pg_get_userbyid(c.relowner) from pg_catalog.pg_class c where c.oid = 'realtime.messages'::regclass
    ));
    made := made + 1;
  end loop;
  return made;
end
$$;

revoke all on function chat.add_message_partitions(int) from public;

create or replace function chat.drop_message_partitions(names name[])
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
as $$
declare
  partition_name name;
begin
  foreach partition_name in array names loop
    execute format('drop table realtime.%I', partition_name);
  end loop;
end
$$;

revoke all on function chat.drop_message_partitions(name[]) from public;

-- Deletes old messages. Rows that users keep locked are skipped. Users can lock rows if a policy of
-- the application lets them update rows.
create or replace function chat.delete_messages(source name, time_column name, until timestamp)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'delete from realtime.%1$I m
     using (select x.id, x.inserted_at from realtime.%1$I x where x.%2$I < $1 for update skip locked) old
     where m.id = old.id and m.inserted_at = old.inserted_at',
    source, time_column
  ) using until;
end
$$;

revoke all on function chat.delete_messages(name, name, timestamp) from public;

create or replace function chat.maintain_message_partitions(days_ahead int default 30, days_kept int default 3)
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  oldest constant date := (now() at time zone 'utc')::date - days_kept;
  old_partitions name[];
  old_partition name;
  made int;
begin
  if coalesce(obj_description(to_regclass('realtime.messages'), 'pg_class') not like 'Made by Rapport%', true) then
    return 0;
  end if;
  -- Only one call runs at a time. A second call finds that nothing is left to do.
  perform from chat.locks l where l.purpose = 'message_partitions' for update;

  -- Rows dated after the last partition are deleted. They can exist if a policy of the application
  -- lets users choose the date, and they would delay the next step: PostgreSQL reads the whole
  -- default partition while it adds a partition and the table is locked.
  delete from realtime.messages_default m
  using (
    select x.id, x.inserted_at
    from realtime.messages_default x
    where x.inserted_at >= (now() at time zone 'utc')::date + days_ahead + 1
    for update skip locked
  ) future
  where m.id = future.id and m.inserted_at = future.inserted_at;

  begin
    made := chat.add_message_partitions(days_ahead);
  exception when lock_not_available then
    made := null;
  end;

  old_partitions := array(
    select c.relname
    from pg_catalog.pg_inherits i
    join pg_catalog.pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'realtime.messages'::regclass
      and c.relname ~ '^messages_\d{4}_\d{2}_\d{2}$'
      and to_date(right(c.relname, 10), 'YYYY_MM_DD') < oldest
  );
  begin
    perform chat.drop_message_partitions(old_partitions);
  exception when lock_not_available then
    made := null;
    foreach old_partition in array old_partitions loop
      perform chat.delete_messages(old_partition, 'inserted_at', oldest);
    end loop;
  end;

  -- Removes rows of days whose partition was created too late or never.
  perform chat.delete_messages('messages_default', 'inserted_at', oldest);
  if exists (
    select
    from pg_catalog.pg_attribute a
    where a.attrelid = 'realtime.messages'::regclass and a.attname = 'expires_at' and not a.attisdropped
  ) then
    perform chat.delete_messages('messages', 'expires_at', now() at time zone 'utc');
  end if;
  return made;
end
$$;

comment on function chat.maintain_message_partitions(int, int) is
  'Creates the partitions of realtime.messages for the coming days, and drops those that are too old. Returns the number of created partitions, or null if an open transaction that uses the table prevented part of the work; the function must then be called again. Does nothing if Supabase created the table.';

revoke all on function chat.maintain_message_partitions(int, int) from public;
grant execute on function chat.maintain_message_partitions(int, int) to service_role;

select chat.maintain_message_partitions();
