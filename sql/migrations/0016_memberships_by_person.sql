-- One index over all memberships of a person, in the place of one over those that last and one over those that ended.
-- PostgreSQL looks for the rows of a removed person by their id alone, and a partial index does not serve that.

-- serves chat.my_conversation_ids(), on which every policy leans, counts, /sync (what I left), and the foreign key to
-- people
create index user_conversation_members_person_idx
  on public.user_conversation_members (user_id, left_at)
  include (conversation_id);
drop index public.user_conversation_members_user_idx;
drop index public.user_conversation_members_left_idx;
