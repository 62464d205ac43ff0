-- The publication through which broadcasts from the database are read. It has the name and form in
-- which Supabase's own server creates it, so each server can use a publication that the other
-- created. An existing publication is never altered.
--
-- The publication does not use publish_via_partition_root. With that setting, it would change the
-- names of the partitions in other publications, because the setting of one publication applies to
-- a whole stream.

do $$
begin
  if to_regclass('realtime.messages') is null
    or exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime_messages_publication')
  then
    return;
  end if;
  create publication supabase_realtime_messages_publication for table realtime.messages;
exception when insufficient_privilege then
  raise notice 'Publication supabase_realtime_messages_publication is missing and % may not create it: broadcasts from the database will not be sent.', current_user;
end
$$;
