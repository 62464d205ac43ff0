-- The state that user $1 should see, in the form of Copy::canonical(), and the number on their
-- badge. Both are read from the tables, without policies.
with mine as (
  select m.*
  from public.user_conversation_members m
  where m.user_id = $1 and m.left_at is null and not m.hidden
),
positions as (
  select r.conversation_id, r.user_id, r.last_read_seq
  from public.conversation_receipts r
  where r.user_id <> $1
  union all
  select m.conversation_id, m.user_id, m.last_read_seq
  from mine m
),
shown as (
  select
    m.conversation_id,
    m.seq,
    jsonb_build_object(
      'content', m.content,
      'created_at', m.created_at,
      'edited_at', m.edited_at,
      'id', m.id,
      'is_deleted', m.is_deleted,
      'is_edited', m.is_edited,
      'mentions', m.mentions,
      'reply_to_id', m.reply_to_id,
      'rev', m.rev,
      'sender_id', m.sender_id,
      'seq', m.seq,
      'read_by', (
        select coalesce(jsonb_agg(p.user_id order by p.user_id), '[]')
        from positions p
        where p.conversation_id = m.conversation_id and p.last_read_seq >= m.seq and p.user_id <> m.sender_id
      ),
      'reactions', (
        select coalesce(jsonb_agg(jsonb_build_array(r.reaction, r.user_id) order by r.reaction collate "C", r.user_id), '[]')
        from public.message_reactions r
        where r.message_id = m.id
      )
    ) as "row"
  from mine
  join public.user_messages m on m.conversation_id = mine.conversation_id
  where m.seq > mine.cleared_seq
    and not exists (select from public.message_hides h where h.user_id = $1 and h.message_id = m.id)
)
select
  jsonb_build_object(
    'conversations', (
      select coalesce(
        jsonb_object_agg(
          mine.conversation_id,
          jsonb_build_object(
            'is_archived', mine.is_archived,
            'is_pinned', mine.is_pinned,
            'is_muted', mine.is_muted,
            'marked_unread', mine.marked_unread,
            'mention_count', mine.mention_count,
            'unread_count', mine.unread_count
          )
        ),
        '{}'
      )
      from mine
    ),
    'messages', (
      select coalesce(jsonb_object_agg(c.conversation_id, c.list), '{}')
      from (select s.conversation_id, jsonb_agg(s."row" order by s.seq) as list from shown s group by s.conversation_id) c
    )
  ),
  (
    select coalesce(sum(m.unread_count), 0)
    from public.user_conversation_members m
    where m.user_id = $1 and m.left_at is null and not m.is_archived and not m.is_muted
  )
