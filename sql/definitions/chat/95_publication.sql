-- The tables whose changes clients may subscribe to, within the limits of their policies. These
-- tables must never be added: blocks, drafts, edits, hides, pins, preferences, reports.

do $$
declare
  published regclass;
begin
  foreach published in array array[
    'public.user_conversations',
    'public.user_conversation_members',
    'public.conversation_receipts',
    'public.user_messages',
    'public.user_presence',
    'public.message_reactions'
  ]::regclass[]
  loop
    continue when exists (
      select
      from pg_catalog.pg_publication_rel r
      join pg_catalog.pg_publication p on p.oid = r.prpubid
      where p.pubname = 'supabase_realtime' and r.prrelid = published
    ) or exists (
      select from pg_catalog.pg_publication where pubname = 'supabase_realtime' and puballtables
    );
    begin
      execute format('alter publication supabase_realtime add table %s', published);
    exception when insufficient_privilege or undefined_object then
      raise notice '% may not add % to publication supabase_realtime: its owner must.', current_user, published;
    end;
  end loop;
end
$$;
