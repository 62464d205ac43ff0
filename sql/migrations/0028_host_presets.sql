-- The host mapping is rebuilt from more presets, so its helpers have other arguments and results.
-- Only chat.install_host_mapping() calls them; no server does.

drop function if exists chat.detect_host_preset();
drop function if exists chat.host_team_source(text);
drop function if exists chat.host_mapping(text);
drop function if exists chat.users_table_mapping();
drop function if exists chat.claims_mapping();
drop function if exists chat.teams_mapping();
drop function if exists chat.replace_host_view(text, text, regclass);
drop function if exists chat.point_people_at(regclass);
drop function if exists chat.host_columns(regclass, text[]);

-- What a preset reads from the application. "directory" is null if the database lacks the tables
-- of the preset, or if "problem" tells why the preset cannot use them.
create type chat.host_source as (
  -- the table and column that user ids refer to; null if no table contains all users
  people regclass,
  people_key name,
  -- the texts of the views, and the relations that they read
  directory text,
  directory_tables regclass[],
  memberships text,
  memberships_tables regclass[],
  -- the table of memberships and the column with the team, where the application's tables decide
  members regclass,
  team name,
  -- the table that contains the names of teams
  teams regclass,
  teams_key name,
  -- where roles and teams are stored, for the attempts of chat.attempt_self_promotion()
  watched jsonb,
  problem text
);
