-- Reactions. Each changes its message, so that whoever fetches what changed gets it whole.

create or replace function chat.judge_reaction()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  message record;
begin
  -- either name will do
  new.reaction := coalesce(new.reaction, new.emoji);
  new.emoji := new.reaction;
  if coalesce(chat.is_blank(new.reaction), true) or char_length(new.reaction) > 64 then
    perform chat.refuse('validation_failed', 'A reaction has 1 to 64 characters');
  end if;
  new.user_id := coalesce(new.user_id, auth.uid());

  -- locked, so that none is left on a message that is deleted meanwhile
  select m.conversation_id, m.is_deleted into message
  from public.user_messages m
  where m.id = new.message_id
    -- the server may; a person only where they are a member, and nobody learns of messages elsewhere
    and (auth.uid() is null or (chat.my_message(m.id)).id is not null)
  for no key update;
  if not found then
    perform chat.refuse('not_found');
  end if;
  if message.is_deleted then
    perform chat.refuse('message_deleted');
  end if;
  if auth.uid() is not null and not chat.can_send(message.conversation_id) then
    perform chat.refuse('not_allowed_recipient');
  end if;

  -- as many as there is a use for: every row of the message carries them all
  if auth.uid() is not null
    and (select count(*) from public.message_reactions r where r.message_id = new.message_id and r.user_id = new.user_id) >= 20
    and not exists (
      select
      from public.message_reactions r
      where r.message_id = new.message_id and r.user_id = new.user_id and r.reaction = new.reaction
    )
  then
    perform chat.refuse('validation_failed', 'At most 20 reactions of one person to a message');
  end if;

  new.conversation_id := message.conversation_id;
  new.created_at := clock_timestamp();
  new.changed_xid := pg_current_xact_id();
  return new;
end
$$;

revoke all on function chat.judge_reaction() from public;

create or replace trigger message_reactions_10_judge
  before insert on public.message_reactions
  for each row execute function chat.judge_reaction();

create or replace function chat.touch_reacted_messages()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- one order for everybody who reacts to several at once
  perform
  from public.user_messages m
  where m.id in (select r.message_id from reactions r) and not m.is_deleted
  order by m.id
  for no key update;

  -- Any other rev asks the trigger of user_messages for the next one. A tombstone, whose reactions go with it, has it.
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
  'Adds or takes away a reaction of the caller''s, however often it is asked, and answers the reactions of the message.';

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
        -- the counter says how many there are; a row need not name them all
        (array_agg(r.user_id order by r.created_at, r.user_id))[1:10] as user_ids,
        min(r.created_at) as first_at
      from public.message_reactions r
      where r.message_id = reactions_of.message_id
      group by r.reaction
    ) kind
  );
end
$$;

comment on function chat.reactions_of(uuid) is 'The reactions of one message as REST rows show them.';

revoke all on function chat.reactions_of(uuid) from public;
grant execute on function chat.reactions_of(uuid) to authenticated;
