-- Full-text search. The functions are definers, because row-level security would prevent the use of
-- the index (@@ is not leakproof). So every query here is restricted to the caller's conversations.

-- Converts a word or phrase to a "like" pattern for " " || chat.folded_text(…). The words of a
-- phrase must follow each other, and the last one matches as a prefix. Runs of scripts without
-- spaces match anywhere. Returns null if nothing remains to search for.
create or replace function chat.search_pattern(written text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  words constant text := chat.folded_text(written);
begin
  -- Folded words contain none of the special characters of patterns.
  return case
    when words = '' then null
    when chat.is_unspaced(words) then '%' || words || '%'
    else '% ' || words || '%'
  end;
end
$$;

revoke all on function chat.search_pattern(text) from public;

-- Returns a query for the index entries of messages that contain all these words and none of the
-- unwanted ones. In the query, "~" stands for the name of the stretch: 2048 consecutive messages of
-- a conversation (chat.search_stretch). Returns null without any required entry, because unwanted
-- words alone find nothing.
create or replace function chat.search_lookup(words text[], marks text[], sender_ids uuid[], unwanted text[])
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select string_agg(condition, ' & ') || coalesce((select string_agg(format(' & !''~=%s'':*', u.word), '') from unnest(unwanted) u (word)), '')
    from (
      select format('''~=%s'':*', left(w.word, 100)) as condition
      from unnest(words) w (word)
      where not chat.is_unspaced(w.word) or char_length(w.word) = 1
      union
      select format('''~=%s''', s.sign || s.next)
      from unnest(words) w (word)
      cross join lateral string_to_array(w.word, null) as signs
      cross join lateral unnest(signs, signs[2:]) s (sign, next)
      where chat.is_unspaced(w.word) and s.next is not null
      union
      select format('''~#%s''', m.mark)
      from unnest(marks) m (mark)
      union
      select '(' || string_agg(format('''~@%s''', right(s.sender_id::text, 8)), ' | ') || ')'
      from unnest(sender_ids) s (sender_id)
      having count(*) between 1 and 50
    ) c
  );
end
$$;

revoke all on function chat.search_lookup(text[], text[], uuid[], text[]) from public;

-- Returns how well a message matches the words, for sorting. More occurrences, whole words and
-- shorter messages score higher.
create or replace function chat.search_score(written text, words text[])
returns real
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  padded constant text := ' ' || chat.folded_text(written) || ' ';
begin
  return coalesce(
    (
      select sum(
        ln(1 + (char_length(padded) - char_length(replace(padded, p.part, '')))::float8 / char_length(p.part))
        + case when position(p.part || ' ' in padded) > 0 then 0.5 else 0 end
      ) / ln(10 + char_length(padded)::float8)
      from unnest(words) w (word)
      cross join lateral (select case when chat.is_unspaced(w.word) then w.word else ' ' || w.word end as part) p
    ),
    0
  );
end
$$;

revoke all on function chat.search_score(text, text[]) from public;

-- Returns the users that an operator names: by id, by "me", or by a part of a name or e-mail
-- address as in the search for users. A name finds only users who share a conversation with the
-- caller, because only their messages can be found.
create or replace function chat.named_people(named text[])
returns uuid[]
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select auth.uid()
    where 'me' = any (select lower(n.name) from unnest(named) n (name))
    union
    select n.name::uuid
    from unnest(named) n (name)
    where n.name ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    union
    select p.user_id
    from chat.conversation_people(array(select chat.my_conversation_ids())) p
    join unnest(named) n (name)
      on p.full_name ilike chat.containing(n.name)
      or p.email ilike chat.containing(n.name)
      or chat.folded_text(p.full_name) like '%' || nullif(chat.folded_text(n.name), '') || '%'
    where lower(n.name) <> 'me'
  );
end
$$;

revoke all on function chat.named_people(text[]) from public;

-- Returns the caller's conversations that an operator names: by id, by another member, or by a part
-- of the title.
create or replace function chat.named_conversations(named text[])
returns uuid[]
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  caller constant uuid := auth.uid();
  others constant uuid[] := array_remove(chat.named_people(named), caller);
begin
  return array(
    select mine.conversation_id
    from public.user_conversation_members mine
    where mine.user_id = caller
      and mine.left_at is null
      and (
        mine.conversation_id = any (others)
        or exists (
          select
          from public.user_conversation_members other
          where other.conversation_id = mine.conversation_id and other.user_id = any (others)
        )
        or exists (
          select
          from public.user_conversations c
          join unnest(named) n (name)
            on c.title ilike chat.containing(n.name)
            or chat.folded_text(c.title) like '%' || nullif(chat.folded_text(n.name), '') || '%'
          where c.id = mine.conversation_id
        )
      )
  );
end
$$;

revoke all on function chat.named_conversations(text[]) from public;

-- Finds messages by words, phrases and unwanted parts as users type them. Without words, it finds
-- everything that matches the remaining conditions. With by_relevance, only the 200 newest (or
-- oldest) hits are ranked, because ranking all messages with a common word would read all of them.
-- from_*: the score, time and id of the row after which the page starts.
create or replace function chat.search_messages(
  words text default '',
  phrases text[] default '{}',
  unwanted text[] default '{}',
  senders text[] default null,
  places text[] default null,
  has text[] default '{}',
  unread boolean default false,
  sent_from timestamptz default null,
  sent_before timestamptz default null,
  by_relevance boolean default false,
  ascending boolean default false,
  max_rows int default 20,
  from_score real default null,
  from_created_at timestamptz default null,
  from_id uuid default null
)
returns table (message_id uuid, in_conversation_id uuid, created_at timestamptz, score real)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
-- A fixed plan looks up one stretch at a time. If the planner estimated how rare a word is, it
-- would make its worst errors where they cost most.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
#variable_conflict use_variable
declare
  caller constant uuid := auth.uid();
  -- The number of messages that are scanned before the index is used. A common word is usually
  -- found in the newest messages.
  walk_length constant int := case when by_relevance then 800 else 200 end;
  terms constant text[] := array(
    select distinct t.term
    from unnest(string_to_array(chat.folded_text(coalesce(words, '') || ' ' || array_to_string(phrases, ' ')), ' ')) t (term)
    where t.term <> ''
  );
  wanted_patterns constant text[] := array(
    select chat.search_pattern(t.term) from unnest(terms) t (term)
    union
    select chat.search_pattern(p.phrase) from unnest(phrases) p (phrase) where chat.search_pattern(p.phrase) is not null
  );
  unwanted_patterns constant text[] := array(
    select chat.search_pattern(u.part) from unnest(unwanted) u (part) where chat.search_pattern(u.part) is not null
  );
  -- Single words, whose absence the index can prove.
  unwanted_words constant text[] := array(
    select w.word
    from unnest(unwanted) u (part)
    cross join lateral (select chat.folded_text(u.part) as word) w
    where w.word <> '' and position(' ' in w.word) = 0 and char_length(w.word) <= 100 and not chat.is_unspaced(w.word)
  );
  sender_ids constant uuid[] := case when senders is not null then chat.named_people(senders) end;
  place_ids constant uuid[] := case when places is not null then chat.named_conversations(places) end;
  lookup constant text := chat.search_lookup(terms, array_remove(has, 'reaction'), sender_ids, unwanted_words);
  -- For single words the index is exact. For everything else it only reduces the candidates.
  is_exact constant boolean := cardinality(phrases) = 0 and cardinality(unwanted_patterns) = cardinality(unwanted_words)
    and not exists (select from unnest(terms) t (term) where char_length(t.term) > case when chat.is_unspaced(t.term) then 2 else 100 end);
  wanted constant int := case when by_relevance then 200 else least(greatest(coalesce(max_rows, 20), 1), 101) end;
  -- A position in a ranking does not limit the time of the messages after it.
  behind_at constant timestamptz := case when not by_relevance then from_created_at end;

  conversation_ids uuid[];
  seen_seqs bigint[];
  last_seqs bigint[];
  last_ats timestamptz[];
  stretch_ids uuid[];
  stretch_numbers bigint[];
  stretch_seqs bigint[];
  stretch_lows timestamptz[];
  stretch_highs timestamptz[];
  oldest_at timestamptz := coalesce(sent_from, '-infinity');
  newest_at timestamptz := coalesce(sent_before, 'infinity');
  walked_at timestamptz;
  is_walk boolean := true;
  first int := 1;
  last int := 0;
  found_ids uuid[] := '{}';
  found_ats timestamptz[] := '{}';
begin
  if caller is null or (cardinality(terms) = 0 and (words <> '' or cardinality(phrases) > 0)) then
    return;
  end if;

  -- The caller's conversations, with the seq after which messages are visible to them.
  select
    array_agg(k.conversation_id order by k.last_message_at desc),
    array_agg(k.seen_seq order by k.last_message_at desc),
    array_agg(k.last_seq order by k.last_message_at desc),
    array_agg(k.last_message_at order by k.last_message_at desc)
  into conversation_ids, seen_seqs, last_seqs, last_ats
  from (
    select
      mine.conversation_id,
      case when unread then greatest(mine.cleared_seq, mine.last_read_seq) else mine.cleared_seq end as seen_seq,
      c.last_seq,
      coalesce(c.last_message_at, 'infinity') as last_message_at
    from public.user_conversation_members mine
    join public.user_conversations c on c.id = mine.conversation_id
    where mine.user_id = caller
      and mine.left_at is null
      and (place_ids is null or mine.conversation_id = any (place_ids))
  ) k
  where k.last_seq > k.seen_seq and k.last_message_at >= oldest_at;
  if conversation_ids is null then
    return;
  end if;

  if ascending then
    walked_at := newest_at;
  else
    -- The time after which there are about walk_length messages. Each of the 100 latest
    -- conversations contributes its share, and all others contribute nothing.
    walked_at := greatest(
      oldest_at,
      last_ats[101],
      (
        select max(e.reached_at)
        from unnest(conversation_ids[1:100]) k (id)
        cross join lateral (
          select (
            select m.created_at
            from public.user_messages m
            where m.conversation_id = k.id and m.created_at < newest_at and m.created_at <= coalesce(behind_at, 'infinity')
            order by m.created_at desc
            offset greatest(walk_length / least(cardinality(conversation_ids), 100), 3)
            limit 1
          ) as reached_at
        ) e
      )
    );
    stretch_ids := conversation_ids;
    stretch_seqs := seen_seqs;
    stretch_numbers := last_seqs;
    stretch_lows := array_fill(walked_at, array[cardinality(conversation_ids)]);
    stretch_highs := last_ats;
    -- Conversations whose last message is older have no messages after that time.
    last := (select count(*) from unnest(last_ats) l (last_at) where l.last_at >= walked_at);
  end if;

  loop
    select array_agg(best.id), array_agg(best.created_at)
    into found_ids, found_ats
    from (
      select h.id, h.created_at
      from (
        select f.id, f.created_at from unnest(found_ids, found_ats) f (id, created_at)
        union all
        select c.id, c.created_at
        from (
          select m.id, m.conversation_id, m.seq, k.seen_seq, m.created_at, m.sender_id, m.message_type, m.content, m.file_name
          from unnest(stretch_ids[first:last], stretch_numbers[first:last], stretch_seqs[first:last]) k (id, number, seen_seq)
          cross join lateral (
            select *
            from public.user_messages u
            where chat.search_keys(u.conversation_id, u.seq, u.sender_id, u.message_type, u.content, u.file_name)
                @@ replace(lookup, '~', chat.search_stretch(k.id, k.number))::tsquery
              and not u.is_deleted
              -- Not "=", because the planner would then read the conversation instead of the index.
              and u.conversation_id is not distinct from k.id
            -- Keeps the planner from using the conditions below to find the rows.
            offset 0
          ) m
          where lookup is not null and not is_walk
          union all
          select m.id, m.conversation_id, m.seq, k.seen_seq, m.created_at, m.sender_id, m.message_type, m.content, m.file_name
          from unnest(stretch_ids[first:last], stretch_lows[first:last], stretch_highs[first:last], stretch_numbers[first:last], stretch_seqs[first:last]) k (id, low, high, number, seen_seq)
          join public.user_messages m on m.conversation_id = k.id and m.created_at >= k.low and m.created_at <= k.high
          where (lookup is null or is_walk) and (is_walk or m.seq >> 11 = k.number) and not m.is_deleted
        ) c
        where c.seq > c.seen_seq
          and c.created_at >= oldest_at
          and c.created_at < newest_at
          and (
            behind_at is null
            or case when ascending then (c.created_at, c.id) > (behind_at, from_id) else (c.created_at, c.id) < (behind_at, from_id) end
          )
          and (sender_ids is null or c.sender_id = any (sender_ids))
          and (not unread or c.sender_id is distinct from caller)
          and ('file' <> all (has) or c.message_type in ('image', 'file'))
          and ('image' <> all (has) or c.message_type = 'image')
          and ('link' <> all (has) or c.content ~* 'https?://')
          and ('reaction' <> all (has) or exists (select from public.message_reactions r where r.message_id = c.id))
          and (
            is_exact and not is_walk
            or ' ' || chat.folded_text(c.content || ' ' || coalesce(c.file_name, '')) like all (wanted_patterns)
          )
          and (
            cardinality(unwanted_patterns) = 0
            or is_exact and lookup is not null and not is_walk
            or not ' ' || chat.folded_text(c.content || ' ' || coalesce(c.file_name, '')) like any (unwanted_patterns)
          )
          and not exists (select from public.message_hides d where d.user_id = caller and d.message_id = c.id)
      ) h
      order by
        case when ascending then h.created_at end,
        case when ascending then h.id end,
        h.created_at desc,
        h.id desc
      limit wanted
    ) best;
    found_ids := coalesce(found_ids, '{}');
    found_ats := coalesce(found_ats, '{}');

    if is_walk then
      exit when cardinality(found_ids) >= wanted or walked_at <= oldest_at;
      is_walk := false;
      newest_at := walked_at;
      -- Everything that was not scanned above, one stretch at a time. A stretch ends at the first
      -- message of the next one.
      select
        array_agg(s.id order by s.rank),
        array_agg(s.number order by s.rank),
        array_agg(s.seen_seq order by s.rank),
        array_agg(s.low order by s.rank),
        array_agg(s.high order by s.rank)
      into stretch_ids, stretch_numbers, stretch_seqs, stretch_lows, stretch_highs
      from (
        select
          b.*,
          row_number() over (order by case when ascending then b.low end, case when not ascending then b.high end desc) as rank
        from (
          select
            k.id,
            n.number,
            k.seen_seq,
            coalesce(begun.created_at, '-infinity') as low,
            case n.number
              when k.last_seq >> 11 then k.last_at
              else coalesce(lead(begun.created_at) over (partition by k.id order by n.number), 'infinity')
            end as high
          from unnest(conversation_ids, seen_seqs, last_seqs, last_ats) k (id, seen_seq, last_seq, last_at)
          cross join lateral generate_series((k.seen_seq + 1) >> 11, k.last_seq >> 11) n (number)
          left join lateral (
            select m.created_at
            from public.user_messages m
            where m.conversation_id = k.id
              and m.seq = greatest(n.number << 11, 1)
              and (n.number > 0 or ascending)
          ) begun on true
        ) b
        where b.low < newest_at
          and b.high >= oldest_at
          and (behind_at is null or case when ascending then b.high >= behind_at else b.low <= behind_at end)
          and (
            'reaction' <> all (has)
            or exists (
              select
              from public.message_reactions r
              join public.user_messages m on m.id = r.message_id
              where r.conversation_id = b.id and m.seq >> 11 = b.number
            )
          )
      ) s;
      exit when stretch_ids is null;
      first := 1;
      last := 1;
    else
      exit when last >= cardinality(stretch_ids)
        -- All further stretches begin after the end of the page, so the page is complete.
        or (
          cardinality(found_ids) >= wanted
          and case
            when ascending then found_ats[wanted] < stretch_lows[last + 1]
            else found_ats[wanted] > stretch_highs[last + 1]
          end
        );
      -- At most twice as many stretches as were searched so far, and at most eight, so that a
      -- common word does not fetch most of a long conversation.
      first := last + 1;
      last := least(last * 3, last + 8, cardinality(stretch_ids));
    end if;
  end loop;

  return query
  select r.id, r.conversation_id, r.created_at, r.score
  from (
    select m.id, m.conversation_id, m.created_at, chat.search_score(m.content || ' ' || coalesce(m.file_name, ''), terms) as score
    from public.user_messages m
    where m.id = any (found_ids)
  ) r
  where not by_relevance
    or from_score is null
    or case when ascending then (r.score, r.created_at, r.id) > (from_score, from_created_at, from_id) else (r.score, r.created_at, r.id) < (from_score, from_created_at, from_id) end
  order by
    case when ascending and by_relevance then r.score end,
    case when ascending then r.created_at end,
    case when ascending then r.id end,
    case when by_relevance then r.score end desc,
    r.created_at desc,
    r.id desc
  limit least(greatest(coalesce(max_rows, 20), 1), 101);
end
$$;

comment on function chat.search_messages(text, text[], text[], text[], text[], text[], boolean, timestamptz, timestamptz, boolean, boolean, int, real, timestamptz, uuid) is
  'Messages of the caller''s conversations that contain every word and phrase and nothing unwanted, newest first or by relevance. The next page starts after the score, created_at and id of the last row.';

revoke all on function chat.search_messages(text, text[], text[], text[], text[], text[], boolean, timestamptz, timestamptz, boolean, boolean, int, real, timestamptz, uuid) from public;
grant execute on function chat.search_messages(text, text[], text[], text[], text[], text[], boolean, timestamptz, timestamptz, boolean, boolean, int, real, timestamptz, uuid) to authenticated;

-- Returns what search results show of their conversations.
create or replace function chat.conversation_cards(conversation_ids uuid[])
returns table (conversation_id uuid, card json)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    c.id,
    json_build_object(
      'id', c.id,
      'kind', c.kind,
      'title', c.title,
      'participant_1_id', c.participant_1_id,
      'participant_2_id', c.participant_2_id,
      'is_archived', mine.is_archived,
      'other_user', (
        select json_build_object(
          'id', p.user_id,
          'full_name', p.full_name,
          'email', p.email,
          'avatar_url', p.avatar_url,
          'status', p.status,
          'last_seen', p.last_seen
        )
        from chat.conversation_people(array[c.id]) p
        where c.kind = 'direct' and p.user_id <> mine.user_id
      )
    )
  from public.user_conversation_members mine
  join public.user_conversations c on c.id = mine.conversation_id
  where mine.user_id = (select auth.uid()) and mine.conversation_id = any (conversation_cards.conversation_ids);
end
$$;

comment on function chat.conversation_cards(uuid[]) is 'The data by which a user recognizes each of the given conversations of the caller: much less than chat.conversation_rows().';

revoke all on function chat.conversation_cards(uuid[]) from public;
grant execute on function chat.conversation_cards(uuid[]) to authenticated;
