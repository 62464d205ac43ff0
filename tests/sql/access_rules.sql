-- Which users may do what to which row and column, as readable rules. The expected results follow
-- from the rules and from facts about the test data, never from the policies. Every kind of user
-- tries every verb on every row and column.

begin;
\ir support.sql

-- --------------------------------------------------------------------------------------- the rules

-- Rows: which users may do what. "own" means the row's owner. That is the user who sent, reacted,
-- hid, drafted or blocked, or whose preferences or presence the row contains.
create table tests.row_rules (table_name regclass, seen_by text, changed_by text, change text, removed_by text);
insert into tests.row_rules values
  ('public.user_conversations',            'members',        'nobody',            'title = ''x''',             'nobody'),
  ('public.user_conversation_members',     'own as member',  'own as member',     'is_pinned = not is_pinned', 'nobody'),
  ('public.conversation_receipts',         'members',        'nobody',            'last_read_seq = 9',         'nobody'),
  ('public.user_messages',                 'members',        'own as writer',     'content = content || ''!''', 'nobody'),
  ('public.message_edits',                 'members',        'nobody',            'version = 9',               'nobody'),
  ('public.message_hides',                 'own',            'nobody',            'created_at = now()',        'nobody'),
  ('public.message_drafts',                'own',            'nobody',            'content = ''x''',           'nobody'),
  ('public.message_reactions',             'members',        'nobody',            'created_at = now()',        'own as member'),
  ('public.message_pins',                  'members',        'nobody',            'created_at = now()',        'nobody'),
  ('public.user_presence',                 'acquaintances',  'own',               'status_text = ''x''',       'nobody'),
  ('public.user_blocks',                   'own',            'nobody',            'created_at = now()',        'own'),
  ('public.user_notification_preferences', 'own',            'own',               'sound_enabled = false',     'nobody'),
  ('chat.message_reports',                 'nobody',         'nobody',            'note = ''x''',              'nobody'),
  ('chat.presence_reports',                'nobody',         'nobody',            'status = ''away''',         'nobody');

-- Columns that users may write. They may read every column of a table in which they see rows.
create table tests.column_rules (table_name regclass, inserted text, updated text);
insert into tests.column_rules values
  ('public.user_conversations', '', ''),
  ('public.user_conversation_members', '', 'is_archived is_pinned is_muted muted_until notification_level marked_unread'),
  ('public.conversation_receipts', '', ''),
  ('public.user_messages',
    'id conversation_id sender_id content message_type file_url file_name file_size file_type metadata client_message_id reply_to_id mentions',
    'content is_deleted metadata'),
  ('public.message_edits', '', ''),
  ('public.message_hides', '', ''),
  ('public.message_drafts', '', ''),
  ('public.message_reactions', 'id message_id conversation_id user_id reaction emoji', ''),
  ('public.message_pins', '', ''),
  ('public.user_presence',
    'user_id status last_seen current_page is_typing_to typing_started_at updated_at status_text status_emoji',
    'user_id status last_seen current_page is_typing_to typing_started_at updated_at status_text status_emoji'),
  ('public.user_blocks', 'blocker_id blocked_id', ''),
  ('public.user_notification_preferences', '*', '*');

-- New rows: which users may insert them, as their own or as Ana's.
create table tests.insert_rules (what text, statement text, allowed_to text);
insert into tests.insert_rules values
  ('a message', 'insert into public.user_messages (conversation_id, sender_id, content) values ($conversation, $me, ''x'')', 'writers'),
  ('a system message', 'insert into public.user_messages (conversation_id, sender_id, content, message_type) values ($conversation, $me, ''x'', ''system'')', 'nobody'),
  ('a message of Ana''s', 'insert into public.user_messages (conversation_id, sender_id, content) values ($conversation, $ana, ''x'')', 'nobody'),
  ('a reaction', 'insert into public.message_reactions (message_id, user_id, reaction) values ($message, $me, ''🎉'')', 'writers'),
  ('a reaction of Ana''s', 'insert into public.message_reactions (message_id, user_id, reaction) values ($message, $ana, ''🎉'')', 'nobody'),
  ('presence', 'insert into public.user_presence (user_id, status) values ($me, ''away'') on conflict (user_id) do update set status = excluded.status', 'people'),
  ('presence of Ana''s', 'insert into public.user_presence (user_id, status) values ($ana, ''away'') on conflict (user_id) do update set status = excluded.status', 'nobody'),
  ('a block of Ana', 'insert into public.user_blocks (blocker_id, blocked_id) values ($me, $ana)', 'those who know her'),
  ('a block by Ana', 'insert into public.user_blocks (blocker_id, blocked_id) values ($ana, $me)', 'nobody'),
  ('preferences', 'insert into public.user_notification_preferences (user_id) values ($me) on conflict do nothing', 'people'),
  ('preferences of Ana''s', 'insert into public.user_notification_preferences (user_id) values ($ana)', 'nobody');

-- --------------------------------------------------------------------------------------- the scene

-- Twelve kinds of users, and Ana. Five of these kinds have or had a conversation with her.
create table tests.kinds (kind text primary key, id uuid, team text, is_active boolean, talks_to_ana boolean, left_it boolean, blocks_ana boolean, is_blocked_by_ana boolean);
select tests.add_person('ex-member'), tests.add_person('blocked'), tests.add_person('blocker'), tests.add_person('suspended');
insert into tests.kinds
select v.kind, p.id, v.team, v.is_active, v.talks, v.left_it, v.blocks, v.is_blocked
from (values
  --                                        team       active talks  left   blocks blocked
  ('ana',              'ana',               'support', true,  null,  false, false, false),
  ('user',             'ben',               'support', true,  true,  false, false, false),
  ('admin',            'ada',               'support', true,  false, false, false, false),
  ('super admin',      'sue',               'board',   true,  false, false, false, false),
  ('outsider',         'zoe',               'sales',   true,  false, false, false, false),
  ('ex-member',        'ex-member',         'support', true,  true,  true,  false, false),
  ('blocked',          'blocked',           'support', true,  true,  false, false, true),
  ('blocker',          'blocker',           'support', true,  true,  false, true,  false),
  ('suspended',        'suspended',         'support', false, true,  false, false, false),
  -- A guest has an account but no row in the application's table of users.
  ('anonymous sign-in', null,               null,      false, false, false, false, false),
  ('no sub',           null,                null,      false, false, false, false, false),
  ('anon',             null,                null,      false, false, false, false, false),
  ('service_role',     null,                null,      false, false, false, false, false)
) v (kind, name, team, is_active, talks, left_it, blocks, is_blocked)
left join tests.people p on p.name = v.name;
update tests.kinds set id = gen_random_uuid() where kind = 'anonymous sign-in';
insert into auth.users (id) select k.id from tests.kinds k where k.kind = 'anonymous sign-in';
select tests.equals(count(*), 13::bigint, 'kinds') from tests.kinds;
grant select on tests.kinds to public;

create table tests.conversations (kind text, id uuid, message uuid);
insert into tests.conversations (kind, id)
select k.kind, tests.conversation('ana', p.name) from tests.kinds k join tests.people p on p.id = k.id where k.talks_to_ana;

do $$
declare
  place record;
  hers uuid;
  theirs uuid;
begin
  for place in select c.kind, c.id, p.name from tests.conversations c join tests.kinds k on k.kind = c.kind join tests.people p on p.id = k.id loop
    hers := tests.message('ana', place.id, 'from Ana');
    theirs := tests.message(place.name, place.id, 'from the other');
    update tests.conversations c set message = hers where c.id = place.id;
    perform tests.act_as('ana');
    perform chat.edit_message(hers, 'from Ana, edited'), chat.pin_message(hers), chat.react(theirs, '👍'), chat.hide_message(theirs);
    perform chat.set_conversation_settings(place.id, '{"draft": "x"}'), chat.report_message(theirs, 'spam');
    perform tests.act_as(place.name);
    perform chat.edit_message(theirs, 'from the other, edited'), chat.pin_message(theirs), chat.react(hers, '👍'), chat.hide_message(theirs);
    perform chat.set_conversation_settings(place.id, '{"draft": "x"}'), chat.report_message(hers, 'spam');
    perform tests.act_as('owner');
  end loop;
end
$$;
insert into public.user_presence (user_id, status) select k.id, 'online' from tests.kinds k where k.team is not null;
insert into public.user_notification_preferences (user_id) select k.id from tests.kinds k where k.team is not null;
insert into public.user_blocks (blocker_id, blocked_id)
select a.id, k.id from tests.kinds a, tests.kinds k where a.kind = 'ana' and k.is_blocked_by_ana
union all
select k.id, a.id from tests.kinds a, tests.kinds k where a.kind = 'ana' and k.blocks_ana;
update public.user_conversation_members m set left_at = now() from tests.kinds k where k.left_it and m.user_id = k.id;
update public.users u set status = 'suspended' from tests.kinds k where k.id = u.id and not k.is_active;

-- --------------------------------------------------------------------------------------- the facts

create function tests.is_member(kind text, conversation uuid) returns boolean language sql stable as $$
  select exists (
    select from tests.conversations c join tests.kinds k on k.kind = is_member.kind
    where c.id = conversation and (k.kind = 'ana' or (k.kind = c.kind and not k.left_it))
  )
$$;
create function tests.is_writer(kind text, conversation uuid) returns boolean language sql stable as $$
  select tests.is_member(is_writer.kind, conversation) and (
    select k.is_active and not k.blocks_ana and not k.is_blocked_by_ana
    from tests.conversations c join tests.kinds k on k.kind = c.kind where c.id = conversation
  )
$$;
create function tests.are_acquainted(kind text, other uuid) returns boolean language sql stable as $$
  select exists (
    select from tests.kinds k, tests.kinds o
    where k.kind = are_acquainted.kind and o.id = other and (k.id = o.id or k.team = o.team)
  )
$$;
create function tests.applies(rule text, kind text, conversation uuid, owner uuid) returns boolean language plpgsql stable as $$
declare
  is_own constant boolean := coalesce((select k.id from tests.kinds k where k.kind = applies.kind) = owner, false);
begin
  return applies.kind = 'service_role' or case rule
    when 'nobody' then false
    when 'members' then tests.is_member(applies.kind, conversation)
    when 'writers' then tests.is_writer(applies.kind, conversation)
    when 'own' then is_own
    when 'own as member' then is_own and tests.is_member(applies.kind, conversation)
    when 'own as writer' then is_own and tests.is_writer(applies.kind, conversation)
    when 'acquaintances' then tests.are_acquainted(applies.kind, owner)
    -- A super admin may write to all users and therefore knows all of them.
    when 'those who know her' then applies.kind = 'super admin' or tests.are_acquainted(applies.kind, owner)
    when 'people' then exists (select from tests.kinds k where k.kind = applies.kind and k.team is not null)
  end;
end
$$;

create view tests.rows (table_name, conversation, owner, condition) as
select 'public.user_conversations'::regclass, t.id, null::uuid, format('id = %L', t.id) from public.user_conversations t
union all select 'public.user_conversation_members'::regclass, t.conversation_id, t.user_id, format('(conversation_id, user_id) = (%L, %L)', t.conversation_id, t.user_id) from public.user_conversation_members t
union all select 'public.conversation_receipts'::regclass, t.conversation_id, t.user_id, format('(conversation_id, user_id) = (%L, %L)', t.conversation_id, t.user_id) from public.conversation_receipts t
union all select 'public.user_messages'::regclass, t.conversation_id, t.sender_id, format('id = %L', t.id) from public.user_messages t
union all select 'public.message_edits'::regclass, t.conversation_id, t.edited_by, format('id = %L', t.id) from public.message_edits t
union all select 'public.message_hides'::regclass, null, t.user_id, format('(user_id, message_id) = (%L, %L)', t.user_id, t.message_id) from public.message_hides t
union all select 'public.message_drafts'::regclass, t.conversation_id, t.user_id, format('(conversation_id, user_id) = (%L, %L)', t.conversation_id, t.user_id) from public.message_drafts t
union all select 'public.message_reactions'::regclass, t.conversation_id, t.user_id, format('id = %L', t.id) from public.message_reactions t
union all select 'public.message_pins'::regclass, t.conversation_id, t.pinned_by, format('message_id = %L', t.message_id) from public.message_pins t
union all select 'public.user_presence'::regclass, null, t.user_id, format('user_id = %L', t.user_id) from public.user_presence t
union all select 'public.user_blocks'::regclass, null, t.blocker_id, format('(blocker_id, blocked_id) = (%L, %L)', t.blocker_id, t.blocked_id) from public.user_blocks t
union all select 'public.user_notification_preferences'::regclass, null, t.user_id, format('user_id = %L', t.user_id) from public.user_notification_preferences t
union all select 'chat.message_reports'::regclass, null, t.reporter_id, format('id = %L', t.id) from chat.message_reports t
union all select 'chat.presence_reports'::regclass, null, t.user_id, format('user_id = %L', t.user_id) from chat.presence_reports t;
create table tests.all_rows as select * from tests.rows;
-- A table without rows would make its rules meaningless.
select tests.equals(array_agg(r.table_name::text), null, 'tables without rows')
from tests.row_rules r where not exists (select from tests.all_rows a where a.table_name = r.table_name);

create function tests.act_as_kind(kind text) returns void language plpgsql as $$
declare
  who constant uuid := (select k.id from tests.kinds k where k.kind = act_as_kind.kind);
begin
  if kind in ('anon', 'service_role') then
    perform tests.act_as(kind);
    return;
  end if;
  perform set_config('request.jwt.claims', json_strip_nulls(json_build_object(
    'sub', who, 'role', 'authenticated', 'is_anonymous', kind = 'anonymous sign-in'
  ))::text, true);
  perform set_config('role', 'authenticated', true);
end
$$;

-- ---------------------------------------------------------------------------------- the comparison

create table tests.differences (line text);

-- Checks the rows one by one. If a rule forbids access, the row is not found or the statement is
-- refused. Neither changes anything.
do $$
declare
  cell record;
  outcome text;
  expected boolean;
begin
  for cell in
    select k.kind, v.verb, v.rule, r.table_name, a.conversation, a.owner,
      replace(replace(v.statement, '$table', r.table_name::text), '$row', a.condition) as statement
    from tests.row_rules r
    join tests.all_rows a on a.table_name = r.table_name
    cross join lateral (values
      ('select', r.seen_by, 'select from $table where $row'),
      ('update', r.changed_by, format('update $table set %s where $row', r.change)),
      ('delete', r.removed_by, 'delete from $table where $row')
    ) v (verb, rule, statement)
    cross join tests.kinds k
    order by k.kind
  loop
    -- Even the server may not freely change rows that only its functions write.
    continue when cell.kind = 'service_role' and cell.table_name = 'chat.presence_reports'::regclass;
    expected := tests.applies(cell.rule, cell.kind, cell.conversation, cell.owner);
    perform tests.act_as_kind(cell.kind);
    begin
      outcome := tests.attempt(cell.statement);
    exception when others then
      outcome := 'error ' || sqlstate;
    end;
    perform tests.act_as('owner');
    if (outcome = '1') <> expected or (not expected and outcome not in ('0', 'refused')) then
      insert into tests.differences values (format('%s by %s: expected %s, got %s: %s', cell.verb, cell.kind, expected, outcome, cell.statement));
    end if;
  end loop;
end
$$;

-- Checks the columns one by one, without rows, because a missing privilege is reported before any
-- row is read.
do $$
declare
  cell record;
  outcome text;
  expected boolean;
begin
  for cell in
    select k.kind, v.verb, a.attname, replace(replace(replace(v.statement, '$table', r.table_name::text), '$column', quote_ident(a.attname)), '$type', format_type(a.atttypid, a.atttypmod)) as statement,
      v.columns = '*' or a.attname = any (string_to_array(v.columns, ' ')) as is_listed
    from tests.column_rules r
    join pg_attribute a on a.attrelid = r.table_name and a.attnum > 0 and not a.attisdropped
    cross join lateral (values
      ('select', '*', 'select $column from $table where false'),
      ('insert', r.inserted, case when a.attidentity = '' then 'insert into $table ($column) select null::$type where false' end),
      ('update', r.updated, case when a.attidentity = '' then 'update $table set $column = null where false' end)
    ) v (verb, columns, statement)
    cross join tests.kinds k
    where v.statement is not null
    order by k.kind
  loop
    expected := case cell.kind when 'anon' then false when 'service_role' then true else cell.is_listed end;
    perform tests.act_as_kind(cell.kind);
    outcome := tests.attempt(cell.statement);
    perform tests.act_as('owner');
    if (outcome = '0') <> expected then
      insert into tests.differences values (format('%s by %s: expected %s, got %s: %s', cell.verb, cell.kind, expected, outcome, cell.statement));
    end if;
  end loop;
end
$$;

-- Checks new rows.
do $$
declare
  cell record;
  outcome text;
  expected boolean;
begin
  for cell in
    select k.kind, r.what, c.id as conversation, a.id as ana, r.allowed_to,
      replace(replace(replace(replace(r.statement,
        '$conversation', quote_literal(c.id) || '::uuid'), '$message', quote_literal(c.message) || '::uuid'),
        '$me', quote_nullable(k.id) || '::uuid'), '$ana', quote_literal(a.id) || '::uuid') as statement
    from tests.insert_rules r
    cross join tests.kinds k
    join tests.kinds a on a.kind = 'ana'
    -- The users' own conversation, or a conversation of other users.
    join tests.conversations c on c.kind = case when k.talks_to_ana then k.kind else 'user' end
    -- The server has no user id, and Ana has not blocked herself.
    where k.kind not in ('service_role', 'ana') and not (r.what = 'a block of Ana' and k.blocks_ana)
  loop
    expected := tests.applies(cell.allowed_to, cell.kind, cell.conversation, cell.ana);
    perform tests.act_as_kind(cell.kind);
    begin
      outcome := tests.attempt(cell.statement);
    exception when others then
      outcome := 'error ' || sqlstate;
    end;
    perform tests.act_as('owner');
    -- If the preferences already exist, nothing is inserted, which is not a refusal.
    if (outcome in ('0', '1')) <> expected then
      insert into tests.differences values (format('%s by %s: expected %s, got %s: %s', cell.what, cell.kind, expected, outcome, cell.statement));
    end if;
  end loop;
end
$$;

do $$
declare
  lines constant text := (select string_agg(d.line, E'\n') from (select d.line from tests.differences d limit 40) d);
begin
  if lines is not null then
    raise exception E'% differences from the rules:\n%', (select count(*) from tests.differences), lines;
  end if;
end
$$;

rollback;
