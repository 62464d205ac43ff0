-- Broadcasts that clients have stored for a time of their own (persist.ttl). Only where Rapport made the table.

do $$
begin
  if coalesce(obj_description(to_regclass('realtime.messages'), 'pg_class') not like 'Made by Rapport%', true) then
    return;
  end if;
  -- UTC without saying so, like the other times of the table; null: as long as its partition
  alter table realtime.messages add column if not exists expires_at timestamp;
  -- serves the removal of what has expired
  create index if not exists messages_expires_at_index
    on realtime.messages (expires_at)
    where expires_at is not null;
  comment on column realtime.messages.expires_at is 'Not replayed from then on, and removed soon after. Null: kept as long as its partition.';
exception when insufficient_privilege then
  raise notice 'realtime.messages belongs to another role than %: clients cannot have messages stored for a time of their own.', current_user;
end
$$;
