-- Which users may do what to which table. The grid contains every kind of user and every verb, both
-- allowed and refused.

begin;
\ir support.sql

-- Ana has three conversations: with Ben, with Bob (she blocks him) and with Eve (who leaves).
select tests.add_person('bob'), tests.add_person('eve');

create table tests.scene (actor text primary key, conversation uuid);
insert into tests.scene (actor, conversation)
select 'ana', tests.conversation('ana', 'ben')
union all select 'bob', tests.conversation('ana', 'bob')
union all select 'eve', tests.conversation('ana', 'eve');
insert into tests.scene (actor, conversation)
select a.actor, s.conversation
from tests.scene s, unnest(array['ben', 'zoe', 'ada', 'sue', 'anon', 'service_role']) a (actor)
where s.actor = 'ana';
grant select on tests.scene to public;

-- Each conversation contains a message from Ana, which she edits and pins and the other user
-- reports. It also contains a message from the other user, which Ana reacts to and hides, and a
-- draft of Ana's.
do $$
declare
  place record;
  hers uuid;
  theirs uuid;
begin
  for place in select s.conversation, replace(s.actor, 'ana', 'ben') as other from tests.scene s where s.actor in ('ana', 'bob', 'eve') loop
    hers := tests.message('ana', place.conversation, 'from Ana');
    theirs := tests.message(place.other, place.conversation, 'from the other');
    perform tests.act_as('ana');
    perform chat.edit_message(hers, 'from Ana, edited');
    perform chat.pin_message(hers);
    perform chat.react(theirs, '👍');
    perform chat.hide_message(theirs);
    perform chat.set_conversation_settings(place.conversation, '{"draft": "I was about to say"}');
    perform tests.act_as(place.other);
    perform chat.report_message(hers, 'spam');
    perform tests.act_as('owner');
  end loop;
end
$$;
insert into public.user_blocks (blocker_id, blocked_id) values (tests.id('ana'), tests.id('bob'));
update public.user_conversation_members set left_at = now() where user_id = tests.id('eve');
insert into public.user_notification_preferences (user_id) values (tests.id('ana'));
insert into public.user_presence (user_id, status) values (tests.id('ana'), 'online');
insert into chat.idempotency_keys (user_id, key, request_hash) values (tests.id('ana'), 'k', 'x');

-- $conversation is the conversation in the actor's row of tests.scene. $me is the actor, or Ana for
-- the server.
create table tests.grid (
  subject text, verb text, statement text,
  ana text, ben text, zoe text, ada text, sue text, anon text, blocked text, ex_member text, service_role text
);

insert into tests.grid values
-- what                          verb      statement                                                                                          ana        ben        zoe        ada        sue        anon       blocked    ex-member  service_role
('conversations',               'select', 'select from user_conversations where id = $conversation',                                         '1',       '1',       '0',       '0',       '0',       'refused', '1',       '0',       '1'),
('conversations',               'insert', 'insert into user_conversations (participant_1_id, participant_2_id) values ($me, tests.id(''sue''))', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('conversations',               'update', 'update user_conversations set title = ''x'' where id = $conversation',                            'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('conversations',               'delete', 'delete from user_conversations where id = $conversation',                                         'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),

('memberships',                 'select', 'select from user_conversation_members where conversation_id = $conversation',                     '1',       '1',       '0',       '0',       '0',       'refused', '1',       '0',       '2'),
('memberships',                 'insert', 'insert into user_conversation_members (conversation_id, user_id) values ($conversation, tests.id(''zoe''))', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('own membership',              'update', 'update user_conversation_members set is_pinned = true where conversation_id = $conversation and user_id = $me', '1', '1', '0',     '0',       '0',       'refused', '1',       '0',       '1'),
('anybody''s membership',       'update', 'update user_conversation_members set is_muted = true where conversation_id = $conversation',       '1',       '1',       '0',       '0',       '0',       'refused', '1',       '0',       '2'),
('own counters',                'update', 'update user_conversation_members set unread_count = 0 where conversation_id = $conversation and user_id = $me', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('memberships',                 'delete', 'delete from user_conversation_members where conversation_id = $conversation',                     'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '2'),

('receipts',                    'select', 'select from conversation_receipts where conversation_id = $conversation',                         '2',       '2',       '0',       '0',       '0',       'refused', '2',       '0',       '2'),
('receipts',                    'insert', 'insert into conversation_receipts (conversation_id, user_id) values ($conversation, tests.id(''zoe''))', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('receipts',                    'update', 'update conversation_receipts set last_read_seq = 9 where conversation_id = $conversation',        'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '2'),
('receipts',                    'delete', 'delete from conversation_receipts where conversation_id = $conversation',                         'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '2'),

('messages',                    'select', 'select from user_messages where conversation_id = $conversation',                                 '2',       '2',       '0',       '0',       '0',       'refused', '2',       '0',       '2'),
('messages as oneself',         'insert', 'insert into user_messages (conversation_id, sender_id, content) values ($conversation, $me, ''x'')', '1',    '1',       'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('messages as Ben',             'insert', 'insert into user_messages (conversation_id, sender_id, content) values ($conversation, tests.id(''ben''), ''x'')', 'refused', '1', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('system messages',             'insert', 'insert into user_messages (conversation_id, sender_id, content, message_type) values ($conversation, $me, ''x'', ''system'')', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('messages with a number',      'insert', 'insert into user_messages (conversation_id, sender_id, content, seq) values ($conversation, $me, ''x'', 99)', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('own messages',                'update', 'update user_messages set content = ''y'' where conversation_id = $conversation and sender_id = $me', '1',     '1',       '0',       '0',       '0',       'refused', 'refused', '0',       '1'),
('own messages, taken back',    'update', 'update user_messages set is_deleted = true where conversation_id = $conversation and sender_id = $me', '1',   '1',       '0',       '0',       '0',       'refused', '1',       '0',       '1'),
('Ana''s messages',             'update', 'update user_messages set content = ''y'' where conversation_id = $conversation and sender_id = tests.id(''ana'')', '1', '0', '0',    '0',       '0',       'refused', '0',       '0',       '1'),
('who read a message',          'update', 'update user_messages set read_by = array[$me]::uuid[] where conversation_id = $conversation',      'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '2'),
('messages',                    'delete', 'delete from user_messages where conversation_id = $conversation',                                 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '2'),

('earlier wordings',            'select', 'select from message_edits where conversation_id = $conversation',                                 '1',       '1',       '0',       '0',       '0',       'refused', '1',       '0',       '1'),
('earlier wordings',            'insert', 'insert into message_edits (message_id, conversation_id, version, previous_content) select id, conversation_id, 9, ''x'' from user_messages where conversation_id = $conversation', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '2'),
('earlier wordings',            'update', 'update message_edits set previous_content = ''x'' where conversation_id = $conversation',         'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('earlier wordings',            'delete', 'delete from message_edits where conversation_id = $conversation',                                 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),

('hidden messages',             'select', 'select from message_hides',                                                                       '3',       '0',       '0',       '0',       '0',       'refused', '0',       '0',       '3'),
('hidden messages',             'insert', 'insert into message_hides (user_id, message_id) select $me, id from user_messages where conversation_id = $conversation and sender_id = tests.id(''ana'')', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('hidden messages',             'update', 'update message_hides set created_at = now()',                                                     'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '3'),
('hidden messages',             'delete', 'delete from message_hides',                                                                       'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '3'),

('drafts',                      'select', 'select from message_drafts where conversation_id = $conversation',                                '1',       '0',       '0',       '0',       '0',       'refused', '0',       '0',       '1'),
('drafts',                      'insert', 'insert into message_drafts (user_id, conversation_id, content) values (tests.id(''zoe''), $conversation, ''x'')', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('drafts',                      'update', 'update message_drafts set content = ''x'' where conversation_id = $conversation',                 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('drafts',                      'delete', 'delete from message_drafts where conversation_id = $conversation',                                'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),

('reactions',                   'select', 'select from message_reactions where conversation_id = $conversation',                             '1',       '1',       '0',       '0',       '0',       'refused', '1',       '0',       '1'),
('reactions as oneself',        'insert', 'insert into message_reactions (message_id, user_id, reaction) select m.id, $me, ''🎉'' from tests.first_message($conversation) m', '1', '1', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('reactions as Ben',            'insert', 'insert into message_reactions (message_id, user_id, reaction) select m.id, tests.id(''ben''), ''🎉'' from tests.first_message($conversation) m', 'refused', '1', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('reactions',                   'update', 'update message_reactions set reaction = ''x'' where conversation_id = $conversation',             'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'error'),
('Ana''s reactions',            'delete', 'delete from message_reactions where conversation_id = $conversation',                             '1',       '0',       '0',       '0',       '0',       'refused', '0',       '0',       '1'),

('pins',                        'select', 'select from message_pins where conversation_id = $conversation',                                  '1',       '1',       '0',       '0',       '0',       'refused', '1',       '0',       '1'),
('pins',                        'insert', 'insert into message_pins (message_id, conversation_id) select m.id, $conversation from tests.first_message($conversation) m', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'error'),
('pins',                        'update', 'update message_pins set pinned_by = $me where conversation_id = $conversation',                   'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('pins',                        'delete', 'delete from message_pins where conversation_id = $conversation',                                  'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),

('reports',                     'select', 'select from chat.message_reports',                                                                     'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '3'),
('reports',                     'insert', 'insert into chat.message_reports (reporter_id, reason, content, sent_at) values ($me, ''spam'', '''', now())', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('reports',                     'update', 'update chat.message_reports set note = ''''',                                                          'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '3'),
('reports',                     'delete', 'delete from chat.message_reports',                                                                     'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '3'),

('idempotency keys',            'select', 'select from chat.idempotency_keys',                                                                    'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('idempotency keys',            'insert', 'insert into chat.idempotency_keys (user_id, key, request_hash) values ($me, ''k2'', ''x'')',              'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('idempotency keys',            'update', 'update chat.idempotency_keys set request_hash = ''y''',                                                   'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('idempotency keys',            'delete', 'delete from chat.idempotency_keys',                                                                      'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),

('Ana''s presence',             'select', 'select from user_presence where user_id = tests.id(''ana'')',                                     '1',       '1',       '0',       '1',       '0',       'refused', '1',       '1',       '1'),
('own presence',                'upsert', 'insert into user_presence (user_id, status) values ($me, ''away'') on conflict (user_id) do update set user_id = excluded.user_id, status = excluded.status', '1', '1', '1', '1', '1', 'refused', '1', '1', '1'),
('Ana''s presence',             'update', 'update user_presence set status = ''away'' where user_id = tests.id(''ana'')',                    '1',       '0',       '0',       '0',       '0',       'refused', '0',       '0',       '1'),
('own presence, given away',    'update', 'update user_presence set user_id = tests.id(''zoe'') where user_id = $me',                        'refused', '0',       '0',       '0',       '0',       'refused', '0',       '0',       '1'),
('presence',                    'delete', 'delete from user_presence',                                                                       'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),

('pages',                        'select', 'select from chat.presence_pages', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('pages',                        'insert', 'insert into chat.presence_pages (user_id, page) values ($me, ''/x'')', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('pages',                        'update', 'update chat.presence_pages set page = ''/x''', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('pages',                        'delete', 'delete from chat.presence_pages', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('devices'' reports',           'select', 'select from chat.presence_reports',                                                               'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('devices'' reports',           'insert', 'insert into chat.presence_reports (user_id) values ($me)',                                        'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('devices'' reports',           'update', 'update chat.presence_reports set status = ''online''',                                            'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('devices'' reports',           'delete', 'delete from chat.presence_reports',                                                               'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('devices'' reports by session','select', 'select from chat.presence_report_sessions',                                                       'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('devices'' reports by session','insert', 'insert into chat.presence_report_sessions (user_id, session_id, status, expires_at) values ($me, ''s'', ''online'', now())', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('devices'' reports by session','update', 'update chat.presence_report_sessions set status = ''away''',                                      'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('devices'' reports by session','delete', 'delete from chat.presence_report_sessions',                                                       'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('processes with sockets',      'select', 'select from chat.presence_processes',                                                             'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('processes with sockets',      'insert', 'insert into chat.presence_processes (process_id, lease_until) values ($me, now())',               'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('processes with sockets',      'update', 'update chat.presence_processes set lease_until = now()',                                          'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('processes with sockets',      'delete', 'delete from chat.presence_processes',                                                             'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('sockets at processes',        'select', 'select from chat.presence_sessions',                                                              'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('sockets at processes',        'insert', 'insert into chat.presence_sessions (user_id, process_id, devices) values ($me, $me, 1)',          'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('sockets at processes',        'update', 'update chat.presence_sessions set devices = 2',                                                   'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('sockets at processes',        'delete', 'delete from chat.presence_sessions',                                                              'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),

('blocks',                      'select', 'select from user_blocks',                                                                         '1',       '0',       '0',       '0',       '0',       'refused', '0',       '0',       '1'),
('own blocks',                  'insert', 'insert into user_blocks (blocker_id, blocked_id) values ($me, tests.id(''eve''))',                 '1',       '1',       'refused',       '1',       '1',       'refused', '1',       'error',   '1'),
('Ana''s blocks',               'insert', 'insert into user_blocks (blocker_id, blocked_id) values (tests.id(''ana''), tests.id(''sue''))',   '1',       'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('blocks',                      'update', 'update user_blocks set created_at = now()',                                                       'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('blocks',                      'delete', 'delete from user_blocks',                                                                         '1',       '0',       '0',       '0',       '0',       'refused', '0',       '0',       '1'),

('preferences',                 'select', 'select from user_notification_preferences',                                                       '1',       '0',       '0',       '0',       '0',       'refused', '0',       '0',       '1'),
('Zoe''s preferences',          'insert', 'insert into user_notification_preferences (user_id) values (tests.id(''zoe''))',                   'refused', 'refused', '1',       'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('Ana''s preferences',          'update', 'update user_notification_preferences set share_typing = false',                                   '1',       '0',       '0',       '0',       '0',       'refused', '0',       '0',       '1'),
('preferences',                 'delete', 'delete from user_notification_preferences',                                                       'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),

('settings',                    'select', 'select from chat.config where key = ''team''',                                                    'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '1'),
('requests',                    'select', 'select from chat.message_requests',                                                               'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '0'),
('removed messages',            'select', 'select from chat.removed_messages',                                                               'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '0'),
('removed memberships',         'select', 'select from chat.removed_memberships',                                                            'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', '0'),
('directory',                   'select', 'select from chat.directory',                                                                      'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused'),
('names of teams',              'select', 'select from chat.teams',                                                                          'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused', 'refused');

-- Reads without row-level security, so that a stranger also has a message id to try.
create function tests.first_message(conversation uuid)
returns table (id uuid)
language sql
stable
security definer
as $$ select m.id from public.user_messages m where m.conversation_id = conversation order by m.seq limit 1 $$;

create function tests.attempt_or_error(statement text)
returns text
language plpgsql
as $$
begin
  return tests.attempt(statement);
exception when others then
  return 'error';
end
$$;

do $$
declare
  cell record;
  outcome text;
  wrong text := '';
begin
  for cell in
    select g.subject, g.verb, a.actor, a.expected,
      replace(replace(g.statement, '$conversation', quote_literal(s.conversation) || '::uuid'),
        '$me', quote_literal(coalesce(tests.id(s.actor), tests.id('ana'))) || '::uuid') as statement
    from tests.grid g
    cross join lateral (values
      ('ana', g.ana), ('ben', g.ben), ('zoe', g.zoe), ('ada', g.ada), ('sue', g.sue),
      ('anon', g.anon), ('bob', g.blocked), ('eve', g.ex_member), ('service_role', g.service_role)
    ) a (actor, expected)
    join tests.scene s on s.actor = a.actor
  loop
    perform tests.act_as(cell.actor);
    outcome := tests.attempt_or_error(cell.statement);
    perform tests.act_as('owner');
    if outcome is distinct from cell.expected then
      wrong := wrong || format(E'\n%s %s by %s: expected %s, got %s', cell.verb, cell.subject, cell.actor, cell.expected, outcome);
    end if;
  end loop;
  if wrong <> '' then
    raise exception 'The grid differs: %', wrong;
  end if;
end
$$;

rollback;
