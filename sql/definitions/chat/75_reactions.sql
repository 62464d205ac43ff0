-- Reactions. Each reaction changes its message, so clients that fetch changes receive the whole
-- message.

create or replace function chat.judge_reaction()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  by_server constant boolean := tg_argv[0] = 'server';
  -- Evaluated before the message is looked up, so that claims without a valid id fail in the same
  -- way for an existing and for an unknown message.
  caller constant uuid := auth.uid();
  message record;
begin
  -- Clients may write either column.
  new.reaction := coalesce(new.reaction, new.emoji);
  new.emoji := new.reaction;
  if coalesce(chat.is_blank(new.reaction), true) or char_length(new.reaction) > 64 then
    perform chat.refuse('validation_failed', 'A reaction must have 1 to 64 characters');
  end if;
  new.user_id := coalesce(new.user_id, caller);

  -- The message is locked, so that no reaction is added while another transaction deletes it.
  select m.conversation_id, m.is_deleted into message
  from public.user_messages m
  where m.id = new.message_id
    -- The server may react to any message, a user only to messages in their own conversations. The
    -- refusal reveals nothing about messages elsewhere.
    and (by_server or (chat.my_message(m.id)).id is not null)
  for no key update;
  if not found then
    perform chat.refuse('not_found');
  end if;
  if not by_server then
    perform chat.refuse_if_outdated();
  end if;
  if message.is_deleted then
    perform chat.refuse('message_deleted');
  end if;
  if not by_server and not chat.can_send(message.conversation_id) then
    perform chat.refuse('not_allowed_recipient');
  end if;

  -- The number is limited, because every row of the message contains all reactions.
  if not by_server
    and (select count(*) from public.message_reactions r where r.message_id = new.message_id and r.user_id = new.user_id) >= 20
    and not exists (
      select
      from public.message_reactions r
      where r.message_id = new.message_id and r.user_id = new.user_id and r.reaction = new.reaction
    )
  then
    perform chat.refuse('validation_failed', 'At most 20 reactions per user to a message');
  end if;

  new.conversation_id := message.conversation_id;
  new.created_at := clock_timestamp();
  new.changed_xid := pg_current_xact_id();
  return new;
end
$$;

revoke all on function chat.judge_reaction() from public;

-- The condition of a trigger is evaluated as the writer, so it distinguishes users from the server.
-- A user without an id in their claims is not the server.
create or replace trigger message_reactions_10_judge
  before insert on public.message_reactions
  for each row when (row_security_active('public.message_reactions'::regclass))
  execute function chat.judge_reaction('user');

create or replace trigger message_reactions_10_judge_by_server
  before insert on public.message_reactions
  for each row when (not row_security_active('public.message_reactions'::regclass))
  execute function chat.judge_reaction('server');

-- Makes the check of the policy again, because the policy uses the snapshot of the statement, which
-- may be older than the caller's removal from the conversation. Like the policy, this trigger skips
-- the row if the check fails.
create or replace function chat.judge_reaction_removal()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chat.refuse_if_outdated();
  return case when chat.is_my_conversation(old.conversation_id) then old end;
end
$$;

revoke all on function chat.judge_reaction_removal() from public;

create or replace trigger message_reactions_10_judge_removal
  before delete on public.message_reactions
  for each row when (row_security_active('public.message_reactions'::regclass))
  execute function chat.judge_reaction_removal();

create or replace function chat.touch_reacted_messages()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- All transactions that change several messages lock them in the same order.
  perform
  from public.user_messages m
  where m.id in (select r.message_id from reactions r) and not m.is_deleted
  order by m.id
  for no key update;

  -- Setting any other rev makes the trigger of user_messages assign the next one. A deleted message
  -- already has the next rev, because its reactions are removed together with the text.
  update public.user_messages m
  set rev = m.rev + 1
  where m.id in (select r.message_id from reactions r) and not m.is_deleted;
  return null;
end
$$;

revoke all on function chat.touch_reacted_messages() from public;

create or replace trigger message_reactions_20_touch_message
  after insert on public.message_reactions
  referencing new table as reactions
  for each statement execute function chat.touch_reacted_messages();

create or replace trigger message_reactions_20_untouch_message
  after delete on public.message_reactions
  referencing old table as reactions
  for each statement execute function chat.touch_reacted_messages();

-- Runs as the writing role, for the same reason as chat.judge_written_messages().
create or replace function chat.judge_written_reactions()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform chat.check_rights(w.conversation_id, tg_op = 'INSERT') from written w group by w.conversation_id;
  return null;
end
$$;

revoke all on function chat.judge_written_reactions() from public;

create or replace trigger message_reactions_30_judge_added
  after insert on public.message_reactions
  referencing new table as written
  for each statement when (row_security_active('public.message_reactions'::regclass))
  execute function chat.judge_written_reactions();

create or replace trigger message_reactions_30_judge_removed
  after delete on public.message_reactions
  referencing old table as written
  for each statement when (row_security_active('public.message_reactions'::regclass))
  execute function chat.judge_written_reactions();

create or replace function chat.react(message_id uuid, reaction text, present boolean default true)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if present then
    insert into public.message_reactions (message_id, user_id, reaction)
    values (react.message_id, auth.uid(), react.reaction)
    on conflict on constraint message_reactions_message_user_reaction_key do nothing;
  else
    if (chat.my_message(message_id)).id is null then
      perform chat.refuse('not_found');
    end if;
    delete from public.message_reactions r
    where r.message_id = react.message_id and r.user_id = auth.uid() and r.reaction = react.reaction;
  end if;
  return chat.reactions_of(react.message_id);
end
$$;

comment on function chat.react(uuid, text, boolean) is
  'Adds or removes a reaction of the caller and returns the message''s reactions. Repeating it does nothing.';

revoke all on function chat.react(uuid, text, boolean) from public;
grant execute on function chat.react(uuid, text, boolean) to authenticated;

create or replace function chat.reactions_of(message_id uuid)
returns json
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
  return (
    select coalesce(json_agg(
      json_build_object(
        'reaction', kind.reaction,
        'emoji', kind.reaction,
        'count', kind.people,
        'me', kind.me,
        'user_ids', kind.user_ids
      )
      order by kind.first_at, kind.reaction
    ), '[]')
    from (
      select
        r.reaction,
        count(*) as people,
        bool_or(r.user_id = (select auth.uid())) as me,
        -- count includes all users; user_ids lists only the first ten.
        (array_agg(r.user_id order by r.created_at, r.user_id))[1:10] as user_ids,
        min(r.created_at) as first_at
      from public.message_reactions r
      where r.message_id = reactions_of.message_id
      group by r.reaction
    ) kind
  );
end
$$;

comment on function chat.reactions_of(uuid) is 'The reactions of one message, as in REST responses.';

revoke all on function chat.reactions_of(uuid) from public;
grant execute on function chat.reactions_of(uuid) to authenticated;
