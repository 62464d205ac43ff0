-- Full-text search. Definer, since row-level security would keep the planner from the index: @@ is not leakproof.
-- Every row is therefore bound to the caller's conversations here.

-- What a person typed, as a query: every word must be there, each as the beginning of one; text written without
-- spaces by its pairs of characters, as chat.search_document() stores them.
create or replace function chat.search_query(written text)
returns tsquery
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  unspaced constant text := '[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+';
  words tsquery;
  pairs text;
begin
  -- lexemes as the index has them, quoted again by the cast to text, each made a prefix
  select string_agg(quote_literal(lexeme) || ':*', ' & ')::tsquery into words
  from unnest(to_tsvector('pg_catalog.simple', regexp_replace(written, unspaced, ' ', 'g')));

  select string_agg(distinct quote_literal(substr(run.found[1], n, 2)), ' & ') into pairs
  from regexp_matches(left(written, 200), unspaced, 'g') run (found)
  cross join lateral generate_series(1, char_length(run.found[1]) - 1) n;

  return case
    when words is null then pairs::tsquery
    when pairs is null then words
    else words && pairs::tsquery
  end;
end
$$;

revoke all on function chat.search_query(text) from public;

create or replace function chat.search_messages(
  query text,
  conversation_id uuid default null,
  from_user_id uuid default null,
  sent_from timestamptz default null,
  sent_before timestamptz default null,
  has text default null,
  by_relevance boolean default false,
  max_rows int default 20,
  before_created_at timestamptz default null,
  before_id uuid default null
)
returns table (message_id uuid, in_conversation_id uuid, created_at timestamptz, score real)
language plpgsql
stable
security definer
set search_path = ''
-- how rare the words are decides the plan
set plan_cache_mode = force_custom_plan
as $$
declare
  caller constant uuid := auth.uid();
  wanted constant tsquery := chat.search_query(coalesce(search_messages.query, ''));
begin
  if wanted is null then
    return;
  end if;

  return query
  select
    m.id,
    m.conversation_id,
    m.created_at,
    ts_rank(chat.search_document(m.content, m.file_name), wanted)
  from public.user_conversation_members mine
  join public.user_messages m on m.conversation_id = mine.conversation_id
  where mine.user_id = caller
    and mine.left_at is null
    and m.seq > mine.cleared_seq
    and not m.is_deleted
    and chat.search_document(m.content, m.file_name) @@ wanted
    and (search_messages.conversation_id is null or m.conversation_id = search_messages.conversation_id)
    and (from_user_id is null or m.sender_id = from_user_id)
    and (sent_from is null or m.created_at >= sent_from)
    and (sent_before is null or m.created_at < sent_before)
    and (before_created_at is null or (m.created_at, m.id) < (before_created_at, before_id))
    and case has
      when 'file' then m.message_type in ('file', 'image')
      when 'image' then m.message_type = 'image'
      when 'link' then m.content ~* 'https?://'
      when 'reaction' then exists (select from public.message_reactions r where r.message_id = m.id)
      else true
    end
    and not exists (
      select
      from public.message_hides h
      where h.user_id = caller and h.message_id = m.id
    )
  order by case when by_relevance then ts_rank(chat.search_document(m.content, m.file_name), wanted) end desc nulls last, m.created_at desc, m.id desc
  limit least(greatest(coalesce(max_rows, 20), 1), 101);
end
$$;

comment on function chat.search_messages(text, uuid, uuid, timestamptz, timestamptz, text, boolean, int, timestamptz, uuid) is
  'Messages of the caller''s conversations that have every word, newest first or by relevance. The next page by date is asked for with created_at and id of the last row.';

revoke all on function chat.search_messages(text, uuid, uuid, timestamptz, timestamptz, text, boolean, int, timestamptz, uuid) from public;
grant execute on function chat.search_messages(text, uuid, uuid, timestamptz, timestamptz, text, boolean, int, timestamptz, uuid) to authenticated;
