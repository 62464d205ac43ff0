-- The index of messages by what 0018 folds. While it is built, for about two minutes with a million messages, messages can
-- be read and not written. Whoever cannot wait builds it beforehand, with "concurrently" (docs/operations.md): then
-- nothing is left to do here.

do $$
begin
  -- what is left of a build that was broken off
  if exists (
    select
    from pg_catalog.pg_index i
    where i.indexrelid = to_regclass('public.user_messages_words_idx') and not i.indisvalid
  ) then
    drop index public.user_messages_words_idx;
  end if;
end
$$;

-- With the 64 MB of PostgreSQL's default it takes more than twice as long.
select set_config('maintenance_work_mem', '256MB', true)
from pg_catalog.pg_settings s
where s.name = 'maintenance_work_mem' and s.setting::bigint < 256 * 1024;

-- serves search; only from functions that are not under row-level security, since @@ is not leakproof. Without the list of
-- pending entries: a search looks up every stretch by itself, and would read that list as often.
create index if not exists user_messages_words_idx
  on public.user_messages
  using gin (chat.search_keys(conversation_id, seq, sender_id, message_type, content, file_name))
  with (fastupdate = off)
  where not is_deleted;

drop index public.user_messages_search_idx;
drop function chat.search_entries(uuid, bigint, uuid, text, text, text);
drop function chat.search_text(text);
