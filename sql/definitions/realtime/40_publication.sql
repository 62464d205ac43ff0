-- The publication by which broadcasts from the database are read, under the name and in the form in which Supabase's
-- own server makes it, so that either finds what the other made. What is there is never altered.
--
-- Without publish_via_partition_root: with it, this publication would change under which name the partitions appear
-- in others, because the setting of one publication holds for a whole stream.

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
