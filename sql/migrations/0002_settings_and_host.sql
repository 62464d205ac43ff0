-- Settings, and the two views through which the chat knows the application around it.

grant usage on schema chat to authenticated, service_role;

create table chat.config (
  key text not null,
  value jsonb not null,
  constraint config_pkey primary key (key)
);

comment on table chat.config is
  'Settings that the database itself must know. A missing key means its default; an unknown key is ignored.';

insert into chat.config (key, value) values
  -- may an admin message people of other teams
  ('admin_cross_team', 'false'),
  -- reading other people''s conversations: "off" is the only value in force
  ('super_admin_read', '"off"'),
  -- an archived conversation returns to the list when a message arrives
  ('unarchive_on_message', 'true'),
  -- mirror typing into user_presence for clients that watch that table
  ('typing_in_table', 'false'),
  -- fill user_messages.read_by: rewrites a row per message read
  ('fill_read_by', 'false'),
  -- keep the page somebody is looking at
  ('share_current_page', 'false'),
  -- in code points, 1 to 20000
  ('max_message_length', '4000'),
  -- how long after sending a message may be edited; 0 = always
  ('edit_window_s', '0'),
  -- file_url must begin with this address; null = no links to files from people
  ('storage_url', 'null'),
  -- how long a REST heartbeat keeps somebody present
  ('presence_ttl_s', '60'),
  -- the same for clients that write user_presence themselves, which beat more slowly
  ('presence_table_ttl_s', '300'),
  -- how long a typing notice stays true
  ('typing_ttl_ms', '6000'),
  -- the team of everybody under the host mapping "one_team"
  ('team', '"everyone"');

-- Empty until chat.install_host_mapping() rewrites them; their columns are what the rest of the schema relies on.
create view chat.directory as
select
  null::uuid as user_id,
  null::text as display_name,
  null::text as email,
  null::text as avatar_url,
  null::boolean as is_active,
  null::text as role
where false;

comment on view chat.directory is
  'One row per person of the host application. role is user, admin or super_admin. Written by chat.install_host_mapping().';

create view chat.memberships as
select
  null::uuid as user_id,
  null::text as team_id
where false;

comment on view chat.memberships is
  'One row per person and team of the host application. Written by chat.install_host_mapping().';
